/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The dirty map: for each RAM block, a bitmap of the pages that must still be copied into staging. Bits come
 * from the hypervisor's shared bitmaps and leave only once the page is in a staging slot (invariant I3). One
 * thread, the capture thread.
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

/* Makes an empty map for the hypervisor's present RAM blocks. Returns 0 or -ENOMEM. */
int dirty_map_open(struct dirty_map *map, const struct hypervisor *hv);
/* Frees the bitmaps; the struct stays the caller's. */
void dirty_map_close(struct dirty_map *map);
/* Sets the bits of all used pages. */
void dirty_map_set_all(struct dirty_map *map);
/* Clears all bits. */
void dirty_map_clear_all(struct dirty_map *map);
/* Moves the hypervisor's bits into the map. Drops bits past a block's used length. Returns the number of bits
 * that are newly set. */
uint64_t dirty_map_take(struct dirty_map *map, const struct hypervisor *hv);
/* Sets one page's bit. Returns false if there is no such page. */
bool dirty_map_set(struct dirty_map *map, unsigned block, uint64_t page);

#endif
