/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See fake_machine.h. */
#include "tests/fakevm/fake_machine.h"

#include <gio/gio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/fakevm/fake_hypervisor.h"

#define OTHER_PAGES 4u
#define TAKEOVER_US 1500u

struct fake_machine_faults fake_machine_faults;
unsigned fake_machines_freed, fake_machines_freed_alive;

struct fake_machine *fake_machine_of(struct machine *machine)
{
    return (struct fake_machine *)machine;
}

/* False, with error, if there is a fault. */
static bool goes_well(const char *fault, GError **error)
{
    if (fault)
        g_set_error_literal(error, G_IO_ERROR, G_IO_ERROR_FAILED, fault);
    return fault == NULL;
}

static struct machine *start(const struct machine_config *config, const struct machine_observer *observer,
                             void *opaque, GError **error)
{
    if (!goes_well(fake_machine_faults.start, error))
        return NULL;
    g_assert(observer->ready && observer->failed && observer->ended && observer->trouble &&
             observer->run_event && observer->was_reset && observer->disk_error && observer->resumed &&
             observer->taken_over);
    struct fake_machine *machine = g_new0(struct fake_machine, 1);
    machine->config = *config;
    machine->observer = observer;
    machine->opaque = opaque;
    machine->hv = fake_hypervisor_new(config->ram_len / HV_PAGE_LEN, OTHER_PAGES);
    return &machine->base;
}

static void free_machine(struct machine *base)
{
    struct fake_machine *machine = fake_machine_of(base);
    fake_machines_freed++;
    fake_machines_freed_alive += !machine->gone;
    for (unsigned i = 0; i < machine->nnics; i++) {
        const struct machine_nic *ends = &machine->ends[i];
        close(ends->out);
        close(ends->in);
        close(ends->mirror);
        close(ends->inject);
    }
    fake_hypervisor_free(machine->hv);
    g_free(machine);
}

static struct hypervisor *hypervisor_of(struct machine *base)
{
    return fake_machine_of(base)->hv;
}

static pid_t pid_of(const struct machine *base)
{
    return ((const struct fake_machine *)base)->gone ? 0 : FAKE_MACHINE_PID;
}

static void take_order(struct machine *base, enum machine_order order, machine_refused refused, void *opaque)
{
    struct fake_machine *machine = fake_machine_of(base);
    if (!machine->ready || machine->gone)
        return;
    g_assert(machine->norders < FAKE_MACHINE_ORDERS);
    machine->orders[machine->norders++] = order;
    machine->refused = refused;
    machine->refused_opaque = opaque;
}

static void kill_it(struct machine *base)
{
    struct fake_machine *machine = fake_machine_of(base);
    machine->was_killed |= !machine->gone;
}

static void pair(int *user, int *machine)
{
    int ends[2];
    g_assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0);
    *user = ends[0];
    *machine = ends[1];
}

static bool connect_nic(struct machine *base, unsigned nic, struct machine_nic *out, GError **error)
{
    struct fake_machine *machine = fake_machine_of(base);
    g_assert(machine->ready && nic == machine->nnics && nic < machine->config.nnics &&
             nic < FAKE_MACHINE_NICS);
    if (!goes_well(fake_machine_faults.connect_nic, error))
        return false;
    struct machine_nic *ends = &machine->ends[machine->nnics++];
    pair(&out->out, &ends->out);
    pair(&out->in, &ends->in);
    pair(&out->mirror, &ends->mirror);
    pair(&out->inject, &ends->inject);
    return true;
}

static void mirror_frames(struct machine *base)
{
    struct fake_machine *machine = fake_machine_of(base);
    g_assert(machine->nnics == machine->config.nnics);
    machine->mirrors = true;
}

static bool take_over(struct machine *base, const struct machine_image *image, GError **error)
{
    struct fake_machine *machine = fake_machine_of(base);
    g_assert(machine->ready && !machine->taking_over);
    if (!goes_well(fake_machine_faults.take_over, error))
        return false;
    machine->taking_over = true;
    machine->image = *image;
    return true;
}

