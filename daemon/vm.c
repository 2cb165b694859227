/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Starts, adopts and orders the VMs of this host and their replicators. Main thread only; what other threads
 * may see is in vm_table.c.
 *
 * A VM entry lives from `run` (or the peer's request for a standby) until its replicator has ended and
 * reported why. A replicator that dies without that report leaves an entry in state "failed", so that status
 * shows it. Its QEMU, whose output goes nowhere without it, ends with it (common/child_process.c). A QEMU
 * that does not is killed here, by a pidfd that was opened while the replicator lived.
 *
 * Protection comes back by itself: while the guest runs here without a peer, the peer's daemon is asked for a
 * standby once a second, and the replicator is told where the standby is. Status shows why the peer refuses.
 * A standby that failed here is not started again at once (standby_backoff.h).
 */
#include <errno.h>
#include <gio/gio.h>
#include <glib/gstdio.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/stream.h"
#include "common/words.h"
#include "daemon/daemon.h"
#include "daemon/disk/disk_setup.h"
#include "daemon/endings.h"
#include "daemon/task_thread.h"
#include "daemon/vm_events.h"
#include "failover/standby_backoff.h"
#include "hv-hooks/line.h"
#include "proto/epoch_wire.h"
#include "proto/framing.h"
#include "proto/seal_derive.h"
#include "proto/states.h"
#include "proto/term.h"

#define REPLICATOR_FD 3
#define HAS_TOLD      "us-told" /* key of a replicator's process that said why it ended */
#define REPROTECT_S   1
#define READY_MS      45000 /* for a replicator, which itself gives up its QEMU sooner (replicator/control) */
#define WARNINGS_MAX  32
#define SUN_PATH_MAX  107

struct vm {
    char *name;
    uint64_t serial; /* of this entry: another VM may have the name by the time an answer comes */
    char *vm_dir, *state_dir;
    Understudy__Protection *protection; /* owned */
    char *peer_host;
    uint16_t peer_daemon_port;
    bool has_peer_key;
    uint8_t peer_key[STREAM_KEY_LEN]; /* of the other daemon */
    struct framing *framing;          /* NULL: no replicator */
    GSubprocess *process;
    Understudy__Role role;   /* as the replicator last said */
    Understudy__State state; /* UNKNOWN: it is being started, or its replicator has not said yet */
    uint64_t term;
    uint16_t data_port, udp_port;
    int qemu_pid, qemu_pidfd; /* pidfd: -1 if there is none */
    char *accel;
    bool reserved; /* the name is taken for a VM to come; the entry is of the last one, or has nothing yet */
    bool ended, asking;
    bool adopting;    /* its replicator could not be reached yet */
    bool never_began; /* it ended before its QEMU ran: its caller was told why, and the VM is not shown */
    bool hidden;      /* only its backoff is still of use */
    gint64 alone_since_us;
    char *unprotected_why;              /* why the peer did not stand by when it was last asked, or NULL */
    char *split;                        /* both hosts had run it: what the replicator said of that, or NULL */
    char *failure;                      /* of the last standby here, or NULL */
    char **warnings;                    /* NULL: none */
    enum session_end_reason end_reason; /* NONE: it has not ended, or did not say why */
    struct standby_backoff backoff;
    struct vm_events *events;
    vm_listening listening; /* who waits for it, or NULL */
    void *opaque;
    guint late; /* ends that wait */
};

static const struct daemon_config *config;
static GHashTable *vms; /* name -> struct vm */
static uint64_t last_serial;
static guint regular;

static bool is_being_started(const struct vm *vm)
{
    return vm->reserved || vm->state == UNDERSTUDY__STATE__STATE_UNKNOWN;
}

static const char *state_in_words(const struct vm *vm)
{
    return state_name(is_being_started(vm) ? UNDERSTUDY__STATE__STATE_STARTING : vm->state);
}

static void set_peer_key(struct vm *vm, const uint8_t *key)
{
    vm->has_peer_key = key != NULL;
    if (key)
        memcpy(vm->peer_key, key, STREAM_KEY_LEN);
}

static void forget_qemu(struct vm *vm)
{
    if (vm->qemu_pidfd >= 0)
        close(vm->qemu_pidfd);
    vm->qemu_pidfd = -1;
    vm->qemu_pid = 0;
}

static void free_vm(void *opaque)
{
    struct vm *vm = opaque;
    vm_table_remove(vm->name);
    framing_free(vm->framing);
    g_clear_handle_id(&vm->late, g_source_remove);
    vm_events_free(vm->events);
    forget_qemu(vm);
    g_clear_object(&vm->process);
    if (vm->protection)
        understudy__protection__free_unpacked(vm->protection, NULL);
    g_free(vm->name);
    g_free(vm->vm_dir);
    g_free(vm->state_dir);
    g_free(vm->peer_host);
    g_free(vm->accel);
    g_free(vm->unprotected_why);
    g_free(vm->failure);
    g_free(vm->split);
    g_strfreev(vm->warnings);
    g_free(vm);
}

static gboolean look_at_all(gpointer opaque);
static void adopt_all(void);

void vms_init(const struct daemon_config *daemon_config)
{
    config = daemon_config;
    vms = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, free_vm);
    adopt_all();
    regular = g_timeout_add_seconds(REPROTECT_S, look_at_all, NULL);
}

static struct vm *lookup(const char *name)
{
    return g_hash_table_lookup(vms, name);
}

/* Adds an entry to the table. An older entry of the same name is forgotten. */
static struct vm *add_vm(const char *name, bool adopted)
{
    struct vm *vm = g_new0(struct vm, 1);
    vm->name = g_strdup(name);
    vm->qemu_pidfd = -1;
    vm->serial = ++last_serial;
    vm->events = vm_events_new(name, adopted);
    g_hash_table_replace(vms, vm->name, vm);
    return vm;
}

