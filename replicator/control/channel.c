/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * See channel.h. Status goes out four times a second and at each change of state. When the daemon goes away
 * the replicator carries on: protecting the VM does not need it.
 */
#include "replicator/control/channel.h"

#include <gio/gio.h>
#include <string.h>

#include "checkpoint/tracker.h"
#include "proto/framing.h"
#include "proto/limits.h"
#include "replicator/control/adoption.h"
#include "replicator/control/replicator.h"
#include "replicator/control/session_state.h"

#define REPORT_MS      250
#define REPORT_SOON_MS 5
#define LAST_WORD_MS   500

struct channel {
    struct replicator *r;
    struct framing *framing; /* NULL: the daemon is gone */
    struct adoption *adoption;
    guint8 *start; /* the order, packed: what a later daemon is told */
    size_t start_len;
    guint regular, soon;
    /* For rates. */
    gint64 last_us;
    uint64_t last_epochs, last_bytes;
    double epochs_per_s, bytes_per_s;
};

static void percentiles(Understudy__Percentiles *out, const struct histogram *histogram)
{
    understudy__percentiles__init(out);
    if (!histogram)
        return;
    out->p50 = histogram_percentile(histogram, 50);
    out->p99 = histogram_percentile(histogram, 99);
    out->max = histogram_max(histogram);
}

static void update_rates(struct channel *channel, uint64_t epochs, uint64_t bytes)
{
    gint64 now = g_get_monotonic_time();
    double seconds = (double)(now - channel->last_us) / 1e6;
    if (seconds < 0.2)
        return;
    channel->epochs_per_s = (double)(epochs - MIN(epochs, channel->last_epochs)) / seconds;
    channel->bytes_per_s = (double)(bytes - MIN(bytes, channel->last_bytes)) / seconds;
    channel->last_us = now;
    channel->last_epochs = epochs;
    channel->last_bytes = bytes;
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
    for (unsigned i = 0; i < disks_count(r->disks); i++) {
        struct disk_figures figures;
        disks_figures(r->disks, i, &figures);
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
    status->n_disks = disks_count(r->disks);
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
static void report(struct channel *channel)
{
    struct replicator *r = channel->r;
    if (!channel->framing)
        return;
    const struct capture_figures *figures = r->capture ? capture_thread_figures(r->capture) : NULL;
    Understudy__Percentiles pause, stop, harvest, save, copy_wait, resume, dirty, bytes, hold;
    Understudy__Status status = UNDERSTUDY__STATUS__INIT;
    struct gate_stats gate = {0};
    bool primary = (r->hv_ready ? r->session.role : r->config.role) == SESSION_PRIMARY;
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
    update_rates(channel, epochs, bytes_on_link(r));

    status.vm = r->config.vm_name;
    status.role = primary ? UNDERSTUDY__ROLE__ROLE_PRIMARY : UNDERSTUDY__ROLE__ROLE_SECONDARY;
    status.state = r->hv_ready ? state_of_session(r->session.state) : UNDERSTUDY__STATE__STATE_STARTING;
    status.term = r->session.term;
    status.peer = r->config.peer_host ? r->config.peer_host : (char *)"";
    status.qemu_version = (char *)(r->hv ? hypervisor_version(r->hv) : "");
    status.memory_mib = r->config.ram_bytes >> 20;
    status.epochs = epochs;
    status.acked_epoch = r->session.acked_epoch;
    status.epochs_per_s = channel->epochs_per_s;
    status.bytes_per_s = channel->bytes_per_s;
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
    status.qemu_pid = r->qemu && !r->qemu_gone ? child_process_pid(r->qemu) : 0;
    Understudy__Envelope envelope = UNDERSTUDY_ENVELOPE(STATUS, status, &status);
    framing_send(channel->framing, &envelope);
}

static gboolean on_regular(gpointer opaque)
{
    report(opaque);
    return G_SOURCE_CONTINUE;
}

static gboolean on_soon(gpointer opaque)
{
    struct channel *channel = opaque;
    channel->soon = 0;
    report(channel);
    return G_SOURCE_REMOVE;
}

void channel_report_soon(struct channel *channel)
{
    if (channel && !channel->soon)
        channel->soon = g_timeout_add(REPORT_SOON_MS, on_soon, channel);
}

static void on_closed(struct framing *framing, void *opaque)
{
    struct channel *channel = opaque;
    framing_free(framing);
    channel->framing = NULL;
    if (!channel->r->hv)
        g_main_loop_quit(channel->r->loop);
}

/* For a daemon that comes later. */
static bool remember_start(struct channel *channel, const Understudy__Start *start, GError **error)
{
    channel->start_len = understudy__start__get_packed_size(start);
    channel->start = g_malloc(channel->start_len);
    understudy__start__pack(start, channel->start);
    channel->adoption = adoption_new(start->vm_dir, channel, error);
    return channel->adoption != NULL;
}

static void take_disks(struct replicator_config *config, const Understudy__Start *start)
{
    const Understudy__Protection *p = start->protection;
    for (size_t i = 0; i < p->n_disks && i < DISK_MAX; i++)
        config->disks[config->ndisks++] = (struct disk_config){.id = g_strdup(p->disks[i]->id),
                                                               .path = g_strdup(p->disks[i]->path),
                                                               .export_len = p->disks[i]->export_len,
                                                               .shared = p->disks[i]->shared};
    config->durable_acks = p->durability == UNDERSTUDY__DURABILITY__DURABILITY_DISK;
    config->state_dir = g_strdup(start->state_dir);
    config->disk_plugin = g_strdup(start->disk_plugin);
}

_Static_assert(LIMIT_NICS == REPLICATOR_MAX_NICS && LIMIT_HEARTBEAT_PATHS == HEARTBEAT_PATHS_MAX,
               "what is promised is what there is room for");

static bool is_within_limits(const Understudy__Start *start, GError **error)
{
    if (start->nice < LIMIT_NICE_MIN || start->nice > LIMIT_NICE_MAX) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT, "--nice %d: give a number from %d to %d",
                    start->nice, LIMIT_NICE_MIN, LIMIT_NICE_MAX);
        return false;
    }
    return limits_hold(start->protection, error);
}

