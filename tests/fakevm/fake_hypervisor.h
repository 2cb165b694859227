/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A hypervisor made of memory: implements the whole of hv-hooks/hypervisor.h, with a guest that any thread
 * may play; fake_machine.h is the other half. It keeps the promises that QEMU with the hook keeps, and no
 * others:
 *
 *   - guest_write marks the page in the log and stores, as one step that a harvest or a pause cannot split;
 *   - main RAM is seen directly, aux blocks through a mirror that only a harvest brings up to date;
 *   - a harvest moves the log into the shared bitmaps (OR) and clears it; the engine takes the bits when it
 * likes;
 *   - the guest stands still from checkpoint_begin until copied or abort; at that moment its RAM is
 * photographed.
 */
#ifndef UNDERSTUDY_TESTS_FAKEVM_FAKE_HYPERVISOR_H
#define UNDERSTUDY_TESTS_FAKEVM_FAKE_HYPERVISOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hv-hooks/hypervisor.h"

#define FAKE_MAIN 0u /* index of the main RAM block */
#define FAKE_AUX  1u /* index of the aux block */

/* main_pages of RAM in a memfd, aux_pages of video memory. Aborts when memory is short: a test has nothing to
 * add. */
struct hypervisor *fake_hypervisor_new(uint64_t main_pages, uint64_t aux_pages);
void fake_hypervisor_free(struct hypervisor *hv);

/* The guest stores value over a whole page. Any thread; waits while the guest is paused. */
void guest_write(struct hypervisor *hv, unsigned block, uint64_t page, uint64_t value);
/* Between two stores of a guest thread: gives way to whoever wants the guest to stand still. */
void guest_yield(struct hypervisor *hv);

/* What a checkpoint does besides the usual. Each counts down to 0, one a checkpoint. */
void fake_expire(struct hypervisor *hv,
                 unsigned checkpoints); /* the deadline wins; the guest runs during the copy */
void fake_fail_finish(struct hypervisor *hv,
                      unsigned checkpoints); /* -EIO: the device state could not be saved */
void fake_change_blocks(struct hypervisor *hv, unsigned checkpoints); /* blocks_changed */
void fake_resize_aux(struct hypervisor *hv, uint64_t used_len);       /* at the next harvest */
void fake_fail_discard(struct hypervisor *hv, bool fail);
void fake_set_pid(struct hypervisor *hv, pid_t pid, uint64_t host_addr);
/* Called in checkpoint_begin once the guest stands still. */
void fake_in_pause(struct hypervisor *hv, void (*function)(void *opaque), void *opaque);

/* RAM of a block as it was when the guest last stood still in a checkpoint. */
const uint8_t *fake_photograph(const struct hypervisor *hv, unsigned block);
/* The guest's own bytes (not the mirror). */
const uint8_t *fake_guest_bytes(const struct hypervisor *hv, unsigned block);
/* Sets bits in the shared bitmap as a hostile hypervisor would. */
void fake_set_bitmap_word(struct hypervisor *hv, unsigned block, uint64_t word, uint64_t bits);
/* Bytes of main RAM that the kernel has given pages. */
uint64_t fake_resident_bytes(const struct hypervisor *hv);
unsigned fake_checkpoints_begun(const struct hypervisor *hv);
unsigned fake_tracks_begun(const struct hypervisor *hv);
/* From now on a harvest hangs until it is interrupted, as with a QEMU that stands still. Any thread. */
void fake_stand_still(struct hypervisor *hv, bool still);
/* Whether one hangs. */
bool fake_is_waited_for(struct hypervisor *hv);
/* What hypervisor_advance_clock has added. */
uint64_t fake_clock_advanced_ns(const struct hypervisor *hv);

#endif
