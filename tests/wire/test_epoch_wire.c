/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Each decoder: gives back what was encoded, and refuses what is truncated, oversized, foreign or changed. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "proto/crc32c.h"
#include "proto/epoch_wire.h"

#define MAX_PAGES 1000u
#define MAX_DELTA 5000u

static void encode_a_header(uint8_t bytes[WIRE_HEADER_LEN])
{
    struct wire_header header = {.type = 2,
                                 .arg = 0x01020304,
                                 .term = 7,
                                 .epoch = 1ull << 40,
                                 .payload_len = 123456,
                                 .payload_crc = 99};
    wire_header_encode(&header, bytes);
}

static void test_header_comes_back(void **state)
{
    (void)state;
    uint8_t bytes[WIRE_HEADER_LEN];
    struct wire_header header;
    encode_a_header(bytes);
    assert_int_equal(wire_header_decode(&header, bytes), 0);
    assert_int_equal(header.type, 2);
    assert_int_equal(header.arg, 0x01020304);
    assert_int_equal(header.term, 7);
    assert_true(header.epoch == 1ull << 40);
    assert_int_equal(header.payload_len, 123456);
    assert_int_equal(header.payload_crc, 99);
    assert_memory_equal(bytes, "USP1", 4); /* little-endian on every host */
}

static void test_header_with_any_bit_changed_is_refused(void **state)
{
    (void)state;
    uint8_t bytes[WIRE_HEADER_LEN];
    struct wire_header header;
    for (unsigned bit = 0; bit < 8 * WIRE_HEADER_LEN; bit++) {
        encode_a_header(bytes);
        bytes[bit / 8] ^= (uint8_t)(1u << (bit % 8));
        bool version = bit / 8 == 4 || bit / 8 == 5;
        assert_int_equal(wire_header_decode(&header, bytes), version ? -EPROTONOSUPPORT : -EPROTO);
    }
}

/* Well made otherwise: the CRC is right, so it is the version that is told, not damage. */
static void test_another_version_has_an_error_of_its_own(void **state)
{
    (void)state;
    uint8_t bytes[WIRE_HEADER_LEN];
    struct wire_header header;
    encode_a_header(bytes);
    bytes[4] = WIRE_VERSION + 1;
    uint32_t crc = crc32c(0, bytes, WIRE_HEADER_LEN - 4);
    for (unsigned i = 0; i < 4; i++)
        bytes[WIRE_HEADER_LEN - 4 + i] = (uint8_t)(crc >> (8 * i));
    assert_int_equal(wire_header_decode(&header, bytes), -EPROTONOSUPPORT);
}

static uint64_t payload_len_of(const struct wire_epoch *epoch)
{
    return WIRE_EPOCH_LEN + 8ull * epoch->npages + epoch->delta_len + 4096ull * epoch->ndata +
           (epoch->disk_len + 4095) / 4096 * 4096 + WIRE_COMMIT_LEN;
}

static int decode_epoch(const struct wire_epoch *epoch, uint64_t payload_len, struct wire_epoch *out)
{
    uint8_t bytes[WIRE_EPOCH_LEN];
    wire_epoch_encode(epoch, bytes);
    return wire_epoch_decode(out, bytes, payload_len, MAX_PAGES, MAX_DELTA);
}

static void test_epoch_part_comes_back(void **state)
{
    (void)state;
    struct wire_epoch epoch = {.kind = 1,
                               .npages = MAX_PAGES,
                               .ndata = 999 - 2,
                               .disk_len = 4097,
                               .nblocks = 3,
                               .delta_len = MAX_DELTA,
                               .used_len = {1, 2, 1ull << 63}},
                      out;
    assert_int_equal(decode_epoch(&epoch, payload_len_of(&epoch), &out), 0);
    assert_int_equal(out.kind, 1);
    assert_int_equal(out.npages, MAX_PAGES);
    assert_int_equal(out.ndata, 999 - 2);
    assert_int_equal(out.disk_len, 4097);
    assert_int_equal(out.nblocks, 3);
    assert_int_equal(out.delta_len, MAX_DELTA);
    assert_memory_equal(out.used_len, epoch.used_len, sizeof epoch.used_len);
}

