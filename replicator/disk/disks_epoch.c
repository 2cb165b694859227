/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The primary's part of an epoch, on the capture thread. The pause only loads two words for each disk. The
 * records are copied to staging once the guest runs again; then the ring has room again. While the guest
 * writes slowly, the ring's pages are returned to the kernel gradually, so that resident memory does not
 * grow without bound. While it writes fast, the pages are kept: faulting a page in again, in two processes,
 * takes longer than the write itself. The plugin returns them when the burst is over (disk_ring_give_back).
 *
 * An epoch whose boundary found the log detached is dropped, and so is a log that does not decode: nbdkit's
 * memory is not trusted.
 */
#include <errno.h>

#include "checkpoint/disk/disk_section.h"
#include "common/futex.h"
#include "replicator/disk/disk_log_memory.h"
#include "replicator/disk/disks_internal.h"

#define GIVE_BACK_LEN (2u << 20) /* well below the mark, which counts from tail */
#define SLOW_EPOCHS   8          /* in which no more than GIVE_BACK_LEN is written */

bool disks_may_pause(const struct disks *disks)
{
    for (unsigned i = 0; i < disks_count(disks); i++) {
        const struct disk *disk = &disks->disk[i];
        if (disk->shared && (atomic_load(&disk->shm->flags) & DISK_HELD) &&
            atomic_load(&disk->shm->head) - atomic_load(&disk->shm->flushed) > disk->ring_len / 2)
            return false;
    }
    return true;
}

void disks_limit_logs(struct disks *disks, uint64_t bytes)
{
    if (disks && bytes)
        disks->log_limit = bytes;
    for (unsigned i = 0; i < disks_count(disks); i++) {
        struct disk_shm *shm = disks->disk[i].shm;
        uint64_t before = atomic_exchange(&shm->limit, bytes);
        if (before && (bytes == 0 || bytes > before))
            disk_futex_raise(&shm->room_seq);
    }
}

void disks_boundary(struct disks *disks, uint64_t epoch)
{
    for (unsigned i = 0; i < disks_count(disks); i++) {
        struct disk *disk = &disks->disk[i];
        atomic_store_explicit(&disk->shm->limit, disks->log_limit, memory_order_release);
        disk->cut = atomic_load_explicit(&disk->shm->head, memory_order_acquire);
        disk->cut_detached = atomic_load_explicit(&disk->shm->detached, memory_order_acquire);
        if (disk->shared)
            atomic_store_explicit(&disk->ends[epoch % DISKS_EPOCHS], disk->cut, memory_order_release);
    }
}

/* Checks that the cut part is a stream of this disk's own records. */
static bool log_is_sound(const struct disk *disk, uint64_t tail, uint64_t len)
{
    struct disk_stream stream;
    uint64_t lens[DISK_MAX] = {0}; /* in a disk of no length there is no record */
    if (disk->cut_detached || len > disk->ring_len || len % DISK_RECORD_ALIGN)
        return false;
    lens[disk->number] = disk->disks->len[disk->number];
    disk_stream_of_ring(&stream, disk->ring, disk->ring_len, tail, len);
    return disk_stream_check(&stream, lens, disk->number + 1) == 0;
}

/*
 * Moves tail, since the cut part is in staging. Room is returned only when there is enough of it, and
 * memory before that: beyond tail the plugin writes its next round at once. A shared disk's plugin may do
 * so as soon as the image has the held writes, so none of its ring's memory is returned here.
 */
static void move_tail(struct disk *disk)
{
    uint64_t tail = atomic_load_explicit(&disk->shm->tail, memory_order_relaxed);
    disk->taken = disk->cut;
    disk->epochs_kept++;
    /* The pages that are kept count against the limit. */
    uint64_t limit = disk->disks->log_limit, step = GIVE_BACK_LEN;
    if (disk->cut - tail < (limit && limit / 4 < step ? limit / 4 : step))
        return;
    /* A head that makes no sense is noticed elsewhere. */
    bool is_sane = disk->cut - tail <= disk->ring_len;
    if (disk->epochs_kept > SLOW_EPOCHS && is_sane && !disk->shared)
        disk_log_give_back(disk->shm_fd, disk->ring_len, tail, disk->cut);
    disk->epochs_kept = 0;
    atomic_store_explicit(&disk->shm->tail, disk->cut, memory_order_release);
    disk_futex_raise(&disk->shm->room_seq);
}

void disks_drop_log(struct disks *disks)
{
    for (unsigned i = 0; i < disks_count(disks); i++) {
        struct disk *disk = &disks->disk[i];
        disk->cut = atomic_load_explicit(&disk->shm->head, memory_order_acquire);
        move_tail(disk);
        /* Held writes have to reach the new standby, which may have to write them. */
        if (disk->shared && (atomic_load(&disk->shm->flags) & DISK_HELD))
            disk->taken = atomic_load(&disk->shm->flushed);
    }
}

static uint64_t cut_len(const struct disk *disk)
{
    return disk->cut - disk->taken;
}

static void copy_log(const struct disk *disk, const struct staging *staging, const struct staged_epoch *epoch,
                     uint64_t at)
{
    struct disk_stream stream;
    disk_stream_of_ring(&stream, disk->ring, disk->ring_len, disk->taken, cut_len(disk));
    for (unsigned i = 0; i < 2; i++) {
        disk_section_write(staging, epoch, at, stream.span[i].iov_base, stream.span[i].iov_len);
        at += stream.span[i].iov_len;
    }
}

int disks_collect(struct disks *disks, struct staging *staging, struct staged_epoch *epoch,
                  disks_wait_room wait, void *opaque)
{
    uint64_t len = 0;
    for (unsigned i = 0; i < disks_count(disks); i++) {
        struct disk *disk = &disks->disk[i];
        if (!log_is_sound(disk, disk->taken, cut_len(disk)))
            return -EIO;
        len += cut_len(disk);
    }
    if (len == 0)
        return 0;
    if (staging_disk_pages(len) > staging_capacity_pages(staging) - epoch->nslots)
        return -ENOBUFS; /* staging is made so large that this is not met */
    uint64_t at = 0;
    while (disk_section_reserve(staging, epoch, len) < 0) {
        if (!wait(opaque))
            return -ECANCELED;
    }
    for (unsigned i = 0; i < disks->n; i++) {
        struct disk *disk = &disks->disk[i];
        copy_log(disk, staging, epoch, at);
        at += cut_len(disk);
        move_tail(disk);
    }
    return 0;
}
