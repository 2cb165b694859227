/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Carries out requests. The intake (intake.h) starts a thread for each, which carries it out and answers;
 * then the connection ends. Slow steps (running QEMU for its version, asking the peer) happen on that thread.
 * What touches VMs is a job for the main thread, which the request's thread waits for. Status is read from
 * the RCU table without the main thread.
 *
 * The CLI's socket is for root and the daemon's own user. The door (trust/door.h) decides what a peer may
 * ask, before anything is done with its request.
 */
#include <errno.h>
#include <gio/gio.h>
#include <glib-unix.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "common/address.h"
#include "common/stream.h"
#include "daemon/daemon.h"
#include "daemon/disk/disk_setup.h"
#include "daemon/endings.h"
#include "daemon/events.h"
#include "daemon/intake.h"
#include "daemon/network/network.h"
#include "daemon/trust/door.h"
#include "daemon/trust/roles.h"
#include "hv-hooks/line.h"
#include "proto/answer.h"
#include "proto/epoch_wire.h"
#include "proto/framing.h"
#include "proto/limits.h"
#include "proto/seal_derive.h"
#include "proto/status_answer.h"
#include "proto/term.h"
#include "replicator/transport/rdma/limits.h"
#include "replicator/transport/tcp.h"

#define ANSWER_MS      10000
#define TOKEN_LEN      16
#define ENDING_MS      3000
#define ENDING_POLL_MS 20
#define WAIT_MAX_MS    86400000u
#define THERE_MS       60000 /* for the answer of another host, which starts programs for it */

#define EVENTS_MESSAGE_LEN (FRAMING_MAX_LEN / 4)

static const struct daemon_config *config;
static struct intake *from_cli, *from_peers;

struct connection {
    struct stream *stream;
    const char *peer_host; /* of a peer: its address */
};

/* ---- work for the main thread ---- */

struct job {
    void (*run)(struct job *job);
    GMutex mutex;
    GCond changed;
    bool done;
    bool ok;
    char *message;
    /* arguments and results */
    const char *name;
    bool force;
    bool told;  /* the peer was asked to stop its standby */
    bool again; /* the refusal may soon be over */
    bool reuse; /* of a standby: it is here already */
    int client; /* who waits for the answer */
    unsigned wait_ms;
    Understudy__PowerAction action;
    Understudy__Role role;
    Understudy__Protection *protection;
    const uint8_t *token;
    struct pick *pick;
    struct charges *charges;
    const struct peer_standby *standby;
    const char *peer_host;
    const uint8_t *peer_key; /* of the other daemon, or NULL */
    uint16_t peer_daemon_port, data_port, udp_port;
};

static void job_finish(struct job *job, bool ok, const char *message)
{
    g_mutex_lock(&job->mutex);
    job->ok = ok;
    job->message = g_strdup(message);
    job->done = true;
    g_cond_signal(&job->changed);
    g_mutex_unlock(&job->mutex);
}

static void job_finish_error(struct job *job, bool ok, GError *error)
{
    job_finish(job, ok, error ? error->message : "");
    g_clear_error(&error);
}

static gboolean job_on_main(gpointer opaque)
{
    struct job *job = opaque;
    job->run(job);
    return G_SOURCE_REMOVE;
}

/*
 * Runs job on the main thread and waits for it. While the main loop runs, a job always ends, since each of
 * its own waits has a time limit. g_main_context_invoke would run the job on this thread once the main loop
 * has ended, beside the main thread that frees the VMs.
 */
static bool job_do(struct job *job, void (*run)(struct job *job), char **message)
{
    job->run = run;
    job->done = false;
    g_mutex_init(&job->mutex);
    g_cond_init(&job->changed);
    g_idle_add_full(G_PRIORITY_DEFAULT, job_on_main, job, NULL);
    g_mutex_lock(&job->mutex);
    while (!job->done)
        g_cond_wait(&job->changed, &job->mutex);
    g_mutex_unlock(&job->mutex);
    g_mutex_clear(&job->mutex);
    g_cond_clear(&job->changed);
    g_free(*message);
    *message = g_steal_pointer(&job->message);
    return job->ok;
}

static void run_reserve(struct job *job)
{
    GError *error = NULL;
    bool ok = vm_reserve(job->name, &error);
    job->again = g_error_matches(error, G_IO_ERROR, G_IO_ERROR_BUSY);
    job_finish_error(job, ok, error);
}

static void run_forget(struct job *job)
{
    vm_forget(job->name);
    job_finish(job, true, "");
}

static void run_failover(struct job *job)
{
    GError *error = NULL;
    bool ok = vm_failover(job->name, job->force, &error);
    job_finish_error(job, ok, error);
}

static void on_gone(bool gone, const char *reason, void *opaque)
{
    struct job *job = opaque;
    g_autofree char *late =
        g_strdup_printf("VM %s is still here after %u s: 'understudy status %s' says what it does", job->name,
                        job->wait_ms / 1000, job->name);
    job_finish(job, gone, gone ? reason : late);
}

