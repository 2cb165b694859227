/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Encodes and decodes one change of a disk. The bytes are the same in the log ring between nbdkit and the
 * replicator, in an epoch on the wire, and in the standby's journal, so no part of the path rewrites them.
 *
 *   magic "DREC"  4      disk    2      type   2
 *   offset        8      length  8
 *   data length   4      CRC32C of the 28 bytes before   4
 *   data, then zeroes up to a multiple of DISK_RECORD_ALIGN
 *
 * Little-endian. A stream is a sequence of records. The checksum of the carrier covers the data: the commit
 * record's, or over RDMA the device's; in the journal, the entry's. Pure functions over bounded buffers:
 * no allocation, no system call.
 */
#ifndef UNDERSTUDY_CHECKPOINT_DISK_RECORD_H
#define UNDERSTUDY_CHECKPOINT_DISK_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#define DISK_MAX               16u /* disks of one VM */
#define DISK_RECORD_HEADER_LEN 32u
#define DISK_RECORD_ALIGN      32u        /* a header never straddles a page or the end of a ring */
#define DISK_RECORD_MAX_DATA   (1u << 20) /* data of one write; longer ones are several records */

enum disk_record_type {
    DISK_RECORD_WRITE = 1, /* data_len == len */
    DISK_RECORD_ZERO = 2,  /* reads as zeroes afterwards, blocks stay allocated */
    DISK_RECORD_TRIM = 3,  /* reads as zeroes afterwards, blocks are given back */
};

struct disk_record {
    enum disk_record_type type;
    uint16_t disk;
    uint64_t offset, len; /* bytes of the image */
    uint32_t data_len;
    struct iovec data[2]; /* decoded: where the data lies; two pieces where the stream wraps. Else unused. */
    unsigned ndata;       /* pieces of data in use */
};

/* Returns whether the record lies within a disk of that length. */
static inline bool disk_record_fits(const struct disk_record *record, uint64_t disk_len)
{
    return record->offset <= disk_len && record->len <= disk_len - record->offset;
}
/* Returns the bytes that the record takes in a stream, padding included. */
size_t disk_record_len(const struct disk_record *record);
/* Writes the header; the data and its padding are the caller's to put behind it. */
void disk_record_encode(const struct disk_record *record, uint8_t out[DISK_RECORD_HEADER_LEN]);

/* A stream of records in one or two pieces of memory (a ring that wraps), read from the front. */
struct disk_stream {
    struct iovec span[2];
};
/* Sets up a stream of len bytes in a ring of ring_len bytes, from the byte position (modulo ring_len) on. */
void disk_stream_of_ring(struct disk_stream *stream, uint8_t *ring, size_t ring_len, uint64_t position,
                         size_t len);
/* Decodes the next record. 1; 0 at the end; -EPROTO if it is not valid: then the stream cannot be read on. */
int disk_stream_next(struct disk_stream *stream, struct disk_record *out);
/*
 * Checks that the whole stream is well-formed and that each record lies within its disk (disk < ndisks,
 * offset + len <= disk_len[disk]). Does not advance the stream. 0 or -EPROTO.
 */
int disk_stream_check(const struct disk_stream *stream, const uint64_t *disk_len, unsigned ndisks);

#endif
