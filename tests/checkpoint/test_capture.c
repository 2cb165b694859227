/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Capture against a hypervisor made of memory. The judge is always the same: the epochs, applied to an image,
 * must give the guest's RAM as it was at the boundary, byte for byte.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "checkpoint/capture.h"
#include "checkpoint/image.h"
#include "checkpoint/page_encoding.h"
#include "tests/fakevm/fake_hypervisor.h"

#define MAIN_PAGES    512u
#define AUX_PAGES     32u
#define STAGING_PAGES 256u

struct world {
    struct hypervisor *guest, *standby;
    struct staging *staging;
    struct capture *capture;
    struct image *image;
    struct capture_report report;
    unsigned pauses, boundaries;
    uint64_t boundary_epoch;
};

static void before_pause(void *opaque)
{
    ((struct world *)opaque)->pauses++;
}

static void at_boundary(void *opaque, uint64_t epoch)
{
    struct world *world = opaque;
    world->boundaries++;
    world->boundary_epoch = epoch;
}

static void open_world(struct world *world, uint32_t staging_pages, const struct capture_config *faults)
{
    struct capture_config config = faults ? *faults : (struct capture_config){0};
    memset(world, 0, sizeof *world);
    world->guest = fake_hypervisor_new(MAIN_PAGES, AUX_PAGES);
    world->standby = fake_hypervisor_new(MAIN_PAGES, AUX_PAGES);
    assert_int_equal(staging_open(&world->staging, staging_pages, 65536), 0);
    config.hv = world->guest;
    config.staging = world->staging;
    config.deadline_us = 20000;
    config.copiers = 1;
    config.before_pause = before_pause;
    config.at_boundary = at_boundary;
    config.opaque = world;
    assert_int_equal(capture_open(&world->capture, &config), 0);
    assert_int_equal(image_new(&world->image, world->standby, 65536), 0);
}

static void close_world(struct world *world)
{
    capture_close(world->capture);
    image_free(world->image);
    staging_close(world->staging);
    fake_hypervisor_free(world->guest);
    fake_hypervisor_free(world->standby);
}

/* What the wire and the other side do with an epoch. */
static void ship(struct world *world, struct staged_epoch *epoch)
{
    page_encoding_mark_zero(world->staging, epoch);
    assert_int_equal(image_check(world->image, epoch), 0);
    assert_int_equal(image_apply(world->image, world->staging, epoch), 0);
    staging_free(world->staging, epoch);
}

static int cut(struct world *world, uint64_t number)
{
    struct staged_epoch *epoch = NULL;
    int status = capture_epoch(world->capture, number, false, &epoch, &world->report);
    if (status == 0)
        ship(world, epoch);
    return status;
}

/* First synchronisation and one epoch. */
static void synchronise(struct world *world)
{
    struct staged_epoch *batch;
    int status;
    uint64_t number = 0;
    assert_int_equal(capture_start(world->capture), 0);
    while ((batch = capture_batch(world->capture, ++number, 100, &status)) != NULL)
        ship(world, batch);
    assert_int_equal(status, 0);
    assert_int_equal(cut(world, 1), 0);
}

static bool image_is_photograph(const struct world *world)
{
    for (unsigned i = 0; i < 2; i++) {
        const struct hv_block *block = hypervisor_block(world->standby, i);
        if (memcmp(block->bytes, fake_photograph(world->guest, i), block->max_len) != 0)
            return false;
    }
    return true;
}

static void test_first_synchronisation_and_an_epoch_give_the_whole_guest(void **state)
{
    (void)state;
    struct world world;
    open_world(&world, STAGING_PAGES, NULL);
    for (uint64_t page = 0; page < MAIN_PAGES; page += 3)
        guest_write(world.guest, FAKE_MAIN, page, page + 1);
    for (uint64_t page = 0; page < AUX_PAGES; page++)
        guest_write(world.guest, FAKE_AUX, page, page + 7);
    synchronise(&world);
    assert_true(image_is_photograph(&world));
    assert_int_equal(image_epoch(world.image), 1);
    assert_int_equal(world.boundaries, 1);
    assert_int_equal(world.boundary_epoch, 1);
    close_world(&world);
}

