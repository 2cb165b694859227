/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The producer's start, orders and end (disk_log_write.h): mapping the shared memory, finishing the work of
 * a killed predecessor, carrying out orders.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "checkpoint/disk/disk_image.h"
#include "checkpoint/disk/disk_record.h"
#include "common/futex.h"
#include "replicator/disk/plugin/disk_log_internal.h"

#define KNOWN_FLAGS (DISK_WRITABLE | DISK_LOGGING | DISK_DURABLE | DISK_HELD)
#define RETRY_MS    500 /* an image that cannot be written now */
#define QUIET_MS    1000

/* ---- open ---- */

static int check_shm(const struct disk_shm *shm, uint64_t mapped_len, const char **why)
{
    uint64_t head = atomic_load(&shm->head), tail = atomic_load(&shm->tail);
    if (shm->magic != DISK_SHM_MAGIC || shm->version != DISK_SHM_VERSION)
        *why = "the shared memory is not a disk log of this version";
    else if (shm->disk >= DISK_MAX)
        *why = "the shared memory is of a disk whose number is too high";
    else if (shm->ring_len == 0 || shm->ring_len % 4096 != 0 ||
             shm->ring_len > mapped_len - DISK_SHM_RING_OFFSET)
        *why = "the log ring does not fit the shared memory";
    else if (shm->export_len > INT64_MAX)
        *why = "the disk is longer than any disk";
    else if (head % DISK_RECORD_ALIGN != 0 || head - tail > shm->ring_len)
        *why = "the log ring's positions contradict each other";
    return *why ? -EPROTO : 0;
}

static int map_shm(struct disk_log *log, int fd, const char **why)
{
    struct stat st;
    if (fstat(fd, &st) < 0 || st.st_size <= (off_t)DISK_SHM_RING_OFFSET) {
        *why = "the shared memory is missing or too short";
        return -EPROTO;
    }
    void *at = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED) {
        *why = "the shared memory cannot be mapped";
        return -errno;
    }
    log->shm = at;
    log->mapped_len = (size_t)st.st_size;
    return check_shm(log->shm, log->mapped_len, why);
}

static int open_all(struct disk_log *log, const struct disk_log_descriptors *descriptors, const char **why)
{
    int status = map_shm(log, descriptors->shm, why);
    if (status < 0)
        return status;
    log->export_len = log->shm->export_len;
    log->disk = (uint16_t)log->shm->disk;
    log->image = descriptors->image;
    log->shm_fd = descriptors->shm;
    if (fcntl(log->image, F_GETFL) < 0 || (fcntl(log->image, F_GETFL) & O_ACCMODE) != O_RDWR) {
        *why = "the image's descriptor is not open for reading and writing";
        return -EBADF;
    }
    if (fcntl(descriptors->attention, F_GETFD) < 0) {
        *why = "the attention eventfd is missing";
        return -EBADF;
    }
    status = disk_map_attach(&log->map, descriptors->map);
    if (status < 0) {
        *why = "the dirty-block map cannot be used";
        return status;
    }
    if (log->map.nchunks < (log->export_len + DISK_CHUNK_LEN - 1) / DISK_CHUNK_LEN) {
        *why = "the dirty-block map is too short for the disk";
        return -EPROTO;
    }
    disk_ring_init(&log->ring, log->shm, descriptors->attention);
    log->shared = log->shm->shared == 1;
    log->ring.held = &log->held;
    disk_held_init(&log->held, log->shm, log->ring.len, log->export_len, log->image);
    range_lock_init(&log->ranges);
    return 0;
}

int disk_log_open(struct disk_log **out, const struct disk_log_descriptors *descriptors, const char **why)
{
    *why = NULL;
    struct disk_log *log = calloc(1, sizeof *log);
    if (!log) {
        *why = "out of memory";
        return -ENOMEM;
    }
    int status = open_all(log, descriptors, why);
    if (status < 0) {
        if (log->shm)
            munmap(log->shm, log->mapped_len);
        free(log);
        return status;
    }
    *out = log;
    return 0;
}

void disk_log_set_room_wait(struct disk_log *log, unsigned milliseconds)
{
    log->ring.room_wait_ms = log->ring.held_wait_ms = milliseconds;
}

uint64_t disk_log_export_len(const struct disk_log *log)
{
    return log->export_len;
}

/* ---- orders ---- */

