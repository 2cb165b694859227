/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Output commit: the frames a guest sends wait here until the epoch that produced them is safe on the other
 * host (invariant I1). QEMU's filter-redirector hands every frame over on one socket; released frames go back
 * on another.
 *
 * Threads: gate_boundary is the capture thread's, in the pause; everything else is the control thread's (GLib
 * default context). Memory is bounded: when a NIC's hold is full its newest frames are dropped, as a switch's
 * full queue would do.
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

/* hold_len: bytes a NIC may hold. Passes everything until told to hold. */
struct output_gate *gate_new(uint32_t hold_len);
void gate_free(struct output_gate *gate);
/*
 * Takes over both fds, when it succeeds: out (QEMU to gate) and in (gate to QEMU). 0; -E2BIG; -ENOMEM: no
 * memory for what is held. Before the first boundary.
 */
int gate_add_nic(struct output_gate *gate, int out_fd, int in_fd);

void gate_pass_all(struct output_gate *gate); /* release what is held; from now on hold nothing */
void gate_hold(struct output_gate *gate);     /* from now on frames wait for gate_release */
void gate_drop(struct output_gate *gate);     /* throw away what is held and all that follows */
/* The peer holds the epoch: its frames, and all before, may go. */
void gate_release(struct output_gate *gate, uint64_t epoch);

/* Capture thread, guest paused: frames sent so far belong to epochs <= epoch. Does not block, lock or
 * allocate. */
void gate_boundary(struct output_gate *gate, uint64_t epoch);

void gate_get_stats(const struct output_gate *gate, struct gate_stats *out);
/* How long frames waited, microseconds. */
const struct histogram *gate_hold_us(const struct output_gate *gate);
void gate_reset_hold(struct output_gate *gate);

#endif
