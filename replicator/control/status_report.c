/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What status says of this replicator, gathered from its parts. Four times a second, and at each change of
 * state.
 */
#include "checkpoint/tracker.h"
#include "replicator/control/channel.h"
#include "replicator/control/replicator.h"
#include "replicator/control/session_state.h"

static void percentiles(Understudy__Percentiles *out, const struct histogram *histogram)
{
    understudy__percentiles__init(out);
    if (!histogram)
        return;
    out->p50 = histogram_percentile(histogram, 50);
    out->p99 = histogram_percentile(histogram, 99);
    out->max = histogram_max(histogram);
}

static void update_rates(struct report_rates *rates, uint64_t epochs, uint64_t bytes)
{
    gint64 now = g_get_monotonic_time();
    double seconds = (double)(now - rates->last_us) / 1e6;
    if (seconds < 0.2)
        return;
    rates->epochs_per_s = (double)(epochs - MIN(epochs, rates->last_epochs)) / seconds;
    rates->bytes_per_s = (double)(bytes - MIN(bytes, rates->last_bytes)) / seconds;
    rates->last_us = now;
    rates->last_epochs = epochs;
    rates->last_bytes = bytes;
}

static uint64_t bytes_on_link(const struct replicator *r)
{
    struct transport_stats stats = {0};
    if (r->connection)
        r->connection->transport->ops->stats(r->connection->transport, &stats);
    return stats.bytes_sent + stats.bytes_received;
}

static Understudy__DiskState disk_state(const struct replicator *r, const struct disk_figures *figures)
{
    if (!figures->server_runs)
        return UNDERSTUDY__DISK_STATE__DISK_STATE_FAILED;
    switch (r->session.state) {
    case SESSION_SYNCHRONISING:
    case SESSION_FOLLOWING:
        return UNDERSTUDY__DISK_STATE__DISK_STATE_SYNCHRONISING;
    case SESSION_ARMING:
    case SESSION_PROTECTED:
    case SESSION_STANDBY:
    case SESSION_HANDING_OVER:
        return UNDERSTUDY__DISK_STATE__DISK_STATE_PROTECTED;
    default:
        return UNDERSTUDY__DISK_STATE__DISK_STATE_UNPROTECTED;
    }
}

/* Points into r and figures; the pointers are the caller's room for DISK_MAX. */
static void fill_disks(const struct replicator *r, Understudy__Status *status, Understudy__DiskStatus *disks,
                       Understudy__DiskStatus **pointers)
{
    for (unsigned i = 0; i < disks_count(r->disks.set); i++) {
        struct disk_figures figures;
        disks_figures(r->disks.set, i, &figures);
        understudy__disk_status__init(&disks[i]);
        disks[i].id = (char *)figures.id;
        disks[i].path = (char *)figures.path;
        disks[i].state = disk_state(r, &figures);
        disks[i].dirty_bytes = figures.dirty_bytes;
        disks[i].log_bytes = figures.log_bytes;
        disks[i].total_bytes = figures.len;
        disks[i].done_bytes = figures.len - MIN(figures.len, figures.dirty_bytes);
        disks[i].candidate_bytes = figures.candidate_bytes;
        disks[i].sent_bytes = figures.sent_bytes;
        disks[i].message = (char *)(figures.fault ? figures.fault : "");
        pointers[i] = &disks[i];
    }
    status->disks = pointers;
    status->n_disks = disks_count(r->disks.set);
    status->durability = r->config.durable_acks ? UNDERSTUDY__DURABILITY__DURABILITY_DISK
                                                : UNDERSTUDY__DURABILITY__DURABILITY_MEMORY;
}

static void fill_heartbeats(const struct replicator *r, Understudy__Status *status,
                            Understudy__HeartbeatStatus *paths, Understudy__HeartbeatStatus **pointers)
{
    for (unsigned i = 0; i < paths_count(r->paths); i++) {
        const char *there = i > 0 ? r->config.heartbeat_paths[i - 1].there : r->config.peer_host;
        understudy__heartbeat_status__init(&paths[i]);
        paths[i].there = (char *)(there ? there : "");
        paths[i].silent_ms = paths_silent_ms(r->paths, i);
        int failed = paths_send_error(r->paths, i, &paths[i].send_errors);
        paths[i].send_error = (char *)(failed ? g_strerror(failed) : "");
        pointers[i] = &paths[i];
    }
    status->heartbeats = pointers;
    status->n_heartbeats = paths_count(r->paths);
}

