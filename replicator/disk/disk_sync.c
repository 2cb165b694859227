/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The synchronisation's states, in order:
 *
 *   WAIT_STATE   the standby sends its maps; then ours are merged into one
 *   SWAPPING     the plugins swap bitmaps
 *   PASS         the frozen bitmaps are worked through, window by window
 *   CONFIRMING   all is sent; the standby's confirmation of the last batches is awaited
 *   READY        little is left; the next pass will be the last
 *   DONE         logging has begun and the last pass is confirmed
 */
#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "replicator/disk/disk_log.h"
#include "replicator/disk/disk_sync_internal.h"

#define READY_CHUNKS  256u /* of all disks: the next pass may be the last */
#define MAX_PASSES    10u
#define SWAP_EVERY_US 1000000

struct disk_sync *disk_sync_new(struct disks *disks, struct staging *staging, void (*wake)(void *opaque),
                                void *opaque)
{
    struct disk_sync *sync = g_new0(struct disk_sync, 1);
    sync->disks = disks;
    sync->staging = staging;
    sync->wake = wake;
    sync->wake_opaque = opaque;
    sync->buffer = g_malloc((size_t)BATCH_CHUNKS * RECORD_LEN);
    for (unsigned i = 0; i < WINDOWS; i++)
        sync->windows[i].hashes = g_malloc((size_t)WINDOW_CHUNKS * WIRE_HASH_LEN);
    g_mutex_init(&sync->mutex);
    sync->state = disks_count(disks) ? WAIT_STATE : DONE;
    for (unsigned d = 0; d < disks_count(disks); d++) {
        sync->fresh_bits[d] = g_try_new0(uint64_t, disk_sync_words(sync, d) + 1);
        sync->taken_bits[d] = g_try_new0(uint64_t, disk_sync_words(sync, d) + 1);
        if (!sync->fresh_bits[d] || !sync->taken_bits[d]) {
            disk_sync_free(sync);
            return NULL;
        }
    }
    return sync;
}

void disk_sync_free(struct disk_sync *sync)
{
    if (!sync)
        return;
    disk_sync_end(sync);
    for (unsigned i = 0; i < WINDOWS; i++)
        g_free(sync->windows[i].hashes);
    for (unsigned d = 0; d < DISK_MAX; d++) {
        g_free(sync->fresh_bits[d]);
        g_free(sync->taken_bits[d]);
    }
    g_mutex_clear(&sync->mutex);
    g_free(sync->buffer);
    g_free(sync);
}

void disk_sync_begin(struct disk_sync *sync, struct sender *sender, struct connection *connection,
                     uint64_t term, bool resync)
{
    disk_sync_end(sync);
    sync->sender = sender;
    sync->connection = connection ? connection_get(connection) : NULL;
    sync->term = term;
    sync->state = disks_count(sync->disks) ? WAIT_STATE : DONE;
    sync->last_pass = sync->goes_nowhere = false;
    sync->unlike = resync ? UINT32_MAX : 0;
    sync->passes = 0;
    sync->first_batch = sync->next_batch = 0;
    sync->steady = STEADY_REST;
    sync->swapped_us = g_get_monotonic_time();
}

void disk_sync_end(struct disk_sync *sync)
{
    g_clear_pointer(&sync->connection, connection_put);
    disks_limit_logs(sync->disks, 0);
    g_mutex_lock(&sync->mutex);
    sync->nwindows = 0;
    g_mutex_unlock(&sync->mutex);
}

/* ---- which chunks ---- */

/* Begins a new pair: nothing is known of how the two images differ, so every chunk may. */
static int begin_pair(struct disk_sync *sync, unsigned disk)
{
    struct disk_map *map = disks_map(sync->disks, disk);
    uint8_t id[DISK_PAIR_ID_LEN];
    if (getrandom(id, sizeof id, 0) != (ssize_t)sizeof id)
        return -EIO;
    disk_map_set_all(map, 0);
    sync->unlike &= ~(1u << disk);
    int status = disk_map_set_pair(map, id);
    if (status == 0)
        disk_sync_send(sync, MESSAGE_DISK_PAIR, disk, 0, id, sizeof id);
    return status;
}

/* What the standby wrote when it ran the guest is a candidate, too. */
static void add_their_bits(struct disk_sync *sync, unsigned disk)
{
    size_t nwords;
    _Atomic uint64_t *words = disk_map_words(disks_map(sync->disks, disk), 0, &nwords);
    g_mutex_lock(&sync->mutex);
    uint64_t *bits = sync->fresh_bits[disk];
    sync->fresh_bits[disk] = sync->taken_bits[disk];
    sync->taken_bits[disk] = bits;
    g_mutex_unlock(&sync->mutex);
    for (size_t w = 0; w < disk_sync_words(sync, disk); w++) {
        if (bits[w])
            atomic_fetch_or(&words[w], bits[w]);
        bits[w] = 0;
    }
}

static bool is_one_pair(const struct disk_map *map, const struct wire_disk_state *theirs)
{
    return disk_map_trusted(map) && theirs->trusted &&
           memcmp(disk_map_pair_id(map), theirs->pair_id, DISK_PAIR_ID_LEN) == 0;
}

/*
 * Merges both hosts' maps into one bitmap of candidates for each disk, the one that is written to. 0 or
 * -errno.
 */
