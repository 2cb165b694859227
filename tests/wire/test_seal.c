/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sealed records and the keys that links begin with. The known answers were computed by another
 * implementation (Python's hashlib and OpenSSL's ciphers) from the description in docs/wire-format.md.
 *
 * With UNDERSTUDY_SEAL_CHAOS=FAULT, in the program that is built for it, these tests have to fail.
 */
#include <errno.h>
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "proto/little_endian.h"
#include "proto/seal.h"
#include "proto/seal_keys.h"

#define PLAIN     "thirty-two bytes of plain text.."
#define PLAIN_LEN 32u
#define SEALED    (PLAIN_LEN + SEAL_TAG_LEN)

static const uint8_t opening_proof[] = {0x69, 0xfd, 0x4c, 0x60, 0x46, 0x6e, 0x70, 0xd1,
                                        0x89, 0x56, 0x8d, 0xf7, 0x33, 0xcb, 0x6d, 0xd5};
static const uint8_t answer_proof[] = {0x47, 0xd0, 0x15, 0x86, 0xdb, 0xe7, 0x4c, 0x71,
                                       0xe2, 0x2e, 0x95, 0xf5, 0x97, 0x0a, 0x0f, 0xfa};
static const uint8_t out_secret[] = {0xc5, 0x88, 0x48, 0x09, 0xbf, 0x87, 0x76, 0x30, 0xe5, 0x26, 0x47,
                                     0xb8, 0xef, 0xf2, 0x6b, 0x3d, 0xcb, 0x90, 0x3f, 0x08, 0xa5, 0x9a,
                                     0x06, 0x2f, 0xe1, 0x50, 0xf7, 0xca, 0xb6, 0x11, 0xcb, 0xa1};
static const uint8_t in_secret[] = {0x6b, 0xfa, 0x03, 0x02, 0xdf, 0x74, 0xab, 0x55, 0xc4, 0x71, 0xbe,
                                    0x5f, 0xb0, 0x5b, 0x5c, 0xa7, 0x6c, 0x7b, 0x26, 0xb8, 0x03, 0x4d,
                                    0xa3, 0xbe, 0xaf, 0x52, 0xe3, 0x41, 0x5c, 0xa6, 0x81, 0x5c};
static const uint8_t credit_secret[] = {0x5c, 0xff, 0xf4, 0x61, 0x24, 0xce, 0x74, 0xad, 0x4c, 0x7e, 0x99,
                                        0x5b, 0x6d, 0x7f, 0xac, 0x7c, 0xd5, 0x52, 0xac, 0x2e, 0xbc, 0xe5,
                                        0x7c, 0x63, 0x41, 0x58, 0x5e, 0x6f, 0x7d, 0x81, 0xd5, 0xb2};
static const uint8_t gcm_first[] = {0xb7, 0xab, 0x76, 0xef, 0xe6, 0x97, 0x95, 0x39, 0x78, 0x7d, 0xa9, 0x68,
                                    0x52, 0xdd, 0x85, 0x52, 0xf9, 0x25, 0x7c, 0x31, 0x77, 0xc2, 0x24, 0x86,
                                    0xe0, 0x77, 0xa9, 0x34, 0x4a, 0xf3, 0x31, 0x53, 0xcf, 0x8b, 0xa0, 0x85,
                                    0x7a, 0x62, 0xd3, 0x02, 0x44, 0x9a, 0x7a, 0x8f, 0x76, 0x87, 0xad, 0xba};
static const uint8_t gcm_second[] = {0x94, 0x2e, 0x06, 0x5a, 0x22, 0x5f, 0xf8, 0x5b, 0xaf, 0xee, 0x4c, 0x11,
                                     0x6c, 0x07, 0x37, 0x06, 0x8c, 0xbc, 0x39, 0x08, 0xf0, 0x0c, 0xb9, 0x07,
                                     0x40, 0x35, 0x25, 0xc2, 0xe3, 0x36, 0xee, 0x2a, 0x66, 0xaa, 0x4b, 0x48,
                                     0x7b, 0x46, 0xc4, 0x79, 0xa2, 0x96, 0x12, 0x05, 0xe9, 0x88, 0x33, 0x22};
