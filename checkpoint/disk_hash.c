/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See disk_hash.h. */
#include "checkpoint/disk_hash.h"

#include <errno.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoint/disk_image.h"

/* SHA-256 of DISK_CHUNK_LEN zeroes. */
static const uint8_t hash_of_zeroes[DISK_HASH_LEN] = {
    0xde, 0x2f, 0x25, 0x60, 0x64, 0xa0, 0xaf, 0x79, 0x77, 0x47, 0xc2, 0xb9, 0x75, 0x05, 0xdc, 0x0b,
    0x9f, 0x3d, 0xf0, 0xde, 0x4f, 0x48, 0x9e, 0xac, 0x73, 0x1c, 0x23, 0xae, 0x9c, 0xa9, 0xcc, 0x31,
};

static int hash_chunk(int fd, uint64_t offset, uint32_t len, uint8_t *buffer, uint8_t *hash)
{
    if (len == DISK_CHUNK_LEN && disk_image_is_hole(fd, offset, len)) {
        memcpy(hash, hash_of_zeroes, DISK_HASH_LEN);
        return 0;
    }
    int status = disk_image_read(fd, buffer, len, offset);
    if (status < 0)
        return status;
    return gnutls_hash_fast(GNUTLS_DIG_SHA256, buffer, len, hash) == 0 ? 0 : -EIO;
}

int disk_hash_chunks(int fd, uint64_t disk_len, uint64_t first_chunk, uint32_t nchunks, uint8_t *hashes)
{
    uint8_t *buffer = malloc(DISK_CHUNK_LEN);
    int status = buffer ? 0 : -ENOMEM;
    for (uint32_t i = 0; i < nchunks && status == 0; i++) {
        uint64_t offset = (first_chunk + i) * DISK_CHUNK_LEN;
        if (offset >= disk_len)
            status = -EINVAL;
        else
            status = hash_chunk(fd, offset,
                                disk_len - offset < DISK_CHUNK_LEN ? (uint32_t)(disk_len - offset)
                                                                   : DISK_CHUNK_LEN,
                                buffer, hashes + (size_t)i * DISK_HASH_LEN);
    }
    free(buffer);
    return status;
}