static void test_holes_of_guest_memory_are_not_sent(void **state)
{
    (void)state;
    struct world world;
    open_world(&world, STAGING_PAGES, NULL);
    guest_write(world.guest, FAKE_MAIN, 3, 1);
    guest_write(world.guest, FAKE_MAIN, 400, 1);
    assert_int_equal(capture_start(world.capture), 0);
    assert_int_equal(capture_dirty(world.capture), 2 + AUX_PAGES);
    close_world(&world);
}

static void test_batch_larger_than_staging_is_cut_down_to_it(void **state)
{
    (void)state;
    struct world world;
    int status;
    open_world(&world, 16, NULL);
    assert_int_equal(capture_start(world.capture), 0);
    struct staged_epoch *batch = capture_batch(world.capture, 1, 2048, &status);
    assert_non_null(batch);
    assert_int_equal(batch->npages, 16);
    assert_null(capture_batch(world.capture, 2, 2048, &status));
    assert_int_equal(status, -EAGAIN);
    ship(&world, batch);
    close_world(&world);
}

static void test_page_written_between_two_epochs_is_in_the_second(void **state)
{
    (void)state;
    struct world world;
    open_world(&world, STAGING_PAGES, NULL);
    synchronise(&world);
    guest_write(world.guest, FAKE_MAIN, 100, 42);
    guest_write(world.guest, FAKE_AUX, 31, 43);
    assert_int_equal(cut(&world, 2), 0);
    assert_int_equal(world.report.pages, 2);
    assert_int_equal(world.report.pages_in_pause, 2);
    assert_true(image_is_photograph(&world));
    assert_int_equal(cut(&world, 3), 0);
    assert_int_equal(world.report.pages, 0);
    close_world(&world);
}

static void test_early_pass_leaves_only_the_rest_for_the_pause(void **state)
{
    (void)state;
    struct world world;
    open_world(&world, STAGING_PAGES, NULL);
    synchronise(&world);
    for (uint64_t page = 0; page < 200; page++)
        guest_write(world.guest, FAKE_MAIN, page, 5);
    assert_int_equal(capture_early_pass(world.capture, 2), 200);
    guest_write(world.guest, FAKE_MAIN, 300, 6);
    assert_int_equal(cut(&world, 2), 0);
    assert_int_equal(world.report.pages, 201);
    assert_int_equal(world.report.pages_early, 200);
    assert_int_equal(world.report.pages_in_pause, 1);
    assert_true(image_is_photograph(&world));
    close_world(&world);
}

/* A page written, copied early, written again, copied early again, written again. Returns whether the image
 * is right. */
static bool redirty_one_page(const struct capture_config *faults)
{
    struct world world;
    open_world(&world, STAGING_PAGES, faults);
    synchronise(&world);
    guest_write(world.guest, FAKE_MAIN, 9, 1);
    assert_int_equal(capture_early_pass(world.capture, 2), 1);
    guest_write(world.guest, FAKE_MAIN, 9, 2);
    assert_true(capture_early_pass(world.capture, 2) >= 0);
    guest_write(world.guest, FAKE_MAIN, 9, 3);
    assert_int_equal(cut(&world, 2), 0);
    assert_int_equal(world.report.pages, 1); /* one slot, however often it was copied */
    bool right = image_is_photograph(&world);
    close_world(&world);
    return right;
}

static void test_page_dirtied_during_copy_is_sent_again(void **state)
{
    (void)state;
    assert_true(redirty_one_page(NULL));
}

static void test_forgetting_a_redirtied_page_is_found(void **state)
{
    (void)state;
    struct capture_config faults = {.chaos_forget_redirtied = true};
    assert_false(redirty_one_page(&faults));
}

static void test_slots_of_the_last_epoch_are_not_taken_for_this_one(void **state)
{
    (void)state;
    struct world world;
    open_world(&world, STAGING_PAGES, NULL);
    synchronise(&world);
    for (uint64_t epoch = 2; epoch < 40; epoch++) {
        for (uint64_t page = epoch; page < epoch + 20; page++)
            guest_write(world.guest, FAKE_MAIN, page, epoch * 1000 + page);
        if (epoch % 2)
            assert_int_equal(capture_early_pass(world.capture, epoch), 20);
        assert_int_equal(cut(&world, epoch), 0);
        assert_int_equal(world.report.pages, 20);
        assert_true(image_is_photograph(&world));
    }
    close_world(&world);
}

