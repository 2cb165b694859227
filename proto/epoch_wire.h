/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Encodes and decodes the bytes between two replicators. All numbers are little-endian. A message is a header
 * of WIRE_HEADER_LEN bytes, which has its own CRC, and a payload. The payload of MESSAGE_EPOCH is, in this
 * order:
 *
 *   struct wire_epoch    counts, lengths, used length of each RAM block
 *   page index           npages page_refs (checkpoint/staging.h)
 *   device state         a delta against the last epoch's on this connection (checkpoint/devstate_delta.h)
 *   pages                4096 bytes for each page_ref without PAGE_REF_ZERO, in order
 *   disk section         records (checkpoint/disk/disk_record.h), padded with zeroes to whole pages
 *   struct wire_commit   CRC32C over all parts above, and the numbers again
 *
 * Decoders are pure functions over a buffer: they allocate nothing, check every length, and return 0, -EPROTO
 * for invalid bytes or -EPROTONOSUPPORT for another version. docs/wire-format.md has the tables.
 */
#ifndef UNDERSTUDY_PROTO_EPOCH_WIRE_H
#define UNDERSTUDY_PROTO_EPOCH_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WIRE_MAGIC         0x31505355u /* "USP1" */
#define WIRE_COMMIT_MAGIC  0x54494d43u /* "CMIT" */
#define WIRE_VERSION       4u
#define WIRE_TOKEN_LEN     16u
#define WIRE_MAX_BLOCKS    64u
#define WIRE_IDSTR_LEN     128u
#define WIRE_HEADER_LEN    48u
#define WIRE_COMMIT_LEN    40u
#define WIRE_EPOCH_LEN     (32u + 8u * WIRE_MAX_BLOCKS)
#define WIRE_HELLO_MAX_LEN (72u + WIRE_MAX_BLOCKS * (WIRE_IDSTR_LEN + 8u))
#define WIRE_PAGE_LEN      4096u

struct wire_header {
    uint16_t type; /* enum message_type */
    uint32_t arg;
    uint64_t term;
    uint64_t epoch;
    uint64_t payload_len;
    uint32_t payload_crc; /* CRC32C; 0 for an epoch, which has a commit record */
};

void wire_header_encode(const struct wire_header *header, uint8_t out[WIRE_HEADER_LEN]);
int wire_header_decode(struct wire_header *header, const uint8_t bytes[WIRE_HEADER_LEN]);

struct wire_epoch {
    uint32_t kind; /* enum staged_kind */
    uint32_t npages;
    uint32_t ndata; /* pages that carry bytes */
    uint32_t nblocks;
    uint64_t delta_len;
    uint64_t disk_len; /* bytes of the disk section; on the wire it is padded to whole pages */
    uint64_t used_len[WIRE_MAX_BLOCKS];
};

void wire_epoch_encode(const struct wire_epoch *epoch, uint8_t out[WIRE_EPOCH_LEN]);
/* Returns the number of pages that the disk section takes. */
uint64_t wire_epoch_disk_pages(const struct wire_epoch *epoch);
/* Returns the bytes of an epoch after its header, commit record included. */
uint64_t wire_epoch_payload_len(const struct wire_epoch *epoch);
/* Decodes, and checks the counts against the limits and payload_len against the sum of the parts. max_pages
 * limits the pages of data and disk section together, and the entries of the index. */
int wire_epoch_decode(struct wire_epoch *epoch, const uint8_t bytes[WIRE_EPOCH_LEN], uint64_t payload_len,
                      uint32_t max_pages, uint64_t max_delta_len);

struct wire_commit {
    uint32_t crc;
    uint64_t term, epoch;
    uint32_t npages, ndata;
};

void wire_commit_encode(const struct wire_commit *commit, uint8_t out[WIRE_COMMIT_LEN]);
int wire_commit_decode(struct wire_commit *commit, const uint8_t bytes[WIRE_COMMIT_LEN]);

enum wire_role { WIRE_ROLE_PRIMARY = 1, WIRE_ROLE_SECONDARY = 2 };

/* The full synchronisation from which an image stems (failover/image_origin.c). number 0: none. */
struct wire_origin {
    uint64_t run, number;
};

/* origin: of the secondary's image, or of the image that the primary can bring up to date. next: only from
 * the primary: the origin that the image gets if a full synchronisation follows. */
struct wire_images {
    struct wire_origin origin, next;
};

struct wire_hello {
    uint8_t token[WIRE_TOKEN_LEN];
    uint64_t term;
    uint32_t role; /* enum wire_role */
    uint32_t nblocks;
    struct wire_images images;
    struct {
        char idstr[WIRE_IDSTR_LEN];
        uint64_t max_len;
    } blocks[WIRE_MAX_BLOCKS];
};

/* Returns the bytes written, or -ENOSPC. */
int wire_hello_encode(const struct wire_hello *hello, uint8_t *out, size_t capacity);
int wire_hello_decode(struct wire_hello *hello, const uint8_t *bytes, size_t len);
/* Compares two tokens of WIRE_TOKEN_LEN bytes in constant time. */
bool wire_token_equal(const uint8_t *a, const uint8_t *b);
/* Returns whether both sides have the same RAM blocks: names and lengths, in the same order. */
bool wire_hello_same_layout(const struct wire_hello *a, const struct wire_hello *b);

#endif
