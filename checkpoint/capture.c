/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How capture finds a page's slot, and what a peer may lack.
 *
 * The slot of a page in the open epoch is kept for each page as (epoch serial, slot): 8 bytes a page, never
 * cleared, since an older serial means "no slot". The job list for the copiers is address space reserved at
 * start, so the pause allocates nothing.
 *
 * The same serials say what a peer lacks when a link breaks: a page was last staged under the serial of its
 * place. So all places with a serial above that of the newest epoch that the peer holds go back into the
 * map. Epochs cost nothing for that; the scan is done only when a link has returned.
 */
#include "checkpoint/capture.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "checkpoint/copiers.h"
#include "checkpoint/dirty_map.h"
#include "checkpoint/tracker.h"

#define WARM_JOBS 16384u
#define CUTS      64u /* closed epochs whose serials are remembered: more than are ever in flight */

struct page_place {
    uint32_t serial;
    uint32_t slot;
};

/* A closed epoch. */
struct cut {
    uint64_t epoch;
    uint32_t serial;
};

struct capture {
    struct capture_config config;
    struct dirty_map map;
    struct tracker *tracker;
    struct copiers *copiers;
    struct page_place *places[HV_MAX_BLOCKS];
    size_t places_len[HV_MAX_BLOCKS];
    struct copy_job *jobs;
    size_t jobs_len;
    uint32_t max_jobs;
    struct staged_epoch *open;
    uint32_t serial; /* of the open epoch */
    uint32_t pages_early;
    bool map_ready;
    struct cut cuts[CUTS]; /* a ring */
    uint64_t ncuts;
    uint32_t held_serial; /* the newest one whose pages the peer is known to hold, from capture_resume */
    bool lost;            /* since capture_start: the serials no longer tell what the peer lacks */
};

static void *reserve(size_t len)
{
    void *map = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return map == MAP_FAILED ? NULL : map;
}

static void close_places(struct capture *capture)
{
    for (unsigned i = 0; i < HV_MAX_BLOCKS; i++) {
        if (capture->places[i])
            munmap(capture->places[i], capture->places_len[i]);
        capture->places[i] = NULL;
    }
    if (capture->map_ready)
        dirty_map_close(&capture->map);
    capture->map_ready = false;
}

/* Allocates the places for the hypervisor's present RAM blocks. */
static int open_places(struct capture *capture)
{
    close_places(capture);
    int status = dirty_map_open(&capture->map, capture->config.hv);
    if (status < 0)
        return status;
    capture->map_ready = true;
    for (unsigned i = 0; i < capture->map.nblocks; i++) {
        capture->places_len[i] = capture->map.blocks[i].nwords * 64 * sizeof(struct page_place);
        capture->places[i] = reserve(capture->places_len[i]);
        if (!capture->places[i])
            return -ENOMEM;
    }
    return 0;
}

int capture_open(struct capture **out, const struct capture_config *config)
{
    struct capture *capture = calloc(1, sizeof *capture);
    if (!capture)
        return -ENOMEM;
    capture->config = *config;
    capture->max_jobs = staging_capacity_pages(config->staging);
    capture->jobs_len = (size_t)capture->max_jobs * sizeof *capture->jobs;
    capture->jobs = reserve(capture->jobs_len);
    int status = capture->jobs ? copiers_open(&capture->copiers, config->copiers) : -ENOMEM;
    if (status < 0) {
        capture_close(capture);
        return status;
    }
    memset(capture->jobs, 0,
           (capture->max_jobs < WARM_JOBS ? capture->max_jobs : WARM_JOBS) * sizeof *capture->jobs);
    *out = capture;
    return 0;
}

void capture_close(struct capture *capture)
{
    if (!capture)
        return;
    copiers_close(capture->copiers);
    tracker_close(capture->tracker);
    close_places(capture);
    if (capture->jobs)
        munmap(capture->jobs, capture->jobs_len);
    free(capture);
}

void capture_drop(struct capture *capture)
{
    if (capture->open)
        staging_abort(capture->config.staging, capture->open);
    capture->open = NULL;
}

