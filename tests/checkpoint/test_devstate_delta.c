/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Device-state deltas: encode and apply are inverse; no input makes apply write past its buffer. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "checkpoint/devstate_delta.h"

#define MAX_LEN 5000u

static uint64_t random_state = 88172645463325252ull;
static uint32_t next_random(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint32_t)(random_state >> 16);
}

/* A buffer of exactly len bytes, so that a sanitizer sees the first byte past it. */
static uint8_t *exact(size_t len)
{
    uint8_t *bytes = malloc(len ? len : 1);
    assert_non_null(bytes);
    return bytes;
}

/* Encodes now against old, applies it to old, compares. Returns the delta's length. */
static size_t round_trip(const uint8_t *now, size_t now_len, const uint8_t *old, size_t old_len)
{
    size_t bound = devstate_delta_bound(now_len), len = old_len;
    uint8_t *delta = exact(bound), *applied = exact(MAX_LEN);
    ssize_t n = devstate_delta_encode(delta, bound, now, now_len, old, old_len);
    assert_true(n >= 4);
    /* Garbage past the old end must not come through. */
    memset(applied, 0xa5, MAX_LEN);
    memcpy(applied, old, old_len);
    assert_int_equal(devstate_delta_apply(applied, &len, MAX_LEN, delta, (size_t)n), 0);
    assert_int_equal(len, now_len);
    assert_memory_equal(applied, now, now_len);
    free(delta);
    free(applied);
    return (size_t)n;
}

static void test_unchanged_state_is_four_bytes(void **state)
{
    (void)state;
    uint8_t bytes[1000];
    memset(bytes, 7, sizeof bytes);
    assert_int_equal(round_trip(bytes, sizeof bytes, bytes, sizeof bytes), 4);
}

static void test_first_state_is_sent_whole(void **state)
{
    (void)state;
    uint8_t bytes[1000] = {1};
    assert_int_equal(round_trip(bytes, sizeof bytes, bytes, 0), 4 + 8 + 1000);
}

static void test_near_changes_share_a_record_and_far_ones_do_not(void **state)
{
    (void)state;
    uint8_t old[1000] = {0}, now[1000] = {0};
    now[100] = now[115] = 1;
    assert_int_equal(round_trip(now, sizeof now, old, sizeof old), 4 + 8 + 16);
    now[200] = 1;
    assert_int_equal(round_trip(now, sizeof now, old, sizeof old), 4 + 8 + 16 + 8 + 1);
}

static void test_random_states_of_random_lengths_come_through(void **state)
{
    (void)state;
    uint8_t *old = exact(MAX_LEN), *now = exact(MAX_LEN);
    for (unsigned round = 0; round < 3000; round++) {
        size_t old_len = next_random() % MAX_LEN, now_len = next_random() % MAX_LEN;
        for (size_t i = 0; i < old_len; i++)
            old[i] = (uint8_t)(next_random() % 3);
        memcpy(now, old, MAX_LEN);
        for (unsigned changes = next_random() % 60; changes > 0; changes--)
            now[next_random() % MAX_LEN] ^= (uint8_t)next_random();
        uint8_t *exact_old = exact(old_len), *exact_now = exact(now_len);
        memcpy(exact_old, old, old_len);
        memcpy(exact_now, now, now_len);
        round_trip(exact_now, now_len, exact_old, old_len);
        free(exact_old);
        free(exact_now);
    }
    free(old);
    free(now);
}

static void test_no_delta_is_longer_than_its_bound(void **state)
{
    (void)state;
    uint8_t old[MAX_LEN] = {0}, now[MAX_LEN] = {0};
    /* The most records: changes just too far apart to be merged. */
    for (unsigned gap = 1; gap < 40; gap++) {
        memset(now, 0, sizeof now);
        for (size_t i = 0; i < sizeof now; i += gap)
            now[i] = 1;
        assert_true(round_trip(now, sizeof now, old, sizeof old) <= devstate_delta_bound(sizeof now));
    }
}

