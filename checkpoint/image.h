/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The standby's image: guest RAM in the standby hypervisor's memory, and the newest device state. An epoch is
 * checked as a whole before it is acked, and written as a whole, in order (invariant I2).
 *
 * Threads: image_check is the control thread's, image_apply and image_discard the applier's; the getters are
 * for the control thread once the applier is idle, or for a thread that has parked it.
 */
#ifndef UNDERSTUDY_CHECKPOINT_IMAGE_H
#define UNDERSTUDY_CHECKPOINT_IMAGE_H

#include <stddef.h>
#include <stdint.h>

#include "checkpoint/staging.h"
#include "hv-hooks/hypervisor.h"

struct image;

/* Makes an image in the memory of hv, which outlives it. devstate_capacity: bytes of the longest device
 * state. Returns 0 or -ENOMEM. */
int image_new(struct image **out, struct hypervisor *hv, size_t devstate_capacity);
/* Frees the image; the hypervisor's memory stays. NULL is allowed. */
void image_free(struct image *image);
/* Checks that this VM has every page that the epoch names. Changes nothing. Returns 0 or -EPROTO. */
int image_check(const struct image *image, const struct staged_epoch *epoch);
/* Writes the epoch (or pre-copy batch) to the image. Returns 0; -EPROTO leaves the image unchanged. */
int image_apply(struct image *image, const struct staging *staging, const struct staged_epoch *epoch);
/*
 * Makes main RAM all zero, before a new first synchronisation. Returns 0, or -errno if the memory could not
 * be returned to the kernel; even then it is all zero.
 */
int image_discard(struct image *image);

/*
 * Marks the image as being at no whole epoch, until the next epoch is applied. Main RAM is kept: the changes
 * of a resynchronisation are written over it.
 */
void image_keep(struct image *image);

/* Returns the number of the newest epoch that was applied; 0: none. */
uint64_t image_epoch(const struct image *image);
/* Returns the newest device state (*len bytes), which stays the image's. */
const uint8_t *image_devstate(const struct image *image, size_t *len);
/* Returns the used length of each of the *nblocks RAM blocks, in bytes; the array stays the image's. */
const uint64_t *image_used_len(const struct image *image, unsigned *nblocks);
/*
 * Copies the blocks outside main RAM into another hypervisor's that has this image's main RAM. Writes only
 * pages that differ. Returns 0, or -EINVAL if its blocks differ from these: *which names the first one.
 */
int image_copy_aux(const struct image *image, struct hypervisor *to, const char **which);
/* Returns when the newest epoch was received completely (CLOCK_MONOTONIC of this host). */
uint64_t image_received_ns(const struct image *image);

#endif
