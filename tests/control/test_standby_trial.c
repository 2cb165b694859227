/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * When a standby's QEMU is tried, and what the session and the administrator hear of it. The trial itself is
 * a few functions here.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "replicator/control/replicator.h"
#include "replicator/control/trial.h"
#include "replicator/note.h"
#include "tests/control/calls.h"
#include "tests/control/fake_core.h"

static struct trial_config config;
static const char *refusal; /* of trial_begin, or NULL */

/* ---- what standby_trial.c calls ---- */

struct trial *trial_begin(const struct trial_config *of, GError **error)
{
    config = *of;
    called("begin");
    if (refusal)
        g_set_error_literal(error, G_IO_ERROR, G_IO_ERROR_FAILED, refusal);
    return refusal ? NULL : (struct trial *)&config;
}

void trial_cancel(struct trial *trial)
{
    assert_ptr_equal(trial, &config);
    called("cancel");
}

void trial_end(struct trial *trial)
{
    assert_ptr_equal(trial, &config);
    called("end");
}

/* ---- a standby with its first whole image, in another QEMU than the primary's ---- */

static struct replicator r;
static struct fake_core core;

static int set_up(void **state)
{
    static char *argv[] = {(char *)"qemu", NULL};
    (void)state;
    memset(&r, 0, sizeof r);
    refusal = NULL;
    r.config.vm_name = (char *)"web";
    r.config.qemu_version = (char *)"10.0.2";
    r.config.tried_for = (char *)"7.2.22";
    r.config.trial_argv = argv;
    r.machine = (struct machine *)&refusal;
    r.image = (struct image *)&r;
    r.applier = (struct applier *)&core;
    r.session.role = SESSION_SECONDARY;
    r.session.state = SESSION_STANDBY;
    r.session.untried = true;
    fake_core_open(&core, &r.sink);
    calls_begin();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    g_clear_pointer(&r.trial_text, g_free);
    sink_clear(&r.sink);
    calls_end();
    return 0;
}

static void trial_ended(enum trial_verdict verdict, const char *why)
{
    struct note *note = note_new(NOTE_TRIED, why, strlen(why));
    note->arg = verdict;
    note->epoch = 12;
    note->status = 1500;
    standby_trial_ended(&r, note);
    g_free(note);
}

static void assert_tried(bool ok)
{
    assert_int_equal(core.nevents, 1);
    assert_int_equal(core.events[0].type, SESSION_EVENT_TRIED);
    assert_int_equal(core.events[0].ok, ok);
}

static void test_the_first_whole_image_is_tried_with_what_this_standby_has(void **state)
{
    (void)state;
    standby_trial_consider(&r);
    assert_calls("begin; ");
    assert_ptr_equal(r.trial, &config);
    assert_ptr_equal(config.machine, r.machine);
    assert_string_equal(config.argv[0], "qemu");
    assert_ptr_equal(config.image, r.image);
    assert_ptr_equal(config.applier, r.applier);
    assert_ptr_equal(config.control, &r.box);
    assert_non_null(strstr(r.trial_text, "QEMU 10.0.2 is loading"));
    assert_int_equal(core.nchanged, 1);
    standby_trial_consider(&r); /* it is under way */
    assert_calls("");
}

static void test_there_is_no_trial_where_none_is_wanted(void **state)
{
    (void)state;
    r.session.untried = false;
    standby_trial_consider(&r);
    r.session.untried = true;
    r.session.state = SESSION_FOLLOWING; /* no whole image */
    standby_trial_consider(&r);
    r.session.state = SESSION_PROMOTING;
    standby_trial_consider(&r);
    r.session.state = SESSION_STANDBY;
    r.ended = true;
    standby_trial_consider(&r);
    assert_calls("");
    assert_null(r.trial_text);
}

static void test_a_trial_that_loads_is_told_to_the_session(void **state)
{
    (void)state;
    standby_trial_consider(&r);
    trial_ended(TRIAL_LOADED, "");
    assert_calls("begin; end; ");
    assert_null(r.trial);
    assert_tried(true);
    assert_non_null(strstr(r.trial_text, "QEMU 10.0.2 loaded"));
    assert_non_null(strstr(r.trial_text, "in 2 ms (epoch 12)"));
    assert_null(sink_last_error(&r.sink));
}

/* The session ends with the event: what it says last is there by then. */
static void look_at_the_error(struct fake_core *of, unsigned n)
{
    (void)n;
    assert_non_null(sink_last_error(of->sink));
}

static void test_a_trial_that_fails_names_both_versions_and_what_qemu_said(void **state)
{
    (void)state;
    core.on_event = look_at_the_error;
    standby_trial_consider(&r);
    trial_ended(TRIAL_FAILED, "Unknown section 'vmport'");
    assert_tried(false);
    const char *error = sink_last_error(&r.sink);
    assert_non_null(strstr(error, "QEMU 10.0.2 of this host cannot take VM web over"));
    assert_non_null(strstr(error, "runs in QEMU 7.2.22"));
    assert_non_null(strstr(error, "(Unknown section 'vmport')"));
    assert_null(r.trial_text);
}

