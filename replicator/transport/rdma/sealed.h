/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Seals and opens epochs in the rings of both hosts. No verbs in here.
 *
 * The device reads and writes a second ring, as long as staging's, which holds sealed bytes only. The primary
 * copies an epoch's pages there and seals them in place, in pieces of SEAL_SEGMENT_LEN. They use the slots
 * that the epoch has in staging, so they become free with the epoch. On the secondary the pages arrive in its
 * second ring. It copies them into staging and opens them there: the peer can write the second ring at any
 * time, and what was checked must not change after that.
 *
 * An epoch in the ring, sealed:
 *
 *   commit record and counts   RDMA_WIRE_COMMIT_LEN + WIRE_EPOCH_LEN, and a tag; the first record
 *   index, device state        and a tag; the second record; neither if there are no bytes
 *   tags of the pages          SEAL_TAG_LEN for each record of pages
 *   zeroes                     to the page's end
 *   pages, disk section        records of SEALED_SEGMENT_PAGES pages
 *
 * Functions return 0 or -errno unless they say otherwise.
 */
#ifndef UNDERSTUDY_REPLICATOR_RDMA_SEALED_H
#define UNDERSTUDY_REPLICATOR_RDMA_SEALED_H

#include <stddef.h>
#include <stdint.h>

#include "checkpoint/staging.h"
#include "proto/rdma_wire.h"
#include "proto/seal.h"
#include "replicator/transport/epoch_parts.h"

#define SEALED_SEGMENT_PAGES (SEAL_SEGMENT_LEN / STAGING_PAGE_LEN)
#define SEALED_RECORD_LEN    (RDMA_WIRE_COMMIT_LEN + WIRE_EPOCH_LEN)

/* Where the parts before the pages are, in bytes from the epoch's beginning. */
struct sealed_layout {
    size_t parts_at, parts_len; /* index and device state, without their tag */
    size_t tags_at, len;
};
struct sealed_layout sealed_layout_of(const struct wire_epoch *wire);

/* Seals the parts before the pages, in place, apart from the tags of the pages. */
int sealed_close_meta(struct seal *out, const struct wire_header *header, const struct sealed_layout *layout,
                      uint8_t *meta);
/* Opens the first record, which its tag follows. */
int sealed_open_record(struct seal *in, uint8_t record[SEALED_RECORD_LEN + SEAL_TAG_LEN]);
/* Opens the second one. */
int sealed_open_parts(struct seal *in, const struct wire_header *header, const struct sealed_layout *layout,
                      uint8_t *meta);

/* The pages of an epoch, on their way out. */
struct sealed_pages {
    struct seal *out;
    uint8_t *ring; /* as many pages as staging */
    const struct staging *staging;
    struct epoch_pages pages;
    struct seal_label label;
    uint32_t slot; /* of the ring, where the next page goes */
    uint8_t *tag;  /* where the next one goes */
};
void sealed_pages_begin(struct sealed_pages *sealed, struct seal *out, uint8_t *ring,
                        const struct staging *staging, const struct staged_epoch *epoch,
                        const struct wire_header *header, uint8_t *tags);
/* Seals the next record. Returns its pages, which begin at *first and may wrap; 0: no more; or -errno. */
int sealed_pages_next(struct sealed_pages *sealed, uint32_t *first);

/* Copies npages pages from a ring into staging, both from slot on, and opens them. */
int sealed_open_pages(struct seal *in, const struct wire_header *header, const uint8_t *ring,
                      const struct staging *staging, uint32_t slot, uint32_t npages, const uint8_t *tags);

#endif