/* Ends a job after its order was given. If the request asks for that, only when the VM is gone, its time is
 * over, or the client has closed the connection. */
static void finish_when_gone(struct job *job, bool ok, GError *error)
{
    if (ok && job->wait_ms && vm_is_here(job->name))
        waiters_add(job->name, job->wait_ms, job->client, on_gone, job);
    else
        job_finish_error(job, ok, error);
}

static void run_stop(struct job *job)
{
    GError *error = NULL;
    bool ok = vm_stop(job->name, &error);
    finish_when_gone(job, ok, error);
}

static void run_power(struct job *job)
{
    GError *error = NULL;
    bool ok = vm_power(job->name, job->action, &error);
    finish_when_gone(job, ok, error);
}

static void run_drain(struct job *job)
{
    GError *error = NULL;
    bool ok = drain_set(job->force, true, &error);
    job_finish_error(job, ok, error);
}

/* Runs the job again for a short time while a VM of that name is about to end. */
static bool job_do_patiently(struct job *job, void (*run)(struct job *job), char **message)
{
    for (unsigned waited_ms = 0;; waited_ms += ENDING_POLL_MS) {
        bool ok = job_do(job, run, message);
        if (ok || !job->again || waited_ms >= ENDING_MS)
            return ok;
        g_usleep(ENDING_POLL_MS * 1000);
    }
}

static void run_reset_figures(struct job *job)
{
    vm_reset_figures(job->name);
    job_finish(job, true, "");
}

static void on_listening(bool ok, const char *message, uint16_t data_port, uint16_t udp_port, void *opaque)
{
    struct job *job = opaque;
    job->data_port = data_port;
    job->udp_port = udp_port;
    job_finish(job, ok, message);
}

/* Starts a VM. The job ends when the replicator listens (secondary) or has its heartbeat port (primary): QEMU
 * runs by then. */
static void run_start(struct job *job)
{
    GError *error = NULL;
    if (!vm_start(job->role, job->protection, job->peer_host, job->peer_daemon_port, job->peer_key,
                  job->standby, on_listening, job, &error)) {
        vm_forget(job->name);
        job_finish_error(job, false, error);
    }
}

/* Finds a standby that is here already (reuse), or reserves the name for a new one. */
static void run_claim_standby(struct job *job)
{
    g_autofree char *why = NULL;
    enum vm_existing existing = vm_check_existing(job->protection, &job->data_port, &job->udp_port, &why);
    job->reuse = existing == VM_REUSE;
    job->again = existing == VM_ENDING;
    if (existing == VM_NONE)
        run_reserve(job);
    else
        job_finish(job, job->reuse, why ? why : "");
}

static void run_cancel(struct job *job)
{
    vm_cancel_standby(job->name, job->token, job->force);
    job_finish(job, true, "");
}

/* ---- requests ---- */

static void answer(const struct connection *connection, bool ok, const char *message)
{
    answer_write(connection->stream, ok, message, ANSWER_MS);
}

/* Checks that the guest's files exist. False with a sentence. */
static bool files_exist(const struct line *line, GError **error)
{
    for (guint i = 0; i < line->files->len; i++) {
        const char *file = g_ptr_array_index(line->files, i);
        if (g_access(file, R_OK) == 0)
            continue;
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND, "the file %s cannot be read here: %s", file,
                    g_strerror(errno));
        return false;
    }
    return true;
}

static bool has_room(uint64_t ram_bytes, GError **error)
{
    uint64_t available = host_memory_available_mib();
    if (ram_bytes >> 20 < available)
        return true;
    g_set_error(error, G_IO_ERROR, G_IO_ERROR_NO_SPACE,
                "the guest wants %" G_GUINT64_FORMAT " MiB, but only %" G_GUINT64_FORMAT
                " MiB of memory are free",
                ram_bytes >> 20, available);
    return false;
}

static bool has_accel(const struct line *line, GError **error)
{
    if (strcmp(line->accel, "kvm") != 0 || line->accel_otherwise || host_has_kvm())
        return true;
    g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_SUPPORTED,
                "KVM does not work on this host: make /dev/kvm usable, or use %s", line->without_kvm);
    return false;
}

/* Parses and checks the VM's command line on this host, before the peer is asked. NULL and error. */
static struct line *check_here(char **argv, GError **error)
{
    struct line *line = line_parse((const char *const *)argv, error);
    if (line && files_exist(line, error) && has_room(line->ram_bytes, error))
        return line;
    line_free(line);
    return NULL;
}