static void test_expired_checkpoint_closes_nothing_and_loses_nothing(void **state)
{
    (void)state;
    struct world world;
    open_world(&world, STAGING_PAGES, NULL);
    synchronise(&world);
    for (uint64_t page = 0; page < 50; page++)
        guest_write(world.guest, FAKE_MAIN, page, 11);
    fake_expire(world.guest, 2);
    assert_int_equal(cut(&world, 2), -ETIME);
    assert_int_equal(image_epoch(world.image), 1);
    guest_write(world.guest, FAKE_MAIN, 7, 12); /* the guest ran on */
    guest_write(world.guest, FAKE_MAIN, 77, 13);
    assert_int_equal(cut(&world, 2), -ETIME);
    assert_int_equal(cut(&world, 2), 0);
    assert_int_equal(world.report.pages, 51);
    assert_true(image_is_photograph(&world));
    close_world(&world);
}

static void test_checkpoint_whose_save_failed_is_an_error_and_loses_nothing(void **state)
{
    (void)state;
    struct world world;
    open_world(&world, STAGING_PAGES, NULL);
    synchronise(&world);
    guest_write(world.guest, FAKE_MAIN, 5, 5);
    fake_fail_finish(world.guest, 1);
    assert_int_equal(cut(&world, 2), -EIO);
    assert_int_equal(cut(&world, 2), 0);
    assert_true(image_is_photograph(&world));
    close_world(&world);
}

static void test_changed_ram_blocks_end_the_epoch_and_a_new_start_works(void **state)
{
    (void)state;
    struct world world;
    open_world(&world, STAGING_PAGES, NULL);
    synchronise(&world);
    guest_write(world.guest, FAKE_MAIN, 5, 5);
    fake_change_blocks(world.guest, 1);
    assert_int_equal(cut(&world, 2), -ESTALE);
    assert_int_equal(image_discard(world.image), 0);
    synchronise(&world);
    assert_true(image_is_photograph(&world));
    close_world(&world);
}

/* Room is taken by an epoch that has not been sent. */
static void test_full_staging_makes_the_next_epoch_wait_and_loses_nothing(void **state)
{
    (void)state;
    struct world world;
    struct staged_epoch *unsent = NULL;
    open_world(&world, 64, NULL);
    synchronise(&world);
    for (uint64_t page = 0; page < 40; page++)
        guest_write(world.guest, FAKE_MAIN, page, 21);
    assert_int_equal(capture_epoch(world.capture, 2, false, &unsent, &world.report), 0);
    for (uint64_t page = 20; page < 60; page++)
        guest_write(world.guest, FAKE_MAIN, page, 22);
    assert_int_equal(world.pauses, world.boundaries);
    assert_int_equal(cut(&world, 3), -EAGAIN);
    unsigned begun = fake_checkpoints_begun(world.guest), pauses = world.pauses;
    assert_int_equal(cut(&world, 3), -EAGAIN);
    assert_int_equal(fake_checkpoints_begun(world.guest), begun); /* not paused in vain */
    assert_int_equal(world.pauses, pauses);
    assert_int_equal(capture_dirty(world.capture), 16);
    ship(&world, unsent);
    assert_int_equal(cut(&world, 3), 0);
    assert_int_equal(world.report.pages, 40);
    assert_true(image_is_photograph(&world));
    close_world(&world);
}

/* More dirty pages than staging can ever hold. Returns whether an epoch was closed. */
static bool overflow(const struct capture_config *faults)
{
    struct world world;
    open_world(&world, 64, faults);
    synchronise(&world);
    for (uint64_t page = 0; page < 65; page++)
        guest_write(world.guest, FAKE_MAIN, page, 31);
    int status = cut(&world, 2);
    bool closed = status == 0;
    if (closed) {
        assert_false(image_is_photograph(&world));
    } else {
        assert_int_equal(status, -ENOBUFS);
        assert_int_equal(capture_dirty(world.capture), 1);
        assert_int_equal(image_epoch(world.image), 1);
        /* Starting over is the way out. */
        synchronise(&world);
        assert_true(image_is_photograph(&world));
    }
    close_world(&world);
    return closed;
}

