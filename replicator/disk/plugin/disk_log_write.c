/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The producer's requests (disk_log_write.h): what a read, a write, a zero or a trim does, step by step. */
#include "replicator/disk/plugin/disk_log_write.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "checkpoint/disk/disk_image.h"
#include "checkpoint/disk/disk_record.h"
#include "common/futex.h"
#include "replicator/disk/plugin/disk_chaos.h"
#include "replicator/disk/plugin/disk_log_internal.h"

int disk_log_report(struct disk_log *log, int status, uint64_t offset)
{
    if (status < 0) {
        atomic_store(&log->shm->last_errno, (uint32_t)-status);
        atomic_store(&log->shm->last_error_offset, offset);
        disk_ring_signal(&log->ring, DISK_ATTENTION_ERROR);
    }
    return status;
}

/* Locks the change's range, and reads the flags, which hold until end_change. */
static int begin_change(struct disk_log *log, struct range *range, uint64_t offset, uint64_t len,
                        uint32_t *flags)
{
    if (!disk_log_has(log, offset, len))
        return -EPERM;
    if (disk_chaos_has("no-range-lock"))
        range_acquire(&log->ranges, range, UINT64_MAX, 0);
    else
        range_acquire(&log->ranges, range, offset, len);
    *flags = atomic_load(&log->shm->flags);
    if (!(*flags & DISK_WRITABLE)) {
        range_release(&log->ranges, range);
        return -EPERM;
    }
    /* A shared image is the other host's too: nothing is ever to be synchronised, so it needs no map. */
    if (!disk_chaos_has("mark-last") && !log->shared)
        disk_map_mark(&log->map, atomic_load(&log->shm->active_map), offset, len);
    disk_chaos_step("marked");
    return 0;
}

/*
 * Appends the change's record. data: of a write, otherwise NULL. 0; with DISK_HELD also -errno: the change
 * fails.
 */
static int log_change(struct disk_log *log, enum disk_record_type type, uint64_t offset, uint64_t len,
                      const uint8_t *data)
{
    int status = 0;
    do {
        uint64_t piece = data && len > DISK_RECORD_MAX_DATA ? DISK_RECORD_MAX_DATA : len;
        struct disk_record record = {
            .type = type,
            .disk = log->disk,
            .offset = offset,
            .len = piece,
            .data_len = data ? (uint32_t)piece : 0,
        };
        status = disk_ring_append(&log->ring, &record, data);
        data += data ? piece : 0;
        offset += piece;
        len -= piece;
    } while (len > 0 && status == 0);
    return status;
}

/*
 * Logs what the image has after it refused a change that is in the ring, and that it may have in part. The
 * peer's image is then the same. If that cannot be read, logging ends.
 */
static void mend(struct disk_log *log, uint64_t offset, uint64_t len)
{
    uint8_t *now = len <= DISK_RECORD_MAX_DATA ? malloc(len) : NULL;
    if (now && disk_image_read(log->image, now, len, offset) == 0)
        log_change(log, DISK_RECORD_WRITE, offset, len, now);
    else
        disk_ring_detach(&log->ring);
    free(now);
}

static int end_change(struct disk_log *log, struct range *range, uint64_t offset, uint64_t len,
                      uint32_t flags, int status)
{
    if (disk_chaos_has("mark-last")) {
        disk_chaos_step("imaged");
        disk_map_mark(&log->map, atomic_load(&log->shm->active_map), offset, len);
    }
    if (status < 0 && (flags & DISK_LOGGING))
        mend(log, offset, len);
    disk_chaos_step("imaged");
    range_release(&log->ranges, range);
    return disk_log_report(log, status, offset);
}

/* The image has nothing of it yet. No room in the ring is no failure of the image. */
static int end_held(struct disk_log *log, struct range *range, uint64_t offset, int status)
{
    range_release(&log->ranges, range);
    return status == -ENOSPC || status == -EAGAIN ? status : disk_log_report(log, status, offset);
}

/*
 * One try of a change: into the log, the image, or both, as the mode says. `data`: of a WRITE. -EAGAIN: there
 * is no room for it in the log, and an order waits.
 */
