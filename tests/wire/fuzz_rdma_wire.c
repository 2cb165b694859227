/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * libFuzzer target: what an RDMA peer may send or write. Whatever is accepted is within its limits and
 * encodes to the bytes it came from. The first byte chooses the decoder; the commit record's checksums are
 * made right first.
 */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "proto/crc32c.h"
#include "proto/rdma_wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void mend_crc(uint8_t *bytes, size_t len)
{
    uint32_t crc = crc32c(0, bytes, len - 4);
    for (unsigned i = 0; i < 4; i++)
        bytes[len - 4 + i] = (uint8_t)(crc >> (8 * i));
}

static void fuzz_prefix(const uint8_t *data, size_t size)
{
    struct rdma_wire_prefix prefix, again;
    uint8_t bytes[RDMA_WIRE_PREFIX_LEN];
    if (rdma_wire_prefix_decode(&prefix, data, size) < 0)
        return;
    assert(prefix.kind >= RDMA_WIRE_CREDIT && prefix.kind <= RDMA_WIRE_GRANT);
    rdma_wire_prefix_encode(&prefix, bytes);
    assert(rdma_wire_prefix_decode(&again, bytes, sizeof bytes) == 0);
    assert(again.receives == prefix.receives && again.page_tail == prefix.page_tail);
}

static void fuzz_grant(const uint8_t *data, size_t size)
{
    struct rdma_wire_grant grant;
    if (rdma_wire_grant_decode(&grant, data, size) < 0)
        return;
    assert(grant.next_slot < grant.capacity_pages);
    assert(grant.page_head - grant.page_tail <= grant.capacity_pages);
    assert(grant.epoch_head >= grant.epoch_tail);
}

static void fuzz_commit(const uint8_t *data, size_t size)
{
    struct rdma_wire_commit commit;
    uint8_t bytes[RDMA_WIRE_COMMIT_LEN] = {0}, again[RDMA_WIRE_COMMIT_LEN];
    memcpy(bytes, data, size < sizeof bytes ? size : sizeof bytes);
    mend_crc(bytes + 8, WIRE_HEADER_LEN);
    mend_crc(bytes + 8 + WIRE_HEADER_LEN, WIRE_COMMIT_LEN);
    if (rdma_wire_commit_decode(&commit, bytes) < 0)
        return;
    rdma_wire_commit_encode(&commit, again);
    assert(memcmp(bytes, again, 8 + WIRE_HEADER_LEN) == 0);
}

static void fuzz_private(const uint8_t *data, size_t size)
{
    static const uint8_t token[WIRE_TOKEN_LEN] = "sixteen letters";
    if (rdma_wire_private_check(token, data, size) == 0)
        assert(size >= RDMA_WIRE_PRIVATE_LEN && memcmp(data + 8, token, sizeof token) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const targets[])(const uint8_t *, size_t) = {fuzz_prefix, fuzz_grant, fuzz_commit,
                                                               fuzz_private};
    if (size > 0)
        targets[data[0] % 4](data + 1, size - 1);
    return 0;
}
