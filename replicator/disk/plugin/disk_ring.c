/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Appending records, and waiting for room. One thread at a time appends a record, and keeps the mutex while
 * it waits for room, so that small records that still fit cannot overtake a large one without end. head is
 * stored once the record is whole; a process killed before that leaves bytes that are never read.
 */
#include "replicator/disk/plugin/disk_ring.h"

#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/futex.h"
#include "replicator/disk/disk_log_memory.h"
#include "replicator/disk/plugin/disk_chaos.h"
#include "replicator/disk/plugin/disk_held.h"

void disk_ring_init(struct disk_ring *ring, struct disk_shm *shm, int attention)
{
    *ring = (struct disk_ring){
        .shm = shm,
        .bytes = (uint8_t *)shm + DISK_SHM_RING_OFFSET,
        .len = shm->ring_len,
        .head = atomic_load(&shm->head),
        .marked_tail = UINT64_MAX,
        .gave_up_tail = UINT64_MAX,
        .attention = attention,
        .room_wait_ms = DISK_ROOM_WAIT_MS,
        .held_wait_ms = DISK_HELD_WAIT_MS,
    };
    pthread_mutex_init(&ring->mutex, NULL);
}

void disk_ring_destroy(struct disk_ring *ring)
{
    pthread_mutex_destroy(&ring->mutex);
}

void disk_ring_signal(struct disk_ring *ring, uint32_t bits)
{
    uint64_t one = 1;
    atomic_fetch_or(&ring->shm->attention, bits);
    /* It fails only with the counter at its end, and then the replicator has enough to read. */
    while (write(ring->attention, &one, sizeof one) < 0 && errno == EINTR)
        ;
}

bool disk_ring_is_detached(const struct disk_ring *ring)
{
    return atomic_load(&ring->shm->detached) != 0;
}

void disk_ring_detach(struct disk_ring *ring)
{
    if (atomic_exchange(&ring->shm->detached, 1) == 0)
        disk_ring_signal(ring, DISK_ATTENTION_DETACHED);
}

void disk_ring_end(struct disk_ring *ring)
{
    atomic_store(&ring->shm->detached, 1);
}

static bool is_held(const struct disk_shm *shm)
{
    return atomic_load(&shm->flags) & DISK_HELD;
}

/* Returns where the ring's room ends. A held record is needed even after it was collected. */
static uint64_t tail_of(const struct disk_ring *ring)
{
    const struct disk_shm *shm = ring->shm;
    uint64_t tail = atomic_load_explicit(&shm->tail, memory_order_acquire);
    uint64_t flushed = atomic_load_explicit(&shm->flushed, memory_order_acquire);
    return is_held(shm) && ring->head - flushed > ring->head - tail ? flushed : tail;
}

bool disk_ring_order_waits(const struct disk_ring *ring)
{
    return atomic_load(&ring->shm->wanted_seq) != atomic_load(&ring->shm->done_seq);
}

bool disk_ring_is_to_end(const struct disk_ring *ring)
{
    const struct disk_shm *shm = ring->shm;
    return !is_held(shm) && disk_ring_order_waits(ring) && !(atomic_load(&shm->wanted_flags) & DISK_LOGGING);
}

/*
 * Asks for an epoch once for each position of tail, so that not every write wakes a replicator that is
 * already working on it.
 */
static void ask_for_epoch(struct disk_ring *ring, uint64_t tail)
{
    if (ring->marked_tail == tail)
        return;
    ring->marked_tail = tail;
    disk_ring_signal(ring, DISK_ATTENTION_MARK);
}

static int64_t us_until(const struct timespec *at)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (at->tv_sec - now.tv_sec) * 1000000ll + (at->tv_nsec - now.tv_nsec) / 1000;
}

/* A tail that makes no sense leaves no room either. */
static bool has_room(const struct disk_ring *ring, size_t len)
{
    uint64_t used = ring->head - tail_of(ring);
    return used <= ring->len && len <= ring->len - used;
}

/*
 * Whether a writer need not wait at the limit: the ring is below it, or an order waits for the writes under
 * way.
 */
static bool is_below_limit(const struct disk_ring *ring, size_t len)
{
    const struct disk_shm *shm = ring->shm;
    uint64_t limit = atomic_load_explicit(&shm->limit, memory_order_acquire);
    uint64_t tail = atomic_load_explicit(&shm->tail, memory_order_acquire);
    (void)len;
    return limit == 0 || ring->head - tail < limit || disk_ring_order_waits(ring);
}

/* Whether a held change need not wait for room: there is some, or an order waits for the writes under way. */
static bool has_room_or_order(const struct disk_ring *ring, size_t len)
{
    return has_room(ring, len) || disk_ring_order_waits(ring);
}

/* Waits until the condition is met for a record of len bytes. False: the time ran out. */
static bool wait_for(struct disk_ring *ring, bool (*is_met)(const struct disk_ring *, size_t), size_t len,
                     unsigned wait_ms)
{
    struct disk_shm *shm = ring->shm;
    if (is_met(ring, len))
        return true;
    struct timespec deadline = disk_futex_in_ms(wait_ms);
    bool met = false;
    atomic_fetch_add(&shm->waits, 1);
    for (;;) {
        uint32_t seen = atomic_load(&shm->room_seq);
        met = is_met(ring, len);
        if (met || us_until(&deadline) <= 0 || disk_ring_is_to_end(ring))
            break;
        ask_for_epoch(ring, tail_of(ring));
        disk_futex_wait(&shm->room_seq, seen, &deadline);
    }
    atomic_fetch_add(&shm->wait_us, (uint64_t)(wait_ms * 1000ll - us_until(&deadline)));
    return met;
}

