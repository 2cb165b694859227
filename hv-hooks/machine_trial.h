/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A trial: a throw-away machine beside a standby's loads the state of the guest's devices and shows that a
 * takeover here would work. It does not write the standby's memory, and its guest never runs.
 */
#ifndef UNDERSTUDY_HV_HOOKS_MACHINE_TRIAL_H
#define UNDERSTUDY_HV_HOOKS_MACHINE_TRIAL_H

#include "hv-hooks/machine.h"

/* Where the state comes from. Called on the thread that runs the trial. */
struct trial_source {
    /*
     * Holds the image still, writes its aux blocks into those of hv, and fills image, which is the source's
     * until it is let go. False: there is no whole image now, and nothing is held. *why may be set (GLib
     * string): then it is the trial's failure.
     */
    bool (*hold)(struct hypervisor *hv, struct machine_image *image, char **why, void *opaque);
    void (*let_go)(void *opaque);
    void *opaque;
};

enum trial_verdict {
    TRIAL_LOADED,
    TRIAL_FAILED,
    TRIAL_UNDECIDED, /* it was cancelled, or there was no whole image */
    TRIAL_NOT_BEGUN, /* this host lacks something now (memory, a process): no word about the machine */
};

struct trial_report {
    enum trial_verdict verdict;
    uint64_t load_us, total_us;
    char *why; /* TRIAL_FAILED: what the hypervisor said, TRIAL_NOT_BEGUN: what is lacking. Readable; GLib
                  string */
};

struct machine_trial;

/* argv is line_build_trial's. The machine, argv and source outlive the trial. NULL and error: no memory. */
struct machine_trial *machine_trial_new(const struct machine *machine, const char *const *argv,
                                        const struct trial_source *source, GError **error);
/* Runs the trial; may be called once, on any thread that iterates no other main context meanwhile. Blocks
 * until it is the trial's turn on this host, then for at most half a minute and the time that hold takes. */
void machine_trial_run(struct machine_trial *trial, struct trial_report *report);
/* Any thread, while the trial exists: run returns soon. Does not block. */
void machine_trial_cancel(struct machine_trial *trial);
void machine_trial_free(struct machine_trial *trial);

#endif
