/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * libFuzzer target: a datagram that is accepted encodes to the very bytes it came from. Half of the inputs
 * get a right checksum and the right token, or a right tag: what is behind them is what is to be reached.
 */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "heartbeat/packet.h"
#include "proto/crc32c.h"
#include "proto/epoch_wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t token[HEARTBEAT_TOKEN_LEN] = {1, 2, 3};
    struct heartbeat heartbeat;
    uint8_t again[HEARTBEAT_LEN], mended[HEARTBEAT_LEN];
    if (size == HEARTBEAT_LEN + 1 && (data[HEARTBEAT_LEN] & 1)) {
        memcpy(mended, data, HEARTBEAT_LEN);
        memcpy(mended + 32, token, sizeof token);
        uint32_t crc = crc32c(0, mended, HEARTBEAT_LEN - 4);
        for (unsigned i = 0; i < 4; i++)
            mended[HEARTBEAT_LEN - 4 + i] = (uint8_t)(crc >> (8 * i));
        data = mended;
        size = HEARTBEAT_LEN;
    }
    static struct seal_tagger *tagger;
    if (!tagger)
        tagger = heartbeat_tagger_new((const uint8_t[SEAL_SECRET_LEN]){4, 5, 6}, 1);
    if (size == HEARTBEAT_LEN + 1 &&
        !(data[HEARTBEAT_LEN] & 1)) { /* the tag is taken with the path in its place */
        memcpy(mended, data, HEARTBEAT_LEN);
        memset(mended + 32, 0, SEAL_TAG_LEN);
        seal_tag(tagger, mended, HEARTBEAT_LEN, again);
        memcpy(mended + 32, again, SEAL_TAG_LEN);
        if (heartbeat_decode_tagged(&heartbeat, mended, HEARTBEAT_LEN, tagger, 0) == 0) {
            heartbeat_encode_tagged(&heartbeat, tagger, 0, again);
            assert(memcmp(again, mended, HEARTBEAT_LEN) == 0);
        }
    }
    assert(heartbeat_decode_tagged(&heartbeat, data, size, tagger, 1) < 0);
    if (heartbeat_decode(&heartbeat, data, size, token) < 0)
        return 0;
    assert(heartbeat.role == WIRE_ROLE_PRIMARY || heartbeat.role == WIRE_ROLE_SECONDARY);
    heartbeat_encode(&heartbeat, again);
    assert(size == sizeof again && memcmp(again, data, size) == 0);
    return 0;
}
