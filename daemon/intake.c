/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Keeps the waiting connections of a socket and starts a thread for each request (intake.h). All of it runs
 * on the main thread, except the serving threads. These use only their own struct served and the counter of
 * serving threads, which is reference-counted, since an intake may be freed before its last thread ends.
 */
#include "daemon/intake.h"

#include <errno.h>
#include <gio/gio.h>
#include <glib-unix.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/address.h"
#include "common/log.h"
#include "common/stream.h"
#include "proto/answer.h"
#include "proto/framing.h"

#define PAUSE_MS  200 /* without descriptors, before the next try to accept */
#define ANSWER_MS 100 /* for a refusal: it fits into any socket's buffer */

enum stage { GREETING, KNOWN, NSTAGES };

struct intake {
    int listen_fd;
    guint readable, resume;
    const struct intake_rules *rules;
    GQueue waiting[NSTAGES]; /* of struct waiting, the oldest first */
    gint *nserved;           /* g_atomic_rc_box */
    struct log_seldom logged;
};

struct waiting {
    struct intake *intake;
    GList link;
    struct stream *stream;
    enum stage stage;
    bool greeted; /* the handshake is done */
    guint ready, deadline;
    short watched; /* what `ready` waits for */
    char *address;
    GByteArray *bytes;
};

struct served {
    struct stream *stream;
    char *address;
    Understudy__Envelope *request;
    void (*serve)(struct stream *stream, const char *address, const Understudy__Envelope *request);
    gint *nserved;
};

/* Logs a closed connection, seldom. */
static void log_closed(struct intake *intake, const char *address, const char *what)
{
    g_autofree char *before = log_seldom(&intake->logged);
    if (before)
        g_warning("%s: a connection%s%s was closed: %s%s", intake->rules->what, address[0] ? " of " : "",
                  address, what, before);
}

/* Takes the connection off the waiting list. Returns its stream, which the caller owns. */
static struct stream *stop_waiting(struct waiting *waiting)
{
    struct stream *stream = waiting->stream;
    g_queue_unlink(&waiting->intake->waiting[waiting->stage], &waiting->link);
    g_clear_handle_id(&waiting->ready, g_source_remove);
    g_clear_handle_id(&waiting->deadline, g_source_remove);
    g_byte_array_unref(waiting->bytes);
    g_free(waiting->address);
    g_free(waiting);
    return stream;
}

static void drop(struct waiting *waiting, const char *why)
{
    if (why)
        log_closed(waiting->intake, waiting->address, why);
    stream_close(stop_waiting(waiting));
}

/* Frees everything but the stream. */
static void served_free(struct served *served)
{
    understudy__envelope__free_unpacked(served->request, NULL);
    g_free(served->address);
    g_atomic_int_add(served->nserved, -1);
    g_atomic_rc_box_release(served->nserved);
    g_free(served);
}

static gpointer serve(gpointer opaque)
{
    struct served *served = opaque;
    served->serve(served->stream, served->address, served->request);
    stream_close(served->stream);
    served_free(served);
    return NULL;
}

static void refuse(struct stream *stream, const char *message)
{
    answer_write(stream, false, message, ANSWER_MS);
    stream_close(stream);
}

static void begin_serving(struct waiting *waiting, Understudy__Envelope *request)
{
    struct intake *intake = waiting->intake;
    g_autofree char *address = g_strdup(waiting->address);
    bool known = waiting->stage == KNOWN;
    struct stream *stream = stop_waiting(waiting);
    if (!known) {
        intake->rules->serve_stranger(stream, address, request);
        understudy__envelope__free_unpacked(request, NULL);
        stream_close(stream);
        return;
    }
    if (g_atomic_int_get(intake->nserved) >= (gint)intake->rules->max_served) {
        log_closed(intake, address, "too many requests are being served");
        refuse(stream, "this understudyd serves too many requests at the moment: try again");
        understudy__envelope__free_unpacked(request, NULL);
        return;
    }
    g_autoptr(GError) error = NULL;
    struct served *served = g_new0(struct served, 1);
    served->stream = stream;
    served->address = g_steal_pointer(&address);
    served->request = request;
    served->serve = intake->rules->serve;
    served->nserved = g_atomic_rc_box_acquire(intake->nserved);
    g_atomic_int_inc(intake->nserved);
    GThread *thread = g_thread_try_new("request", serve, served, &error);
    if (thread) {
        g_thread_unref(thread);
        return;
    }
    log_closed(intake, served->address, error->message);
    refuse(stream, "this understudyd can start no thread: try again, or raise its TasksMax=");
    served_free(served);
}

