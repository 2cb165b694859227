/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Places a byte stream in whole ring pages behind the epoch's guest pages. The section may wrap at the
 * ring's end, so writing and reading are in at most two pieces.
 */
#include "checkpoint/disk/disk_section.h"

#include <errno.h>
#include <string.h>

int disk_section_reserve(struct staging *staging, struct staged_epoch *epoch, uint64_t len)
{
    uint64_t npages = staging_disk_pages(len);
    int64_t slot = npages < UINT32_MAX ? staging_reserve(staging, epoch, (uint32_t)npages) : -ENOSPC;
    static const uint8_t zeroes[STAGING_PAGE_LEN];
    if (slot < 0)
        return (int)slot;
    epoch->disk_slot = (uint32_t)slot;
    epoch->disk_len = len;
    disk_section_write(staging, epoch, len, zeroes, (size_t)(npages * STAGING_PAGE_LEN - len));
    return 0;
}

void disk_section_write(const struct staging *staging, const struct staged_epoch *epoch, uint64_t at,
                        const void *bytes, size_t len)
{
    uint32_t capacity = staging_capacity_pages(staging);
    const uint8_t *from = bytes;
    while (len > 0) {
        uint64_t page = (epoch->disk_slot + at / STAGING_PAGE_LEN) % capacity, within = at % STAGING_PAGE_LEN;
        /* Up to the ring's end in one piece. */
        uint64_t run = (capacity - page) * STAGING_PAGE_LEN - within;
        size_t n = len < run ? len : (size_t)run;
        memcpy(staging_slot(staging, (uint32_t)page) + within, from, n);
        at += n;
        from += n;
        len -= n;
    }
}

void disk_section_stream(const struct staging *staging, const struct staged_epoch *epoch,
                         struct disk_stream *out)
{
    size_t len;
    uint8_t *ring = staging_region(staging, &len);
    disk_stream_of_ring(out, ring, len, (uint64_t)epoch->disk_slot * STAGING_PAGE_LEN, epoch->disk_len);
}
