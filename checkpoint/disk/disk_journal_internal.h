/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The journal file's format, for disk_journal.c and its tests. Little-endian; the table is in
 * docs/disk-formats.md.
 */
#ifndef UNDERSTUDY_CHECKPOINT_DISK_JOURNAL_INTERNAL_H
#define UNDERSTUDY_CHECKPOINT_DISK_JOURNAL_INTERNAL_H

#include "checkpoint/disk/disk_journal.h"
#include "checkpoint/disk/disk_map_internal.h"

#define DISK_JOURNAL_MAGIC        0x314c4e524a445355ull /* "USDJRNL1" */
#define DISK_JOURNAL_MARK_MAGIC   0x314b524d4a445355ull /* "USDJMRK1" */
#define DISK_JOURNAL_ENTRY_MAGIC  0x544e454au           /* "JENT" */
#define DISK_JOURNAL_END_MAGIC    0x444e454au           /* "JEND" */
#define DISK_JOURNAL_VERSION      1u
#define DISK_JOURNAL_BLOCK_LEN    4096u
#define DISK_JOURNAL_MARK_OFFSET  (2 * DISK_JOURNAL_BLOCK_LEN)
#define DISK_JOURNAL_RING_OFFSET  (3 * DISK_JOURNAL_BLOCK_LEN)
#define DISK_JOURNAL_SUPER_LEN    72u
#define DISK_JOURNAL_MARK_LEN     64u
#define DISK_JOURNAL_HEADER_LEN   64u
#define DISK_JOURNAL_END_LEN      8u
#define DISK_JOURNAL_ALIGN        64u /* a header never straddles the ring's end */
#define DISK_JOURNAL_MAX_CAPACITY (1ull << 36)

/* disk_journal_open on the boot given. */
int disk_journal_open_on_boot(struct disk_journal **out, const char *path, uint64_t capacity,
                              const uint8_t boot_id[DISK_MAP_BOOT_LEN]);

#endif