/* ---- what the replicator says ---- */

/* Tells the caller that waits for a standby whether it listens. */
static void answer_listening(struct vm *vm, bool ok, const char *message)
{
    vm_listening listening = g_steal_pointer(&vm->listening);
    g_clear_handle_id(&vm->late, g_source_remove);
    vm->never_began |= listening && !ok;
    if (listening)
        listening(ok, message, vm->data_port, vm->udp_port, vm->opaque);
}

static void show(struct vm *vm, Understudy__State state, const char *error)
{
    Understudy__Status status = UNDERSTUDY__STATUS__INIT;
    status.vm = vm->name;
    status.role = vm->role;
    status.state = vm->state = state;
    status.term = vm->term;
    status.peer = vm->peer_host ? vm->peer_host : (char *)"";
    status.last_error = (char *)error;
    status.split = vm->split ? vm->split : (char *)"";
    status.accel = vm->accel ? vm->accel : (char *)"";
    status.memory_mib = vm->protection ? vm->protection->ram_bytes >> 20 : 0;
    status.detect_ms = status.promote_ms = -1;
    vm_table_put(&status);
}

/* Returns whether pid is a hypervisor that a replicator of this daemon started. */
static bool is_our_qemu(int pid)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/cmdline", pid);
    g_autofree char *line = NULL;
    gsize len = 0;
    return pid > 1 && g_file_get_contents(path, &line, &len, NULL) && line_was_built(line, len);
}

/*
 * Watches the replicator's QEMU, which is new or has ended. The pid may belong to another process before the
 * pidfd is open, so the process is checked afterwards: while the process of the pidfd lives, the pid is its
 * own.
 */
static void watch_qemu(struct vm *vm, int pid)
{
    if (pid == vm->qemu_pid)
        return;
    forget_qemu(vm);
    vm->qemu_pid = pid;
    if (pid > 1)
        vm->qemu_pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    struct pollfd ended = {.fd = vm->qemu_pidfd, .events = POLLIN};
    if (vm->qemu_pidfd >= 0 && (!is_our_qemu(pid) || poll(&ended, 1, 0) != 0)) {
        close(vm->qemu_pidfd);
        vm->qemu_pidfd = -1;
    }
}

/* Returns whether this is the primary's side and the QEMU of its standby is known. */
static bool has_standby(const struct vm *vm)
{
    return vm->role == UNDERSTUDY__ROLE__ROLE_PRIMARY && vm->state == UNDERSTUDY__STATE__STATE_PROTECTED &&
           vm->protection && vm->protection->standby_qemu[0];
}

/* Returns a sentence (GLib string) while the standby's QEMU is on trial, or NULL. */
static char *trial_under_way(const struct vm *vm, const Understudy__Status *said)
{
    if (!said->untried || said->role != UNDERSTUDY__ROLE__ROLE_PRIMARY)
        return NULL;
    return g_strdup_printf("the other host's QEMU (%s) is loading the state of the guest's devices on trial",
                           vm->protection->standby_qemu[0] ? vm->protection->standby_qemu : "?");
}

static void on_status(struct vm *vm, const Understudy__Status *said)
{
    Understudy__Status status = *said;
    status_read_names(&status);
    bool alone = said->role == UNDERSTUDY__ROLE__ROLE_PRIMARY &&
                 (status.state == UNDERSTUDY__STATE__STATE_CONNECTING ||
                  status.state == UNDERSTUDY__STATE__STATE_PEER_LOST);
    vm->role = said->role;
    vm->term = said->term;
    watch_qemu(vm, said->qemu_pid);
    vm->state = status.state;
    if (said->split[0]) {
        g_free(vm->split);
        vm->split = g_strdup(said->split);
    }
    status.split = vm->split ? vm->split : (char *)"";
    if (vm->state == UNDERSTUDY__STATE__STATE_PROTECTED)
        g_clear_pointer(&vm->unprotected_why, g_free);
    if (!alone)
        vm->alone_since_us = 0;
    else if (!vm->alone_since_us)
        vm->alone_since_us = g_get_monotonic_time();
    status.vm = vm->name;
    status.accel = vm->accel ? vm->accel : (char *)"";
    status.peer = vm->peer_host ? vm->peer_host : (char *)"";
    status.unprotected_why = alone && vm->unprotected_why ? vm->unprotected_why : (char *)"";
    g_autofree char *warning =
        has_standby(vm) ? line_version_warning(host_program(vm->protection), vm->protection->qemu_version,
                                               vm->protection->standby_qemu)
                        : NULL;
    g_autofree char *on_trial = trial_under_way(vm, said);
    if (on_trial)
        status.unprotected_why = on_trial;
    char *warnings[WARNINGS_MAX];
    status.warnings = warnings;
    status.n_warnings = 0;
    if (warning)
        warnings[status.n_warnings++] = warning;
    for (char **one = vm->warnings; one && *one && status.n_warnings < WARNINGS_MAX; one++)
        warnings[status.n_warnings++] = *one;
    vm_events_status(vm->events, &status);
    vm_table_put(&status);
}

