/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A guest that writes without rest, in its own thread, against capture doing everything it can do in random
 * order: early passes, epochs, expired checkpoints, epochs that wait unsent until staging is full, links that
 * break with epochs unsent or unacked and come back to a standby that has kept its image. After every epoch
 * the image must be the guest as it stood at that epoch's boundary (invariants I2, I3 and I6 as seen from the
 * engine). The same walk with a planted fault must find it.
 *
 * UNDERSTUDY_SEED repeats the choices of a run (not the guest's timing); UNDERSTUDY_EPOCHS makes it longer.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "checkpoint/capture.h"
#include "checkpoint/image.h"
#include "checkpoint/page_encoding.h"
#include "tests/fakevm/fake_hypervisor.h"

#define MAIN_PAGES    700u
#define AUX_PAGES     40u
#define STAGING_PAGES 900u /* one epoch always fits, two do not */
#define UNSENT_MAX    4u

struct walk {
    struct hypervisor *guest, *standby;
    struct staging *staging;
    struct capture *capture;
    struct image *image;
    uint64_t random;
    _Atomic bool quit;
    /* Epochs cut and not yet applied, oldest first, each with the guest as it then was. */
    struct {
        struct staged_epoch *epoch;
        uint8_t *photographs[2];
    } unsent[UNSENT_MAX];
    unsigned nunsent;
    uint64_t number, batch;
    uint64_t shipped, acked; /* epochs: the standby has it; and the primary knows */
    unsigned cut, expired, full, early_pages, broken, wrong;
};

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static void *guest_run(void *opaque)
{
    struct walk *walk = opaque;
    uint64_t random = walk->random | 1, hot = 0;
    while (!atomic_load(&walk->quit)) {
        uint64_t r = next_random(&random);
        if (r % 64 == 0)
            hot = r >> 32;
        /* Mostly a small hot set, written again and again; zero now and then. */
        uint64_t page = r % 4 ? (hot + r % 24) % MAIN_PAGES : (r >> 16) % MAIN_PAGES;
        uint64_t value = r % 16 == 0 ? 0 : r;
        if (r % 32 == 1)
            guest_write(walk->guest, FAKE_AUX, (r >> 8) % AUX_PAGES, value);
        else
            guest_write(walk->guest, FAKE_MAIN, page, value);
        guest_yield(walk->guest);
    }
    return NULL;
}

static void nothing(void *opaque, uint64_t epoch)
{
    (void)opaque;
    (void)epoch;
}

static void ship_oldest(struct walk *walk)
{
    struct staged_epoch *epoch = walk->unsent[0].epoch;
    page_encoding_mark_zero(walk->staging, epoch);
    assert_int_equal(image_apply(walk->image, walk->staging, epoch), 0);
    staging_free(walk->staging, epoch);
    for (unsigned i = 0; i < 2; i++) {
        const struct hv_block *block = hypervisor_block(walk->standby, i);
        walk->wrong += memcmp(block->bytes, walk->unsent[0].photographs[i], block->max_len) != 0;
        free(walk->unsent[0].photographs[i]);
    }
    walk->shipped = image_epoch(walk->image);
    if (next_random(&walk->random) % 2)
        walk->acked = walk->shipped;
    memmove(walk->unsent, walk->unsent + 1, --walk->nunsent * sizeof walk->unsent[0]);
}

static void lose_oldest(struct walk *walk)
{
    staging_free(walk->staging, walk->unsent[0].epoch);
    for (unsigned i = 0; i < 2; i++)
        free(walk->unsent[0].photographs[i]);
    memmove(walk->unsent, walk->unsent + 1, --walk->nunsent * sizeof walk->unsent[0]);
}

/* Batches of what is dirty. The link may break on the way: then some arrived, and some did not. */
static void send_difference(struct walk *walk, bool breaks)
{
    struct staged_epoch *batch;
    int status;
    while ((batch = capture_batch(walk->capture, ++walk->batch, 64, &status)) != NULL) {
        uint64_t r = next_random(&walk->random);
        if (!breaks || r % 2)
            assert_int_equal(image_apply(walk->image, walk->staging, batch), 0);
        staging_free(walk->staging, batch);
        if (breaks && r % 4 == 0)
            return;
    }
}

/* The link breaks, the guest goes on alone, and the link comes back to the image as it was then. */
static void break_link(struct walk *walk)
{
    walk->broken++;
    while (walk->nunsent > 0)
        lose_oldest(walk);
    while (next_random(&walk->random) % 3 == 0) {
        assert_int_equal(capture_resume(walk->capture, walk->acked), 0);
        send_difference(walk, true);
    }
    assert_int_equal(capture_resume(walk->capture, walk->acked), 0);
    if (next_random(&walk->random) % 2)
        send_difference(walk, false);
    walk->number++; /* an epoch that was being cut is never heard of */
}

static void cut(struct walk *walk)
{
    struct capture_report report;
    struct staged_epoch *epoch = NULL;
    int status = capture_epoch(walk->capture, walk->number, false, &epoch, &report);
    walk->expired += status == -ETIME;
    walk->full += status == -EAGAIN;
    if (status == -EAGAIN && walk->nunsent > 0)
        ship_oldest(walk);
    if (status == -ETIME || status == -EAGAIN)
        return;
    assert_int_equal(status, 0);
    walk->cut++;
    walk->number++;
    walk->early_pages += report.pages_early;
    walk->unsent[walk->nunsent].epoch = epoch;
    for (unsigned i = 0; i < 2; i++) {
        size_t len = hypervisor_block(walk->guest, i)->max_len;
        walk->unsent[walk->nunsent].photographs[i] = malloc(len);
        assert_non_null(walk->unsent[walk->nunsent].photographs[i]);
        memcpy(walk->unsent[walk->nunsent].photographs[i], fake_photograph(walk->guest, i), len);
    }
    walk->nunsent++;
}

static void synchronise(struct walk *walk)
{
    struct staged_epoch *batch;
    int status;
    assert_int_equal(capture_start(walk->capture), 0);
    for (unsigned pass = 0; pass < 2; pass++) {
        while ((batch = capture_batch(walk->capture, ++walk->batch, 128, &status)) != NULL) {
            assert_int_equal(image_apply(walk->image, walk->staging, batch), 0);
            staging_free(walk->staging, batch);
        }
        assert_int_equal(capture_harvest(walk->capture), 0);
    }
}

static void step(struct walk *walk)
{
    uint64_t r = next_random(&walk->random);
    if (r % 8 == 0)
        fake_expire(walk->guest, 1);
    for (unsigned pass = 0; pass < (r >> 8) % 4; pass++) {
        int64_t copied = capture_early_pass(walk->capture, walk->number);
        assert_true(copied >= 0 || copied == -EAGAIN);
        struct timespec pause = {.tv_nsec = (long)((r >> 16) % 20000)}; /* the guest's turn */
        nanosleep(&pause, NULL);
    }
    cut(walk);
    if (walk->nunsent == UNSENT_MAX || (walk->nunsent > 0 && (r >> 40) % 3 > 0))
        ship_oldest(walk);
    if (walk->shipped && next_random(&walk->random) % 16 == 0)
        break_link(walk);
}

/* Walks; returns how many images were wrong. With stop_at_first, ends there. */
static unsigned walk_random(uint64_t seed, unsigned epochs, uint32_t staging_pages,
                            const struct capture_config *faults, bool stop_at_first)
{
    struct walk walk = {.random = seed * 2654435761u + 1, .number = 1};
    struct capture_config config = faults ? *faults : (struct capture_config){0};
    pthread_t thread;
    walk.guest = fake_hypervisor_new(MAIN_PAGES, AUX_PAGES);
    walk.standby = fake_hypervisor_new(MAIN_PAGES, AUX_PAGES);
    assert_int_equal(staging_open(&walk.staging, staging_pages, 16384), 0);
    config.hv = walk.guest;
    config.staging = walk.staging;
    config.copiers = 1;
    config.at_boundary = nothing;
    assert_int_equal(capture_open(&walk.capture, &config), 0);
    assert_int_equal(image_new(&walk.image, walk.standby, 16384), 0);
    assert_int_equal(pthread_create(&thread, NULL, guest_run, &walk), 0);

    synchronise(&walk);
    for (unsigned i = 0; i < epochs && !(stop_at_first && walk.wrong); i++)
        step(&walk);
    while (walk.nunsent > 0)
        ship_oldest(&walk);
    atomic_store(&walk.quit, true);
    pthread_join(thread, NULL);
    print_message("seed %llu: %u epochs, %u expired, %u waited for room, %u links broken, %u pages early, "
                  "%u images wrong\n",
                  (unsigned long long)seed, walk.cut, walk.expired, walk.full, walk.broken, walk.early_pages,
                  walk.wrong);
    capture_close(walk.capture);
    image_free(walk.image);
    staging_close(walk.staging);
    fake_hypervisor_free(walk.guest);
    fake_hypervisor_free(walk.standby);
    return walk.wrong;
}

static uint64_t number_from(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text && *text ? strtoull(text, NULL, 10) : otherwise;
}

static void test_every_image_is_the_guest_at_its_boundary(void **state)
{
    (void)state;
    uint64_t seed = number_from("UNDERSTUDY_SEED", (uint64_t)time(NULL));
    unsigned epochs = (unsigned)number_from("UNDERSTUDY_EPOCHS", 400);
    assert_int_equal(walk_random(seed, epochs, STAGING_PAGES, NULL, false), 0);
    assert_int_equal(walk_random(seed + 1, epochs, STAGING_PAGES, NULL, false), 0);
}

static void test_forgetting_a_redirtied_page_is_found_within_400_epochs(void **state)
{
    (void)state;
    struct capture_config faults = {.chaos_forget_redirtied = true};
    assert_int_not_equal(walk_random(1, 400, STAGING_PAGES, &faults, true), 0);
}

static void test_closing_an_epoch_that_did_not_fit_is_found_within_400_epochs(void **state)
{
    (void)state;
    struct capture_config faults = {.chaos_close_when_full = true};
    assert_int_not_equal(walk_random(1, 400, 128, &faults, true), 0);
}

static void test_forgetting_what_was_not_acked_is_found_within_400_epochs(void **state)
{
    (void)state;
    struct capture_config faults = {.chaos_forget_unacked = true};
    assert_int_not_equal(walk_random(1, 400, STAGING_PAGES, &faults, true), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_image_is_the_guest_at_its_boundary),
        cmocka_unit_test(test_forgetting_a_redirtied_page_is_found_within_400_epochs),
        cmocka_unit_test(test_closing_an_epoch_that_did_not_fit_is_found_within_400_epochs),
        cmocka_unit_test(test_forgetting_what_was_not_acked_is_found_within_400_epochs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
