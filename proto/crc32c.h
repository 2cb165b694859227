/* SPDX-License-Identifier: GPL-2.0-or-later */
/* CRC32C (Castagnoli, RFC 3720 appendix B.4), by isa-l: as fast as the memory is read. Any thread. */
#ifndef UNDERSTUDY_PROTO_CRC32C_H
#define UNDERSTUDY_PROTO_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* Continues crc (0 to begin) over len bytes. */
uint32_t crc32c(uint32_t crc, const void *bytes, size_t len);

#endif
