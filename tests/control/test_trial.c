/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The trial of a standby beside a machine that does not exist: what the control thread hears of it, and that
 * the applier stands still for the load and no longer.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "replicator/control/trial.h"
#include "replicator/note.h"
#include "tests/fakevm/fake_machine.h"

#define RAM_LEN (16u * HV_PAGE_LEN)
#define EPOCH   42u

/* ---- the applier and the image ---- */

static struct {
    uint64_t epoch;           /* of the image; 0: it is no whole one */
    bool other_memory, waits; /* applier_park waits until it is cancelled */
    bool waiting, cancelled;
    unsigned nparked, nunparked; /* the trial's thread's, until its note is there */
} now;

/* Guards waiting and cancelled. */
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;

bool applier_park(struct applier *applier, unsigned timeout_ms)
{
    (void)applier;
    assert_true(timeout_ms > 0);
    pthread_mutex_lock(&mutex);
    now.waiting = true;
    pthread_cond_broadcast(&changed);
    while (now.waits && !now.cancelled)
        pthread_cond_wait(&changed, &mutex);
    bool parked = !now.cancelled;
    pthread_mutex_unlock(&mutex);
    now.nparked += parked;
    return parked;
}
void applier_unpark(struct applier *applier)
{
    (void)applier;
    now.nunparked++;
}
void applier_cancel_park(struct applier *applier)
{
    (void)applier;
    pthread_mutex_lock(&mutex);
    now.cancelled = true;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&mutex);
}
uint64_t image_epoch(const struct image *image)
{
    (void)image;
    return now.epoch;
}
int image_copy_aux(const struct image *image, struct hypervisor *to, const char **which)
{
    (void)image;
    assert_int_equal(hypervisor_block(to, 0)->max_len, RAM_LEN); /* the throw-away's */
    *which = "vga.vram";
    return now.other_memory ? -EINVAL : 0;
}
const uint8_t *image_devstate(const struct image *image, size_t *len)
{
    (void)image;
    *len = 1;
    return (const uint8_t *)"";
}
const uint64_t *image_used_len(const struct image *image, unsigned *nblocks)
{
    static const uint64_t used_len[] = {RAM_LEN};
    (void)image;
    *nblocks = 1;
    return used_len;
}

/* ---- a standby's machine ---- */

static void ignore(void *opaque)
{
    (void)opaque;
}
static void ignore_words(void *opaque, const char *words)
{
    (void)opaque;
    (void)words;
}
static void ignore_run_event(void *opaque, enum run_event event, const char *reason)
{
    (void)opaque;
    (void)event;
    (void)reason;
}
static void ignore_disk_error(void *opaque, const struct machine_disk_error *error)
{
    (void)opaque;
    (void)error;
}
static void ignore_takeover(void *opaque, const struct machine_takeover *result)
{
    (void)opaque;
    (void)result;
}

static struct machine *machine;
static struct mailbox box;
static struct trial *trial;

static int set_up(void **state)
{
    static const char *const argv[] = {"fakevm", NULL};
    static const struct machine_config config = {.vm_name = "vm", .argv = argv, .ram_len = RAM_LEN};
    static const struct machine_observer observer = {
        .ready = ignore,
        .failed = ignore_words,
        .ended = ignore_words,
        .trouble = ignore_words,
        .run_event = ignore_run_event,
        .was_reset = ignore,
        .disk_error = ignore_disk_error,
        .resumed = ignore,
        .taken_over = ignore_takeover,
    };
    (void)state;
    memset(&now, 0, sizeof now);
    now.epoch = EPOCH;
    fake_machine_faults = (struct fake_machine_faults){0};
    machine = machine_start(&config, &observer, NULL, NULL);
    fake_machine_get_ready(fake_machine_of(machine));
    return mailbox_open(&box);
}

static int tear_down(void **state)
{
    (void)state;
    g_clear_pointer(&trial, trial_end);
    struct note *note;
    while ((note = note_take(&box)))
        g_free(note);
    mailbox_close(&box);
    machine_free(machine);
    return 0;
}

static void begin(void)
{
    static const char *const argv[] = {"fakevm", "trial", NULL};
    const struct trial_config config = {.machine = machine, .argv = argv, .control = &box};
    trial = trial_begin(&config, NULL);
    assert_non_null(trial);
}

/* The note that tells of the end. */
static struct note *ended(void)
{
    struct note *note = NULL;
    gint64 until = g_get_monotonic_time() + 20 * G_USEC_PER_SEC;
    while (!(note = note_take(&box)) && g_get_monotonic_time() < until)
        mailbox_wait(&box, 1000);
    assert_non_null(note);
    assert_int_equal(note->letter.kind, NOTE_TRIED);
    g_clear_pointer(&trial, trial_end);
    return note;
}

static void assert_verdict(enum trial_verdict verdict, const char *why)
{
    g_autofree struct note *note = ended();
    assert_int_equal(note->arg, verdict);
    assert_string_equal((const char *)note->payload, why);
    assert_int_equal(now.nparked, now.nunparked);
}

static void test_a_state_that_loads_is_told_with_its_epoch(void **state)
{
    (void)state;
    begin();
    g_autofree struct note *note = ended();
    assert_int_equal(note->arg, TRIAL_LOADED);
    assert_int_equal(note->epoch, EPOCH);
    assert_true(note->status > 0);
    assert_int_equal(now.nparked, 1);
    assert_int_equal(now.nunparked, 1);
}

static void test_a_state_that_does_not_load_is_told_with_the_reason(void **state)
{
    (void)state;
    fake_machine_faults.trial = "Unknown savevm section";
    begin();
    assert_verdict(TRIAL_FAILED, "Unknown savevm section");
}

static void test_an_image_that_is_not_whole_decides_nothing(void **state)
{
    (void)state;
    now.epoch = 0;
    begin();
    assert_verdict(TRIAL_UNDECIDED, "");
    assert_int_equal(now.nparked, 1);
}

static void test_other_memory_fails_it_and_is_named(void **state)
{
    (void)state;
    now.other_memory = true;
    begin();
    assert_verdict(TRIAL_FAILED, "it has other memory than the guest: block vga.vram differs");
}

static void test_a_trial_that_is_cancelled_ends_though_the_applier_is_busy(void **state)
{
    (void)state;
    now.waits = true;
    begin();
    pthread_mutex_lock(&mutex);
    while (!now.waiting)
        pthread_cond_wait(&changed, &mutex);
    pthread_mutex_unlock(&mutex);
    trial_cancel(trial);
    assert_verdict(TRIAL_UNDECIDED, "");
    assert_int_equal(now.nunparked, 0); /* it was not parked */
}

static void test_the_end_waits_for_the_trial(void **state)
{
    (void)state;
    now.waits = true;
    begin();
    trial_end(g_steal_pointer(&trial)); /* nobody wants to know any more */
    g_autofree struct note *note = note_take(&box);
    assert_non_null(note);
    assert_int_equal(note->arg, TRIAL_UNDECIDED);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_a_state_that_loads_is_told_with_its_epoch),
        TEST(test_a_state_that_does_not_load_is_told_with_the_reason),
        TEST(test_an_image_that_is_not_whole_decides_nothing),
        TEST(test_other_memory_fails_it_and_is_named),
        TEST(test_a_trial_that_is_cancelled_ends_though_the_applier_is_busy),
        TEST(test_the_end_waits_for_the_trial),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
