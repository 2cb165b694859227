/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Encoders and strict decoders of headers, epochs, commit records and HELLOs (epoch_wire.h has the layout).
 * Every length is checked against the buffer and against the others before it is used.
 */
#include "proto/epoch_wire.h"

#include <errno.h>
#include <string.h>

#include "proto/crc32c.h"
#include "proto/little_endian.h"

/* magic 0, version 4, type 6, arg 8, payload crc 12, term 16, epoch 24, payload length 32, zero 40, header
 * crc 44 */
void wire_header_encode(const struct wire_header *header, uint8_t out[WIRE_HEADER_LEN])
{
    uint8_t *at = put32(out, WIRE_MAGIC);
    at = put16(at, WIRE_VERSION);
    at = put16(at, header->type);
    at = put32(at, header->arg);
    at = put32(at, header->payload_crc);
    at = put64(at, header->term);
    at = put64(at, header->epoch);
    at = put64(at, header->payload_len);
    at = put32(at, 0);
    put32(at, crc32c(0, out, WIRE_HEADER_LEN - 4));
}

int wire_header_decode(struct wire_header *header, const uint8_t bytes[WIRE_HEADER_LEN])
{
    if (get32(bytes) != WIRE_MAGIC)
        return -EPROTO;
    /* Before the CRC: another version may have another header. */
    if (get16(bytes + 4) != WIRE_VERSION)
        return -EPROTONOSUPPORT;
    if (get32(bytes + 44) != crc32c(0, bytes, WIRE_HEADER_LEN - 4) || get32(bytes + 40) != 0)
        return -EPROTO;
    header->type = get16(bytes + 6);
    header->arg = get32(bytes + 8);
    header->payload_crc = get32(bytes + 12);
    header->term = get64(bytes + 16);
    header->epoch = get64(bytes + 24);
    header->payload_len = get64(bytes + 32);
    return 0;
}

void wire_epoch_encode(const struct wire_epoch *epoch, uint8_t out[WIRE_EPOCH_LEN])
{
    uint8_t *at = put32(out, epoch->kind);
    at = put32(at, epoch->npages);
    at = put32(at, epoch->ndata);
    at = put32(at, epoch->nblocks);
    at = put64(at, epoch->delta_len);
    at = put64(at, epoch->disk_len);
    for (unsigned i = 0; i < WIRE_MAX_BLOCKS; i++)
        at = put64(at, i < epoch->nblocks ? epoch->used_len[i] : 0);
}

uint64_t wire_epoch_disk_pages(const struct wire_epoch *epoch)
{
    return epoch->disk_len / WIRE_PAGE_LEN + (epoch->disk_len % WIRE_PAGE_LEN != 0);
}

uint64_t wire_epoch_payload_len(const struct wire_epoch *epoch)
{
    return WIRE_EPOCH_LEN + 8ull * epoch->npages + epoch->delta_len +
           (uint64_t)WIRE_PAGE_LEN * (epoch->ndata + wire_epoch_disk_pages(epoch)) + WIRE_COMMIT_LEN;
}

int wire_epoch_decode(struct wire_epoch *epoch, const uint8_t bytes[WIRE_EPOCH_LEN], uint64_t payload_len,
                      uint32_t max_pages, uint64_t max_delta_len)
{
    epoch->kind = get32(bytes);
    epoch->npages = get32(bytes + 4);
    epoch->ndata = get32(bytes + 8);
    epoch->nblocks = get32(bytes + 12);
    epoch->delta_len = get64(bytes + 16);
    epoch->disk_len = get64(bytes + 24);
    for (unsigned i = 0; i < WIRE_MAX_BLOCKS; i++)
        epoch->used_len[i] = get64(bytes + 32 + 8 * i);
    if (epoch->kind > 1 || epoch->npages > max_pages || epoch->ndata > epoch->npages ||
        epoch->nblocks > WIRE_MAX_BLOCKS || epoch->delta_len > max_delta_len ||
        wire_epoch_disk_pages(epoch) > max_pages - epoch->ndata)
        return -EPROTO;
    return payload_len == wire_epoch_payload_len(epoch) ? 0 : -EPROTO;
}

void wire_commit_encode(const struct wire_commit *commit, uint8_t out[WIRE_COMMIT_LEN])
{
    uint8_t *at = put32(out, WIRE_COMMIT_MAGIC);
    at = put32(at, commit->crc);
    at = put64(at, commit->term);
    at = put64(at, commit->epoch);
    at = put32(at, commit->npages);
    at = put32(at, commit->ndata);
    at = put32(at, 0);
    put32(at, crc32c(0, out, WIRE_COMMIT_LEN - 4));
}

