/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The link thread. Its blocking calls have short time limits, so a close never waits for longer than one of
 * them. The mutex guards what the control thread asks for; nothing slow happens under it.
 *
 * An attempt serves one request of the control thread: if the request changes, or the peer moves, the
 * attempt is given up. HELLO runs on threads of its own (introduction.h). A side that listens takes several
 * connections at once, a bounded number, and the first whose introduction succeeds is the peer's. When
 * strangers fill all places, the oldest connection is closed for the next one: a peer speaks at once, so
 * strangers never keep it out.
 */
#include "replicator/transport/link.h"

#include <errno.h>
#include <gio/gio.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "replicator/note.h"
#include "replicator/transport/connection.h"
#include "replicator/transport/introduction.h"

#define DIAL_TIMEOUT_MS  500
#define RETRY_MS         100
#define REFUSED_RETRY_MS 500
#define POLL_MS          100
#define ROOM_POLL_MS     100
/* The peer's messages that the control thread has not read. Each may be as long as TRANSPORT_MAX_PAYLOAD. */
#define MAX_LETTERS 128u

struct link {
    GThread *thread;
    struct mailbox *control;
    struct staging *staging;
    struct endpoint *endpoints[LINK_MAX_ENDPOINTS];
    unsigned nendpoints;
    uint64_t next_id;  /* link thread */
    char *complaint;   /* the last one; link thread */
    gint64 refused_us; /* when control was told last; link thread */
    int wake_fd;       /* wakes the link thread where it polls */

    /* Link thread: connections without a completed HELLO, the oldest first. */
    struct introduction *pending[LINK_MAX_PENDING];
    unsigned npending;

    GMutex mutex;
    GCond changed;
    bool quit, wanted; /* control asks */
    uint64_t request;  /* counts link_open: an ending connection must not cancel a newer request */
    uint64_t moves;    /* counts link_set_peer and link_set_security */
    struct link_security security;
    struct wire_hello hello;    /* ours */
    char *host, *port;          /* dial here */
    struct connection *current; /* link thread sets; control shuts down */
};

/* The request that an attempt serves. */
struct attempt {
    bool listens;
    uint64_t request, moves;
    struct wire_hello hello;
    struct link_security security;
    char *host, *port;
};

/* Waits until there is something to do. False: quit. */
static bool attempt_begin(struct link *link, struct attempt *attempt)
{
    g_mutex_lock(&link->mutex);
    while (!link->quit && !link->wanted)
        g_cond_wait(&link->changed, &link->mutex);
    bool go_on = !link->quit;
    attempt->listens = link->hello.role == WIRE_ROLE_SECONDARY;
    attempt->request = link->request;
    attempt->moves = link->moves;
    attempt->hello = link->hello;
    attempt->security = link->security;
    attempt->host = g_strdup(link->host);
    attempt->port = g_strdup(link->port);
    g_mutex_unlock(&link->mutex);
    return go_on;
}

static void attempt_clear(struct attempt *attempt)
{
    g_free(attempt->host);
    g_free(attempt->port);
    seal_wipe(&attempt->security, sizeof attempt->security);
}

static bool still_wanted_locked(const struct link *link, const struct attempt *attempt)
{
    return link->wanted && !link->quit && link->request == attempt->request &&
           (attempt->listens || link->moves == attempt->moves);
}

static bool still_wanted(struct link *link, const struct attempt *attempt)
{
    g_mutex_lock(&link->mutex);
    bool wanted = still_wanted_locked(link, attempt);
    g_mutex_unlock(&link->mutex);
    return wanted;
}

/* Sleeps, but wakes for a quit or a changed request. */
static void pause_attempts(struct link *link, const struct attempt *attempt, unsigned ms)
{
    gint64 until = g_get_monotonic_time() + (gint64)ms * 1000;
    g_mutex_lock(&link->mutex);
    while (still_wanted_locked(link, attempt) && g_cond_wait_until(&link->changed, &link->mutex, until))
        ;
    g_mutex_unlock(&link->mutex);
}

static void refuse(struct link *link, int status, const char *text)
{
    struct note *note = note_new(NOTE_LINK_REFUSED, text, strlen(text));
    note->status = status;
    mailbox_post(link->control, &note->letter);
    link->refused_us = g_get_monotonic_time();
}

