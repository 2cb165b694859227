/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Two rings: pages and epoch descriptors. The filling side owns the heads, the freeing side the tails; each
 * reads the other's with acquire. Address space for everything is reserved at once (MAP_NORESERVE) and
 * touched only as used, so filling an epoch never allocates. The first pages are touched at start, so that
 * small epochs, the common case, never take a page fault inside a pause. For the same reason an epoch that
 * finds the ring empty starts at its beginning again, in the warm part.
 *
 * Pages touched beyond the warm part are kept as long as epochs reach them: faulting a page in again takes
 * longer than filling it. Once epochs have stayed in the warm part for a while, those pages are returned to
 * the kernel, a few with each epoch that finds the ring empty: only the filling side uses the ring then.
 */
#include "checkpoint/staging.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define WARM_PAGES      8192u       /* 32 MiB kept resident */
#define CALM_EPOCHS     50u         /* that stay in the warm part; then it is time to give back */
#define GIVE_BACK_PAGES 1024u       /* with each epoch: some tenths of a millisecond */
#define HUGE_LEN        (2ul << 20) /* the region begins at such a boundary, or its huge pages would not fit */

struct staging {
    uint8_t *region;
    size_t region_len;
    uint32_t capacity;
    size_t devstate_capacity;
    struct staged_page *page_lists; /* STAGING_EPOCHS lists of list_capacity */
    size_t page_lists_len;
    uint32_t list_capacity;
    uint8_t *devstates;
    size_t devstates_len;
    struct staged_epoch epochs[STAGING_EPOCHS];

    /* Filling side. */
    _Alignas(64) uint64_t page_head; /* counts pages taken, ever */
    uint32_t next_slot;              /* where the next page goes */
    uint64_t epoch_head;             /* counts epochs opened, ever */
    uint32_t touched_end; /* above the highest page that is resident; the warm part's end or beyond */
    unsigned calm;        /* epochs that found the ring empty since one went beyond the warm part */
    bool open;
    bool pinned; /* written before the first epoch */
    /* Freeing side; read by the filling side. */
    _Alignas(64) _Atomic uint64_t page_tail;
    _Atomic uint64_t epoch_tail;
};

/*
 * Reserves address space that a fork does not copy (MADV_DONTFORK). Programs are started while epochs are
 * sent, and a fork would copy the page tables of all of staging while page faults of every thread wait; of
 * pinned memory it would copy the pages, too.
 */
static void *reserve(size_t len)
{
    void *map = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED)
        return NULL;
    madvise(map, len, MADV_DONTFORK);
    return map;
}

/* Reserves address space likewise, beginning at a huge page's boundary. */
static uint8_t *reserve_aligned(size_t len)
{
    uint8_t *map = reserve(len + HUGE_LEN);
    if (!map)
        return NULL;
    size_t before = (HUGE_LEN - (uintptr_t)map % HUGE_LEN) % HUGE_LEN;
    size_t page = STAGING_PAGE_LEN, end = (before + len + page - 1) / page * page;
    if (before)
        munmap(map, before);
    if (len + HUGE_LEN > end)
        munmap(map + end, len + HUGE_LEN - end);
    return map + before;
}

/* Touches the first pages, so that no small epoch takes a page fault. */
static void warm_region(struct staging *staging)
{
    uint32_t warm = staging->capacity < WARM_PAGES ? staging->capacity : WARM_PAGES;
    memset(staging->region, 1, (size_t)warm * STAGING_PAGE_LEN);
}

int staging_open(struct staging **out, uint32_t capacity_pages, size_t devstate_capacity)
{
    if (capacity_pages == 0 || capacity_pages >= STAGING_NO_PAGE)
        return -EINVAL;
    struct staging *staging = aligned_alloc(64, (sizeof *staging + 63) / 64 * 64);
    if (!staging)
        return -ENOMEM;
    memset(staging, 0, sizeof *staging);
    staging->capacity = capacity_pages;
    staging->list_capacity = capacity_pages;
    staging->devstate_capacity = devstate_capacity;
    staging->region_len = (size_t)capacity_pages * STAGING_PAGE_LEN;
    staging->page_lists_len = (size_t)STAGING_EPOCHS * capacity_pages * sizeof(struct staged_page);
    staging->devstates_len = STAGING_EPOCHS * devstate_capacity;
    staging->region = reserve_aligned(staging->region_len);
    staging->page_lists = reserve(staging->page_lists_len);
    staging->devstates = reserve(staging->devstates_len);
    if (!staging->region || !staging->page_lists || !staging->devstates) {
        staging_close(staging);
        return -ENOMEM;
    }
    uint32_t warm = capacity_pages < WARM_PAGES ? capacity_pages : WARM_PAGES;
    warm_region(staging);
    staging->touched_end = warm;
    for (unsigned i = 0; i < STAGING_EPOCHS; i++)
        memset(staging->page_lists + (size_t)i * capacity_pages, 0,
               (size_t)warm * sizeof(struct staged_page));
    *out = staging;
    return 0;
}

void staging_close(struct staging *staging)
{
    if (!staging)
        return;
    if (staging->region)
        munmap(staging->region, staging->region_len);
    if (staging->page_lists)
        munmap(staging->page_lists, staging->page_lists_len);
    if (staging->devstates)
        munmap(staging->devstates, staging->devstates_len);
    free(staging);
}