static void fill_protection(Understudy__Protection *protection, const Understudy__RunRequest *request,
                            const struct line *line, uint8_t *token, uint8_t *secret)
{
    if (getrandom(token, TOKEN_LEN, 0) != TOKEN_LEN ||
        getrandom(secret, SEAL_SECRET_LEN, 0) != (ssize_t)SEAL_SECRET_LEN)
        g_error("no random numbers"); /* cannot happen for so few once the kernel has booted */
    protection->vm = request->vm;
    protection->ram_bytes = line->ram_bytes;
    protection->nnics = line->nics->len;
    protection->token.data = token;
    protection->token.len = TOKEN_LEN;
    protection->link_security = request->link_security;
    protection->secret.data = secret;
    protection->secret.len = SEAL_SECRET_LEN;
    protection->term = TERM_FIRST;
    protection->epoch_ms = request->epoch_ms ? request->epoch_ms : limits[LIMIT_EPOCH_MS].usual;
    protection->deadline_ms = request->deadline_ms ? request->deadline_ms : limits[LIMIT_DEADLINE_MS].usual;
    protection->silence_ms = request->silence_ms ? request->silence_ms : limits[LIMIT_SILENCE_MS].usual;
    protection->heartbeat_ms =
        request->heartbeat_ms ? request->heartbeat_ms : limits[LIMIT_HEARTBEAT_MS].usual;
    protection->on_peer_loss = request->on_peer_loss;
    protection->tracker = request->tracker;
    protection->transport = request->transport;
    protection->cpu_must_match = line->cpu_of_host != NULL;
    protection->network_unchecked = request->network_unchecked;
}

/* Starts a VM on both hosts, after this one has been checked: reserves the name, asks the peer for a standby,
 * starts the primary. False and error: undoes what was done. */
static bool start_pair(Understudy__Protection *protection, const char *peer_host, uint16_t peer_port,
                       const struct files_progress *progress, GError **error)
{
    g_autofree char *message = NULL;
    struct peer_standby standby = {0};
    struct job job = {.name = protection->vm,
                      .protection = protection,
                      .role = UNDERSTUDY__ROLE__ROLE_PRIMARY,
                      .peer_host = peer_host,
                      .peer_daemon_port = peer_port,
                      .standby = &standby};
    if (!job_do_patiently(&job, run_reserve, &message)) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_EXISTS, "%s", message);
        return false;
    }
    if (!peer_prepare(peer_host, peer_port, protection, config->port, &standby, progress, error)) {
        g_free(standby.at.address);
        job_do(&job, run_forget, &message);
        return false;
    }
    job.peer_key = standby.at.has_key ? standby.at.key : NULL;
    bool started = job_do(&job, run_start, &message);
    g_free(standby.at.address);
    if (!started) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED, "%s", message);
        peer_cancel(peer_host, peer_port, protection, false, NULL);
        return false;
    }
    return true;
}

/* Sends the progress to the command, which shows it. */
static void tell_progress(const char *path, uint64_t done, uint64_t total, void *opaque)
{
    const struct connection *connection = opaque;
    answer_write_progress(connection->stream, path, done, total, ANSWER_MS);
}

static bool do_run(const struct connection *connection, const Understudy__RunRequest *request, GError **error)
{
    g_autofree char *peer_host = NULL, *cpu = host_cpu_model();
    uint16_t peer_port = 0;
    uint8_t token[TOKEN_LEN], secret[SEAL_SECRET_LEN];
    const struct files_progress progress = {.told = tell_progress, .opaque = (void *)connection};
    if (drain_is_on()) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED,
                    "this host is drained and starts no VM: 'understudy undrain' first");
        return false;
    }
    if (!peer_split(request->peer, &peer_host, &peer_port)) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT, "--peer %s is not HOST or HOST:PORT",
                    request->peer);
        return false;
    }
    g_auto(GStrv) user_argv = host_argv(request->argv, request->n_argv);
    g_auto(GStrv) argv = line_absolute((const char *const *)user_argv, request->cwd);
    struct line *line = check_here(argv, error);
    g_autofree char *version = line ? line_version(line->program, error) : NULL;
    bool ok = version != NULL;
    ok = ok && has_accel(line, error);
    g_auto(GStrv) pinned = ok ? line_pin(line, (const char *const *)argv, error) : NULL;
    ok = ok && pinned;
    if (ok) {
        Understudy__Protection protection = UNDERSTUDY__PROTECTION__INIT;
        fill_protection(&protection, request, line, token, secret);
        protection.qemu_argv = pinned;
        protection.n_qemu_argv = g_strv_length(pinned);
        protection.qemu_version = version;
        protection.cpu_model = cpu;
        ok =
            heartbeat_paths_describe(&protection, request, error) && limits_hold(&protection, error) &&
            disks_describe(&protection, line, request, error) &&
            disks_can_be_served(&protection, config->disk_plugin, error) &&
            (protection.network_unchecked || pair_network_is_fit(&protection, peer_host, peer_port, error)) &&
            start_pair(&protection, peer_host, peer_port, &progress, error);
        protection_set_string(&protection.standby_qemu, "");
        disks_clear(&protection);
        heartbeat_paths_clear(&protection);
    }
    explicit_bzero(secret, sizeof secret);
    line_free(line);
    return ok;
}