static void test_epoch_part_beyond_a_limit_is_refused(void **state)
{
    (void)state;
    const struct wire_epoch good = {.kind = 0, .npages = 10, .ndata = 5, .nblocks = 2, .delta_len = 100};
    struct wire_epoch wrong[] = {good, good, good, good, good, good, good, good, good}, out;
    wrong[0].kind = 2;
    wrong[1].npages = MAX_PAGES + 1;
    wrong[2].ndata = 11;
    wrong[3].delta_len = MAX_DELTA + 1;
    wrong[4].delta_len = UINT64_MAX - 4096; /* would wrap the sum */
    wrong[5].npages = wrong[5].ndata = UINT32_MAX;
    wrong[6].kind = UINT32_MAX;
    wrong[7].disk_len = (MAX_PAGES - good.ndata) * 4096ull + 1; /* pages and disk together */
    wrong[8].disk_len = UINT64_MAX;
    assert_int_equal(decode_epoch(&good, payload_len_of(&good), &out), 0);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_int_equal(decode_epoch(&wrong[i], payload_len_of(&wrong[i]), &out), -EPROTO);

    uint8_t bytes[WIRE_EPOCH_LEN];
    wire_epoch_encode(&good, bytes);
    bytes[12] = WIRE_MAX_BLOCKS + 1;
    assert_int_equal(wire_epoch_decode(&out, bytes, payload_len_of(&good), MAX_PAGES, MAX_DELTA), -EPROTO);
}

static void test_epoch_part_must_add_up_to_the_payload(void **state)
{
    (void)state;
    const struct wire_epoch good = {.npages = 10, .ndata = 5, .nblocks = 2, .delta_len = 100};
    struct wire_epoch out;
    uint64_t len = payload_len_of(&good);
    const uint64_t wrong[] = {0, len - 1, len + 1, len + 4096, UINT64_MAX};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_int_equal(decode_epoch(&good, wrong[i], &out), -EPROTO);
}

static void test_commit_comes_back_and_any_changed_bit_is_refused(void **state)
{
    (void)state;
    struct wire_commit commit = {.crc = 0xdeadbeef, .term = 3, .epoch = 4, .npages = 5, .ndata = 6}, out;
    uint8_t bytes[WIRE_COMMIT_LEN];
    wire_commit_encode(&commit, bytes);
    assert_int_equal(wire_commit_decode(&out, bytes), 0);
    assert_int_equal(out.crc, commit.crc);
    assert_int_equal(out.term, 3);
    assert_int_equal(out.epoch, 4);
    assert_int_equal(out.npages, 5);
    assert_int_equal(out.ndata, 6);
    for (unsigned bit = 0; bit < 8 * WIRE_COMMIT_LEN; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1u << (bit % 8));
        assert_int_equal(wire_commit_decode(&out, bytes), -EPROTO);
        bytes[bit / 8] ^= (uint8_t)(1u << (bit % 8));
    }
}

static void make_hello(struct wire_hello *hello, unsigned nblocks)
{
    memset(hello, 0, sizeof *hello);
    memset(hello->token, 0xa5, sizeof hello->token);
    hello->term = 12;
    hello->role = WIRE_ROLE_SECONDARY;
    hello->nblocks = nblocks;
    hello->images.origin = (struct wire_origin){.run = 0x1122334455667788, .number = 7};
    hello->images.next = (struct wire_origin){.run = 0x99aabbccddeeff00, .number = 8};
    for (unsigned i = 0; i < nblocks; i++) {
        hello->blocks[i].idstr[0] = (char)('a' + i % 26);
        hello->blocks[i].max_len = 4096ull * i;
    }
}

static void test_hello_comes_back_with_no_block_and_with_all(void **state)
{
    (void)state;
    static const unsigned counts[] = {0, 1, WIRE_MAX_BLOCKS};
    uint8_t bytes[WIRE_HELLO_MAX_LEN];
    struct wire_hello hello, out;
    for (unsigned i = 0; i < 3; i++) {
        make_hello(&hello, counts[i]);
        int len = wire_hello_encode(&hello, bytes, sizeof bytes);
        assert_true(len > 0 && (size_t)len <= sizeof bytes);
        assert_int_equal(wire_hello_decode(&out, bytes, (size_t)len), 0);
        assert_memory_equal(&out, &hello, sizeof hello);
        assert_int_equal(wire_hello_encode(&hello, bytes, (size_t)len - 1), -ENOSPC);
    }
    hello.nblocks = WIRE_MAX_BLOCKS + 1;
    assert_true(wire_hello_encode(&hello, bytes, sizeof bytes) < 0);
}

