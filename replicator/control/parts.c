/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The parts of a replicator: made in two steps (when the daemon's order is there, and when the guest's
 * machine is ready), told where the peer is, and closed in the order in which one stops needing the other.
 * Here they are also connected: what the guest's machine tells goes to the parts that it concerns.
 */
#include <errno.h>
#include <gio/gio.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "common/priority.h"
#include "replicator/control/channel.h"
#include "replicator/control/replicator.h"
#include "replicator/control/term_file.h"
#include "replicator/control/trial.h"
#include "replicator/note.h"
#include "replicator/transport/tcp.h"

#define STALL_MS          5000
#define GATE_HOLD_LEN     (32u << 20)
#define DEVSTATE_CAPACITY (16u << 20)
#define OTHER_STAGING_LEN (64u << 20) /* about: for RAM blocks beside the main one */
#define CLOSE_MAX_S       60
/* A busy disk may take seconds to sync: no reason to give the standby up. */
#define DURABLE_ACK_TIMEOUT_MS 15000

/* ---- what the guest's machine tells (guest.c) ---- */

/*
 * The guest stood still on the other host when its last epoch was cut: it does here. What waits for a disk is
 * tried again; what somebody stopped on purpose stays stopped.
 */
static void tell_that_it_stands(struct replicator *r, const struct machine_takeover *result)
{
    if (result->state == MACHINE_DISK_ERROR)
        guest_disks_retry(&r->disks);
    else
        sink_error(&r->sink,
                   "VM %s was taken over as it was, and its guest stood still (QEMU's run state: %s): "
                   "QEMU's monitor command 'cont' lets it go on",
                   r->config.vm_name, result->words);
}

static void on_guest_taken_over(struct replicator *r, const struct machine_takeover *result)
{
    if (result->state != MACHINE_RUNS)
        tell_that_it_stands(r, result);
    guest_events_taken_over(r, result->state);
}

static void on_disk_error(struct replicator *r, const struct machine_disk_error *error)
{
    guest_disks_io_error(&r->disks, error);
}

static void on_disk_resumed(struct replicator *r)
{
    guest_disks_io_resumed(&r->disks);
}

/* ---- what the guest's disks ask for (guest_disks.h) ---- */

static void resume_for_disks(void *opaque)
{
    struct replicator *r = opaque;
    if (session_has_guest(&r->session) && !r->quitting)
        guest_resume(r);
}

static void cut_link(void *opaque)
{
    struct replicator *r = opaque;
    if (r->connection)
        connection_shutdown(r->connection);
}

static bool open_disks(struct replicator *r, GError **error)
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
    };
    r->disks = (struct guest_disks){
        .vm_name = r->config.vm_name,
        .durable_acks = r->config.durable_acks,
        .session = &r->session,
        .sink = &r->sink,
        .gate = r->gate,
        .resume = resume_for_disks,
        .cut_link = cut_link,
        .opaque = r,
    };
    return guest_disks_open(&r->disks, &config, error);
}

/* ---- making them ---- */

/* A frame the guest received: the peer gets a copy. */
static void send_frame_copy(void *opaque, unsigned nic, uint64_t epoch, const uint8_t *frame, size_t len)
{
    struct replicator *r = opaque;
    struct transport_message message = {.type = MESSAGE_FRAMES,
                                        .term = r->session.term,
                                        .epoch = epoch,
                                        .arg = nic,
                                        .payload = frame,
                                        .len = len};
    if (len <= TRANSPORT_MAX_PAYLOAD)
        sink_send_message(&r->sink, &message);
}

/* Tells the parts where the peer is. */
static void use_peer(struct replicator *r)
{
    char port[8];
    g_snprintf(port, sizeof port, "%u", r->config.peer_data_port);
    if (r->config.peer_data_port)
        link_set_peer(r->link, r->config.peer_host, port);
    if (r->config.peer_udp_port)
        paths_set_peer(r->paths, r->config.peer_host, r->config.peer_udp_port);
}

