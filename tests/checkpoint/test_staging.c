/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The staging ring: bounded, in order, nothing lost at the wrap. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "checkpoint/staging.h"

static struct staged_epoch *fill(struct staging *staging, uint64_t number, uint32_t pages)
{
    struct staged_epoch *epoch = staging_begin(staging, number, STAGED_EPOCH);
    assert_non_null(epoch);
    for (uint32_t i = 0; i < pages; i++) {
        int64_t slot = staging_reserve(staging, epoch, 1);
        assert_true(slot >= 0);
        memset(staging_slot(staging, (uint32_t)slot), (int)(number + i), STAGING_PAGE_LEN);
        epoch->pages[epoch->npages++] =
            (struct staged_page){.ref = page_ref_make(0, i, 0), .slot = (uint32_t)slot};
    }
    staging_commit(staging, epoch);
    return epoch;
}

static void check(const struct staging *staging, const struct staged_epoch *epoch, uint64_t number,
                  uint32_t pages)
{
    assert_int_equal(epoch->epoch, number);
    assert_int_equal(epoch->npages, pages);
    assert_int_equal(epoch->nslots, pages);
    for (uint32_t i = 0; i < pages; i++) {
        const uint8_t *bytes = staging_slot(staging, epoch->pages[i].slot);
        assert_int_equal(bytes[0], (uint8_t)(number + i));
        assert_int_equal(bytes[STAGING_PAGE_LEN - 1], (uint8_t)(number + i));
    }
}

static void test_page_ref_keeps_block_page_and_flags(void **state)
{
    (void)state;
    page_ref ref = page_ref_make(63, (1ull << 44) - 1, PAGE_REF_ZERO);
    assert_int_equal(page_ref_block(ref), 63);
    assert_int_equal(page_ref_page(ref), (1ull << 44) - 1);
    assert_int_equal(page_ref_flags(ref), PAGE_REF_ZERO);
}

static void test_nonsense_capacities_are_refused(void **state)
{
    (void)state;
    struct staging *staging = NULL;
    assert_int_equal(staging_open(&staging, 0, 100), -EINVAL);
    assert_int_equal(staging_open(&staging, STAGING_NO_PAGE, 100), -EINVAL);
    assert_null(staging);
}

static void test_one_epoch_may_take_the_whole_ring_and_not_a_page_more(void **state)
{
    (void)state;
    struct staging *staging;
    assert_int_equal(staging_open(&staging, 100, 64), 0);
    struct staged_epoch *epoch = staging_begin(staging, 1, STAGED_EPOCH);
    assert_int_equal(staging_reserve(staging, epoch, 101), -ENOSPC);
    assert_int_equal(epoch->nslots, 0);
    assert_int_equal(staging_reserve(staging, epoch, 100), 0);
    assert_int_equal(staging_reserve(staging, epoch, 1), -ENOSPC);
    assert_int_equal(staging_free_pages(staging), 0);
    staging_commit(staging, epoch);
    staging_free(staging, epoch);
    assert_int_equal(staging_free_pages(staging), 100);
    staging_close(staging);
}

static void test_only_one_epoch_is_open_and_descriptors_run_out(void **state)
{
    (void)state;
    struct staging *staging;
    struct staged_epoch *epochs[STAGING_EPOCHS];
    assert_int_equal(staging_open(&staging, 100, 64), 0);
    for (unsigned i = 0; i < STAGING_EPOCHS; i++) {
        epochs[i] = staging_begin(staging, i, STAGED_EPOCH);
        assert_non_null(epochs[i]);
        assert_null(staging_begin(staging, i, STAGED_EPOCH));
        staging_commit(staging, epochs[i]);
    }
    assert_int_equal(staging_free_epochs(staging), 0);
    assert_null(staging_begin(staging, 99, STAGED_EPOCH));
    staging_free(staging, epochs[0]);
    assert_int_equal(staging_free_epochs(staging), 1);
    assert_non_null(staging_begin(staging, 99, STAGED_EPOCH));
    staging_close(staging);
}

static void test_epochs_in_flight_keep_their_bytes_round_and_round_the_ring(void **state)
{
    (void)state;
    struct staging *staging;
    struct staged_epoch *older = NULL;
    assert_int_equal(staging_open(&staging, 100, 64), 0);
    for (uint64_t number = 1; number < 200; number++) {
        uint32_t pages = (uint32_t)(number * 7 % 50);
        struct staged_epoch *epoch = fill(staging, number, pages);
        check(staging, epoch, number, pages);
        if (older) {
            check(staging, older, number - 1, (uint32_t)((number - 1) * 7 % 50));
            staging_free(staging, older);
        }
        older = epoch;
    }
    staging_close(staging);
}