static const uint8_t gcm_third[] = {0x0e, 0xe3, 0x14, 0x2b, 0x54, 0x15, 0x3e, 0xf1, 0x49, 0x2a, 0x69, 0x36,
                                    0x89, 0x4e, 0x7c, 0x0d, 0xf6, 0xc9, 0x85, 0x1c, 0xe1, 0x08, 0xb8, 0x3c,
                                    0xc9, 0xa2, 0x98, 0xe9, 0x10, 0x67, 0x8b, 0x10, 0x6c, 0x2a, 0x63, 0x1d,
                                    0x7f, 0x22, 0x3c, 0xb0, 0xd3, 0x35, 0xf3, 0xf2, 0x18, 0x55, 0xa1, 0x00};
static const uint8_t chacha_first[] = {
    0xf8, 0xdb, 0x8b, 0x80, 0x90, 0x3a, 0xc9, 0xb3, 0xce, 0x7e, 0xff, 0xd9, 0xda, 0xa8, 0x1a, 0x99,
    0x9c, 0x12, 0x09, 0x0c, 0xca, 0x82, 0x8b, 0xf9, 0x35, 0xef, 0xcb, 0x46, 0x04, 0x48, 0x56, 0x79,
    0x56, 0x7e, 0x94, 0x8d, 0xce, 0x12, 0x52, 0xf0, 0xb1, 0x18, 0x4d, 0xb1, 0x95, 0xa7, 0xef, 0xb8};
static const uint8_t beat_tag[] = {0x47, 0x90, 0x60, 0x55, 0xc8, 0x02, 0xb1, 0x45,
                                   0x49, 0x73, 0xd1, 0xbf, 0x35, 0xf5, 0x25, 0x36};

static const struct seal_label label = {.kind = 2, .segment = 7, .term = 3, .epoch = 41};
static const enum seal_cipher both[] = {SEAL_AES_128_GCM, SEAL_CHACHA20_POLY1305};

/* ---- helpers ---- */

static void fill(uint8_t *at, size_t len, unsigned first)
{
    for (size_t i = 0; i < len; i++)
        at[i] = (uint8_t)(first + i);
}

/* The VM's secret of the known answers. */
static const uint8_t *vm_secret(void)
{
    static uint8_t secret[SEAL_SECRET_LEN];
    fill(secret, sizeof secret, 0);
    return secret;
}

static struct seal *made(enum seal_cipher cipher, const struct seal_limits *limits)
{
    struct seal *seal = seal_new(cipher, out_secret, limits ? limits : &seal_limits_usual);
    assert_non_null(seal);
    return seal;
}

/* Bytes of a record and its tag, as they would be sent. */
struct record {
    uint8_t bytes[SEALED];
};

static struct record closed(struct seal *seal, const struct seal_label *as)
{
    struct record record;
    struct iovec iov = {record.bytes, PLAIN_LEN};
    memcpy(record.bytes, PLAIN, PLAIN_LEN);
    assert_int_equal(seal_close(seal, as, &iov, 1, record.bytes + PLAIN_LEN), 0);
    return record;
}

static int opened_of(struct seal *seal, const struct seal_label *as, struct record record, size_t len)
{
    struct iovec iov = {record.bytes, len};
    int status = seal_open(seal, as, &iov, 1, record.bytes + len);
    if (status == 0 && len == PLAIN_LEN)
        assert_memory_equal(record.bytes, PLAIN, PLAIN_LEN);
    return status;
}

static int opened(struct seal *seal, const struct seal_label *as, struct record record)
{
    return opened_of(seal, as, record, PLAIN_LEN);
}

/* ---- records ---- */

static void test_records_have_the_known_bytes(void **state)
{
    (void)state;
    const struct seal_limits two = {.records = 2, .bytes = 1 << 20, .total = UINT64_MAX};
    struct seal *gcm = made(SEAL_AES_128_GCM, &two), *chacha = made(SEAL_CHACHA20_POLY1305, NULL);
    assert_memory_equal(closed(gcm, &label).bytes, gcm_first, SEALED);
    assert_memory_equal(closed(gcm, &label).bytes, gcm_second, SEALED);
    assert_int_equal(seal_key_changes(gcm), 0);
    assert_memory_equal(closed(gcm, &label).bytes, gcm_third, SEALED); /* with the next key */
    assert_int_equal(seal_key_changes(gcm), 1);
    assert_memory_equal(closed(chacha, &label).bytes, chacha_first, SEALED);
    seal_free(gcm);
    seal_free(chacha);
}

