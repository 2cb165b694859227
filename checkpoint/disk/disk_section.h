/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The disk section of a staged epoch: a stream of records (disk_record.h) in ring pages behind the guest's,
 * which may wrap at the ring's end. Filling side of staging, except for the stream.
 */
#ifndef UNDERSTUDY_CHECKPOINT_DISK_SECTION_H
#define UNDERSTUDY_CHECKPOINT_DISK_SECTION_H

#include "checkpoint/disk/disk_record.h"
#include "checkpoint/staging.h"

/* Reserves len bytes in the open epoch. The rest of the last page is zero. Returns 0, or -ENOSPC with nothing
 * reserved. */
int disk_section_reserve(struct staging *staging, struct staged_epoch *epoch, uint64_t len);
/* Writes len bytes at offset `at` of the section. */
void disk_section_write(const struct staging *staging, const struct staged_epoch *epoch, uint64_t at,
                        const void *bytes, size_t len);
/* Opens the section for reading. Any thread that may read the epoch. */
void disk_section_stream(const struct staging *staging, const struct staged_epoch *epoch,
                         struct disk_stream *out);

#endif
