/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The applier thread: takes epochs and batches in order and writes them to the standby's memory image and
 * disks, so that neither the control thread nor the link waits for memory or disk.
 *
 * Disks, if any: an epoch's writes go to the journal as a whole before anything is applied; with durable acks
 * they are on stable storage then, and NOTE_EPOCH_JOURNALLED says that the epoch may be acked. A batch of a
 * synchronisation goes to the images directly; the first epoch after it makes them whole.
 */
#ifndef UNDERSTUDY_REPLICATOR_APPLIER_H
#define UNDERSTUDY_REPLICATOR_APPLIER_H

#include <stdbool.h>

#include "checkpoint/image.h"
#include "checkpoint/staging.h"
#include "common/mailbox.h"
#include "replicator/disk/disks.h"

struct applier;

/* disks may be NULL. durable_acks: see above. Posts NOTE_EPOCH_APPLIED and NOTE_BATCH_APPLIED to control,
 * with the link they came by. */
/* NULL and errno: there are no descriptors or no threads left. */
struct applier *applier_new(struct image *image, struct disks *disks, bool durable_acks,
                            struct staging *staging, struct mailbox *control);
/* Applies what was posted, then ends the thread. */
void applier_free(struct applier *applier);
/* A whole epoch, or a pre-copy batch. Frees the staged epoch afterwards. */
void applier_post(struct applier *applier, struct staged_epoch *epoch, uint64_t term, uint64_t link);
/* Frees the staged epoch without applying it; staging is freed in order, so this goes the same way. */
void applier_post_discard(struct applier *applier, struct staged_epoch *epoch);
/* Empties the image: a new first synchronisation follows. The disks keep what they have; it differs little.
 */
void applier_post_discard_image(struct applier *applier);
/* The image is no whole epoch any more until one follows, but it stays: what it lacks comes in batches. */
void applier_post_keep_image(struct applier *applier);
/* From now on this disk's map is one of that pair. False, as below: more of the peer's words wait than is
 * right. */
bool applier_post_pair(struct applier *applier, unsigned disk, const uint8_t *pair_id, size_t len);
/* A shared disk's image has its writes up to this epoch. */
bool applier_post_flushed(struct applier *applier, unsigned disk, uint64_t epoch);
/* After all epochs: the guest is about to run here. NOTE_STANDBY_ENDED answers. */
void applier_post_end_standby(struct applier *applier, bool sync_disks);

/*
 * The image and the disks stand still, at whatever the applier has come to, until applier_unpark: for a
 * thread that reads them. What was posted before is in them. What is posted meanwhile waits, as long as
 * staging has room. Blocks for timeout_ms at most, not on the applier's thread. False: it came to nothing,
 * and nothing is parked. One thread at a time.
 */
bool applier_park(struct applier *applier, unsigned timeout_ms);
/* By the thread that parked it. */
void applier_unpark(struct applier *applier);
/* An applier_park that still waits returns false. Any thread; does not block. */
void applier_cancel_park(struct applier *applier);

#endif