/* Handles the first report of a replicator that an earlier daemon started. */
static void on_adopted(struct vm *vm, const Understudy__Adopted *adopted)
{
    const Understudy__Start *start = adopted->start;
    if (vm->protection || !start || !start->protection || strcmp(start->protection->vm, vm->name) != 0)
        return;
    vm->protection = protection_copy(start->protection);
    vm->peer_host = g_strdup(start->peer_name[0] ? start->peer_name : start->peer_host);
    vm->peer_daemon_port = (uint16_t)start->peer_daemon_port;
    set_peer_key(vm, start->peer_key.len == STREAM_KEY_LEN ? start->peer_key.data : NULL);
    if (adopted->listening) {
        vm->data_port = (uint16_t)adopted->listening->data_port;
        vm->udp_port = (uint16_t)adopted->listening->udp_port;
    }
    vm->accel = host_accel_of(vm->protection);
}

/* Notes that a standby has failed here, and why: the next attempt of its run has to wait. */
static void note_failure(struct vm *vm, const char *why, bool unfit)
{
    (unfit ? standby_backoff_unfit : standby_backoff_failed)(&vm->backoff, g_get_monotonic_time());
    g_free(vm->failure);
    vm->failure = g_strdup(why);
}

static void on_ended(struct vm *vm, const char *name, const char *said)
{
    enum session_end_reason reason = session_end_reason_from_name(name);
    const char *words = session_end_reason_words(reason);
    bool unfit = reason == SESSION_END_TRIAL_FAILED;
    bool as_standby = session_end_reason_is_failure(reason) && reason != SESSION_END_PROMOTE_FAILED &&
                      vm->role == UNDERSTUDY__ROLE__ROLE_SECONDARY;
    if (reason == SESSION_END_NONE)
        g_warning("%s: ended here, and no reason '%s' is known", vm->name, name);
    vm->ended = true;
    if (vm->process)
        g_object_set_data(G_OBJECT(vm->process), HAS_TOLD, vm->process);
    vm_events_ended(vm->events, vm->role, vm->term, reason, said);
    if (!vm->listening)
        endings_add(vm->name, vm->role, vm->term, reason, said, vm->vm_dir);
    vm->end_reason = reason;
    if (as_standby)
        note_failure(vm, said[0] ? said : words, unfit);
    answer_listening(vm, false, said[0] ? said : words);
    Understudy__State state = state_of_end(reason);
    if (state == UNDERSTUDY__STATE__STATE_ENDED)
        show(vm, state, words);
    else
        show(vm, vm->never_began ? UNDERSTUDY__STATE__STATE_FAILED : state, said);
}

static void on_message(struct framing *framing, const Understudy__Envelope *message, void *opaque)
{
    struct vm *vm = opaque;
    (void)framing;
    if (vm->ended)
        return; /* nothing counts after the report of its end */
    if (message->body_case == UNDERSTUDY__ENVELOPE__BODY_LISTENING) {
        vm->data_port = (uint16_t)message->listening->data_port;
        vm->udp_port = (uint16_t)message->listening->udp_port;
        answer_listening(vm, true, "");
    } else if (message->body_case == UNDERSTUDY__ENVELOPE__BODY_ADOPTED) {
        on_adopted(vm, message->adopted);
    } else if (message->body_case == UNDERSTUDY__ENVELOPE__BODY_STATUS && vm->protection) {
        on_status(vm, message->status);
    } else if (message->body_case == UNDERSTUDY__ENVELOPE__BODY_ENDED) {
        on_ended(vm, message->ended->reason, message->ended->message);
    }
}

/* Removes the sockets. The console log stays, so that an administrator can see why the VM ended. */
static void clear_sockets(const char *vm_dir)
{
    GDir *dir = g_dir_open(vm_dir, 0, NULL);
    const char *name;
    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename(vm_dir, name, NULL);
        if (g_str_has_prefix(name, "us-"))
            g_unlink(path);
    }
    if (dir)
        g_dir_close(dir);
}

/* Keeps the entry for its backoff (look_at_all forgets it), and takes it out of the table that status shows.
 */
static void hide(struct vm *vm)
{
    vm->hidden = true;
    vm_table_remove(vm->name);
}

/* Returns whether a hidden entry has expired. A reserved one is about to be replaced. */
static bool is_forgotten(const struct vm *vm)
{
    return vm->hidden && !vm->reserved &&
           g_get_monotonic_time() - vm->backoff.failed_us > STANDBY_BACKOFF_FORGET_S * G_USEC_PER_SEC;
}

static void on_replicator_gone(struct framing *framing, void *opaque)
{
    struct vm *vm = opaque;
    framing_free(framing);
    vm->framing = NULL;
    if (!vm->ended) {
        vm->end_reason = SESSION_END_REPLICATOR_DIED;
        vm_events_lost(vm->events, vm->role, vm->term);
        endings_add(vm->name, vm->role, vm->term, SESSION_END_REPLICATOR_DIED, "", vm->vm_dir);
        if (vm->role == UNDERSTUDY__ROLE__ROLE_SECONDARY)
            note_failure(vm, "the replicator died", false);
        answer_listening(vm, false, "the replicator died");
        if (vm->qemu_pidfd >= 0)
            syscall(SYS_pidfd_send_signal, vm->qemu_pidfd, SIGKILL, NULL, 0);
        forget_qemu(vm);
        show(vm, UNDERSTUDY__STATE__STATE_FAILED, "the replicator of this VM died; its QEMU was stopped");
    }
    clear_sockets(vm->vm_dir);
    if (vm->never_began && vm->ended)
        run_folder_remove(vm->vm_dir); /* its caller was told why */
    waiters_tell(vm->name, session_end_reason_name(vm->end_reason));
    /* A standby that fails repeatedly stays in the table. Each is tried again only after a pause. */
    bool again = vm->backoff.failures > 1;
    bool went_well = vm->ended && vm->state == UNDERSTUDY__STATE__STATE_ENDED;
    if (went_well || (vm->never_began && vm->backoff.failures == 0))
        g_hash_table_remove(vms, vm->name);
    else if (vm->never_began && !again)
        hide(vm);
}

