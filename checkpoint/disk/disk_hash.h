/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Hashes of an image's chunks: whether two hosts' images agree without sending them. SHA-256 (FIPS 180-4, by
 * GnuTLS): a guest chooses what its disk holds, and must not be able to choose two chunks that pass for
 * equal.
 */
#ifndef UNDERSTUDY_CHECKPOINT_DISK_HASH_H
#define UNDERSTUDY_CHECKPOINT_DISK_HASH_H

#include <stdint.h>

#define DISK_HASH_LEN 32u

/*
 * Hashes of nchunks chunks of DISK_CHUNK_LEN bytes from first_chunk on, DISK_HASH_LEN bytes each. The image's
 * last chunk may be short. Holes are not read: their hash is known. 0 or -errno: -EINVAL: beyond the disk.
 * Any thread.
 */
int disk_hash_chunks(int fd, uint64_t disk_len, uint64_t first_chunk, uint32_t nchunks, uint8_t *hashes);

#endif