static void test_aborted_epoch_gives_everything_back(void **state)
{
    (void)state;
    struct staging *staging;
    assert_int_equal(staging_open(&staging, 100, 64), 0);
    struct staged_epoch *kept = fill(staging, 1, 30);
    struct staged_epoch *epoch = staging_begin(staging, 2, STAGED_EPOCH);
    assert_int_equal(staging_reserve(staging, epoch, 70), 30);
    staging_abort(staging, epoch);
    assert_int_equal(staging_free_pages(staging), 70);
    assert_int_equal(staging_free_epochs(staging), STAGING_EPOCHS - 1);
    epoch = fill(staging, 2, 70);
    assert_int_equal(epoch->first_slot, 30);
    check(staging, kept, 1, 30);
    check(staging, epoch, 2, 70);
    staging_close(staging);
}

static void test_epoch_that_finds_the_ring_empty_starts_in_the_warm_part(void **state)
{
    (void)state;
    struct staging *staging;
    assert_int_equal(staging_open(&staging, 1000, 64), 0);
    for (uint64_t number = 1; number < 20; number++) {
        struct staged_epoch *epoch = fill(staging, number, 300);
        assert_int_equal(epoch->first_slot, 0);
        staging_free(staging, epoch);
    }
    staging_close(staging);
}

static void test_a_receiver_takes_consecutive_slots_across_the_end(void **state)
{
    (void)state;
    struct staging *staging;
    assert_int_equal(staging_open(&staging, 100, 64), 0);
    struct staged_epoch *first = fill(staging, 1, 60), *second = fill(staging, 2, 30);
    staging_free(staging, first);
    struct staged_epoch *epoch = staging_begin(staging, 3, STAGED_EPOCH);
    assert_int_equal(staging_reserve(staging, epoch, 50), 90);
    assert_int_equal(staging_reserve(staging, epoch, 1), 40);
    check(staging, second, 2, 30);
    staging_close(staging);
}

static uint32_t resident_pages(const struct staging *staging)
{
    static unsigned char resident[30000];
    uint32_t n = 0;
    size_t len;
    void *region = staging_region(staging, &len);
    assert_true(len / STAGING_PAGE_LEN <= sizeof resident);
    assert_int_equal(mincore(region, len, resident), 0);
    for (size_t i = 0; i < len / STAGING_PAGE_LEN; i++)
        n += resident[i] & 1;
    return n;
}

static void run_epochs(struct staging *staging, uint64_t *number, unsigned n, uint32_t pages)
{
    for (unsigned i = 0; i < n; i++) {
        struct staged_epoch *epoch = fill(staging, ++*number, pages);
        check(staging, epoch, *number, pages);
        staging_free(staging, epoch);
    }
}

static void test_memory_is_kept_while_epochs_are_large_and_given_back_after(void **state)
{
    (void)state;
    struct staging *staging;
    uint64_t number = 0;
    size_t len;
    assert_int_equal(staging_open(&staging, 30000, 64), 0);
    /* Page by page, whatever the machine is set to. */
    madvise(staging_region(staging, &len), 30000ull * STAGING_PAGE_LEN, MADV_NOHUGEPAGE);
    run_epochs(staging, &number, 1, 8192);
    uint32_t warm = resident_pages(staging);
    run_epochs(staging, &number, 3, 20000);
    assert_int_equal(resident_pages(staging), 20000);
    /* Now and then a large one: it is not over yet. */
    for (unsigned i = 0; i < 5; i++) {
        run_epochs(staging, &number, 40, 10);
        run_epochs(staging, &number, 1, 20000);
    }
    assert_int_equal(resident_pages(staging), 20000);
    run_epochs(staging, &number, 100, 10);
    assert_int_equal(resident_pages(staging), warm);
    run_epochs(staging, &number, 1, 20000);
    staging_close(staging);
}