/* ---- adopting ---- */

/* Connects to a replicator's socket. Returns a descriptor, or -1 and errno. */
static int connect_to_replicator(const char *vm_dir)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    g_autofree char *path = g_build_filename(vm_dir, "us-replicator", NULL);
    if (strlen(path) >= sizeof address.sun_path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) < 0) {
        int why = errno;
        close(fd);
        errno = why;
        fd = -1;
    }
    return fd;
}

/* Returns whether a replicator may be alive although connecting has failed with this error: it is stopped and
 * its queue is full of earlier daemons' connections, or this daemon lacks descriptors or memory. */
static bool may_be_alive(int error)
{
    return error == EAGAIN || error == EINTR || error == EMFILE || error == ENFILE || error == ENOBUFS ||
           error == ENOMEM;
}

/*
 * Connects to the VM's replicator, which an earlier daemon started and which then reports its state. If it
 * may be alive but cannot be reached, it is tried again later. False: there is none, and the caller removes
 * the entry.
 */
static bool adopt(struct vm *vm)
{
    int fd = connect_to_replicator(vm->vm_dir);
    if (fd >= 0) {
        vm->framing = framing_new(fd, on_message, on_replicator_gone, vm);
        vm->adopting = false;
        return true;
    }
    if (may_be_alive(errno)) {
        if (!vm->adopting)
            g_warning("VM %s: its replicator cannot be reached yet: %s", vm->name, g_strerror(errno));
        vm->adopting = true;
        return true;
    }
    clear_sockets(vm->vm_dir);
    endings_add(vm->name, UNDERSTUDY__ROLE__ROLE_NONE, 0, SESSION_END_UNATTENDED, "", vm->vm_dir);
    return false;
}

/* Connects to the replicators that run already, because an earlier daemon was stopped or killed. Each
 * replicator reports its state. */
static void adopt_all(void)
{
    GDir *dir = g_dir_open(config->run_dir, 0, NULL);
    const char *name;
    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *vm_dir = g_build_filename(config->run_dir, name, NULL);
        if (!g_file_test(vm_dir, G_FILE_TEST_IS_DIR))
            continue;
        struct vm *vm = add_vm(name, true);
        vm->vm_dir = g_steal_pointer(&vm_dir);
        if (!adopt(vm))
            g_hash_table_remove(vms, name);
    }
    if (dir)
        g_dir_close(dir);
}

/* ---- starting ---- */

static bool name_is_fit(const char *name)
{
    size_t len = strlen(name);
    return len > 0 && len <= 32 &&
           strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") == len &&
           name[0] != '.' && name[0] != '-';
}

bool vm_reserve(const char *name, GError **error)
{
    struct vm *vm = lookup(name);
    if (!name_is_fit(name)) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                    "%s is no name for a VM: use up to 32 letters, digits, '-', '_' and '.'", name);
        return false;
    }
    if (vm && vm->framing) {
        g_set_error(error, G_IO_ERROR, vm->ended ? G_IO_ERROR_BUSY : G_IO_ERROR_EXISTS,
                    "VM %s is already here (%s): stop it first, or use another name", name,
                    state_in_words(vm));
        return false;
    }
    if (vm && is_being_started(vm)) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_EXISTS, "VM %s is being started", name);
        return false;
    }
    if (!vm)
        vm = add_vm(name, false);
    vm->reserved = true;
    return true;
}

void vm_forget(const char *name)
{
    struct vm *vm = lookup(name);
    if (vm && vm->reserved && vm->state != UNDERSTUDY__STATE__STATE_UNKNOWN)
        vm->reserved = false; /* the entry shows the VM before */
    else
        g_hash_table_remove(vms, name);
}

/* Returns whether the entry is of the run with this token (WIRE_TOKEN_LEN bytes). */
static bool has_token(const struct vm *vm, const uint8_t *token)
{
    return vm->protection && vm->protection->token.len == WIRE_TOKEN_LEN &&
           wire_token_equal(vm->protection->token.data, token);
}

/* Returns whether the entry is of the same run as the protection. */
static bool is_of_run(const struct vm *vm, const Understudy__Protection *protection)
{
    return protection->token.len == WIRE_TOKEN_LEN && has_token(vm, protection->token.data);
}

/* Replaces the reservation by the entry of the VM that starts. Keeps the backoff; that of a hidden entry only
 * for the same run. */
static struct vm *begin_anew(struct vm *reserved, const Understudy__Protection *protection)
{
    struct standby_backoff backoff = {0};
    if (!reserved->hidden || is_of_run(reserved, protection))
        backoff = reserved->backoff;
    char *split = g_steal_pointer(&reserved->split);
    struct vm *vm = add_vm(reserved->name, false);
    vm->backoff = backoff;
    vm->split = split;
    return vm;
}

/* Logs how a replicator ended that was killed, or that did not say why. */
static void on_process_ended(GObject *source, GAsyncResult *result, gpointer opaque)
{
    GSubprocess *process = G_SUBPROCESS(source);
    g_autofree char *name = opaque;
    g_subprocess_wait_finish(process, result, NULL);
    if (g_subprocess_get_if_signaled(process)) {
        int number = g_subprocess_get_term_sig(process);
        g_warning("VM %s: its replicator was ended by signal %d (%s)", name, number, g_strsignal(number));
    } else if (g_subprocess_get_exit_status(process) != 0 && !g_object_get_data(source, HAS_TOLD)) {
        g_warning("VM %s: its replicator ended with exit status %d", name,
                  g_subprocess_get_exit_status(process));
    }
}

