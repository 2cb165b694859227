/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The applier thread: takes epochs and batches in order and writes them to the standby's memory image and
 * disks, so that neither the control thread nor the link waits for memory or disk.
 *
 * With disks, an epoch's writes go to the journal as a whole before any of them is applied. With durable acks
 * they are then on stable storage, and NOTE_EPOCH_JOURNALLED says that the epoch may be acked. A batch of a
 * synchronisation goes to the images directly; the images are whole after the next epoch.
 *
 * All functions are the control thread's, except those that say otherwise. Posting does not block.
 */
#ifndef UNDERSTUDY_REPLICATOR_APPLIER_H
#define UNDERSTUDY_REPLICATOR_APPLIER_H

#include <stdbool.h>

#include "checkpoint/image.h"
#include "checkpoint/staging.h"
#include "common/mailbox.h"
#include "replicator/disk/disks.h"

struct applier;

/* Starts the thread. disks may be NULL. durable_acks: see above. The thread posts NOTE_EPOCH_APPLIED and
 * NOTE_BATCH_APPLIED to control, with the link by which the epoch or batch came. NULL and errno: there are no
 * descriptors or no threads left. */
struct applier *applier_new(struct image *image, struct disks *disks, bool durable_acks,
                            struct staging *staging, struct mailbox *control);
/* Applies what was posted, then ends the thread. */
void applier_free(struct applier *applier);
/* Posts a whole epoch or a pre-copy batch. The applier frees the staged epoch. */
void applier_post(struct applier *applier, struct staged_epoch *epoch, uint64_t term, uint64_t link);
/* Posts a staged epoch that is freed and not applied. (Staging is freed in order, so only the applier frees.)
 */
void applier_post_discard(struct applier *applier, struct staged_epoch *epoch);
/* Empties the memory image, before a new first synchronisation. The disks keep what they have, since it
 * differs little. */
void applier_post_discard_image(struct applier *applier);
/* Marks the image as being at no whole epoch, and keeps it: batches bring what it lacks. */
void applier_post_keep_image(struct applier *applier);
/* Sets the pair id of a disk's map. False, here and below: too many messages of the peer wait. */
bool applier_post_pair(struct applier *applier, unsigned disk, const uint8_t *pair_id, size_t len);
/* Notes that a shared disk's image has all writes up to this epoch. */
bool applier_post_flushed(struct applier *applier, unsigned disk, uint64_t epoch);
/* Ends standing by after all posted epochs, because the guest is about to run here. NOTE_STANDBY_ENDED is the
 * answer. sync_disks: makes the images durable first. */
void applier_post_end_standby(struct applier *applier, bool sync_disks);

/*
 * Parks the applier, so that the calling thread can read the image and the disks until applier_unpark. What
 * was posted before has been applied. What is posted meanwhile waits, as long as staging has room. Blocks for
 * at most timeout_ms. False: the applier is not parked. Any thread but the applier's; one at a time.
 */
bool applier_park(struct applier *applier, unsigned timeout_ms);
/* Ends the park. To be called by the thread that parked the applier. */
void applier_unpark(struct applier *applier);
/* Makes an applier_park that still waits return false. Any thread; does not block. */
void applier_cancel_park(struct applier *applier);

#endif
