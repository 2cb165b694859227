/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Pre-copy of a guest made of memory, without a thread: what is left at its end fits into one epoch, and the
 * batches and that epoch together give the guest's RAM.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "checkpoint/image.h"
#include "checkpoint/page_encoding.h"
#include "checkpoint/precopy.h"
#include "tests/fakevm/fake_hypervisor.h"

#define MAIN_PAGES    8192u
#define AUX_PAGES     32u
#define ALL_PAGES     (MAIN_PAGES + AUX_PAGES)
#define STAGING_PAGES 5000u
#define MAX_STEPS     500u
#define MAX_HELD      8u

struct world {
    struct hypervisor *guest, *standby;
    struct staging *staging;
    struct capture *capture;
    struct image *image;
    struct precopy precopy;
    uint64_t number, sent_pages, left_pages;
    uint64_t value; /* that the guest stores next */
    bool holds;     /* batches stay in staging */
    struct staged_epoch *held[MAX_HELD];
    unsigned nheld;
    /* The disks. */
    unsigned steps_until_ready; /* of the first passes; of the last one it takes as many */
    unsigned disk_steps, finishes;
    bool disks_fail;
    unsigned steps;
    uint64_t dirty_at_finish;
    /* What was told. */
    unsigned failures;
    int status;
};

/* What the wire and the other side do with an epoch. */
static void ship(struct world *world, struct staged_epoch *epoch)
{
    page_encoding_mark_zero(world->staging, epoch);
    assert_int_equal(image_check(world->image, epoch), 0);
    assert_int_equal(image_apply(world->image, world->staging, epoch), 0);
    staging_free(world->staging, epoch);
}

static void ship_held(struct world *world)
{
    for (unsigned i = 0; i < world->nheld; i++)
        ship(world, world->held[i]);
    world->nheld = 0;
}

static uint64_t next_number(void *opaque)
{
    return ((struct world *)opaque)->number + 1;
}

static void send_batch(void *opaque, struct staged_epoch *batch, uint64_t left_pages)
{
    struct world *world = opaque;
    assert_int_equal(batch->epoch, ++world->number);
    assert_true(batch->npages <= PRECOPY_BATCH_PAGES);
    world->sent_pages += batch->npages;
    world->left_pages = left_pages;
    if (!world->holds) {
        ship(world, batch);
        return;
    }
    assert_true(world->nheld < MAX_HELD);
    world->held[world->nheld++] = batch;
}

static enum precopy_progress step_disks(void *opaque)
{
    struct world *world = opaque;
    world->disk_steps++;
    if (world->disks_fail)
        return PRECOPY_FAILED;
    if (world->steps_until_ready && world->steps_until_ready--)
        return PRECOPY_WAITING;
    return world->finishes ? PRECOPY_FINISHED : PRECOPY_READY;
}

static void finish_disks(void *opaque)
{
    struct world *world = opaque;
    world->finishes++;
    world->dirty_at_finish = capture_dirty(world->capture);
}

static void failed(void *opaque, int status, const char *what)
{
    struct world *world = opaque;
    assert_non_null(what);
    world->failures++;
    world->status = status;
}

static const struct precopy_calls memory_alone = {
    .next_number = next_number, .send = send_batch, .failed = failed};
static const struct precopy_calls with_disks = {.next_number = next_number,
                                                .send = send_batch,
                                                .step_disks = step_disks,
                                                .finish_disks = finish_disks,
                                                .failed = failed};

static void at_boundary(void *opaque, uint64_t epoch)
{
    (void)opaque;
    (void)epoch;
}

static void open_world(struct world *world, const struct precopy_calls *calls)
{
    *world = (struct world){.value = 1};
    world->guest = fake_hypervisor_new(MAIN_PAGES, AUX_PAGES);
    world->standby = fake_hypervisor_new(MAIN_PAGES, AUX_PAGES);
    assert_int_equal(staging_open(&world->staging, STAGING_PAGES, 65536), 0);
    const struct capture_config config = {.hv = world->guest,
                                          .staging = world->staging,
                                          .deadline_us = 20000,
                                          .copiers = 1,
                                          .at_boundary = at_boundary};
    assert_int_equal(capture_open(&world->capture, &config), 0);
    assert_int_equal(image_new(&world->image, world->standby, 65536), 0);
    for (uint64_t page = 0; page < MAIN_PAGES; page++)
        guest_write(world->guest, FAKE_MAIN, page, world->value);
    assert_int_equal(capture_start(world->capture), 0);
    precopy_begin(&world->precopy, world->capture, calls, world);
}