static gboolean on_deadline(gpointer opaque)
{
    struct waiting *waiting = opaque;
    waiting->deadline = 0;
    drop(waiting, waiting->greeted ? "no whole request came in time" : "no handshake was made in time");
    return G_SOURCE_REMOVE;
}

static gboolean on_ready(gint fd, GIOCondition condition, gpointer opaque);

/* Waits on the main loop until the stream can go on. */
static void watch(struct waiting *waiting)
{
    short wants = waiting->stream->wants == POLLOUT ? POLLOUT : POLLIN;
    if (waiting->ready && waiting->watched == wants)
        return;
    g_clear_handle_id(&waiting->ready, g_source_remove);
    waiting->watched = wants;
    waiting->ready =
        g_unix_fd_add(waiting->stream->fd, wants == POLLOUT ? G_IO_OUT : G_IO_IN, on_ready, waiting);
}

static void make_room(struct intake *intake, enum stage stage);

/* Puts the connection into this stage, with its deadline. */
static void begin_stage(struct waiting *waiting, enum stage stage)
{
    const struct intake_rules *rules = waiting->intake->rules;
    unsigned limit_ms = stage == GREETING && rules->handshake_ms ? rules->handshake_ms : rules->request_ms;
    make_room(waiting->intake, stage);
    waiting->stage = stage;
    g_queue_push_tail_link(&waiting->intake->waiting[stage], &waiting->link);
    g_clear_handle_id(&waiting->deadline, g_source_remove);
    waiting->deadline = g_timeout_add(limit_ms, on_deadline, waiting);
}

/* Takes the handshake one step on. False: it goes on later, or the connection was dropped. */
static bool greet(struct waiting *waiting)
{
    int status = stream_handshake(waiting->stream);
    if (status == -EAGAIN) {
        watch(waiting);
        return false;
    }
    if (status < 0) {
        /* A connection that closes without a word (a monitor that checks the port) is not logged. */
        g_autofree char *why = g_strdup(waiting->stream->why ? waiting->stream->why : "its handshake failed");
        drop(waiting, status == -EPIPE ? NULL : why);
        return false;
    }
    waiting->greeted = true;
    if (waiting->intake->rules->knows(waiting->stream)) {
        g_queue_unlink(&waiting->intake->waiting[GREETING], &waiting->link);
        begin_stage(waiting, KNOWN);
    }
    return true;
}

/* Reads what there is, until the request is whole. */
static void take_request(struct waiting *waiting)
{
    for (;;) {
        Understudy__Envelope *request = NULL;
        guint8 chunk[16384];
        ssize_t n = stream_read(waiting->stream, chunk, sizeof chunk);
        if (n == -EAGAIN) {
            watch(waiting);
            return;
        }
        if (n > 0)
            g_byte_array_append(waiting->bytes, chunk, (guint)n);
        bool fits = waiting->stage == KNOWN || waiting->bytes->len <= INTAKE_STRANGER_LEN;
        gssize used =
            n > 0 && fits ? framing_parse(waiting->bytes->data, waiting->bytes->len, &request) : -EPIPE;
        if (used > 0) {
            begin_serving(waiting, request);
            return;
        }
        if (request)
            understudy__envelope__free_unpacked(request, NULL);
        if (used < 0) {
            /* A connection that closes without a request is not logged. */
            drop(waiting, n > 0 ? "the request was not understood" : NULL);
            return;
        }
    }
}

static gboolean on_ready(gint fd, GIOCondition condition, gpointer opaque)
{
    struct waiting *waiting = opaque;
    (void)fd;
    (void)condition;
    if (waiting->greeted || greet(waiting))
        take_request(waiting);
    return G_SOURCE_CONTINUE; /* where the connection no longer waits, the source is gone already */
}