/* Marks every page dirty that is not a hole: all pages of aux blocks, and main RAM without its holes. */
static void mark_present(struct capture *capture)
{
    const struct hypervisor *hv = capture->config.hv;
    unsigned main_blocks = 0;
    for (unsigned i = 0; i < capture->map.nblocks; i++)
        main_blocks += !hypervisor_block(hv, i)->aux;
    dirty_map_clear_all(&capture->map);
    for (unsigned i = 0; i < capture->map.nblocks; i++) {
        uint64_t npages = capture->map.blocks[i].npages, first = 0, n = npages;
        /* Holes are numbered by pages of main RAM as a whole: these are the block's own pages only if main
         * RAM is one block. */
        bool holes_known = main_blocks == 1 && !hypervisor_block(hv, i)->aux;
        while (first < npages && (!holes_known || hypervisor_next_present(hv, &first, &n) == 0)) {
            for (uint64_t page = first; page < first + n && page < npages; page++)
                dirty_map_set(&capture->map, i, page);
            first += n;
        }
    }
}

int capture_start(struct capture *capture)
{
    capture_drop(capture);
    int status = hypervisor_list_blocks(capture->config.hv);
    if (status == 0)
        status = open_places(capture);
    if (status < 0)
        return status;
    tracker_close(capture->tracker);
    capture->tracker = NULL;
    status = tracker_open(&capture->tracker, capture->config.hv, capture->config.tracker);
    if (status == 0)
        status = tracker_start(capture->tracker);
    if (status < 0)
        return status;
    /* After tracking has begun: a page that fills from here on is logged. */
    mark_present(capture);
    capture->ncuts = 0;
    capture->held_serial = capture->serial;
    capture->lost = false;
    return 0;
}

/*
 * Returns the serial of the newest epoch that the peer holds. An epoch too old to be remembered changes
 * nothing.
 */
static uint32_t serial_held(const struct capture *capture, uint64_t held_epoch)
{
    uint64_t first = capture->ncuts > CUTS ? capture->ncuts - CUTS : 0;
    for (uint64_t i = capture->ncuts; i > first; i--) {
        const struct cut *cut = &capture->cuts[(i - 1) % CUTS];
        if (cut->epoch <= held_epoch)
            return cut->serial > capture->held_serial ? cut->serial : capture->held_serial;
    }
    return capture->held_serial;
}

/* Marks pages dirty that were staged and that the peer may lack, those of a dropped epoch included. */
static void put_back(struct capture *capture)
{
    for (unsigned b = 0; b < capture->map.nblocks; b++) {
        uint64_t npages = capture->map.blocks[b].nwords * 64;
        for (uint64_t page = 0; page < npages; page++)
            if (capture->places[b][page].serial > capture->held_serial)
                dirty_map_set(&capture->map, b, page);
    }
}

int capture_resume(struct capture *capture, uint64_t held_epoch)
{
    capture_drop(capture);
    if (!capture->tracker || !capture->map_ready || capture->lost)
        return -ESTALE;
    capture->held_serial = serial_held(capture, held_epoch);
    if (!capture->config.chaos_forget_unacked)
        put_back(capture);
    return capture_harvest(capture);
}

int capture_stop(struct capture *capture)
{
    capture_drop(capture);
    return capture->tracker ? tracker_stop(capture->tracker) : 0;
}

uint64_t capture_dirty(const struct capture *capture)
{
    return capture->map.count;
}

int capture_harvest(struct capture *capture)
{
    return tracker_harvest(capture->tracker, &capture->map);
}

/* Returns the slot of a page in the open epoch, and takes one if it has none. -ENOSPC: staging is full. */
static int64_t place_page(struct capture *capture, unsigned block, uint64_t page)
{
    struct page_place *place = &capture->places[block][page];
    struct staged_epoch *epoch = capture->open;
    if (place->serial == capture->serial)
        return capture->config.chaos_forget_redirtied ? -EEXIST : (int64_t)place->slot;
    int64_t slot = staging_reserve(capture->config.staging, epoch, 1);
    if (slot < 0)
        return slot;
    *place = (struct page_place){.serial = capture->serial, .slot = (uint32_t)slot};
    epoch->pages[epoch->npages++] =
        (struct staged_page){.ref = page_ref_make(block, page, 0), .slot = (uint32_t)slot};
    return slot;
}

