/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The memory of a disk's log ring (disk_log.h). Each side returns to the kernel the pages that are its own.
 */
#ifndef UNDERSTUDY_REPLICATOR_DISK_LOG_MEMORY_H
#define UNDERSTUDY_REPLICATOR_DISK_LOG_MEMORY_H

#include <fcntl.h>
#include <stdint.h>

#include "replicator/disk/disk_log.h"

#define DISK_LOG_PAGE_LEN 4096u

/*
 * Returns the whole pages of [from, to), positions that count bytes and never wrap, to the kernel: they
 * read as zeroes, and are allocated again once they are written. shm_fd is of the shared memory. A failure
 * costs memory and nothing else. See fallocate(2).
 */
static inline void disk_log_give_back(int shm_fd, uint64_t ring_len, uint64_t from, uint64_t to)
{
    from = (from + DISK_LOG_PAGE_LEN - 1) / DISK_LOG_PAGE_LEN * DISK_LOG_PAGE_LEN;
    to = to / DISK_LOG_PAGE_LEN * DISK_LOG_PAGE_LEN;
    while (from < to) {
        uint64_t at = from % ring_len, before_end = ring_len - at;
        uint64_t len = to - from < before_end ? to - from : before_end;
        fallocate(shm_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(DISK_SHM_RING_OFFSET + at),
                  (off_t)len);
        from += len;
    }
}

#endif
