/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A journal file that somebody made up: opening, replaying and using it must end, within its bytes. The input
 * is flags, the two superblocks, the mark and the ring, close together; by the flags, checksums are made
 * right, which no fuzzer guesses, and the superblock's capacity the file's.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "checkpoint/disk/disk_journal_internal.h"
#include "proto/crc32c.h"
#include "proto/little_endian.h"

#define CAPACITY 8192u

enum { RIGHT_SUPERBLOCKS = 1, RIGHT_CAPACITY = 2, RIGHT_MARK = 4, RIGHT_ENTRIES = 8, CUT = 16, OLD = 32 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void take(const uint8_t **data, size_t *len, uint8_t *out, size_t want)
{
    size_t n = *len < want ? *len : want;
    memcpy(out, *data, n);
    *data += n;
    *len -= n;
}

static void sign(uint8_t *bytes, size_t len)
{
    put32(bytes + len - 4, crc32c(0, bytes, len - 4));
}

/* From the tail that the first superblock names, as far as lengths lead. */
static void sign_entries(uint8_t *file, uint8_t *linear)
{
    uint8_t *ring = file + DISK_JOURNAL_RING_OFFSET;
    uint64_t position = get64(file + 32) % CAPACITY / DISK_JOURNAL_ALIGN * DISK_JOURNAL_ALIGN;
    uint64_t sequence = get64(file + 40);
    for (uint64_t used = 0; used + 128 <= CAPACITY; sequence++) {
        uint64_t at = (position + used) % CAPACITY;
        put32(ring + at, DISK_JOURNAL_ENTRY_MAGIC);
        put64(ring + at + 8, sequence);
        put64(ring + at + 24, get64(file + 32) + used);
        sign(ring + at, DISK_JOURNAL_HEADER_LEN);
        uint64_t stream_len = get64(ring + at + 48);
        if (stream_len > CAPACITY - used - 128)
            break;
        uint64_t len = (DISK_JOURNAL_HEADER_LEN + stream_len + DISK_JOURNAL_END_LEN + 63) & ~63ull;
        for (uint64_t i = 0; i < len; i++)
            linear[i] = ring[(at + i) % CAPACITY];
        put32(linear + len - 8, DISK_JOURNAL_END_MAGIC);
        sign(linear, len);
        for (uint64_t i = len - 8; i < len; i++)
            ring[(at + i) % CAPACITY] = linear[i];
        used += len;
    }
}

static int check(void *opaque, uint64_t term, uint64_t epoch, const struct disk_stream *writes)
{
    static const uint64_t disk_len[2] = {1 << 20, 1 << 20};
    unsigned *n = opaque;
    (void)term;
    (void)epoch;
    if (++*n > CAPACITY / DISK_JOURNAL_ALIGN)
        abort();
    return disk_stream_check(writes, disk_len, 2);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static uint8_t file[DISK_JOURNAL_RING_OFFSET + CAPACITY], linear[CAPACITY];
    static char path[64];
    static const uint8_t boot[DISK_MAP_BOOT_LEN] = {0};
    uint8_t flags = 0;
    memset(file, 0, sizeof file);
    take(&data, &len, &flags, 1);
    take(&data, &len, file, DISK_JOURNAL_SUPER_LEN);
    take(&data, &len, file + DISK_JOURNAL_BLOCK_LEN, DISK_JOURNAL_SUPER_LEN);
    take(&data, &len, file + DISK_JOURNAL_MARK_OFFSET, DISK_JOURNAL_MARK_LEN);
    take(&data, &len, file + DISK_JOURNAL_RING_OFFSET, CAPACITY);
    for (unsigned slot = 0; slot < 2 && flags & RIGHT_SUPERBLOCKS; slot++) {
        uint8_t *superblock = file + slot * DISK_JOURNAL_BLOCK_LEN;
        put64(superblock, DISK_JOURNAL_MAGIC);
        put32(superblock + 8, DISK_JOURNAL_VERSION);
        if (flags & RIGHT_CAPACITY)
            put64(superblock + 24, CAPACITY);
        /* Counters near their end, which no journal reaches; one that claims to is made anew one day. */
        for (unsigned at = 16; at < 64 && !(flags & OLD); at += 8)
            put64(superblock + at, get64(superblock + at) & (UINT64_MAX >> 3));
        sign(superblock, DISK_JOURNAL_SUPER_LEN);
    }
    if (flags & RIGHT_MARK) {
        put64(file + DISK_JOURNAL_MARK_OFFSET, DISK_JOURNAL_MARK_MAGIC);
        sign(file + DISK_JOURNAL_MARK_OFFSET, DISK_JOURNAL_MARK_LEN);
    }
    if (flags & RIGHT_ENTRIES)
        sign_entries(file, linear);

    snprintf(path, sizeof path, "/dev/shm/fuzz-disk-journal-%d", getpid());
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    size_t file_len = flags & CUT ? sizeof file - (size_t)flags * 80 : sizeof file;
    if (fd < 0 || write(fd, file, file_len) != (ssize_t)file_len)
        abort();
    close(fd);

    struct disk_journal *journal = NULL;
    struct disk_stream stream = {{{linear, 300}, {linear + 500, 20}}};
    unsigned n = 0;
    if (disk_journal_open_on_boot(&journal, path, CAPACITY, boot) == 0) {
        int64_t status = disk_journal_replay(journal, check, &n);
        if (status >= 0 && disk_journal_used(journal) > CAPACITY)
            abort();
        /* Whatever it was, once trimmed it is a journal that keeps what it is given. */
        if ((status >= 0 || status == -EBADMSG) &&
            (disk_journal_trim(journal) < 0 || disk_journal_append(journal, 1, 2, &stream) < 0))
            abort();
        disk_journal_close(journal);
        if ((status < 0 && status != -EBADMSG) || flags & OLD)
            goto done;
        n = 0;
        memset(linear, 0, sizeof linear);
        if (disk_journal_open_on_boot(&journal, path, CAPACITY, boot) < 0 ||
            disk_journal_replay(journal, check, &n) == -EBADMSG || n != 1)
            abort();
        disk_journal_close(journal);
    }
done:
    unlink(path);
    return 0;
}
