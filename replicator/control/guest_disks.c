/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The guest's disks from the control thread's side: which mode the disk servers are in at each turn of the
 * session. The session says what waits for them (failover/disk_turns.h); here its orders are carried out, and
 * answered when the servers have done so.
 *
 *   alone       every write is durable before it completes
 *   protected   writes are logged and need not be durable: what depends on them waits in the output gate
 *   peer lost   durable again; the gate opens once what was written meanwhile is on stable storage
 *   takeover    the applier empties the journal, the servers let the guest write, then QEMU goes on
 */
#include <gio/gio.h>

#include "replicator/control/replicator.h"
#include "replicator/disk/disk_log.h"
#include "replicator/note.h"

#define LAST_WRITES_MS 5000
#define IO_RETRY_MS    1000

static void answer_if_done(struct replicator *r);

static void on_changed(void *opaque, bool urgent)
{
    struct replicator *r = opaque;
    if (r->capture && urgent)
        capture_thread_hurry(r->capture);
    else if (r->capture)
        capture_thread_room(r->capture);
    answer_if_done(r);
}

/* The standby need not keep what the shared images have. A disk that is idle flushes nothing, but has it all.
 */
static void on_flushed(void *opaque)
{
    struct replicator *r = opaque;
    for (unsigned disk = 0; disk < disks_count(r->disks); disk++) {
        uint64_t epoch = disks_newly_flushed(r->disks, disk);
        if (epoch && r->session.role == SESSION_PRIMARY)
            sink_send(&r->sink, MESSAGE_DISK_FLUSHED, r->session.term, epoch, disk);
    }
}

/* The log lacks writes: no epoch can be sent until everything has been compared again. */
static void on_detached(void *opaque, const char *why)
{
    struct replicator *r = opaque;
    sink_error(&r->sink, "%s", why);
    if (r->connection)
        connection_shutdown(r->connection);
}

static void on_trouble(void *opaque, const char *message)
{
    struct replicator *r = opaque;
    if (message) {
        sink_error_of(&r->sink, SINK_CAUSE_DISK, "%s", message);
    } else {
        sink_error_over(&r->sink, SINK_CAUSE_DISK);
    }
}

bool guest_disks_open(struct replicator *r, GError **error)
{
    const struct disks_config config = {
        .vm_name = r->config.vm_name,
        .vm_dir = r->config.vm_dir,
        .state_dir = r->config.state_dir,
        .plugin = r->config.disk_plugin,
        .list = r->config.disks,
        .n = r->config.ndisks,
        .nice = r->config.nice,
        .standby = r->config.role == SESSION_SECONDARY,
        .changed = on_changed,
        .flushed = on_flushed,
        .detached = on_detached,
        .fault_changed = on_trouble,
        .opaque = r,
    };
    if (config.n == 0)
        return true;
    r->disks = disks_open(&config, error);
    return r->disks != NULL;
}

static void answer(struct replicator *r, uint64_t order, bool ok)
{
    const struct session_event event = {.type = SESSION_EVENT_DISKS_READY, .order = order, .ok = ok};
    sink_event(&r->sink, &event);
}

static void on_durable(void *opaque)
{
    struct replicator *r = opaque;
    const struct session_event event = {.type = SESSION_EVENT_DISKS_DURABLE, .order = r->durable_order};
    sink_event(&r->sink, &event);
}

/* What is held back of shared disks included. Waits, at most twice LAST_WRITES_MS. */
static bool let_go_now(struct replicator *r)
{
    gint64 until = g_get_monotonic_time() + LAST_WRITES_MS * 1000;
    disks_write_through(r->disks);
    while (!disks_order_done(r->disks) && g_get_monotonic_time() < until)
        g_usleep(1000);
    return disks_order_done(r->disks) && disks_sync_within(r->disks, LAST_WRITES_MS) == 0;
}

void guest_disks_make_durable(struct replicator *r, uint64_t order)
{
    r->durable_order = order;
    disks_make_durable(r->disks, on_durable, r);
}

void guest_disks_release_last(struct replicator *r)
{
    if (let_go_now(r))
        gate_pass_all(r->gate);
}

void guest_disks_hold(struct replicator *r)
{
    if (!r->disks)
        return;
    disks_cancel_durable(r->disks);
    disks_hold(r->disks);
}

void guest_disks_stop_logging(struct replicator *r)
{
    if (r->disks)
        disks_stop_logging(r->disks);
}

void guest_disks_release(struct replicator *r, uint64_t epoch)
{
    disks_release(r->disks, epoch);
}

void guest_disks_fence(struct replicator *r)
{
    if (!r->disks)
        return;
    r->disk_order = 0;
    disks_cancel_durable(r->disks);
    disks_give_up_writing(r->disks);
}

