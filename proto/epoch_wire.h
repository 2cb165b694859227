/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The bytes between two replicators. Everything is little-endian. A message is a header of WIRE_HEADER_LEN
 * bytes, with a CRC of its own, and a payload. MESSAGE_EPOCH's payload is, in this order:
 *
 *   struct wire_epoch    counts, lengths, used length of each RAM block
 *   page index           npages page_refs (checkpoint/staging.h)
 *   device state         a delta against the last epoch's on this connection (checkpoint/devstate_delta.h)
 *   pages                4096 bytes for each page_ref without PAGE_REF_ZERO, in order
 *   disk section         records (checkpoint/disk/disk_record.h), padded with zeroes to whole pages
 *   struct wire_commit   CRC32C over all of the above, and the numbers again
 *
 * Decoders here are pure functions over a buffer: no allocation, every length checked, -EPROTO for nonsense
 * and -EPROTONOSUPPORT for another version. docs/wire-format.md has the tables.
 */
#ifndef UNDERSTUDY_PROTO_EPOCH_WIRE_H
#define UNDERSTUDY_PROTO_EPOCH_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WIRE_MAGIC         0x31505355u /* "USP1" */
#define WIRE_COMMIT_MAGIC  0x54494d43u /* "CMIT" */
#define WIRE_VERSION       3u
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
    uint32_t payload_crc; /* of small messages; an epoch has its commit record */
};

void wire_header_encode(const struct wire_header *header, uint8_t out[WIRE_HEADER_LEN]);
int wire_header_decode(struct wire_header *header, const uint8_t bytes[WIRE_HEADER_LEN]);

struct wire_epoch {
    uint32_t kind; /* enum staged_kind */
    uint32_t npages;
    uint32_t ndata; /* pages that carry bytes */
    uint32_t nblocks;
    uint64_t delta_len;
    uint64_t disk_len; /* bytes of the disk section; it takes whole pages */
    uint64_t used_len[WIRE_MAX_BLOCKS];
};

void wire_epoch_encode(const struct wire_epoch *epoch, uint8_t out[WIRE_EPOCH_LEN]);
/* Pages that the disk section takes. */
uint64_t wire_epoch_disk_pages(const struct wire_epoch *epoch);
/* Bytes of an epoch after its header, commit record included. */
uint64_t wire_epoch_payload_len(const struct wire_epoch *epoch);
/* Checks counts against the limits given (max_pages: of data and disk together, and of the index), and
 * payload_len against the sum of the parts. */
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

/* Which full synchronisation an image stems from (failover/image_origin.c). number 0: none. */
struct wire_origin {
    uint64_t run, number;
};

/* origin: of the secondary's image, or of the one that the primary can bring up to date; next: primary, of
 * the image if a full synchronisation follows. */
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

/* Bytes written, or -ENOSPC. */
int wire_hello_encode(const struct wire_hello *hello, uint8_t *out, size_t capacity);
int wire_hello_decode(struct wire_hello *hello, const uint8_t *bytes, size_t len);
/* Compares two tokens in constant time. */
bool wire_token_equal(const uint8_t *a, const uint8_t *b);
bool wire_hello_same_layout(const struct wire_hello *a, const struct wire_hello *b);

#endif
