/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Encodes and applies the device state as a delta. The device state is about 80 KB and changes little from
 * epoch to epoch, so only the ranges that differ from the last one are sent. Format, little-endian: u32 total
 * length, then records of u32 offset, u32 length, bytes, in ascending order. Pure functions.
 */
#ifndef UNDERSTUDY_CHECKPOINT_DEVSTATE_DELTA_H
#define UNDERSTUDY_CHECKPOINT_DEVSTATE_DELTA_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Returns the largest length that the delta of a state of len bytes can have. */
static inline size_t devstate_delta_bound(size_t len)
{
    return 4 + len + len / 2 + 64;
}
/* Encodes the state `now` against `old` (old_len may differ, or be 0) into out. Returns the bytes written, or
 * -ENOSPC. */
ssize_t devstate_delta_encode(uint8_t *out, size_t capacity, const uint8_t *now, size_t now_len,
                              const uint8_t *old, size_t old_len);
/*
 * Applies a delta to state (a buffer of capacity bytes, *len of which are the old state) and sets *len. Bytes
 * beyond the old length that no record covers become zero. The delta is untrusted: returns 0, or -EPROTO if
 * anything in it does not fit; then the content of state is undefined.
 */
int devstate_delta_apply(uint8_t *state, size_t *len, size_t capacity, const uint8_t *delta,
                         size_t delta_len);

#endif
