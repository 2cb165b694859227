/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Hashes the chunks of an image, so that two hosts can compare their images without sending them. The hash is
 * SHA-256 (FIPS 180-4, by GnuTLS), because the guest chooses what its disk holds: it must not be able to make
 * two different chunks with one hash.
 */
#ifndef UNDERSTUDY_CHECKPOINT_DISK_HASH_H
#define UNDERSTUDY_CHECKPOINT_DISK_HASH_H

#include <stdint.h>

#define DISK_HASH_LEN 32u

/*
 * Hashes nchunks chunks of DISK_CHUNK_LEN bytes from first_chunk on. Each hash has DISK_HASH_LEN bytes. The
 * image's last chunk may be short. Holes are not read, because their hash is known. Returns 0 or -errno
 * (-EINVAL: beyond the disk). Any thread.
 */
int disk_hash_chunks(int fd, uint64_t disk_len, uint64_t first_chunk, uint32_t nchunks, uint8_t *hashes);

#endif