/* Whether the order requires the held changes to be in the image. */
static bool order_lets_go(const struct disk_shm *shm)
{
    uint32_t wanted = atomic_load(&shm->wanted_flags);
    return (atomic_load(&shm->flags) & DISK_HELD) && !(wanted & DISK_HELD) && (wanted & DISK_WRITABLE);
}

/* Writes all held changes to the image. 0 or -errno. */
static int let_go(struct disk_log *log)
{
    int status = disk_held_flush(&log->held, atomic_load(&log->shm->head));
    if (status == 0 && (atomic_load(&log->shm->wanted_flags) & DISK_DURABLE) && fdatasync(log->image) < 0)
        status = -errno;
    /* Wakes writers that wait for room. */
    disk_futex_raise(&log->shm->room_seq);
    return disk_log_report(log, status, 0);
}

/*
 * Carries out the order, with no change under way. flags is stored last but one: a process killed before
 * finds the order still waiting, and logging is on only if all that belongs to it was done.
 */
static void obey(struct disk_log *log)
{
    struct disk_shm *shm = log->shm;
    uint32_t seq = atomic_load(&shm->wanted_seq);
    uint32_t flags = atomic_load(&shm->wanted_flags) & KNOWN_FLAGS;
    if ((flags & DISK_LOGGING) && !(atomic_load(&shm->flags) & DISK_LOGGING)) {
        atomic_store(&shm->logged_from, log->ring.head);
        atomic_store(&shm->detached, 0);
    }
    if ((flags & DISK_HELD) && !(atomic_load(&shm->flags) & DISK_HELD))
        atomic_store(&shm->flushed, log->ring.head);
    atomic_store(&shm->active_map, atomic_load(&shm->wanted_map) & 1);
    /* No thread writes to the image while the order changes the mode. */
    pthread_mutex_lock(&log->held.flush_lock);
    atomic_store(&shm->flags, flags);
    pthread_mutex_unlock(&log->held.flush_lock);
    atomic_store(&shm->done_seq, seq);
    disk_futex_raise(&shm->room_seq); /* changes may wait for the order to pass */
    disk_ring_signal(&log->ring, DISK_ATTENTION_DONE);
}

/* Carries out a waiting order. 0, or -errno: the order waits, since the held changes cannot be written. */
static int take_up_order(struct disk_log *log)
{
    struct range whole;
    /*
     * Once before the lock, since a change that waits for room must not make this wait; then the changes
     * that came since.
     */
    int status = order_lets_go(log->shm) ? let_go(log) : 0;
    if (status < 0)
        return status;
    range_acquire(&log->ranges, &whole, 0, RANGE_WHOLE);
    if (order_lets_go(log->shm))
        status = let_go(log);
    if (status == 0)
        obey(log);
    range_release(&log->ranges, &whole);
    return status;
}

/* Waits for an order. If nothing was put into the ring for a while, returns its memory. */
static void wait_for_order(struct disk_log *log, uint32_t seen)
{
    struct disk_shm *shm = log->shm;
    uint64_t head = atomic_load(&shm->head);
    bool warm = head != log->cold_head;
    struct timespec later = disk_futex_in_ms(QUIET_MS);
    disk_futex_wait(&shm->wanted_seq, seen,
                    warm || (atomic_load(&shm->flags) & DISK_LOGGING) ? &later : NULL);
    if (warm && atomic_load(&shm->wanted_seq) == seen && atomic_load(&shm->head) == head) {
        disk_ring_give_back(&log->ring, log->shm_fd);
        log->cold_head = head;
    }
}

static void *listen_for_orders(void *opaque)
{
    struct disk_log *log = opaque;
    while (!atomic_load(&log->stop)) {
        uint32_t seen = atomic_load(&log->shm->wanted_seq);
        struct timespec later = disk_futex_in_ms(RETRY_MS);
        if (!disk_ring_order_waits(&log->ring))
            wait_for_order(log, seen);
        else if (take_up_order(log) < 0)
            disk_futex_wait(&log->shm->wanted_seq, seen, &later);
    }
    return NULL;
}