static void take_start(struct replicator *r, const Understudy__Start *start)
{
    const Understudy__Protection *p = start->protection;
    struct replicator_config *config = &r->config;
    g_autoptr(GError) error = NULL;
    if (!p || config->vm_name || p->token.len != WIRE_TOKEN_LEN || start->n_argv == 0 ||
        p->n_disks > DISK_MAX) {
        sink_error(&r->sink, "the daemon sent an order that was not understood");
        sink_give_up(&r->sink);
        return;
    }
    if (!is_within_limits(start, &error)) {
        sink_error(&r->sink, "%s", error->message);
        sink_give_up(&r->sink);
        return;
    }
    config->role = start->role == UNDERSTUDY__ROLE__ROLE_PRIMARY ? SESSION_PRIMARY : SESSION_SECONDARY;
    config->vm_name = g_strdup(p->vm);
    sink_set_vm_name(&r->sink, config->vm_name);
    config->vm_dir = g_strdup(start->vm_dir);
    config->qemu_argv = g_new0(char *, start->n_argv + 1);
    for (size_t i = 0; i < start->n_argv; i++)
        config->qemu_argv[i] = g_strdup(start->argv[i]);
    if (start->n_trial_argv && config->role == SESSION_SECONDARY) {
        config->trial_argv = g_new0(char *, start->n_trial_argv + 1);
        for (size_t i = 0; i < start->n_trial_argv; i++)
            config->trial_argv[i] = g_strdup(start->trial_argv[i]);
    }
    config->qemu_version = g_strdup(p->qemu_version);
    config->tried_for = g_strdup(p->tried_for);
    config->hook_path = g_strdup(start->hook);
    g_autoptr(GPtrArray) line = g_ptr_array_new();
    for (size_t i = 0; i < p->n_qemu_argv; i++)
        g_ptr_array_add(line, p->qemu_argv[i]);
    g_ptr_array_add(line, NULL);
    line_run_actions((const char *const *)line->pdata, &r->actions);
    config->ram_bytes = p->ram_bytes;
    config->nnics = p->nnics;
    memcpy(config->token, p->token.data, WIRE_TOKEN_LEN);
    config->term = p->term;
    config->epoch_ms = p->epoch_ms;
    config->deadline_ms = p->deadline_ms;
    config->silence_ms = p->silence_ms;
    config->heartbeat_ms = p->heartbeat_ms;
    config->nheartbeat_paths = (unsigned)p->n_heartbeat_paths;
    for (unsigned i = 0; i < config->nheartbeat_paths; i++) {
        config->heartbeat_paths[i].here = g_strdup(p->heartbeat_paths[i]->here);
        config->heartbeat_paths[i].there = g_strdup(p->heartbeat_paths[i]->there);
    }
    config->on_peer_loss = p->on_peer_loss == UNDERSTUDY__PEER_LOSS__PEER_LOSS_HOLD
                               ? SESSION_ON_PEER_LOSS_HOLD
                               : SESSION_ON_PEER_LOSS_CONTINUE;
    config->listen_address = start->listen_address[0] ? g_strdup(start->listen_address) : NULL;
    config->peer_host = start->peer_host[0] ? g_strdup(start->peer_host) : NULL;
    config->peer_data_port = (uint16_t)start->peer_data_port;
    config->peer_udp_port = (uint16_t)start->peer_udp_port;
    config->nice = start->nice;
    config->tracker = g_strcmp0(p->tracker, "uffd") == 0 ? HV_TRACKER_UFFD : HV_TRACKER_QEMU_LOG;
    config->transport = g_strcmp0(p->transport, "tcp") == 0    ? TRANSPORT_TCP
                        : g_strcmp0(p->transport, "rdma") == 0 ? TRANSPORT_RDMA
                                                               : TRANSPORT_AUTO;
    take_disks(config, start);
    replicator_configured(r);
}