/* Each truncation in a buffer of just that size, so that the address sanitizer sees one byte too many. */
static void test_truncated_and_overlong_hellos_are_refused(void **state)
{
    (void)state;
    uint8_t bytes[WIRE_HELLO_MAX_LEN + 1] = {0};
    struct wire_hello hello, out;
    make_hello(&hello, 5);
    size_t whole = (size_t)wire_hello_encode(&hello, bytes, sizeof bytes);
    for (size_t len = 0; len <= whole + 1; len++) {
        uint8_t *exact = malloc(len ? len : 1);
        assert_non_null(exact);
        memcpy(exact, bytes, len);
        assert_int_equal(wire_hello_decode(&out, exact, len), len == whole ? 0 : -EPROTO);
        free(exact);
    }
}

static void test_hellos_of_nonsense_are_refused(void **state)
{
    (void)state;
    uint8_t bytes[WIRE_HELLO_MAX_LEN];
    struct wire_hello hello, out;
    make_hello(&hello, 2);
    size_t len = (size_t)wire_hello_encode(&hello, bytes, sizeof bytes);
    static const uint8_t roles[] = {0, 3, 255};
    for (unsigned i = 0; i < 3; i++) {
        bytes[24] = roles[i];
        assert_int_equal(wire_hello_decode(&out, bytes, len), -EPROTO);
    }
    bytes[24] = WIRE_ROLE_PRIMARY;
    assert_int_equal(wire_hello_decode(&out, bytes, len), 0);
    memset(bytes + 28, 0xff, 4); /* blocks without end */
    assert_int_equal(wire_hello_decode(&out, bytes, len), -EPROTO);
    len = (size_t)wire_hello_encode(&hello, bytes, sizeof bytes);
    memset(bytes + 72, 'x', WIRE_IDSTR_LEN); /* a name without end */
    assert_int_equal(wire_hello_decode(&out, bytes, len), -EPROTO);
}

static void test_layouts_and_tokens_compare_whole(void **state)
{
    (void)state;
    struct wire_hello a, b;
    make_hello(&a, 3);
    make_hello(&b, 3);
    assert_true(wire_hello_same_layout(&a, &b));
    b.blocks[2].max_len++;
    assert_false(wire_hello_same_layout(&a, &b));
    make_hello(&b, 3);
    b.blocks[1].idstr[5] = 'x'; /* behind the terminator: not part of the name */
    assert_true(wire_hello_same_layout(&a, &b));
    b.blocks[1].idstr[1] = 'x';
    assert_false(wire_hello_same_layout(&a, &b));
    make_hello(&b, 2);
    assert_false(wire_hello_same_layout(&a, &b));
    for (unsigned i = 0; i < WIRE_TOKEN_LEN; i++) {
        make_hello(&b, 3);
        assert_true(wire_token_equal(a.token, b.token));
        b.token[i] ^= 0x80;
        assert_false(wire_token_equal(a.token, b.token));
    }
}

static void test_random_bytes_are_refused(void **state)
{
    (void)state;
    uint8_t bytes[WIRE_HELLO_MAX_LEN];
    struct wire_header header;
    struct wire_epoch epoch;
    struct wire_commit commit;
    struct wire_hello hello;
    srandom(2);
    for (unsigned round = 0; round < 2000; round++) {
        for (size_t i = 0; i < sizeof bytes; i++)
            bytes[i] = (uint8_t)random();
        assert_true(wire_header_decode(&header, bytes) < 0);
        assert_true(wire_epoch_decode(&epoch, bytes, (uint64_t)random(), MAX_PAGES, MAX_DELTA) < 0);
        assert_true(wire_commit_decode(&commit, bytes) < 0);
        assert_true(wire_hello_decode(&hello, bytes, (size_t)random() % sizeof bytes) < 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_header_comes_back),
        cmocka_unit_test(test_header_with_any_bit_changed_is_refused),
        cmocka_unit_test(test_another_version_has_an_error_of_its_own),
        cmocka_unit_test(test_epoch_part_comes_back),
        cmocka_unit_test(test_epoch_part_beyond_a_limit_is_refused),
        cmocka_unit_test(test_epoch_part_must_add_up_to_the_payload),
        cmocka_unit_test(test_commit_comes_back_and_any_changed_bit_is_refused),
        cmocka_unit_test(test_hello_comes_back_with_no_block_and_with_all),
        cmocka_unit_test(test_truncated_and_overlong_hellos_are_refused),
        cmocka_unit_test(test_hellos_of_nonsense_are_refused),
        cmocka_unit_test(test_layouts_and_tokens_compare_whole),
        cmocka_unit_test(test_random_bytes_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
