/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Finds dirty pages and moves their bits into the dirty map. There are two trackers behind one interface:
 * QEMU's own migration log, which the hook harvests into the shared bitmaps, and userfaultfd's asynchronous
 * write protection, which is scanned from outside. One thread, the capture thread.
 *
 * Write protection does not see what a device writes to a page that was pinned before it was protected. While
 * the guest is paused, QEMU has no request in flight, so a harvest in the pause is exact. A harvest while the
 * guest runs is exact only if no disk is read with O_DIRECT (cache=none) and no device is passed through.
 * QEMU's log has no such limit: it is the default.
 */
#ifndef UNDERSTUDY_CHECKPOINT_TRACKER_H
#define UNDERSTUDY_CHECKPOINT_TRACKER_H

#include "checkpoint/dirty_map.h"
#include "hv-hooks/hypervisor.h"

struct tracker;

/* Makes a tracker for hv, which outlives it. For HV_TRACKER_UFFD, hypervisor_pid(hv) must be known. Returns 0
 * or -errno. */
int tracker_open(struct tracker **out, struct hypervisor *hv, enum hv_tracker kind);
/* Frees the tracker; does not stop tracking. NULL is allowed. */
void tracker_close(struct tracker *tracker);
/* Starts tracking. Returns 0 or -errno. */
int tracker_start(struct tracker *tracker);
/* Stops tracking. Returns 0 or -errno. */
int tracker_stop(struct tracker *tracker);
/* While the guest runs: asks the hypervisor for dirty pages and moves their bits into map. Returns 0 or
 * -errno. */
int tracker_harvest(struct tracker *tracker, struct dirty_map *map);
/* In the pause, after hypervisor_checkpoint_begin: moves the remaining bits into map. No allocation, no lock.
 * Returns 0 or -errno. */
int tracker_take_in_pause(struct tracker *tracker, struct dirty_map *map);
/* Returns NULL if this kernel supports HV_TRACKER_UFFD, else a static sentence that says what is missing. */
const char *tracker_uffd_missing(void);

#endif
