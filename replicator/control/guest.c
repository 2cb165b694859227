/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The guest's QEMU from the control thread's side: starting it, its monitor, promotion, and its end. The
 * waits that can take long (QEMU's start) run on a thread of their own and come back as a note.
 *
 * QEMU runs with -action shutdown=pause: a guest that powers itself off leaves QEMU there until the last
 * frames are out and the peer knows that there is nothing to take over.
 */
#include <errno.h>
#include <gio/gio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hv-hooks/qemu/takeover.h"
#include "replicator/control/replicator.h"
#include "replicator/note.h"

#define START_TIMEOUT_MS    20000
#define QMP_TIMEOUT_MS      5000
#define TAKEOVER_TIMEOUT_MS 5000

/* One wait for the hook's hello, on its own thread. */
struct ready_wait {
    struct hypervisor *hv;
    struct mailbox *box;
};

static gpointer wait_ready(gpointer opaque)
{
    struct ready_wait *wait = opaque;
    int status = hypervisor_wait_ready(wait->hv, START_TIMEOUT_MS);
    if (status == 0)
        status = hypervisor_list_blocks(wait->hv);
    const char *why = status < 0 ? hypervisor_last_message(wait->hv) : "";
    struct note *note =
        note_new(status < 0 ? NOTE_HYPERVISOR_FAILED : NOTE_HYPERVISOR_READY, why, strlen(why));
    note->status = status;
    mailbox_post(wait->box, &note->letter);
    g_free(wait);
    return NULL;
}

static void tell_exit(struct replicator *r, int status)
{
    g_autofree char *log = g_build_filename(r->config.vm_dir, "console.log", NULL);
    g_autofree char *words = child_process_last_words(log);
    if (!r->hv_ready && g_str_has_prefix(words, "understudy: "))
        sink_error(&r->sink, "%s", words + strlen("understudy: ")); /* the hook refused */
    else
        sink_error(&r->sink, "QEMU ended by itself (%s %d): %s",
                   WIFSIGNALED(status) ? "signal" : "exit status",
                   WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status), words);
}

static void on_qemu_exit(struct child_process *process, int status, void *opaque)
{
    struct replicator *r = opaque;
    (void)process;
    r->qemu_gone = true;
    r->guest_runs_here = false;
    if (r->ended || r->quitting)
        return;
    /* A hook that refused may have said why already, and QEMU was killed for it. */
    if (r->hv_ready || !sink_last_error(&r->sink))
        tell_exit(r, status);
    if (!r->hv_ready)
        sink_give_up(&r->sink);
    else
        sink_event_simple(&r->sink, SESSION_EVENT_HYPERVISOR_DIED);
}

static void on_qmp_event(struct qmp *qmp, const char *name, json_t *data, void *opaque)
{
    struct replicator *r = opaque;
    (void)qmp;
    r->guest_observer->event(r, name, data);
}

static void on_qmp_closed(struct qmp *qmp, const GError *error, void *opaque)
{
    struct replicator *r = opaque;
    (void)qmp;
    if (!r->qemu_gone && !r->quitting)
        g_warning("%s: QEMU's monitor closed: %s", r->config.vm_name, error ? error->message : "");
}

static char *vm_path(const struct replicator *r, const char *name)
{
    return g_build_filename(r->config.vm_dir, name, NULL);
}

bool guest_start(struct replicator *r, GError **error)
{
    int status = hv_fds_create(&r->fds, r->config.vm_name, r->config.ram_bytes);
    if (status == 0)
        status = hypervisor_open(&r->hv, &r->fds, r->config.ram_bytes);
    if (status < 0) {
        g_set_error(error, G_IO_ERROR, g_io_error_from_errno(-status),
                    "no memory for VM %s (%" G_GUINT64_FORMAT " MiB): %s", r->config.vm_name,
                    r->config.ram_bytes >> 20, g_strerror(-status));
        return false;
    }
    g_autofree char *log = vm_path(r, "console.log");
    const struct qemu_start start = {
        .argv = (const char *const *)r->config.qemu_argv,
        .hook_path = r->config.hook_path,
        .fds = &r->fds,
        .log_path = log,
        .nice = r->config.nice,
    };
    r->qemu = qemu_process_start(&start, on_qemu_exit, r, error);
    if (!r->qemu)
        return false;
    status = hypervisor_set_pid(r->hv, child_process_pid(r->qemu));
    if (status < 0) {
        g_set_error(error, G_IO_ERROR, g_io_error_from_errno(-status), "QEMU could not be watched: %s",
                    g_strerror(-status));
        return false;
    }
    struct ready_wait *wait = g_new0(struct ready_wait, 1);
    wait->hv = r->hv;
    wait->box = &r->box;
    r->ready_thread = g_thread_try_new("ready", wait_ready, wait, error);
    if (!r->ready_thread)
        g_free(wait);
    return r->ready_thread != NULL;
}

