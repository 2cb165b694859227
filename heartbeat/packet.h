/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One heartbeat: a UDP datagram of fixed size. It says what this side does and carries a query to the peer
 * (docs/session.md). The same bytes travel on the link as MESSAGE_BEAT. Little-endian.
 *
 * Where the VM's links are sealed, a tag tells this VM's pair from everything else that may reach the port.
 * The tag is made with a key of the host that sends, and of the path by which it sends: a packet that is sent
 * back to its sender, or recorded on one network and sent on another, has the wrong tag. Otherwise the
 * session token stands in the tag's place, and a CRC32C at the end. The sequence number makes replays useless
 * (heartbeat/window.h).
 */
#ifndef UNDERSTUDY_HEARTBEAT_PACKET_H
#define UNDERSTUDY_HEARTBEAT_PACKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/seal_keys.h"

/* Networks that carry heartbeats, besides the way to the peer's own address. */
#define HEARTBEAT_PATHS_MAX 3

#define HEARTBEAT_LEN       72u
#define HEARTBEAT_TOKEN_LEN 16u
#define HEARTBEAT_MAGIC     0x31425355u /* "USB1" */
#define HEARTBEAT_VERSION   2u
#define HEARTBEAT_TAGGED    3u         /* the version of a packet with a tag */
#define HEARTBEAT_LINK      UINT32_MAX /* stands for the link among the paths */
#define HEARTBEAT_STANDINGS 7u         /* numbers below it are known: enum session_standing */

struct heartbeat {
    uint8_t token[HEARTBEAT_TOKEN_LEN];
    uint64_t term;
    uint64_t sequence; /* grows by one a packet; starts at the sender's clock, so that a restart does not go
                          back */
    uint64_t query;    /* answer this number at once, 0: nothing is asked */
    uint64_t answer;   /* newest query heard */
    uint32_t role;     /* enum wire_role */
    uint32_t standing; /* enum session_standing */
    bool deaf;         /* nothing comes by the checkpoints' network */
};

void heartbeat_encode(const struct heartbeat *heartbeat, uint8_t out[HEARTBEAT_LEN]);
/* Untrusted: -EPROTO for anything that is not a heartbeat with this token. Pure. */
int heartbeat_decode(struct heartbeat *heartbeat, const uint8_t *bytes, size_t len, const uint8_t *token);

/* Makes the tagger of what a host of the pair sends (term_host). NULL and errno. */
struct seal_tagger *heartbeat_tagger_new(const uint8_t secret[SEAL_SECRET_LEN], unsigned host);
/* The same with a tag, for one path (its number, or HEARTBEAT_LINK). The token is not sent. */
void heartbeat_encode_tagged(const struct heartbeat *heartbeat, struct seal_tagger *tagger, uint32_t path,
                             uint8_t out[HEARTBEAT_LEN]);
/* Untrusted: -EPROTO for anything but a heartbeat with that host's tag that was sent by that path. */
int heartbeat_decode_tagged(struct heartbeat *heartbeat, const uint8_t *bytes, size_t len,
                            struct seal_tagger *tagger, uint32_t path);

#endif
