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
 * Maps and checks the shared memory, and changes nothing. Returns 0, or -errno with a static sentence in *why
 * that says what is wrong.
 */
int disk_log_open(struct disk_log **out, const struct disk_log_descriptors *descriptors, const char **why);
/* Sets how long a change waits for room in the ring before logging is given up. Default: DISK_ROOM_WAIT_MS.
 */
void disk_log_set_room_wait(struct disk_log *log, unsigned milliseconds);
/*
 * Starts the producer, before the first request: writes the ring's records to the image, carries out the
 * waiting order, and starts a thread that waits for orders (so: after the last fork). 0 or -errno.
 */
int disk_log_start(struct disk_log *log);
/* Ends the thread and unmaps the memory. No request may be under way. NULL is allowed. */
void disk_log_close(struct disk_log *log);

/* Returns the disk's length in bytes. */
uint64_t disk_log_export_len(const struct disk_log *log);

/*
 * The requests. Any thread. Each returns 0 or -errno. -EPERM: offset + len is beyond the disk, or the disk is
 * not writable here. Other errors are the image's; the shared memory then has them too.
 */
int disk_log_read(struct disk_log *log, void *buffer, uint32_t len, uint64_t offset);
int disk_log_write(struct disk_log *log, const void *data, uint32_t len, uint64_t offset);
/* Makes the range read as zeroes. may_trim: its blocks may be returned to the file system. */
int disk_log_zero(struct disk_log *log, uint64_t len, uint64_t offset, bool may_trim);
/*
 * Returns in *is_hole whether the image has a hole at offset, and in *extent_len for how many bytes from
 * there that is so, at most len. Waits for changes under way in [offset, offset + len), so that none of them
 * is reported as a hole. Returns 0 or -errno.
 */
int disk_log_extent(struct disk_log *log, uint64_t len, uint64_t offset, bool *is_hole, uint64_t *extent_len);
/* Asks the kernel to read ahead. */
int disk_log_cache(struct disk_log *log, uint32_t len, uint64_t offset);

#endif
