/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The disks' first synchronisation and what follows, between two hosts (two_hosts.h), while the guest writes.
 * In each test the standby's image is compared whole: with the primary's as it was at the epoch's boundary.
 */
#include "tests/disk/two_hosts.h"

// clang-format off
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
// clang-format on
#include <errno.h>

#define ALL_CHUNKS (TEST_DISK_LEN / DISK_CHUNK_LEN + 1)

static void put_away(struct pair *pair, struct host *a, struct host *b)
{
    pair_free(pair);
    host_free(a);
    host_free(b);
}

static void test_a_standby_with_an_empty_image_gets_everything(void **state)
{
    (void)state;
    struct host *a = host_new(1, false), *b = host_new(0, true);
    struct pair *pair = pair_new(a, b);
    assert_true(pair_synchronise(pair, 0));
    pair_epoch(pair);
    assert_same_images(a, b);
    put_away(pair, a, b);
}

static void test_a_standby_with_the_same_image_gets_nothing(void **state)
{
    (void)state;
    struct host *a = host_new(1, false), *b = host_new(1, true);
    struct pair *pair = pair_new(a, b);
    assert_true(pair_synchronise(pair, 0));
    assert_int_equal(pair_chunks_sent(pair), 0);
    pair_epoch(pair);
    assert_same_images(a, b);
    put_away(pair, a, b);
}

static void test_epochs_are_whole_while_the_guest_writes(void **state)
{
    (void)state;
    struct host *a = host_new(1, false), *b = host_new(2, true);
    struct pair *pair = pair_new(a, b);
    guest_start(a, 7);
    assert_true(pair_synchronise(pair, 0));
    for (int i = 0; i < 20; i++)
        pair_epoch(pair);
    guest_stop(a);
    pair_epoch(pair);
    assert_same_images(a, b);
    put_away(pair, a, b);
}

static void test_a_broken_synchronisation_goes_on_where_it_was(void **state)
{
    (void)state;
    struct host *a = host_new(1, false), *b = host_new(0, true);
    struct pair *pair = pair_new(a, b);
    uint64_t sent = 0;
    for (unsigned i = 0; i < 5; i++) {
        assert_false(pair_synchronise(pair, 1));
        sent += pair_chunks_sent(pair);
        pair_free(pair);
        pair = pair_new(a, b);
    }
    assert_true(pair_synchronise(pair, 0));
    sent += pair_chunks_sent(pair);
    /* Only what was under way when the link broke goes twice. */
    assert_true(sent < ALL_CHUNKS + 5 * 16 * 64);
    pair_epoch(pair);
    assert_same_images(a, b);
    put_away(pair, a, b);
}

static void test_after_a_break_only_what_was_written_since_is_sent(void **state)
{
    (void)state;
    struct host *a = host_new(1, false), *b = host_new(0, true);
    struct pair *pair = pair_new(a, b);
    assert_true(pair_synchronise(pair, 0));
    pair_epoch(pair);
    pair_free(pair);
    assert_int_equal(host_write(a, 5 * DISK_CHUNK_LEN + 100, 200, 1), 0);
    assert_int_equal(host_zero(a, 600 * DISK_CHUNK_LEN, 2 * DISK_CHUNK_LEN), 0);
    pair = pair_new(a, b);
    assert_true(pair_synchronise(pair, 0));
    assert_int_equal(pair_chunks_sent(pair), 3);
    pair_epoch(pair);
    assert_same_images(a, b);
    put_away(pair, a, b);
}

static uint64_t dirty_bytes(const struct host *host)
{
    struct disk_figures figures;
    disks_figures(host_disks(host), 0, &figures);
    return figures.dirty_bytes;
}

/* Otherwise a resynchronisation would be of all that was ever written. */
static void test_chunks_whose_epochs_were_applied_are_clean_again(void **state)
{
    (void)state;
    struct host *a = host_new(1, false), *b = host_new(1, true);
    struct pair *pair = pair_new(a, b);
    gint64 until = g_get_monotonic_time() + 60 * G_USEC_PER_SEC;
    assert_true(pair_synchronise(pair, 0));
    assert_int_equal(host_write(a, 5 * DISK_CHUNK_LEN, DISK_CHUNK_LEN, 1), 0);
    assert_int_equal(host_write(a, 90 * DISK_CHUNK_LEN, 10, 2), 0);
    assert_int_equal(dirty_bytes(a), 2 * DISK_CHUNK_LEN);
    while (dirty_bytes(a) != 0) {
        assert_true(g_get_monotonic_time() < until);
        pair_epoch(pair);
    }
    assert_int_equal(host_write(a, 7 * DISK_CHUNK_LEN, 10, 3), 0);
    assert_int_equal(dirty_bytes(a), DISK_CHUNK_LEN);
    put_away(pair, a, b);
}