static void test_a_record_may_lie_in_pieces_and_be_sealed_into_another_buffer(void **state)
{
    (void)state;
    for (unsigned c = 0; c < 2; c++) {
        uint8_t plain[PLAIN_LEN], out[SEALED];
        struct seal *to = made(both[c], NULL), *in_place = made(both[c], NULL), *opener = made(both[c], NULL);
        for (size_t cut = 1; cut < PLAIN_LEN; cut++) {
            memcpy(plain, PLAIN, sizeof plain);
            struct iovec pieces[] = {{plain, cut}, {plain + cut, PLAIN_LEN - cut}};
            assert_int_equal(seal_close_to(to, &label, pieces, 2, out), 0);
            assert_memory_equal(plain, PLAIN, PLAIN_LEN); /* it is needed once more */
            assert_memory_equal(closed(in_place, &label).bytes, out, SEALED);
            memcpy(plain, out, PLAIN_LEN);
            assert_int_equal(seal_open(opener, &label, pieces, 2, out + PLAIN_LEN), 0);
            assert_memory_equal(plain, PLAIN, PLAIN_LEN);
        }
        seal_free(to);
        seal_free(in_place);
        seal_free(opener);
    }
}

static void test_any_flipped_bit_is_found(void **state)
{
    (void)state;
    for (unsigned c = 0; c < 2; c++) {
        for (unsigned bit = 0; bit < SEALED * 8; bit++) {
            struct seal *from = made(both[c], NULL), *to = made(both[c], NULL);
            struct record record = closed(from, &label);
            record.bytes[bit / 8] ^= (uint8_t)(1u << (bit % 8));
            assert_int_equal(opened(to, &label, record), -EBADMSG);
            seal_free(from);
            seal_free(to);
        }
    }
}

static void test_a_record_that_comes_again_is_found(void **state)
{
    (void)state;
    struct seal *from = made(SEAL_AES_128_GCM, NULL), *to = made(SEAL_AES_128_GCM, NULL);
    struct record record = closed(from, &label);
    assert_int_equal(opened(to, &label, record), 0);
    assert_int_equal(opened(to, &label, record), -EBADMSG);
    seal_free(from);
    seal_free(to);
}

static void test_records_that_change_places_are_found(void **state)
{
    (void)state;
    struct seal *from = made(SEAL_AES_128_GCM, NULL), *to = made(SEAL_AES_128_GCM, NULL);
    closed(from, &label);
    assert_int_equal(opened(to, &label, closed(from, &label)), -EBADMSG); /* one is missing, or comes later */
    seal_free(from);
    seal_free(to);
}

static void test_a_record_that_was_cut_or_grew_is_found(void **state)
{
    (void)state;
    for (size_t len = 0; len < PLAIN_LEN; len++) {
        struct seal *from = made(SEAL_AES_128_GCM, NULL), *to = made(SEAL_AES_128_GCM, NULL);
        assert_int_equal(opened_of(to, &label, closed(from, &label), len), -EBADMSG);
        seal_free(from);
        seal_free(to);
    }
}

static void test_a_record_does_not_pass_for_another_message_part_epoch_or_term(void **state)
{
    (void)state;
    struct seal_label others[] = {label, label, label, label};
    others[0].kind++;
    others[1].segment++;
    others[2].term++;
    others[3].epoch++;
    for (unsigned i = 0; i < 4; i++) {
        struct seal *from = made(SEAL_AES_128_GCM, NULL), *to = made(SEAL_AES_128_GCM, NULL);
        assert_int_equal(opened(to, &others[i], closed(from, &label)), -EBADMSG);
        seal_free(from);
        seal_free(to);
    }
}

static void test_a_record_that_is_sent_back_is_found(void **state)
{
    (void)state;
    struct seal *from = made(SEAL_AES_128_GCM, NULL);
    struct seal *own = seal_new(SEAL_AES_128_GCM, in_secret, &seal_limits_usual);
    assert_non_null(own);
    assert_int_equal(opened(own, &label, closed(from, &label)), -EBADMSG);
    seal_free(from);
    seal_free(own);
}