static void close_world(struct world *world)
{
    capture_close(world->capture);
    image_free(world->image);
    staging_close(world->staging);
    fake_hypervisor_free(world->guest);
    fake_hypervisor_free(world->standby);
}

static void guest_dirties(struct world *world, uint64_t pages)
{
    world->value++;
    for (uint64_t page = 0; page < pages; page++)
        guest_write(world->guest, FAKE_MAIN, page, world->value);
}

static enum precopy_progress step(struct world *world)
{
    world->steps++;
    return precopy_step(&world->precopy);
}

/* Step after step; the guest dirties so many pages before each. */
static enum precopy_progress run(struct world *world, uint64_t dirties)
{
    enum precopy_progress progress;
    do {
        guest_dirties(world, dirties);
        progress = step(world);
        assert_true(progress != PRECOPY_READY);
        assert_true(world->steps < MAX_STEPS);
    } while (progress == PRECOPY_WORKED || progress == PRECOPY_WAITING);
    return progress;
}

/* The first epoch: then the image is the guest's RAM as it was in the pause. */
static void check_image(struct world *world)
{
    struct capture_report report;
    struct staged_epoch *epoch;
    assert_int_equal(capture_epoch(world->capture, 1, false, &epoch, &report), 0);
    ship(world, epoch);
    for (unsigned i = 0; i < 2; i++) {
        const struct hv_block *block = hypervisor_block(world->standby, i);
        assert_memory_equal(block->bytes, fake_photograph(world->guest, i), block->max_len);
    }
}

static void test_guest_that_rests_is_sent_once(void **state)
{
    struct world world;
    (void)state;
    open_world(&world, &memory_alone);
    assert_int_equal(run(&world, 0), PRECOPY_FINISHED);
    assert_int_equal(world.sent_pages, ALL_PAGES);
    assert_int_equal(world.left_pages, 0);
    /* A batch a step, one that finds nothing more at most, and the harvest that ends it. */
    assert_in_range(world.steps, ALL_PAGES / PRECOPY_BATCH_PAGES + 2, ALL_PAGES / PRECOPY_BATCH_PAGES + 3);
    check_image(&world);
    close_world(&world);
}

static void test_what_is_dirtied_during_a_pass_is_sent_in_the_next(void **state)
{
    struct world world;
    (void)state;
    open_world(&world, &memory_alone);
    assert_int_equal(step(&world), PRECOPY_WORKED);
    guest_dirties(&world, PRECOPY_CONVERGED_PAGES + 1);
    assert_int_equal(run(&world, 0), PRECOPY_FINISHED);
    assert_int_equal(world.sent_pages, ALL_PAGES + PRECOPY_CONVERGED_PAGES + 1);
    check_image(&world);
    close_world(&world);
}

static void test_little_that_is_dirty_is_left_to_the_epoch(void **state)
{
    struct world world;
    (void)state;
    open_world(&world, &memory_alone);
    assert_int_equal(step(&world), PRECOPY_WORKED);
    guest_dirties(&world, PRECOPY_CONVERGED_PAGES);
    assert_int_equal(run(&world, 0), PRECOPY_FINISHED);
    assert_int_equal(world.sent_pages, ALL_PAGES);
    assert_int_equal(capture_dirty(world.capture), PRECOPY_CONVERGED_PAGES);
    check_image(&world);
    close_world(&world);
}

static void test_guest_that_dirties_as_fast_ends_passes(void **state)
{
    struct world world;
    (void)state;
    open_world(&world, &memory_alone);
    assert_int_equal(run(&world, PRECOPY_CONVERGED_PAGES + 1), PRECOPY_FINISHED);
    assert_in_range(world.sent_pages, ALL_PAGES + 1,
                    ALL_PAGES + PRECOPY_MAX_PASSES * (PRECOPY_CONVERGED_PAGES + 1));
    check_image(&world);
    close_world(&world);
}

