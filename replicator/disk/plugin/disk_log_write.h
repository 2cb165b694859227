/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The producer's side of a disk's log (disk_log.h): what nbdkit's plugin does with each request. It does
 * not use nbdkit, so that tests can drive it alone.
 *
 * A change locks its range of the disk (range_lock.h), marks the dirty-block map, appends its record to the
 * ring if the disk is logging, and changes the image; only then is it answered. A process that is killed in
 * between leaves a map that covers the image, and a ring that has all answered changes. Since a record may
 * be in the ring while the image does not have it yet, a producer that starts on the shared memory of a
 * killed one first writes the ring's records to the image again: the image is then exactly what the ring
 * says.
 *
 * A mode order takes the whole disk as its range: no change is under way when it comes into force.
 */
#ifndef UNDERSTUDY_REPLICATOR_DISK_LOG_WRITE_H
#define UNDERSTUDY_REPLICATOR_DISK_LOG_WRITE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct disk_log;

struct disk_log_descriptors {
    int shm, image, map, attention; /* the caller's; kept open until disk_log_close */
};

/*
 * Maps and checks the shared memory. 0 or -errno; *why is then a sentence (static) that says what is wrong
 * with it. Nothing is changed yet: that is disk_log_start's.
 */
int disk_log_open(struct disk_log **out, const struct disk_log_descriptors *descriptors, const char **why);
/* How long a change waits for room in the ring before logging is given up. DISK_ROOM_WAIT_MS if not called.
 */
void disk_log_set_room_wait(struct disk_log *log, unsigned milliseconds);
/*
 * Starts the producer, before the first request: writes the ring's records to the image, carries out the
 * waiting order, and starts a thread that waits for orders (so: after the last fork). 0 or -errno.
 */
int disk_log_start(struct disk_log *log);
/* Ends the thread and unmaps. No request may be under way. NULL is nothing. */
void disk_log_close(struct disk_log *log);

uint64_t disk_log_export_len(const struct disk_log *log);

/*
 * The requests. Any thread; offset + len is at most the export's length (-EPERM otherwise). 0 or -errno:
 * -EPERM if the disk is not writable here; the image's own error otherwise, which the shared memory then has
 * too.
 */
int disk_log_read(struct disk_log *log, void *buffer, uint32_t len, uint64_t offset);
int disk_log_write(struct disk_log *log, const void *data, uint32_t len, uint64_t offset);
/* may_trim: the blocks may be given back. Reads as zeroes afterwards either way. */
int disk_log_zero(struct disk_log *log, uint64_t len, uint64_t offset, bool may_trim);
/*
 * Tells whether the image has a hole at offset (*is_hole), and for how many bytes from there on that is
 * true, at most len. Waits for changes under way in [offset, offset + len), so that none of them is taken
 * for a hole. 0 or -errno.
 */
int disk_log_extent(struct disk_log *log, uint64_t len, uint64_t offset, bool *is_hole, uint64_t *extent_len);
/* Asks the kernel to read ahead. */
int disk_log_cache(struct disk_log *log, uint32_t len, uint64_t offset);

#endif