static bool spawn_replicator(struct vm *vm, GError **error)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
        g_set_error(error, G_IO_ERROR, g_io_error_from_errno(errno), "%s", g_strerror(errno));
        return false;
    }
    g_autoptr(GSubprocessLauncher) launcher = g_subprocess_launcher_new(G_SUBPROCESS_FLAGS_NONE);
    g_subprocess_launcher_take_fd(launcher, pair[1], REPLICATOR_FD);
    vm->process = g_subprocess_launcher_spawn(launcher, error, config->replicator, "--control-fd",
                                              G_STRINGIFY(REPLICATOR_FD), NULL);
    if (!vm->process) {
        close(pair[0]);
        return false;
    }
    g_subprocess_wait_async(vm->process, NULL, on_process_ended, g_strdup(vm->name));
    vm->framing = framing_new(pair[0], on_message, on_replicator_gone, vm);
    return true;
}

/* Fills the order that starts the VM. What it points to stays its owner's. */
static void fill_start(Understudy__Start *start, const struct vm *vm, char **argv, char **trial_argv,
                       const struct peer_standby *standby)
{
    understudy__start__init(start);
    start->role = vm->role;
    start->protection = vm->protection;
    start->argv = argv;
    start->n_argv = g_strv_length(argv);
    start->trial_argv = trial_argv;
    start->n_trial_argv = trial_argv ? g_strv_length(trial_argv) : 0;
    start->vm_dir = vm->vm_dir;
    start->hook = config->hook;
    start->state_dir = vm->state_dir;
    start->disk_plugin = config->disk_plugin;
    start->listen_address = config->listen_address ? config->listen_address : (char *)"";
    start->peer_name = vm->peer_host;
    start->peer_host = standby ? standby->at.address : vm->peer_host;
    start->peer_data_port = standby ? standby->data_port : 0;
    start->peer_udp_port = standby ? standby->udp_port : 0;
    start->peer_daemon_port = vm->peer_daemon_port;
    start->peer_key.data = (uint8_t *)vm->peer_key;
    start->peer_key.len = vm->has_peer_key ? STREAM_KEY_LEN : 0;
    start->nice = config->nice;
}

/* Starts the replicator and gives it the order. False and error: nothing was started. */
static bool spawn_with_order(struct vm *vm, char **argv, char **trial_argv,
                             const struct peer_standby *standby, GError **error)
{
    Understudy__Start start;
    fill_start(&start, vm, argv, trial_argv, standby);
    Understudy__Envelope envelope = UNDERSTUDY_ENVELOPE(START, start, &start);
    if (!framing_fits(&envelope, error)) {
        g_prefix_error(error, "VM %s: ", vm->name);
        return false;
    }
    show(vm, UNDERSTUDY__STATE__STATE_STARTING, "");
    if (!spawn_replicator(vm, error))
        return false;
    framing_send(vm->framing, &envelope);
    return true;
}

static void order_stop(struct vm *vm)
{
    Understudy__Stop stop = UNDERSTUDY__STOP__INIT;
    Understudy__Envelope envelope = UNDERSTUDY_ENVELOPE(STOP, stop, &stop);
    framing_send(vm->framing, &envelope);
}

/* Gives up a VM whose replicator is not ready in time. Stops it: its caller is told that it did not start. */
static gboolean on_late(gpointer opaque)
{
    struct vm *vm = opaque;
    vm->late = 0;
    order_stop(vm);
    g_autofree char *message = g_strdup_printf(
        "VM %s is not ready after %d s, and is stopped: 'understudy status %s' says what it does", vm->name,
        READY_MS / 1000, vm->name);
    answer_listening(vm, false, message);
    return G_SOURCE_REMOVE;
}

static bool make_dir(const char *path, GError **error)
{
    if (g_mkdir_with_parents(path, 0700) == 0)
        return true;
    g_set_error(error, G_IO_ERROR, g_io_error_from_errno(errno), "the folder %s cannot be made: %s", path,
                g_strerror(errno));
    return false;
}

/*
 * Builds the command line of a trial, if this host's QEMU is not the one that the guest runs in; else sets
 * *argv to NULL. False and error: this machine cannot be tried.
 */
static bool build_trial(const struct line *line, const Understudy__Protection *protection,
                        Understudy__Role role, const char *vm_dir, char ***argv, GError **error)
{
    *argv = NULL;
    if (role != UNDERSTUDY__ROLE__ROLE_SECONDARY || !protection->tried_for[0])
        return true;
    g_autofree uint64_t *len = g_new0(uint64_t, line->disks->len + 1);
    for (size_t i = 0; i < protection->n_disks && i < line->disks->len; i++)
        len[i] = protection->disks[i]->virtual_len ? protection->disks[i]->virtual_len
                                                   : protection->disks[i]->export_len;
    *argv = line_build_trial(line, vm_dir, len, error);
    if (!*argv)
        g_prefix_error(
            error,
            "this host's QEMU is %s, the guest runs in %s, and whether its state loads here cannot be "
            "tried: install the same version on both: ",
            protection->qemu_version, protection->tried_for);
    return *argv != NULL;
}