/* a dies with writes that b never got; b goes on; a returns and stands by. */
static void test_an_old_primary_gets_just_what_differs(void **state)
{
    (void)state;
    struct host *a = host_new(1, false), *b = host_new(0, true);
    struct pair *pair = pair_new(a, b);
    assert_true(pair_synchronise(pair, 0));
    pair_epoch(pair);
    assert_int_equal(host_write(a, 10 * DISK_CHUNK_LEN, 4096, 2), 0); /* never acked */
    pair_free(pair);
    host_take_over(b);
    assert_int_equal(host_write(b, 700 * DISK_CHUNK_LEN, 4096, 3), 0);
    host_crash(a, true);
    pair = pair_new(b, a);
    assert_true(pair_synchronise(pair, 0));
    assert_int_equal(pair_chunks_sent(pair), 2);
    pair_epoch(pair);
    assert_same_images(a, b);
    put_away(pair, a, b);
}

static void test_without_a_map_hashes_decide(void **state)
{
    (void)state;
    struct host *a = host_new(1, false), *b = host_new(0, true);
    struct pair *pair = pair_new(a, b);
    assert_true(pair_synchronise(pair, 0));
    pair_epoch(pair);
    pair_free(pair);
    assert_int_equal(host_write(a, 30 * DISK_CHUNK_LEN, 4096, 2), 0);
    host_lose_map(b, true);
    pair = pair_new(a, b);
    assert_true(pair_synchronise(pair, 0));
    assert_int_equal(pair_chunks_sent(pair), 1);
    pair_epoch(pair);
    assert_same_images(a, b);
    put_away(pair, a, b);
}

/* Links break at random, hosts crash and swap roles, the guest writes all the time. */
static void test_random_breaks_crashes_and_takeovers_leave_equal_images(void **state)
{
    (void)state;
    unsigned seed = 4711;
    struct host *hosts[2] = {host_new(1, false), host_new(2, true)};
    for (unsigned round = 0; round < 16; round++) {
        struct host *primary = hosts[0], *standby = hosts[1];
        struct pair *pair = pair_new(primary, standby);
        guest_start(primary, (unsigned)rand_r(&seed));
        bool synchronised =
            pair_synchronise(pair, rand_r(&seed) % 3 == 0 ? 1 + (unsigned)rand_r(&seed) % 20 : 0);
        for (unsigned i = (unsigned)rand_r(&seed) % 5; synchronised && i > 0; i--)
            pair_epoch(pair);
        bool whole = synchronised && rand_r(&seed) % 2;
        if (whole)
            pair_epoch(pair);
        /* Sometimes the link goes first and the guest writes on. */
        if (rand_r(&seed) % 2) {
            guest_stop(primary);
            pair_free(pair);
        } else {
            pair_free(pair);
            guest_stop(primary);
        }
        if (whole && rand_r(&seed) % 2) {
            hosts[0] = standby;
            hosts[1] = primary;
            host_crash(primary, true);
            host_take_over(standby);
        } else if (rand_r(&seed) % 4 == 0) {
            host_crash(standby, true);
        }
    }
    struct pair *pair = pair_new(hosts[0], hosts[1]);
    assert_true(pair_synchronise(pair, 0));
    pair_epoch(pair);
    assert_same_images(hosts[0], hosts[1]);
    pair_free(pair);
    host_free(hosts[0]);
    host_free(hosts[1]);
}

/* ---- shared disks ---- */

static uint8_t byte_at(struct host *host, uint64_t offset)
{
    uint8_t byte;
    assert_int_equal(host_read(host, &byte, 1, offset), 0);
    return byte;
}

static uint8_t image_byte_at(const struct host *host, uint64_t offset)
{
    uint8_t byte;
    assert_int_equal(disk_image_read(disk_image_fd(disks_image(host_disks(host), 0)), &byte, 1, offset), 0);
    return byte;
}

static void test_a_shared_disk_gets_writes_only_once_their_epoch_is_acked_and_reads_see_them(void **state)
{
    (void)state;
    struct host *a = host_new_shared(0), *b = host_new_sharing(a);
    struct pair *pair = pair_new(a, b);
    assert_true(pair_synchronise(pair, 0));
    assert_int_equal(pair_chunks_sent(pair), 0);
    pair_hold(pair);
    assert_int_equal(host_write(a, 4096, 8192, 5), 0);
    assert_int_equal(host_zero(a, 8192, 100), 0);
    assert_true(byte_at(a, 4096) != 0 && byte_at(a, 8192 + 100) != 0);
    assert_int_equal(byte_at(a, 8192 + 99), 0);
    assert_int_equal(image_byte_at(a, 4096), 0);
    pair_cut_unacked(pair);
    assert_int_equal(image_byte_at(a, 4096), 0);
    assert_int_equal(host_write(a, 65536, 100, 6), 0); /* of the next epoch */
    pair_ack(pair);
    assert_int_equal(image_byte_at(a, 4096), byte_at(a, 4096));
    assert_int_equal(image_byte_at(a, 8192 + 99), 0);
    assert_int_equal(image_byte_at(a, 65536), 0);
    assert_true(byte_at(a, 65536) != 0);
    put_away(pair, a, b);
}

