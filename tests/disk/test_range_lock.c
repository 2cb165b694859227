/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Range lock: overlapping ranges exclude each other, first come first served; others do not meet. */
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "replicator/disk/plugin/range_lock.h"

static struct range_lock lock;

static int set_up(void **state)
{
    (void)state;
    range_lock_init(&lock);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    range_lock_destroy(&lock);
    return 0;
}

struct taker {
    pthread_t thread;
    uint64_t offset, len;
    struct range range;
    atomic_bool has;
};

static void *take(void *opaque)
{
    struct taker *taker = opaque;
    range_acquire(&lock, &taker->range, taker->offset, taker->len);
    atomic_store(&taker->has, true);
    return NULL;
}

static void start(struct taker *taker, uint64_t offset, uint64_t len)
{
    *taker = (struct taker){.offset = offset, .len = len};
    assert_int_equal(pthread_create(&taker->thread, NULL, take, taker), 0);
}

static void await_waiters(unsigned n)
{
    for (unsigned waiting = 0; waiting != n; sched_yield()) {
        pthread_mutex_lock(&lock.mutex);
        waiting = lock.waiting;
        pthread_mutex_unlock(&lock.mutex);
    }
}

static void finish(struct taker *taker)
{
    pthread_join(taker->thread, NULL);
    range_release(&lock, &taker->range);
}

static void test_ranges_that_touch_do_not_meet(void **state)
{
    (void)state;
    struct range low, high;
    range_acquire(&lock, &low, 0, 4096);
    range_acquire(&lock, &high, 4096, 4096); /* would hang */
    range_release(&lock, &low);
    range_release(&lock, &high);
    assert_null(lock.first);
    assert_null(lock.last);
}

static void test_one_byte_in_common_excludes(void **state)
{
    (void)state;
    struct range low;
    struct taker taker;
    range_acquire(&lock, &low, 0, 4096);
    start(&taker, 4095, 10);
    await_waiters(1);
    assert_false(atomic_load(&taker.has));
    range_release(&lock, &low);
    finish(&taker);
}

static void test_whole_disk_is_not_starved_by_small_ranges(void **state)
{
    (void)state;
    struct range small, far;
    struct taker whole, late;
    range_acquire(&lock, &small, 0, 10);
    start(&whole, 0, RANGE_WHOLE);
    await_waiters(1);
    /* It would fit beside the holder, but the whole disk was asked for before. */
    start(&late, 1 << 20, 10);
    await_waiters(2);
    assert_false(atomic_load(&whole.has) || atomic_load(&late.has));
    range_release(&lock, &small);
    pthread_join(whole.thread, NULL);
    assert_false(atomic_load(&late.has));
    range_release(&lock, &whole.range);
    finish(&late);
    range_acquire(&lock, &far, UINT64_MAX - 5, 100); /* an end past the last byte */
    range_release(&lock, &far);
}

enum { NTHREADS = 8, NROUNDS = 3000, NCELLS = 16 };
static unsigned cells[NCELLS];

/* Plain increments of cells that only the lock protects: a sum that is short shows a lost one. */
static void *increment(void *opaque)
{
    uint32_t random = (uint32_t)(uintptr_t)opaque * 2654435761u + 1;
    for (unsigned round = 0; round < NROUNDS; round++) {
        random = random * 1664525u + 1013904223u;
        unsigned first = (random >> 16) % NCELLS, n = (random >> 24) % (NCELLS - first) + 1;
        struct range range;
        range_acquire(&lock, &range, first, n);
        for (unsigned i = first; i < first + n; i++) {
            unsigned was = *(volatile unsigned *)&cells[i];
            if (round % 64 == 0)
                sched_yield();
            *(volatile unsigned *)&cells[i] = was + 1;
        }
        range_release(&lock, &range);
    }
    return NULL;
}

static void test_many_threads_lose_no_increment(void **state)
{
    (void)state;
    pthread_t threads[NTHREADS];
    unsigned wanted = 0, sum = 0;
    for (uintptr_t t = 0; t < NTHREADS; t++)
        assert_int_equal(pthread_create(&threads[t], NULL, increment, (void *)t), 0);
    for (unsigned t = 0; t < NTHREADS; t++)
        pthread_join(threads[t], NULL);
    for (uint32_t t = 0; t < NTHREADS; t++) {
        uint32_t random = t * 2654435761u + 1;
        for (unsigned round = 0; round < NROUNDS; round++) {
            random = random * 1664525u + 1013904223u;
            wanted += (random >> 24) % (NCELLS - (random >> 16) % NCELLS) + 1;
        }
    }
    for (unsigned i = 0; i < NCELLS; i++)
        sum += cells[i];
    assert_int_equal(sum, wanted);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ranges_that_touch_do_not_meet),
        cmocka_unit_test(test_one_byte_in_common_excludes),
        cmocka_unit_test(test_whole_disk_is_not_starved_by_small_ranges),
        cmocka_unit_test(test_many_threads_lose_no_increment),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