static int choose_candidates(struct disk_sync *sync)
{
    for (unsigned d = 0; d < disks_count(sync->disks); d++) {
        struct disk_map *map = disks_map(sync->disks, d);
        if (disks_is_shared(sync->disks, d)) { /* one image: nothing to compare */
            disk_map_clear_all(map, 0);
            disk_map_clear_all(map, 1);
            continue;
        }
        add_their_bits(sync, d);
        int status = is_one_pair(map, &sync->theirs[d]) ? 0 : begin_pair(sync, d);
        if (status < 0)
            return status;
        disk_map_merge(map, !disks_frozen(sync->disks, d));
    }
    return 0;
}

static enum disk_sync_progress swap(struct disk_sync *sync)
{
    if (sync->last_pass) { /* none of it is done yet */
        sync->pass_done = 0;
        disk_sync_limit_log(sync);
    }
    disks_order(sync->disks, sync->last_pass ? DISK_LOGGING : 0, 0, true);
    sync->state = SWAPPING;
    return DISK_SYNC_WORKED;
}

static enum disk_sync_progress wait_state(struct disk_sync *sync, int *status)
{
    g_mutex_lock(&sync->mutex);
    bool all = sync->heard_of == (1u << disks_count(sync->disks)) - 1;
    g_mutex_unlock(&sync->mutex);
    /* The order not to log, given before, must be in force: it decides which bitmap is which. */
    if (!all || !disks_order_done(sync->disks))
        return DISK_SYNC_WAITING;
    for (unsigned d = 0; d < disks_count(sync->disks); d++) {
        if (sync->theirs[d].len != disk_image_len(disks_image(sync->disks, d))) {
            *status = -EINVAL;
            return DISK_SYNC_WAITING;
        }
    }
    disks_drop_log(sync->disks);
    *status = choose_candidates(sync);
    return *status < 0 ? DISK_SYNC_WAITING : swap(sync);
}

static enum disk_sync_progress swapping(struct disk_sync *sync)
{
    if (!disks_order_done(sync->disks))
        return DISK_SYNC_WAITING;
    disk_sync_begin_pass(sync);
    sync->state = PASS;
    return DISK_SYNC_WORKED;
}

static enum disk_sync_progress pass(struct disk_sync *sync, uint64_t number, struct staged_epoch **batch,
                                    int *status)
{
    bool over = false;
    if (!disk_sync_do_pass(sync, number, batch, &over, status))
        return DISK_SYNC_WAITING;
    if (over)
        sync->state = CONFIRMING;
    return DISK_SYNC_WORKED;
}

/* Chunks written since the last swap. */
static uint64_t written_since(const struct disk_sync *sync)
{
    uint64_t n = 0;
    for (unsigned d = 0; d < disks_count(sync->disks); d++)
        n += disk_map_count(disks_map(sync->disks, d), !disks_frozen(sync->disks, d));
    return n;
}

static enum disk_sync_progress end_pass(struct disk_sync *sync)
{
    if (sync->first_batch < sync->next_batch)
        return DISK_SYNC_WAITING;
    if (sync->last_pass) {
        sync->state = DONE;
        return DISK_SYNC_DONE;
    }
    uint64_t written = written_since(sync);
    /*
     * Another pass would find as many chunks again. In the last pass the guest is slowed down to the link's
     * rate.
     */
    sync->goes_nowhere = sync->passes >= MAX_PASSES || written > sync->pass_chunks / 4 * 3;
    if (written > READY_CHUNKS && !sync->goes_nowhere)
        return swap(sync);
    sync->state = READY;
    return DISK_SYNC_READY;
}

enum disk_sync_progress disk_sync_step(struct disk_sync *sync, uint64_t number, struct staged_epoch **batch,
                                       int *status)
{
    *batch = NULL;
    *status = 0;
    disk_sync_take_confirmations(sync);
    switch (sync->state) {
    case WAIT_STATE:
        return wait_state(sync, status);
    case SWAPPING:
        return swapping(sync);
    case PASS:
        return pass(sync, number, batch, status);
    case CONFIRMING:
        return end_pass(sync);
    case READY:
        /* Memory took longer than the disks, and the guest wrote meanwhile. */
        return written_since(sync) > 4 * READY_CHUNKS && !sync->goes_nowhere ? swap(sync) : DISK_SYNC_READY;
    case DONE:
        break;
    }
    return DISK_SYNC_DONE;
}

void disk_sync_finish(struct disk_sync *sync)
{
    if (sync->state != READY)
        return;
    sync->last_pass = true;
    swap(sync);
}

/* ---- under protection ---- */

void disk_sync_between_epochs(struct disk_sync *sync, uint64_t next)
{
    if (disks_count(sync->disks) == 0)
        return;
    switch (sync->steady) {
    case STEADY_REST:
        if (g_get_monotonic_time() - sync->swapped_us < SWAP_EVERY_US)
            return;
        disks_order(sync->disks, 0, 0, true);
        sync->swapped_us = g_get_monotonic_time();
        sync->steady = STEADY_SWAPPING;
        return;
    case STEADY_SWAPPING:
        if (!disks_order_done(sync->disks))
            return;
        /* What the frozen bitmap marks was logged before now, so this epoch has it at the latest. */
        sync->covering_epoch = next;
        sync->steady = STEADY_COVERED;
        return;
    case STEADY_COVERED:
        if (atomic_load_explicit(&sync->confirmed_epoch, memory_order_acquire) < sync->covering_epoch)
            return;
        for (unsigned d = 0; d < disks_count(sync->disks); d++)
            disk_map_clear_all(disks_map(sync->disks, d), disks_frozen(sync->disks, d));
        sync->steady = STEADY_REST;
        return;
    }
}