static int try_change(struct disk_log *log, enum disk_record_type type, const void *data, uint64_t len,
                      uint64_t offset)
{
    struct range range;
    uint32_t flags;
    int status = begin_change(log, &range, offset, len, &flags);
    if (status < 0)
        return status;
    struct iovec iov = {(void *)(uintptr_t)data, len};
    if (flags & DISK_HELD) {
        if (disk_chaos_has("not-held") && type == DISK_RECORD_WRITE)
            disk_image_write(log->image, &iov, 1, offset, false);
        return end_held(log, &range, offset, log_change(log, type, offset, len, data));
    }
    if (flags & DISK_LOGGING)
        log_change(log, type, offset, len, data);
    disk_chaos_step("appended");
    bool durable = flags & DISK_DURABLE;
    status = type == DISK_RECORD_WRITE
                 ? disk_image_write(log->image, &iov, 1, offset, durable)
                 : disk_image_zero(log->image, offset, len, type == DISK_RECORD_TRIM, durable);
    return end_change(log, &range, offset, len, flags, status);
}

/*
 * The path of every change. One that was put into the log in part is put there again as a whole: until it is
 * answered, nobody may rely on either.
 */
static int change_range(struct disk_log *log, enum disk_record_type type, const void *data, uint64_t len,
                        uint64_t offset)
{
    int status;
    if (len == 0)
        return 0;
    struct timespec until = disk_futex_in_ms(log->ring.held_wait_ms);
    while ((status = try_change(log, type, data, len, offset)) == -EAGAIN) {
        if (!disk_ring_let_order_pass(&log->ring, &until))
            return -ENOSPC;
    }
    if (status < 0)
        return status;
    atomic_fetch_add_explicit(&log->shm->writes, 1, memory_order_relaxed);
    if (type == DISK_RECORD_WRITE)
        atomic_fetch_add_explicit(&log->shm->write_bytes, len, memory_order_relaxed);
    return 0;
}

int disk_log_write(struct disk_log *log, const void *data, uint32_t len, uint64_t offset)
{
    return change_range(log, DISK_RECORD_WRITE, data, len, offset);
}

int disk_log_zero(struct disk_log *log, uint64_t len, uint64_t offset, bool may_trim)
{
    return change_range(log, may_trim ? DISK_RECORD_TRIM : DISK_RECORD_ZERO, NULL, len, offset);
}

int disk_log_read(struct disk_log *log, void *buffer, uint32_t len, uint64_t offset)
{
    if (!disk_log_has(log, offset, len))
        return -EPERM;
    atomic_fetch_add_explicit(&log->shm->reads, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&log->shm->read_bytes, len, memory_order_relaxed);
    int status = log->shared ? disk_held_read(&log->held, buffer, len, offset)
                             : disk_image_read(log->image, buffer, len, offset);
    return disk_log_report(log, status, offset);
}

int disk_log_extent(struct disk_log *log, uint64_t len, uint64_t offset, bool *is_hole, uint64_t *extent_len)
{
    struct range range;
    if (!disk_log_has(log, offset, len))
        return -EPERM;
    if (log->shared) { /* the image does not know what is held over it */
        *is_hole = false;
        *extent_len = len;
        return 0;
    }
    range_acquire(&log->ranges, &range, offset, len);
    off_t data = lseek(log->image, (off_t)offset, SEEK_DATA);
    /* ENXIO: nothing but a hole up to the file's end, and what is beyond reads as zeroes. */
    off_t end = data < 0 && errno == ENXIO ? INT64_MAX : data;
    *is_hole = end > (off_t)offset;
    if (!*is_hole)
        end = data < 0 ? -1 : lseek(log->image, (off_t)offset, SEEK_HOLE);
    range_release(&log->ranges, &range);
    /* A file system that cannot tell has data all over. */
    *extent_len = end < (off_t)offset || (uint64_t)end - offset > len ? len : (uint64_t)end - offset;
    return 0;
}

int disk_log_cache(struct disk_log *log, uint32_t len, uint64_t offset)
{
    return disk_log_has(log, offset, len)
               ? -posix_fadvise(log->image, (off_t)offset, len, POSIX_FADV_WILLNEED)
               : -EPERM;
}