/* The first page that was not listed. block == nblocks: all were. */
struct cursor {
    unsigned block;
    uint64_t page;
};

/*
 * Lists copy jobs for the dirty pages, in order, at most max of them. Returns how many; *end says where it
 * stopped, *full whether for lack of staging room. The job list is as long as staging: it can only run out
 * together with it.
 */
static uint32_t list_dirty(struct capture *capture, uint64_t max, struct cursor *end, bool *full)
{
    const struct dirty_map *map = &capture->map;
    uint32_t n = 0;
    *full = false;
    for (unsigned b = 0; b < map->nblocks; b++) {
        const uint8_t *bytes = hypervisor_block(capture->config.hv, b)->bytes;
        for (uint64_t w = 0; w < map->blocks[b].nwords; w++) {
            for (uint64_t bits = map->blocks[b].words[w]; bits; bits &= bits - 1) {
                uint64_t page = w * 64 + (uint64_t)__builtin_ctzll(bits);
                int64_t slot = n < max && n < capture->max_jobs ? place_page(capture, b, page) : -ENOSPC;
                if (slot == -ENOSPC) {
                    *full = n < max;
                    *end = (struct cursor){.block = b, .page = page};
                    return n;
                }
                if (slot < 0)
                    continue; /* the planted fault */
                capture->jobs[n++] = (struct copy_job){
                    .source = bytes + page * HV_PAGE_LEN,
                    .destination = staging_slot(capture->config.staging, (uint32_t)slot),
                };
            }
        }
    }
    *end = (struct cursor){.block = map->nblocks};
    return n;
}

/* Clears the bits before end. */
static void clear_before(struct dirty_map *map, const struct cursor *end)
{
    for (unsigned b = 0; b < map->nblocks && b <= end->block; b++) {
        struct dirty_block *block = &map->blocks[b];
        uint64_t whole_words = b < end->block ? block->nwords : end->page / 64;
        for (uint64_t w = 0; w < whole_words; w++) {
            if (!block->words[w])
                continue;
            map->count -= (uint64_t)__builtin_popcountll(block->words[w]);
            block->words[w] = 0;
        }
        uint64_t below = b == end->block ? (1ull << (end->page % 64)) - 1 : 0;
        if (below) {
            map->count -= (uint64_t)__builtin_popcountll(block->words[whole_words] & below);
            block->words[whole_words] &= ~below;
        }
    }
}

/*
 * Stages dirty pages into the open epoch. Returns the number of pages copied; -EAGAIN: staging became full;
 * -ENOBUFS: it became full although it holds only this epoch.
 */
static int64_t stage_dirty(struct capture *capture, uint64_t max)
{
    struct cursor end;
    bool full;
    uint32_t n = list_dirty(capture, max, &end, &full);
    copiers_run(capture->copiers, capture->jobs, n);
    clear_before(&capture->map, &end);
    if (!full || capture->config.chaos_close_when_full)
        return (int64_t)n;
    return capture->open->nslots == staging_capacity_pages(capture->config.staging) ? -ENOBUFS : -EAGAIN;
}

/*
 * Clears all places after the serial has wrapped: a serial of 2^32 epochs ago must not count as the present
 * one.
 */
static void forget_places(struct capture *capture)
{
    for (unsigned i = 0; i < capture->map.nblocks; i++)
        madvise(capture->places[i], capture->places_len[i], MADV_DONTNEED);
    capture->serial = 1;
    capture->lost = true;
}

static int open_epoch(struct capture *capture, uint64_t number, enum staged_kind kind)
{
    if (capture->open)
        return capture->open->epoch == number && capture->open->kind == kind ? 0 : -EBUSY;
    capture->open = staging_begin(capture->config.staging, number, kind);
    if (!capture->open)
        return -EAGAIN;
    capture->pages_early = 0;
    if (++capture->serial == 0)
        forget_places(capture);
    return 0;
}

static struct staged_epoch *commit_open(struct capture *capture)
{
    struct staged_epoch *epoch = capture->open;
    capture->open = NULL;
    if (epoch->kind == STAGED_EPOCH)
        capture->cuts[capture->ncuts++ % CUTS] =
            (struct cut){.epoch = epoch->epoch, .serial = capture->serial};
    staging_commit(capture->config.staging, epoch);
    return epoch;
}

