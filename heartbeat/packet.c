/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Encodes and decodes a heartbeat. Offsets: magic 0, version 4, role 8, standing 12, term 16, sequence 24,
 * token 32, query 48, answer 56, flags 64 (1: deaf), crc 68.
 */
#include "heartbeat/packet.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#include "proto/crc32c.h"
#include "proto/epoch_wire.h"

_Static_assert(HEARTBEAT_TOKEN_LEN == WIRE_TOKEN_LEN, "one token for both");

#define FLAG_DEAF 1u

struct packet {
    uint32_t magic, version, role, standing;
    uint64_t term, sequence;
    uint8_t token[HEARTBEAT_TOKEN_LEN];
    uint64_t query, answer;
    uint32_t flags, crc;
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
        .standing = htole32(heartbeat->standing),
        .query = htole64(heartbeat->query),
        .answer = htole64(heartbeat->answer),
        .flags = htole32(heartbeat->deaf ? FLAG_DEAF : 0),
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
        le32toh(packet.crc) != crc32c(0, &packet, offsetof(struct packet, crc)) ||
        le32toh(packet.standing) >= HEARTBEAT_STANDINGS || (le32toh(packet.flags) & ~FLAG_DEAF) ||
        !wire_token_equal(packet.token, token))
        return -EPROTO;
    memcpy(heartbeat->token, packet.token, sizeof heartbeat->token);
    heartbeat->term = le64toh(packet.term);
    heartbeat->sequence = le64toh(packet.sequence);
    heartbeat->role = le32toh(packet.role);
    heartbeat->standing = le32toh(packet.standing);
    heartbeat->query = le64toh(packet.query);
    heartbeat->answer = le64toh(packet.answer);
    heartbeat->deaf = le32toh(packet.flags) & FLAG_DEAF;
    return heartbeat->role == WIRE_ROLE_PRIMARY || heartbeat->role == WIRE_ROLE_SECONDARY ? 0 : -EPROTO;
}
