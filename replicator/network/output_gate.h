/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Output commit: holds the frames that a guest sends until the epoch that produced them is safe on the other
 * host (invariant I1). QEMU's filter-redirector passes every frame to the gate by one socket; released frames
 * go back to QEMU by another.
 *
 * Threads: gate_boundary is the capture thread's, in the pause; everything else is the control thread's
 * (GLib's default context). Memory is bounded: when a NIC's buffer is full, its newest frames are dropped, as
 * in a switch with a full queue.
 */
#ifndef UNDERSTUDY_REPLICATOR_OUTPUT_GATE_H
#define UNDERSTUDY_REPLICATOR_OUTPUT_GATE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/histogram.h"

#define GATE_MAX_NICS 16u

struct output_gate;

struct gate_stats {
    uint64_t frames_released, frames_dropped, bytes_released, bytes_held;
};

/* Makes a gate without NICs, which passes everything until gate_hold. hold_len: bytes that are held at most
 * for each NIC. */
struct output_gate *gate_new(uint32_t hold_len);
/* Closes the sockets and frees the gate, with all held frames. */
void gate_free(struct output_gate *gate);
/*
 * Adds a NIC with its sockets: out (from QEMU) and in (to QEMU). Takes over both on success. Returns 0;
 * -E2BIG: too many NICs; -ENOMEM: no memory for its frames. To be called before the first boundary.
 */
int gate_add_nic(struct output_gate *gate, int out_fd, int in_fd);

/* Releases what is held, and holds nothing from now on. */
void gate_pass_all(struct output_gate *gate);
/* From now on, holds frames until gate_release. */
void gate_hold(struct output_gate *gate);
/* Drops what is held and all later frames. */
void gate_drop(struct output_gate *gate);
/* Releases the frames of this epoch and of all before it, because the peer holds the epoch. */
void gate_release(struct output_gate *gate, uint64_t epoch);

/* Marks the end of the epoch: frames sent so far belong to it or to earlier epochs. Does not block, lock or
 * allocate. Capture thread, with the guest paused. */
void gate_boundary(struct output_gate *gate, uint64_t epoch);

/* Sums up the figures of all NICs. */
void gate_get_stats(const struct output_gate *gate, struct gate_stats *out);
/* Returns how long frames waited, in microseconds. */
const struct histogram *gate_hold_us(const struct output_gate *gate);
/* Resets that histogram. */
void gate_reset_hold(struct output_gate *gate);

#endif
