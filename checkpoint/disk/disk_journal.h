/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The standby's journal is one preallocated file, used as a ring. It holds the disk writes of epochs until
 * the images are certain to have them. All writes of an epoch, for all disks, go to the journal with a
 * checksum before the first of them goes to an image. A standby that was killed at any point replays the
 * journal when it returns: the replay writes every whole entry again and ignores a torn one at the end. Then
 * the images are at a whole epoch.
 *
 *   superblock (two places, written in turn): capacity, tail, life, CRC32C
 *   mark: how far appends went, on this boot of the kernel
 *   entries: header with sequence, life, position, term, epoch, length, CRC32C; the record stream
 *            (disk_record.h); CRC32C of all
 *
 * Positions count bytes and never wrap; an entry's place is its position modulo the capacity. The
 * sequence numbers of neighbours follow each other, so an older round's entry is never taken for a newer
 * one's. docs/disk-formats.md has the fields.
 *
 * The journal protects against the death of this process at any instruction. It protects against the death of
 * the host only if each epoch is synced (disk_journal_sync) before it is applied. Without the sync, the death
 * of the host may leave images that are not at a whole epoch. The dirty-block map is then not trusted, and
 * the synchronisation compares hashes.
 *
 * A replay writes old epochs again. So the caller must call disk_journal_trim before the first write that the
 * journal does not have: a synchronisation's chunk, or a write of the guest after a takeover.
 *
 * Not thread-safe.
 */
#ifndef UNDERSTUDY_CHECKPOINT_DISK_JOURNAL_H
#define UNDERSTUDY_CHECKPOINT_DISK_JOURNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "checkpoint/disk/disk_record.h"

struct disk_journal;

/* Called for each whole epoch, oldest first. A negative return ends the replay with that status. */
typedef int (*disk_journal_apply)(void *opaque, uint64_t term, uint64_t epoch,
                                  const struct disk_stream *writes);

/*
 * Opens the journal, or makes one of capacity bytes (of entries, rounded up to 4096), preallocated. A file
 * that is not a journal of this version is made anew. A journal with entries keeps its capacity until a
 * replay finds none. 0 or -errno: -EBUSY: another process has it open.
 */
int disk_journal_open(struct disk_journal **out, const char *path, uint64_t capacity);
/* Returns whether no journal was found: then an epoch may have been applied in part, and nothing tells. */
bool disk_journal_is_new(const struct disk_journal *journal);
void disk_journal_close(struct disk_journal *journal);
/*
 * Applies the whole entries, oldest first. To be called once, after open and before the first append.
 * Returns the number of epochs replayed, or -errno. -EBADMSG: an entry that was whole once is damaged;
 * nothing was applied, the images may be no epoch, and only disk_journal_trim (which drops the entries) or
 * close may follow. The stream's records have not been checked (disk_stream_check). Takes memory for the
 * longest entry.
 */
int64_t disk_journal_replay(struct disk_journal *journal, disk_journal_apply apply, void *opaque);
/*
 * Appends one epoch. It is in the file, but not durable yet. -ENOSPC: the ring is full: sync the images, call
 * disk_journal_trim and try again; -EFBIG: larger than the whole journal. An error leaves the journal as it
 * was.
 */
int disk_journal_append(struct disk_journal *journal, uint64_t term, uint64_t epoch,
                        const struct disk_stream *writes);
/* Makes everything appended so far durable. */
int disk_journal_sync(struct disk_journal *journal);
/* Empties the ring, when the images are durable with all that was appended. Durable when it returns, for one
 * small write: it does not wait for entries that are not synced. */
int disk_journal_trim(struct disk_journal *journal);
/* Returns the bytes in use. */
uint64_t disk_journal_used(const struct disk_journal *journal);

#endif