bool vm_start(Understudy__Role role, Understudy__Protection *protection, const char *peer_host,
              uint16_t peer_daemon_port, const uint8_t *peer_key, const struct peer_standby *standby,
              vm_listening listening, void *opaque, GError **error)
{
    struct vm *vm = lookup(protection->vm);
    if (!vm || !vm->reserved)
        return false;
    struct line *line = host_line(protection, error);
    if (!line || !disks_set_formats(line, protection, error)) {
        line_free(line);
        return false;
    }
    if (protection->cpu_enforce)
        line_enforce_cpu(line);
    vm = begin_anew(vm, protection);
    vm->protection = protection_copy(protection);
    vm->vm_dir = g_build_filename(config->run_dir, protection->vm, NULL);
    vm->state_dir = g_build_filename(config->state_dir, protection->vm, NULL);
    vm->peer_host = g_strdup(peer_host);
    vm->peer_daemon_port = peer_daemon_port;
    set_peer_key(vm, peer_key);
    vm->role = role;
    vm->term = protection->term;
    vm->accel = host_accel(line);
    vm->listening = listening;
    vm->opaque = opaque;
    g_auto(GStrv) trial_argv = NULL;
    bool ok = strlen(vm->vm_dir) + strlen("/us-replicator") <= SUN_PATH_MAX;
    if (!ok)
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_FILENAME_TOO_LONG,
                    "%s is too long for sockets: use a shorter --run-dir", vm->vm_dir);
    ok = ok && build_trial(line, protection, role, vm->vm_dir, &trial_argv, error);
    ok = ok && make_dir(vm->vm_dir, error) && make_dir(vm->state_dir, error);
    if (ok) {
        endings_release_dir(vm->vm_dir);
        clear_sockets(vm->vm_dir);
        g_autofree char *log = g_build_filename(vm->vm_dir, "console.log", NULL);
        g_unlink(log);
        g_auto(GStrv) argv = line_build(line, vm->vm_dir, role == UNDERSTUDY__ROLE__ROLE_SECONDARY);
        ok = spawn_with_order(vm, argv, trial_argv, standby, error);
    }
    if (ok && listening)
        vm->late = g_timeout_add(READY_MS, on_late, vm);
    line_free(line);
    return ok;
}

/* Returns whether a standby here waits for the primary with this token. It listens before its status says so.
 */
static bool waits_for(const struct vm *vm, const uint8_t *token)
{
    return vm && vm->framing && vm->role == UNDERSTUDY__ROLE__ROLE_SECONDARY && vm->data_port &&
           (vm->state == UNDERSTUDY__STATE__STATE_LISTENING ||
            vm->state == UNDERSTUDY__STATE__STATE_STARTING) &&
           has_token(vm, token);
}

/*
 * Returns whether a standby of the same run failed here a short time ago. Each further attempt costs the
 * primary a synchronisation, so attempts have pauses. A failure does not count if it was the trial of a guest
 * in another QEMU than now.
 */
static bool is_too_soon(const struct vm *vm, const Understudy__Protection *wanted, char **why)
{
    unsigned wait_s = standby_backoff_wait_s(&vm->backoff, g_get_monotonic_time());
    if (vm->framing || !vm->failure || wait_s == 0 || !vm->protection ||
        (vm->backoff.unfit && strcmp(vm->protection->tried_for, wanted->qemu_version) != 0) ||
        !is_of_run(vm, wanted))
        return false;
    if (vm->backoff.unfit)
        *why =
            g_strdup_printf("%s. After that, 'understudy stop %s' there lets the next attempt come at once; "
                            "without it, it is in %u s",
                            vm->failure, vm->name, wait_s);
    else
        *why = g_strdup_printf("%s (the next attempt is in %u s)", vm->failure, wait_s);
    return true;
}

enum vm_existing vm_check_existing(Understudy__Protection *wanted, uint16_t *data_port, uint16_t *udp_port,
                                   char **why)
{
    struct vm *vm = lookup(wanted->vm);
    if (!name_is_fit(wanted->vm)) {
        *why = g_strdup("the VM's name is no name");
        return VM_REFUSED;
    }
    if (vm && is_too_soon(vm, wanted, why))
        return VM_REFUSED;
    if (vm && !vm->framing && is_being_started(vm)) {
        *why = g_strdup_printf("VM %s is being started on this host", vm->name);
        return VM_ENDING;
    }
    if (!vm || !vm->framing)
        return VM_NONE;
    if (vm->role == UNDERSTUDY__ROLE__ROLE_PRIMARY && vm->term >= wanted->term) {
        *why = g_strdup_printf("VM %s runs on this host already (term %" G_GUINT64_FORMAT ".%u)", vm->name,
                               term_count(vm->term), term_host(vm->term));
        return VM_REFUSED;
    }
    if (!term_is_believable(vm->term, wanted->term)) {
        *why =
            g_strdup_printf("VM %s is in term %" G_GUINT64_FORMAT ".%u on this host, and %" G_GUINT64_FORMAT
                            ".%u cannot follow that: stop the VM here",
                            vm->name, term_count(vm->term), term_host(vm->term), term_count(wanted->term),
                            term_host(wanted->term));
        return VM_REFUSED;
    }
    if (!waits_for(vm, wanted->token.data)) {
        /* A VM that was stopped and is run again: this host may not have heard of its end yet. */
        bool other_run = vm->role == UNDERSTUDY__ROLE__ROLE_SECONDARY && vm->protection &&
                         vm->protection->token.len == WIRE_TOKEN_LEN &&
                         !wire_token_equal(vm->protection->token.data, wanted->token.data);
        *why = g_strdup_printf("VM %s is busy on this host (%s): stop it there, or use another name",
                               vm->name, state_in_words(vm));
        return vm->ended || other_run ? VM_ENDING : VM_REFUSED;
    }
    *data_port = vm->data_port;
    *udp_port = vm->udp_port;
    if (vm->protection->secret.len == SEAL_SECRET_LEN)
        protection_set_secret(wanted, vm->protection->secret.data);
    return VM_REUSE;
}

/* ---- orders ---- */

