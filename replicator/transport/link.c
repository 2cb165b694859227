/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * See link.h. One thread, blocking calls with short time limits, so that a close is never waited for longer
 * than one of them. The mutex guards what the control thread asks for; nothing slow happens under it.
 *
 * Both ends send HELLO at once and then read the other's. The token is compared in constant time: it is what
 * tells a replicator of this VM from any other process that can reach the port.
 */
#include "replicator/transport/link.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "replicator/note.h"
#include "replicator/transport/connection.h"

#define DIAL_TIMEOUT_MS  500
#define RETRY_MS         100
#define REFUSED_RETRY_MS 500
#define ACCEPT_POLL_MS   100

struct link {
    GThread *thread;
    struct mailbox *control;
    struct staging *staging;
    struct endpoint *endpoints[LINK_MAX_ENDPOINTS];
    unsigned nendpoints;
    uint64_t next_id; /* link thread */
    char *complaint;  /* the last one; link thread */

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

/* Polls all that listen, and takes the first that has somebody. */
static struct transport *accept_one(struct link *link)
{
    struct pollfd fds[LINK_MAX_ENDPOINTS];
    struct transport *transport = NULL;
    for (unsigned i = 0; i < link->nendpoints; i++)
        fds[i] =
            (struct pollfd){.fd = link->endpoints[i]->ops->listen_fd(link->endpoints[i]), .events = POLLIN};
    if (poll(fds, link->nendpoints, ACCEPT_POLL_MS) <= 0)
        return NULL;
    for (unsigned i = 0; i < link->nendpoints && !transport; i++)
        if (fds[i].revents && link->endpoints[i]->ops->accept(link->endpoints[i], &transport) < 0)
            transport = NULL;
    return transport;
}

/* Tries one endpoint after the other. *why: what was wrong with those that failed, the caller's, or NULL. */
static struct transport *dial(struct link *link, char **why)
{
    struct transport *transport = NULL;
    g_mutex_lock(&link->mutex);
    g_autofree char *host = g_strdup(link->host);
    g_autofree char *port = g_strdup(link->port);
    g_mutex_unlock(&link->mutex);
    for (unsigned i = 0; host && port && !transport && i < link->nendpoints; i++) {
        struct endpoint *endpoint = link->endpoints[i];
        g_autofree char *reason = NULL;
        if (endpoint->ops->dial(endpoint, host, port, DIAL_TIMEOUT_MS, &transport, &reason) == 0)
            break;
        transport = NULL;
        g_free(*why);
        *why = g_steal_pointer(&reason);
    }
    return transport;
}

static void refuse(struct link *link, int status, const char *text)
{
    struct note *note = note_new(NOTE_LINK_REFUSED, text, strlen(text));
    note->status = status;
    mailbox_post(link->control, &note->letter);
}

/* Says and hears HELLO. 0, or a negative errno after a note that says why. */
static int introduce(struct link *link, struct connection *connection, struct wire_hello *theirs)
{
    struct transport *transport = connection->transport;
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
    connection->said = ours.images;
    connection->heard = theirs->images;
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

static bool ours_is_secondary(struct link *link)
{
    g_mutex_lock(&link->mutex);
    bool secondary = link->hello.role == WIRE_ROLE_SECONDARY;
    g_mutex_unlock(&link->mutex);
    return secondary;
}

/* why: the reason for this transport and no better one, or NULL. */
static void serve(struct link *link, struct transport *transport, const char *why)
{
    struct wire_hello *theirs = g_new0(struct wire_hello, 1);
    struct connection *connection = connection_new(transport, ++link->next_id);
    uint64_t request = 0;
    int status = publish(link, connection, &request) ? introduce(link, connection, theirs) : -ECANCELED;
    bool up = status == 0;
    if (up) {
        struct note *note = note_new(NOTE_LINK_UP, why, why ? strlen(why) : 0);
        note->link = connection->id;
        note->term = theirs->term;
        note->arg = theirs->role;
        note->connection = connection_get(connection);
        mailbox_post(link->control, &note->letter);
        status = receive_until_down(link, connection,
                                    ours_is_secondary(link) && theirs->role == WIRE_ROLE_PRIMARY);
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

/* Where RDMA alone is allowed, status has to say why there is no link. Once for each reason. */
static void complain(struct link *link, const char *why)
{
    bool rdma_only = link->nendpoints == 1 && strcmp(link->endpoints[0]->ops->name, "rdma") == 0;
    if (!rdma_only || !why || g_strcmp0(why, link->complaint) == 0)
        return;
    g_free(link->complaint);
    link->complaint = g_strdup(why);
    refuse(link, -EHOSTUNREACH, why);
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
        g_autofree char *why = NULL;
        bool listens = ours_is_secondary(link);
        struct transport *transport = listens ? accept_one(link) : dial(link, &why);
        if (transport)
            serve(link, transport, why);
        else if (!listens)
            complain(link, why);
        if (!transport && !listens)
            pause_attempts(link, RETRY_MS);
    }
    return NULL;
}

struct link *link_new(struct mailbox *control, struct staging *staging, struct endpoint *const *endpoints,
                      unsigned nendpoints)
{
    struct link *link = g_new0(struct link, 1);
    link->control = control;
    link->staging = staging;
    link->nendpoints = MIN(nendpoints, LINK_MAX_ENDPOINTS);
    memcpy(link->endpoints, endpoints, link->nendpoints * sizeof *endpoints);
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
    g_mutex_clear(&link->mutex);
    g_cond_clear(&link->changed);
    g_free(link->complaint);
    g_free(link->host);
    g_free(link->port);
    g_free(link);
}