static void test_after_a_wrong_record_nothing_more_is_opened(void **state)
{
    (void)state;
    struct seal *from = made(SEAL_AES_128_GCM, NULL), *to = made(SEAL_AES_128_GCM, NULL);
    struct record record = closed(from, &label);
    record.bytes[0] ^= 1;
    assert_int_equal(opened(to, &label, record), -EBADMSG);
    assert_int_equal(opened(to, &label, closed(from, &label)), -EBADMSG); /* though it is the next one */
    seal_free(from);
    seal_free(to);
}

static void test_keys_change_in_the_midst_of_traffic(void **state)
{
    (void)state;
    static const struct seal_limits by_records = {.records = 3, .bytes = 1 << 20, .total = UINT64_MAX},
                                    by_bytes = {.records = 1000, .bytes = 70, .total = UINT64_MAX},
                                    by_any_byte = {.records = 1000, .bytes = 1, .total = UINT64_MAX};
    static const struct {
        const struct seal_limits *limits;
        unsigned changes; /* after 100 records of 32 bytes */
    } rounds[] = {{&by_records, 33}, {&by_bytes, 49}, {&by_any_byte, 99}};
    for (unsigned c = 0; c < 2; c++) {
        for (unsigned r = 0; r < 3; r++) {
            struct seal *from = made(both[c], rounds[r].limits), *to = made(both[c], rounds[r].limits);
            for (unsigned i = 0; i < 100; i++)
                assert_int_equal(opened(to, &label, closed(from, &label)), 0);
            assert_int_equal(seal_key_changes(from), rounds[r].changes);
            assert_int_equal(seal_key_changes(to), rounds[r].changes);
            seal_free(from);
            seal_free(to);
        }
    }
}

static void test_a_record_from_before_a_change_of_keys_is_found_after_it(void **state)
{
    (void)state;
    static const struct seal_limits one = {.records = 1, .bytes = 1 << 20, .total = UINT64_MAX};
    struct seal *from = made(SEAL_AES_128_GCM, &one), *to = made(SEAL_AES_128_GCM, &one);
    struct record first = closed(from, &label);
    assert_int_equal(opened(to, &label, first), 0);
    assert_int_equal(opened(to, &label, closed(from, &label)), 0);
    assert_int_equal(opened(to, &label, first), -EBADMSG);
    seal_free(from);
    seal_free(to);
}

static void test_numbers_that_are_used_up_seal_and_open_nothing(void **state)
{
    (void)state;
    static const struct seal_limits few = {.records = 1000, .bytes = 1 << 20, .total = 3};
    struct seal *from = made(SEAL_AES_128_GCM, &few), *to = made(SEAL_AES_128_GCM, &few);
    struct record record;
    struct iovec iov = {record.bytes, PLAIN_LEN};
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(opened(to, &label, record = closed(from, &label)), 0);
    assert_int_equal(seal_close(from, &label, &iov, 1, record.bytes + PLAIN_LEN), -EOVERFLOW);
    assert_int_equal(seal_open(to, &label, &iov, 1, record.bytes + PLAIN_LEN), -EOVERFLOW);
    seal_free(from);
    seal_free(to);
}

static void test_the_usual_limits_are_below_what_aes_gcm_bears(void **state)
{
    (void)state;
    assert_true(seal_limits_usual.records <= UINT64_C(1) << 32);
    assert_true(seal_limits_usual.bytes <= UINT64_C(350) << 30);
    assert_true(seal_limits_usual.bytes >= UINT64_C(1) << 30); /* and not all the time */
}

/* Bytes that the allocator has handed out. */
static size_t in_use(void)
{
    struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
}

static void test_a_cipher_that_is_none_is_refused(void **state)
{
    (void)state;
    static const struct seal_limits none = {0};
    assert_null(seal_new(SEAL_NO_CIPHER, out_secret, &seal_limits_usual));
    assert_null(seal_new((enum seal_cipher)3, out_secret, &seal_limits_usual));
    assert_null(seal_new(SEAL_AES_128_GCM, out_secret, &none));
    assert_string_equal(seal_cipher_name(SEAL_AES_128_GCM), "AES-128-GCM");
    assert_string_equal(seal_cipher_name((enum seal_cipher)77), "unknown");
}