struct staged_epoch *capture_batch(struct capture *capture, uint64_t number, uint32_t max_pages, int *status)
{
    struct staging *staging = capture->config.staging;
    *status = 0;
    if (capture->map.count == 0)
        return NULL;
    if (max_pages > staging_capacity_pages(staging))
        max_pages = staging_capacity_pages(staging);
    if (staging_free_pages(staging) < max_pages)
        *status = -EAGAIN;
    else
        *status = open_epoch(capture, number, STAGED_PRECOPY);
    if (*status < 0)
        return NULL;
    stage_dirty(capture, max_pages);
    return commit_open(capture);
}

int64_t capture_early_pass(struct capture *capture, uint64_t number)
{
    int status = open_epoch(capture, number, STAGED_EPOCH);
    if (status == 0)
        status = capture_harvest(capture);
    if (status < 0)
        return status;
    int64_t copied = stage_dirty(capture, UINT64_MAX);
    if (copied > 0)
        capture->pages_early += (uint32_t)copied;
    return copied;
}

/* Copies the dirty pages between pause and resume, and tells the hypervisor. Returns 0 or -errno. */
static int copy_in_pause(struct capture *capture, uint64_t number, uint32_t *copied)
{
    capture->config.at_boundary(capture->config.opaque, number);
    int status = tracker_take_in_pause(capture->tracker, &capture->map);
    int64_t staged = status == 0 ? stage_dirty(capture, UINT64_MAX) : status;
    if (staged < 0) {
        hypervisor_checkpoint_abort(capture->config.hv);
        return (int)staged;
    }
    *copied = (uint32_t)staged;
    return hypervisor_checkpoint_copied(capture->config.hv);
}

/* Adds the device state to the epoch. The guest runs again. */
static int add_device_state(struct capture *capture, const struct hv_checkpoint *checkpoint)
{
    struct staged_epoch *epoch = capture->open;
    if (checkpoint->devstate_len > epoch->devstate_capacity)
        return -E2BIG;
    memcpy(epoch->devstate, checkpoint->devstate, checkpoint->devstate_len);
    epoch->devstate_len = checkpoint->devstate_len;
    epoch->boundary_ns = checkpoint->pause_began_ns;
    epoch->nblocks = capture->map.nblocks;
    for (unsigned i = 0; i < epoch->nblocks; i++)
        epoch->block_used_len[i] = hypervisor_block(capture->config.hv, i)->used_len;
    return 0;
}

int capture_epoch(struct capture *capture, uint64_t number, bool stay_paused, struct staged_epoch **out,
                  struct capture_report *report)
{
    memset(report, 0, sizeof *report);
    int status = open_epoch(capture, number, STAGED_EPOCH);
    /*
     * Stages what is already known to be dirty without a pause. If there is no room for it, the guest is
     * not paused for nothing.
     */
    if (status == 0 && capture->map.count > 0) {
        int64_t early = stage_dirty(capture, UINT64_MAX);
        status = early < 0 ? (int)early : 0;
        capture->pages_early += early > 0 ? (uint32_t)early : 0;
    }
    if (status == 0 && capture->config.before_pause)
        capture->config.before_pause(capture->config.opaque);
    if (status == 0)
        status = hypervisor_checkpoint_begin(capture->config.hv, capture->config.deadline_us, stay_paused);
    if (status < 0)
        return status;
    int copied = copy_in_pause(capture, number, &report->pages_in_pause);
    status = hypervisor_checkpoint_finish(capture->config.hv, &report->checkpoint);
    if (status < 0 || copied < 0)
        return status < 0 ? status : copied;
    if (report->checkpoint.expired)
        return -ETIME;
    if (report->checkpoint.blocks_changed) {
        capture->lost = true;
        return -ESTALE;
    }
    status = add_device_state(capture, &report->checkpoint);
    if (status == 0 && capture->config.add_disk_section)
        status = capture->config.add_disk_section(capture->config.opaque, capture->open);
    if (status < 0)
        return status;
    report->pages = capture->open->npages;
    report->pages_early = capture->pages_early;
    *out = commit_open(capture);
    return 0;
}