static void test_epoch_larger_than_staging_is_not_closed(void **state)
{
    (void)state;
    assert_false(overflow(NULL));
}

static void test_closing_an_epoch_that_did_not_fit_is_found(void **state)
{
    (void)state;
    struct capture_config faults = {.chaos_close_when_full = true};
    assert_true(overflow(&faults));
}

static void test_no_epoch_is_begun_while_every_descriptor_is_taken(void **state)
{
    (void)state;
    struct world world;
    struct staged_epoch *epochs[STAGING_EPOCHS], *none = NULL;
    open_world(&world, STAGING_PAGES, NULL);
    synchronise(&world);
    for (unsigned i = 0; i < STAGING_EPOCHS; i++) {
        guest_write(world.guest, FAKE_MAIN, i, 41);
        assert_int_equal(capture_epoch(world.capture, 2 + i, false, &epochs[i], &world.report), 0);
    }
    guest_write(world.guest, FAKE_MAIN, 99, 42);
    assert_int_equal(capture_epoch(world.capture, 2 + STAGING_EPOCHS, false, &none, &world.report), -EAGAIN);
    assert_int_equal(capture_early_pass(world.capture, 2 + STAGING_EPOCHS), -EAGAIN);
    assert_null(none);
    for (unsigned i = 0; i < STAGING_EPOCHS; i++)
        ship(&world, epochs[i]);
    assert_int_equal(cut(&world, 2 + STAGING_EPOCHS), 0);
    assert_true(image_is_photograph(&world));
    close_world(&world);
}

static void test_zero_pages_travel_without_bytes_and_reach_the_image(void **state)
{
    (void)state;
    struct world world;
    open_world(&world, STAGING_PAGES, NULL);
    for (uint64_t page = 0; page < 64; page++)
        guest_write(world.guest, FAKE_MAIN, page, 1);
    synchronise(&world);
    for (uint64_t page = 0; page < 64; page += 2)
        guest_write(world.guest, FAKE_MAIN, page, 0);
    struct staged_epoch *epoch;
    assert_int_equal(capture_epoch(world.capture, 2, false, &epoch, &world.report), 0);
    assert_int_equal(page_encoding_mark_zero(world.staging, epoch), 32);
    ship(&world, epoch);
    assert_true(image_is_photograph(&world));
    close_world(&world);
}

static void test_block_that_grows_is_sent_up_to_its_new_length(void **state)
{
    (void)state;
    struct world world;
    unsigned nblocks;
    open_world(&world, STAGING_PAGES, NULL);
    fake_resize_aux(world.guest, 8 * HV_PAGE_LEN);
    assert_int_equal(hypervisor_harvest(world.guest), 0);
    synchronise(&world);
    fake_resize_aux(world.guest, 16 * HV_PAGE_LEN - 100);
    guest_write(world.guest, FAKE_AUX, 15, 51);
    guest_write(world.guest, FAKE_AUX, 16, 52); /* past the end: nobody's */
    assert_int_equal(cut(&world, 2), 0);
    assert_int_equal(world.report.pages, 1);
    assert_int_equal(image_used_len(world.image, &nblocks)[FAKE_AUX], 16 * HV_PAGE_LEN - 100);
    assert_int_equal(nblocks, 2);
    close_world(&world);
}

static void test_device_state_and_boundary_travel_with_the_epoch(void **state)
{
    (void)state;
    struct world world;
    size_t len;
    open_world(&world, STAGING_PAGES, NULL);
    synchronise(&world);
    assert_int_equal(cut(&world, 2), 0);
    const uint8_t *devstate = image_devstate(world.image, &len);
    assert_int_equal(len, world.report.checkpoint.devstate_len);
    assert_memory_equal(devstate, world.report.checkpoint.devstate, len);
    close_world(&world);
}