static void test_nothing_is_kept_of_what_was_made(void **state)
{
    (void)state;
    seal_free(made(SEAL_AES_128_GCM, NULL)); /* what a library keeps of its first use does not count */
    size_t before = in_use();
    for (unsigned i = 0; i < 100; i++)
        seal_free(made(both[i % 2], NULL));
    assert_true(in_use() <= before + 1024);
}

/* ---- a new link ---- */

static void fixed_meeting(uint8_t opening[SEAL_HANDSHAKE_LEN], uint8_t answer[SEAL_HANDSHAKE_LEN])
{
    uint8_t *at = put32(opening, SEAL_VERSION);
    at = put32(put32(put32(at, 1), 6), 0);
    fill(at, SEAL_NONCE_LEN, 0x40);
    memcpy(at + SEAL_NONCE_LEN, opening_proof, sizeof opening_proof);
    at = put32(answer, SEAL_VERSION);
    at = put32(put32(put32(at, 2), 1), 0);
    fill(at, SEAL_NONCE_LEN, 0x80);
    memcpy(at + SEAL_NONCE_LEN, answer_proof, sizeof answer_proof);
}

static void test_proofs_and_keys_have_the_known_bytes(void **state)
{
    (void)state;
    uint8_t opening[SEAL_HANDSHAKE_LEN], answer[SEAL_HANDSHAKE_LEN];
    struct seal_meeting meeting;
    struct seal_keys keys, other;
    fixed_meeting(opening, answer);
    assert_int_equal(seal_opening_take(&meeting, vm_secret(), opening, sizeof opening), 0);
    assert_int_equal(meeting.opener_role, 1);
    assert_int_equal(meeting.offered, 1u << SEAL_AES_128_GCM | 1u << SEAL_CHACHA20_POLY1305);
    assert_int_equal(seal_answer_take(&meeting, vm_secret(), answer, sizeof answer), 0);
    assert_int_equal(meeting.answerer_role, 2);
    assert_int_equal(meeting.cipher, SEAL_AES_128_GCM);
    assert_int_equal(seal_keys_of_meeting(&keys, vm_secret(), &meeting, true), 0);
    assert_memory_equal(keys.out, out_secret, SEAL_SECRET_LEN);
    assert_memory_equal(keys.in, in_secret, SEAL_SECRET_LEN);
    assert_memory_equal(keys.credit_out, credit_secret, SEAL_SECRET_LEN);
    assert_int_equal(seal_keys_of_meeting(&other, vm_secret(), &meeting, false), 0);
    assert_memory_equal(other.in, keys.out, SEAL_SECRET_LEN);
    assert_memory_equal(other.out, keys.in, SEAL_SECRET_LEN);
    assert_memory_equal(other.credit_in, keys.credit_out, SEAL_SECRET_LEN);
    assert_memory_equal(other.credit_out, keys.credit_in, SEAL_SECRET_LEN);
    assert_memory_not_equal(keys.out, keys.in, SEAL_SECRET_LEN);
    assert_memory_not_equal(keys.out, keys.credit_out, SEAL_SECRET_LEN);
}

/* Both sides meet. Returns the answering side's status, and leaves what both know. */
static int meet(struct seal_meeting *opener, struct seal_meeting *answerer, uint32_t opener_ciphers,
                uint32_t answerer_ciphers)
{
    assert_int_equal(seal_opening_make(opener, vm_secret(), 1, opener_ciphers), 0);
    assert_int_equal(seal_opening_take(answerer, vm_secret(), opener->opening, SEAL_HANDSHAKE_LEN), 0);
    int status = seal_answer_make(answerer, vm_secret(), 2, answerer_ciphers);
    if (status == 0)
        assert_int_equal(seal_answer_take(opener, vm_secret(), answerer->answer, SEAL_HANDSHAKE_LEN), 0);
    return status;
}

