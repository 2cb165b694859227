/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How far ahead of the standby a guest may write: against a link of a given speed, in time that the test
 * counts itself.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "checkpoint/log_limit.h"

#define EPOCH_US             20000
#define IN_FLIGHT            7
#define MIB                  (1u << 20)
#define BYTES_AN_US(mib_a_s) ((double)(mib_a_s)*MIB / 1e6)

/* A guest that fills what it is allowed at once, and a link that takes so much a microsecond. */
struct pipeline {
    struct log_limit limit;
    uint64_t next, acked;
    double ack_us[LOG_LIMIT_EPOCHS]; /* when each epoch under way will be acked */
    int64_t boundary_us[LOG_LIMIT_EPOCHS];
    double link_free_us;
    int64_t now_us, held_us; /* held_us: of the epoch acked last */
};

static void begin(struct pipeline *p)
{
    *p = (struct pipeline){.next = 1};
    log_limit_init(&p->limit);
}

static void take_acks(struct pipeline *p)
{
    while (p->acked + 1 < p->next && p->ack_us[(p->acked + 1) % LOG_LIMIT_EPOCHS] <= (double)p->now_us) {
        p->acked++;
        p->held_us =
            (int64_t)p->ack_us[p->acked % LOG_LIMIT_EPOCHS] - p->boundary_us[p->acked % LOG_LIMIT_EPOCHS];
    }
}

/* One epoch, in its time or when there is room for it. */
static void step(struct pipeline *p, double bytes_an_us)
{
    p->now_us += EPOCH_US;
    take_acks(p);
    while (p->next > p->acked + IN_FLIGHT) {
        p->now_us += 1000;
        take_acks(p);
    }
    double from = p->link_free_us > (double)p->now_us ? p->link_free_us : (double)p->now_us;
    p->link_free_us = from + (double)p->limit.bytes / bytes_an_us;
    p->ack_us[p->next % LOG_LIMIT_EPOCHS] = p->link_free_us;
    p->boundary_us[p->next % LOG_LIMIT_EPOCHS] = p->now_us;
    log_limit_cut(&p->limit, p->next, p->now_us);
    p->next++;
    log_limit_next(&p->limit, p->acked, p->now_us);
}

static void run(struct pipeline *p, unsigned epochs, double bytes_an_us)
{
    for (unsigned i = 0; i < epochs; i++)
        step(p, bytes_an_us);
}

static void test_fast_link_leaves_the_limit_where_it_is(void **state)
{
    struct pipeline p;
    (void)state;
    begin(&p);
    run(&p, 100, BYTES_AN_US(4000));
    assert_int_equal(p.limit.bytes, LOG_LIMIT_MAX);
}

static void test_slow_link_brings_the_time_that_output_is_held_down(void **state)
{
    struct pipeline p;
    (void)state;
    begin(&p);
    run(&p, 7, BYTES_AN_US(100));
    assert_true(p.limit.bytes < LOG_LIMIT_MAX);
    int64_t longest = 0;
    run(&p, 200, BYTES_AN_US(100));
    for (unsigned i = 0; i < 200; i++) {
        step(&p, BYTES_AN_US(100));
        longest = p.held_us > longest ? p.held_us : longest;
    }
    /* With the limit where it was it would be more than a second. */
    assert_in_range(longest, 1, 4 * LOG_LIMIT_HOLD_US);
    assert_true(p.limit.bytes >= LOG_LIMIT_MIN);
}

static void test_limit_comes_back_with_the_link(void **state)
{
    struct pipeline p;
    (void)state;
    begin(&p);
    run(&p, 200, BYTES_AN_US(20));
    assert_true(p.limit.bytes < LOG_LIMIT_MAX / 4);
    run(&p, 200, BYTES_AN_US(4000));
    assert_int_equal(p.limit.bytes, LOG_LIMIT_MAX);
}

static void test_link_that_stands_still_leaves_the_least(void **state)
{
    struct log_limit limit;
    (void)state;
    log_limit_init(&limit);
    log_limit_cut(&limit, 5, 0);
    for (unsigned i = 0; i < 100; i++)
        log_limit_next(&limit, 4, 10 * LOG_LIMIT_HOLD_US);
    assert_int_equal(limit.bytes, LOG_LIMIT_MIN);
    /* Acked at last. */
    assert_int_equal(log_limit_next(&limit, 5, 20 * LOG_LIMIT_HOLD_US), LOG_LIMIT_MIN + LOG_LIMIT_STEP);
}

static void test_epochs_that_begin_anew_are_not_late(void **state)
{
    struct log_limit limit;
    (void)state;
    log_limit_init(&limit);
    log_limit_cut(&limit, 900, 0);
    /* The next standby has had nothing yet: what it did not ack was another's. */
    assert_int_equal(log_limit_next(&limit, 900, 10 * LOG_LIMIT_HOLD_US), LOG_LIMIT_MAX);
    assert_int_equal(log_limit_next(&limit, 1000, 10 * LOG_LIMIT_HOLD_US), LOG_LIMIT_MAX);
    assert_int_equal(log_limit_next(&limit, 1, 10 * LOG_LIMIT_HOLD_US), LOG_LIMIT_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fast_link_leaves_the_limit_where_it_is),
        cmocka_unit_test(test_slow_link_brings_the_time_that_output_is_held_down),
        cmocka_unit_test(test_limit_comes_back_with_the_link),
        cmocka_unit_test(test_link_that_stands_still_leaves_the_least),
        cmocka_unit_test(test_epochs_that_begin_anew_are_not_late),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
