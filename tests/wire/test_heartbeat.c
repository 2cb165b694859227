/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Heartbeat packets: what was encoded comes back; anything else, of any length, is no sign of life. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "heartbeat/packet.h"
#include "proto/crc32c.h"
#include "proto/epoch_wire.h"

static const struct heartbeat sent = {.token = "sixteen bytes :)",
                                      .term = 1ull << 63,
                                      .sequence = 42,
                                      .role = WIRE_ROLE_PRIMARY,
                                      .standing = 2,
                                      .query = 7ull << 40,
                                      .answer = 9,
                                      .deaf = true};

/* Makes the checksum right again, so that what is behind it is reached. */
static void mend(uint8_t bytes[HEARTBEAT_LEN])
{
    uint32_t crc = crc32c(0, bytes, HEARTBEAT_LEN - 4);
    for (unsigned i = 0; i < 4; i++)
        bytes[HEARTBEAT_LEN - 4 + i] = (uint8_t)(crc >> (8 * i));
}

static void test_heartbeat_comes_back(void **state)
{
    (void)state;
    uint8_t bytes[HEARTBEAT_LEN];
    struct heartbeat out;
    heartbeat_encode(&sent, bytes);
    assert_memory_equal(bytes, "USB1", 4); /* little-endian on every host */
    assert_int_equal(heartbeat_decode(&out, bytes, sizeof bytes, sent.token), 0);
    assert_memory_equal(out.token, sent.token, sizeof out.token);
    assert_true(out.term == sent.term && out.sequence == sent.sequence && out.role == sent.role);
    assert_true(out.standing == sent.standing && out.query == sent.query && out.answer == sent.answer &&
                out.deaf);
}

static void test_any_changed_bit_is_refused(void **state)
{
    (void)state;
    uint8_t bytes[HEARTBEAT_LEN];
    struct heartbeat out;
    for (unsigned bit = 0; bit < 8 * HEARTBEAT_LEN; bit++) {
        heartbeat_encode(&sent, bytes);
        bytes[bit / 8] ^= (uint8_t)(1u << (bit % 8));
        assert_int_equal(heartbeat_decode(&out, bytes, sizeof bytes, sent.token), -EPROTO);
    }
}

/* Each length in a buffer of just that size, so that the address sanitizer sees one byte too many. */
static void test_every_other_length_is_refused(void **state)
{
    (void)state;
    struct heartbeat out;
    for (size_t len = 0; len <= 2 * HEARTBEAT_LEN; len++) {
        uint8_t whole[HEARTBEAT_LEN];
        uint8_t *exact = calloc(1, len ? len : 1);
        assert_non_null(exact);
        heartbeat_encode(&sent, whole);
        memcpy(exact, whole, len < sizeof whole ? len : sizeof whole);
        assert_int_equal(heartbeat_decode(&out, exact, len, sent.token), len == HEARTBEAT_LEN ? 0 : -EPROTO);
        free(exact);
    }
}

static void test_well_made_packets_of_others_are_refused(void **state)
{
    (void)state;
    /* magic, version, role, standing, flags, token: each wrong under a right checksum */
    static const unsigned offsets[] = {0, 4, 8, 12, 64, 32, 47};
    uint8_t bytes[HEARTBEAT_LEN];
    struct heartbeat out;
    for (size_t i = 0; i < sizeof offsets / sizeof *offsets; i++) {
        heartbeat_encode(&sent, bytes);
        bytes[offsets[i]] ^= 0x40;
        mend(bytes);
        assert_int_equal(heartbeat_decode(&out, bytes, sizeof bytes, sent.token), -EPROTO);
    }
    heartbeat_encode(&sent, bytes);
    bytes[16] ^= 0x40; /* a term is whatever the peer says it is */
    mend(bytes);
    assert_int_equal(heartbeat_decode(&out, bytes, sizeof bytes, sent.token), 0);
}

static void test_random_bytes_are_refused(void **state)
{
    (void)state;
    uint8_t bytes[HEARTBEAT_LEN];
    struct heartbeat out;
    srandom(3);
    for (unsigned round = 0; round < 100000; round++) {
        for (size_t i = 0; i < sizeof bytes; i++)
            bytes[i] = (uint8_t)random();
        assert_int_equal(heartbeat_decode(&out, bytes, sizeof bytes, sent.token), -EPROTO);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_heartbeat_comes_back),
        cmocka_unit_test(test_any_changed_bit_is_refused),
        cmocka_unit_test(test_every_other_length_is_refused),
        cmocka_unit_test(test_well_made_packets_of_others_are_refused),
        cmocka_unit_test(test_random_bytes_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