static void test_each_meeting_has_keys_of_its_own(void **state)
{
    (void)state;
    struct seal_meeting a, b;
    struct seal_keys keys[2];
    for (unsigned i = 0; i < 2; i++) {
        struct seal_keys other;
        assert_int_equal(meet(&a, &b, seal_ciphers_here(), seal_ciphers_here()), 0);
        assert_int_equal(seal_keys_of_meeting(&keys[i], vm_secret(), &a, true), 0);
        assert_int_equal(seal_keys_of_meeting(&other, vm_secret(), &b, false), 0);
        assert_memory_equal(keys[i].out, other.in, SEAL_SECRET_LEN);
    }
    assert_memory_not_equal(keys[0].out, keys[1].out, SEAL_SECRET_LEN);
}

static void test_aes_is_chosen_where_both_have_it(void **state)
{
    (void)state;
    struct seal_meeting a, b;
    const uint32_t chacha = 1u << SEAL_CHACHA20_POLY1305, all = chacha | 1u << SEAL_AES_128_GCM;
    assert_int_equal(meet(&a, &b, all, all), 0);
    assert_int_equal(a.cipher, SEAL_AES_128_GCM);
    assert_int_equal(meet(&a, &b, all, chacha), 0);
    assert_int_equal(a.cipher, SEAL_CHACHA20_POLY1305);
    assert_int_equal(meet(&a, &b, chacha, all), 0);
    assert_int_equal(b.cipher, SEAL_CHACHA20_POLY1305);
    assert_int_equal(meet(&a, &b, 0, all), -EPROTO);
    assert_int_equal(meet(&a, &b, all | 1u << 30, 1u << 30), -EPROTO);
    assert_true(seal_ciphers_here() & chacha);
}

static void test_an_opening_with_any_changed_byte_is_refused(void **state)
{
    (void)state;
    struct seal_meeting from, to;
    assert_int_equal(seal_opening_make(&from, vm_secret(), 1, 6), 0);
    for (unsigned i = 0; i < SEAL_HANDSHAKE_LEN; i++) {
        uint8_t bytes[SEAL_HANDSHAKE_LEN];
        memcpy(bytes, from.opening, sizeof bytes);
        bytes[i] ^= 0x10;
        assert_int_equal(seal_opening_take(&to, vm_secret(), bytes, sizeof bytes), i < 4 ? -EPROTONOSUPPORT
                                                                                   : i >= 12 && i < 16
                                                                                       ? -EPROTO
                                                                                       : -EACCES);
    }
    for (size_t len = 0; len < SEAL_HANDSHAKE_LEN; len++) {
        uint8_t *exact = malloc(len ? len : 1);
        memcpy(exact, from.opening, len);
        assert_int_equal(seal_opening_take(&to, vm_secret(), exact, len), -EPROTO);
        free(exact);
    }
}

static void test_an_answer_with_any_changed_byte_is_refused(void **state)
{
    (void)state;
    struct seal_meeting opener, answerer;
    for (unsigned i = 0; i < SEAL_HANDSHAKE_LEN; i++) {
        assert_int_equal(seal_opening_make(&opener, vm_secret(), 1, 6), 0);
        assert_int_equal(seal_opening_take(&answerer, vm_secret(), opener.opening, SEAL_HANDSHAKE_LEN), 0);
        assert_int_equal(seal_answer_make(&answerer, vm_secret(), 2, 6), 0);
        answerer.answer[i] ^= 0x10;
        assert_int_equal(seal_answer_take(&opener, vm_secret(), answerer.answer, SEAL_HANDSHAKE_LEN),
                         i < 4               ? -EPROTONOSUPPORT
                         : i >= 12 && i < 16 ? -EPROTO
                                             : -EACCES);
    }
}

static void test_a_stranger_and_a_host_with_another_vms_secret_are_refused(void **state)
{
    (void)state;
    struct seal_meeting from, to;
    uint8_t other[SEAL_SECRET_LEN];
    memcpy(other, vm_secret(), sizeof other);
    other[SEAL_SECRET_LEN - 1] ^= 1;
    assert_int_equal(seal_opening_make(&from, other, 1, 6), 0);
    assert_int_equal(seal_opening_take(&to, vm_secret(), from.opening, SEAL_HANDSHAKE_LEN), -EACCES);
    /* And one that answers in the peer's place. */
    assert_int_equal(seal_opening_make(&from, vm_secret(), 1, 6), 0);
    to = from;
    assert_int_equal(seal_answer_make(&to, other, 2, 6), 0);
    assert_int_equal(seal_answer_take(&from, vm_secret(), to.answer, SEAL_HANDSHAKE_LEN), -EACCES);
    memset(to.answer + 48, 0, SEAL_TAG_LEN);
    assert_int_equal(seal_answer_take(&from, vm_secret(), to.answer, SEAL_HANDSHAKE_LEN), -EACCES);
}