static bool same_kind_of_host(Understudy__Protection *protection, const struct line *line, GError **error)
{
    g_autofree char *version = line_version(line->program, error), *cpu = host_cpu_model();
    if (!version || !line_can_move(line, protection->qemu_version, version, error))
        return false;
    if (protection->cpu_must_match && strcmp(cpu, protection->cpu_model) != 0) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_SUPPORTED,
                    "%s needs equal processors, but this host has %s and the other one %s: name a CPU "
                    "model that both have",
                    line->cpu_of_host ? line->cpu_of_host : "the guest", cpu, protection->cpu_model);
        return false;
    }
    bool same = strcmp(protection->qemu_version, version) == 0;
    protection_set_string(&protection->tried_for, same ? "" : protection->qemu_version);
    /* From here on, qemu_version is the QEMU of this host. */
    protection_set_string(&protection->qemu_version, version);
    protection_set_string(&protection->standby_qemu, "");
    return has_accel(line, error);
}

/*
 * Returns whether the guest's processor could have fewer features on one host than on the other. QEMU leaves
 * out features that the host lacks, and only warns: a guest that is taken over would lack features that it
 * used before. Under TCG the processor is the same on every host.
 */
static bool must_enforce_cpu(const Understudy__PrepareStandby *request, const struct line *line)
{
    g_autofree char *cpu = host_cpu_model(), *accel = host_accel(line);
    bool kvm = strcmp(accel, "kvm") == 0 || strcmp(request->accel, "kvm") == 0;
    return kvm && (strcmp(accel, request->accel) != 0 || strcmp(cpu, request->cpu_model) != 0);
}

/* Does the same as check_here for a line that a peer sent. Nothing in the line is run or opened before the
 * line is allowed. */
static struct line *check_peers(char **argv, GError **error)
{
    struct line *line = line_parse((const char *const *)argv, error);
    bool allowed = line && peer_line_is_allowed(line, config->qemu, error);
    line_free(line);
    return allowed ? check_here(argv, error) : NULL;
}

/* Checks that this host can stand by for the VM, and makes its disks ready. */
static bool prepare_here(const Understudy__PrepareStandby *request, GError **error)
{
    Understudy__Protection *protection = request->protection;
    g_auto(GStrv) argv = host_argv(protection->qemu_argv, protection->n_qemu_argv);
    g_autofree char *vm_dir = g_build_filename(config->state_dir, protection->vm, NULL);
    struct line *line = check_peers(argv, error);
    bool fit = line && same_kind_of_host(protection, line, error) &&
               disks_can_be_served(protection, config->disk_plugin, error) &&
               disks_prepare_standby(request, vm_dir, error);
    protection->cpu_enforce = fit && must_enforce_cpu(request, line);
    line_free(line);
    return fit;
}

static bool do_prepare(const struct connection *connection, const Understudy__PrepareStandby *request,
                       Understudy__Prepared *prepared, GError **error)
{
    Understudy__Protection *protection = request->protection;
    g_autofree char *message = NULL;
    if (drain_is_on()) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED,
                    "that host is drained: it stands by for no VM until 'understudy undrain' is given there");
        return false;
    }
    if (!protection || protection->token.len != TOKEN_LEN || !protection_has_secret(protection) ||
        protection->n_qemu_argv == 0) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA, "the request was not understood");
        return false;
    }
    /* This host has no term of the pair yet, so the request's term is accepted without a window. */
    if (protection->term < TERM_FIRST || !term_is_believable(0, protection->term)) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                    "the request names a term that no pair has: install one version of understudy on both");
        return false;
    }
    if (!limits_hold(protection, error))
        return false;
    disks_swap_paths(protection);
    heartbeat_paths_swap(protection);
    struct job job = {.name = protection->vm,
                      .protection = protection,
                      .role = UNDERSTUDY__ROLE__ROLE_SECONDARY,
                      .peer_host = connection->peer_host,
                      .peer_key = connection->stream->key,
                      .peer_daemon_port = address_port_of(request->primary_daemon)};
    bool ok = job_do_patiently(&job, run_claim_standby, &message);
    if (ok && !job.reuse) {
        /* The name is reserved, so no other request prepares the same images meanwhile. */
        if (!prepare_here(request, error)) {
            job_do(&job, run_forget, &message);
            return false;
        }
        prepared->qemu_version = protection->qemu_version;
        ok = job_do(&job, run_start, &message);
    }
    if (!ok) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED, "%s", message);
        return false;
    }
    prepared->data_port = job.data_port;
    prepared->udp_port = job.udp_port;
    prepared->cpu_enforce = protection->cpu_enforce;
    prepared->secret = protection->secret;
    return true;
}

static void serve_prepare(const struct connection *connection, const Understudy__PrepareStandby *request)
{
    g_autoptr(GError) error = NULL;
    Understudy__Prepared prepared = UNDERSTUDY__PREPARED__INIT;
    if (!do_prepare(connection, request, &prepared, &error)) {
        answer(connection, false, error->message);
        return;
    }
    Understudy__Envelope envelope = UNDERSTUDY_ENVELOPE(PREPARED, prepared, &prepared);
    framing_write(connection->stream, &envelope, ANSWER_MS, NULL);
}

