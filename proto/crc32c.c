/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * See crc32c.h. One crc32 instruction takes three cycles but a new one may start every cycle: a page is
 * therefore done as three streams side by side, joined by shifting the CRC over the length of the following
 * part (a matrix of GF(2), as in Mark Adler's crc32c). The tables are made once, at first use, by
 * constructor.
 */
#include "proto/crc32c.h"

#include <stdbool.h>
#include <string.h>

#define POLYNOMIAL 0x82f63b78u
#define LANE       1360u /* three lanes make 4080 bytes of a page */

static uint32_t byte_table[256];
static uint32_t lane_shift[4][256]; /* moves a CRC over LANE zero bytes */
static bool has_instruction;

static uint32_t times(const uint32_t *matrix, uint32_t vector)
{
    uint32_t sum = 0;
    for (; vector; vector >>= 1, matrix++) {
        if (vector & 1)
            sum ^= *matrix;
    }
    return sum;
}

static void make_lane_shift(void)
{
    uint32_t matrix[32];
    /* Column i: what bit i of a CRC becomes after LANE zero bytes. */
    for (unsigned i = 0; i < 32; i++) {
        uint32_t crc = 1u << i;
        for (unsigned n = 0; n < LANE; n++)
            crc = (crc >> 8) ^ byte_table[crc & 0xff];
        matrix[i] = crc;
    }
    for (unsigned k = 0; k < 4; k++) {
        for (uint32_t n = 0; n < 256; n++)
            lane_shift[k][n] = times(matrix, n << (8 * k));
    }
}

__attribute__((constructor)) static void make_tables(void)
{
    for (uint32_t n = 0; n < 256; n++) {
        uint32_t crc = n;
        for (int k = 0; k < 8; k++)
            crc = crc & 1 ? (crc >> 1) ^ POLYNOMIAL : crc >> 1;
        byte_table[n] = crc;
    }
    make_lane_shift();
#if defined(__x86_64__)
    __builtin_cpu_init();
    has_instruction = __builtin_cpu_supports("sse4.2");
#endif
}

static uint32_t by_table(uint32_t crc, const uint8_t *at, size_t len)
{
    while (len--)
        crc = (crc >> 8) ^ byte_table[(crc ^ *at++) & 0xff];
    return crc;
}

#if defined(__x86_64__)
static uint32_t shift_lane(uint32_t crc)
{
    return lane_shift[0][crc & 0xff] ^ lane_shift[1][(crc >> 8) & 0xff] ^ lane_shift[2][(crc >> 16) & 0xff] ^
           lane_shift[3][crc >> 24];
}

static uint64_t load64(const uint8_t *at)
{
    uint64_t word;
    memcpy(&word, at, 8);
    return word;
}

__attribute__((target("sse4.2"))) static uint32_t by_instruction(uint32_t start, const uint8_t *at,
                                                                 size_t len)
{
    uint64_t crc = start;
    while (len >= 3 * LANE) {
        uint64_t second = 0, third = 0;
        for (size_t i = 0; i < LANE; i += 8) {
            crc = __builtin_ia32_crc32di(crc, load64(at + i));
            second = __builtin_ia32_crc32di(second, load64(at + LANE + i));
            third = __builtin_ia32_crc32di(third, load64(at + 2 * LANE + i));
        }
        crc = shift_lane((uint32_t)crc) ^ (uint32_t)second;
        crc = shift_lane((uint32_t)crc) ^ (uint32_t)third;
        at += 3 * LANE;
        len -= 3 * LANE;
    }
    for (; len >= 8; len -= 8, at += 8)
        crc = __builtin_ia32_crc32di(crc, load64(at));
    for (; len; len--)
        crc = __builtin_ia32_crc32qi((uint32_t)crc, *at++);
    return (uint32_t)crc;
}
#endif

uint32_t crc32c(uint32_t crc, const void *bytes, size_t len)
{
#if defined(__x86_64__)
    if (has_instruction)
        return ~by_instruction(~crc, bytes, len);
#endif
    return ~by_table(~crc, bytes, len);
}