/*
 * 0, -ENOSPC or -EAGAIN, as of disk_ring_append. Each change that waits keeps its range of the disk, QEMU's
 * main loop waits for all of them when it stops the guest, and so does an order. So a change waits in vain
 * once, not each in turn and again whenever the guest is let on.
 */
static int wait_for_held_room(struct disk_ring *ring, size_t len)
{
    bool again = ring->gave_up_tail == tail_of(ring);
    wait_for(ring, has_room_or_order, len, again ? 0 : ring->held_wait_ms);
    if (has_room(ring, len))
        return 0;
    if (disk_ring_order_waits(ring))
        return -EAGAIN;
    ring->gave_up_tail = tail_of(ring);
    return -ENOSPC;
}

/* 0, or -errno: there is no room. */
static int wait_for_room(struct disk_ring *ring, size_t len)
{
    if (len > ring->len)
        return -ENOSPC;
    /* If the time runs out here, logging goes on: there may be room beyond the limit. */
    if (!disk_chaos_has("no-limit"))
        wait_for(ring, is_below_limit, len, ring->room_wait_ms);
    if (is_held(ring->shm))
        return wait_for_held_room(ring, len);
    return wait_for(ring, has_room, len, ring->room_wait_ms) ? 0 : -ENOSPC;
}

bool disk_ring_let_order_pass(struct disk_ring *ring, const struct timespec *until)
{
    struct disk_shm *shm = ring->shm;
    while (us_until(until) > 0) {
        uint32_t seen = atomic_load(&shm->room_seq);
        if (!disk_ring_order_waits(ring))
            return true;
        disk_futex_wait(&shm->room_seq, seen, until);
    }
    return false;
}

/* Writes bytes at head + skip, which may be past the end and wrap. */
static void put(struct disk_ring *ring, size_t skip, const void *bytes, size_t len)
{
    size_t at = (ring->head + skip) % ring->len, first = ring->len - at;
    if (first > len)
        first = len;
    memcpy(ring->bytes + at, bytes, first);
    memcpy(ring->bytes, (const uint8_t *)bytes + first, len - first);
}

static void put_record(struct disk_ring *ring, const struct disk_record *record, const void *data)
{
    static const uint8_t zeroes[DISK_RECORD_ALIGN];
    uint8_t header[DISK_RECORD_HEADER_LEN];
    size_t len = disk_record_len(record), used = sizeof header + record->data_len;
    disk_record_encode(record, header);
    put(ring, 0, header, sizeof header);
    disk_chaos_step("putting");
    if (record->data_len) {
        put(ring, sizeof header, data, record->data_len);
        put(ring, used, zeroes, len - used);
    }
    ring->head += len;
    atomic_store_explicit(&ring->shm->head, ring->head, memory_order_release);
}

int disk_ring_append(struct disk_ring *ring, const struct disk_record *record, const void *data)
{
    int status = 0, room;
    /* Every sixteenth place of all disks, or every other place of the second disk. */
    unsigned one_in = disk_chaos_has("unlogged") ? 16 : 0;
    if (record->disk == 1 && disk_chaos_has("unlogged-second"))
        one_in = 2;
    if (one_in && record->offset / 4096 % one_in == 0)
        return 0;
    pthread_mutex_lock(&ring->mutex);
    uint64_t position = ring->head;
    if (disk_ring_is_detached(ring) && !is_held(ring->shm)) {
        /* Logging has been given up: one more missing change makes no difference. */
    } else if ((room = wait_for_room(ring, disk_record_len(record))) == 0) {
        put_record(ring, record, data);
        /* Under the same mutex, so that the list never has a change without the older ones. */
        if (is_held(ring->shm))
            status = disk_held_add(ring->held, record, position);
        uint64_t tail = atomic_load_explicit(&ring->shm->tail, memory_order_relaxed);
        if (ring->head - tail > ring->shm->mark)
            ask_for_epoch(ring, tail);
    } else if (is_held(ring->shm)) {
        status = room; /* for -ENOSPC QEMU stops the guest, which is all that can be done */
    } else if (disk_ring_is_to_end(ring)) {
        disk_ring_end(ring);
    } else {
        disk_ring_detach(ring);
    }
    pthread_mutex_unlock(&ring->mutex);
    return status;
}

/* ---- memory ---- */

#define GIVE_BACK_STEP (4u << 20) /* some tenths of a millisecond, for which a writer may have to wait */

void disk_ring_give_back(struct disk_ring *ring, int shm_fd)
{
    uint64_t head = atomic_load(&ring->shm->head);
    /* Whole steps from a page's beginning on, otherwise the page between two of them would stay. */
    uint64_t from = (head + DISK_LOG_PAGE_LEN - 1) / DISK_LOG_PAGE_LEN * DISK_LOG_PAGE_LEN;
    bool more = true;
    /* trylock: the holder may wait for room for seconds, and this thread has to carry out orders. */
    while (more && pthread_mutex_trylock(&ring->mutex) == 0) {
        uint64_t end = tail_of(ring) + ring->len;
        /* Less than nothing where all is given back, or where tail is nonsense. */
        more = ring->head == head && end - from - 1 < ring->len;
        if (more)
            disk_log_give_back(shm_fd, ring->len, from,
                               end - from < GIVE_BACK_STEP ? end : from + GIVE_BACK_STEP);
        pthread_mutex_unlock(&ring->mutex);
        from += GIVE_BACK_STEP;
    }
}