/*
 * Reports a refused connection, at most twice a second: a stranger that keeps connecting fills neither the
 * log nor the mailbox.
 */
static void refuse_seldom(struct link *link, int status, const char *text)
{
    if (g_get_monotonic_time() - link->refused_us >= (gint64)REFUSED_RETRY_MS * 1000)
        refuse(link, status, text);
}

/* ---- connections that have not introduced themselves yet ---- */

/* Takes it off the list; see introduction_end. */
static struct connection *pending_take(struct link *link, unsigned index, bool keep)
{
    struct introduction *introduction = link->pending[index];
    link->npending--;
    memmove(link->pending + index, link->pending + index + 1,
            (link->npending - index) * sizeof *link->pending);
    return introduction_end(introduction, keep);
}

static void pending_drop_all(struct link *link)
{
    while (link->npending > 0)
        pending_take(link, 0, false);
}

static void pending_add(struct link *link, const struct attempt *attempt, struct transport *transport)
{
    struct connection *connection = connection_new(transport, ++link->next_id);
    if (link->npending == LINK_MAX_PENDING) {
        unsigned oldest = 0; /* of those that are not over: they may be the peer's */
        while (oldest + 1 < LINK_MAX_PENDING && introduction_is_over(link->pending[oldest]))
            oldest++;
        pending_take(link, oldest, false);
    }
    struct introduction *introduction =
        introduction_new(connection, &attempt->hello, &attempt->security, !attempt->listens, link->wake_fd);
    if (introduction)
        link->pending[link->npending++] = introduction;
}

/*
 * Drops connections whose HELLO failed or takes too long. Returns the newest that succeeded, its HELLO in
 * *theirs (a peer that dials again has given the older one up), or NULL: none yet.
 */
static struct connection *pending_sort(struct link *link, struct wire_hello *theirs)
{
    struct connection *met = NULL;
    for (unsigned i = link->npending; i-- > 0;) {
        struct introduction *introduction = link->pending[i];
        const char *why = NULL;
        bool over = introduction_is_over(introduction);
        if (!over && introduction_age_us(introduction) < (gint64)LINK_HELLO_MS * 1000)
            continue;
        int status = over ? introduction_status(introduction, &why) : -ETIMEDOUT;
        bool keep = status == 0 && !met;
        if (keep)
            *theirs = *introduction_hello(introduction);
        struct connection *connection = pending_take(link, i, keep);
        met = keep ? connection : met;
        if (why)
            refuse_seldom(link, status, why);
    }
    return met;
}

/* ---- making connections ---- */

/* Sleeps until an introduction is over, somebody connects, control asks for something, or for a moment. */
static void wait_for_events(struct link *link, bool listens, struct pollfd fds[LINK_MAX_ENDPOINTS + 1])
{
    uint64_t wakes;
    for (unsigned i = 0; i < link->nendpoints; i++) {
        int fd = listens ? link->endpoints[i]->ops->listen_fd(link->endpoints[i]) : -1;
        fds[i] = (struct pollfd){.fd = fd, .events = POLLIN};
    }
    fds[link->nendpoints] = (struct pollfd){.fd = link->wake_fd, .events = POLLIN};
    poll(fds, link->nendpoints + 1, POLL_MS);
    if (fds[link->nendpoints].revents) {
        ssize_t ignored = read(link->wake_fd, &wakes, sizeof wakes);
        (void)ignored;
    }
}

/* Listens until a peer has completed HELLO. NULL: the attempt is not wanted any more. */
static struct connection *await_peer(struct link *link, const struct attempt *attempt,
                                     struct wire_hello *theirs)
{
    struct connection *met = NULL;
    while (!met && still_wanted(link, attempt)) {
        struct pollfd fds[LINK_MAX_ENDPOINTS + 1];
        wait_for_events(link, true, fds);
        for (unsigned i = 0; i < link->nendpoints; i++) {
            struct transport *transport = NULL;
            int status =
                fds[i].revents ? link->endpoints[i]->ops->accept(link->endpoints[i], &transport) : -EAGAIN;
            if (status == 0)
                pending_add(link, attempt, transport);
            else if (status == -EMFILE || status == -ENFILE || status == -ENOMEM || status == -ENOBUFS)
                pause_attempts(link, attempt, RETRY_MS); /* the descriptor stays readable: do not spin */
        }
        met = pending_sort(link, theirs);
    }
    pending_drop_all(link);
    return met;
}

