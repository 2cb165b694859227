/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Takeover in one round trip. The device state goes into a socketpair, its other end goes to QEMU with
 * getfd, and migrate-incoming follows without waiting for getfd's answer (QEMU's monitor runs commands in
 * order). It is a socketpair and not a memfd: QEMU reads an fd: stream as a socket in every version, while
 * files there are deprecated since 9.1.
 *
 * The RESUME event ends it. A guest that was paused when it was saved sends none. Then QEMU closing its end
 * of the socketpair says that the load is over, and query-status tells the result. QEMU exits on a state
 * that it cannot load: the monitor's end of file is the failure.
 */
#include "hv-hooks/qemu/takeover.h"

#include <errno.h>
#include <gio/gio.h>
#include <glib-unix.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "hv-hooks/qemu/hook_client.h"

#define INCOMING_FD_NAME "understudy-incoming"

struct standby {
    struct qmp *qmp;
    gint64 began_us;
    int fd; /* our end */
    uint8_t *devstate;
    size_t len, sent;
    guint listener;
    GSource *out, *hup, *timer;
    unsigned answers_due; /* QMP answers that will still refer to this object */
    bool beginning;       /* inside standby_takeover: a failure is returned, not called back */
    bool over;
    char *failure;
    standby_done done;
    void *opaque;
};

static void drop(GSource **source)
{
    if (*source) {
        g_source_destroy(*source);
        g_clear_pointer(source, g_source_unref);
    }
}

static void free_if_unused(struct standby *standby)
{
    if (standby->answers_due > 0)
        return;
    g_free(standby->failure);
    g_free(standby->devstate);
    g_free(standby);
}

/* Releases everything but the memory. Nothing of qmp's is touched after this. */
static void let_go(struct standby *standby)
{
    standby->over = true;
    drop(&standby->out);
    drop(&standby->hup);
    drop(&standby->timer);
    qmp_unlisten(standby->qmp, standby->listener);
    if (standby->fd >= 0)
        close(standby->fd);
    standby->fd = -1;
}

static void finish(struct standby *standby, bool ok, const char *message)
{
    if (standby->over)
        return;
    let_go(standby);
    if (standby->beginning) {
        standby->failure = g_strdup(message);
        return;
    }
    /* done may close the monitor, which answers outstanding commands: the object must outlive that. */
    standby->answers_due++;
    standby->done(ok, message, (uint64_t)(g_get_monotonic_time() - standby->began_us), standby->opaque);
    standby->answers_due--;
    free_if_unused(standby);
}

/* Counts an answer in. False: the takeover is over and the object may be gone. */
static bool answer_counts(struct standby *standby)
{
    standby->answers_due--;
    if (!standby->over)
        return true;
    free_if_unused(standby);
    return false;
}

static void ask(struct standby *standby, const char *command, json_t *args, int fd, qmp_reply reply)
{
    standby->answers_due++;
    qmp_execute(standby->qmp, command, args, fd, reply, standby);
}

static void on_command(struct qmp *qmp, json_t *value, const GError *error, void *opaque)
{
    struct standby *standby = opaque;
    (void)qmp;
    (void)value;
    if (answer_counts(standby) && error) {
        g_autofree char *message =
            g_strdup_printf("the standby's QEMU did not take the device state: %s", error->message);
        finish(standby, false, message);
    }
}

static void on_status(struct qmp *qmp, json_t *value, const GError *error, void *opaque)
{
    struct standby *standby = opaque;
    (void)qmp;
    if (!answer_counts(standby))
        return;
    const char *status = json_string_value(json_object_get(value, "status"));
    g_autofree char *message = NULL;
    if (error)
        message =
            g_strdup_printf("the standby's QEMU failed while it loaded the device state: %s", error->message);
    else if (!status || g_str_equal(status, "inmigrate") || g_str_equal(status, "internal-error"))
        message = g_strdup_printf("the standby's QEMU could not load the device state (it is in state %s)",
                                  status ? status : "unknown");
    finish(standby, message == NULL, message ? message : status);
}

static void on_event(struct qmp *qmp, const char *name, json_t *data, void *opaque)
{
    (void)qmp;
    (void)data;
    if (g_str_equal(name, "RESUME"))
        finish(opaque, true, "running");
}

/* QEMU has closed its end. It resumes the guest before that, so a RESUME would be here already. */
static gboolean on_hang_up(gint fd, GIOCondition condition, gpointer opaque)
{
    struct standby *standby = opaque;
    (void)fd;
    (void)condition;
    drop(&standby->out);
    drop(&standby->hup);
    ask(standby, "query-status", NULL, -1, on_status);
    return G_SOURCE_CONTINUE; /* destroyed above */
}