static struct vm *lookup_running(const char *name, GError **error)
{
    struct vm *vm = lookup(name);
    if (!vm || (vm->hidden && !vm->reserved))
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND,
                    "there is no VM %s on this host: 'understudy status' lists those there are", name);
    else if (!vm->framing && is_being_started(vm))
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_BUSY, "VM %s is being started: try again when it runs",
                    name);
    else if (!vm->framing)
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND, "VM %s does not run on this host any more (%s)",
                    name, state_name(vm->state));
    return vm && vm->framing ? vm : NULL;
}

bool vm_failover(const char *name, bool force, GError **error)
{
    struct vm *vm = lookup_running(name, error);
    if (!vm)
        return false;
    if (!force && vm->state != UNDERSTUDY__STATE__STATE_PROTECTED) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED,
                    "VM %s is %s here: a planned failover starts on the host where it runs, protected", name,
                    state_name(vm->state));
        return false;
    }
    if (force && vm->state != UNDERSTUDY__STATE__STATE_STANDBY) {
        g_set_error(
            error, G_IO_ERROR, G_IO_ERROR_FAILED,
            "VM %s is %s here: a forced failover is ordered on the host that stands by with a whole image",
            name, state_name(vm->state));
        return false;
    }
    Understudy__Failover failover = UNDERSTUDY__FAILOVER__INIT;
    failover.force = force;
    Understudy__Envelope envelope = UNDERSTUDY_ENVELOPE(FAILOVER, failover, &failover);
    framing_send(vm->framing, &envelope);
    return true;
}

bool vm_stop(const char *name, GError **error)
{
    struct vm *vm = lookup(name);
    if (vm && !vm->framing && !is_being_started(vm) && !vm->hidden) {
        g_hash_table_remove(vms, name); /* a failed one: forget it */
        return true;
    }
    vm = lookup_running(name, error);
    if (!vm)
        return false;
    order_stop(vm);
    return true;
}

bool vm_power(const char *name, Understudy__PowerAction action, GError **error)
{
    struct vm *vm = lookup_running(name, error);
    if (!vm)
        return false;
    if (vm->role != UNDERSTUDY__ROLE__ROLE_PRIMARY || vm->state == UNDERSTUDY__STATE__STATE_STARTING ||
        vm->ended) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED,
                    "VM %s is %s here: give this order on the host where it runs", name, state_in_words(vm));
        return false;
    }
    Understudy__Power power = UNDERSTUDY__POWER__INIT;
    power.action = action;
    Understudy__Envelope envelope = UNDERSTUDY_ENVELOPE(POWER, power, &power);
    framing_send(vm->framing, &envelope);
    return true;
}

bool vm_is_here(const char *name)
{
    struct vm *vm = lookup(name);
    return vm && vm->framing;
}

unsigned vms_count(void)
{
    GHashTableIter iter;
    gpointer value;
    unsigned n = 0;
    g_hash_table_iter_init(&iter, vms);
    while (g_hash_table_iter_next(&iter, NULL, &value))
        n += ((struct vm *)value)->framing != NULL;
    return n;
}

void vm_cancel_standby(const char *name, const uint8_t *token, bool in_use)
{
    struct vm *vm = lookup(name);
    bool follows =
        in_use && vm && vm->framing && vm->role == UNDERSTUDY__ROLE__ROLE_SECONDARY && has_token(vm, token);
    if (waits_for(vm, token) || follows)
        order_stop(vm);
}

/* Ends what a VM has with the other host, which is not trusted any more: stops a standby here, or ends the
 * links of a guest that runs here, which goes on alone. */
static void end_peer(struct vm *vm, bool told)
{
    const char *host = vm->peer_host ? vm->peer_host : "the other host";
    if (vm->role == UNDERSTUDY__ROLE__ROLE_SECONDARY) {
        g_message("VM %s: this host stops standing by, since %s is not trusted any more", vm->name, host);
        order_stop(vm);
        return;
    }
    Understudy__DropPeer drop = UNDERSTUDY__DROP_PEER__INIT;
    Understudy__Envelope envelope = UNDERSTUDY_ENVELOPE(DROP_PEER, drop_peer, &drop);
    drop.told = told;
    g_message("VM %s: its link to %s ends, since that host is not trusted any more", vm->name, host);
    framing_send(vm->framing, &envelope);
}

void vms_end_of_peer(const uint8_t *peer_key, bool told)
{
    GHashTableIter iter;
    gpointer value;
    g_hash_table_iter_init(&iter, vms);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        struct vm *vm = value;
        if (vm->framing && vm->has_peer_key && memcmp(vm->peer_key, peer_key, STREAM_KEY_LEN) == 0)
            end_peer(vm, told);
    }
}

void vm_reset_figures(const char *name)
{
    Understudy__ResetFigures reset = UNDERSTUDY__RESET_FIGURES__INIT;
    Understudy__Envelope envelope = UNDERSTUDY_ENVELOPE(RESET_FIGURES, reset_figures, &reset);
    GHashTableIter iter;
    gpointer value;
    g_hash_table_iter_init(&iter, vms);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        struct vm *vm = value;
        if (vm->framing && (!name[0] || strcmp(vm->name, name) == 0))
            framing_send(vm->framing, &envelope);
    }
}

/* ---- coming back to protection ---- */

struct wish {
    char *name, *host;
    uint64_t serial; /* of the VM's entry */
    uint16_t port, own_port;
    struct peer_standby standby;
    Understudy__Protection *protection;
};

static void free_wish(gpointer opaque)
{
    struct wish *wish = opaque;
    g_free(wish->name);
    g_free(wish->host);
    g_free(wish->standby.at.address);
    understudy__protection__free_unpacked(wish->protection, NULL);
    g_free(wish);
}

