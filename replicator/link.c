/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * See link.h. One thread, blocking calls with short time limits, so that a close is never waited for longer
 * than one of them. The mutex guards what the control thread asks for; nothing slow happens under it.
 *
 * Both ends send HELLO at once and then read the other's. The token is compared in constant time: it is what
 * tells a replicator of this VM from any other process that can reach the port.
 */
#include "replicator/link.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "replicator/connection.h"
#include "replicator/note.h"
#include "replicator/transport_tcp.h"

#define DIAL_TIMEOUT_MS  500
#define RETRY_MS         100
#define REFUSED_RETRY_MS 500
#define ACCEPT_POLL_MS   100

struct link {
    GThread *thread;
    struct mailbox *control;
    struct staging *staging;
    int listen_fd;
    unsigned stall_ms;
    uint64_t next_id; /* link thread */

    GMutex mutex;
    GCond changed;
    bool quit, wanted;          /* control asks */
    uint64_t request;           /* counts link_open: an ending connection must not cancel a newer request */
    struct wire_hello hello;    /* ours */
    char *host, *port;          /* dial here */
    struct connection *current; /* link thread sets; control shuts down */
};

/* Sleeps, but not through a quit or a change of mind. */
static void pause_attempts(struct link *link, unsigned ms)
{
    gint64 until = g_get_monotonic_time() + (gint64)ms * 1000;
    g_mutex_lock(&link->mutex);
    while (!link->quit && link->wanted && g_cond_wait_until(&link->changed, &link->mutex, until))
        ;
    g_mutex_unlock(&link->mutex);
}

