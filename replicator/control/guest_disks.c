/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See guest_disks.h. */
#include <gio/gio.h>

#include "replicator/control/guest_disks.h"
#include "replicator/disk/disk_log.h"
#include "replicator/note.h"

#define LAST_WRITES_MS 5000
#define IO_RETRY_MS    1000

static void answer_if_done(struct guest_disks *disks);

static void on_changed(void *opaque, bool urgent)
{
    struct guest_disks *disks = opaque;
    struct capture_thread *capture = disks->parts.capture;
    if (capture && urgent)
        capture_thread_hurry(capture);
    else if (capture)
        capture_thread_room(capture);
    answer_if_done(disks);
}

/* The standby need not keep what the shared images have. A disk that is idle flushes nothing, but has it all.
 */
static void on_flushed(void *opaque)
{
    struct guest_disks *disks = opaque;
    for (unsigned disk = 0; disk < disks_count(disks->set); disk++) {
        uint64_t epoch = disks_newly_flushed(disks->set, disk);
        if (epoch && disks->session->role == SESSION_PRIMARY)
            sink_send(disks->sink, MESSAGE_DISK_FLUSHED, disks->session->term, epoch, disk);
    }
}

/* The log lacks writes: no epoch can be sent until everything has been compared again. */
static void on_detached(void *opaque, const char *why)
{
    struct guest_disks *disks = opaque;
    sink_error(disks->sink, "%s", why);
    disks->cut_link(disks->opaque);
}

static void on_trouble(void *opaque, const char *message)
{
    struct guest_disks *disks = opaque;
    /* That the guest stands still for a disk says more than what its server has to say. */
    if (message && disks->io_retry) {
        sink_detail_of(disks->sink, SINK_CAUSE_DISK, "%s", message);
    } else if (message) {
        sink_error_of(disks->sink, SINK_CAUSE_DISK, "%s", message);
    } else {
        sink_error_over(disks->sink, SINK_CAUSE_DISK);
    }
}

bool guest_disks_open(struct guest_disks *disks, const struct disks_config *config, GError **error)
{
    struct disks_config all = *config;
    all.changed = on_changed;
    all.flushed = on_flushed;
    all.detached = on_detached;
    all.fault_changed = on_trouble;
    all.opaque = disks;
    if (all.n == 0)
        return true;
    disks->set = disks_open(&all, error);
    return disks->set != NULL;
}

void guest_disks_use(struct guest_disks *disks, const struct guest_disks_parts *parts)
{
    disks->parts = *parts;
    if (!parts->capture)
        g_clear_handle_id(&disks->io_retry, g_source_remove);
}

void guest_disks_close(struct guest_disks *disks)
{
    disks_close(g_steal_pointer(&disks->set));
}

static void answer(struct guest_disks *disks, uint64_t order, bool ok)
{
    const struct session_event event = {.type = SESSION_EVENT_DISKS_READY, .order = order, .ok = ok};
    sink_event(disks->sink, &event);
}

static void on_durable(void *opaque)
{
    struct guest_disks *disks = opaque;
    const struct session_event event = {.type = SESSION_EVENT_DISKS_DURABLE, .order = disks->durable_order};
    sink_event(disks->sink, &event);
}

/* What is held back of shared disks included. Waits, at most twice LAST_WRITES_MS. */
static bool let_go_now(struct guest_disks *disks)
{
    gint64 until = g_get_monotonic_time() + LAST_WRITES_MS * 1000;
    disks_write_through(disks->set);
    while (!disks_order_done(disks->set) && g_get_monotonic_time() < until)
        g_usleep(1000);
    return disks_order_done(disks->set) && disks_sync_within(disks->set, LAST_WRITES_MS) == 0;
}

void guest_disks_make_durable(struct guest_disks *disks, uint64_t order)
{
    disks->durable_order = order;
    disks_make_durable(disks->set, on_durable, disks);
}

void guest_disks_release_last(struct guest_disks *disks)
{
    if (let_go_now(disks))
        gate_pass_all(disks->gate);
}

void guest_disks_hold(struct guest_disks *disks)
{
    if (!disks->set)
        return;
    disks_cancel_durable(disks->set);
    disks_hold(disks->set);
}

void guest_disks_stop_logging(struct guest_disks *disks)
{
    if (disks->set)
        disks_stop_logging(disks->set);
}

void guest_disks_release(struct guest_disks *disks, uint64_t epoch)
{
    disks_release(disks->set, epoch);
}

void guest_disks_fence(struct guest_disks *disks)
{
    if (!disks->set)
        return;
    disks->order = 0;
    disks_cancel_durable(disks->set);
    disks_give_up_writing(disks->set);
}

