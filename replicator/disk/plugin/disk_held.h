/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Keeps a shared disk's held changes (disk_log.h, DISK_HELD). They are only in the log ring until the epoch
 * that has them is safe on the other host; then they are written to the image, in order. Reads see the image
 * and, over it, the held changes.
 *
 * The list of held changes is private to this process. The ring has the data, and a producer that starts on
 * the shared memory of a killed one builds the list from the ring again.
 *
 * Locks: `list_lock` is a read-write lock on the list. `flush_lock` is held by the thread that writes to
 * the image, so that a change of mode can wait until no thread does. Order: flush_lock, then list_lock.
 */
#ifndef UNDERSTUDY_REPLICATOR_DISK_HELD_H
#define UNDERSTUDY_REPLICATOR_DISK_HELD_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "checkpoint/disk/disk_record.h"
#include "replicator/disk/disk_log.h"

struct held_change {
    uint64_t position, end; /* of its record in the ring */
    uint64_t offset, len;   /* of the disk */
    enum disk_record_type type;
};

struct disk_held {
    struct disk_shm *shm;
    uint8_t *ring;
    uint64_t ring_len, export_len;
    int image;
    pthread_mutex_t flush_lock;
    pthread_rwlock_t list_lock;
    struct held_change *list; /* guarded: n of them from first on, by position */
    size_t first, n, capacity;
};

void disk_held_init(struct disk_held *held, struct disk_shm *shm, uint64_t ring_len, uint64_t export_len,
                    int image);
void disk_held_destroy(struct disk_held *held);
/* Builds the list from the ring, from shm->flushed to head, before anything else. Returns 0 or -errno. */
int disk_held_rebuild(struct disk_held *held, uint64_t head);
/* Adds the newest record, which the ring has at position. Returns 0 or -ENOMEM. Under the ring's mutex. */
int disk_held_add(struct disk_held *held, const struct disk_record *record, uint64_t position);
/* Reads the disk as the guest has written it. Returns 0 or -errno. Any thread. */
int disk_held_read(struct disk_held *held, void *buffer, size_t len, uint64_t offset);
/*
 * Writes the held changes before position `upto` to the image, and moves shm->flushed. Only while
 * DISK_WRITABLE is in force. Returns 0, or -errno: then the rest is still held.
 */
int disk_held_flush(struct disk_held *held, uint64_t upto);

#endif