static int accept_one(struct link *link)
{
    struct pollfd pfd = {.fd = link->listen_fd, .events = POLLIN};
    if (poll(&pfd, 1, ACCEPT_POLL_MS) <= 0)
        return -EAGAIN;
    int fd = accept4(link->listen_fd, NULL, NULL, SOCK_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

static int dial(struct link *link)
{
    g_mutex_lock(&link->mutex);
    g_autofree char *host = g_strdup(link->host);
    g_autofree char *port = g_strdup(link->port);
    g_mutex_unlock(&link->mutex);
    int fd = -1;
    if (!host || !port)
        return -EDESTADDRREQ;
    int status = transport_tcp_connect(host, port, DIAL_TIMEOUT_MS, &fd, NULL);
    return status < 0 ? status : fd;
}

static void refuse(struct link *link, int status, const char *text)
{
    struct note *note = note_new(NOTE_LINK_REFUSED, text, strlen(text));
    note->status = status;
    mailbox_post(link->control, &note->letter);
}

/* Says and hears HELLO. 0, or a negative errno after a note that says why. */
static int introduce(struct link *link, struct transport *transport, struct wire_hello *theirs)
{
    g_autofree uint8_t *bytes = g_malloc(WIRE_HELLO_MAX_LEN);
    g_mutex_lock(&link->mutex);
    struct wire_hello ours = link->hello;
    g_mutex_unlock(&link->mutex);
    int len = wire_hello_encode(&ours, bytes, WIRE_HELLO_MAX_LEN);
    if (len < 0)
        return len;
    struct transport_message message = {
        .type = MESSAGE_HELLO, .term = ours.term, .len = (size_t)len, .payload = bytes};
    int status = transport->ops->send_message(transport, &message);
    if (status < 0)
        return status;
    struct transport_received received = {0};
    status = transport->ops->receive(transport, NULL, &received);
    if (status < 0) {
        if (status == -EPROTONOSUPPORT)
            refuse(link, status,
                   "the peer's understudy speaks another protocol version: install the same version on both "
                   "hosts");
        return status;
    }
    if (received.message.type != MESSAGE_HELLO ||
        wire_hello_decode(theirs, received.message.payload, received.message.len) < 0) {
        refuse(link, -EPROTO,
               "the peer did not introduce itself properly: is another program using its port?");
        return -EPROTO;
    }
    if (!wire_token_equal(theirs->token, ours.token)) {
        refuse(link, -EACCES, "a connection with the wrong session token was refused");
        return -EACCES;
    }
    if (!wire_hello_same_layout(theirs, &ours)) {
        refuse(link, -EINVAL,
               "the peer's QEMU has other RAM blocks: use the same QEMU, firmware and command line on both "
               "hosts");
        return -EINVAL;
    }
    return 0;
}

static void post_received(struct link *link, uint64_t id, const struct transport_received *received)
{
    const struct transport_message *message = &received->message;
    bool is_epoch = received->epoch != NULL;
    struct note *note = note_new(is_epoch ? NOTE_EPOCH_RECEIVED : NOTE_MESSAGE,
                                 is_epoch ? NULL : message->payload, is_epoch ? 0 : message->len);
    note->link = id;
    note->arg = message->type;
    note->aux = message->arg;
    note->term = message->term;
    note->epoch = message->epoch;
    note->staged = received->epoch;
    mailbox_post(link->control, &note->letter);
}

static int receive_until_down(struct link *link, struct connection *connection, bool take_epochs)
{
    for (;;) {
        struct transport_received received = {0};
        int status = connection->transport->ops->receive(connection->transport,
                                                         take_epochs ? link->staging : NULL, &received);
        if (status < 0)
            return status;
        post_received(link, connection->id, &received);
    }
}

/* Publishes the connection to the control thread, unless that has changed its mind. */
static bool publish(struct link *link, struct connection *connection, uint64_t *request)
{
    g_mutex_lock(&link->mutex);
    bool wanted = link->wanted && !link->quit;
    if (wanted)
        link->current = connection;
    *request = link->request;
    g_mutex_unlock(&link->mutex);
    return wanted;
}

static void serve(struct link *link, int fd)
{
    struct wire_hello *theirs = g_new0(struct wire_hello, 1);
    struct connection *connection = connection_new(transport_tcp_new(fd, link->stall_ms), ++link->next_id);
    uint64_t request = 0;
    int status =
        publish(link, connection, &request) ? introduce(link, connection->transport, theirs) : -ECANCELED;
    bool up = status == 0;
    if (up) {
        struct note *note = note_new(NOTE_LINK_UP, NULL, 0);
        note->link = connection->id;
        note->term = theirs->term;
        note->arg = theirs->role;
        note->connection = connection_get(connection);
        mailbox_post(link->control, &note->letter);
        status =
            receive_until_down(link, connection, link->listen_fd >= 0 && theirs->role == WIRE_ROLE_PRIMARY);
    }
    g_free(theirs);
    g_mutex_lock(&link->mutex);
    link->current = NULL;
    if (up && link->request == request)
        link->wanted = false;
    g_mutex_unlock(&link->mutex);
    connection_shutdown(connection);
    if (up) {
        struct note *note = note_new(NOTE_LINK_DOWN, NULL, 0);
        note->link = connection->id;
        note->status = status;
        mailbox_post(link->control, &note->letter);
    } else {
        pause_attempts(link, REFUSED_RETRY_MS);
    }
    connection_put(connection);
}

static bool wait_until_wanted(struct link *link)
{
    g_mutex_lock(&link->mutex);
    while (!link->quit && !link->wanted)
        g_cond_wait(&link->changed, &link->mutex);
    bool go_on = !link->quit;
    g_mutex_unlock(&link->mutex);
    return go_on;
}

static gpointer link_run(gpointer opaque)
{
    struct link *link = opaque;
    while (wait_until_wanted(link)) {
        g_mutex_lock(&link->mutex);
        bool listens = link->hello.role == WIRE_ROLE_SECONDARY;
        g_mutex_unlock(&link->mutex);
        int fd = listens ? accept_one(link) : dial(link);
        if (fd >= 0)
            serve(link, fd);
        else if (!listens)
            pause_attempts(link, RETRY_MS);
    }
    return NULL;
}

struct link *link_new(struct mailbox *control, struct staging *staging, int listen_fd, unsigned stall_ms)
{
    struct link *link = g_new0(struct link, 1);
    link->control = control;
    link->staging = staging;
    link->listen_fd = listen_fd;
    link->stall_ms = stall_ms;
    g_mutex_init(&link->mutex);
    g_cond_init(&link->changed);
    link->thread = g_thread_new("link", link_run, link);
    return link;
}

void link_set_peer(struct link *link, const char *host, const char *port)
{
    g_mutex_lock(&link->mutex);
    g_free(link->host);
    g_free(link->port);
    link->host = g_strdup(host);
    link->port = g_strdup(port);
    g_mutex_unlock(&link->mutex);
}

void link_open(struct link *link, const struct wire_hello *hello)
{
    g_mutex_lock(&link->mutex);
    link->hello = *hello;
    link->wanted = true;
    link->request++;
    g_cond_broadcast(&link->changed);
    g_mutex_unlock(&link->mutex);
}

/* Asks the thread to give up, and wakes it wherever it is. */
static void give_up(struct link *link, bool quit, bool now)
{
    g_mutex_lock(&link->mutex);
    link->wanted = false;
    link->quit |= quit;
    if (link->current && now)
        connection_shutdown(link->current);
    g_cond_broadcast(&link->changed);
    g_mutex_unlock(&link->mutex);
}

void link_close(struct link *link, bool now)
{
    give_up(link, false, now);
}

void link_free(struct link *link)
{
    if (!link)
        return;
    give_up(link, true, true);
    g_thread_join(link->thread);
    if (link->listen_fd >= 0)
        close(link->listen_fd);
    g_mutex_clear(&link->mutex);
    g_cond_clear(&link->changed);
    g_free(link->host);
    g_free(link->port);
    g_free(link);
}
