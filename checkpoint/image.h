/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The standby's image: guest RAM in the standby hypervisor's memory and the newest device state. Epochs are
 * checked whole before they are acked and written whole, in order (invariant I2).
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

int image_new(struct image **out, struct hypervisor *hv, size_t devstate_capacity);
void image_free(struct image *image);
/*
 * Checks that every page of the epoch is one that this VM has, and named correctly. 0 or -EPROTO. Changes
 * nothing.
 */
int image_check(const struct image *image, const struct staged_epoch *epoch);
/* Writes the epoch (or pre-copy batch) to the image. -EPROTO leaves the image unchanged. */
int image_apply(struct image *image, const struct staging *staging, const struct staged_epoch *epoch);
/*
 * Makes main RAM all zero: a new first synchronisation follows. -errno: the memory could not be returned to
 * the kernel; it is all zero nonetheless.
 */
int image_discard(struct image *image);

/*
 * Marks the image as no whole epoch, until the next epoch is applied. Main RAM stays: later changes are
 * written over it.
 */
void image_keep(struct image *image);

uint64_t image_epoch(const struct image *image); /* newest applied, 0: none */
const uint8_t *image_devstate(const struct image *image, size_t *len);
const uint64_t *image_used_len(const struct image *image, unsigned *nblocks);
/*
 * Writes the blocks outside main RAM into those of another hypervisor that has this image's main RAM, pages
 * that differ only. -EINVAL: its blocks are not these; *which is the first that differs.
 */
int image_copy_aux(const struct image *image, struct hypervisor *to, const char **which);
uint64_t image_received_ns(const struct image *image); /* when the newest epoch was whole here */

#endif
