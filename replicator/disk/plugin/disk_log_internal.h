/* SPDX-License-Identifier: GPL-2.0-or-later */
/* struct disk_log, the producer of a disk's log; for disk_log_open.c and disk_log_write.c only. */
#ifndef UNDERSTUDY_REPLICATOR_DISK_LOG_INTERNAL_H
#define UNDERSTUDY_REPLICATOR_DISK_LOG_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "checkpoint/disk/disk_map.h"
#include "replicator/disk/disk_log.h"
#include "replicator/disk/plugin/disk_held.h"
#include "replicator/disk/plugin/disk_log_write.h"
#include "replicator/disk/plugin/disk_ring.h"
#include "replicator/disk/plugin/range_lock.h"

struct disk_log {
    struct disk_shm *shm; /* shared with the replicator; the rest is this process's own */
    size_t mapped_len;
    uint64_t export_len;
    uint16_t disk;
    int image, shm_fd;
    struct disk_map_view map;
    struct disk_ring ring;
    struct range_lock ranges;
    struct disk_held held; /* of a shared disk */
    bool shared;
    uint64_t cold_head; /* listener: head when the ring's memory was last returned to the kernel */
    pthread_t listener, flusher;
    bool listens, flushes;
    atomic_bool stop;
};

/* Reports a failure of the image to the replicator. Returns status. */
int disk_log_report(struct disk_log *log, int status, uint64_t offset);

/* Returns whether the range lies within the disk. */
static inline bool disk_log_has(const struct disk_log *log, uint64_t offset, uint64_t len)
{
    return offset <= log->export_len && len <= log->export_len - offset;
}

#endif
