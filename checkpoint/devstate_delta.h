/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The device state is some 80 KB and changes little from epoch to epoch: it travels as the ranges that differ
 * from the last one. Format, little-endian: u32 total length, then records of u32 offset, u32 length, bytes,
 * in ascending order.
 */
#ifndef UNDERSTUDY_CHECKPOINT_DEVSTATE_DELTA_H
#define UNDERSTUDY_CHECKPOINT_DEVSTATE_DELTA_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Largest encoding of len bytes. */
static inline size_t devstate_delta_bound(size_t len)
{
    return 4 + len + len / 2 + 64;
}
/* Encodes now against old (old_len may differ, or be 0). Bytes written, or -ENOSPC. */
ssize_t devstate_delta_encode(uint8_t *out, size_t capacity, const uint8_t *now, size_t now_len,
                              const uint8_t *old, size_t old_len);
/*
 * Applies a delta to state (capacity bytes, *len of which are the old state). Untrusted input: -EPROTO on
 * anything that does not fit, and then state is spoilt. Bytes past the old length that no record covers are
 * zero.
 */
int devstate_delta_apply(uint8_t *state, size_t *len, size_t capacity, const uint8_t *delta,
                         size_t delta_len);

#endif