static gboolean on_too_late(gpointer opaque)
{
    finish(opaque, false, "the standby's QEMU did not run the guest in time");
    return G_SOURCE_CONTINUE; /* destroyed by finish */
}

/* Writes as much as the socket takes; at the end closes the sending direction, which ends the stream. */
static bool feed(struct standby *standby)
{
    while (standby->sent < standby->len) {
        ssize_t n = send(standby->fd, standby->devstate + standby->sent, standby->len - standby->sent,
                         MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return false;
        if (n < 0)
            return true; /* QEMU closed early: the hang-up source says so */
        standby->sent += (size_t)n;
    }
    shutdown(standby->fd, SHUT_WR);
    return true;
}

static gboolean on_writable(gint fd, GIOCondition condition, gpointer opaque)
{
    struct standby *standby = opaque;
    (void)fd;
    (void)condition;
    if (feed(standby))
        drop(&standby->out);
    return G_SOURCE_CONTINUE;
}

static GSource *attach(struct standby *standby, GSource *source, GSourceFunc func)
{
    g_source_set_callback(source, func, standby, NULL);
    g_source_attach(source, g_main_context_get_thread_default());
    return source;
}

static bool load_aux(struct hypervisor *hv, const uint64_t *used_len, unsigned nblocks, unsigned timeout_ms,
                     GError **error)
{
    int status = hypervisor_load_aux(hv, used_len, nblocks, timeout_ms);
    if (status < 0) {
        const char *message = hypervisor_last_message(hv);
        g_set_error(error, G_IO_ERROR, g_io_error_from_errno(-status),
                    "the standby's memory outside main RAM could not be filled: %s",
                    message[0] ? message : g_strerror(-status));
    }
    return status == 0;
}

static struct standby *load(struct qmp *qmp, const void *devstate, size_t devstate_len, gint64 began_us,
                            unsigned timeout_ms, standby_done done, void *opaque, GError **error)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
        g_set_error(error, G_IO_ERROR, g_io_error_from_errno(errno), "no socket for the device state: %s",
                    g_strerror(errno));
        return NULL;
    }
    struct standby *standby = g_new0(struct standby, 1);
    standby->qmp = qmp;
    standby->began_us = began_us;
    standby->fd = pair[0];
    standby->devstate = g_memdup2(devstate, devstate_len);
    standby->len = devstate_len;
    standby->done = done;
    standby->opaque = opaque;
    standby->listener = qmp_listen(qmp, on_event, standby);
    /* Before the commands, so that QEMU finds the bytes there when it looks. */
    if (!feed(standby))
        standby->out = attach(standby, g_unix_fd_source_new(pair[0], G_IO_OUT), G_SOURCE_FUNC(on_writable));
    standby->hup =
        attach(standby, g_unix_fd_source_new(pair[0], G_IO_HUP | G_IO_ERR), G_SOURCE_FUNC(on_hang_up));
    standby->timer = attach(standby, g_timeout_source_new(timeout_ms), on_too_late);
    /* If the monitor is gone, the answers come within these calls: keep the object until both are made. */
    standby->beginning = true;
    standby->answers_due++;
    ask(standby, "getfd", json_pack("{s:s}", "fdname", INCOMING_FD_NAME), pair[1], on_command);
    close(pair[1]);
    if (!standby->over)
        ask(standby, "migrate-incoming", json_pack("{s:s}", "uri", "fd:" INCOMING_FD_NAME), -1, on_command);
    standby->beginning = false;
    if (standby->failure)
        g_set_error_literal(error, G_IO_ERROR, G_IO_ERROR_FAILED, standby->failure);
    return answer_counts(standby) ? standby : NULL;
}

struct standby *standby_load(struct qmp *qmp, const void *devstate, size_t devstate_len, unsigned timeout_ms,
                             standby_done done, void *opaque, GError **error)
{
    return load(qmp, devstate, devstate_len, g_get_monotonic_time(), timeout_ms, done, opaque, error);
}

struct standby *standby_takeover(struct hypervisor *hv, const uint64_t *used_len, unsigned nblocks,
                                 struct qmp *qmp, const void *devstate, size_t devstate_len,
                                 unsigned timeout_ms, standby_done done, void *opaque, GError **error)
{
    gint64 began_us = g_get_monotonic_time();
    if (!load_aux(hv, used_len, nblocks, timeout_ms, error))
        return NULL;
    return load(qmp, devstate, devstate_len, began_us, timeout_ms, done, opaque, error);
}

void standby_cancel(struct standby *standby)
{
    if (!standby || standby->over)
        return;
    let_go(standby);
    free_if_unused(standby);
}