static void test_stop_and_start_again_drops_the_open_epoch(void **state)
{
    (void)state;
    struct world world;
    open_world(&world, STAGING_PAGES, NULL);
    synchronise(&world);
    guest_write(world.guest, FAKE_MAIN, 1, 61);
    assert_int_equal(capture_early_pass(world.capture, 2), 1);
    assert_int_equal(capture_stop(world.capture), 0);
    assert_int_equal(staging_free_pages(world.staging), STAGING_PAGES);
    assert_int_equal(staging_free_epochs(world.staging), STAGING_EPOCHS);
    guest_write(world.guest, FAKE_MAIN, 2, 62); /* unprotected meanwhile */
    synchronise(&world);
    assert_true(image_is_photograph(&world));
    close_world(&world);
}

/* An epoch that is cut and goes down with its link. */
static void cut_in_vain(struct world *world, uint64_t number)
{
    struct staged_epoch *epoch = NULL;
    assert_int_equal(capture_epoch(world->capture, number, false, &epoch, &world->report), 0);
    staging_free(world->staging, epoch);
}

/*
 * Epoch 1 is held by the peer. Epoch 2 was sent in vain, epoch 3 was open, one page was dirtied and not even
 * harvested when the link broke.
 */
static void break_link(struct world *world, const struct capture_config *faults)
{
    open_world(world, STAGING_PAGES, faults);
    for (uint64_t page = 0; page < 100; page++)
        guest_write(world->guest, FAKE_MAIN, page, page + 1);
    synchronise(world);
    guest_write(world->guest, FAKE_MAIN, 1, 71);
    guest_write(world->guest, FAKE_AUX, 5, 72);
    cut_in_vain(world, 2);
    guest_write(world->guest, FAKE_MAIN, 2, 73);
    assert_int_equal(capture_early_pass(world->capture, 3), 1);
    guest_write(world->guest, FAKE_MAIN, 3, 74);
}

static void test_after_a_broken_link_exactly_what_the_peer_may_lack_is_sent(void **state)
{
    (void)state;
    struct world world;
    break_link(&world, NULL);
    assert_int_equal(capture_resume(world.capture, 1), 0);
    assert_int_equal(staging_free_epochs(world.staging), STAGING_EPOCHS);
    assert_int_equal(capture_dirty(world.capture), 4);
    assert_int_equal(cut(&world, 4), 0);
    assert_int_equal(world.report.pages, 4);
    assert_true(image_is_photograph(&world));
    close_world(&world);
}

static void test_a_peer_that_holds_more_than_its_last_word_gets_pages_twice(void **state)
{
    (void)state;
    struct world world;
    open_world(&world, STAGING_PAGES, NULL);
    synchronise(&world);
    guest_write(world.guest, FAKE_MAIN, 1, 75);
    assert_int_equal(cut(&world, 2), 0); /* its ack is lost */
    guest_write(world.guest, FAKE_MAIN, 2, 76);
    assert_int_equal(capture_resume(world.capture, 1), 0);
    assert_int_equal(capture_dirty(world.capture), 2);
    assert_int_equal(cut(&world, 3), 0);
    assert_true(image_is_photograph(&world));
    close_world(&world);
}

static void test_a_link_that_breaks_while_the_difference_is_sent_loses_nothing(void **state)
{
    (void)state;
    struct world world;
    int status;
    break_link(&world, NULL);
    assert_int_equal(capture_resume(world.capture, 1), 0);
    /* One batch arrives, another does not, an epoch does not either. */
    ship(&world, capture_batch(world.capture, 100, 1, &status));
    staging_free(world.staging, capture_batch(world.capture, 101, 1, &status));
    guest_write(world.guest, FAKE_MAIN, 7, 77);
    cut_in_vain(&world, 4);
    guest_write(world.guest, FAKE_MAIN, 8, 78);
    assert_int_equal(capture_resume(world.capture, 1), 0);
    assert_int_equal(cut(&world, 5), 0);
    assert_true(image_is_photograph(&world));
    /* And once an epoch is held, none of it is sent again. */
    guest_write(world.guest, FAKE_MAIN, 9, 79);
    assert_int_equal(capture_resume(world.capture, 5), 0);
    assert_int_equal(capture_dirty(world.capture), 1);
    close_world(&world);
}