static void test_a_shared_disk_is_never_synchronised_however_busy_it_is(void **state)
{
    (void)state;
    struct host *a = host_new_shared(0), *b = host_new_sharing(a);
    struct pair *pair = pair_new(a, b);
    guest_start(a, 4);
    bool synchronised = pair_synchronise(pair, 0);
    guest_stop(a);
    assert_true(synchronised);
    assert_int_equal(pair_chunks_sent(pair), 0);
    put_away(pair, a, b);
}

static void test_a_takeover_of_a_shared_disk_finds_the_epochs_that_were_acked_and_no_more(void **state)
{
    (void)state;
    struct host *a = host_new_shared(0), *b = host_new_sharing(a);
    struct pair *pair = pair_new(a, b);
    assert_true(pair_synchronise(pair, 0));
    pair_hold(pair);
    assert_int_equal(host_write(a, 4096, 4096, 5), 0);
    uint8_t first = byte_at(a, 4096);
    pair_cut_unacked(pair);                             /* the standby has it, the image does not */
    assert_int_equal(host_write(a, 4096, 4096, 77), 0); /* from the future */
    assert_int_equal(host_write(a, 65536, 4096, 8), 0);
    pair_free(pair);
    host_kill(a);
    host_take_over(b);
    assert_int_equal(byte_at(b, 4096), first);
    assert_int_equal(byte_at(b, 65536), 0);
    host_kill(b);
    host_free(b);
    host_free(a);
}

static void test_a_shared_disk_is_not_taken_over_while_the_other_host_has_it(void **state)
{
    (void)state;
    struct host *a = host_new_shared(0), *b = host_new_sharing(a);
    assert_int_equal(disks_lock_shared(host_disks(b)), -EAGAIN);
    host_kill(a);
    assert_int_equal(disks_lock_shared(host_disks(b)), 0);
    host_kill(b);
    host_free(b);
    host_free(a);
}

/* The peer is lost and this side goes on alone: all that was held is written. */
static void test_going_on_alone_writes_what_was_held_back_of_a_shared_disk(void **state)
{
    (void)state;
    struct host *a = host_new_shared(0), *b = host_new_sharing(a);
    struct pair *pair = pair_new(a, b);
    assert_true(pair_synchronise(pair, 0));
    pair_hold(pair);
    assert_int_equal(host_write(a, 4096, 4096, 5), 0);
    disks_stop_logging(host_disks(a)); /* not decided yet */
    assert_int_equal(host_write(a, 65536, 4096, 6), 0);
    assert_int_equal(image_byte_at(a, 4096), 0);
    disks_write_through(host_disks(a));
    while (!disks_order_done(host_disks(a)))
        ;
    assert_int_equal(image_byte_at(a, 4096), byte_at(a, 4096));
    assert_int_equal(image_byte_at(a, 65536), byte_at(a, 65536));
    put_away(pair, a, b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_standby_with_an_empty_image_gets_everything),
        cmocka_unit_test(test_a_standby_with_the_same_image_gets_nothing),
        cmocka_unit_test(test_epochs_are_whole_while_the_guest_writes),
        cmocka_unit_test(test_a_broken_synchronisation_goes_on_where_it_was),
        cmocka_unit_test(test_after_a_break_only_what_was_written_since_is_sent),
        cmocka_unit_test(test_chunks_whose_epochs_were_applied_are_clean_again),
        cmocka_unit_test(test_an_old_primary_gets_just_what_differs),
        cmocka_unit_test(test_without_a_map_hashes_decide),
        cmocka_unit_test(test_a_shared_disk_gets_writes_only_once_their_epoch_is_acked_and_reads_see_them),
        cmocka_unit_test(test_a_shared_disk_is_never_synchronised_however_busy_it_is),
        cmocka_unit_test(test_a_takeover_of_a_shared_disk_finds_the_epochs_that_were_acked_and_no_more),
        cmocka_unit_test(test_a_shared_disk_is_not_taken_over_while_the_other_host_has_it),
        cmocka_unit_test(test_going_on_alone_writes_what_was_held_back_of_a_shared_disk),
        cmocka_unit_test(test_random_breaks_crashes_and_takeovers_leave_equal_images),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
