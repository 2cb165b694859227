/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * When epochs are cut, how early their pages are copied, and how far ahead of the standby a guest may write:
 * against a link of a given speed, in time that the test counts itself.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "checkpoint/pacing.h"

#define EPOCH_MS             20
#define EPOCH_US             20000
#define IN_FLIGHT            7
#define MIB                  (1u << 20)
#define BYTES_AN_US(mib_a_s) ((double)(mib_a_s)*MIB / 1e6)

/* ---- when epochs are cut ---- */

static void begin_at(struct pacing *pacing, int64_t now_us)
{
    pacing_init(pacing, EPOCH_MS);
    pacing_begin(pacing, now_us);
}

/* An epoch of so many pages, cut and acked at once. */
static void cut(struct pacing *pacing, uint32_t pages, int64_t now_us)
{
    uint64_t epoch = pacing->newest + 1;
    pacing_cut(pacing, &(struct pacing_report){epoch, now_us, pages, epoch}, now_us);
}

static int64_t next_cut_us(const struct pacing *pacing, int64_t now_us)
{
    return pacing_plan(pacing, now_us).cut_us;
}

static void test_first_epoch_is_due_at_once(void **state)
{
    struct pacing pacing;
    (void)state;
    begin_at(&pacing, 12345);
    assert_int_equal(next_cut_us(&pacing, 12345), 12345);
    assert_int_equal(next_cut_us(&pacing, 12500), 12500);
}

static void test_late_cuts_do_not_move_the_schedule(void **state)
{
    struct pacing pacing;
    (void)state;
    begin_at(&pacing, 0);
    for (int64_t i = 0; i < 100; i++) {
        cut(&pacing, 0, i * EPOCH_US + 1700);
        assert_int_equal(next_cut_us(&pacing, i * EPOCH_US + 1700), (i + 1) * EPOCH_US);
    }
}

static void test_missed_cuts_are_skipped(void **state)
{
    struct pacing pacing;
    (void)state;
    begin_at(&pacing, 0);
    cut(&pacing, 0, 3 * EPOCH_US + 100);
    assert_int_equal(next_cut_us(&pacing, 3 * EPOCH_US + 100), 4 * EPOCH_US);
    /* One that took exactly its time is over, too. */
    cut(&pacing, 0, 5 * EPOCH_US);
    assert_int_equal(next_cut_us(&pacing, 5 * EPOCH_US), 6 * EPOCH_US);
    pacing_missed(&pacing, 7 * EPOCH_US + 1);
    assert_int_equal(next_cut_us(&pacing, 7 * EPOCH_US + 1), 8 * EPOCH_US);
}

/* A guest that writes fast fills its disks' logs again and again before the epoch's time. */
static void test_cuts_that_come_early_do_not_put_the_next_one_off(void **state)
{
    struct pacing pacing;
    int64_t now_us = 0;
    (void)state;
    begin_at(&pacing, 0);
    for (unsigned i = 0; i < 100; i++, now_us += EPOCH_US / 4)
        cut(&pacing, 0, now_us);
    cut(&pacing, 0, now_us);
    assert_int_equal(next_cut_us(&pacing, now_us), now_us + EPOCH_US);
}

static void test_epochs_in_flight_are_bounded(void **state)
{
    (void)state;
    assert_true(pacing_may_cut(1, 0));
    assert_true(pacing_may_cut(100 + PACING_MAX_UNACKED, 100));
    assert_false(pacing_may_cut(101 + PACING_MAX_UNACKED, 100));
    assert_true(PACING_MAX_UNACKED < PACING_EPOCHS);
}

/* ---- how early pages are copied ---- */

static void test_few_dirty_pages_are_copied_in_the_pause(void **state)
{
    struct pacing pacing;
    (void)state;
    begin_at(&pacing, 0);
    for (int64_t i = 0; i < 100; i++)
        cut(&pacing, PACING_EARLY_WORTH_PAGES - 1, i * EPOCH_US);
    assert_int_equal(pacing_plan(&pacing, 0).early_passes, 0);
}