/* The other host may have the shared disks only when nothing can be written to them here. */
void guest_disks_give_up(struct replicator *r, uint64_t order)
{
    r->disk_order = order;
    r->disks_unlock = disks_any_shared(r->disks);
    if (r->disks_unlock)
        disks_give_up_writing(r->disks);
    answer_if_done(r);
}

void guest_disks_make_writable(struct replicator *r, uint64_t order)
{
    r->disk_order = order;
    r->disks_unlock = false;
    if (disks_any_shared(r->disks) && disks_lock_shared(r->disks) < 0) {
        sink_error(&r->sink, "VM %s stays paused: a shared disk has been locked by another host meanwhile",
                   r->config.vm_name);
        r->disk_order = 0;
        answer(r, order, false);
        return;
    }
    disks_order(r->disks, DISK_WRITABLE, 0, false);
    answer_if_done(r);
}

/* The applier empties the journal; then its note comes. */
void guest_disks_take_over(struct replicator *r, uint64_t order)
{
    r->take_over_order = order;
    applier_post_end_standby(r->applier, r->config.durable_acks);
}

void guest_disks_standby_ended(struct replicator *r, int status)
{
    if (status < 0) {
        g_autofree char *why = disks_failure(r->disks);
        sink_error(&r->sink, "VM %s could not be taken over: its disks could not be made ready: %s",
                   r->config.vm_name, why ? why : g_strerror(-status));
        answer(r, r->take_over_order, false);
        return;
    }
    r->disk_order = r->take_over_order;
    r->disks_unlock = false;
    disks_order(r->disks, DISK_WRITABLE | DISK_DURABLE, DISK_LOGGING, false);
    answer_if_done(r);
}

/* The newest order that is to be answered has been carried out by every server. */
static void answer_if_done(struct replicator *r)
{
    uint64_t order = r->disk_order;
    if (!order || !disks_order_done(r->disks))
        return;
    r->disk_order = 0;
    if (r->disks_unlock)
        disks_unlock_shared(r->disks);
    r->disks_unlock = false;
    answer(r, order, true);
}

/* ---- a disk that refuses ---- */

/* The guest runs here, but for the disk. */
static bool may_run(const struct replicator *r)
{
    return session_has_guest(&r->session) && !r->quitting;
}

/* QEMU tries the request again; if it fails again, the guest stops again. */
static gboolean on_io_retry(gpointer opaque)
{
    struct replicator *r = opaque;
    if (may_run(r))
        guest_resume(r);
    return G_SOURCE_CONTINUE;
}

static void retry_now_and_then(struct replicator *r)
{
    if (!r->io_retry)
        r->io_retry = g_timeout_add(IO_RETRY_MS, on_io_retry, r);
}

void guest_disks_retry(struct replicator *r)
{
    sink_error_of(&r->sink, SINK_CAUSE_DISK,
                  "VM %s was taken over while a request to a disk had failed on the other host: the guest "
                  "stands still and the request is tried again every second",
                  r->config.vm_name);
    r->stood_still_there = true;
    retry_now_and_then(r);
    guest_resume(r);
}

void guest_disks_io_error(struct replicator *r, const struct machine_disk_error *error)
{
    if (r->session.role != SESSION_PRIMARY)
        return;
    sink_error_of(&r->sink, SINK_CAUSE_DISK, "VM %s: a request to disk %s failed: %s; %s", r->config.vm_name,
                  error->disk[0] ? error->disk : "?", error->reason[0] ? error->reason : "I/O error",
                  error->stops ? "the guest stands still and the request is tried again every second"
                               : "the guest was told");
    if (error->stops)
        retry_now_and_then(r);
}

void guest_disks_io_resumed(struct replicator *r)
{
    g_clear_handle_id(&r->io_retry, g_source_remove);
    /* What the other host's disk had refused this one takes, or says itself what is wrong with it. */
    if (r->stood_still_there)
        sink_error_over(&r->sink, SINK_CAUSE_DISK);
    r->stood_still_there = false;
    disks_guest_goes_on(r->disks);
}

bool guest_disks_message(struct replicator *r, const struct note *note)
{
    const struct transport_message message = {.type = (enum message_type)note->arg,
                                              .term = note->term,
                                              .epoch = note->epoch,
                                              .arg = note->aux,
                                              .len = note->len,
                                              .payload = note->payload};
    if (!r->disks || note->term != r->session.term)
        return note->arg == MESSAGE_APPLIED;
    return r->session.role == SESSION_PRIMARY ? disk_sync_message(r->disk_sync, &message)
                                              : disk_answer_message(r->disk_answer, r->connection, &message);
}
