/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Seals and opens epochs in rings (sealed.h). Labels: the first record's has no term and no epoch, since only
 * the record itself says them; the second record is part 1, the records of pages are parts 2 and up.
 */
#include "replicator/transport/rdma/sealed.h"

#include <errno.h>
#include <string.h>

static const struct seal_label record_label = {.kind = MESSAGE_EPOCH};

static struct seal_label part_label(const struct wire_header *header, uint32_t part)
{
    return (struct seal_label){
        .kind = MESSAGE_EPOCH, .segment = part, .term = header->term, .epoch = header->epoch};
}

struct sealed_layout sealed_layout_of(const struct wire_epoch *wire)
{
    uint64_t npages = wire->ndata + wire_epoch_disk_pages(wire);
    struct sealed_layout layout = {.parts_at = SEALED_RECORD_LEN + SEAL_TAG_LEN,
                                   .parts_len = (size_t)wire->npages * 8 + wire->delta_len};
    layout.tags_at = layout.parts_at + layout.parts_len + (layout.parts_len ? SEAL_TAG_LEN : 0);
    layout.len = layout.tags_at + (npages + SEALED_SEGMENT_PAGES - 1) / SEALED_SEGMENT_PAGES * SEAL_TAG_LEN;
    return layout;
}

int sealed_close_meta(struct seal *out, const struct wire_header *header, const struct sealed_layout *layout,
                      uint8_t *meta)
{
    const struct iovec record = {meta, SEALED_RECORD_LEN},
                       parts = {meta + layout->parts_at, layout->parts_len};
    const struct seal_label label = part_label(header, 1);
    int status = seal_close(out, &record_label, &record, 1, meta + SEALED_RECORD_LEN);
    if (status == 0 && layout->parts_len)
        status = seal_close(out, &label, &parts, 1, meta + layout->parts_at + layout->parts_len);
    return status;
}

int sealed_open_record(struct seal *in, uint8_t record[SEALED_RECORD_LEN + SEAL_TAG_LEN])
{
    const struct iovec iov = {record, SEALED_RECORD_LEN};
    return seal_open(in, &record_label, &iov, 1, record + SEALED_RECORD_LEN);
}

int sealed_open_parts(struct seal *in, const struct wire_header *header, const struct sealed_layout *layout,
                      uint8_t *meta)
{
    const struct iovec parts = {meta + layout->parts_at, layout->parts_len};
    const struct seal_label label = part_label(header, 1);
    return layout->parts_len ? seal_open(in, &label, &parts, 1, meta + layout->parts_at + layout->parts_len)
                             : 0;
}

/* Fills iov with n pages of a ring from slot on: two pieces if they wrap. Returns the number of pieces. */
static int pieces_of(struct iovec iov[2], uint8_t *ring, uint32_t capacity, uint32_t slot, uint32_t n)
{
    uint32_t before_end = n < capacity - slot ? n : capacity - slot;
    iov[0] = (struct iovec){staging_slot_at(ring, slot), (size_t)before_end * STAGING_PAGE_LEN};
    iov[1] = (struct iovec){ring, (size_t)(n - before_end) * STAGING_PAGE_LEN};
    return before_end < n ? 2 : 1;
}

void sealed_pages_begin(struct sealed_pages *sealed, struct seal *out, uint8_t *ring,
                        const struct staging *staging, const struct staged_epoch *epoch,
                        const struct wire_header *header, uint8_t *tags)
{
    *sealed = (struct sealed_pages){.out = out,
                                    .ring = ring,
                                    .staging = staging,
                                    .pages = {.epoch = epoch},
                                    .label = part_label(header, 2),
                                    .slot = epoch->first_slot,
                                    .tag = tags};
}

/* The epoch has a page in staging for each page that is sent: the ring's pages from first_slot on suffice. */
int sealed_pages_next(struct sealed_pages *sealed, uint32_t *first)
{
    uint32_t capacity = staging_capacity_pages(sealed->staging), slot, n = 0;
    struct iovec iov[2];
    while (n < SEALED_SEGMENT_PAGES && epoch_next_page(&sealed->pages, sealed->staging, &slot)) {
        uint32_t to = (uint32_t)(((uint64_t)sealed->slot + n++) % capacity);
        memcpy(staging_slot_at(sealed->ring, to), staging_slot(sealed->staging, slot), STAGING_PAGE_LEN);
    }
    if (n == 0)
        return 0;
    int count = pieces_of(iov, sealed->ring, capacity, sealed->slot, n);
    int status = seal_close(sealed->out, &sealed->label, iov, count, sealed->tag);
    *first = sealed->slot;
    sealed->slot = (uint32_t)(((uint64_t)sealed->slot + n) % capacity);
    sealed->tag += SEAL_TAG_LEN;
    sealed->label.segment++;
    return status < 0 ? status : (int)n;
}

int sealed_open_pages(struct seal *in, const struct wire_header *header, const uint8_t *ring,
                      const struct staging *staging, uint32_t slot, uint32_t npages, const uint8_t *tags)
{
    uint32_t capacity = staging_capacity_pages(staging);
    struct seal_label label = part_label(header, 2);
    int status = 0;
    for (uint32_t done = 0, n; status == 0 && done < npages; done += n) {
        uint32_t at = (uint32_t)(((uint64_t)slot + done) % capacity);
        struct iovec from[2], to[2];
        n = npages - done < SEALED_SEGMENT_PAGES ? npages - done : SEALED_SEGMENT_PAGES;
        int count = pieces_of(to, staging_slot(staging, 0), capacity, at, n);
        pieces_of(from, (uint8_t *)ring, capacity, at, n);
        for (int i = 0; i < count; i++)
            memcpy(to[i].iov_base, from[i].iov_base, to[i].iov_len);
        status = seal_open(in, &label, to, count, tags);
        tags += SEAL_TAG_LEN;
        label.segment++;
    }
    return status;
}