/* It is about to take over, and its failed trial changes nothing. */
static void test_a_trial_that_fails_too_late_is_passed_over(void **state)
{
    (void)state;
    standby_trial_consider(&r);
    r.session.state = SESSION_PROMOTING;
    trial_ended(TRIAL_FAILED, "Unknown section 'vmport'");
    assert_calls("begin; end; ");
    assert_int_equal(core.nevents, 0);
    assert_null(sink_last_error(&r.sink));
    assert_null(r.trial_text);
}

static void test_a_trial_that_fails_while_the_image_is_renewed_counts(void **state)
{
    (void)state;
    r.session.state = SESSION_FOLLOWING;
    r.trial = (struct trial *)&config;
    trial_ended(TRIAL_FAILED, "Unknown section");
    assert_tried(false);
    core.nevents = 0;
    r.session.state = SESSION_LISTENING;
    r.trial = (struct trial *)&config;
    trial_ended(TRIAL_FAILED, "Unknown section");
    assert_tried(false);
}

static void test_one_that_decided_nothing_is_followed_by_another(void **state)
{
    (void)state;
    standby_trial_consider(&r);
    trial_ended(TRIAL_UNDECIDED, "");
    assert_calls("begin; end; ");
    assert_int_equal(core.nevents, 0);
    assert_null(r.trial_text);
    assert_int_equal(core.nchanged, 2);
    standby_trial_consider(&r);
    assert_calls("begin; ");
}

/* No memory or no thread says nothing about this host's QEMU. */
static void test_a_trial_that_cannot_begin_is_no_verdict_and_is_tried_again_later(void **state)
{
    (void)state;
    refusal = "no memory for it";
    standby_trial_consider(&r);
    assert_calls("begin; ");
    assert_null(r.trial);
    assert_int_equal(core.nevents, 0);
    assert_null(sink_last_error(&r.sink));
    assert_non_null(strstr(r.trial_text, "no memory for it"));
    standby_trial_consider(&r); /* the next epoch, a few milliseconds later */
    assert_calls("");
    refusal = NULL;
    assert_in_range(r.trial_due_us - g_get_monotonic_time(), G_USEC_PER_SEC, 60 * G_USEC_PER_SEC);
    r.trial_due_us = g_get_monotonic_time();
    standby_trial_consider(&r);
    assert_calls("begin; ");
    assert_ptr_equal(r.trial, &config);
}

/* The same, when its thread ran already: QEMU could not be forked. */
static void test_a_qemu_that_could_not_be_forked_is_no_verdict_and_is_tried_again_later(void **state)
{
    (void)state;
    standby_trial_consider(&r);
    trial_ended(TRIAL_NOT_BEGUN, "qemu could not be started: Resource temporarily unavailable");
    assert_calls("begin; end; ");
    assert_int_equal(core.nevents, 0);
    assert_null(sink_last_error(&r.sink));
    assert_non_null(strstr(r.trial_text, "Resource temporarily unavailable; that is tried again in 10 s"));
    standby_trial_consider(&r); /* the next epoch, a few milliseconds later */
    assert_calls("");
    assert_in_range(r.trial_due_us - g_get_monotonic_time(), G_USEC_PER_SEC, 60 * G_USEC_PER_SEC);
    r.trial_due_us = g_get_monotonic_time();
    standby_trial_consider(&r);
    assert_calls("begin; ");
    r.session.state = SESSION_PROMOTING; /* nothing is tried again then */
    trial_ended(TRIAL_NOT_BEGUN, "qemu could not be started: Cannot allocate memory");
    assert_null(r.trial_text);
}

static void test_who_takes_over_or_ends_waits_for_no_trial(void **state)
{
    (void)state;
    standby_trial_stop_unless_standing_by(&r);
    assert_calls("");
    standby_trial_consider(&r);
    assert_calls("begin; ");
    standby_trial_stop_unless_standing_by(&r);
    r.session.state = SESSION_FOLLOWING;
    standby_trial_stop_unless_standing_by(&r);
    r.session.state = SESSION_LISTENING;
    standby_trial_stop_unless_standing_by(&r);
    assert_calls("");
    r.session.state = SESSION_ASKING;
    standby_trial_stop_unless_standing_by(&r);
    assert_calls("cancel; ");
    r.session.state = SESSION_ENDED;
    standby_trial_stop_unless_standing_by(&r);
    assert_calls("cancel; ");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_the_first_whole_image_is_tried_with_what_this_standby_has),
        TEST(test_there_is_no_trial_where_none_is_wanted),
        TEST(test_a_trial_that_loads_is_told_to_the_session),
        TEST(test_a_trial_that_fails_names_both_versions_and_what_qemu_said),
        TEST(test_a_trial_that_fails_too_late_is_passed_over),
        TEST(test_a_trial_that_fails_while_the_image_is_renewed_counts),
        TEST(test_one_that_decided_nothing_is_followed_by_another),
        TEST(test_a_trial_that_cannot_begin_is_no_verdict_and_is_tried_again_later),
        TEST(test_a_qemu_that_could_not_be_forked_is_no_verdict_and_is_tried_again_later),
        TEST(test_who_takes_over_or_ends_waits_for_no_trial),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