/* The other host may have the shared disks only when nothing can be written to them here. */
void guest_disks_give_up(struct guest_disks *disks, uint64_t order)
{
    disks->order = order;
    disks->unlock = disks_any_shared(disks->set);
    if (disks->unlock)
        disks_give_up_writing(disks->set);
    answer_if_done(disks);
}

void guest_disks_make_writable(struct guest_disks *disks, uint64_t order)
{
    disks->order = order;
    disks->unlock = false;
    if (disks_any_shared(disks->set) && disks_lock_shared(disks->set) < 0) {
        sink_error(disks->sink, "VM %s stays paused: a shared disk has been locked by another host meanwhile",
                   disks->vm_name);
        disks->order = 0;
        answer(disks, order, false);
        return;
    }
    disks_order(disks->set, DISK_WRITABLE, 0, false);
    answer_if_done(disks);
}

/* The applier empties the journal; then its note comes. */
void guest_disks_take_over(struct guest_disks *disks, uint64_t order)
{
    disks->take_over_order = order;
    applier_post_end_standby(disks->parts.applier, disks->durable_acks);
}

void guest_disks_standby_ended(struct guest_disks *disks, int status)
{
    if (status < 0) {
        g_autofree char *why = disks_failure(disks->set);
        sink_error(disks->sink, "VM %s could not be taken over: its disks could not be made ready: %s",
                   disks->vm_name, why ? why : g_strerror(-status));
        answer(disks, disks->take_over_order, false);
        return;
    }
    disks->order = disks->take_over_order;
    disks->unlock = false;
    disks_order(disks->set, DISK_WRITABLE | DISK_DURABLE, DISK_LOGGING, false);
    answer_if_done(disks);
}

/* The newest order that is to be answered has been carried out by every server. */
static void answer_if_done(struct guest_disks *disks)
{
    uint64_t order = disks->order;
    if (!order || !disks_order_done(disks->set))
        return;
    disks->order = 0;
    if (disks->unlock)
        disks_unlock_shared(disks->set);
    disks->unlock = false;
    answer(disks, order, true);
}

/* ---- a disk that refuses ---- */

/* QEMU tries the request again; if it fails again, the guest stops again. */
static gboolean on_io_retry(gpointer opaque)
{
    const struct guest_disks *disks = opaque;
    disks->resume(disks->opaque);
    return G_SOURCE_CONTINUE;
}

static void retry_now_and_then(struct guest_disks *disks)
{
    if (!disks->io_retry)
        disks->io_retry = g_timeout_add(IO_RETRY_MS, on_io_retry, disks);
}

void guest_disks_retry(struct guest_disks *disks)
{
    sink_error_of(disks->sink, SINK_CAUSE_DISK,
                  "VM %s was taken over while a request to a disk had failed on the other host: the guest "
                  "stands still and the request is tried again every second",
                  disks->vm_name);
    disks->stood_still_there = true;
    retry_now_and_then(disks);
    disks->resume(disks->opaque);
}

void guest_disks_io_error(struct guest_disks *disks, const struct machine_disk_error *error)
{
    if (disks->session->role != SESSION_PRIMARY)
        return;
    sink_error_of(disks->sink, SINK_CAUSE_DISK, "VM %s: a request to disk %s failed: %s; %s", disks->vm_name,
                  error->disk[0] ? error->disk : "?", error->reason[0] ? error->reason : "I/O error",
                  error->stops ? "the guest stands still and the request is tried again every second"
                               : "the guest was told");
    if (error->stops)
        retry_now_and_then(disks);
}

void guest_disks_io_resumed(struct guest_disks *disks)
{
    g_clear_handle_id(&disks->io_retry, g_source_remove);
    /* What the other host's disk had refused this one takes, or says itself what is wrong with it. */
    if (disks->stood_still_there)
        sink_error_over(disks->sink, SINK_CAUSE_DISK);
    disks->stood_still_there = false;
    disks_guest_goes_on(disks->set);
}

bool guest_disks_message(struct guest_disks *disks, struct connection *connection, const struct note *note)
{
    const struct transport_message message = {.type = (enum message_type)note->arg,
                                              .term = note->term,
                                              .epoch = note->epoch,
                                              .arg = note->aux,
                                              .len = note->len,
                                              .payload = note->payload};
    if (!disks->set || note->term != disks->session->term)
        return note->arg == MESSAGE_APPLIED;
    return disks->session->role == SESSION_PRIMARY
               ? disk_sync_message(disks->parts.sync, &message)
               : disk_answer_message(disks->parts.answer, connection, &message);
}
