/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Hashing without reading more than necessary. Most chunks of most disks are zero: those in holes are known
 * without reading them, and the others by comparing the bytes, which is much faster than hashing them.
 */
#include "checkpoint/disk/disk_hash.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>

#include "checkpoint/disk/disk_image.h"
#include "checkpoint/disk/disk_map.h"

/* SHA-256 of DISK_CHUNK_LEN zeroes. */
static const uint8_t hash_of_zeroes[DISK_HASH_LEN] = {
    0xde, 0x2f, 0x25, 0x60, 0x64, 0xa0, 0xaf, 0x79, 0x77, 0x47, 0xc2, 0xb9, 0x75, 0x05, 0xdc, 0x0b,
    0x9f, 0x3d, 0xf0, 0xde, 0x4f, 0x48, 0x9e, 0xac, 0x73, 0x1c, 0x23, 0xae, 0x9c, 0xa9, 0xcc, 0x31,
};

static bool is_zero(const uint8_t *bytes, size_t len)
{
    /* Compares the bytes with themselves, shifted by one: equal if all of them equal the first. */
    return bytes[0] == 0 && memcmp(bytes, bytes + 1, len - 1) == 0;
}

/*
 * Returns where the next data begins, from offset on; UINT64_MAX: there are only holes. If the file system
 * cannot tell, data begins at offset.
 */
static uint64_t next_data(int fd, uint64_t offset)
{
    off_t data = lseek(fd, (off_t)offset, SEEK_DATA);
    if (data < 0)
        return errno == ENXIO ? UINT64_MAX : offset;
    return (uint64_t)data;
}

static int hash_one(const uint8_t *bytes, size_t len, uint8_t *hash)
{
    if (len == DISK_CHUNK_LEN && is_zero(bytes, len)) {
        memcpy(hash, hash_of_zeroes, DISK_HASH_LEN);
        return 0;
    }
    return gnutls_hash_fast(GNUTLS_DIG_SHA256, bytes, len, hash) < 0 ? -EIO : 0;
}

int disk_hash_chunks(int fd, uint64_t disk_len, uint64_t first_chunk, uint32_t nchunks, uint8_t *hashes)
{
    _Alignas(64) uint8_t bytes[DISK_CHUNK_LEN];
    uint64_t total = disk_len / DISK_CHUNK_LEN + (disk_len % DISK_CHUNK_LEN != 0), data = 0;
    if (disk_len > INT64_MAX || first_chunk > total || nchunks > total - first_chunk)
        return -EINVAL;
    for (uint32_t i = 0; i < nchunks; i++) {
        uint64_t offset = (first_chunk + i) * DISK_CHUNK_LEN;
        size_t len = disk_len - offset < DISK_CHUNK_LEN ? (size_t)(disk_len - offset) : DISK_CHUNK_LEN;
        uint8_t *hash = hashes + (size_t)i * DISK_HASH_LEN;
        if (data <= offset)
            data = next_data(fd, offset);
        if (data >= offset + len && len == DISK_CHUNK_LEN) {
            memcpy(hash, hash_of_zeroes, DISK_HASH_LEN);
            continue;
        }
        int status = disk_image_read(fd, bytes, len, offset);
        if (status == 0)
            status = hash_one(bytes, len, hash);
        if (status < 0)
            return status;
    }
    return 0;
}
