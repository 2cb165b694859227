/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The copier pool: every page of every job, and nothing after it has returned. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "checkpoint/copiers.h"

#define PAGE      4096u
#define MAX_PAGES 3000u

struct area {
    uint8_t *source, *destination;
    struct copy_job *jobs;
};

static void open_area(struct area *area)
{
    area->source = malloc((size_t)MAX_PAGES * PAGE);
    area->destination = calloc(MAX_PAGES, PAGE);
    area->jobs = calloc(MAX_PAGES, sizeof *area->jobs);
    assert_true(area->source && area->destination && area->jobs);
    /* Backwards, so that a job that is taken for its neighbour shows. */
    for (size_t i = 0; i < MAX_PAGES; i++)
        area->jobs[i] = (struct copy_job){.source = area->source + i * PAGE,
                                          .destination = area->destination + (MAX_PAGES - 1 - i) * PAGE};
}

static void close_area(struct area *area)
{
    free(area->source);
    free(area->destination);
    free(area->jobs);
}

static void copy_with(int helpers)
{
    static const size_t sizes[] = {0, 1, 63, 64, 191, 192, 193, 256, 1000, 2999, MAX_PAGES};
    struct area area;
    struct copiers *copiers;
    open_area(&area);
    assert_int_equal(copiers_open(&copiers, helpers), 0);
    for (unsigned round = 0; round < 20; round++) {
        for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
            size_t n = sizes[s];
            for (size_t i = 0; i < n; i++)
                memset(area.source + i * PAGE, (int)(i + round + s), PAGE);
            memset(area.destination, 0xee, (size_t)MAX_PAGES * PAGE);
            copiers_run(copiers, area.jobs, n);
            for (size_t i = 0; i < MAX_PAGES; i++) {
                const uint8_t *page = area.jobs[i].destination;
                uint8_t wanted = i < n ? (uint8_t)(i + round + s) : 0xee;
                assert_int_equal(page[0], wanted);
                assert_int_equal(page[PAGE - 1], wanted);
            }
        }
    }
    copiers_close(copiers);
    close_area(&area);
}

static void test_caller_alone_copies_everything(void **state)
{
    (void)state;
    copy_with(0);
}

static void test_helpers_and_caller_copy_everything_once(void **state)
{
    (void)state;
    copy_with(1);
    copy_with(4);
}

static void test_number_of_helpers_follows_the_machine(void **state)
{
    (void)state;
    copy_with(-1);
}

/* Jobs back to back: a helper late from one must not touch the next. */
static void test_late_helper_takes_nothing_of_the_next_job(void **state)
{
    (void)state;
    struct area area;
    struct copiers *copiers;
    open_area(&area);
    assert_int_equal(copiers_open(&copiers, 4), 0);
    for (unsigned round = 0; round < 3000; round++) {
        size_t n = 193 + round % 200;
        for (size_t i = 0; i < n; i++)
            *(uint32_t *)(void *)(area.source + i * PAGE) = round;
        copiers_run(copiers, area.jobs, n);
        for (size_t i = 0; i < n; i++)
            assert_int_equal(*(const uint32_t *)(const void *)area.jobs[i].destination, round);
    }
    copiers_close(copiers);
    close_area(&area);
}

static void test_pool_opened_and_closed_at_once_leaves_no_thread(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 200; i++) {
        struct copiers *copiers;
        assert_int_equal(copiers_open(&copiers, 4), 0);
        copiers_close(copiers);
    }
    copiers_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_caller_alone_copies_everything),
        cmocka_unit_test(test_helpers_and_caller_copy_everything_once),
        cmocka_unit_test(test_number_of_helpers_follows_the_machine),
        cmocka_unit_test(test_late_helper_takes_nothing_of_the_next_job),
        cmocka_unit_test(test_pool_opened_and_closed_at_once_leaves_no_thread),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