/* Finds the oldest waiting connection of the address that has the most of them. NULL: none waits. */
static struct waiting *least_worthy(struct intake *intake, enum stage stage)
{
    struct waiting *found = NULL;
    unsigned most = 0;
    for (GList *at = intake->waiting[stage].head; at; at = at->next) {
        struct waiting *candidate = at->data;
        unsigned n = 0;
        for (GList *other = at; other; other = other->next)
            n += strcmp(((struct waiting *)other->data)->address, candidate->address) == 0;
        if (n > most) {
            most = n;
            found = candidate;
        }
    }
    return found;
}

static void make_room(struct intake *intake, enum stage stage)
{
    static const char *const words[NSTAGES] = {"too many connections wait that have not shown who they are",
                                               "too many connections wait that have sent no request"};
    const struct intake_rules *rules = intake->rules;
    unsigned limit = stage == KNOWN && rules->max_known ? rules->max_known : rules->max_waiting;
    if (intake->waiting[stage].length >= limit)
        drop(least_worthy(intake, stage), words[stage]);
}

static gboolean on_accept(gint listen_fd, GIOCondition condition, gpointer opaque);

static gboolean on_resume(gpointer opaque)
{
    struct intake *intake = opaque;
    intake->resume = 0;
    intake->readable = g_unix_fd_add(intake->listen_fd, G_IO_IN, on_accept, intake);
    return G_SOURCE_REMOVE;
}

/* Drops a waiting connection to free a descriptor. Accepts again after PAUSE_MS: the socket stays readable.
 */
static gboolean on_no_descriptor(struct intake *intake)
{
    struct waiting *victim = least_worthy(intake, GREETING);
    if (!victim)
        victim = least_worthy(intake, KNOWN);
    if (victim)
        drop(victim, "this daemon has no descriptors left (ulimit -n)");
    else
        log_closed(intake, "", "this daemon has no descriptors left (ulimit -n)");
    intake->readable = 0;
    intake->resume = g_timeout_add(PAUSE_MS, on_resume, intake);
    return G_SOURCE_REMOVE;
}

static gboolean on_accept(gint listen_fd, GIOCondition condition, gpointer opaque)
{
    struct intake *intake = opaque;
    const struct intake_rules *rules = intake->rules;
    (void)condition;
    int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0)
        return errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM
                   ? on_no_descriptor(intake)
                   : G_SOURCE_CONTINUE;
    if (rules->admit && !rules->admit(fd)) {
        close(fd);
        return G_SOURCE_CONTINUE;
    }
    struct waiting *waiting = g_new0(struct waiting, 1);
    waiting->intake = intake;
    waiting->link.data = waiting;
    waiting->address = address_of_peer(fd);
    waiting->stream = rules->open ? rules->open(fd) : stream_new_plain(fd);
    waiting->greeted = !rules->open;
    waiting->bytes = g_byte_array_new();
    begin_stage(waiting, waiting->greeted ? KNOWN : GREETING);
    watch(waiting);
    return G_SOURCE_CONTINUE;
}

struct intake *intake_new(int listen_fd, const struct intake_rules *rules)
{
    struct intake *intake = g_new0(struct intake, 1);
    intake->listen_fd = listen_fd;
    intake->rules = rules;
    intake->nserved = g_atomic_rc_box_new0(gint);
    for (int stage = 0; stage < NSTAGES; stage++)
        g_queue_init(&intake->waiting[stage]);
    /* A connection may be closed before it is accepted, and then accept must not wait for the next one. */
    g_unix_set_fd_nonblocking(listen_fd, TRUE, NULL);
    intake->readable = g_unix_fd_add(listen_fd, G_IO_IN, on_accept, intake);
    return intake;
}

void intake_free(struct intake *intake)
{
    if (!intake)
        return;
    for (int stage = 0; stage < NSTAGES; stage++)
        while (intake->waiting[stage].head)
            drop(intake->waiting[stage].head->data, NULL);
    g_clear_handle_id(&intake->readable, g_source_remove);
    g_clear_handle_id(&intake->resume, g_source_remove);
    close(intake->listen_fd);
    g_atomic_rc_box_release(intake->nserved);
    g_free(intake);
}