static void test_many_dirty_pages_are_copied_before_the_pause(void **state)
{
    struct pacing pacing;
    (void)state;
    begin_at(&pacing, 0);
    for (int64_t i = 0; i < 100; i++)
        cut(&pacing, 4000, i * EPOCH_US);
    struct pacing_plan plan = pacing_plan(&pacing, 99 * EPOCH_US);
    assert_int_equal(plan.early_passes, PACING_MAX_EARLY_PASSES);
    /* The usual number settles a little below, for it is rounded down. 900 ns a page, and a base. */
    assert_in_range(plan.cut_us - plan.early_us, 600 + 3990 * 9 / 10, 600 + 4000 * 9 / 10);
    /* An epoch is too short for what the guest dirties: begin at once. */
    for (int64_t i = 100; i < 200; i++)
        cut(&pacing, 100000, i * EPOCH_US);
    assert_int_equal(pacing_plan(&pacing, 199 * EPOCH_US + 7).early_us, 199 * EPOCH_US + 7);
    /* What the guest usually dirties is known when epochs begin again. */
    pacing_begin(&pacing, 300 * EPOCH_US);
    assert_int_equal(pacing_plan(&pacing, 300 * EPOCH_US).early_passes, PACING_MAX_EARLY_PASSES);
}

static void test_early_passes_go_on_while_they_pay(void **state)
{
    struct pacing_plan plan = {.early_passes = PACING_MAX_EARLY_PASSES};
    (void)state;
    assert_true(pacing_copies_again(&plan, 1, PACING_EARLY_WORTH_PAGES));
    assert_false(pacing_copies_again(&plan, 1, PACING_EARLY_WORTH_PAGES / 2 - 1));
    assert_false(pacing_copies_again(&plan, 1, -11)); /* no room in staging */
    assert_false(pacing_copies_again(&plan, PACING_MAX_EARLY_PASSES, 1 << 20));
}

/* ---- how far ahead a guest may write ---- */

/* A guest that fills what it is allowed at once, and a link that takes so much a microsecond. */
struct pipeline {
    struct pacing pacing;
    uint64_t next, acked;
    double ack_us[PACING_EPOCHS]; /* when each epoch under way will be acked */
    int64_t boundary_us[PACING_EPOCHS];
    double link_free_us;
    int64_t now_us, held_us; /* held_us: of the epoch acked last */
};

static void begin(struct pipeline *p)
{
    *p = (struct pipeline){.next = 1};
    begin_at(&p->pacing, 0);
}

static uint64_t log_limit(const struct pipeline *p)
{
    return pacing_plan(&p->pacing, p->now_us).log_limit;
}

static void take_acks(struct pipeline *p)
{
    while (p->acked + 1 < p->next && p->ack_us[(p->acked + 1) % PACING_EPOCHS] <= (double)p->now_us) {
        p->acked++;
        p->held_us = (int64_t)p->ack_us[p->acked % PACING_EPOCHS] - p->boundary_us[p->acked % PACING_EPOCHS];
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
    p->link_free_us = from + (double)log_limit(p) / bytes_an_us;
    p->ack_us[p->next % PACING_EPOCHS] = p->link_free_us;
    p->boundary_us[p->next % PACING_EPOCHS] = p->now_us;
    pacing_cut(&p->pacing, &(struct pacing_report){p->next, p->now_us, 0, p->acked}, p->now_us);
    p->next++;
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
    assert_int_equal(log_limit(&p), PACING_LOG_MAX);
}

static void test_slow_link_brings_the_time_that_output_is_held_down(void **state)
{
    struct pipeline p;
    (void)state;
    begin(&p);
    run(&p, 7, BYTES_AN_US(100));
    assert_true(log_limit(&p) < PACING_LOG_MAX);
    int64_t longest = 0;
    run(&p, 200, BYTES_AN_US(100));
    for (unsigned i = 0; i < 200; i++) {
        step(&p, BYTES_AN_US(100));
        longest = p.held_us > longest ? p.held_us : longest;
    }
    /* With the limit where it was it would be more than a second. */
    assert_in_range(longest, 1, 4 * PACING_HOLD_US);
    assert_true(log_limit(&p) >= PACING_LOG_MIN);
}

static void test_limit_comes_back_with_the_link(void **state)
{
    struct pipeline p;
    (void)state;
    begin(&p);
    run(&p, 200, BYTES_AN_US(20));
    assert_true(log_limit(&p) < PACING_LOG_MAX / 4);
    run(&p, 200, BYTES_AN_US(4000));
    assert_int_equal(log_limit(&p), PACING_LOG_MAX);
}

static void test_link_that_stands_still_leaves_the_least(void **state)
{
    struct pacing pacing;
    int64_t now_us = 0;
    (void)state;
    begin_at(&pacing, 0);
    for (uint64_t epoch = 5; epoch < 65; epoch++, now_us += EPOCH_US)
        pacing_cut(&pacing, &(struct pacing_report){epoch, now_us, 0, 4}, now_us);
    assert_int_equal(pacing_plan(&pacing, now_us).log_limit, PACING_LOG_MIN);
    /* Acked at last. */
    pacing_cut(&pacing, &(struct pacing_report){65, now_us, 0, 64}, now_us);
    assert_int_equal(pacing_plan(&pacing, now_us).log_limit, PACING_LOG_MIN + PACING_LOG_STEP);
    /* Epochs that begin anew may have all of it. */
    pacing_begin(&pacing, now_us);
    assert_int_equal(pacing_plan(&pacing, now_us).log_limit, PACING_LOG_MAX);
}

static void test_epochs_that_begin_anew_are_not_late(void **state)
{
    struct pacing pacing;
    int64_t now_us = 10 * PACING_HOLD_US;
    (void)state;
    begin_at(&pacing, 0);
    /* The next standby has had nothing yet: what it did not ack was another's. */
    const uint64_t acked[] = {900, 1000, 1};
    for (uint64_t i = 0; i < 3; i++) {
        pacing_cut(&pacing, &(struct pacing_report){900 + i, 0, 0, acked[i]}, now_us);
        assert_int_equal(pacing_plan(&pacing, now_us).log_limit, PACING_LOG_MAX);
    }
}

/* ---- whatever happens ---- */

static uint64_t seed;

static uint64_t random_below(uint64_t n)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed % n;
}

