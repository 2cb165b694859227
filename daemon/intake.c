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
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/address.h"
#include "proto/answer.h"
#include "proto/framing.h"

#define LOG_EVERY_US (10 * G_USEC_PER_SEC)
#define PAUSE_MS     200 /* without descriptors, before the next try to accept */
#define ANSWER_MS    100 /* for a refusal: it fits into any socket's buffer */

struct intake {
    int listen_fd;
    guint readable, resume;
    const struct intake_rules *rules;
    GQueue waiting; /* of struct waiting, the oldest first */
    gint *nserved;  /* g_atomic_rc_box */
    gint64 logged_us;
    unsigned unlogged;
};

struct waiting {
    struct intake *intake;
    GList link;
    int fd;
    guint readable, deadline;
    char *address;
    GByteArray *bytes;
};

struct served {
    int fd;
    char *address;
    Understudy__Envelope *request;
    void (*serve)(int fd, const char *address, const Understudy__Envelope *request);
    gint *nserved;
};

/* Logs a closed connection, at most one in LOG_EVERY_US; the line also counts those that were not logged. */
static void log_seldom(struct intake *intake, const char *address, const char *what)
{
    gint64 now_us = g_get_monotonic_time();
    if (intake->logged_us && now_us - intake->logged_us < LOG_EVERY_US) {
        intake->unlogged++;
        return;
    }
    g_autofree char *before =
        intake->unlogged ? g_strdup_printf(" (and %u more before it)", intake->unlogged) : g_strdup("");
    g_warning("%s: a connection%s%s was closed: %s%s", intake->rules->what, address[0] ? " of " : "", address,
              what, before);
    intake->logged_us = now_us;
    intake->unlogged = 0;
}

/* Takes the connection off the waiting list. Returns its descriptor, which the caller owns. */
static int stop_waiting(struct waiting *waiting)
{
    int fd = waiting->fd;
    g_queue_unlink(&waiting->intake->waiting, &waiting->link);
    g_clear_handle_id(&waiting->readable, g_source_remove);
    g_clear_handle_id(&waiting->deadline, g_source_remove);
    g_byte_array_unref(waiting->bytes);
    g_free(waiting->address);
    g_free(waiting);
    return fd;
}

static void drop(struct waiting *waiting, const char *why)
{
    if (why)
        log_seldom(waiting->intake, waiting->address, why);
    close(stop_waiting(waiting));
}

/* Frees everything but the descriptor. */
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
    served->serve(served->fd, served->address, served->request);
    close(served->fd);
    served_free(served);
    return NULL;
}

static void refuse(int fd, const char *message)
{
    answer_write(fd, false, message, ANSWER_MS);
    close(fd);
}

static void begin_serving(struct waiting *waiting, Understudy__Envelope *request)
{
    struct intake *intake = waiting->intake;
    g_autofree char *address = g_strdup(waiting->address);
    int fd = stop_waiting(waiting);
    if (g_atomic_int_get(intake->nserved) >= (gint)intake->rules->max_served) {
        log_seldom(intake, address, "too many requests are being served");
        refuse(fd, "this understudyd serves too many requests at the moment: try again");
        understudy__envelope__free_unpacked(request, NULL);
        return;
    }
    g_autoptr(GError) error = NULL;
    struct served *served = g_new0(struct served, 1);
    served->fd = fd;
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
    log_seldom(intake, served->address, error->message);
    refuse(fd, "this understudyd can start no thread: try again, or raise its TasksMax=");
    served_free(served);
}

static gboolean on_readable(gint fd, GIOCondition condition, gpointer opaque)
{
    struct waiting *waiting = opaque;
    Understudy__Envelope *request = NULL;
    guint8 chunk[16384];
    (void)condition;
    gssize n = recv(fd, chunk, sizeof chunk, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return G_SOURCE_CONTINUE;
    if (n > 0)
        g_byte_array_append(waiting->bytes, chunk, (guint)n);
    gssize used = n > 0 ? framing_parse(waiting->bytes->data, waiting->bytes->len, &request) : -EPIPE;
    if (used == 0)
        return G_SOURCE_CONTINUE;
    waiting->readable = 0; /* removed by what this returns */
    if (used > 0) {
        begin_serving(waiting, request);
        return G_SOURCE_REMOVE;
    }
    if (request)
        understudy__envelope__free_unpacked(request, NULL);
    /* A connection that closes without a request (a monitor that checks the port) is not logged. */
    drop(waiting, n > 0 ? "the request was not understood" : NULL);
    return G_SOURCE_REMOVE;
}

static gboolean on_deadline(gpointer opaque)
{
    struct waiting *waiting = opaque;
    waiting->deadline = 0;
    drop(waiting, "no whole request came in time");
    return G_SOURCE_REMOVE;
}

/* Finds the oldest waiting connection of the address that has the most of them. NULL: none waits. */
static struct waiting *least_worthy(struct intake *intake)
{
    struct waiting *found = NULL;
    unsigned most = 0;
    for (GList *at = intake->waiting.head; at; at = at->next) {
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
    struct waiting *victim = least_worthy(intake);
    if (victim)
        drop(victim, "this daemon has no descriptors left (ulimit -n)");
    else
        log_seldom(intake, "", "this daemon has no descriptors left (ulimit -n)");
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
    if (intake->waiting.length >= rules->max_waiting)
        drop(least_worthy(intake), "too many connections wait that have sent no request");
    struct waiting *waiting = g_new0(struct waiting, 1);
    waiting->intake = intake;
    waiting->link.data = waiting;
    waiting->fd = fd;
    waiting->address = address_of_peer(fd);
    waiting->bytes = g_byte_array_new();
    waiting->readable = g_unix_fd_add(fd, G_IO_IN, on_readable, waiting);
    waiting->deadline = g_timeout_add(rules->request_ms, on_deadline, waiting);
    g_queue_push_tail_link(&intake->waiting, &waiting->link);
    return G_SOURCE_CONTINUE;
}

struct intake *intake_new(int listen_fd, const struct intake_rules *rules)
{
    struct intake *intake = g_new0(struct intake, 1);
    intake->listen_fd = listen_fd;
    intake->rules = rules;
    intake->nserved = g_atomic_rc_box_new0(gint);
    g_queue_init(&intake->waiting);
    /* A connection may be closed before it is accepted, and then accept must not wait for the next one. */
    g_unix_set_fd_nonblocking(listen_fd, TRUE, NULL);
    intake->readable = g_unix_fd_add(listen_fd, G_IO_IN, on_accept, intake);
    return intake;
}

void intake_free(struct intake *intake)
{
    if (!intake)
        return;
    while (intake->waiting.head)
        drop(intake->waiting.head->data, NULL);
    g_clear_handle_id(&intake->readable, g_source_remove);
    g_clear_handle_id(&intake->resume, g_source_remove);
    close(intake->listen_fd);
    g_atomic_rc_box_release(intake->nserved);
    g_free(intake);
}
