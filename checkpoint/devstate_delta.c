/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Encodes the difference of two device states, and applies it. Runs of differences that are closer together
 * than a record's own cost are sent as one. The decoder's input is untrusted: every record is checked
 * against the lengths.
 */
#include "checkpoint/devstate_delta.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#define RECORD_HEAD 8u
#define MERGE_GAP   16u

static void put32(uint8_t *at, uint32_t value)
{
    value = htole32(value);
    memcpy(at, &value, 4);
}

static uint32_t get32(const uint8_t *at)
{
    uint32_t value;
    memcpy(&value, at, 4);
    return le32toh(value);
}

/* Returns the first position from `at` on where `now` differs from `old`. Beyond old's end everything
 * differs. */
static size_t next_difference(const uint8_t *now, size_t now_len, const uint8_t *old, size_t old_len,
                              size_t at)
{
    size_t common = now_len < old_len ? now_len : old_len;
    while (at + 64 <= common && memcmp(now + at, old + at, 64) == 0)
        at += 64;
    while (at < common && now[at] == old[at])
        at++;
    return at;
}

/* Returns the end of the run of differences that begins at `at`: the place where MERGE_GAP equal bytes
 * follow. */
static size_t run_end(const uint8_t *now, size_t now_len, const uint8_t *old, size_t old_len, size_t at)
{
    size_t common = now_len < old_len ? now_len : old_len, end = at;
    while (at < common && at - end < MERGE_GAP) {
        if (now[at] != old[at])
            end = at + 1;
        at++;
    }
    return at >= common && common < now_len && at - end < MERGE_GAP ? now_len : end;
}

ssize_t devstate_delta_encode(uint8_t *out, size_t capacity, const uint8_t *now, size_t now_len,
                              const uint8_t *old, size_t old_len)
{
    size_t used = 4, at = 0;
    if (capacity < 4 || now_len > UINT32_MAX)
        return -ENOSPC;
    put32(out, (uint32_t)now_len);
    while ((at = next_difference(now, now_len, old, old_len, at)) < now_len) {
        size_t end = at >= old_len ? now_len : run_end(now, now_len, old, old_len, at);
        size_t len = end - at;
        if (capacity - used < RECORD_HEAD + len)
            return -ENOSPC;
        put32(out + used, (uint32_t)at);
        put32(out + used + 4, (uint32_t)len);
        memcpy(out + used + RECORD_HEAD, now + at, len);
        used += RECORD_HEAD + len;
        at = end;
    }
    return (ssize_t)used;
}

int devstate_delta_apply(uint8_t *state, size_t *len, size_t capacity, const uint8_t *delta, size_t delta_len)
{
    if (delta_len < 4)
        return -EPROTO;
    size_t total = get32(delta), at = 4, lowest = 0;
    if (total > capacity)
        return -EPROTO;
    if (total > *len)
        memset(state + *len, 0, total - *len);
    while (at < delta_len) {
        if (delta_len - at < RECORD_HEAD)
            return -EPROTO;
        size_t offset = get32(delta + at), n = get32(delta + at + 4);
        at += RECORD_HEAD;
        if (n == 0 || n > delta_len - at || offset < lowest || offset > total || n > total - offset)
            return -EPROTO;
        memcpy(state + offset, delta + at, n);
        at += n;
        lowest = offset + n;
    }
    *len = total;
    return 0;
}