/* Gives a secret to the links to come. The heartbeats have it. */
static void use_secret(struct replicator *r, const uint8_t secret[SEAL_SECRET_LEN])
{
    struct link_security security = {.sealed = r->config.sealed};
    memcpy(security.secret, secret, sizeof security.secret);
    link_set_security(r->link, &security);
    seal_wipe(&security, sizeof security);
}

void parts_new_secret(struct replicator *r, const uint8_t secret[SEAL_SECRET_LEN])
{
    if (!r->config.sealed)
        return;
    if (!r->link) {
        memcpy(r->config.secret, secret, SEAL_SECRET_LEN);
        return;
    }
    use_secret(r, secret);
    paths_set_secret(r->paths, secret);
    for (unsigned i = 0; i < r->nendpoints; i++)
        if (r->endpoints[i]->ops->set_secret)
            r->endpoints[i]->ops->set_secret(r->endpoints[i], secret);
}

void parts_peer_moved(struct replicator *r, const char *host, uint16_t data_port, uint16_t udp_port)
{
    drop_peer_end(r);
    g_free(r->config.peer_host);
    r->config.peer_host = g_strdup(host);
    r->config.peer_data_port = data_port;
    r->config.peer_udp_port = udp_port;
    if (r->link)
        use_peer(r);
}

static bool open_parts(struct replicator *r, GError **error)
{
    uint64_t pages = 0;
    for (unsigned i = 0; i < hypervisor_nblocks(r->hv); i++)
        pages += hypervisor_block(r->hv, i)->max_len / HV_PAGE_LEN;
    /* One epoch may touch every page: with room for that (and, with RDMA, for its index), no epoch is ever
     * too large. Only touched pages cost memory. */
    pages += pages / 256 + 1024;
    if (r->disks.set)
        pages += disks_max_section_pages(disks_count(r->disks.set));
    int status = staging_open(&r->staging, (uint32_t)pages, DEVSTATE_CAPACITY);
    if (status == 0)
        status = image_new(&r->image, r->hv, DEVSTATE_CAPACITY);
    if (status < 0) {
        g_set_error(error, G_IO_ERROR, g_io_error_from_errno(-status),
                    "no memory to stage epochs of VM %s: %s", r->config.vm_name, g_strerror(-status));
        return false;
    }
    struct capture_thread_config capture = {
        .hv = r->hv,
        .staging = r->staging,
        .gate = r->gate,
        .input_log = r->input_log,
        .disks = r->disks.set,
        .control = &r->box,
        .epoch_ms = r->config.epoch_ms,
        .deadline_ms = r->config.deadline_ms,
        .tracker = r->config.tracker,
    };
    r->epoch_bytes = histogram_new();
    r->capture = capture_thread_new(&capture);
    if (r->capture)
        r->sender = sender_new(r->staging, &r->box, r->epoch_bytes, capture_thread_room, r->capture);
    if (r->sender)
        r->applier =
            applier_new(r->image, r->disks.set, r->disks.set && r->config.durable_acks, r->staging, &r->box);
    if (!r->applier) {
        g_set_error(error, G_IO_ERROR, g_io_error_from_errno(errno),
                    "the threads of its data plane cannot be started: %s: raise the limits of understudyd "
                    "(LimitNOFILE=, TasksMax=)",
                    g_strerror(errno));
        return false;
    }
    r->disk_sync = disk_sync_new(r->disks.set, r->staging, capture_thread_room, r->capture);
    if (!r->disk_sync) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED, "no memory to synchronise its disks");
        return false;
    }
    capture_thread_set_disk_sync(r->capture, r->disk_sync);
    capture_thread_set_sender(r->capture, r->sender);
    actions_open_capture_stop(r);
    r->disk_answer = disk_answer_new(r->disks.set, r->sender, r->applier, error);
    if (!r->disk_answer)
        return false;
    guest_disks_use(&r->disks, &(struct guest_disks_parts){.capture = r->capture,
                                                           .applier = r->applier,
                                                           .sync = r->disk_sync,
                                                           .answer = r->disk_answer});
    r->arbiter = arbiter_none_new();
    if (!r->arbiter)
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED, "no memory");
    return r->arbiter != NULL;
}