int wire_commit_decode(struct wire_commit *commit, const uint8_t bytes[WIRE_COMMIT_LEN])
{
    if (get32(bytes) != WIRE_COMMIT_MAGIC ||
        get32(bytes + WIRE_COMMIT_LEN - 4) != crc32c(0, bytes, WIRE_COMMIT_LEN - 4))
        return -EPROTO;
    commit->crc = get32(bytes + 4);
    commit->term = get64(bytes + 8);
    commit->epoch = get64(bytes + 16);
    commit->npages = get32(bytes + 24);
    commit->ndata = get32(bytes + 28);
    return 0;
}

#define HELLO_FIXED_LEN 72u
#define HELLO_BLOCK_LEN (WIRE_IDSTR_LEN + 8u)

int wire_hello_encode(const struct wire_hello *hello, uint8_t *out, size_t capacity)
{
    if (hello->nblocks > WIRE_MAX_BLOCKS)
        return -EINVAL;
    size_t len = HELLO_FIXED_LEN + hello->nblocks * HELLO_BLOCK_LEN;
    if (capacity < len)
        return -ENOSPC;
    memset(out, 0, len);
    memcpy(out, hello->token, WIRE_TOKEN_LEN);
    uint8_t *at = put64(out + WIRE_TOKEN_LEN, hello->term);
    at = put32(at, hello->role);
    at = put32(at, hello->nblocks);
    at = put64(at, 0);
    at = put64(at, hello->images.origin.run);
    at = put64(at, hello->images.origin.number);
    at = put64(at, hello->images.next.run);
    at = put64(at, hello->images.next.number);
    for (unsigned i = 0; i < hello->nblocks; i++) {
        size_t n = strnlen(hello->blocks[i].idstr, WIRE_IDSTR_LEN - 1);
        memcpy(at, hello->blocks[i].idstr, n);
        put64(at + WIRE_IDSTR_LEN, hello->blocks[i].max_len);
        at += HELLO_BLOCK_LEN;
    }
    return (int)len;
}

int wire_hello_decode(struct wire_hello *hello, const uint8_t *bytes, size_t len)
{
    if (len < HELLO_FIXED_LEN)
        return -EPROTO;
    memset(hello, 0, sizeof *hello);
    memcpy(hello->token, bytes, WIRE_TOKEN_LEN);
    hello->term = get64(bytes + 16);
    hello->role = get32(bytes + 24);
    hello->nblocks = get32(bytes + 28);
    hello->images.origin = (struct wire_origin){.run = get64(bytes + 40), .number = get64(bytes + 48)};
    hello->images.next = (struct wire_origin){.run = get64(bytes + 56), .number = get64(bytes + 64)};
    if ((hello->role != WIRE_ROLE_PRIMARY && hello->role != WIRE_ROLE_SECONDARY) ||
        hello->nblocks > WIRE_MAX_BLOCKS || len != HELLO_FIXED_LEN + hello->nblocks * HELLO_BLOCK_LEN)
        return -EPROTO;
    for (unsigned i = 0; i < hello->nblocks; i++) {
        const uint8_t *at = bytes + HELLO_FIXED_LEN + i * HELLO_BLOCK_LEN;
        if (memchr(at, 0, WIRE_IDSTR_LEN) == NULL)
            return -EPROTO;
        memcpy(hello->blocks[i].idstr, at, WIRE_IDSTR_LEN);
        hello->blocks[i].max_len = get64(at + WIRE_IDSTR_LEN);
    }
    return 0;
}

bool wire_token_equal(const uint8_t *a, const uint8_t *b)
{
    uint8_t difference = 0;
    for (unsigned i = 0; i < WIRE_TOKEN_LEN; i++)
        difference |= a[i] ^ b[i];
    return difference == 0;
}

bool wire_hello_same_layout(const struct wire_hello *a, const struct wire_hello *b)
{
    if (a->nblocks != b->nblocks)
        return false;
    for (unsigned i = 0; i < a->nblocks; i++) {
        if (strcmp(a->blocks[i].idstr, b->blocks[i].idstr) != 0 ||
            a->blocks[i].max_len != b->blocks[i].max_len)
            return false;
    }
    return true;
}