static void serve_status(const struct connection *connection, const Understudy__StatusRequest *request)
{
    g_autoptr(GPtrArray) all = vm_table_snapshot(request->vm);
    g_autoptr(GPtrArray) ended = request->ended ? endings_list(request->vm) : g_ptr_array_new();
    if (request->reset) {
        g_autofree char *message = NULL;
        struct job job = {.name = request->vm};
        job_do(&job, run_reset_figures, &message);
    }
    Understudy__StatusList list = UNDERSTUDY__STATUS_LIST__INIT;
    list.vms = (Understudy__Status **)all->pdata;
    list.n_vms = all->len;
    list.endings = (Understudy__Ending **)ended->pdata;
    list.n_endings = ended->len;
    list.drained = drain_is_on();
    status_answer_write(connection->stream, &list, ANSWER_MS, NULL);
    for (guint i = 0; i < all->len; i++)
        understudy__status__free_unpacked(g_ptr_array_index(all, i), NULL);
    for (guint i = 0; i < ended->len; i++)
        understudy__ending__free_unpacked(g_ptr_array_index(ended, i), NULL);
}

/* Sends the events in messages of about EVENTS_MESSAGE_LEN bytes: a message may be longer by one event. */
static void serve_events(const struct connection *connection, const Understudy__EventsRequest *request)
{
    g_autoptr(GPtrArray) all = events_read(request->vm, request->since_us);
    Understudy__EventList list = UNDERSTUDY__EVENT_LIST__INIT;
    Understudy__Envelope envelope = UNDERSTUDY_ENVELOPE(EVENT_LIST, event_list, &list);
    guint at = 0;
    do {
        size_t len = 0;
        list.events = (Understudy__Event **)all->pdata + at;
        list.n_events = 0;
        while (at < all->len && len < EVENTS_MESSAGE_LEN) {
            len += understudy__event__get_packed_size(g_ptr_array_index(all, at++));
            list.n_events++;
        }
        list.more = at < all->len;
    } while (framing_write(connection->stream, &envelope, ANSWER_MS, NULL) && list.more);
}

/* Answers with what doctor shows. Runs QEMU, nbdkit and qemu-img, which takes seconds on a busy host. */
static void say_what_is_here(const struct connection *connection, Understudy__Host *host)
{
    struct utsname uts = {0};
    g_autofree char *version = line_version(line_default_program()->name, NULL), *cpu = host_cpu_model();
    g_auto(GStrv) rdma_faults = NULL, disk_faults = NULL;
    g_auto(GStrv) rdma = rdma_limits_report(&rdma_faults);
    g_auto(GStrv) disk = host_disks_report(config, &disk_faults);
    uname(&uts);
    host->qemu_version = version ? version : (char *)"";
    host->kernel = uts.release;
    host->cpu_model = cpu;
    host->memory_available_mib = host_memory_available_mib();
    host->kvm = host_has_kvm();
    host->rdma = rdma;
    host->n_rdma = g_strv_length(rdma);
    host->rdma_faults = rdma_faults;
    host->n_rdma_faults = g_strv_length(rdma_faults);
    host->disk = disk;
    host->n_disk = g_strv_length(disk);
    host->disk_faults = disk_faults;
    host->n_disk_faults = g_strv_length(disk_faults);
    Understudy__Envelope envelope = UNDERSTUDY_ENVELOPE(HOST, host, host);
    framing_write(connection->stream, &envelope, ANSWER_MS, NULL);
}

static void serve_own_host(const struct connection *connection, bool brief)
{
    Understudy__Host host = UNDERSTUDY__HOST__INIT;
    host.version = (char *)UNDERSTUDY_VERSION;
    host.wire_version = WIRE_VERSION;
    host.instance.data = (uint8_t *)peer_own_instance();
    host.instance.len = PEER_INSTANCE_LEN;
    if (!brief) {
        say_what_is_here(connection, &host);
        return;
    }
    Understudy__Envelope envelope = UNDERSTUDY_ENVELOPE(HOST, host, &host);
    framing_write(connection->stream, &envelope, ANSWER_MS, NULL);
}

/* Answers with the facts about this host, or, for a command, about another one. */
static void serve_host(const struct connection *connection, const Understudy__HostRequest *request)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *host = NULL;
    uint16_t port = 0;
    Understudy__HostRequest body = UNDERSTUDY__HOST_REQUEST__INIT;
    Understudy__Envelope question = UNDERSTUDY_ENVELOPE(HOST_REQUEST, host_request, &body);
    if (!request->peer[0]) {
        serve_own_host(connection, request->brief);
        return;
    }
    /* A peer may not use this host to examine a third one. */
    if (connection->peer_host || !peer_split(request->peer, &host, &port)) {
        answer(connection, false, "this is not HOST or HOST:PORT");
        return;
    }
    Understudy__Envelope *said = peer_call(host, port, &question, THERE_MS, &error);
    if (said)
        framing_write(connection->stream, said, ANSWER_MS, NULL);
    else
        answer(connection, false, error->message);
    if (said)
        understudy__envelope__free_unpacked(said, NULL);
}