static void check_plan(const struct pacing_plan *plan, int64_t now_us)
{
    /* No wait is negative, and early passes are not after the cut, nor more than a few. */
    assert_true(plan->cut_us >= now_us);
    assert_true(plan->early_us >= now_us && plan->early_us <= plan->cut_us);
    assert_true(plan->early_passes <= PACING_MAX_EARLY_PASSES);
    assert_true(plan->log_limit >= PACING_LOG_MIN && plan->log_limit <= PACING_LOG_MAX);
}

/* A thread that is woken late, finds no room, and is hurried; a peer that acks what it likes. */
static void test_whatever_happens_the_next_epoch_is_cut_in_time(void **state)
{
    (void)state;
    for (uint64_t round = 1; round <= 200; round++) {
        struct pacing pacing;
        seed = round * 0x9e3779b97f4a7c15u;
        unsigned epoch_ms = 1 + (unsigned)random_below(100);
        int64_t epoch_us = epoch_ms * 1000, now_us = (int64_t)random_below(1ull << 40);
        uint64_t epoch = 1 + random_below(1000), acked = epoch - 1;
        bool was_early = false;
        int64_t from_us = now_us;
        pacing_init(&pacing, epoch_ms);
        pacing_begin(&pacing, now_us);
        for (unsigned i = 0; i < 500; i++) {
            struct pacing_plan plan = pacing_plan(&pacing, now_us);
            int64_t due_us = plan.cut_us;
            bool is_early = random_below(4) == 0;
            was_early |= is_early && due_us > now_us;
            if (is_early)
                now_us += (int64_t)random_below((uint64_t)(due_us - now_us) + 1);
            else
                now_us = due_us + (int64_t)random_below(random_below(8) == 0 ? 1000000 : 300);
            acked += random_below(epoch - acked + 1);
            acked = acked < epoch ? acked : epoch - 1;
            uint32_t pages = (uint32_t)random_below(random_below(2) ? 1u << 20 : 600);
            if (random_below(8) == 0)
                pacing_missed(&pacing, now_us);
            else
                pacing_cut(&pacing, &(struct pacing_report){epoch++, now_us, pages, acked}, now_us);
            plan = pacing_plan(&pacing, now_us);
            check_plan(&plan, now_us);
            assert_true(plan.cut_us > now_us);
            /* No epoch is longer than its length. */
            assert_true(plan.cut_us <= now_us + epoch_us);
            if (!was_early)
                assert_int_equal((plan.cut_us - from_us) % epoch_us, 0);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_first_epoch_is_due_at_once),
        cmocka_unit_test(test_late_cuts_do_not_move_the_schedule),
        cmocka_unit_test(test_missed_cuts_are_skipped),
        cmocka_unit_test(test_cuts_that_come_early_do_not_put_the_next_one_off),
        cmocka_unit_test(test_epochs_in_flight_are_bounded),
        cmocka_unit_test(test_few_dirty_pages_are_copied_in_the_pause),
        cmocka_unit_test(test_many_dirty_pages_are_copied_before_the_pause),
        cmocka_unit_test(test_early_passes_go_on_while_they_pay),
        cmocka_unit_test(test_fast_link_leaves_the_limit_where_it_is),
        cmocka_unit_test(test_slow_link_brings_the_time_that_output_is_held_down),
        cmocka_unit_test(test_limit_comes_back_with_the_link),
        cmocka_unit_test(test_link_that_stands_still_leaves_the_least),
        cmocka_unit_test(test_epochs_that_begin_anew_are_not_late),
        cmocka_unit_test(test_whatever_happens_the_next_epoch_is_cut_in_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
