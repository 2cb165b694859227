/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Chooses the hypervisor of a machine, and passes each call on to it. */
#include "hv-hooks/machine_ops.h"
#include "hv-hooks/program.h"

static const struct machine_ops *ops_of(const char *program)
{
    for (size_t i = 0; machine_hypervisors[i]; i++) {
        if (program_is_one_of(program, machine_hypervisors[i]->programs))
            return machine_hypervisors[i];
    }
    return machine_hypervisors[0];
}

struct machine *machine_start(const struct machine_config *config, const struct machine_observer *observer,
                              void *opaque, GError **error)
{
    const struct machine_ops *ops = ops_of(config->argv[0]);
    struct machine *machine = ops->start(config, observer, opaque, error);
    if (machine)
        machine->ops = ops;
    return machine;
}

void machine_free(struct machine *machine)
{
    if (machine)
        machine->ops->free(machine);
}

struct hypervisor *machine_hypervisor(struct machine *machine)
{
    return machine->ops->hypervisor(machine);
}

pid_t machine_pid(const struct machine *machine)
{
    return machine->ops->pid(machine);
}

void machine_order(struct machine *machine, enum machine_order order, machine_refused refused, void *opaque)
{
    machine->ops->order(machine, order, refused, opaque);
}

void machine_kill(struct machine *machine)
{
    machine->ops->kill(machine);
}

bool machine_connect_nic(struct machine *machine, unsigned nic, struct machine_nic *out, GError **error)
{
    return machine->ops->connect_nic(machine, nic, out, error);
}

void machine_mirror_frames(struct machine *machine)
{
    machine->ops->mirror_frames(machine);
}

bool machine_take_over(struct machine *machine, const struct machine_image *image, GError **error)
{
    return machine->ops->take_over(machine, image, error);
}

struct machine_trial *machine_trial_new(const struct machine *machine, const char *const *argv,
                                        const struct trial_source *source, GError **error)
{
    struct machine_trial *trial = machine->ops->trial_new(machine, argv, source, error);
    if (trial)
        trial->ops = machine->ops;
    return trial;
}

void machine_trial_run(struct machine_trial *trial, struct trial_report *report)
{
    trial->ops->trial_run(trial, report);
}

void machine_trial_cancel(struct machine_trial *trial)
{
    trial->ops->trial_cancel(trial);
}

void machine_trial_free(struct machine_trial *trial)
{
    if (trial)
        trial->ops->trial_free(trial);
}
