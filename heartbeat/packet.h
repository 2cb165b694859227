/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One heartbeat: a UDP datagram of fixed size. The session token tells this VM's pair from everything else
 * that may reach the port; the sequence number makes replays of old packets useless. The packet also
 * carries a query to the peer, and says what this side does (docs/session.md). The same bytes travel on the
 * link as MESSAGE_BEAT. Little-endian; CRC32C at the end.
 */
#ifndef UNDERSTUDY_HEARTBEAT_PACKET_H
#define UNDERSTUDY_HEARTBEAT_PACKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Networks that carry heartbeats, besides the way to the peer's own address. */
#define HEARTBEAT_PATHS_MAX 3

#define HEARTBEAT_LEN       72u
#define HEARTBEAT_TOKEN_LEN 16u
#define HEARTBEAT_MAGIC     0x31425355u /* "USB1" */
#define HEARTBEAT_VERSION   2u
#define HEARTBEAT_STANDINGS 7u /* numbers below it are known: enum session_standing */

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

#endif