/* The flusher thread: writes released changes to the image. */
static void *flush_released(void *opaque)
{
    struct disk_log *log = opaque;
    struct disk_shm *shm = log->shm;
    while (!atomic_load(&log->stop)) {
        uint32_t seen = atomic_load(&shm->release_seq);
        struct timespec later = disk_futex_in_ms(RETRY_MS);
        uint64_t before = atomic_load(&shm->flushed);
        bool failed = (atomic_load(&shm->flags) & DISK_HELD) &&
                      disk_log_report(log, disk_held_flush(&log->held, atomic_load(&shm->release)), 0) < 0;
        if (atomic_load(&shm->flushed) != before) {
            disk_futex_raise(&shm->room_seq);
            disk_ring_signal(&log->ring, DISK_ATTENTION_FLUSHED);
        }
        disk_futex_wait(&shm->release_seq, seen, failed ? &later : NULL);
    }
    return NULL;
}

/* ---- start and end ---- */

static int redo_record(struct disk_log *log, const struct disk_record *record)
{
    if (!disk_log_has(log, record->offset, record->len))
        return -EPROTO;
    if (record->type == DISK_RECORD_WRITE)
        return disk_image_write(log->image, record->data, record->ndata, record->offset, false);
    return disk_image_zero(log->image, record->offset, record->len, record->type == DISK_RECORD_TRIM, false);
}

/* Writes the ring's records to the image again. */
static void redo(struct disk_log *log)
{
    struct disk_shm *shm = log->shm;
    if (!(atomic_load(&shm->flags) & DISK_LOGGING) || (atomic_load(&shm->flags) & DISK_HELD) ||
        disk_ring_is_detached(&log->ring))
        return;
    if (disk_ring_is_to_end(&log->ring)) {
        /*
         * No epoch will have these records, and writes that are durable must not be overwritten by older
         * ones.
         */
        disk_ring_end(&log->ring);
        return;
    }
    uint64_t tail = atomic_load(&shm->tail), from = atomic_load(&shm->logged_from);
    if (from - tail > log->ring.head - tail) /* before tail */
        from = tail;
    struct disk_stream stream;
    struct disk_record record = {0};
    disk_stream_of_ring(&stream, log->ring.bytes, log->ring.len, from, log->ring.head - from);
    int status;
    while ((status = disk_stream_next(&stream, &record)) > 0) {
        status = redo_record(log, &record);
        if (status < 0)
            break;
    }
    if (status == 0 && (atomic_load(&shm->flags) & DISK_DURABLE) && fdatasync(log->image) < 0)
        status = -errno;
    if (status < 0) {
        /*
         * The image may then differ from the peer's. The map has the chunks, so a synchronisation finds
         * them.
         */
        disk_ring_detach(&log->ring);
        disk_log_report(log, status, record.offset);
    }
}

int disk_log_start(struct disk_log *log)
{
    redo(log);
    if (log->shared && (atomic_load(&log->shm->flags) & DISK_HELD)) {
        int held = disk_held_rebuild(&log->held, log->ring.head);
        if (held < 0)
            return held;
    }
    if (disk_ring_order_waits(&log->ring))
        take_up_order(log); /* if it cannot be now, the listener tries again */
    /* The predecessor may have been killed after setting bits and before signalling them. */
    if (atomic_load(&log->shm->attention))
        disk_ring_signal(&log->ring, 0);
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int status = -pthread_create(&log->listener, NULL, listen_for_orders, log);
    log->listens = status == 0;
    if (status == 0 && log->shared) {
        status = -pthread_create(&log->flusher, NULL, flush_released, log);
        log->flushes = status == 0;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return status;
}

static void stop_thread(struct disk_log *log, pthread_t thread, _Atomic uint32_t *word)
{
    struct timespec at;
    atomic_store(&log->stop, true);
    /* It may be just before its wait, and the word it waits on is the replicator's: wake it until it is gone.
     */
    do {
        disk_futex_wake(word);
        clock_gettime(CLOCK_REALTIME, &at);
        at.tv_nsec += 1000000;
        at.tv_sec += at.tv_nsec / 1000000000;
        at.tv_nsec %= 1000000000;
    } while (pthread_timedjoin_np(thread, NULL, &at) == ETIMEDOUT);
}

void disk_log_close(struct disk_log *log)
{
    if (!log)
        return;
    if (log->listens)
        stop_thread(log, log->listener, &log->shm->wanted_seq);
    if (log->flushes)
        stop_thread(log, log->flusher, &log->shm->release_seq);
    disk_held_destroy(&log->held);
    range_lock_destroy(&log->ranges);
    disk_ring_destroy(&log->ring);
    munmap(log->shm, log->mapped_len);
    free(log);
}
