/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The log ring on its producer's side (disk_log.h describes it): appending records, waiting for room,
 * giving logging up, and the signals to the replicator. Any thread.
 */
#ifndef UNDERSTUDY_REPLICATOR_DISK_RING_H
#define UNDERSTUDY_REPLICATOR_DISK_RING_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "checkpoint/disk/disk_record.h"
#include "replicator/disk/disk_log.h"

struct disk_held;

struct disk_ring {
    struct disk_shm *shm;
    uint8_t *bytes;
    uint64_t len;           /* of bytes; shm says the same, but another process can write there */
    uint64_t head;          /* likewise */
    uint64_t marked_tail;   /* tail when DISK_ATTENTION_MARK was last signalled */
    uint64_t gave_up_tail;  /* end of the room when a held change last waited and got none */
    struct disk_held *held; /* of a shared disk; else NULL */
    int attention;
    unsigned room_wait_ms, held_wait_ms;
    pthread_mutex_t mutex; /* of head, marked_tail, gave_up_tail and all beyond head in bytes */
};

/* Initialises the ring. shm has been mapped and checked; attention is an eventfd. Both stay the caller's. */
void disk_ring_init(struct disk_ring *ring, struct disk_shm *shm, int attention);
void disk_ring_destroy(struct disk_ring *ring);
/*
 * Appends the record with its data (data_len bytes). After 0 the record is in the ring, or detached is set
 * because the wait for room was too long or an order to stop logging waits. With DISK_HELD, after 0 the
 * record is in the ring; after an error the change is not made. -ENOSPC: there was no room for too long;
 * until there is room again, no other change waits. -EAGAIN: there is no room and an order waits: call
 * disk_ring_let_order_pass. Other errors are those of disk_held_add.
 */
int disk_ring_append(struct disk_ring *ring, const struct disk_record *record, const void *data);
/*
 * Waits until no order waits any more, for a change that got -EAGAIN and has released its range. False: the
 * time (CLOCK_MONOTONIC) is over.
 */
bool disk_ring_let_order_pass(struct disk_ring *ring, const struct timespec *until);
/* Gives logging up until an order turns it on again. */
void disk_ring_detach(struct disk_ring *ring);
/* Does the same without signalling the replicator, because its own order is the reason. */
void disk_ring_end(struct disk_ring *ring);
/* Returns whether an order waits, of whatever kind. */
bool disk_ring_order_waits(const struct disk_ring *ring);
/* Returns whether an order to turn logging off waits. */
bool disk_ring_is_to_end(const struct disk_ring *ring);
/* Returns whether logging was given up. */
bool disk_ring_is_detached(const struct disk_ring *ring);
/* Sets bits of enum disk_attention and signals the replicator. */
void disk_ring_signal(struct disk_ring *ring, uint32_t bits);
/*
 * Returns the memory of the ring's free part to the kernel, in steps, while no thread appends. For a ring
 * that a burst has filled and that has been idle since. shm_fd: the shared memory. Never waits.
 */
void disk_ring_give_back(struct disk_ring *ring, int shm_fd);

#endif