static void test_what_is_sent_back_to_its_sender_proves_nothing(void **state)
{
    (void)state;
    struct seal_meeting opener, answerer;
    assert_int_equal(seal_opening_make(&opener, vm_secret(), 1, 6), 0);
    assert_int_equal(seal_answer_take(&opener, vm_secret(), opener.opening, SEAL_HANDSHAKE_LEN), -EACCES);
    assert_int_equal(meet(&opener, &answerer, 6, 6), 0);
    assert_int_equal(seal_opening_take(&answerer, vm_secret(), opener.answer, SEAL_HANDSHAKE_LEN), -EACCES);
}

static void test_an_answer_to_another_opening_is_refused(void **state)
{
    (void)state;
    struct seal_meeting first, second, answerer;
    assert_int_equal(meet(&first, &answerer, 6, 6), 0);
    assert_int_equal(seal_opening_make(&second, vm_secret(), 1, 6), 0);
    assert_int_equal(seal_answer_take(&second, vm_secret(), answerer.answer, SEAL_HANDSHAKE_LEN), -EACCES);
}

static void test_an_answer_with_a_cipher_that_was_not_offered_is_refused(void **state)
{
    (void)state;
    struct seal_meeting opener, answerer;
    assert_int_equal(seal_opening_make(&opener, vm_secret(), 1, 1u << SEAL_AES_128_GCM), 0);
    assert_int_equal(seal_opening_take(&answerer, vm_secret(), opener.opening, SEAL_HANDSHAKE_LEN), 0);
    answerer.offered = 1u << SEAL_CHACHA20_POLY1305;
    assert_int_equal(seal_answer_make(&answerer, vm_secret(), 2, 6), 0);
    assert_int_equal(seal_answer_take(&opener, vm_secret(), answerer.answer, SEAL_HANDSHAKE_LEN), -EPROTO);
}

static void test_a_ticket_is_of_one_secret_and_any_change_is_found(void **state)
{
    (void)state;
    uint8_t ticket[SEAL_TICKET_LEN], other[SEAL_TICKET_LEN], secret[SEAL_SECRET_LEN] = {1};
    assert_int_equal(seal_ticket_make(vm_secret(), ticket), 0);
    assert_int_equal(seal_ticket_make(vm_secret(), other), 0);
    assert_memory_not_equal(ticket, other, sizeof ticket);
    assert_int_equal(seal_ticket_check(vm_secret(), ticket), 0);
    assert_int_equal(seal_ticket_check(secret, ticket), -EACCES);
    for (unsigned i = 0; i < sizeof ticket; i++) {
        ticket[i] ^= 1;
        assert_int_equal(seal_ticket_check(vm_secret(), ticket), -EACCES);
        ticket[i] ^= 1;
    }
}

/* ---- single packets ---- */

static void test_a_tag_has_the_known_bytes_and_any_change_is_found(void **state)
{
    (void)state;
    struct seal_tagger *tagger = seal_tagger_new(vm_secret(), "beat 0");
    struct seal_tagger *other = seal_tagger_new(vm_secret(), "beat 1");
    uint8_t packet[] = "a packet", tag[SEAL_TAG_LEN];
    size_t len = sizeof packet - 1;
    assert_non_null(tagger);
    assert_non_null(other);
    for (unsigned round = 0; round < 3; round++) { /* it begins anew each time */
        assert_int_equal(seal_tag(tagger, packet, len, tag), 0);
        assert_memory_equal(tag, beat_tag, sizeof tag);
    }
    assert_true(seal_tag_is_right(tagger, packet, len, tag));
    assert_false(seal_tag_is_right(other, packet, len, tag));
    assert_false(seal_tag_is_right(tagger, packet, len - 1, tag));
    for (unsigned i = 0; i < sizeof tag; i++) {
        tag[i] ^= 1;
        assert_false(seal_tag_is_right(tagger, packet, len, tag));
        tag[i] ^= 1;
    }
    packet[3] ^= 1;
    assert_false(seal_tag_is_right(tagger, packet, len, tag));
    seal_tagger_free(tagger);
    seal_tagger_free(other);
    seal_tagger_free(NULL);
}