/* ---- trials ---- */

struct fake_trial {
    struct machine_trial base;
    const struct trial_source *source;
    struct hypervisor *hv;
    _Atomic bool cancelled;
};

static struct machine_trial *trial_new(const struct machine *base, const char *const *argv,
                                       const struct trial_source *source, GError **error)
{
    const struct fake_machine *machine = (const struct fake_machine *)base;
    (void)error;
    g_assert(machine->ready && argv[0]);
    struct fake_trial *trial = g_new0(struct fake_trial, 1);
    trial->source = source;
    trial->hv = fake_hypervisor_new(machine->config.ram_len / HV_PAGE_LEN, OTHER_PAGES);
    return &trial->base;
}

static enum trial_verdict try(struct fake_trial *trial, char **why)
{
    const struct trial_source *source = trial->source;
    struct machine_image image = {0};
    if (trial->cancelled)
        return TRIAL_UNDECIDED;
    if (!source->hold(trial->hv, &image, why, source->opaque))
        return *why ? TRIAL_FAILED : TRIAL_UNDECIDED;
    source->let_go(source->opaque);
    *why = g_strdup(fake_machine_faults.trial);
    return *why ? TRIAL_FAILED : TRIAL_LOADED;
}

static void trial_run(struct machine_trial *base, struct trial_report *report)
{
    char *why = NULL;
    enum trial_verdict verdict = try((struct fake_trial *)base, &why);
    *report = (struct trial_report){
        .verdict = verdict, .load_us = TAKEOVER_US, .total_us = TAKEOVER_US, .why = why};
}

static void trial_cancel(struct machine_trial *base)
{
    ((struct fake_trial *)base)->cancelled = true;
}

static void trial_free(struct machine_trial *base)
{
    struct fake_trial *trial = (struct fake_trial *)base;
    fake_hypervisor_free(trial->hv);
    g_free(trial);
}

static const char *const programs[] = {"fakevm*", NULL};

const struct machine_ops machine_ops_fakevm = {
    .programs = programs,
    .start = start,
    .free = free_machine,
    .hypervisor = hypervisor_of,
    .pid = pid_of,
    .order = take_order,
    .kill = kill_it,
    .connect_nic = connect_nic,
    .mirror_frames = mirror_frames,
    .take_over = take_over,
    .trial_new = trial_new,
    .trial_run = trial_run,
    .trial_cancel = trial_cancel,
    .trial_free = trial_free,
};

/* ---- what becomes of it ---- */

void fake_machine_get_ready(struct fake_machine *machine)
{
    machine->ready = true;
    hypervisor_list_blocks(machine->hv);
    machine->observer->ready(machine->opaque);
}

void fake_machine_fail(struct fake_machine *machine, const char *why)
{
    machine->observer->failed(machine->opaque, why);
    kill_it(&machine->base);
}

void fake_machine_end(struct fake_machine *machine, const char *why)
{
    machine->gone = true;
    machine->observer->ended(machine->opaque, why);
}

void fake_machine_refuse(struct fake_machine *machine, const char *why)
{
    if (machine->refused)
        machine->refused(machine->refused_opaque, why);
    machine->refused = NULL;
}

static void end_takeover(struct fake_machine *machine, const struct machine_takeover *result)
{
    g_assert(machine->taking_over);
    machine->observer->taken_over(machine->opaque, result);
}

void fake_machine_arrive(struct fake_machine *machine, enum machine_state state, const char *words)
{
    const struct machine_takeover result = {
        .ok = true, .state = state, .words = words, .elapsed_us = TAKEOVER_US};
    end_takeover(machine, &result);
}

void fake_machine_fail_takeover(struct fake_machine *machine, const char *why)
{
    const struct machine_takeover result = {.words = why, .elapsed_us = TAKEOVER_US};
    end_takeover(machine, &result);
}
