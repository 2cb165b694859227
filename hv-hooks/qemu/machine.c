/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * machine.h for QEMU: the process with the hook inside, its monitor, and the takeover.
 *
 *   start -> hook's hello, RAM blocks listed -> ready, monitor being opened -> orders, events -> end
 *
 * The wait for the hello can take long. It runs on a thread of its own, whose last act is an idle source in
 * the main context. All else is done in that context.
 *
 * QEMU runs with -action shutdown=pause: a guest that powers itself off leaves QEMU there until it is told to
 * quit.
 */
#include <gio/gio.h>
#include <string.h>
#include <sys/wait.h>

#include "common/words.h"
#include "hv-hooks/machine_ops.h"
#include "hv-hooks/qemu/hook_client.h"
#include "hv-hooks/qemu/nics.h"
#include "hv-hooks/qemu/qemu_events.h"
#include "hv-hooks/qemu/qemu_line.h"
#include "hv-hooks/qemu/qemu_process.h"
#include "hv-hooks/qemu/qmp.h"
#include "hv-hooks/qemu/takeover.h"
#include "hv-hooks/qemu/trial_load.h"

#define START_TIMEOUT_MS 20000
#define QMP_TIMEOUT_MS   5000
#define HOOK_SAYS        "understudy: " /* before what the hook prints when it refuses */

struct qemu_machine {
    struct machine base;
    struct machine_config config;
    const struct machine_observer *observer;
    void *opaque;
    struct hv_fds fds;
    struct hypervisor *hv;
    struct child_process *process;
    struct qmp *qmp; /* NULL: it is not ready */
    struct standby *takeover;
    struct nics_mirrors mirrors;
    bool gone, closing;
    GThread *ready_thread; /* NULL: joined */
    /* The ready thread's until it is joined. */
    int ready_status;
    guint ready_source;
};

static struct qemu_machine *of(struct machine *machine)
{
    return (struct qemu_machine *)machine;
}

static const struct qemu_machine *of_const(const struct machine *machine)
{
    return (const struct qemu_machine *)machine;
}

/* ---- its start ---- */

static void on_qmp_event(struct qmp *qmp, const char *name, json_t *data, void *opaque)
{
    const struct qemu_machine *machine = opaque;
    (void)qmp;
    qemu_event_tell(name, data, machine->observer, machine->opaque);
}

static void on_trouble(void *opaque, const char *what)
{
    const struct qemu_machine *machine = opaque;
    if (!machine->gone && !machine->closing)
        machine->observer->trouble(machine->opaque, what);
}

static void on_qmp_closed(struct qmp *qmp, const GError *error, void *opaque)
{
    g_autofree char *what = g_strdup_printf("QEMU's monitor closed: %s", error ? error->message : "");
    (void)qmp;
    on_trouble(opaque, what);
}

static void kill_it(struct machine *base)
{
    child_process_kill(of(base)->process);
}

static gboolean on_waited(gpointer opaque)
{
    struct qemu_machine *machine = opaque;
    g_thread_join(g_steal_pointer(&machine->ready_thread));
    machine->ready_source = 0;
    if (machine->ready_status < 0) {
        machine->observer->failed(machine->opaque, hypervisor_last_message(machine->hv));
        /* QEMU may be about to exit and say more: it ends in either way. */
        child_process_kill(machine->process);
        return G_SOURCE_REMOVE;
    }
    g_autofree char *monitor = g_build_filename(machine->config.dir, "us-qmp", NULL);
    machine->qmp = qmp_open(monitor, QMP_TIMEOUT_MS, NULL, on_qmp_closed, machine);
    machine->mirrors = (struct nics_mirrors){
        .qmp = machine->qmp, .n = machine->config.nnics, .trouble = on_trouble, .opaque = machine};
    qmp_listen(machine->qmp, on_qmp_event, machine);
    machine->observer->ready(machine->opaque);
    return G_SOURCE_REMOVE;
}