/* RDMA first: the link tries them in this order. Takes listen_fd when it succeeds. */
static bool open_endpoints(struct replicator *r, int listen_fd, uint16_t data_port, GError **error)
{
    struct endpoint_rdma_config rdma = {
        .staging = r->staging,
        .stall_ms = STALL_MS,
        .sealed = r->config.sealed,
        .listen_address = r->config.listen_address,
        .listen_port = data_port,
        .peer_host = r->config.peer_host,
    };
    memcpy(rdma.token, r->config.token, sizeof rdma.token);
    if (r->config.transport != TRANSPORT_TCP) {
        g_autoptr(GError) why = NULL;
        memcpy(rdma.secret, r->config.secret, sizeof rdma.secret);
        struct endpoint *endpoint = endpoint_rdma_new(&rdma, &why);
        seal_wipe(rdma.secret, sizeof rdma.secret);
        if (endpoint)
            r->endpoints[r->nendpoints++] = endpoint;
        else if (r->config.transport == TRANSPORT_RDMA)
            return g_propagate_error(error, g_steal_pointer(&why)), false;
        else
            r->transport_why = g_strdup(why->message);
    }
    if (r->config.transport != TRANSPORT_RDMA)
        r->endpoints[r->nendpoints++] = endpoint_tcp_new(listen_fd, STALL_MS);
    else if (listen_fd >= 0)
        close(listen_fd); /* it has reserved the port's number; nobody may come in by it */
    return true;
}

/* Not 0. */
static uint64_t random_number(void)
{
    uint64_t number = 0;
    if (getrandom(&number, sizeof number, 0) != (ssize_t)sizeof number)
        number = (uint64_t)g_random_int() << 32 | g_random_int();
    return number | 1;
}

static void begin(struct replicator *r)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *term_path = g_build_filename(r->config.state_dir, "term", NULL);
    uint16_t data_port = 0;
    uint64_t used_term = 0;
    int listen_fd = -1;
    bool listens = r->config.role == SESSION_SECONDARY;
    if (listens) {
        listen_fd = transport_tcp_listen(r->config.listen_address, &data_port, &error);
        if (listen_fd < 0)
            goto failed;
    }
    r->term_file =
        term_file_open(term_path, r->config.token, sizeof r->config.token, &r->box, &used_term, &error);
    if (!r->term_file || !open_parts(r, &error) || !heartbeats_start(r, &error))
        goto failed;
    if (!open_endpoints(r, listen_fd, data_port, &error))
        goto failed;
    r->link = link_new(&r->box, r->staging, r->endpoints, r->nendpoints, &error);
    if (!r->link)
        goto failed;
    use_secret(r, r->config.secret);
    seal_wipe(r->config.secret, sizeof r->config.secret);
    r->data_port = data_port;
    r->udp_port = paths_port(r->paths);
    if (r->config.peer_host)
        use_peer(r);
    struct session_config session = {
        .role = r->config.role,
        .term = r->config.term,
        .run = random_number(),
        .on_peer_loss = r->config.on_peer_loss,
        .silence_ms = r->config.silence_ms,
        .heartbeat_ms = r->config.heartbeat_ms,
        .query_base = (uint64_t)g_get_real_time(),
        .other_paths = r->config.nheartbeat_paths > 0,
        .keeps_terms = true,
        .used_term = used_term, /* a pair with an arbiter asks that instead */
        .disks = r->disks.set != NULL,
        .durable_acks = r->disks.set && r->config.durable_acks,
        .untried = r->config.trial_argv != NULL,
        .ack_timeout_ms = r->config.durable_acks ? DURABLE_ACK_TIMEOUT_MS : 0,
    };
    session_init(&r->session, &session, replicator_now_ms());
    r->session_begun = true;
    channel_listening(r->channel, data_port, r->udp_port);
    priority_set_nice(getpid(), r->config.nice);
    sink_event_simple(&r->sink, SESSION_EVENT_START);
    return;