static void test_a_difference_of_more_epochs_than_are_remembered_is_whole(void **state)
{
    (void)state;
    struct world world;
    open_world(&world, STAGING_PAGES, NULL);
    synchronise(&world);
    for (uint64_t epoch = 2; epoch < 102; epoch++) {
        guest_write(world.guest, FAKE_MAIN, epoch, epoch);
        cut_in_vain(&world, epoch);
    }
    assert_int_equal(capture_resume(world.capture, 1), 0);
    assert_int_equal(cut(&world, 102), 0);
    assert_true(image_is_photograph(&world));
    close_world(&world);
}

static void test_forgetting_what_was_not_acked_is_found(void **state)
{
    (void)state;
    struct world world;
    struct capture_config faults = {.chaos_forget_unacked = true};
    break_link(&world, &faults);
    assert_int_equal(capture_resume(world.capture, 1), 0);
    assert_int_equal(cut(&world, 4), 0);
    assert_false(image_is_photograph(&world));
    close_world(&world);
}

static void test_after_ram_blocks_have_changed_there_is_no_difference(void **state)
{
    (void)state;
    struct world world;
    open_world(&world, STAGING_PAGES, NULL);
    synchronise(&world);
    fake_change_blocks(world.guest, 1);
    assert_int_equal(cut(&world, 2), -ESTALE);
    assert_int_equal(capture_resume(world.capture, 1), -ESTALE);
    synchronise(&world);
    assert_int_equal(capture_resume(world.capture, 1), 0);
    close_world(&world);
}

static void test_without_a_first_synchronisation_there_is_no_difference(void **state)
{
    (void)state;
    struct world world;
    open_world(&world, STAGING_PAGES, NULL);
    assert_int_equal(capture_resume(world.capture, 0), -ESTALE);
    close_world(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_first_synchronisation_and_an_epoch_give_the_whole_guest),
        cmocka_unit_test(test_holes_of_guest_memory_are_not_sent),
        cmocka_unit_test(test_batch_larger_than_staging_is_cut_down_to_it),
        cmocka_unit_test(test_page_written_between_two_epochs_is_in_the_second),
        cmocka_unit_test(test_early_pass_leaves_only_the_rest_for_the_pause),
        cmocka_unit_test(test_page_dirtied_during_copy_is_sent_again),
        cmocka_unit_test(test_forgetting_a_redirtied_page_is_found),
        cmocka_unit_test(test_slots_of_the_last_epoch_are_not_taken_for_this_one),
        cmocka_unit_test(test_expired_checkpoint_closes_nothing_and_loses_nothing),
        cmocka_unit_test(test_checkpoint_whose_save_failed_is_an_error_and_loses_nothing),
        cmocka_unit_test(test_changed_ram_blocks_end_the_epoch_and_a_new_start_works),
        cmocka_unit_test(test_full_staging_makes_the_next_epoch_wait_and_loses_nothing),
        cmocka_unit_test(test_epoch_larger_than_staging_is_not_closed),
        cmocka_unit_test(test_closing_an_epoch_that_did_not_fit_is_found),
        cmocka_unit_test(test_no_epoch_is_begun_while_every_descriptor_is_taken),
        cmocka_unit_test(test_zero_pages_travel_without_bytes_and_reach_the_image),
        cmocka_unit_test(test_block_that_grows_is_sent_up_to_its_new_length),
        cmocka_unit_test(test_device_state_and_boundary_travel_with_the_epoch),
        cmocka_unit_test(test_stop_and_start_again_drops_the_open_epoch),
        cmocka_unit_test(test_after_a_broken_link_exactly_what_the_peer_may_lack_is_sent),
        cmocka_unit_test(test_a_peer_that_holds_more_than_its_last_word_gets_pages_twice),
        cmocka_unit_test(test_a_link_that_breaks_while_the_difference_is_sent_loses_nothing),
        cmocka_unit_test(test_a_difference_of_more_epochs_than_are_remembered_is_whole),
        cmocka_unit_test(test_forgetting_what_was_not_acked_is_found),
        cmocka_unit_test(test_after_ram_blocks_have_changed_there_is_no_difference),
        cmocka_unit_test(test_without_a_first_synchronisation_there_is_no_difference),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
