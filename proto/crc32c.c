/* SPDX-License-Identifier: GPL-2.0-or-later */
/* CRC32C by isa-l. Its crc32_iscsi is the bare recurrence: the caller inverts before and after. */
#include "proto/crc32c.h"

#include <isa-l/crc.h>

#define MOST_AT_ONCE (1u << 30) /* its length is an int */

uint32_t crc32c(uint32_t crc, const void *bytes, size_t len)
{
    unsigned char *at = (unsigned char *)(uintptr_t)bytes; /* it only reads */
    crc = ~crc;
    while (len > 0) {
        size_t n = len < MOST_AT_ONCE ? len : MOST_AT_ONCE;
        crc = crc32_iscsi(at, (int)n, crc);
        at += n;
        len -= n;
    }
    return ~crc;
}
