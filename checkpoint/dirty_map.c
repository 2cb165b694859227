/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The carry-over bitmaps as arrays of 64-bit words, one for each RAM block. Bits arrive by atomic exchange
 * from the hypervisor's shared bitmaps, so that a bit set meanwhile is seen the next time; bits beyond a
 * block's used length are dropped. The counter of set bits is kept with each change.
 */
#include "checkpoint/dirty_map.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int dirty_map_open(struct dirty_map *map, const struct hypervisor *hv)
{
    memset(map, 0, sizeof *map);
    map->nblocks = hypervisor_nblocks(hv);
    for (unsigned i = 0; i < map->nblocks; i++) {
        struct dirty_block *block = &map->blocks[i];
        block->nwords = (hypervisor_block(hv, i)->max_len / HV_PAGE_LEN + 63) / 64;
        block->words = aligned_alloc(64, (block->nwords * 8 + 63) / 64 * 64);
        if (!block->words) {
            dirty_map_close(map);
            return -ENOMEM;
        }
        memset(block->words, 0, block->nwords * 8);
        block->npages = (hypervisor_block(hv, i)->used_len + HV_PAGE_LEN - 1) / HV_PAGE_LEN;
    }
    return 0;
}

void dirty_map_close(struct dirty_map *map)
{
    for (unsigned i = 0; i < map->nblocks; i++)
        free(map->blocks[i].words);
    memset(map, 0, sizeof *map);
}

/* Returns the bits of word w that stand for pages of the block. */
static uint64_t valid_bits(const struct dirty_block *block, uint64_t w)
{
    uint64_t first = w * 64;
    if (first >= block->npages)
        return 0;
    uint64_t left = block->npages - first;
    return left >= 64 ? UINT64_MAX : (1ull << left) - 1;
}

void dirty_map_set_all(struct dirty_map *map)
{
    map->count = 0;
    for (unsigned i = 0; i < map->nblocks; i++) {
        struct dirty_block *block = &map->blocks[i];
        for (uint64_t w = 0; w < block->nwords; w++)
            block->words[w] = valid_bits(block, w);
        map->count += block->npages;
    }
}

void dirty_map_clear_all(struct dirty_map *map)
{
    for (unsigned i = 0; i < map->nblocks; i++)
        memset(map->blocks[i].words, 0, map->blocks[i].nwords * 8);
    map->count = 0;
}

uint64_t dirty_map_take(struct dirty_map *map, const struct hypervisor *hv)
{
    uint64_t arrived = 0;
    for (unsigned i = 0; i < map->nblocks; i++) {
        struct dirty_block *block = &map->blocks[i];
        const struct hv_block *source = hypervisor_block(hv, i);
        block->npages = (source->used_len + HV_PAGE_LEN - 1) / HV_PAGE_LEN;
        for (uint64_t w = 0; w < block->nwords; w++) {
            /* A plain read first: most words are zero, and an exchange takes the cache line. */
            if (atomic_load_explicit(&source->bitmap[w], memory_order_relaxed) == 0)
                continue;
            uint64_t bits =
                atomic_exchange_explicit(&source->bitmap[w], 0, memory_order_acquire) & valid_bits(block, w);
            arrived += (uint64_t)__builtin_popcountll(bits & ~block->words[w]);
            block->words[w] |= bits;
        }
    }
    map->count += arrived;
    return arrived;
}

bool dirty_map_set(struct dirty_map *map, unsigned i, uint64_t page)
{
    if (i >= map->nblocks || page >= map->blocks[i].npages)
        return false;
    uint64_t bit = 1ull << (page % 64);
    if (!(map->blocks[i].words[page / 64] & bit)) {
        map->blocks[i].words[page / 64] |= bit;
        map->count++;
    }
    return true;
}
