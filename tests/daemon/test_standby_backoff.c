/* SPDX-License-Identifier: GPL-2.0-or-later */
/* When a standby that failed is tried again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "failover/standby_backoff.h"

#define SECOND_US 1000000ll

static void test_without_a_failure_there_is_no_wait(void **state)
{
    const struct standby_backoff backoff = {0};
    (void)state;
    assert_int_equal(standby_backoff_wait_s(&backoff, 0), 0);
    assert_int_equal(standby_backoff_wait_s(&backoff, 500 * SECOND_US), 0);
}

static void test_the_wait_doubles_and_has_an_end(void **state)
{
    static const unsigned expected[] = {1, 2, 4, 8, 16, 30, 30, 30};
    struct standby_backoff backoff = {0};
    int64_t now_us = 1000 * SECOND_US;
    (void)state;
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        standby_backoff_failed(&backoff, now_us);
        assert_int_equal(standby_backoff_wait_s(&backoff, now_us), expected[i]);
        now_us += expected[i] * SECOND_US;
        assert_int_equal(standby_backoff_wait_s(&backoff, now_us - 1), 1);
        assert_int_equal(standby_backoff_wait_s(&backoff, now_us), 0);
    }
}

static void test_ten_thousand_failures_wait_no_longer(void **state)
{
    struct standby_backoff backoff = {0};
    (void)state;
    for (int i = 0; i < 10000; i++)
        standby_backoff_failed(&backoff, SECOND_US);
    assert_int_equal(standby_backoff_wait_s(&backoff, SECOND_US), STANDBY_BACKOFF_LAST_S);
}

static void test_failures_that_lie_apart_begin_anew(void **state)
{
    struct standby_backoff backoff = {0};
    int64_t now_us = 1000 * SECOND_US;
    (void)state;
    for (int i = 0; i < 4; i++)
        standby_backoff_failed(&backoff, now_us);
    assert_int_equal(standby_backoff_wait_s(&backoff, now_us), 8);
    now_us += STANDBY_BACKOFF_FORGET_S * SECOND_US + 1;
    standby_backoff_failed(&backoff, now_us);
    assert_int_equal(standby_backoff_wait_s(&backoff, now_us), STANDBY_BACKOFF_FIRST_S);
}

static void test_a_standby_that_is_unfit_waits_long_each_time(void **state)
{
    struct standby_backoff backoff = {0};
    int64_t now_us = 1000 * SECOND_US;
    (void)state;
    for (int i = 0; i < 3; i++) {
        standby_backoff_unfit(&backoff, now_us);
        assert_int_equal(standby_backoff_wait_s(&backoff, now_us), STANDBY_BACKOFF_UNFIT_S);
        now_us += STANDBY_BACKOFF_UNFIT_S * SECOND_US;
        assert_int_equal(standby_backoff_wait_s(&backoff, now_us), 0);
        now_us += 3600 * SECOND_US; /* a long synchronisation makes it no failure of its own */
    }
    /* Another kind of failure is no reason to wait as long. */
    standby_backoff_failed(&backoff, now_us);
    assert_int_equal(standby_backoff_wait_s(&backoff, now_us), STANDBY_BACKOFF_FIRST_S);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_without_a_failure_there_is_no_wait),
        cmocka_unit_test(test_the_wait_doubles_and_has_an_end),
        cmocka_unit_test(test_ten_thousand_failures_wait_no_longer),
        cmocka_unit_test(test_failures_that_lie_apart_begin_anew),
        cmocka_unit_test(test_a_standby_that_is_unfit_waits_long_each_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
