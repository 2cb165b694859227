/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Computes CRC32C (Castagnoli, RFC 3720 appendix B.4) by isa-l, at about the speed of a memory read. Any
 * thread. */
#ifndef UNDERSTUDY_PROTO_CRC32C_H
#define UNDERSTUDY_PROTO_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* Returns crc continued over len bytes; begin with 0. */
uint32_t crc32c(uint32_t crc, const void *bytes, size_t len);

#endif
