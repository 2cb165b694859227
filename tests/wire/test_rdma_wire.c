/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What RDMA adds to the wire format: it comes back as it went, and nonsense is refused. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "proto/rdma_wire.h"

static const uint8_t token[WIRE_TOKEN_LEN] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};

static void test_prefix_comes_back(void **state)
{
    (void)state;
    uint8_t bytes[RDMA_WIRE_PREFIX_LEN];
    struct rdma_wire_prefix got,
        prefix = {.kind = RDMA_WIRE_MORE, .receives = 1ull << 40, .page_tail = 7, .epoch_tail = ~0ull};
    rdma_wire_prefix_encode(&prefix, bytes);
    assert_int_equal(rdma_wire_prefix_decode(&got, bytes, sizeof bytes), 0);
    assert_int_equal(got.kind, RDMA_WIRE_MORE);
    assert_true(got.receives == prefix.receives && got.page_tail == 7 && got.epoch_tail == ~0ull);
}

static void test_short_prefixes_and_unknown_kinds_are_refused(void **state)
{
    (void)state;
    uint8_t bytes[RDMA_WIRE_PREFIX_LEN];
    struct rdma_wire_prefix got, prefix = {.kind = RDMA_WIRE_CREDIT};
    rdma_wire_prefix_encode(&prefix, bytes);
    for (size_t len = 0; len < sizeof bytes; len++)
        assert_int_equal(rdma_wire_prefix_decode(&got, bytes, len), -EPROTO);
    for (uint32_t kind = 0; kind < 20; kind++) {
        prefix.kind = kind;
        rdma_wire_prefix_encode(&prefix, bytes);
        int expected = kind >= RDMA_WIRE_CREDIT && kind <= RDMA_WIRE_GRANT ? 0 : -EPROTO;
        assert_int_equal(rdma_wire_prefix_decode(&got, bytes, sizeof bytes), expected);
    }
}

static struct rdma_wire_grant a_grant(void)
{
    return (struct rdma_wire_grant){.ring_address = 0x7f0012345000,
                                    .ring_rkey = 0x01020304,
                                    .capacity_pages = 100,
                                    .next_slot = 99,
                                    .page_head = 1100,
                                    .page_tail = 1000,
                                    .epoch_head = 8,
                                    .epoch_tail = 3};
}

static int decode_grant(const struct rdma_wire_grant *grant, size_t len, struct rdma_wire_grant *got)
{
    uint8_t bytes[RDMA_WIRE_GRANT_LEN];
    rdma_wire_grant_encode(grant, bytes);
    return rdma_wire_grant_decode(got, bytes, len);
}

static void test_grant_comes_back(void **state)
{
    (void)state;
    struct rdma_wire_grant grant = a_grant(), got;
    assert_int_equal(decode_grant(&grant, RDMA_WIRE_GRANT_LEN, &got), 0);
    assert_true(got.ring_address == grant.ring_address && got.ring_rkey == grant.ring_rkey);
    assert_true(got.capacity_pages == 100 && got.next_slot == 99 && got.page_head == 1100);
    assert_true(got.page_tail == 1000 && got.epoch_head == 8 && got.epoch_tail == 3);
}

static void test_a_grant_of_an_impossible_ring_is_refused(void **state)
{
    (void)state;
    struct rdma_wire_grant got, grant = a_grant();
    assert_int_equal(decode_grant(&grant, RDMA_WIRE_GRANT_LEN - 1, &got), -EPROTO);
    grant.next_slot = 100; /* beyond the end */
    assert_int_equal(decode_grant(&grant, RDMA_WIRE_GRANT_LEN, &got), -EPROTO);
    grant = a_grant();
    grant.capacity_pages = grant.next_slot = 0;
    assert_int_equal(decode_grant(&grant, RDMA_WIRE_GRANT_LEN, &got), -EPROTO);
    grant = a_grant();
    grant.page_head++; /* more taken than there is */
    assert_int_equal(decode_grant(&grant, RDMA_WIRE_GRANT_LEN, &got), -EPROTO);
    grant = a_grant();
    grant.page_tail = grant.page_head + 1; /* more given back than was taken */
    assert_int_equal(decode_grant(&grant, RDMA_WIRE_GRANT_LEN, &got), -EPROTO);
    grant = a_grant();
    grant.epoch_tail = grant.epoch_head + 1;
    assert_int_equal(decode_grant(&grant, RDMA_WIRE_GRANT_LEN, &got), -EPROTO);
}