/* What an error says, and where it stands, fills one envelope. */
void status_report(struct replicator *r)
{
    const struct capture_figures *figures = r->capture ? capture_thread_figures(r->capture) : NULL;
    Understudy__Percentiles pause, stop, harvest, save, copy_wait, resume, dirty, bytes, hold;
    Understudy__Status status = UNDERSTUDY__STATUS__INIT;
    struct gate_stats gate = {0};
    bool primary = (r->session_begun ? r->session.role : r->config.role) == SESSION_PRIMARY;
    uint64_t epochs = primary ? r->session.cut_epoch : r->session.acked_epoch;

    percentiles(&pause, figures ? figures->pause_us : NULL);
    percentiles(&stop, figures ? figures->stop_us : NULL);
    percentiles(&harvest, figures ? figures->harvest_us : NULL);
    percentiles(&save, figures ? figures->save_us : NULL);
    percentiles(&copy_wait, figures ? figures->copy_wait_us : NULL);
    percentiles(&resume, figures ? figures->resume_us : NULL);
    percentiles(&dirty, figures ? figures->dirty_pages : NULL);
    percentiles(&bytes, r->epoch_bytes);
    percentiles(&hold, r->gate ? gate_hold_us(r->gate) : NULL);
    if (r->gate)
        gate_get_stats(r->gate, &gate);
    update_rates(&r->rates, epochs, bytes_on_link(r));

    status.vm = r->config.vm_name;
    status.role = primary ? UNDERSTUDY__ROLE__ROLE_PRIMARY : UNDERSTUDY__ROLE__ROLE_SECONDARY;
    status.state = r->session_begun ? state_of_session(r->session.state) : UNDERSTUDY__STATE__STATE_STARTING;
    status.term = r->session.term;
    status.peer = r->config.peer_host ? r->config.peer_host : (char *)"";
    status.qemu_version = (char *)(r->hv ? hypervisor_version(r->hv) : "");
    status.memory_mib = r->config.ram_bytes >> 20;
    status.epochs = epochs;
    status.acked_epoch = r->session.acked_epoch;
    status.epochs_per_s = r->rates.epochs_per_s;
    status.bytes_per_s = r->rates.bytes_per_s;
    status.pause_us = &pause;
    status.stop_us = &stop;
    status.harvest_us = &harvest;
    status.save_us = &save;
    status.copy_wait_us = &copy_wait;
    status.resume_us = &resume;
    status.dirty_pages = &dirty;
    status.epoch_bytes = &bytes;
    status.hold_us = &hold;
    if (figures && primary) {
        uint64_t left = atomic_load_explicit(&figures->sync_remaining_pages, memory_order_relaxed);
        status.sync_total_pages = atomic_load_explicit(&figures->sync_total_pages, memory_order_relaxed);
        status.sync_done_pages = status.sync_total_pages - MIN(left, status.sync_total_pages);
        status.sync_sent_pages = atomic_load_explicit(&figures->sync_sent_pages, memory_order_relaxed);
        status.expired = atomic_load_explicit(&figures->expired, memory_order_relaxed);
    }
    status.sync_ms = r->sync_ms;
    status.sync_difference = r->sync_difference;
    status.detect_ms = r->detect_ms;
    status.promote_ms = r->promote_ms;
    const char *last_error = sink_last_error(&r->sink);
    status.last_error = (char *)(last_error ? last_error : "");
    status.on_peer_loss = r->config.on_peer_loss == SESSION_ON_PEER_LOSS_HOLD
                              ? UNDERSTUDY__PEER_LOSS__PEER_LOSS_HOLD
                              : UNDERSTUDY__PEER_LOSS__PEER_LOSS_CONTINUE;
    status.transport = (char *)(r->transport ? r->transport : "");
    status.transport_why =
        r->transport_why && g_strcmp0(r->transport, "tcp") == 0 ? r->transport_why : (char *)"";
    status.link_security = r->config.sealed ? UNDERSTUDY__LINK_SECURITY__LINK_SECURITY_SEALED
                                            : UNDERSTUDY__LINK_SECURITY__LINK_SECURITY_NONE;
    status.link_cipher = (char *)(r->connection && r->connection->cipher != SEAL_NO_CIPHER
                                      ? seal_cipher_name(r->connection->cipher)
                                      : "");
    status.split = r->split ? r->split : (char *)"";
    status.frames_dropped = gate.frames_dropped;
    status.guest_here = r->guest_runs_here;
    status.guest_state = r->guest_runs_here ? r->guest_state : UNDERSTUDY__GUEST_STATE__GUEST_STATE_RUNS;
    status.untried = primary ? r->peer_untried && r->session.state == SESSION_ARMING : r->session.untried;
    status.trial = r->trial_text && !primary ? r->trial_text : (char *)"";
    status.guest_event = r->guest_event ? r->guest_event : (char *)"";
    Understudy__DiskStatus disks[DISK_MAX], *disk_pointers[DISK_MAX];
    fill_disks(r, &status, disks, disk_pointers);
    Understudy__HeartbeatStatus paths[1 + HEARTBEAT_PATHS_MAX], *path_pointers[1 + HEARTBEAT_PATHS_MAX];
    fill_heartbeats(r, &status, paths, path_pointers);
    status.qemu_pid = r->machine ? machine_pid(r->machine) : 0;
    channel_status(r->channel, &status);
}
