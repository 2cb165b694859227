/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Encodes and decodes a heartbeat. Offsets: magic 0, version 4, role 8, standing 12, term 16, sequence 24,
 * token or tag 32, query 48, answer 56, flags 64 (1: deaf), crc 68 (0 where there is a tag). The tag is taken
 * over the packet with the number of its path, in 4 bytes, in the tag's place.
 */
#include "heartbeat/packet.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#include "proto/crc32c.h"
#include "proto/epoch_wire.h"

_Static_assert(HEARTBEAT_TOKEN_LEN == WIRE_TOKEN_LEN, "one token for both");
_Static_assert(HEARTBEAT_TOKEN_LEN == SEAL_TAG_LEN, "one place for both");

#define FLAG_DEAF 1u

struct packet {
    uint32_t magic, version, role, standing;
    uint64_t term, sequence;
    uint8_t token[HEARTBEAT_TOKEN_LEN];
    uint64_t query, answer;
    uint32_t flags, crc;
};
_Static_assert(sizeof(struct packet) == HEARTBEAT_LEN, "wire layout");

static struct packet fill(const struct heartbeat *heartbeat, uint32_t version)
{
    return (struct packet){
        .magic = htole32(HEARTBEAT_MAGIC),
        .version = htole32(version),
        .role = htole32(heartbeat->role),
        .term = htole64(heartbeat->term),
        .sequence = htole64(heartbeat->sequence),
        .standing = htole32(heartbeat->standing),
        .query = htole64(heartbeat->query),
        .answer = htole64(heartbeat->answer),
        .flags = htole32(heartbeat->deaf ? FLAG_DEAF : 0),
    };
}

void heartbeat_encode(const struct heartbeat *heartbeat, uint8_t out[HEARTBEAT_LEN])
{
    struct packet packet = fill(heartbeat, HEARTBEAT_VERSION);
    memcpy(packet.token, heartbeat->token, sizeof packet.token);
    packet.crc = htole32(crc32c(0, &packet, offsetof(struct packet, crc)));
    memcpy(out, &packet, sizeof packet);
}

/* Checks and takes all but the token or tag. */
static int take(struct heartbeat *heartbeat, const struct packet *packet, uint32_t version)
{
    if (le32toh(packet->magic) != HEARTBEAT_MAGIC || le32toh(packet->version) != version ||
        le32toh(packet->standing) >= HEARTBEAT_STANDINGS || (le32toh(packet->flags) & ~FLAG_DEAF))
        return -EPROTO;
    heartbeat->term = le64toh(packet->term);
    heartbeat->sequence = le64toh(packet->sequence);
    heartbeat->role = le32toh(packet->role);
    heartbeat->standing = le32toh(packet->standing);
    heartbeat->query = le64toh(packet->query);
    heartbeat->answer = le64toh(packet->answer);
    heartbeat->deaf = le32toh(packet->flags) & FLAG_DEAF;
    return heartbeat->role == WIRE_ROLE_PRIMARY || heartbeat->role == WIRE_ROLE_SECONDARY ? 0 : -EPROTO;
}

int heartbeat_decode(struct heartbeat *heartbeat, const uint8_t *bytes, size_t len, const uint8_t *token)
{
    struct packet packet;
    if (len != sizeof packet)
        return -EPROTO;
    memcpy(&packet, bytes, sizeof packet);
    if (le32toh(packet.crc) != crc32c(0, &packet, offsetof(struct packet, crc)) ||
        !wire_token_equal(packet.token, token))
        return -EPROTO;
    memcpy(heartbeat->token, packet.token, sizeof heartbeat->token);
    return take(heartbeat, &packet, HEARTBEAT_VERSION);
}

struct seal_tagger *heartbeat_tagger_new(const uint8_t secret[SEAL_SECRET_LEN], unsigned host)
{
    return seal_tagger_new(secret, host ? "heartbeat of host 1" : "heartbeat of host 0");
}

static void put_path(struct packet *packet, uint32_t path)
{
    memset(packet->token, 0, sizeof packet->token);
    path = htole32(path);
    memcpy(packet->token, &path, sizeof path);
}

void heartbeat_encode_tagged(const struct heartbeat *heartbeat, struct seal_tagger *tagger, uint32_t path,
                             uint8_t out[HEARTBEAT_LEN])
{
    struct packet packet = fill(heartbeat, HEARTBEAT_TAGGED);
    uint8_t tag[SEAL_TAG_LEN];
    put_path(&packet, path);
    seal_tag(tagger, &packet, sizeof packet, tag);
    memcpy(packet.token, tag, sizeof tag);
    memcpy(out, &packet, sizeof packet);
}

int heartbeat_decode_tagged(struct heartbeat *heartbeat, const uint8_t *bytes, size_t len,
                            struct seal_tagger *tagger, uint32_t path)
{
    struct packet packet;
    uint8_t tag[SEAL_TAG_LEN];
    if (len != sizeof packet)
        return -EPROTO;
    memcpy(&packet, bytes, sizeof packet);
    memcpy(tag, packet.token, sizeof tag);
    put_path(&packet, path);
    if (!seal_tag_is_right(tagger, &packet, sizeof packet, tag) || packet.crc != 0)
        return -EPROTO;
    memset(heartbeat->token, 0, sizeof heartbeat->token);
    return take(heartbeat, &packet, HEARTBEAT_TAGGED);
}