static bool wait_is_fit(uint32_t wait_ms, char **message)
{
    if (wait_ms <= WAIT_MAX_MS)
        return true;
    *message = g_strdup_printf("a wait of %u ms: give a number from 0 to %u", wait_ms, WAIT_MAX_MS);
    return false;
}

static void serve_stop(const struct connection *connection, const Understudy__StopRequest *request)
{
    g_autofree char *message = NULL;
    struct job job = {.name = request->vm, .client = connection->stream->fd, .wait_ms = request->wait_ms};
    bool ok = wait_is_fit(request->wait_ms, &message) && job_do(&job, run_stop, &message);
    answer(connection, ok, message);
}

static void serve_power(const struct connection *connection, const Understudy__PowerRequest *request)
{
    g_autofree char *message = NULL;
    struct job job = {.name = request->vm,
                      .action = request->action,
                      .client = connection->stream->fd,
                      .wait_ms = request->wait_ms};
    bool ok = wait_is_fit(request->wait_ms, &message) && job_do(&job, run_power, &message);
    answer(connection, ok, message);
}

static void serve_simple(const struct connection *connection, const char *name, bool force,
                         void (*run)(struct job *))
{
    g_autofree char *message = NULL;
    struct job job = {.name = name, .force = force};
    bool ok = job_do(&job, run, &message);
    answer(connection, ok, message);
}

static void serve_cancel(const struct connection *connection, const Understudy__CancelStandby *request)
{
    g_autofree char *message = NULL;
    struct job job = {.name = request->vm, .token = request->token.data, .force = request->in_use};
    bool ok = request->token.len == TOKEN_LEN && job_do(&job, run_cancel, &message);
    answer(connection, ok, ok ? message : "the request was not understood");
}

/* ---- what the pair lacks for VMs that run ---- */

struct pick {
    const char *name; /* of a VM; NULL: all of that peer's */
    const char *peer;
    GPtrArray *protections; /* owned copies */
    char *host;
    uint16_t port;
};

static void pick_one(const struct vm_view *vm, void *opaque)
{
    struct pick *pick = opaque;
    bool wanted = pick->name ? strcmp(vm->name, pick->name) == 0
                             : vm->runs_here && g_strcmp0(vm->peer_host, pick->peer) == 0;
    if (!wanted || !vm->has_standby || !vm->peer_host)
        return;
    g_ptr_array_add(pick->protections, protection_copy(vm->protection));
    g_free(pick->host);
    pick->host = g_strdup(vm->peer_host);
    pick->port = vm->peer_port;
}

static void run_pick(struct job *job)
{
    vms_each(pick_one, job->pick);
    job_finish(job, true, "");
}

static void free_protection(gpointer protection)
{
    understudy__protection__free_unpacked(protection, NULL);
}

static void pick_vms(struct pick *pick)
{
    g_autofree char *message = NULL;
    struct job job = {.pick = pick};
    pick->protections = g_ptr_array_new_with_free_func(free_protection);
    job_do(&job, run_pick, &message);
}

/* Returns why a planned move is refused because of the network (GLib string), or NULL. */
static char *why_not_move(const char *name)
{
    struct pick pick = {.name = name};
    char *why = NULL;
    pick_vms(&pick);
    if (pick.protections->len) {
        g_autoptr(GPtrArray) faults =
            pair_network_faults(g_ptr_array_index(pick.protections, 0), pick.host, pick.port, true, true);
        if (faults->len)
            why = g_strdup_printf("VM %s stays here: %s; or move it nevertheless with --planned --force",
                                  name, (const char *)g_ptr_array_index(faults, 0));
    }
    g_ptr_array_unref(pick.protections);
    g_free(pick.host);
    return why;
}

static void serve_failover(const struct connection *connection, const Understudy__FailoverRequest *request)
{
    g_autofree char *why = request->force || request->unchecked ? NULL : why_not_move(request->vm);
    if (why)
        answer(connection, false, why);
    else
        serve_simple(connection, request->vm, request->force, run_failover);
}

static void serve_pair(const struct connection *connection, const Understudy__PairRequest *request)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *peer = NULL;
    uint16_t port;
    struct pick pick = {.peer = peer_split(request->peer, &peer, &port) ? peer : ""};
    pick_vms(&pick);
    Understudy__Findings *findings = pair_findings(request, pick.protections, &error);
    if (findings) {
        Understudy__Envelope envelope = UNDERSTUDY_ENVELOPE(FINDINGS, findings, findings);
        framing_write(connection->stream, &envelope, ANSWER_MS, NULL);
        understudy__findings__free_unpacked(findings, NULL);
    } else {
        answer(connection, false, error->message);
    }
    g_ptr_array_unref(pick.protections);
    g_free(pick.host);
}

