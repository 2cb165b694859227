/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a hypervisor provides so that its machines can be used (machine.h and machine_trial.h say what each
 * function means). It has a struct machine_ops, declared here, and a place in machine_hypervisors
 * (machine_table.c).
 */
#ifndef UNDERSTUDY_HV_HOOKS_MACHINE_OPS_H
#define UNDERSTUDY_HV_HOOKS_MACHINE_OPS_H

#include "hv-hooks/machine_trial.h"

/* The beginning of a hypervisor's own structs. machine.c fills it. */
struct machine {
    const struct machine_ops *ops;
};
struct machine_trial {
    const struct machine_ops *ops;
};

struct machine_ops {
    const char *const *programs; /* as struct line_ops has them */

    /* Calls nothing of the observer before it returns. */
    struct machine *(*start)(const struct machine_config *config, const struct machine_observer *observer,
                             void *opaque, GError **error);
    void (*free)(struct machine *machine); /* never NULL */
    struct hypervisor *(*hypervisor)(struct machine *machine);
    pid_t (*pid)(const struct machine *machine);
    void (*order)(struct machine *machine, enum machine_order order, machine_refused refused, void *opaque);
    void (*kill)(struct machine *machine);
    bool (*connect_nic)(struct machine *machine, unsigned nic, struct machine_nic *out, GError **error);
    void (*mirror_frames)(struct machine *machine);
    bool (*take_over)(struct machine *machine, const struct machine_image *image, GError **error);

    struct machine_trial *(*trial_new)(const struct machine *machine, const char *const *argv,
                                       const struct trial_source *source, GError **error);
    void (*trial_run)(struct machine_trial *trial, struct trial_report *report);
    void (*trial_cancel)(struct machine_trial *trial);
    void (*trial_free)(struct machine_trial *trial); /* never NULL */
};

extern const struct machine_ops machine_ops_qemu; /* hv-hooks/qemu/machine.c */

/* NULL at the end. The first one also takes each program that no other one claims, as in line_hypervisors. */
extern const struct machine_ops *const machine_hypervisors[];

#endif