static void on_start(struct channel *channel, const Understudy__Start *start)
{
    g_autoptr(GError) error = NULL;
    if (channel->start || remember_start(channel, start, &error)) {
        take_start(channel->r, start);
        return;
    }
    sink_error(&channel->r->sink, "%s", error->message);
    sink_give_up(&channel->r->sink);
}

static void reset_figures(struct replicator *r)
{
    if (r->capture)
        capture_thread_reset_figures(r->capture);
    if (r->epoch_bytes)
        histogram_reset_soon(r->epoch_bytes);
    if (r->gate)
        gate_reset_hold(r->gate);
}

static void on_message(struct framing *framing, const Understudy__Envelope *message, void *opaque)
{
    struct channel *channel = opaque;
    struct replicator *r = channel->r;
    (void)framing;
    if (message->body_case != UNDERSTUDY__ENVELOPE__BODY_START && !r->config.vm_name)
        return;
    switch (message->body_case) {
    case UNDERSTUDY__ENVELOPE__BODY_START:
        on_start(channel, message->start);
        break;
    case UNDERSTUDY__ENVELOPE__BODY_PEER_MOVED:
        replicator_peer_moved(r, message->peer_moved->host, (uint16_t)message->peer_moved->data_port,
                              (uint16_t)message->peer_moved->udp_port);
        break;
    case UNDERSTUDY__ENVELOPE__BODY_FAILOVER:
        sink_event_simple(&r->sink, message->failover->force ? SESSION_EVENT_FAILOVER_FORCE
                                                             : SESSION_EVENT_FAILOVER_PLANNED);
        break;
    case UNDERSTUDY__ENVELOPE__BODY_STOP:
        if (r->hv_ready)
            sink_event_simple(&r->sink, SESSION_EVENT_STOP);
        else
            sink_give_up(&r->sink);
        break;
    case UNDERSTUDY__ENVELOPE__BODY_POWER:
        guest_button(r, message->power->action);
        break;
    case UNDERSTUDY__ENVELOPE__BODY_RESET_FIGURES:
        reset_figures(r);
        channel_report_soon(channel);
        break;
    default:
        break;
    }
}

struct channel *channel_new(struct replicator *r, int fd)
{
    struct channel *channel = g_new0(struct channel, 1);
    channel->r = r;
    channel->last_us = g_get_monotonic_time();
    channel->framing = framing_new(fd, on_message, on_closed, channel);
    channel->regular = g_timeout_add(REPORT_MS, on_regular, channel);
    return channel;
}

void channel_attach(struct channel *channel, int fd)
{
    struct replicator *r = channel->r;
    Understudy__Listening listening = UNDERSTUDY__LISTENING__INIT;
    Understudy__Adopted adopted = UNDERSTUDY__ADOPTED__INIT;
    framing_free(channel->framing);
    channel->framing = framing_new(fd, on_message, on_closed, channel);
    listening.data_port = r->data_port;
    listening.udp_port = r->udp_port;
    adopted.listening = &listening;
    adopted.start = understudy__start__unpack(NULL, channel->start_len, channel->start);
    Understudy__Envelope envelope = UNDERSTUDY_ENVELOPE(ADOPTED, adopted, &adopted);
    framing_send(channel->framing, &envelope);
    understudy__start__free_unpacked(adopted.start, NULL);
    report(channel);
}

void channel_free(struct channel *channel)
{
    if (!channel)
        return;
    adoption_free(channel->adoption);
    g_free(channel->start);
    g_clear_handle_id(&channel->regular, g_source_remove);
    g_clear_handle_id(&channel->soon, g_source_remove);
    framing_free(channel->framing);
    g_free(channel);
}

void channel_listening(struct channel *channel, guint16 data_port, guint16 udp_port)
{
    Understudy__Listening listening = UNDERSTUDY__LISTENING__INIT;
    listening.data_port = data_port;
    listening.udp_port = udp_port;
    Understudy__Envelope envelope = UNDERSTUDY_ENVELOPE(LISTENING, listening, &listening);
    if (channel->framing)
        framing_send(channel->framing, &envelope);
}

void channel_ended(struct channel *channel, enum session_end_reason reason, const char *message)
{
    Understudy__Ended ended = UNDERSTUDY__ENDED__INIT;
    ended.reason = (char *)session_end_reason_name(reason);
    ended.message = (char *)(message ? message : "");
    Understudy__Envelope envelope = UNDERSTUDY_ENVELOPE(ENDED, ended, &ended);
    report(channel);
    if (!channel->framing)
        return;
    framing_send(channel->framing, &envelope);
    framing_flush(channel->framing, LAST_WORD_MS);
}