/* Tries one endpoint after the other. *why: what was wrong with those that failed, the caller's, or NULL. */
static struct transport *dial(struct link *link, const struct attempt *attempt, char **why)
{
    struct transport *transport = NULL;
    for (unsigned i = 0; attempt->host && !transport && i < link->nendpoints && still_wanted(link, attempt);
         i++) {
        struct endpoint *endpoint = link->endpoints[i];
        g_autofree char *reason = NULL;
        if (endpoint->ops->dial(endpoint, attempt->host, attempt->port, DIAL_TIMEOUT_MS, &transport,
                                &reason) == 0)
            break;
        transport = NULL;
        g_free(*why);
        *why = g_steal_pointer(&reason);
    }
    return transport;
}

/* Reports why there is no link, once for each reason. Needed where only RDMA is allowed, for status. */
static void complain(struct link *link, const char *why)
{
    bool rdma_only = link->nendpoints == 1 && strcmp(link->endpoints[0]->ops->name, "rdma") == 0;
    if (!rdma_only || !why || g_strcmp0(why, link->complaint) == 0)
        return;
    g_free(link->complaint);
    link->complaint = g_strdup(why);
    refuse(link, -EHOSTUNREACH, why);
}

/* Dials and exchanges HELLO. NULL: failed, *why as in dial. Pauses before the next attempt. */
static struct connection *meet(struct link *link, const struct attempt *attempt, struct wire_hello *theirs,
                               char **why)
{
    struct transport *transport = dial(link, attempt, why);
    struct connection *met = NULL;
    if (!transport) {
        complain(link, *why);
        pause_attempts(link, attempt, RETRY_MS);
        return NULL;
    }
    pending_add(link, attempt, transport);
    gint64 silent_us = g_get_monotonic_time() + (gint64)LINK_HELLO_MS * 1000;
    while (!met && link->npending > 0 && still_wanted(link, attempt)) {
        struct pollfd fds[LINK_MAX_ENDPOINTS + 1];
        wait_for_events(link, false, fds);
        met = pending_sort(link, theirs);
    }
    pending_drop_all(link);
    if (!met && still_wanted(link, attempt)) {
        if (g_get_monotonic_time() >= silent_us)
            refuse_seldom(
                link, -ETIMEDOUT,
                "the peer accepts connections but sends nothing: does another program use its port, or "
                "does its host stand still?");
        pause_attempts(link, attempt, REFUSED_RETRY_MS);
    }
    return met;
}

/* ---- a connection that is up ---- */

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

/*
 * Waits until the control thread has read enough. A peer that sends more than that is read no further,
 * which each transport signals in its own way (a full socket, missing credit). False: the connection is not
 * wanted any more.
 */
static bool wait_for_room(struct link *link)
{
    bool go_on = true;
    while (go_on && !mailbox_await_room(link->control, MAX_LETTERS, ROOM_POLL_MS)) {
        g_mutex_lock(&link->mutex);
        go_on = link->wanted && !link->quit;
        g_mutex_unlock(&link->mutex);
    }
    return go_on;
}

static int receive_until_down(struct link *link, struct connection *connection, bool take_epochs)
{
    for (;;) {
        struct transport_received received = {0};
        if (!wait_for_room(link))
            return -ECANCELED;
        int status = connection->transport->ops->receive(connection->transport,
                                                         take_epochs ? link->staging : NULL, &received);
        if (status < 0)
            return status;
        post_received(link, connection->id, &received);
    }
}

/* Publishes the connection to the control thread, unless the request has changed. */
static bool publish(struct link *link, const struct attempt *attempt, struct connection *connection)
{
    g_mutex_lock(&link->mutex);
    bool wanted = still_wanted_locked(link, attempt);
    if (wanted)
        link->current = connection;
    g_mutex_unlock(&link->mutex);
    return wanted;
}

/*
 * Receives on the connection until it ends; takes it over. why: the reason for this transport and no better
 * one, or NULL.
 */
