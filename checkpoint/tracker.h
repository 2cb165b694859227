/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where dirty bits come from. Two trackers behind one interface: QEMU's own migration log, harvested by the
 * hook into the shared bitmaps, and userfaultfd's asynchronous write protection, scanned from outside. Either
 * way the bits end in the dirty map. One thread, the capture thread.
 *
 * Write protection does not see what a device writes to a page that was pinned before it was protected. QEMU
 * has nothing in flight while the guest is paused, so a harvest in the pause is exact; a harvest beside the
 * running guest is so only if no disk is read with O_DIRECT (cache=none) and no device is passed through.
 * QEMU's log has no such limit: it is the default, and userfaultfd the fallback.
 */
#ifndef UNDERSTUDY_CHECKPOINT_TRACKER_H
#define UNDERSTUDY_CHECKPOINT_TRACKER_H

#include "checkpoint/dirty_map.h"
#include "hv-hooks/hypervisor.h"

struct tracker;

/* 0 or -errno. The hypervisor's process must be known for HV_TRACKER_UFFD. */
int tracker_open(struct tracker **out, struct hypervisor *hv, enum hv_tracker kind);
void tracker_close(struct tracker *tracker);
int tracker_start(struct tracker *tracker);
int tracker_stop(struct tracker *tracker);
/* Guest running: asks the hypervisor and moves what was dirtied into map. */
int tracker_harvest(struct tracker *tracker, struct dirty_map *map);
/* Guest paused by hypervisor_checkpoint_begin: moves the rest into map. No allocation, no lock. */
int tracker_take_in_pause(struct tracker *tracker, struct dirty_map *map);
/* NULL if this kernel can do HV_TRACKER_UFFD, else a sentence. */
const char *tracker_uffd_missing(void);

#endif