/*
 * What the hot path uses allocates nothing: this program's allocator counts the calls while it is told to.
 */
static bool counting;
static unsigned allocations;
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) /* they have an allocator of their own   \
                                                                     */
void *__libc_malloc(size_t len);
void *malloc(size_t len)
{
    allocations += counting;
    return __libc_malloc(len);
}
#endif

static void test_only_a_change_of_keys_allocates(void **state)
{
    (void)state;
    static const struct seal_limits limits = {.records = 201, .bytes = 1 << 30, .total = UINT64_MAX};
    for (unsigned c = 0; c < 2; c++) {
        struct seal *from = made(both[c], &limits), *to = made(both[c], &limits);
        struct seal_tagger *tagger = seal_tagger_new(vm_secret(), "beat 0");
        uint8_t page[4096] = {1}, out[4096 + SEAL_TAG_LEN], tag[SEAL_TAG_LEN];
        const struct iovec iov = {page, sizeof page}, sealed = {out, sizeof page};
        counting = true;
        for (unsigned i = 0; i < 100; i++) {
            assert_int_equal(seal_close_to(from, &label, &iov, 1, out), 0);
            assert_int_equal(seal_open(to, &label, &sealed, 1, out + sizeof page), 0);
            assert_int_equal(seal_close(from, &label, &sealed, 1, tag), 0);
            assert_int_equal(seal_open(to, &label, &sealed, 1, tag), 0);
            assert_int_equal(seal_tag(tagger, page, 100, tag), 0);
        }
        counting = false;
        assert_int_equal(allocations, 0);
        assert_int_equal(seal_key_changes(to), 0);
        seal_free(from);
        seal_free(to);
        seal_tagger_free(tagger);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_records_have_the_known_bytes),
        cmocka_unit_test(test_a_record_may_lie_in_pieces_and_be_sealed_into_another_buffer),
        cmocka_unit_test(test_any_flipped_bit_is_found),
        cmocka_unit_test(test_a_record_that_comes_again_is_found),
        cmocka_unit_test(test_records_that_change_places_are_found),
        cmocka_unit_test(test_a_record_that_was_cut_or_grew_is_found),
        cmocka_unit_test(test_a_record_does_not_pass_for_another_message_part_epoch_or_term),
        cmocka_unit_test(test_a_record_that_is_sent_back_is_found),
        cmocka_unit_test(test_after_a_wrong_record_nothing_more_is_opened),
        cmocka_unit_test(test_keys_change_in_the_midst_of_traffic),
        cmocka_unit_test(test_a_record_from_before_a_change_of_keys_is_found_after_it),
        cmocka_unit_test(test_numbers_that_are_used_up_seal_and_open_nothing),
        cmocka_unit_test(test_the_usual_limits_are_below_what_aes_gcm_bears),
        cmocka_unit_test(test_a_cipher_that_is_none_is_refused),
        cmocka_unit_test(test_nothing_is_kept_of_what_was_made),
        cmocka_unit_test(test_only_a_change_of_keys_allocates),
        cmocka_unit_test(test_proofs_and_keys_have_the_known_bytes),
        cmocka_unit_test(test_each_meeting_has_keys_of_its_own),
        cmocka_unit_test(test_aes_is_chosen_where_both_have_it),
        cmocka_unit_test(test_an_opening_with_any_changed_byte_is_refused),
        cmocka_unit_test(test_an_answer_with_any_changed_byte_is_refused),
        cmocka_unit_test(test_a_stranger_and_a_host_with_another_vms_secret_are_refused),
        cmocka_unit_test(test_what_is_sent_back_to_its_sender_proves_nothing),
        cmocka_unit_test(test_an_answer_to_another_opening_is_refused),
        cmocka_unit_test(test_an_answer_with_a_cipher_that_was_not_offered_is_refused),
        cmocka_unit_test(test_a_ticket_is_of_one_secret_and_any_change_is_found),
        cmocka_unit_test(test_a_tag_has_the_known_bytes_and_any_change_is_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