static void test_encoder_stops_at_its_capacity(void **state)
{
    (void)state;
    uint8_t old[100] = {0}, now[100] = {0};
    memset(now + 10, 1, 50);
    for (size_t capacity = 0; capacity < 4 + 8 + 50; capacity++) {
        uint8_t *out = exact(capacity);
        assert_int_equal(devstate_delta_encode(out, capacity, now, sizeof now, old, sizeof old), -ENOSPC);
        free(out);
    }
}

static void test_every_truncation_is_refused_or_shorter(void **state)
{
    (void)state;
    uint8_t old[300] = {0}, now[300] = {0};
    memset(now + 10, 1, 20);
    memset(now + 100, 2, 20);
    uint8_t delta[1000];
    ssize_t n = devstate_delta_encode(delta, sizeof delta, now, sizeof now, old, sizeof old);
    assert_int_equal(n, 4 + 2 * 28);
    for (size_t cut = 0; cut < (size_t)n; cut++) {
        uint8_t *short_delta = exact(cut), applied[300] = {0};
        size_t len = sizeof applied;
        memcpy(short_delta, delta, cut);
        /* Between records a cut delta is well formed: the transport's checksum is what finds it. */
        int wanted = cut == 4 || cut == 32 ? 0 : -EPROTO;
        assert_int_equal(devstate_delta_apply(applied, &len, sizeof applied, short_delta, cut), wanted);
        free(short_delta);
    }
}

static void refused(const uint32_t *words, size_t n)
{
    uint8_t *delta = exact(n * 4), *applied = exact(100);
    size_t len = 50;
    for (size_t i = 0; i < n; i++) {
        for (unsigned b = 0; b < 4; b++)
            delta[i * 4 + b] = (uint8_t)(words[i] >> (8 * b));
    }
    assert_int_equal(devstate_delta_apply(applied, &len, 100, delta, n * 4), -EPROTO);
    free(delta);
    free(applied);
}

static void test_lying_records_are_refused(void **state)
{
    (void)state;
    refused((const uint32_t[]){101}, 1); /* longer than the buffer */
    refused((const uint32_t[]){UINT32_MAX}, 1);
    refused((const uint32_t[]){100, 0, 0}, 3);     /* an empty record */
    refused((const uint32_t[]){100, 98, 4, 0}, 4); /* past the end */
    refused((const uint32_t[]){100, UINT32_MAX, 4, 0}, 4);
    refused((const uint32_t[]){100, 0, UINT32_MAX, 0}, 4); /* longer than the delta */
    refused((const uint32_t[]){100, 0, 8, 0}, 4);
    refused((const uint32_t[]){100, 20, 4, 0, 10, 4, 0}, 7); /* out of order */
    refused((const uint32_t[]){100, 20, 4, 0, 22, 4, 0}, 7); /* overlapping */
}

static void test_random_bytes_do_no_harm(void **state)
{
    (void)state;
    uint8_t *applied = exact(256);
    memset(applied, 0, 256);
    for (unsigned round = 0; round < 200000; round++) {
        size_t n = next_random() % 64, len = next_random() % 257;
        uint8_t *delta = exact(n);
        for (size_t i = 0; i < n; i++)
            delta[i] = next_random() % 3 ? 0 : (uint8_t)next_random();
        (void)devstate_delta_apply(applied, &len, 256, delta, n);
        assert_true(len <= 256);
        free(delta);
    }
    free(applied);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unchanged_state_is_four_bytes),
        cmocka_unit_test(test_first_state_is_sent_whole),
        cmocka_unit_test(test_near_changes_share_a_record_and_far_ones_do_not),
        cmocka_unit_test(test_random_states_of_random_lengths_come_through),
        cmocka_unit_test(test_no_delta_is_longer_than_its_bound),
        cmocka_unit_test(test_encoder_stops_at_its_capacity),
        cmocka_unit_test(test_every_truncation_is_refused_or_shorter),
        cmocka_unit_test(test_lying_records_are_refused),
        cmocka_unit_test(test_random_bytes_do_no_harm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
