/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The applier stands still while somebody reads the image, and goes on where it was. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "replicator/note.h"
#include "replicator/pipeline/applier.h"
#include "tests/fakevm/fake_hypervisor.h"

#define MAIN_PAGES 64u
#define AUX_PAGES  16u
#define PATIENT_MS 30000

static struct {
    struct hypervisor *hv;
    struct staging *staging;
    struct image *image;
    struct applier *applier;
    struct mailbox control;
} t;

static int setup(void **state)
{
    (void)state;
    t.hv = fake_hypervisor_new(MAIN_PAGES, AUX_PAGES);
    if (staging_open(&t.staging, 64, 4096) < 0 || image_new(&t.image, t.hv, 4096) < 0 ||
        mailbox_open(&t.control) < 0)
        return -1;
    t.applier = applier_new(t.image, NULL, false, t.staging, &t.control);
    return t.applier ? 0 : -1;
}

static int teardown(void **state)
{
    struct note *note;
    (void)state;
    applier_free(t.applier);
    while ((note = note_take(&t.control)))
        g_free(note);
    mailbox_close(&t.control);
    image_free(t.image);
    staging_close(t.staging);
    fake_hypervisor_free(t.hv);
    return 0;
}

/* An epoch of one page, full of its number. */
static void post_epoch(uint64_t number)
{
    struct staged_epoch *epoch = staging_begin(t.staging, number, STAGED_EPOCH);
    assert_non_null(epoch);
    uint32_t slot = (uint32_t)staging_reserve(t.staging, epoch, 1);
    memset(staging_slot(t.staging, slot), (int)number, HV_PAGE_LEN);
    epoch->pages[epoch->npages++] = (struct staged_page){.ref = page_ref_make(FAKE_MAIN, 3, 0), .slot = slot};
    epoch->devstate_len = 10;
    memset(epoch->devstate, (int)number, 10);
    epoch->nblocks = 2;
    epoch->block_used_len[FAKE_MAIN] = MAIN_PAGES * HV_PAGE_LEN;
    epoch->block_used_len[FAKE_AUX] = AUX_PAGES * HV_PAGE_LEN;
    staging_commit(t.staging, epoch);
    applier_post(t.applier, epoch, 2, 1);
}

/* Which epoch was applied next; 0: none within timeout_ms. */
static uint64_t applied(int timeout_ms)
{
    gint64 until = g_get_monotonic_time() + (gint64)timeout_ms * 1000;
    do {
        struct note *note = note_take(&t.control);
        uint64_t epoch = note && note->letter.kind == NOTE_EPOCH_APPLIED ? note->epoch : 0;
        g_free(note);
        if (epoch)
            return epoch;
        mailbox_wait(&t.control, 10);
    } while (g_get_monotonic_time() < until);
    return 0;
}

static int page_holds(void)
{
    return hypervisor_block(t.hv, FAKE_MAIN)->bytes[3 * HV_PAGE_LEN];
}

static void test_nothing_is_applied_while_it_is_parked(void **state)
{
    (void)state;
    post_epoch(1);
    assert_true(applier_park(t.applier, PATIENT_MS));
    /* What came before the park is in the image. */
    assert_int_equal(image_epoch(t.image), 1);
    post_epoch(2);
    assert_int_equal(applied(PATIENT_MS), 1);
    assert_int_equal(applied(100), 0);
    assert_int_equal(page_holds(), 1);
    assert_int_equal(image_epoch(t.image), 1);
    applier_unpark(t.applier);
    assert_int_equal(applied(PATIENT_MS), 2);
    assert_int_equal(page_holds(), 2);
}

static void test_it_parks_again_and_again(void **state)
{
    (void)state;
    for (uint64_t epoch = 1; epoch <= 200; epoch++) {
        post_epoch(epoch);
        assert_true(applier_park(t.applier, PATIENT_MS));
        assert_int_equal(image_epoch(t.image), epoch);
        applier_unpark(t.applier);
        assert_int_equal(applied(PATIENT_MS), epoch);
    }
}

static gpointer park_with_patience(gpointer opaque)
{
    (void)opaque;
    bool parked = applier_park(t.applier, PATIENT_MS);
    if (parked)
        applier_unpark(t.applier);
    return GINT_TO_POINTER(parked);
}

/* Both ways: the wait ends, or the park did; and never does the applier stand still afterwards. */
static void test_a_cancelled_park_never_holds_the_applier(void **state)
{
    (void)state;
    for (uint64_t epoch = 1; epoch <= 200; epoch++) {
        GThread *thread = g_thread_new("parks", park_with_patience, NULL);
        if (epoch % 3)
            g_thread_yield();
        applier_cancel_park(t.applier);
        if (epoch % 2 == 0) /* else it may have come before the park */
            applier_cancel_park(t.applier);
        post_epoch(epoch);
        assert_int_equal(applied(PATIENT_MS), epoch);
        applier_cancel_park(t.applier);
        g_thread_join(thread);
    }
}

/* A cancel leaves a park alone that is one already: its owner still reads. */
static void test_a_cancel_does_not_end_a_park(void **state)
{
    (void)state;
    assert_true(applier_park(t.applier, PATIENT_MS));
    applier_cancel_park(t.applier);
    post_epoch(1);
    assert_int_equal(applied(100), 0);
    applier_unpark(t.applier);
    assert_int_equal(applied(PATIENT_MS), 1);
}

static void test_the_image_goes_into_another_hypervisor_of_the_same_shape(void **state)
{
    const char *which = NULL;
    struct hypervisor *same = fake_hypervisor_new(MAIN_PAGES, AUX_PAGES);
    struct hypervisor *other = fake_hypervisor_new(MAIN_PAGES, AUX_PAGES + 1);
    (void)state;
    uint8_t *aux = hypervisor_block(t.hv, FAKE_AUX)->bytes;
    for (unsigned page = 0; page < AUX_PAGES; page += 2)
        memset(aux + page * HV_PAGE_LEN, (int)page + 1, HV_PAGE_LEN);
    memset(hypervisor_block(t.hv, FAKE_MAIN)->bytes, 9, HV_PAGE_LEN);
    assert_int_equal(image_copy_aux(t.image, same, &which), 0);
    assert_memory_equal(hypervisor_block(same, FAKE_AUX)->bytes, aux, AUX_PAGES * HV_PAGE_LEN);
    /* Main RAM is not its business. */
    assert_int_equal(hypervisor_block(same, FAKE_MAIN)->bytes[0], 0);
    assert_true(image_copy_aux(t.image, other, &which) < 0);
    assert_string_equal(which, hypervisor_block(other, FAKE_AUX)->idstr);
    assert_int_equal(hypervisor_block(other, FAKE_AUX)->bytes[0], 0);
    fake_hypervisor_free(same);
    fake_hypervisor_free(other);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_nothing_is_applied_while_it_is_parked),
        TEST(test_it_parks_again_and_again),
        TEST(test_a_cancelled_park_never_holds_the_applier),
        TEST(test_a_cancel_does_not_end_a_park),
        TEST(test_the_image_goes_into_another_hypervisor_of_the_same_shape),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
