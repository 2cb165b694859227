/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The standby's journal: one preallocated file, used as a ring, that holds the disk writes of epochs until
 * the images have them for certain. An epoch's writes of all disks go to the journal as a whole, with a
 * checksum, before the first of them goes to an image; so a standby that is killed anywhere between finds,
 * when it comes back, its images at a whole epoch: replay writes again what the journal has whole, and
 * ignores a torn end.
 *
 *   superblock (two copies, written in turn): magic, version, capacity, tail position and sequence, CRC32C
 *   entries: magic, sequence, term, epoch, length, CRC32C of the header; the record stream (disk_record.h);
 * CRC32C of all
 *
 * Positions are bytes and count on for ever; an entry's place is its position modulo the capacity. The
 * sequence numbers of neighbours follow each other, so an older round's entry is never taken for a newer
 * one's.
 *
 * Not thread-safe.
 */
#ifndef UNDERSTUDY_CHECKPOINT_DISK_JOURNAL_H
#define UNDERSTUDY_CHECKPOINT_DISK_JOURNAL_H

#include <stddef.h>
#include <stdint.h>

#include "checkpoint/disk_record.h"

struct disk_journal;

/* Called for each whole epoch, oldest first. A negative return ends the replay with that status. */
typedef int (*disk_journal_apply)(void *opaque, uint64_t term, uint64_t epoch,
                                  const struct disk_stream *writes);

/* Opens or makes it, capacity bytes preallocated. A file that is no journal of this version is made anew. 0
 * or -errno. */
int disk_journal_open(struct disk_journal **out, const char *path, uint64_t capacity);
void disk_journal_close(struct disk_journal *journal);
/* To be done once, after open and before the first append. The number of epochs replayed, or -errno. */
int64_t disk_journal_replay(struct disk_journal *journal, disk_journal_apply apply, void *opaque);
/*
 * Appends one epoch: in the file, not yet durable. -ENOSPC: the ring is full: sync the images,
 * disk_journal_trim, try again; -EFBIG: larger than the whole journal. An error leaves the journal as it was.
 */
int disk_journal_append(struct disk_journal *journal, uint64_t term, uint64_t epoch,
                        const struct disk_stream *writes);
/* What was appended is durable when it returns. */
int disk_journal_sync(struct disk_journal *journal);
/* The images are durable with all that was appended so far: the ring is empty again. */
int disk_journal_trim(struct disk_journal *journal);
/* Bytes in use. */
uint64_t disk_journal_used(const struct disk_journal *journal);

#endif