static gpointer wait_ready(gpointer opaque)
{
    struct qemu_machine *machine = opaque;
    machine->ready_status = hypervisor_wait_ready(machine->hv, START_TIMEOUT_MS);
    if (machine->ready_status == 0)
        machine->ready_status = hypervisor_list_blocks(machine->hv);
    machine->ready_source = g_idle_add_full(G_PRIORITY_HIGH, on_waited, machine, NULL);
    return NULL;
}

/* What it printed last, and what that means. GLib string. */
static char *why_it_ended(const struct qemu_machine *machine, int status)
{
    g_autofree char *log = g_build_filename(machine->config.dir, "console.log", NULL);
    g_autofree char *words = child_process_last_words(log);
    if (!machine->qmp && g_str_has_prefix(words, HOOK_SAYS))
        return g_strdup(words + strlen(HOOK_SAYS));
    return g_strdup_printf("QEMU ended by itself (%s %d): %s", WIFSIGNALED(status) ? "signal" : "exit status",
                           WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status), words);
}

static void on_exit_of_qemu(struct child_process *process, int status, void *opaque)
{
    struct qemu_machine *machine = opaque;
    g_autofree char *why = why_it_ended(machine, status);
    (void)process;
    machine->gone = true;
    machine->observer->ended(machine->opaque, why);
}

static void free_machine(struct machine *base)
{
    struct qemu_machine *machine = of(base);
    machine->closing = true;
    if (machine->ready_thread) {
        child_process_kill(machine->process);
        g_thread_join(machine->ready_thread);
        g_source_remove(machine->ready_source);
    }
    if (machine->takeover)
        standby_cancel(machine->takeover);
    qmp_close(machine->qmp);
    child_process_free(machine->process);
    hypervisor_close(machine->hv);
    hv_fds_close(&machine->fds);
    g_free(machine);
}

static bool make_memory(struct qemu_machine *machine, GError **error)
{
    const struct machine_config *config = &machine->config;
    int status = hv_fds_create(&machine->fds, config->vm_name, config->ram_len);
    if (status == 0)
        status = hypervisor_open(&machine->hv, &machine->fds, config->ram_len);
    if (status < 0)
        g_set_error(error, G_IO_ERROR, g_io_error_from_errno(-status),
                    "no memory for VM %s (%" G_GUINT64_FORMAT " MiB): %s", config->vm_name,
                    config->ram_len >> 20, g_strerror(-status));
    return status == 0;
}

static bool run(struct qemu_machine *machine, GError **error)
{
    g_autofree char *log = g_build_filename(machine->config.dir, "console.log", NULL);
    const struct qemu_start start = {
        .argv = machine->config.argv,
        .hook_path = machine->config.hook_path,
        .fds = &machine->fds,
        .log_path = log,
        .nice = machine->config.nice,
    };
    machine->process = qemu_process_start(&start, on_exit_of_qemu, machine, error);
    if (!machine->process)
        return false;
    int status = hypervisor_set_pid(machine->hv, child_process_pid(machine->process));
    if (status < 0) {
        g_set_error(error, G_IO_ERROR, g_io_error_from_errno(-status), "QEMU could not be watched: %s",
                    g_strerror(-status));
        return false;
    }
    machine->ready_thread = g_thread_try_new("ready", wait_ready, machine, error);
    return machine->ready_thread != NULL;
}

static struct machine *start(const struct machine_config *config, const struct machine_observer *observer,
                             void *opaque, GError **error)
{
    struct qemu_machine *machine = g_new0(struct qemu_machine, 1);
    machine->config = *config;
    machine->observer = observer;
    machine->opaque = opaque;
    machine->fds = (struct hv_fds){-1, -1, -1, -1};
    if (make_memory(machine, error) && run(machine, error))
        return &machine->base;
    free_machine(&machine->base);
    return NULL;
}

static struct hypervisor *hypervisor_of(struct machine *base)
{
    return of(base)->hv;
}

static pid_t pid_of(const struct machine *base)
{
    return of_const(base)->gone ? 0 : child_process_pid(of_const(base)->process);
}

/* ---- orders ---- */

struct order {
    const struct qemu_machine *machine;
    machine_refused refused; /* or NULL */
    void *opaque;
};