static void ask_peer(GTask *task, gpointer source, gpointer opaque, GCancellable *cancellable)
{
    struct wish *wish = opaque;
    GError *error = NULL;
    (void)source;
    (void)cancellable;
    if (peer_prepare(wish->host, wish->port, wish->protection, wish->own_port, &wish->standby, NULL, &error))
        g_task_return_boolean(task, TRUE);
    else
        g_task_return_error(task, error);
}

/* Compares two sentences without their numbers, since the amount of free room changes all the time. */
static bool says_the_same(const char *a, const char *b)
{
    while (a && b) {
        a += strspn(a, "0123456789");
        b += strspn(b, "0123456789");
        if (*a != *b)
            return false;
        if (!*a)
            return true;
        a++;
        b++;
    }
    return a == b;
}

static void peer_answered(GObject *source, GAsyncResult *result, gpointer opaque)
{
    struct wish *wish = g_task_get_task_data(G_TASK(result));
    struct vm *vm = lookup(wish->name);
    (void)source;
    (void)opaque;
    g_autoptr(GError) error = NULL;
    bool ok = g_task_propagate_boolean(G_TASK(result), &error);
    if (!vm || vm->serial != wish->serial)
        return; /* a standby that no primary connects to ends by itself */
    vm->asking = false;
    vm->alone_since_us = 0;
    if (!ok) {
        g_autofree char *why = words_make_readable(error->message, WORDS_MAX);
        if (!says_the_same(why, vm->unprotected_why))
            vm_events_refused(vm->events, vm->peer_host, why);
        g_free(vm->unprotected_why);
        vm->unprotected_why = g_steal_pointer(&why);
    }
    if (!ok || !vm->framing)
        return;
    protection_set_string(&vm->protection->standby_qemu, wish->protection->standby_qemu);
    set_peer_key(vm, wish->standby.at.has_key ? wish->standby.at.key : NULL);
    Understudy__PeerMoved moved = UNDERSTUDY__PEER_MOVED__INIT;
    moved.host = wish->standby.at.address;
    moved.data_port = wish->standby.data_port;
    moved.udp_port = wish->standby.udp_port;
    moved.secret = wish->protection->secret;
    moved.peer_key.data = vm->peer_key;
    moved.peer_key.len = vm->has_peer_key ? STREAM_KEY_LEN : 0;
    Understudy__Envelope envelope = UNDERSTUDY_ENVELOPE(PEER_MOVED, peer_moved, &moved);
    framing_send(vm->framing, &envelope);
}

static void reprotect(struct vm *vm)
{
    struct wish *wish = g_new0(struct wish, 1);
    wish->name = g_strdup(vm->name);
    wish->serial = vm->serial;
    wish->host = g_strdup(vm->peer_host);
    wish->port = vm->peer_daemon_port;
    wish->own_port = config->port;
    wish->protection = protection_copy(vm->protection);
    wish->protection->term = vm->term;
    protection_new_secret(wish->protection);
    vm->asking = true;
    vm_events_asked(vm->events, vm->peer_host);
    GTask *task = g_task_new(NULL, NULL, peer_answered, NULL);
    g_task_set_task_data(task, wish, free_wish);
    task_thread_run(task, ask_peer);
    g_object_unref(task);
}

static bool wants_standby(const struct vm *vm)
{
    bool alone = vm->framing && vm->alone_since_us &&
                 g_get_monotonic_time() - vm->alone_since_us > REPROTECT_S * G_USEC_PER_SEC;
    return alone && !vm->asking && vm->peer_host && vm->peer_daemon_port;
}

static gboolean look_at_all(gpointer opaque)
{
    GHashTableIter iter;
    gpointer value;
    (void)opaque;
    g_hash_table_iter_init(&iter, vms);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        struct vm *vm = value;
        if (wants_standby(vm))
            reprotect(vm);
        else if ((vm->adopting && !adopt(vm)) || is_forgotten(vm))
            g_hash_table_iter_remove(&iter);
    }
    return G_SOURCE_CONTINUE;
}

/* ---- for vm_watch.c ---- */

void vms_each(void (*each)(const struct vm_view *vm, void *opaque), void *opaque)
{
    GHashTableIter iter;
    gpointer value;
    g_hash_table_iter_init(&iter, vms);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        const struct vm *vm = value;
        bool primary = vm->role == UNDERSTUDY__ROLE__ROLE_PRIMARY;
        const struct vm_view view = {
            .name = vm->name,
            .protection = vm->protection,
            .peer_host = vm->peer_host,
            .peer_port = vm->peer_daemon_port,
            .runs_here = primary,
            .has_standby = primary && !vm->alone_since_us,
            .peer_key = vm->has_peer_key ? vm->peer_key : NULL,
        };
        if (vm->framing && vm->protection && vm->state != UNDERSTUDY__STATE__STATE_STARTING)
            each(&view, opaque);
    }
}

void vm_set_warnings(const char *name, const GPtrArray *warnings)
{
    struct vm *vm = lookup(name);
    if (!vm)
        return;
    GPtrArray *copy = g_ptr_array_new();
    for (guint i = 0; i < warnings->len && i < WARNINGS_MAX; i++) {
        const char *text = g_ptr_array_index(warnings, i);
        g_ptr_array_add(copy, g_strdup(text));
    }
    g_ptr_array_add(copy, NULL);
    g_strfreev(vm->warnings);
    vm->warnings = (char **)g_ptr_array_free(copy, FALSE);
}

void vms_shutdown(void)
{
    /* The replicators carry on: a daemon that is restarted must not stop what it protects. */
    g_clear_handle_id(&regular, g_source_remove);
    g_clear_pointer(&vms, g_hash_table_destroy);
    endings_clear();
}