uint32_t staging_capacity_pages(const struct staging *staging)
{
    return staging->capacity;
}

uint32_t staging_free_pages(const struct staging *staging)
{
    uint64_t tail = atomic_load_explicit(&staging->page_tail, memory_order_acquire);
    return staging->capacity - (uint32_t)(staging->page_head - tail);
}

unsigned staging_free_epochs(const struct staging *staging)
{
    uint64_t tail = atomic_load_explicit(&staging->epoch_tail, memory_order_acquire);
    return STAGING_EPOCHS - (unsigned)(staging->epoch_head - tail);
}

void *staging_region(const struct staging *staging, size_t *len)
{
    *len = staging->region_len;
    return staging->region;
}

void staging_pin(struct staging *staging)
{
    if (staging->pinned)
        return;
    staging->pinned = true;
    /*
     * Pages that were touched before are small. They are returned to the kernel, so that they come again as
     * huge pages, if the kernel has any.
     */
    if (madvise(staging->region, staging->region_len, MADV_HUGEPAGE) == 0 &&
        madvise(staging->region, staging->region_len, MADV_DONTNEED) == 0)
        warm_region(staging);
}

void staging_position(const struct staging *staging, struct staging_position *out)
{
    out->page_head = staging->page_head;
    out->epoch_head = staging->epoch_head;
    out->next_slot = staging->next_slot;
    staging_tails(staging, &out->page_tail, &out->epoch_tail);
}

void staging_tails(const struct staging *staging, uint64_t *page_tail, uint64_t *epoch_tail)
{
    *page_tail = atomic_load_explicit(&staging->page_tail, memory_order_acquire);
    *epoch_tail = atomic_load_explicit(&staging->epoch_tail, memory_order_acquire);
}

uint8_t *staging_slot(const struct staging *staging, uint32_t slot)
{
    return staging_slot_at(staging->region, slot);
}

/* Returns a few pages beyond the warm part to the kernel. The ring is empty. */
static void give_back(struct staging *staging)
{
    if (staging->pinned || staging->touched_end <= WARM_PAGES || ++staging->calm < CALM_EPOCHS)
        return;
    uint32_t n = staging->touched_end - WARM_PAGES;
    n = n < GIVE_BACK_PAGES ? n : GIVE_BACK_PAGES;
    staging->touched_end -= n;
    madvise(staging_slot(staging, staging->touched_end), (size_t)n * STAGING_PAGE_LEN, MADV_DONTNEED);
}

/* Remembers that n pages from first on, which may wrap, have been touched. */
static void note_touched(struct staging *staging, uint32_t first, uint32_t n)
{
    uint32_t end = n < staging->capacity - first ? first + n : staging->capacity;
    if (end > WARM_PAGES)
        staging->calm = 0;
    if (end > staging->touched_end)
        staging->touched_end = end;
}

struct staged_epoch *staging_begin(struct staging *staging, uint64_t number, enum staged_kind kind)
{
    if (staging->open || staging_free_epochs(staging) == 0)
        return NULL;
    size_t index = staging->epoch_head % STAGING_EPOCHS;
    struct staged_epoch *epoch = &staging->epochs[index];
    if (staging_free_pages(staging) == staging->capacity) {
        staging->next_slot = 0;
        give_back(staging);
    }
    memset(epoch, 0, sizeof *epoch);
    epoch->epoch = number;
    epoch->kind = kind;
    epoch->first_slot = staging->next_slot;
    epoch->pages = staging->page_lists + index * staging->list_capacity;
    epoch->devstate = staging->devstates + index * staging->devstate_capacity;
    epoch->devstate_capacity = staging->devstate_capacity;
    staging->epoch_head++;
    staging->open = true;
    return epoch;
}

int staging_place(struct staging *staging, struct staged_epoch *epoch, uint32_t slot)
{
    bool empty = staging_free_pages(staging) == staging->capacity;
    if (slot >= staging->capacity || (slot != staging->next_slot && !empty))
        return -EINVAL;
    staging->next_slot = slot;
    epoch->first_slot = slot;
    return 0;
}

int64_t staging_reserve(struct staging *staging, struct staged_epoch *epoch, uint32_t n)
{
    if (n > staging_free_pages(staging))
        return -ENOSPC;
    uint32_t first = staging->next_slot, before_end = staging->capacity - first;
    staging->next_slot = n < before_end ? first + n : n - before_end;
    staging->page_head += n;
    epoch->nslots += n;
    note_touched(staging, first, n);
    return first;
}

void staging_commit(struct staging *staging, struct staged_epoch *epoch)
{
    (void)epoch; /* handed over by the caller's queue, which orders memory */
    staging->open = false;
}

void staging_abort(struct staging *staging, struct staged_epoch *epoch)
{
    staging->page_head -= epoch->nslots;
    staging->next_slot = epoch->first_slot;
    staging->epoch_head--;
    staging->open = false;
}

void staging_free(struct staging *staging, struct staged_epoch *epoch)
{
    atomic_fetch_add_explicit(&staging->page_tail, epoch->nslots, memory_order_release);
    atomic_fetch_add_explicit(&staging->epoch_tail, 1, memory_order_release);
}