/* Serves a request of a host that has the role for it (trust/roles.h). */
static void serve_peer(const struct connection *connection, const Understudy__Envelope *request)
{
    switch (request->body_case) {
    case UNDERSTUDY__ENVELOPE__BODY_PREPARE_STANDBY:
        serve_prepare(connection, request->prepare_standby);
        break;
    case UNDERSTUDY__ENVELOPE__BODY_CANCEL_STANDBY:
        serve_cancel(connection, request->cancel_standby);
        break;
    case UNDERSTUDY__ENVELOPE__BODY_HOST_REQUEST:
        serve_host(connection, request->host_request);
        break;
    case UNDERSTUDY__ENVELOPE__BODY_FILES_REQUEST:
        files_serve(connection->stream, request->files_request);
        break;
    case UNDERSTUDY__ENVELOPE__BODY_NETWORK_REQUEST:
        if (!network_serve(connection->stream, request->network_request))
            answer(connection, false, "the request was not understood");
        break;
    default:
        answer(connection, false, "this request is not for peers");
        break;
    }
}

/* ---- a host that is removed ---- */

/* The VMs that run here and have their standby on the host of one key. */
struct charges {
    const uint8_t *key;
    GPtrArray *list; /* struct charge */
};

struct charge {
    Understudy__Protection *protection;
    char *host;
    uint16_t port;
};

static void free_charge(gpointer opaque)
{
    struct charge *charge = opaque;
    understudy__protection__free_unpacked(charge->protection, NULL);
    g_free(charge->host);
    g_free(charge);
}

static void add_charge(const struct vm_view *vm, void *opaque)
{
    const struct charges *charges = opaque;
    if (!vm->runs_here || !vm->peer_host || !vm->peer_key ||
        memcmp(vm->peer_key, charges->key, STREAM_KEY_LEN) != 0)
        return;
    struct charge *charge = g_new(struct charge, 1);
    *charge = (struct charge){protection_copy(vm->protection), g_strdup(vm->peer_host), vm->peer_port};
    g_ptr_array_add(charges->list, charge);
}

static void run_list_charges(struct job *job)
{
    vms_each(add_charge, job->charges);
    job_finish(job, true, "");
}

/*
 * Asks a host that is about to be removed to stop standing by, while it can still be asked: then the guest
 * goes on here alone, and the other host does not take it over. Returns whether it could be asked.
 */
static bool leave_peer(const uint8_t *key)
{
    bool told = true;
    g_autofree char *message = NULL;
    g_autoptr(GPtrArray) list = g_ptr_array_new_with_free_func(free_charge);
    struct charges charges = {.key = key, .list = list};
    struct job job = {.charges = &charges};
    job_do(&job, run_list_charges, &message);
    for (guint i = 0; i < list->len; i++) {
        const struct charge *charge = g_ptr_array_index(list, i);
        g_autoptr(GError) error = NULL;
        if (peer_cancel(charge->host, charge->port, charge->protection, true, &error))
            continue;
        g_warning("VM %s: its standby could not be told to stop: %s", charge->protection->vm, error->message);
        told = false;
    }
    return told;
}

static void run_peer_removed(struct job *job)
{
    vms_end_of_peer(job->peer_key, job->told);
    job_finish(job, true, "");
}

static void end_peer(const uint8_t *key, bool told)
{
    g_autofree char *message = NULL;
    struct job job = {.peer_key = key, .told = told};
    job_do(&job, run_peer_removed, &message);
}

static const struct trust_removal removal = {.leave = leave_peer, .end = end_peer};

static void serve_cli(const struct connection *connection, const Understudy__Envelope *request)
{
    g_autoptr(GError) error = NULL;
    switch (request->body_case) {
    case UNDERSTUDY__ENVELOPE__BODY_RUN_REQUEST: {
        bool ok = do_run(connection, request->run_request, &error);
        answer(connection, ok, error ? error->message : "");
        break;
    }
    case UNDERSTUDY__ENVELOPE__BODY_STATUS_REQUEST:
        serve_status(connection, request->status_request);
        break;
    case UNDERSTUDY__ENVELOPE__BODY_FAILOVER_REQUEST:
        serve_failover(connection, request->failover_request);
        break;
    case UNDERSTUDY__ENVELOPE__BODY_PAIR_REQUEST:
        serve_pair(connection, request->pair_request);
        break;
    case UNDERSTUDY__ENVELOPE__BODY_STOP_REQUEST:
        serve_stop(connection, request->stop_request);
        break;
    case UNDERSTUDY__ENVELOPE__BODY_POWER_REQUEST:
        serve_power(connection, request->power_request);
        break;
    case UNDERSTUDY__ENVELOPE__BODY_DRAIN_REQUEST:
        serve_simple(connection, "", !request->drain_request->off, run_drain);
        break;
    case UNDERSTUDY__ENVELOPE__BODY_HOST_REQUEST:
        serve_host(connection, request->host_request);
        break;
    case UNDERSTUDY__ENVELOPE__BODY_EVENTS_REQUEST:
        serve_events(connection, request->events_request);
        break;
    case UNDERSTUDY__ENVELOPE__BODY_KEY_REQUEST:
    case UNDERSTUDY__ENVELOPE__BODY_TRUST_REQUEST:
    case UNDERSTUDY__ENVELOPE__BODY_INVITE_REQUEST:
    case UNDERSTUDY__ENVELOPE__BODY_JOIN_REQUEST:
        trust_request_serve(config, connection->stream, request, &removal);
        break;
    default:
        answer(connection, false, "this daemon does not know the request: install one version of understudy");
        break;
    }
}