failed:
    if (listen_fd >= 0 && r->nendpoints == 0)
        close(listen_fd);
    sink_error(&r->sink, "VM %s: %s", r->config.vm_name, error->message);
    sink_give_up(&r->sink);
}

void parts_configured(struct replicator *r)
{
    static const struct guest_observer observer = {
        .ready = begin,
        .run_event = guest_events_run,
        .was_reset = guest_events_reset,
        .disk_error = on_disk_error,
        .resumed = on_disk_resumed,
        .taken_over = on_guest_taken_over,
    };
    g_autoptr(GError) error = NULL;
    r->guest_observer = &observer;
    r->gate = gate_new(GATE_HOLD_LEN);
    r->input_log = input_log_new(send_frame_copy, r);
    r->since_us = g_get_monotonic_time();
    bool fits = r->config.transport != TRANSPORT_RDMA ||
                endpoint_rdma_check(
                    r->config.role == SESSION_PRIMARY ? r->config.peer_host : NULL, r->config.listen_address,
                    r->config.ram_bytes + r->config.ram_bytes / 256 + OTHER_STAGING_LEN, &error);
    if (!fits || !open_disks(r, &error) || !guest_start(r, &error)) {
        sink_error(&r->sink, "%s", error->message);
        sink_give_up(&r->sink);
    }
}

static void drop_notes(struct replicator *r)
{
    struct note *note;
    while ((note = note_take(&r->box))) {
        connection_put(note->connection);
        g_free(note);
    }
}

/*
 * Closing waits for threads that may be inside a read or a sync of storage that hangs. The session is over by
 * then, and the peer was told; what is not closed cleanly is compared, or replayed, when it is opened next.
 */
static gpointer end_at_last(gpointer opaque)
{
    const struct replicator *r = opaque;
    g_usleep(CLOSE_MAX_S * G_USEC_PER_SEC); /* nothing to await: the process ends before */
    g_warning("%s: the storage of its disks does not answer: this process ends all the same",
              r->config.vm_name);
    _exit(1); /* QEMU and nbdkit end with it */
}

/* In the order in which one stops needing the other. */
void parts_close(struct replicator *r)
{
    g_autoptr(GThread) watch = g_thread_try_new("end", end_at_last, r, NULL); /* without it: no limit */
    g_clear_handle_id(&r->tick_source, g_source_remove);
    drop_peer_end(r);
    capture_stop_clear(&r->capture_stop);
    guest_disks_use(&r->disks, &(struct guest_disks_parts){0});
    g_clear_pointer(&r->trial, trial_end); /* the applier may be standing still for it */
    capture_thread_free(g_steal_pointer(&r->capture));
    disk_sync_free(g_steal_pointer(&r->disk_sync));
    disk_answer_free(g_steal_pointer(&r->disk_answer)); /* it may still post to the sender */
    sender_free(g_steal_pointer(&r->sender));           /* sends what waits: a goodbye */
    link_free(g_steal_pointer(&r->link));
    drop_notes(r);
    g_clear_pointer(&r->connection, connection_put);
    applier_free(g_steal_pointer(&r->applier));
    paths_free(g_steal_pointer(&r->paths));
    guest_close(r);
    guest_disks_close(&r->disks);
    term_file_close(g_steal_pointer(&r->term_file)); /* late: it may wait for a disk */
    drop_notes(r);
    gate_free(r->gate);
    input_log_free(r->input_log);
    image_free(r->image);
    while (r->nendpoints)
        endpoint_free(r->endpoints[--r->nendpoints]);
    staging_close(r->staging);
    g_free(r->transport_why);
    histogram_free(r->epoch_bytes);
    arbiter_free(r->arbiter);
    channel_free(r->channel);
    mailbox_close(&r->box);
    sink_clear(&r->sink);
    g_free(r->split);
    g_free(r->guest_event);
    g_free(r->trial_text);
}
