/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Encoder, and strict decoder of streams. The encoding is canonical: the decoder accepts exactly the bytes
 * that the encoder makes, so two records that read the same are the same. A header is copied before it is
 * checked: in a ring, its writer may still be able to change it.
 */
#include "checkpoint/disk/disk_record.h"

#include <errno.h>
#include <string.h>

#include "proto/crc32c.h"
#include "proto/little_endian.h"

#define MAGIC        0x43455244u /* "DREC" */
#define CRC_POSITION (DISK_RECORD_HEADER_LEN - 4)

static size_t padded(size_t len)
{
    return (len + DISK_RECORD_ALIGN - 1) & ~(size_t)(DISK_RECORD_ALIGN - 1);
}

size_t disk_record_len(const struct disk_record *record)
{
    return DISK_RECORD_HEADER_LEN + padded(record->data_len);
}

void disk_record_encode(const struct disk_record *record, uint8_t out[DISK_RECORD_HEADER_LEN])
{
    uint8_t *at = put32(out, MAGIC);
    at = put16(at, record->disk);
    at = put16(at, (uint16_t)record->type);
    at = put64(at, record->offset);
    at = put64(at, record->len);
    at = put32(at, record->data_len);
    put32(at, crc32c(0, out, CRC_POSITION));
}

/* Decodes and checks a record's header. Sets everything in *out but its data. */
static int decode(struct disk_record *out, const uint8_t bytes[DISK_RECORD_HEADER_LEN])
{
    if (get32(bytes) != MAGIC || get32(bytes + CRC_POSITION) != crc32c(0, bytes, CRC_POSITION))
        return -EPROTO;
    uint16_t type = get16(bytes + 6);
    *out = (struct disk_record){
        .type = type,
        .disk = get16(bytes + 4),
        .offset = get64(bytes + 8),
        .len = get64(bytes + 16),
        .data_len = get32(bytes + 24),
    };
    if (out->disk >= DISK_MAX || out->len == 0 || out->len > INT64_MAX || out->offset > INT64_MAX - out->len)
        return -EPROTO;
    switch (type) {
    case DISK_RECORD_WRITE:
        return out->data_len == out->len && out->len <= DISK_RECORD_MAX_DATA ? 0 : -EPROTO;
    case DISK_RECORD_ZERO:
    case DISK_RECORD_TRIM:
        return out->data_len == 0 ? 0 : -EPROTO;
    default:
        return -EPROTO;
    }
}

void disk_stream_of_ring(struct disk_stream *stream, uint8_t *ring, size_t ring_len, uint64_t position,
                         size_t len)
{
    size_t at = position % ring_len, first = ring_len - at;
    if (len > ring_len)
        len = ring_len;
    if (first > len)
        first = len;
    stream->span[0] = (struct iovec){ring + at, first};
    stream->span[1] = (struct iovec){ring, len - first};
}

/* Takes len bytes off the stream's front, which must have them. Sets out to where they lie and returns the
 * number of pieces, at most two. */
static unsigned take(struct disk_stream *stream, size_t len, struct iovec out[2])
{
    unsigned n = 0;
    while (len > 0) {
        struct iovec *span = &stream->span[0];
        if (span->iov_len == 0) {
            *span = stream->span[1];
            stream->span[1].iov_len = 0;
        }
        size_t piece = span->iov_len < len ? span->iov_len : len;
        out[n++] = (struct iovec){span->iov_base, piece};
        span->iov_base = (uint8_t *)span->iov_base + piece;
        span->iov_len -= piece;
        len -= piece;
    }
    return n;
}

/* The same, but copies the bytes. */
static void take_bytes(struct disk_stream *stream, uint8_t *out, size_t len)
{
    struct iovec piece[2];
    unsigned n = take(stream, len, piece);
    for (unsigned i = 0; i < n; i++) {
        memcpy(out, piece[i].iov_base, piece[i].iov_len);
        out += piece[i].iov_len;
    }
}

int disk_stream_next(struct disk_stream *stream, struct disk_record *out)
{
    static const uint8_t zeroes[DISK_RECORD_ALIGN];
    uint8_t header[DISK_RECORD_HEADER_LEN], padding[DISK_RECORD_ALIGN];
    /* Both are lengths of mapped memory: the sum cannot overflow. */
    size_t left = stream->span[0].iov_len + stream->span[1].iov_len;
    if (left == 0)
        return 0;
    if (left < sizeof header)
        return -EPROTO;
    take_bytes(stream, header, sizeof header);
    if (decode(out, header) < 0 || left < disk_record_len(out))
        return -EPROTO;
    out->ndata = take(stream, out->data_len, out->data);
    size_t npadding = padded(out->data_len) - out->data_len;
    take_bytes(stream, padding, npadding);
    return memcmp(padding, zeroes, npadding) == 0 ? 1 : -EPROTO;
}

int disk_stream_check(const struct disk_stream *stream, const uint64_t *disk_len, unsigned ndisks)
{
    struct disk_stream rest = *stream;
    struct disk_record record;
    int status;
    while ((status = disk_stream_next(&rest, &record)) > 0) {
        if (record.disk >= ndisks || !disk_record_fits(&record, disk_len[record.disk]))
            return -EPROTO;
    }
    return status;
}
