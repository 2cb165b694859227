/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The standby image: whole epochs or nothing, and no page where the guest has none. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "checkpoint/image.h"
#include "tests/fakevm/fake_hypervisor.h"

#define MAIN_PAGES 256u
#define AUX_PAGES  16u

struct world {
    struct hypervisor *hv;
    struct staging *staging;
    struct image *image;
};

static void open_world(struct world *world)
{
    world->hv = fake_hypervisor_new(MAIN_PAGES, AUX_PAGES);
    assert_int_equal(staging_open(&world->staging, 64, 4096), 0);
    assert_int_equal(image_new(&world->image, world->hv, 4096), 0);
}

static void close_world(struct world *world)
{
    image_free(world->image);
    staging_close(world->staging);
    fake_hypervisor_free(world->hv);
}

static struct staged_epoch *begin(struct world *world, uint64_t number, enum staged_kind kind)
{
    struct staged_epoch *epoch = staging_begin(world->staging, number, kind);
    assert_non_null(epoch);
    epoch->devstate_len = 10;
    memset(epoch->devstate, (int)number, 10);
    epoch->nblocks = 2;
    epoch->block_used_len[FAKE_MAIN] = MAIN_PAGES * HV_PAGE_LEN;
    epoch->block_used_len[FAKE_AUX] = AUX_PAGES * HV_PAGE_LEN;
    epoch->received_ns = number * 1000;
    return epoch;
}

static void add(struct world *world, struct staged_epoch *epoch, unsigned block, uint64_t page, int value)
{
    if (value < 0) {
        epoch->pages[epoch->npages++] =
            (struct staged_page){.ref = page_ref_make(block, page, PAGE_REF_ZERO), .slot = STAGING_NO_PAGE};
        return;
    }
    uint32_t slot = (uint32_t)staging_reserve(world->staging, epoch, 1);
    memset(staging_slot(world->staging, slot), value, HV_PAGE_LEN);
    epoch->pages[epoch->npages++] = (struct staged_page){.ref = page_ref_make(block, page, 0), .slot = slot};
}

static int apply(struct world *world, struct staged_epoch *epoch)
{
    staging_commit(world->staging, epoch);
    int status = image_apply(world->image, world->staging, epoch);
    staging_free(world->staging, epoch);
    return status;
}

static int byte_of(const struct world *world, unsigned block, uint64_t page)
{
    const uint8_t *bytes = hypervisor_block(world->hv, block)->bytes + page * HV_PAGE_LEN;
    assert_int_equal(bytes[0], bytes[HV_PAGE_LEN - 1]);
    return bytes[0];
}

static void test_epoch_brings_pages_device_state_and_lengths(void **state)
{
    (void)state;
    struct world world;
    size_t len;
    unsigned nblocks;
    open_world(&world);
    assert_int_equal(image_epoch(world.image), 0);
    struct staged_epoch *epoch = begin(&world, 5, STAGED_EPOCH);
    add(&world, epoch, FAKE_MAIN, 255, 0x11);
    add(&world, epoch, FAKE_AUX, 15, 0x22);
    epoch->block_used_len[FAKE_AUX] = 77;
    assert_int_equal(apply(&world, epoch), 0);
    assert_int_equal(byte_of(&world, FAKE_MAIN, 255), 0x11);
    assert_int_equal(byte_of(&world, FAKE_AUX, 15), 0x22);
    assert_int_equal(image_epoch(world.image), 5);
    assert_int_equal(image_received_ns(world.image), 5000);
    assert_int_equal(image_devstate(world.image, &len)[9], 5);
    assert_int_equal(len, 10);
    assert_int_equal(image_used_len(world.image, &nblocks)[FAKE_AUX], 77);
    close_world(&world);
}

static void test_zero_page_leaves_a_hole_a_hole_and_empties_a_page(void **state)
{
    (void)state;
    struct world world;
    open_world(&world);
    struct staged_epoch *epoch = begin(&world, 1, STAGED_EPOCH);
    for (uint64_t page = 0; page < MAIN_PAGES; page++)
        add(&world, epoch, FAKE_MAIN, page, -1);
    assert_int_equal(apply(&world, epoch), 0);
    assert_int_equal(fake_resident_bytes(world.hv), 0);

    epoch = begin(&world, 2, STAGED_EPOCH);
    add(&world, epoch, FAKE_MAIN, 9, 0x33);
    assert_int_equal(apply(&world, epoch), 0);
    epoch = begin(&world, 3, STAGED_EPOCH);
    add(&world, epoch, FAKE_MAIN, 9, -1);
    assert_int_equal(apply(&world, epoch), 0);
    assert_int_equal(byte_of(&world, FAKE_MAIN, 9), 0);
    close_world(&world);
}

static void test_zero_page_of_an_aux_block_overwrites_what_firmware_loaded(void **state)
{
    (void)state;
    struct world world;
    open_world(&world);
    memset(hypervisor_block(world.hv, FAKE_AUX)->bytes, 0x44, AUX_PAGES * HV_PAGE_LEN);
    struct staged_epoch *epoch = begin(&world, 1, STAGED_EPOCH);
    add(&world, epoch, FAKE_AUX, 3, -1);
    assert_int_equal(apply(&world, epoch), 0);
    assert_int_equal(byte_of(&world, FAKE_AUX, 3), 0);
    assert_int_equal(byte_of(&world, FAKE_AUX, 4), 0x44);
    close_world(&world);
}

