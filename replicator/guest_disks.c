/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The guest's disks from the control thread's side: which mode the disk servers are in at each turn of the
 * session, and the two turns that have to wait for them.
 *
 *   alone       every write is durable before it completes
 *   protected   writes are logged and need not be durable: what depends on them waits in the output gate
 *   peer lost   durable again; the gate opens once what was written meanwhile is on stable storage
 *   takeover    the applier empties the journal, the servers let the guest write, then QEMU goes on
 */
#include <gio/gio.h>

#include "replicator/channel.h"
#include "replicator/disk_log.h"
#include "replicator/note.h"
#include "replicator/replicator.h"

static void promote_when_writable(struct replicator *r)
{
    if (!r->promote_wanted || !disks_order_done(r->disks))
        return;
    r->promote_wanted = false;
    guest_promote(r, r->promote_term);
}

static void on_changed(void *opaque, bool urgent)
{
    struct replicator *r = opaque;
    if (r->capture && urgent)
        capture_thread_hurry(r->capture);
    else if (r->capture)
        capture_thread_room(r->capture);
    promote_when_writable(r);
}

/* The log lacks writes: no epoch can be sent until everything has been compared again. */
static void on_detached(void *opaque, const char *why)
{
    struct replicator *r = opaque;
    replicator_error(r, "%s", why);
    if (r->connection)
        connection_shutdown(r->connection);
}

static void on_trouble(void *opaque, const char *message)
{
    replicator_error(opaque, "%s", message);
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
        .standby = r->config.role == SESSION_SECONDARY,
        .changed = on_changed,
        .detached = on_detached,
        .trouble = on_trouble,
        .opaque = r,
    };
    if (config.n == 0)
        return true;
    r->disks = disks_open(&config, error);
    return r->disks != NULL;
}

static void on_durable(void *opaque)
{
    struct replicator *r = opaque;
    r->disks_volatile = false;
    gate_pass_all(r->gate);
}

void guest_disks_release_all(struct replicator *r)
{
    if (!r->disks_volatile)
        gate_pass_all(r->gate);
    else if (r->session.state != SESSION_ENDED)
        disks_make_durable(r->disks, on_durable, r);
    else if (disks_sync(r->disks) == 0) /* nothing comes after this: there is nobody to keep waiting */
        on_durable(r);
}

void guest_disks_hold(struct replicator *r)
{
    if (!r->disks)
        return;
    disks_cancel_durable(r->disks);
    disks_order(r->disks, 0, DISK_DURABLE, false);
    r->disks_volatile = true;
}

void guest_disks_stop_logging(struct replicator *r)
{
    disks_order(r->disks, DISK_DURABLE, DISK_LOGGING, false);
}

void guest_disks_promote(struct replicator *r, uint64_t term)
{
    r->promote_term = term;
    if (r->disks)
        applier_post_end_standby(r->applier, r->config.durable_acks);
    else
        guest_promote(r, term);
}

void guest_disks_standby_ended(struct replicator *r, int status)
{
    if (status < 0) {
        replicator_error(r, "VM %s could not be taken over: its disks could not be made ready: %s",
                         r->config.vm_name, g_strerror(-status));
        struct session_event event = {.type = SESSION_EVENT_PROMOTED, .term = r->promote_term, .ok = false};
        replicator_event(r, &event);
        return;
    }
    r->promote_wanted = true;
    disks_order(r->disks, DISK_WRITABLE | DISK_DURABLE, DISK_LOGGING, false);
    promote_when_writable(r);
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
