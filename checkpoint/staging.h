/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Staging: where an epoch waits between the guest's RAM and the peer (primary), and between the peer and the
 * image (secondary). One fixed ring of pages and a fixed ring of epoch descriptors: memory is bounded
 * (invariant I6).
 *
 * Pages are taken from the ring in order and given back in order, epoch by epoch. One epoch may use the whole
 * ring. The region is one mapping, so that a transport can register it once.
 *
 * Threads: one thread fills epochs (staging_begin .. staging_commit or staging_abort), one thread frees them,
 * in the same order (staging_free). Sizes are published with release/acquire; there is no lock.
 */
#ifndef UNDERSTUDY_CHECKPOINT_STAGING_H
#define UNDERSTUDY_CHECKPOINT_STAGING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define STAGING_PAGE_LEN 4096u
#define STAGING_EPOCHS   8u         /* descriptors in the ring */
#define STAGING_NO_PAGE  UINT32_MAX /* a page without bytes: it is all zero */

/*
 * A page's name on the wire and in staging: block index in bits 56-63, page-aligned byte offset in bits
 * 12-55, flags in bits 0-11.
 */
typedef uint64_t page_ref;
#define PAGE_REF_ZERO  0x1u /* the page is all zero and carries no bytes */
#define PAGE_REF_FLAGS 0xfffu
static inline page_ref page_ref_make(unsigned block, uint64_t page_index, unsigned flags)
{
    return ((uint64_t)block << 56) | (page_index << 12) | flags;
}
static inline unsigned page_ref_block(page_ref ref)
{
    return (unsigned)(ref >> 56);
}
static inline uint64_t page_ref_page(page_ref ref)
{
    return (ref & 0x00ffffffffffffffull) >> 12;
}
static inline unsigned page_ref_flags(page_ref ref)
{
    return (unsigned)(ref & PAGE_REF_FLAGS);
}

enum staged_kind {
    STAGED_EPOCH = 0,   /* a whole epoch: commit, ack, apply */
    STAGED_PRECOPY = 1, /* a batch of pages of a synchronisation: the image is whole only after an epoch */
};

struct staged_page {
    page_ref ref;
    uint32_t slot; /* index of the page in the ring, or STAGING_NO_PAGE */
    uint32_t reserved;
};

struct staged_epoch {
    uint64_t epoch; /* number, from 1; for STAGED_PRECOPY the batch number */
    enum staged_kind kind;
    uint32_t npages; /* entries in pages[] */
    uint32_t nslots; /* ring pages taken, from first_slot, wrapping */
    uint32_t first_slot;
    struct staged_page *pages; /* owned by staging */
    uint8_t *devstate;         /* owned by staging, devstate_capacity bytes */
    size_t devstate_len;
    size_t devstate_capacity;
    uint64_t block_used_len[64]; /* used_len of each RAM block at the boundary; nblocks of them */
    uint32_t nblocks;
    uint64_t boundary_ns; /* CLOCK_MONOTONIC of this host when the guest was paused (primary) or 0 */
    uint64_t received_ns; /* CLOCK_MONOTONIC of this host when the epoch was received (secondary) or 0 */
    uint32_t disk_slot;   /* first ring page of the disk section: a record stream (disk_record.h), wrapping */
    uint64_t disk_len;    /* bytes of it; 0: none */
    void *user;           /* for the replicator's use */
};

struct staging;

/* Makes staging with a ring of capacity_pages pages and STAGING_EPOCHS device states of devstate_capacity
 * bytes. Reserves address space only; memory is touched as it is used. Returns 0 or -errno. */
int staging_open(struct staging **out, uint32_t capacity_pages, size_t devstate_capacity);
/* Frees all memory, with the epochs in it. NULL is allowed. */
void staging_close(struct staging *staging);
uint32_t staging_capacity_pages(const struct staging *staging);
uint32_t staging_free_pages(const struct staging *staging);
unsigned staging_free_epochs(const struct staging *staging); /* filling side */
/* Returns the whole ring of pages (*len bytes), for registration with a NIC. */
void *staging_region(const struct staging *staging, size_t *len);
/*
 * Keeps the region's memory from now on, because a NIC registers it: nothing is returned to the kernel any
 * more. Asks the kernel for huge pages. To be called before the first epoch.
 */
void staging_pin(struct staging *staging);

/* Positions of the rings: counts of all pages and epochs ever taken (heads) and returned (tails). */
struct staging_position {
    uint64_t page_head, page_tail, epoch_head, epoch_tail;
    uint32_t next_slot;
};
/* Returns the positions. Filling side. */
void staging_position(const struct staging *staging, struct staging_position *out);
/* Returns the tails, which may be out of date when the call returns. Any thread. */
void staging_tails(const struct staging *staging, uint64_t *page_tail, uint64_t *epoch_tail);
static inline uint8_t *staging_slot_at(uint8_t *base, uint32_t slot)
{
    return base + (size_t)slot * STAGING_PAGE_LEN;
}
uint8_t *staging_slot(const struct staging *staging, uint32_t slot);
/* Returns the number of ring pages that a disk section of len bytes takes. */
static inline uint64_t staging_disk_pages(uint64_t len)
{
    return len / STAGING_PAGE_LEN + (len % STAGING_PAGE_LEN != 0);
}

/* Opens an epoch. Filling side. Returns NULL if no descriptor is free. The epoch stays staging's. */
struct staged_epoch *staging_begin(struct staging *staging, uint64_t epoch, enum staged_kind kind);
/*
 * Sets the ring page at which the open epoch's pages begin, which a peer that writes into the ring itself
 * (RDMA) has chosen. Only if the ring is empty the peer has a choice; otherwise there is one right place.
 * Returns 0 or -EINVAL.
 */
int staging_place(struct staging *staging, struct staged_epoch *epoch, uint32_t slot);
/* Takes the next n ring pages for the open epoch. Returns the first slot's index, or -ENOSPC with nothing
 * taken. */
int64_t staging_reserve(struct staging *staging, struct staged_epoch *epoch, uint32_t n);
/* Publishes the open epoch to the freeing side. */
void staging_commit(struct staging *staging, struct staged_epoch *epoch);
/* Drops the open epoch and returns its pages to the ring. */
void staging_abort(struct staging *staging, struct staged_epoch *epoch);

/* Freeing side: frees the oldest committed epoch, which must be this one. */
void staging_free(struct staging *staging, struct staged_epoch *epoch);

#endif
