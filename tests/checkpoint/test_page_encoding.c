/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Zero pages: found wherever the one byte is that makes them not zero. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "checkpoint/page_encoding.h"

static void test_a_single_bit_anywhere_makes_a_page_not_zero(void **state)
{
    (void)state;
    uint8_t *page = calloc(1, STAGING_PAGE_LEN);
    assert_non_null(page);
    assert_true(page_is_zero(page));
    for (unsigned i = 0; i < STAGING_PAGE_LEN; i++) {
        page[i] = (uint8_t)(1u << (i % 8));
        assert_false(page_is_zero(page));
        page[i] = 0;
    }
    assert_true(page_is_zero(page));
    free(page);
}

static void test_zero_pages_lose_their_bytes_and_the_others_keep_theirs(void **state)
{
    (void)state;
    struct staging *staging;
    assert_int_equal(staging_open(&staging, 64, 64), 0);
    struct staged_epoch *epoch = staging_begin(staging, 1, STAGED_EPOCH);
    for (uint32_t i = 0; i < 10; i++) {
        uint32_t slot = (uint32_t)staging_reserve(staging, epoch, 1);
        memset(staging_slot(staging, slot), i % 3 ? (int)i : 0, STAGING_PAGE_LEN);
        epoch->pages[epoch->npages++] = (struct staged_page){.ref = page_ref_make(2, i, 0), .slot = slot};
    }
    assert_int_equal(page_encoding_mark_zero(staging, epoch), 4);
    assert_int_equal(page_encoding_mark_zero(staging, epoch), 0); /* again changes nothing */
    assert_int_equal(epoch->npages, 10);
    assert_int_equal(epoch->nslots, 10); /* given back with the epoch, not before */
    for (uint32_t i = 0; i < 10; i++) {
        const struct staged_page *page = &epoch->pages[i];
        assert_int_equal(page_ref_block(page->ref), 2);
        assert_int_equal(page_ref_page(page->ref), i);
        assert_int_equal(page_ref_flags(page->ref), i % 3 ? 0 : PAGE_REF_ZERO);
        assert_int_equal(page->slot, i % 3 ? i : STAGING_NO_PAGE);
    }
    staging_close(staging);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_single_bit_anywhere_makes_a_page_not_zero),
        cmocka_unit_test(test_zero_pages_lose_their_bytes_and_the_others_keep_theirs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