static void test_a_commit_with_any_bit_changed_behind_its_first_word_is_refused(void **state)
{
    (void)state;
    struct rdma_wire_commit got,
        commit = {.sequence = 1ull << 50,
                  .header = {.type = 2, .term = 3, .epoch = 4, .payload_len = 5},
                  .commit = {.crc = 6, .term = 3, .epoch = 4, .npages = 7, .ndata = 8}};
    uint8_t bytes[RDMA_WIRE_COMMIT_LEN];
    rdma_wire_commit_encode(&commit, bytes);
    assert_int_equal(rdma_wire_commit_decode(&got, bytes), 0);
    assert_true(got.sequence == 1ull << 50);
    assert_true(got.header.epoch == 4 && got.commit.crc == 6 && got.commit.ndata == 8);
    for (unsigned bit = 8 * 8; bit < 8 * RDMA_WIRE_COMMIT_LEN; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1u << (bit % 8));
        assert_true(rdma_wire_commit_decode(&got, bytes) < 0);
        bytes[bit / 8] ^= (uint8_t)(1u << (bit % 8));
    }
}

static void test_private_data_admits_its_token_and_no_other(void **state)
{
    (void)state;
    uint8_t bytes[RDMA_WIRE_PRIVATE_LEN + 32] = {0};
    rdma_wire_private_encode(token, bytes);
    assert_int_equal(rdma_wire_private_check(token, bytes, RDMA_WIRE_PRIVATE_LEN), 0);
    assert_int_equal(rdma_wire_private_check(token, bytes, sizeof bytes), 0); /* padded by the device */
    for (size_t len = 0; len < RDMA_WIRE_PRIVATE_LEN; len++)
        assert_int_equal(rdma_wire_private_check(token, bytes, len), -EPROTO);
    for (unsigned bit = 0; bit < 8 * RDMA_WIRE_PRIVATE_LEN; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1u << (bit % 8));
        int expected = bit < 32 ? -EPROTO : bit < 64 ? -EPROTONOSUPPORT : -EACCES;
        assert_int_equal(rdma_wire_private_check(token, bytes, RDMA_WIRE_PRIVATE_LEN), expected);
        bytes[bit / 8] ^= (uint8_t)(1u << (bit % 8));
    }
}

static void test_a_request_with_a_ticket_comes_back_and_fits_into_infiniband(void **state)
{
    (void)state;
    uint8_t ticket[RDMA_WIRE_TICKET_LEN], bytes[RDMA_WIRE_SEALED_LEN + 8] = {0};
    const uint8_t *out = NULL;
    for (unsigned i = 0; i < sizeof ticket; i++)
        ticket[i] = (uint8_t)(i + 1);
    assert_true(RDMA_WIRE_SEALED_LEN <= 56); /* what librdmacm's header leaves of InfiniBand's 92 bytes */
    rdma_wire_sealed_encode(ticket, bytes);
    assert_int_equal(rdma_wire_sealed_decode(&out, bytes, RDMA_WIRE_SEALED_LEN), 0);
    assert_memory_equal(out, ticket, sizeof ticket);
    assert_int_equal(rdma_wire_sealed_decode(&out, bytes, sizeof bytes), 0); /* devices pad */
    for (size_t len = 0; len < RDMA_WIRE_SEALED_LEN; len++)
        assert_int_equal(rdma_wire_sealed_decode(&out, bytes, len), -EPROTO);
    bytes[4]++;
    assert_int_equal(rdma_wire_sealed_decode(&out, bytes, RDMA_WIRE_SEALED_LEN), -EPROTONOSUPPORT);
    bytes[0]++;
    assert_int_equal(rdma_wire_sealed_decode(&out, bytes, RDMA_WIRE_SEALED_LEN), -EPROTO);
    /* One that knows the token only. */
    rdma_wire_private_encode(ticket, bytes);
    assert_int_equal(rdma_wire_sealed_decode(&out, bytes, RDMA_WIRE_SEALED_LEN), -EPROTO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_request_with_a_ticket_comes_back_and_fits_into_infiniband),
        cmocka_unit_test(test_prefix_comes_back),
        cmocka_unit_test(test_short_prefixes_and_unknown_kinds_are_refused),
        cmocka_unit_test(test_grant_comes_back),
        cmocka_unit_test(test_a_grant_of_an_impossible_ring_is_refused),
        cmocka_unit_test(test_a_commit_with_any_bit_changed_behind_its_first_word_is_refused),
        cmocka_unit_test(test_private_data_admits_its_token_and_no_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