/* One good page first: it must not reach the image when a bad one follows. */
static void refused(void (*spoil)(struct world *world, struct staged_epoch *epoch))
{
    struct world world;
    open_world(&world);
    struct staged_epoch *epoch = begin(&world, 1, STAGED_EPOCH);
    add(&world, epoch, FAKE_MAIN, 0, 0x55);
    spoil(&world, epoch);
    assert_int_equal(image_check(world.image, epoch), -EPROTO);
    assert_int_equal(apply(&world, epoch), -EPROTO);
    assert_int_equal(byte_of(&world, FAKE_MAIN, 0), 0);
    assert_int_equal(image_epoch(world.image), 0);
    close_world(&world);
}

static void name_no_block(struct world *world, struct staged_epoch *epoch)
{
    add(world, epoch, 2, 0, 1);
}

static void name_page_past_the_end(struct world *world, struct staged_epoch *epoch)
{
    add(world, epoch, FAKE_AUX, AUX_PAGES, 1);
}

static void name_huge_page_number(struct world *world, struct staged_epoch *epoch)
{
    add(world, epoch, FAKE_MAIN, (1ull << 44) - 1, -1);
}

static void use_unknown_flag(struct world *world, struct staged_epoch *epoch)
{
    add(world, epoch, FAKE_MAIN, 1, 1);
    epoch->pages[epoch->npages - 1].ref |= 0x2;
}

static void say_zero_with_bytes(struct world *world, struct staged_epoch *epoch)
{
    add(world, epoch, FAKE_MAIN, 1, 1);
    epoch->pages[epoch->npages - 1].ref |= PAGE_REF_ZERO;
}

static void forget_device_state(struct world *world, struct staged_epoch *epoch)
{
    (void)world;
    epoch->devstate_len = 0;
}

static void claim_long_device_state(struct world *world, struct staged_epoch *epoch)
{
    (void)world;
    epoch->devstate_len = 4097;
}

static void claim_another_layout(struct world *world, struct staged_epoch *epoch)
{
    (void)world;
    epoch->nblocks = 3;
}

static void claim_long_block(struct world *world, struct staged_epoch *epoch)
{
    (void)world;
    epoch->block_used_len[FAKE_AUX] = AUX_PAGES * HV_PAGE_LEN + 1;
}

static void test_bad_epochs_are_refused_whole(void **state)
{
    (void)state;
    refused(name_no_block);
    refused(name_page_past_the_end);
    refused(name_huge_page_number);
    refused(use_unknown_flag);
    refused(say_zero_with_bytes);
    refused(forget_device_state);
    refused(claim_long_device_state);
    refused(claim_another_layout);
    refused(claim_long_block);
}

static void test_image_is_no_epoch_while_a_synchronisation_is_half_done(void **state)
{
    (void)state;
    struct world world;
    size_t len;
    open_world(&world);
    assert_int_equal(apply(&world, begin(&world, 1, STAGED_EPOCH)), 0);
    assert_int_equal(image_epoch(world.image), 1);
    struct staged_epoch *batch = begin(&world, 1, STAGED_PRECOPY);
    add(&world, batch, FAKE_MAIN, 0, 1);
    assert_int_equal(apply(&world, batch), 0);
    assert_int_equal(image_epoch(world.image), 0);
    image_devstate(world.image, &len);
    assert_int_equal(len, 0);
    assert_int_equal(apply(&world, begin(&world, 2, STAGED_EPOCH)), 0);
    assert_int_equal(image_epoch(world.image), 2);
    close_world(&world);
}

static void discard(bool kernel_refuses)
{
    struct world world;
    open_world(&world);
    struct staged_epoch *epoch = begin(&world, 1, STAGED_EPOCH);
    add(&world, epoch, FAKE_MAIN, 7, 0x66);
    assert_int_equal(apply(&world, epoch), 0);
    fake_fail_discard(world.hv, kernel_refuses);
    assert_int_equal(image_discard(world.image), kernel_refuses ? -EOPNOTSUPP : 0);
    assert_int_equal(image_epoch(world.image), 0);
    assert_int_equal(byte_of(&world, FAKE_MAIN, 7), 0);
    close_world(&world);
}

static void test_discarded_image_is_all_zero(void **state)
{
    (void)state;
    discard(false);
    discard(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_epoch_brings_pages_device_state_and_lengths),
        cmocka_unit_test(test_zero_page_leaves_a_hole_a_hole_and_empties_a_page),
        cmocka_unit_test(test_zero_page_of_an_aux_block_overwrites_what_firmware_loaded),
        cmocka_unit_test(test_bad_epochs_are_refused_whole),
        cmocka_unit_test(test_image_is_no_epoch_while_a_synchronisation_is_half_done),
        cmocka_unit_test(test_discarded_image_is_all_zero),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
