/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The carry-over bitmaps: for each RAM block, the pages that must still reach staging. Bits come from the
 * hypervisor's shared bitmaps and leave only once the page is in a staging slot (invariant I3). One thread.
 */
#ifndef UNDERSTUDY_CHECKPOINT_DIRTY_MAP_H
#define UNDERSTUDY_CHECKPOINT_DIRTY_MAP_H

#include <stdbool.h>
#include <stdint.h>

#include "hv-hooks/hypervisor.h"

struct dirty_block {
    uint64_t *words;
    uint64_t nwords;
    uint64_t npages; /* used pages */
};

struct dirty_map {
    struct dirty_block blocks[HV_MAX_BLOCKS];
    unsigned nblocks;
    uint64_t count; /* bits set */
};

/* For the hypervisor's present blocks. 0 or -ENOMEM. */
int dirty_map_open(struct dirty_map *map, const struct hypervisor *hv);
void dirty_map_close(struct dirty_map *map);
void dirty_map_set_all(struct dirty_map *map);
void dirty_map_clear_all(struct dirty_map *map);
/* Moves the hypervisor's bits here. Bits past a block's used length are dropped. Returns how many arrived. */
uint64_t dirty_map_take(struct dirty_map *map, const struct hypervisor *hv);
bool dirty_map_set(struct dirty_map *map, unsigned block, uint64_t page);

#endif
