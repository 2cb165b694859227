/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The trial of a standby: before its VM counts as protected, a throw-away QEMU loads the first whole image's
 * device state (hv-hooks/machine_trial.h). Epochs go on being received and acked meanwhile; the applier
 * stands still for the milliseconds of the load itself. Once for each standby whose QEMU is not the
 * primary's.
 *
 * A thread of its own; NOTE_TRIED tells the control thread, to which the functions belong.
 */
#ifndef UNDERSTUDY_REPLICATOR_TRIAL_H
#define UNDERSTUDY_REPLICATOR_TRIAL_H

#include "checkpoint/image.h"
#include "common/mailbox.h"
#include "hv-hooks/machine_trial.h"
#include "replicator/pipeline/applier.h"

struct trial;

/* What it points at stays the caller's until trial_end. */
struct trial_config {
    struct machine *machine; /* the standby's */
    const char *const *argv; /* line_build_trial's */
    struct image *image;
    struct applier *applier;
    struct mailbox *control; /* gets one NOTE_TRIED */
};

/* NULL and error: no memory, or no thread; no NOTE_TRIED comes. */
struct trial *trial_begin(const struct trial_config *config, GError **error);
/* Nobody wants to know any more: it ends soon and lets the applier go on at once, UNDECIDED. Does not block.
 */
void trial_cancel(struct trial *trial);
/* Frees it. After NOTE_TRIED; before that it waits for the end. */
void trial_end(struct trial *trial);

#endif
