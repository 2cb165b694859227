/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Encodes and decodes what the RDMA transport adds to the wire format of epochs: the prefix of each SEND, the
 * grant, the record that commits an epoch, and the private data of the connection. Little-endian. Decoders
 * are pure and return 0, or -EPROTO for invalid bytes.
 */
#ifndef UNDERSTUDY_PROTO_RDMA_WIRE_H
#define UNDERSTUDY_PROTO_RDMA_WIRE_H

#include <stddef.h>
#include <stdint.h>

#include "proto/epoch_wire.h"

#define RDMA_WIRE_VERSION     3u
#define RDMA_WIRE_PREFIX_LEN  32u
#define RDMA_WIRE_GRANT_LEN   64u
#define RDMA_WIRE_COMMIT_LEN  (8u + WIRE_HEADER_LEN + WIRE_COMMIT_LEN)
#define RDMA_WIRE_PRIVATE_LEN (8u + WIRE_TOKEN_LEN)
#define RDMA_WIRE_TICKET_LEN  48u                         /* SEAL_TICKET_LEN */
#define RDMA_WIRE_SEALED_LEN  (8u + RDMA_WIRE_TICKET_LEN) /* the most that InfiniBand carries */

enum rdma_wire_kind {
    RDMA_WIRE_CREDIT = 1, /* nothing follows */
    RDMA_WIRE_FIRST = 2,  /* a wire_header and the beginning of its payload */
    RDMA_WIRE_MORE = 3,   /* the next part of the payload */
    RDMA_WIRE_GRANT = 4,  /* a grant */
};

/* Each SEND says what its sender has freed so far. */
struct rdma_wire_prefix {
    uint32_t kind;
    uint64_t receives;   /* receive buffers posted again since the connection began */
    uint64_t page_tail;  /* pages of staging freed, see struct staging_position */
    uint64_t epoch_tail; /* epochs of staging freed */
};
void rdma_wire_prefix_encode(const struct rdma_wire_prefix *prefix, uint8_t out[RDMA_WIRE_PREFIX_LEN]);
int rdma_wire_prefix_decode(struct rdma_wire_prefix *prefix, const uint8_t *bytes, size_t len);

/* The secondary's staging ring and its present positions. */
struct rdma_wire_grant {
    uint64_t ring_address;
    uint32_t ring_rkey;
    uint32_t capacity_pages, next_slot;
    uint64_t page_head, page_tail, epoch_head, epoch_tail;
};
void rdma_wire_grant_encode(const struct rdma_wire_grant *grant, uint8_t out[RDMA_WIRE_GRANT_LEN]);
int rdma_wire_grant_decode(struct rdma_wire_grant *grant, const uint8_t *bytes, size_t len);

/*
 * The record with which an epoch in the ring begins. The epoch counts once the last of its writes has come, a
 * WRITE_WITH_IMM whose immediate is the ring page where the epoch begins. The record's checksum covers struct
 * wire_epoch, index and device state; the device's own checksum, in each packet, covers the pages.
 */
struct rdma_wire_commit {
    uint64_t sequence; /* epochs taken before it, as in the grant */
    struct wire_header header;
    struct wire_commit commit;
};
void rdma_wire_commit_encode(const struct rdma_wire_commit *commit, uint8_t out[RDMA_WIRE_COMMIT_LEN]);
int rdma_wire_commit_decode(struct rdma_wire_commit *commit, const uint8_t bytes[RDMA_WIRE_COMMIT_LEN]);

/* Writes the private data of a connection request, with the token. */
void rdma_wire_private_encode(const uint8_t token[WIRE_TOKEN_LEN], uint8_t out[RDMA_WIRE_PRIVATE_LEN]);
/* Checks the private data of a request. Returns 0, -EPROTO, -EPROTONOSUPPORT (another version) or -EACCES
 * (another token). len may be greater, since devices may pad. */
int rdma_wire_private_check(const uint8_t token[WIRE_TOKEN_LEN], const uint8_t *bytes, size_t len);
/* The same where links are sealed: a ticket (proto/seal_keys.h), which shows that the secret is known, is in
 * the token's place. */
void rdma_wire_sealed_encode(const uint8_t ticket[RDMA_WIRE_TICKET_LEN], uint8_t out[RDMA_WIRE_SEALED_LEN]);
/* Returns 0 and the ticket's place, -EPROTO or -EPROTONOSUPPORT. The ticket is still to be checked. */
int rdma_wire_sealed_decode(const uint8_t **ticket, const uint8_t *bytes, size_t len);

#endif