static void serve(struct link *link, const struct attempt *attempt, struct connection *connection,
                  const struct wire_hello *theirs, const char *why)
{
    if (!publish(link, attempt, connection)) {
        connection_shutdown(connection);
        connection_put(connection);
        return;
    }
    struct note *note = note_new(NOTE_LINK_UP, why, why ? strlen(why) : 0);
    note->link = connection->id;
    note->term = theirs->term;
    note->arg = theirs->role;
    note->connection = connection_get(connection);
    mailbox_post(link->control, &note->letter);
    int status = receive_until_down(link, connection, attempt->listens && theirs->role == WIRE_ROLE_PRIMARY);
    g_mutex_lock(&link->mutex);
    link->current = NULL;
    if (link->request == attempt->request)
        link->wanted = false;
    g_mutex_unlock(&link->mutex);
    connection_shutdown(connection);
    note = note_new(NOTE_LINK_DOWN, NULL, 0);
    note->link = connection->id;
    note->status = status;
    mailbox_post(link->control, &note->letter);
    connection_put(connection);
}

static gpointer link_run(gpointer opaque)
{
    struct link *link = opaque;
    g_autofree struct wire_hello *theirs = g_new0(struct wire_hello, 1);
    struct attempt attempt;
    for (bool go_on = true; go_on;) {
        g_autofree char *why = NULL;
        struct connection *connection = NULL;
        go_on = attempt_begin(link, &attempt);
        if (go_on)
            connection =
                attempt.listens ? await_peer(link, &attempt, theirs) : meet(link, &attempt, theirs, &why);
        if (connection)
            serve(link, &attempt, connection, theirs, why);
        attempt_clear(&attempt);
    }
    return NULL;
}

/* All but the thread. */
static void free_parts(struct link *link)
{
    if (link->wake_fd >= 0)
        close(link->wake_fd);
    g_mutex_clear(&link->mutex);
    g_cond_clear(&link->changed);
    g_free(link->complaint);
    g_free(link->host);
    g_free(link->port);
    seal_wipe(&link->security, sizeof link->security);
    g_free(link);
}

struct link *link_new(struct mailbox *control, struct staging *staging, struct endpoint *const *endpoints,
                      unsigned nendpoints, GError **error)
{
    struct link *link = g_new0(struct link, 1);
    link->control = control;
    link->staging = staging;
    link->nendpoints = MIN(nendpoints, LINK_MAX_ENDPOINTS);
    memcpy(link->endpoints, endpoints, link->nendpoints * sizeof *endpoints);
    g_mutex_init(&link->mutex);
    g_cond_init(&link->changed);
    link->refused_us = g_get_monotonic_time() - (gint64)REFUSED_RETRY_MS * 1000;
    link->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (link->wake_fd < 0)
        g_set_error(error, G_IO_ERROR, g_io_error_from_errno(errno),
                    "no descriptor for the link's thread: %s", g_strerror(errno));
    else
        link->thread = g_thread_try_new("link", link_run, link, error);
    if (link->thread)
        return link;
    free_parts(link);
    return NULL;
}

/* Wakes the link thread from whichever wait it is in. The mutex is held. */
static void wake_locked(struct link *link)
{
    uint64_t one = 1;
    g_cond_broadcast(&link->changed);
    ssize_t ignored = write(link->wake_fd, &one, sizeof one);
    (void)ignored;
}

void link_set_peer(struct link *link, const char *host, const char *port)
{
    g_mutex_lock(&link->mutex);
    if (g_strcmp0(link->host, host) != 0 || g_strcmp0(link->port, port) != 0) {
        g_free(link->host);
        g_free(link->port);
        link->host = g_strdup(host);
        link->port = g_strdup(port);
        link->moves++;
        wake_locked(link);
    }
    g_mutex_unlock(&link->mutex);
}

void link_set_security(struct link *link, const struct link_security *security)
{
    g_mutex_lock(&link->mutex);
    if (memcmp(&link->security, security, sizeof *security) != 0) {
        link->security = *security;
        link->moves++;
        wake_locked(link);
    }
    g_mutex_unlock(&link->mutex);
}

void link_open(struct link *link, const struct wire_hello *hello)
{
    g_mutex_lock(&link->mutex);
    link->hello = *hello;
    link->wanted = true;
    link->request++;
    wake_locked(link);
    g_mutex_unlock(&link->mutex);
}

/* Asks the thread to give up, and wakes it from any wait. */
static void give_up(struct link *link, bool quit, bool now)
{
    g_mutex_lock(&link->mutex);
    link->wanted = false;
    link->quit |= quit;
    if (link->current && now)
        connection_shutdown(link->current);
    wake_locked(link);
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
    free_parts(link);
}