void guest_ready(struct replicator *r, const struct note *note)
{
    g_thread_join(g_steal_pointer(&r->ready_thread));
    if (note->letter.kind == NOTE_HYPERVISOR_FAILED) {
        if (!sink_last_error(&r->sink))
            sink_error(&r->sink, "VM %s could not be started: %s", r->config.vm_name,
                       (const char *)note->payload);
        /* QEMU may be about to exit and say more; its exit ends us, or this does. */
        if (!r->qemu_gone)
            child_process_kill(r->qemu);
        return;
    }
    r->hv_ready = true;
    r->guest_runs_here = r->config.role == SESSION_PRIMARY;
    g_autofree char *monitor = vm_path(r, "us-qmp");
    r->qmp = qmp_open(monitor, QMP_TIMEOUT_MS, NULL, on_qmp_closed, r);
    qmp_listen(r->qmp, on_qmp_event, r);
    if (!guest_nics_connect(r)) {
        sink_give_up(&r->sink);
        return;
    }
    r->guest_observer->ready(r);
}

static void on_taken_over(bool ok, const char *message, uint64_t elapsed_us, void *opaque)
{
    struct replicator *r = opaque;
    struct session_event event = {.type = SESSION_EVENT_PROMOTED, .term = r->promote_term, .ok = ok};
    r->standby = NULL;
    if (!ok) {
        sink_error(&r->sink, "VM %s could not be taken over: %s", r->config.vm_name, message);
    } else {
        uint64_t lost_ns = (uint64_t)g_get_monotonic_time() * 1000 - image_received_ns(r->image);
        r->promote_ms = (double)(g_get_monotonic_time() - r->granted_us) / 1000;
        r->guest_runs_here = true;
        /* The guest's clock stood still from the epoch's boundary until now. */
        if (g_str_equal(message, "running"))
            hypervisor_advance_clock(r->hv, lost_ns);
        g_message("%s: taken over, guest running %.1f ms after the decision (QEMU %.1f ms)",
                  r->config.vm_name, r->promote_ms, (double)elapsed_us / 1000);
    }
    sink_event(&r->sink, &event);
    if (ok) {
        input_log_inject(r->input_log);
        r->guest_observer->taken_over(r, message);
    }
}

void guest_promote(struct replicator *r, uint64_t term)
{
    g_autoptr(GError) error = NULL;
    size_t len = 0;
    unsigned nblocks = 0;
    const uint8_t *devstate = image_devstate(r->image, &len);
    const uint64_t *used_len = image_used_len(r->image, &nblocks);
    r->promote_term = term;
    r->standby = standby_takeover(r->hv, used_len, nblocks, r->qmp, devstate, len, TAKEOVER_TIMEOUT_MS,
                                  on_taken_over, r, &error);
    if (!r->standby) {
        sink_error(&r->sink, "VM %s could not be taken over: %s", r->config.vm_name, error->message);
        struct session_event event = {.type = SESSION_EVENT_PROMOTED, .term = term, .ok = false};
        sink_event(&r->sink, &event);
    }
}

void guest_quit(struct replicator *r)
{
    r->quitting = true;
    r->guest_runs_here = false;
    if (r->qmp && !r->qemu_gone)
        qmp_execute(r->qmp, "quit", NULL, -1, NULL, NULL);
}

void guest_power_down(struct replicator *r)
{
    if (!r->qmp || r->qemu_gone)
        return;
    g_message("%s: this host goes down and nobody can take the guest over: it is asked to shut down",
              r->config.vm_name);
    qmp_execute(r->qmp, "system_powerdown", NULL, -1, NULL, NULL);
}

void guest_fence(struct replicator *r)
{
    r->quitting = true;
    r->guest_runs_here = false;
    gate_drop(r->gate);
    if (r->qemu && !r->qemu_gone)
        child_process_kill(r->qemu);
}

void guest_resume(struct replicator *r)
{
    /* Whoever paused it will resume it. */
    if (r->qmp && !r->qemu_gone && r->guest_state == UNDERSTUDY__GUEST_STATE__GUEST_STATE_RUNS)
        qmp_execute(r->qmp, "cont", NULL, -1, NULL, NULL);
}

void guest_close(struct replicator *r)
{
    if (r->ready_thread) {
        if (r->qemu)
            child_process_kill(r->qemu);
        g_thread_join(g_steal_pointer(&r->ready_thread));
    }
    if (r->standby)
        standby_cancel(r->standby);
    g_clear_pointer(&r->qmp, qmp_close);
    g_clear_pointer(&r->qemu, child_process_free);
    g_clear_pointer(&r->hv, hypervisor_close);
    hv_fds_close(&r->fds);
}
