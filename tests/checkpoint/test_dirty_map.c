/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The carry-over bitmaps: every bit arrives once, and none that stands for no page. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "checkpoint/dirty_map.h"
#include "tests/fakevm/fake_hypervisor.h"

static uint64_t count_bits(const struct dirty_map *map)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < map->nblocks; i++) {
        for (uint64_t w = 0; w < map->blocks[i].nwords; w++)
            n += (uint64_t)__builtin_popcountll(map->blocks[i].words[w]);
    }
    return n;
}

static void test_bits_move_over_and_leave_the_shared_bitmap_clear(void **state)
{
    (void)state;
    struct hypervisor *hv = fake_hypervisor_new(1000, 10);
    struct dirty_map map;
    assert_int_equal(dirty_map_open(&map, hv), 0);
    for (uint64_t page = 0; page < 1000; page += 9)
        guest_write(hv, FAKE_MAIN, page, 1);
    assert_int_equal(hypervisor_harvest(hv), 0);
    assert_int_equal(dirty_map_take(&map, hv), 112);
    assert_int_equal(dirty_map_take(&map, hv), 0);
    assert_int_equal(map.count, 112);
    assert_int_equal(count_bits(&map), 112);
    for (uint64_t page = 0; page < 1000; page++)
        assert_int_equal(map.blocks[FAKE_MAIN].words[page / 64] >> (page % 64) & 1, page % 9 == 0);
    dirty_map_close(&map);
    fake_hypervisor_free(hv);
}

static void test_bit_that_is_here_already_is_counted_once(void **state)
{
    (void)state;
    struct hypervisor *hv = fake_hypervisor_new(100, 10);
    struct dirty_map map;
    assert_int_equal(dirty_map_open(&map, hv), 0);
    fake_set_bitmap_word(hv, FAKE_MAIN, 0, 0x5);
    assert_int_equal(dirty_map_take(&map, hv), 2);
    fake_set_bitmap_word(hv, FAKE_MAIN, 0, 0x7);
    assert_int_equal(dirty_map_take(&map, hv), 1);
    assert_true(dirty_map_set(&map, FAKE_MAIN, 1));
    assert_int_equal(map.count, 3);
    dirty_map_close(&map);
    fake_hypervisor_free(hv);
}

static void test_bits_past_the_used_length_are_dropped(void **state)
{
    (void)state;
    struct hypervisor *hv = fake_hypervisor_new(100, 70);
    struct dirty_map map;
    assert_int_equal(dirty_map_open(&map, hv), 0);
    fake_set_bitmap_word(hv, FAKE_MAIN, 1, UINT64_MAX);
    assert_int_equal(dirty_map_take(&map, hv), 36);
    fake_resize_aux(hv, 3 * HV_PAGE_LEN + 1);
    assert_int_equal(hypervisor_harvest(hv), 0);
    fake_set_bitmap_word(hv, FAKE_AUX, 0, UINT64_MAX);
    fake_set_bitmap_word(hv, FAKE_AUX, 1, UINT64_MAX);
    assert_int_equal(dirty_map_take(&map, hv), 4);
    assert_int_equal(map.count, 40);
    assert_int_equal(count_bits(&map), 40);
    dirty_map_close(&map);
    fake_hypervisor_free(hv);
}

static void test_pages_that_do_not_exist_cannot_be_set(void **state)
{
    (void)state;
    struct hypervisor *hv = fake_hypervisor_new(100, 10);
    struct dirty_map map;
    assert_int_equal(dirty_map_open(&map, hv), 0);
    assert_false(dirty_map_set(&map, FAKE_MAIN, 100));
    assert_false(dirty_map_set(&map, FAKE_MAIN, UINT64_MAX));
    assert_false(dirty_map_set(&map, 2, 0));
    assert_true(dirty_map_set(&map, FAKE_MAIN, 99));
    assert_int_equal(map.count, 1);
    dirty_map_close(&map);
    fake_hypervisor_free(hv);
}

static void test_all_and_none(void **state)
{
    (void)state;
    struct hypervisor *hv = fake_hypervisor_new(130, 64);
    struct dirty_map map;
    assert_int_equal(dirty_map_open(&map, hv), 0);
    dirty_map_set_all(&map);
    assert_int_equal(map.count, 194);
    assert_int_equal(count_bits(&map), 194);
    dirty_map_clear_all(&map);
    assert_int_equal(map.count, 0);
    assert_int_equal(count_bits(&map), 0);
    dirty_map_close(&map);
    fake_hypervisor_free(hv);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bits_move_over_and_leave_the_shared_bitmap_clear),
        cmocka_unit_test(test_bit_that_is_here_already_is_counted_once),
        cmocka_unit_test(test_bits_past_the_used_length_are_dropped),
        cmocka_unit_test(test_pages_that_do_not_exist_cannot_be_set),
        cmocka_unit_test(test_all_and_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