static void on_answer(struct qmp *qmp, json_t *value, const GError *error, void *opaque)
{
    g_autofree const struct order *given = opaque;
    (void)qmp;
    (void)value;
    if (error && given->refused && !given->machine->gone && !given->machine->closing)
        given->refused(given->opaque, error->message);
}

static void order(struct machine *base, enum machine_order which, machine_refused refused, void *opaque)
{
    static const char *const commands[] = {
        [MACHINE_POWER_DOWN] = "system_powerdown",
        [MACHINE_RESET] = "system_reset",
        [MACHINE_PAUSE] = "stop",
        [MACHINE_CONTINUE] = "cont",
        [MACHINE_QUIT] = "quit",
    };
    struct qemu_machine *machine = of(base);
    if (!machine->qmp || machine->gone)
        return;
    struct order *given = g_new(struct order, 1);
    *given = (struct order){.machine = machine, .refused = refused, .opaque = opaque};
    qmp_execute(machine->qmp, commands[which], NULL, -1, on_answer, given);
}

/* ---- NICs ---- */

static bool connect_nic(struct machine *base, unsigned nic, struct machine_nic *out, GError **error)
{
    return nics_connect(of(base)->config.dir, nic, out, error);
}

static void mirror_frames(struct machine *base)
{
    nics_mirrors_switch_on(&of(base)->mirrors);
}

/* ---- takeover ---- */

static void on_taken_over(bool ok, const char *message, uint64_t elapsed_us, void *opaque)
{
    struct qemu_machine *machine = opaque;
    g_autofree char *words = words_make_readable(message, WORDS_PATH_MAX);
    const struct machine_takeover result = {
        .ok = ok, .state = qemu_event_state(message), .words = words, .elapsed_us = elapsed_us};
    machine->takeover = NULL;
    machine->observer->taken_over(machine->opaque, &result);
}

static bool take_over(struct machine *base, const struct machine_image *image, GError **error)
{
    struct qemu_machine *machine = of(base);
    machine->takeover =
        standby_takeover(machine->hv, image->used_len, image->nblocks, machine->qmp, image->devstate,
                         image->devstate_len, image->limit_ms, on_taken_over, machine, error);
    return machine->takeover != NULL;
}

/* ---- trials ---- */

struct qemu_trial {
    struct machine_trial base;
    struct trial_load_config config;
    struct trial_load *load;
};

static struct machine_trial *trial_new(const struct machine *base, const char *const *argv,
                                       const struct trial_source *source, GError **error)
{
    const struct qemu_machine *machine = of_const(base);
    struct qemu_trial *trial = g_new0(struct qemu_trial, 1);
    trial->config = (struct trial_load_config){
        .argv = argv,
        .hook_path = machine->config.hook_path,
        .vm_name = machine->config.vm_name,
        .dir = machine->config.dir,
        .ram_len = machine->config.ram_len,
        .ram_fd = machine->fds.ram,
        .source = *source,
    };
    trial->load = trial_load_new(&trial->config, error);
    if (trial->load)
        return &trial->base;
    g_free(trial);
    return NULL;
}

static void trial_run(struct machine_trial *base, struct trial_report *report)
{
    trial_load_run(((struct qemu_trial *)base)->load, report);
}

static void trial_cancel(struct machine_trial *base)
{
    trial_load_cancel(((struct qemu_trial *)base)->load);
}

static void trial_free(struct machine_trial *base)
{
    struct qemu_trial *trial = (struct qemu_trial *)base;
    trial_load_free(trial->load);
    g_free(trial);
}

const struct machine_ops machine_ops_qemu = {
    .programs = qemu_programs,
    .start = start,
    .free = free_machine,
    .hypervisor = hypervisor_of,
    .pid = pid_of,
    .order = order,
    .kill = kill_it,
    .connect_nic = connect_nic,
    .mirror_frames = mirror_frames,
    .take_over = take_over,
    .trial_new = trial_new,
    .trial_run = trial_run,
    .trial_cancel = trial_cancel,
    .trial_free = trial_free,
};
