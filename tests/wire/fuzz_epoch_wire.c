/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * libFuzzer target: whatever a decoder accepts is within its limits and encodes to the very bytes it came
 * from. The first byte chooses the decoder. Checksums are made right first: what is behind them is what is to
 * be reached.
 */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "proto/crc32c.h"
#include "proto/epoch_wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void mend_crc(uint8_t *bytes, size_t len)
{
    uint32_t crc = crc32c(0, bytes, len - 4);
    for (unsigned i = 0; i < 4; i++)
        bytes[len - 4 + i] = (uint8_t)(crc >> (8 * i));
}

static void fuzz_header(const uint8_t *data, size_t size)
{
    uint8_t bytes[WIRE_HEADER_LEN] = {0}, again[WIRE_HEADER_LEN];
    struct wire_header header;
    memcpy(bytes, data, size < sizeof bytes ? size : sizeof bytes);
    mend_crc(bytes, sizeof bytes);
    if (wire_header_decode(&header, bytes) < 0)
        return;
    wire_header_encode(&header, again);
    assert(memcmp(bytes, again, sizeof bytes) == 0);
}

static void fuzz_epoch(const uint8_t *data, size_t size)
{
    enum { MAX_PAGES = 4096, MAX_DELTA = 1 << 20 };
    uint8_t bytes[WIRE_EPOCH_LEN] = {0};
    struct wire_epoch epoch;
    uint64_t payload_len = 0;
    if (size < 8)
        return;
    memcpy(&payload_len, data, 8);
    memcpy(bytes, data + 8, size - 8 < sizeof bytes ? size - 8 : sizeof bytes);
    if (wire_epoch_decode(&epoch, bytes, payload_len, MAX_PAGES, MAX_DELTA) < 0)
        return;
    assert(epoch.ndata + wire_epoch_disk_pages(&epoch) <= MAX_PAGES && epoch.ndata <= epoch.npages &&
           epoch.npages <= MAX_PAGES && epoch.delta_len <= MAX_DELTA);
    assert(epoch.nblocks <= WIRE_MAX_BLOCKS && payload_len < (1ull << 32));
}

static void fuzz_commit(const uint8_t *data, size_t size)
{
    uint8_t bytes[WIRE_COMMIT_LEN] = {0};
    struct wire_commit commit;
    memcpy(bytes, data, size < sizeof bytes ? size : sizeof bytes);
    mend_crc(bytes, sizeof bytes);
    wire_commit_decode(&commit, bytes);
}

static void fuzz_hello(const uint8_t *data, size_t size)
{
    struct wire_hello hello, again_hello;
    uint8_t again[WIRE_HELLO_MAX_LEN];
    if (wire_hello_decode(&hello, data, size) < 0)
        return;
    for (unsigned i = 0; i < hello.nblocks; i++)
        assert(memchr(hello.blocks[i].idstr, 0, WIRE_IDSTR_LEN));
    int len = wire_hello_encode(&hello, again, sizeof again);
    assert(len >= 0 && (size_t)len == size && wire_hello_decode(&again_hello, again, size) == 0);
    assert(wire_hello_same_layout(&hello, &again_hello));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const targets[])(const uint8_t *, size_t) = {fuzz_header, fuzz_epoch, fuzz_commit,
                                                               fuzz_hello};
    if (size > 0)
        targets[data[0] % 4](data + 1, size - 1);
    return 0;
}
