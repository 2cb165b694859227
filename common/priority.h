/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Who runs first where the host's processors are short. Without this the tail of the pause is other programs'
 * time: each of the four hand-overs between QEMU's main loop, its virtual processors and the capture thread
 * may wait for a scheduler tick (measured: docs/benchmarks.md). All that a guest waits for must have the same
 * niceness, its disks' servers too: else they wait for the guest.
 */
#ifndef UNDERSTUDY_REPLICATOR_PRIORITY_H
#define UNDERSTUDY_REPLICATOR_PRIORITY_H

#include <sys/types.h>

/*
 * The calling thread sends and judges signs of life: it must run when its time comes, whatever else the host
 * does. Real time, which threads made later do not inherit. Where that is not allowed, things stay as they
 * are.
 */
void priority_take_real_time(void);

/*
 * Gives every thread that a process has now, and those that these make, this niceness. Left alone: threads
 * with real-time priority, and those that somebody has given a niceness already. Returns how many changed.
 */
unsigned priority_set_nice(pid_t pid, int nice);

#endif