static void test_full_staging_is_waited_for(void **state)
{
    struct world world;
    (void)state;
    open_world(&world, &memory_alone);
    world.holds = true;
    enum precopy_progress progress;
    while ((progress = step(&world)) == PRECOPY_WORKED)
        assert_true(world.steps < MAX_STEPS);
    assert_int_equal(progress, PRECOPY_WAITING);
    assert_int_equal(step(&world), PRECOPY_WAITING);
    ship_held(&world);
    world.holds = false;
    assert_int_equal(run(&world, 0), PRECOPY_FINISHED);
    assert_int_equal(world.sent_pages, ALL_PAGES);
    check_image(&world);
    close_world(&world);
}

static void test_memory_that_has_converged_waits_for_the_disks(void **state)
{
    struct world world;
    (void)state;
    open_world(&world, &with_disks);
    world.steps_until_ready = 50;
    while (world.steps < 40)
        assert_true(step(&world) != PRECOPY_FINISHED);
    assert_int_equal(step(&world), PRECOPY_WAITING);
    assert_int_equal(world.sent_pages, ALL_PAGES);
    assert_int_equal(world.finishes, 0);
    assert_int_equal(run(&world, 0), PRECOPY_FINISHED);
    assert_int_equal(world.finishes, 1);
    close_world(&world);
}

static void test_memory_converges_again_before_the_disks_last_pass(void **state)
{
    struct world world;
    (void)state;
    open_world(&world, &with_disks);
    world.steps_until_ready = 50;
    while (world.steps < 45)
        step(&world);
    /* Memory rests. What the guest writes now must not be left for the time in which the log fills. */
    guest_dirties(&world, MAIN_PAGES);
    assert_int_equal(run(&world, 0), PRECOPY_FINISHED);
    assert_int_equal(world.finishes, 1);
    assert_int_equal(world.dirty_at_finish, 0);
    assert_int_equal(world.sent_pages, ALL_PAGES + MAIN_PAGES);
    check_image(&world);
    close_world(&world);
}

static void test_disks_that_are_ready_first_wait_for_memory(void **state)
{
    struct world world;
    (void)state;
    open_world(&world, &with_disks);
    assert_int_equal(step(&world), PRECOPY_WORKED);
    assert_int_equal(world.disk_steps, 1);
    assert_int_equal(world.finishes, 0);
    assert_int_equal(run(&world, 0), PRECOPY_FINISHED);
    assert_int_equal(world.finishes, 1);
    assert_int_equal(world.sent_pages, ALL_PAGES);
    check_image(&world);
    close_world(&world);
}

static void test_failures_end_it(void **state)
{
    struct world world;
    (void)state;
    open_world(&world, &with_disks);
    world.disks_fail = true;
    assert_int_equal(step(&world), PRECOPY_FAILED);
    assert_int_equal(world.failures, 0); /* the disks tell their own */
    close_world(&world);
    /* A hypervisor that stands still, and is given up. */
    open_world(&world, &memory_alone);
    fake_stand_still(world.guest, true);
    hypervisor_interrupt(world.guest, true);
    assert_int_equal(run(&world, 0), PRECOPY_FAILED);
    assert_int_equal(world.failures, 1);
    assert_true(world.status < 0);
    fake_stand_still(world.guest, false);
    hypervisor_interrupt(world.guest, false);
    close_world(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_guest_that_rests_is_sent_once),
        cmocka_unit_test(test_what_is_dirtied_during_a_pass_is_sent_in_the_next),
        cmocka_unit_test(test_little_that_is_dirty_is_left_to_the_epoch),
        cmocka_unit_test(test_guest_that_dirties_as_fast_ends_passes),
        cmocka_unit_test(test_full_staging_is_waited_for),
        cmocka_unit_test(test_memory_that_has_converged_waits_for_the_disks),
        cmocka_unit_test(test_memory_converges_again_before_the_disks_last_pass),
        cmocka_unit_test(test_disks_that_are_ready_first_wait_for_memory),
        cmocka_unit_test(test_failures_end_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
