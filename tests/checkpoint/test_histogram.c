/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The histogram: bounded error everywhere, and readable while it is written. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <pthread.h>

#include "common/histogram.h"

static void test_empty_histogram_says_zero(void **state)
{
    (void)state;
    struct histogram *histogram = histogram_new();
    assert_int_equal(histogram_count(histogram), 0);
    assert_int_equal(histogram_max(histogram), 0);
    assert_int_equal(histogram_percentile(histogram, 50), 0);
    histogram_free(histogram);
}

static void test_any_single_value_is_kept_within_a_64th(void **state)
{
    (void)state;
    struct histogram *histogram = histogram_new();
    for (unsigned shift = 0; shift < 64; shift++) {
        for (unsigned low = 0; low < 7; low++) {
            uint64_t value = (1ull << shift) + ((1ull << shift) / 7) * low;
            histogram_reset(histogram);
            histogram_record(histogram, value);
            /* A larger one beside it, so that the maximum does not hide the bucket's own answer. */
            histogram_record(histogram, UINT64_MAX);
            uint64_t said = histogram_percentile(histogram, 50);
            uint64_t error = said > value ? said - value : value - said;
            assert_true(error <= value / 64);
        }
    }
    histogram_free(histogram);
}

static void test_percentiles_of_a_known_distribution(void **state)
{
    (void)state;
    struct histogram *histogram = histogram_new();
    for (uint64_t value = 1; value <= 10000; value++)
        histogram_record(histogram, value);
    assert_int_equal(histogram_count(histogram), 10000);
    assert_int_equal(histogram_max(histogram), 10000);
    assert_in_range(histogram_percentile(histogram, 50), 5000 - 5000 / 64, 5000 + 5000 / 64);
    assert_in_range(histogram_percentile(histogram, 99), 9900 - 9900 / 64, 9900 + 9900 / 64);
    assert_in_range(histogram_percentile(histogram, 100), 10000 - 10000 / 64, 10000);
    assert_int_equal(histogram_percentile(histogram, 0), 1);
    histogram_free(histogram);
}

static void test_extremes_have_a_bucket(void **state)
{
    (void)state;
    struct histogram *histogram = histogram_new();
    histogram_record(histogram, 0);
    histogram_record(histogram, UINT64_MAX);
    assert_int_equal(histogram_percentile(histogram, 50), 0);
    assert_true(histogram_percentile(histogram, 100) > UINT64_MAX / 64 * 63);
    assert_int_equal(histogram_max(histogram), UINT64_MAX);
    histogram_free(histogram);
}

static void test_reset_soon_empties_at_once_and_forgets_at_the_next_value(void **state)
{
    (void)state;
    struct histogram *histogram = histogram_new();
    histogram_record(histogram, 1000);
    histogram_reset_soon(histogram);
    assert_int_equal(histogram_count(histogram), 0);
    assert_int_equal(histogram_max(histogram), 0);
    assert_int_equal(histogram_percentile(histogram, 50), 0);
    histogram_record(histogram, 3);
    assert_int_equal(histogram_count(histogram), 1);
    assert_int_equal(histogram_max(histogram), 3);
    assert_int_equal(histogram_percentile(histogram, 99), 3);
    histogram_free(histogram);
}

static void *write_many(void *opaque)
{
    for (uint64_t i = 0; i < 200000; i++)
        histogram_record(opaque, i % 1000);
    return NULL;
}

static void test_reader_beside_the_writer_sees_sense(void **state)
{
    (void)state;
    struct histogram *histogram = histogram_new();
    pthread_t writer;
    assert_int_equal(pthread_create(&writer, NULL, write_many, histogram), 0);
    for (uint64_t seen = 0; seen < 200000;) {
        uint64_t now = histogram_count(histogram);
        assert_true(now >= seen);
        seen = now;
        assert_true(histogram_percentile(histogram, 99) < 1000);
    }
    pthread_join(writer, NULL);
    assert_int_equal(histogram_count(histogram), 200000);
    histogram_free(histogram);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty_histogram_says_zero),
        cmocka_unit_test(test_any_single_value_is_kept_within_a_64th),
        cmocka_unit_test(test_percentiles_of_a_known_distribution),
        cmocka_unit_test(test_extremes_have_a_bucket),
        cmocka_unit_test(test_reset_soon_empties_at_once_and_forgets_at_the_next_value),
        cmocka_unit_test(test_reader_beside_the_writer_sees_sense),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
