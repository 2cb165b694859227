/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * libFuzzer target: a stream in a ring, from any position. Records stay within it, what is accepted encodes
 * to the very bytes it came from. Checksums are made right first: what is behind them is what is to be
 * reached.
 */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoint/disk/disk_record.h"
#include "proto/crc32c.h"
#include "proto/little_endian.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint64_t disk_len[2] = {1 << 20, 1 << 16};
    if (size < 2 || size > 4096)
        return 0;
    size_t position = data[0] * (size_t)DISK_RECORD_ALIGN, ring_len = 4096, len = size - 1;
    uint8_t *flat = malloc(len), *ring = calloc(1, ring_len);
    assert(flat && ring);
    memcpy(flat, data + 1, len);
    for (size_t at = 0; at + DISK_RECORD_HEADER_LEN <= len; at += DISK_RECORD_ALIGN) {
        if (memcmp(flat + at, "DREC", 4) == 0)
            put32(flat + at + 28, crc32c(0, flat + at, 28));
    }
    for (size_t i = 0; i < len; i++)
        ring[(position + i) % ring_len] = flat[i];
    struct disk_stream stream;
    struct disk_record record;
    disk_stream_of_ring(&stream, ring, ring_len, position, len);
    int checked = disk_stream_check(&stream, disk_len, 2), status;
    size_t at = 0;
    while ((status = disk_stream_next(&stream, &record)) > 0) {
        uint8_t header[DISK_RECORD_HEADER_LEN];
        disk_record_encode(&record, header);
        assert(memcmp(header, flat + at, sizeof header) == 0);
        size_t from = at + sizeof header;
        for (unsigned i = 0; i < record.ndata; i++) {
            assert(from + record.data[i].iov_len <= len);
            assert(memcmp(record.data[i].iov_base, flat + from, record.data[i].iov_len) == 0);
            from += record.data[i].iov_len;
        }
        assert(from - at - sizeof header == record.data_len);
        at += disk_record_len(&record);
        assert(checked < 0 || record.offset + record.len <= disk_len[record.disk]);
    }
    assert(checked < 0 || (status == 0 && at == len));
    free(flat);
    free(ring);
    return 0;
}