static void test_large_epochs_that_wrap_harm_nobody(void **state)
{
    (void)state;
    struct staging *staging;
    size_t len;
    assert_int_equal(staging_open(&staging, 30000, 64), 0);
    assert_non_null(staging_region(staging, &len));
    assert_int_equal(len, 30000ull * STAGING_PAGE_LEN);
    struct staged_epoch *large = fill(staging, 1, 20000);
    struct staged_epoch *wrapping = fill(staging, 2, 9000);
    check(staging, large, 1, 20000);
    staging_free(staging, large);
    check(staging, wrapping, 2, 9000);
    large = fill(staging, 3, 20000); /* wraps */
    staging_free(staging, wrapping);
    check(staging, large, 3, 20000);
    staging_free(staging, large);
    assert_int_equal(staging_free_pages(staging), 30000);
    staging_close(staging);
}

/* What /proc/self/smaps says of the mapping that holds an address: the rest of the line that begins with
 * `name`. False: nothing. */
static bool smaps_say(const void *address, const char *name, char words[static 256])
{
    char line[512];
    unsigned long from, to;
    bool here = false, said = false;
    FILE *file = fopen("/proc/self/smaps", "r");
    while (file && !said && fgets(line, sizeof line, file)) {
        if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
            here = (uintptr_t)address >= from && (uintptr_t)address < to;
        said = here && strncmp(line, name, strlen(name)) == 0;
    }
    if (said)
        snprintf(words, 256, "%s", line + strlen(name));
    if (file)
        fclose(file);
    return said;
}

/* kB of that mapping which the kernel backs with huge pages; -1: not told. */
static long huge_kb_at(const void *address)
{
    char words[256];
    return smaps_say(address, "AnonHugePages:", words) ? atol(words) : -1;
}

static bool has_huge_pages(void)
{
    char words[128] = "";
    FILE *file = fopen("/sys/kernel/mm/transparent_hugepage/enabled", "r");
    if (file) {
        if (!fgets(words, sizeof words, file))
            words[0] = 0;
        fclose(file);
    }
    return strstr(words, "[always]") || strstr(words, "[madvise]");
}

static void test_pinned_staging_has_huge_pages_where_the_kernel_has_them(void **state)
{
    (void)state;
    struct staging *staging = NULL;
    size_t len;
    assert_int_equal(staging_open(&staging, 30000, 4096), 0);
    staging_pin(staging);
    const uint8_t *region = staging_region(staging, &len);
    struct staged_epoch *epoch = fill(staging, 1, 20000);
    check(staging, epoch, 1, 20000);
    if (has_huge_pages())
        assert_true(huge_kb_at(region) >= 2048);
    else
        print_message("SKIPPED: this kernel has no transparent huge pages\n");
    staging_free(staging, epoch);
    /* What was pinned stays: a NIC may be reading it. */
    check(staging, epoch, 1, 20000);
    staging_close(staging);
}

/* By the kernel's own words: in a child of a sanitizer, something else may lie there. */
static void test_a_program_that_is_started_gets_none_of_it(void **state)
{
    size_t len = 0;
    char flags[256] = "";
    struct staging *staging = NULL;
    (void)state;
    assert_int_equal(staging_open(&staging, 1000, 100), 0);
    const uint8_t *region = staging_region(staging, &len);
    assert_true(smaps_say(region, "VmFlags:", flags));
    assert_non_null(strstr(flags, " dc ")); /* not copied by fork */
    assert_true(smaps_say(region + len - 1, "VmFlags:", flags));
    assert_non_null(strstr(flags, " dc "));
    staging_close(staging);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_page_ref_keeps_block_page_and_flags),
        cmocka_unit_test(test_nonsense_capacities_are_refused),
        cmocka_unit_test(test_one_epoch_may_take_the_whole_ring_and_not_a_page_more),
        cmocka_unit_test(test_only_one_epoch_is_open_and_descriptors_run_out),
        cmocka_unit_test(test_epochs_in_flight_keep_their_bytes_round_and_round_the_ring),
        cmocka_unit_test(test_aborted_epoch_gives_everything_back),
        cmocka_unit_test(test_epoch_that_finds_the_ring_empty_starts_in_the_warm_part),
        cmocka_unit_test(test_a_receiver_takes_consecutive_slots_across_the_end),
        cmocka_unit_test(test_memory_is_kept_while_epochs_are_large_and_given_back_after),
        cmocka_unit_test(test_large_epochs_that_wrap_harm_nobody),
        cmocka_unit_test(test_a_program_that_is_started_gets_none_of_it),
        cmocka_unit_test(test_pinned_staging_has_huge_pages_where_the_kernel_has_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