static void on_cli_request(struct stream *stream, const char *address, const Understudy__Envelope *request)
{
    const struct connection connection = {.stream = stream};
    const struct request_rule *rule = request_rule(request->body_case);
    (void)address;
    vm_table_enter();
    if (rule && rule->is_command)
        serve_cli(&connection, request);
    else
        answer(&connection, false,
               "this daemon does not know the request: install one version of understudy");
    vm_table_leave();
}

static void on_peer_request(struct stream *stream, const char *address, const Understudy__Envelope *request)
{
    const struct connection connection = {.stream = stream, .peer_host = address};
    const struct door *door = config->door;
    const struct request_rule *rule = request_rule(request->body_case);
    g_autoptr(GError) error = NULL;
    if (rule && rule->is_pairing) { /* a host that is trusted here, and does not trust this one (any more) */
        stranger_serve(config, stream, address, request);
        return;
    }
    if (!door->may_ask(door->opaque, stream, request->body_case, &error)) {
        refused_log(address, request->body_case, "that host has no right to it");
        answer(&connection, false, error->message);
        return;
    }
    vm_table_enter();
    serve_peer(&connection, request);
    vm_table_leave();
}

static void on_stranger(struct stream *stream, const char *address, const Understudy__Envelope *request)
{
    stranger_serve(config, stream, address, request);
}

static struct stream *open_peer(int fd)
{
    return config->door->accept(config->door->opaque, fd);
}

static bool knows_peer(const struct stream *stream)
{
    return config->door->knows(config->door->opaque, stream);
}

/* ---- sockets ---- */

static bool may_use_cli(int fd)
{
    struct ucred cred;
    socklen_t len = sizeof cred;
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0 &&
           (cred.uid == 0 || cred.uid == geteuid());
}

/* A command is small and comes at once; a peer's request may be 1 MiB, over a slow link. */
static const struct intake_rules cli_rules = {
    .what = "control.sock",
    .max_waiting = 32,
    .max_served = 64,
    .request_ms = 5000,
    .admit = may_use_cli,
    .serve = on_cli_request,
};
static const struct intake_rules peer_rules = {
    .what = "the port for peers",
    .max_waiting = 32,
    .max_known = 32,
    .max_served = 16,
    .handshake_ms = 5000,
    .request_ms = 10000,
    .open = open_peer,
    .knows = knows_peer,
    .serve = on_peer_request,
    .serve_stranger = on_stranger,
};

static int listen_unix(GError **error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    g_autofree char *path = g_build_filename(config->run_dir, "control.sock", NULL);
    if (g_strlcpy(address.sun_path, path, sizeof address.sun_path) >= sizeof address.sun_path) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_FILENAME_TOO_LONG,
                    "%s is too long for a socket: use a shorter --run-dir", path);
        return -1;
    }
    /* EAGAIN: there is another daemon, which is stopped and whose queue is full. */
    int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool taken = connect(probe, (struct sockaddr *)&address, sizeof address) == 0 || errno == EAGAIN;
    if (probe >= 0)
        close(probe);
    if (taken) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_ADDRESS_IN_USE, "another understudyd already serves %s",
                    path);
        return -1;
    }
    g_unlink(path);
    int unix_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(unix_fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(unix_fd, 16) < 0) {
        g_set_error(error, G_IO_ERROR, g_io_error_from_errno(errno), "%s cannot be made: %s", path,
                    g_strerror(errno));
        if (unix_fd >= 0)
            close(unix_fd);
        return -1;
    }
    g_chmod(path, 0600);
    return unix_fd;
}

bool server_start(const struct daemon_config *daemon_config, GError **error)
{
    uint16_t port = daemon_config->port;
    config = daemon_config;
    peer_use_door(config->door);
    int tcp_fd = transport_tcp_listen(config->listen_address, &port, error);
    if (tcp_fd < 0)
        return false;
    int unix_fd = listen_unix(error);
    if (unix_fd < 0) {
        close(tcp_fd);
        return false;
    }
    from_cli = intake_new(unix_fd, &cli_rules);
    from_peers = intake_new(tcp_fd, &peer_rules);
    return true;
}

void server_stop(void)
{
    g_autofree char *path = g_build_filename(config->run_dir, "control.sock", NULL);
    intake_free(from_cli);
    intake_free(from_peers);
    g_unlink(path);
}
