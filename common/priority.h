/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Priorities on a busy host. Without them the longest pauses are other programs' time: each of the four
 * hand-overs between QEMU's main loop, its virtual processors and the capture thread may wait for a
 * scheduler tick (measured: docs/benchmarks.md). Everything that a guest waits for must have the same
 * niceness, its disk servers too: otherwise they wait for the guest.
 */
#ifndef UNDERSTUDY_REPLICATOR_PRIORITY_H
#define UNDERSTUDY_REPLICATOR_PRIORITY_H

#include <sys/types.h>

/*
 * Gives the calling thread real-time priority. It sends and judges heartbeats, so it must run on time
 * whatever else the host does. Threads that are made later do not inherit it. If that is not allowed,
 * nothing changes.
 */
void priority_take_real_time(void);

/*
 * Gives this niceness to every thread that a process has now, and so to those that these make. Threads with
 * real-time priority, or with a niceness of their own, are left alone. Returns how many changed.
 */
unsigned priority_set_nice(pid_t pid, int nice);

#endif
