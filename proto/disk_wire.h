/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Encodes and decodes the payloads of the messages about disks (replicator/transport/transport.h).
 * Little-endian; decoders return 0, or -EPROTO for an invalid payload.
 *
 *   BITS           words of 8 bytes; bit b of word w is chunk 64 * w + b
 *   STATE          length 8, trusted 4, zero 4, pair id 16
 *   PAIR           pair id 16
 *   HASH_REQUEST   count 4
 *   HASHES         32 bytes each, as many as were asked for
 */
#ifndef UNDERSTUDY_PROTO_DISK_WIRE_H
#define UNDERSTUDY_PROTO_DISK_WIRE_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "proto/little_endian.h"

#define WIRE_PAIR_ID_LEN      16u
#define WIRE_DISK_STATE_LEN   (16u + WIRE_PAIR_ID_LEN)
#define WIRE_HASH_LEN         32u
#define WIRE_MAX_HASHES       256u /* chunks of one request */
#define WIRE_DISK_BITS_MAX    65536u
#define WIRE_HASH_REQUEST_LEN 4u

struct wire_disk_state {
    uint64_t len;
    bool trusted;
    uint8_t pair_id[WIRE_PAIR_ID_LEN];
};

static inline void wire_disk_state_encode(const struct wire_disk_state *state,
                                          uint8_t out[WIRE_DISK_STATE_LEN])
{
    uint8_t *at = put64(out, state->len);
    at = put32(at, state->trusted);
    at = put32(at, 0);
    memcpy(at, state->pair_id, WIRE_PAIR_ID_LEN);
}

static inline int wire_disk_state_decode(struct wire_disk_state *state, const uint8_t *bytes, size_t len)
{
    if (len != WIRE_DISK_STATE_LEN || get32(bytes + 8) > 1 || get32(bytes + 12) != 0)
        return -EPROTO;
    state->len = get64(bytes);
    state->trusted = get32(bytes + 8);
    memcpy(state->pair_id, bytes + 16, WIRE_PAIR_ID_LEN);
    return 0;
}

static inline int wire_hash_request_decode(uint32_t *count, const uint8_t *bytes, size_t len)
{
    if (len != WIRE_HASH_REQUEST_LEN || get32(bytes) == 0 || get32(bytes) > WIRE_MAX_HASHES)
        return -EPROTO;
    *count = get32(bytes);
    return 0;
}

#endif
