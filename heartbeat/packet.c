/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See packet.h. magic 0, version 4, role 8, zero 12, term 16, sequence 24, token 32, zero 48, crc 52. */
#include "heartbeat/packet.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#include "proto/crc32c.h"
#include "proto/epoch_wire.h"

_Static_assert(HEARTBEAT_TOKEN_LEN == WIRE_TOKEN_LEN, "one token for both");

struct packet {
    uint32_t magic, version, role, zero;
    uint64_t term, sequence;
    uint8_t token[HEARTBEAT_TOKEN_LEN];
    uint32_t zero2, crc;
};
_Static_assert(sizeof(struct packet) == HEARTBEAT_LEN, "wire layout");

void heartbeat_encode(const struct heartbeat *heartbeat, uint8_t out[HEARTBEAT_LEN])
{
    struct packet packet = {
        .magic = htole32(HEARTBEAT_MAGIC),
        .version = htole32(HEARTBEAT_VERSION),
        .role = htole32(heartbeat->role),
        .term = htole64(heartbeat->term),
        .sequence = htole64(heartbeat->sequence),
    };
    memcpy(packet.token, heartbeat->token, sizeof packet.token);
    packet.crc = htole32(crc32c(0, &packet, offsetof(struct packet, crc)));
    memcpy(out, &packet, sizeof packet);
}

int heartbeat_decode(struct heartbeat *heartbeat, const uint8_t *bytes, size_t len, const uint8_t *token)
{
    struct packet packet;
    if (len != sizeof packet)
        return -EPROTO;
    memcpy(&packet, bytes, sizeof packet);
    if (le32toh(packet.magic) != HEARTBEAT_MAGIC || le32toh(packet.version) != HEARTBEAT_VERSION ||
        le32toh(packet.crc) != crc32c(0, &packet, offsetof(struct packet, crc)) || packet.zero ||
        packet.zero2 || !wire_token_equal(packet.token, token))
        return -EPROTO;
    memcpy(heartbeat->token, packet.token, sizeof heartbeat->token);
    heartbeat->term = le64toh(packet.term);
    heartbeat->sequence = le64toh(packet.sequence);
    heartbeat->role = le32toh(packet.role);
    return heartbeat->role == WIRE_ROLE_PRIMARY || heartbeat->role == WIRE_ROLE_SECONDARY ? 0 : -EPROTO;
}
