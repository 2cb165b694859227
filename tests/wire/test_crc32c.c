/* SPDX-License-Identifier: GPL-2.0-or-later */
/* CRC32C against the published vectors and against the definition, bit by bit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "proto/crc32c.h"

static uint32_t by_definition(uint32_t crc, const uint8_t *at, size_t len)
{
    crc = ~crc;
    while (len--) {
        crc ^= *at++;
        for (int k = 0; k < 8; k++)
            crc = (crc >> 1) ^ (crc & 1 ? 0x82f63b78u : 0);
    }
    return ~crc;
}

/* RFC 3720, appendix B.4 */
static void test_published_vectors(void **state)
{
    (void)state;
    uint8_t bytes[32];
    assert_int_equal(crc32c(0, "123456789", 9), 0xe3069283u);
    memset(bytes, 0, sizeof bytes);
    assert_int_equal(crc32c(0, bytes, sizeof bytes), 0x8a9136aau);
    memset(bytes, 0xff, sizeof bytes);
    assert_int_equal(crc32c(0, bytes, sizeof bytes), 0x62a8ab43u);
    for (unsigned i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)i;
    assert_int_equal(crc32c(0, bytes, sizeof bytes), 0x46dd794eu);
    assert_int_equal(crc32c(0, NULL, 0), 0);
}

/* Lengths around a word, what is done at once, and a page, at odd addresses. */
static void test_every_length_and_alignment_agrees_with_the_definition(void **state)
{
    (void)state;
    static uint8_t bytes[2 * 4080 + 64];
    srandom(1);
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)random();
    static const size_t around[] = {0, 64, 1360, 2720, 4080, 4096, 8160};
    for (size_t i = 0; i < sizeof around / sizeof *around; i++) {
        size_t from = around[i] < 20 ? 0 : around[i] - 20;
        for (size_t len = from; len < around[i] + 20; len++) {
            for (size_t shift = 0; shift < 9; shift++)
                assert_int_equal(crc32c(7, bytes + shift, len), by_definition(7, bytes + shift, len));
        }
    }
}

/* Two pages and more without a gap: one running reference gives the CRC of every prefix. */
static void test_every_length_up_to_9000_agrees_with_the_definition(void **state)
{
    (void)state;
    static uint8_t bytes[9000];
    uint32_t reference = 0;
    srandom(5);
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)random();
    for (size_t len = 0; len <= sizeof bytes; len++) {
        assert_int_equal(crc32c(0, bytes, len), reference);
        if (len < sizeof bytes)
            reference = by_definition(reference, bytes + len, 1);
    }
}

static void test_pieces_give_the_same_as_the_whole(void **state)
{
    (void)state;
    uint8_t bytes[5000];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i * 31);
    uint32_t whole = crc32c(0, bytes, sizeof bytes);
    for (size_t cut = 0; cut <= sizeof bytes; cut += 37)
        assert_int_equal(crc32c(crc32c(0, bytes, cut), bytes + cut, sizeof bytes - cut), whole);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_published_vectors),
        cmocka_unit_test(test_every_length_and_alignment_agrees_with_the_definition),
        cmocka_unit_test(test_every_length_up_to_9000_agrees_with_the_definition),
        cmocka_unit_test(test_pieces_give_the_same_as_the_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
