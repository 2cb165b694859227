/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A trial load: a throw-away QEMU beside the standby's loads the VM's device state and shows that a takeover
 * here would work. It maps the standby's RAM image privately (copy on write), so it costs the pages that the
 * load itself writes, and nothing that it does reaches the image. It has no network and no disk of the VM's
 * (cmdline_build_trial makes its line), the guest in it never runs, and it ends with the trial, or with this
 * process.
 *
 * The image must not change while it is loaded: devices check their state against guest RAM.
 */
#ifndef UNDERSTUDY_HV_HOOKS_QEMU_TRIAL_LOAD_H
#define UNDERSTUDY_HV_HOOKS_QEMU_TRIAL_LOAD_H

#include "hv-hooks/machine_trial.h"

struct trial_load_config {
    const char *const *argv; /* cmdline_build_trial's */
    const char *hook_path;
    const char *vm_name;
    const char
        *dir; /* for its monitor and its output; nothing stays there. Those of one host are in one folder */
    uint64_t ram_len;
    int ram_fd; /* the image's memfd */
    struct trial_source source;
};

struct trial_load;

/* What config points at stays the caller's and must outlive the trial. NULL and error: no memory. */
struct trial_load *trial_load_new(const struct trial_load_config *config, GError **error);
/* Runs the trial; may be called once. Blocks until it is the trial's turn on this host, then for at most half
 * a minute and the time that hold takes. The calling thread must not iterate another main context meanwhile.
 */
void trial_load_run(struct trial_load *trial, struct trial_report *report);
/* Any thread, while the trial exists: run returns soon. Does not block. */
void trial_load_cancel(struct trial_load *trial);
void trial_load_free(struct trial_load *trial);

#endif
