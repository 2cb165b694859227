/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Encoders and decoders of the RDMA transport's own fields (rdma_wire.h). A comment before each gives the
 * offsets.
 */
#include "proto/rdma_wire.h"

#include <errno.h>
#include <string.h>

#include "proto/little_endian.h"

#define SEALED_MAGIC  0x53505355u /* "USPS" */
#define PRIVATE_MAGIC 0x52505355u /* "USPR" */

/* kind 0, zero 4, receives 8, page tail 16, epoch tail 24 */
void rdma_wire_prefix_encode(const struct rdma_wire_prefix *prefix, uint8_t out[RDMA_WIRE_PREFIX_LEN])
{
    uint8_t *at = put32(out, prefix->kind);
    at = put32(at, 0);
    at = put64(at, prefix->receives);
    at = put64(at, prefix->page_tail);
    put64(at, prefix->epoch_tail);
}

int rdma_wire_prefix_decode(struct rdma_wire_prefix *prefix, const uint8_t *bytes, size_t len)
{
    if (len < RDMA_WIRE_PREFIX_LEN)
        return -EPROTO;
    *prefix = (struct rdma_wire_prefix){
        .kind = get32(bytes),
        .receives = get64(bytes + 8),
        .page_tail = get64(bytes + 16),
        .epoch_tail = get64(bytes + 24),
    };
    return prefix->kind >= RDMA_WIRE_CREDIT && prefix->kind <= RDMA_WIRE_GRANT ? 0 : -EPROTO;
}

/* ring address 0, rkey 8, capacity 12, next slot 16, zero 20, page head 24, page tail 32, epoch head 40,
 * epoch tail 48, zero 56 */
void rdma_wire_grant_encode(const struct rdma_wire_grant *grant, uint8_t out[RDMA_WIRE_GRANT_LEN])
{
    uint8_t *at = put64(out, grant->ring_address);
    at = put32(at, grant->ring_rkey);
    at = put32(at, grant->capacity_pages);
    at = put32(at, grant->next_slot);
    at = put32(at, 0);
    at = put64(at, grant->page_head);
    at = put64(at, grant->page_tail);
    at = put64(at, grant->epoch_head);
    at = put64(at, grant->epoch_tail);
    put64(at, 0);
}

int rdma_wire_grant_decode(struct rdma_wire_grant *grant, const uint8_t *bytes, size_t len)
{
    if (len < RDMA_WIRE_GRANT_LEN)
        return -EPROTO;
    *grant = (struct rdma_wire_grant){
        .ring_address = get64(bytes),
        .ring_rkey = get32(bytes + 8),
        .capacity_pages = get32(bytes + 12),
        .next_slot = get32(bytes + 16),
        .page_head = get64(bytes + 24),
        .page_tail = get64(bytes + 32),
        .epoch_head = get64(bytes + 40),
        .epoch_tail = get64(bytes + 48),
    };
    return grant->capacity_pages > 0 && grant->next_slot < grant->capacity_pages &&
                   grant->page_head >= grant->page_tail && grant->epoch_head >= grant->epoch_tail &&
                   grant->page_head - grant->page_tail <= grant->capacity_pages
               ? 0
               : -EPROTO;
}

/* sequence 0, header 8, commit record 56 */
void rdma_wire_commit_encode(const struct rdma_wire_commit *commit, uint8_t out[RDMA_WIRE_COMMIT_LEN])
{
    uint8_t *at = put64(out, commit->sequence);
    wire_header_encode(&commit->header, at);
    wire_commit_encode(&commit->commit, at + WIRE_HEADER_LEN);
}

int rdma_wire_commit_decode(struct rdma_wire_commit *commit, const uint8_t bytes[RDMA_WIRE_COMMIT_LEN])
{
    commit->sequence = get64(bytes);
    int status = wire_header_decode(&commit->header, bytes + 8);
    return status < 0 ? status : wire_commit_decode(&commit->commit, bytes + 8 + WIRE_HEADER_LEN);
}

/* magic 0, version 4, token 8 */
void rdma_wire_private_encode(const uint8_t token[WIRE_TOKEN_LEN], uint8_t out[RDMA_WIRE_PRIVATE_LEN])
{
    uint8_t *at = put32(out, PRIVATE_MAGIC);
    at = put32(at, RDMA_WIRE_VERSION);
    memcpy(at, token, WIRE_TOKEN_LEN);
}

int rdma_wire_private_check(const uint8_t token[WIRE_TOKEN_LEN], const uint8_t *bytes, size_t len)
{
    if (len < RDMA_WIRE_PRIVATE_LEN || get32(bytes) != PRIVATE_MAGIC)
        return -EPROTO;
    if (get32(bytes + 4) != RDMA_WIRE_VERSION)
        return -EPROTONOSUPPORT;
    return wire_token_equal(token, bytes + 8) ? 0 : -EACCES;
}

/* magic 0, version 4, ticket 8 */
void rdma_wire_sealed_encode(const uint8_t ticket[RDMA_WIRE_TICKET_LEN], uint8_t out[RDMA_WIRE_SEALED_LEN])
{
    uint8_t *at = put32(out, SEALED_MAGIC);
    at = put32(at, RDMA_WIRE_VERSION);
    memcpy(at, ticket, RDMA_WIRE_TICKET_LEN);
}

int rdma_wire_sealed_decode(const uint8_t **ticket, const uint8_t *bytes, size_t len)
{
    if (len < RDMA_WIRE_SEALED_LEN || get32(bytes) != SEALED_MAGIC)
        return -EPROTO;
    if (get32(bytes + 4) != RDMA_WIRE_VERSION)
        return -EPROTONOSUPPORT;
    *ticket = bytes + 8;
    return 0;
}
