/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The applier thread of a secondary: writes whole epochs to the standby's RAM image, in order, and gives
 * their staging room back. Staging's freeing side on the secondary.
 */
#ifndef UNDERSTUDY_REPLICATOR_APPLIER_H
#define UNDERSTUDY_REPLICATOR_APPLIER_H

#include "checkpoint/image.h"
#include "checkpoint/staging.h"
#include "replicator/mailbox.h"

struct applier;

struct applier *applier_new(struct image *image, struct staging *staging, struct mailbox *control);
/* Works off what was posted, then ends the thread. */
void applier_free(struct applier *applier);
/* Applies and frees; posts NOTE_EPOCH_APPLIED (or NOTE_BATCH_APPLIED) to control. */
void applier_post(struct applier *applier, struct staged_epoch *epoch);
/* Only frees. */
void applier_post_discard(struct applier *applier, struct staged_epoch *epoch);
/* Empties the image, after everything posted before. */
void applier_post_discard_image(struct applier *applier);

#endif
