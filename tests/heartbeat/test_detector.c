/* SPDX-License-Identifier: GPL-2.0-or-later */
/* When a peer counts as silent. Time is a number that the test moves. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "heartbeat/detector.h"

#define SILENCE_MS 120
#define BEAT_MS    10
#define START_MS   1000

static struct detector heard_at_start(void)
{
    struct detector d;
    detector_init(&d, SILENCE_MS, BEAT_MS, START_MS);
    return d;
}

static void test_a_peer_that_was_not_asked_is_never_silent(void **state)
{
    struct detector d = heard_at_start();
    (void)state;
    assert_true(detector_silent_at_ms(&d, DETECTOR_SILENCE) == UINT64_MAX);
    assert_true(detector_silent_at_ms(&d, DETECTOR_LINK_CLOSED) == UINT64_MAX);
}

static void test_two_beats_are_missed_before_the_peer_is_asked(void **state)
{
    struct detector d = heard_at_start();
    (void)state;
    assert_int_equal(detector_missed_beat_at_ms(&d), START_MS + 2 * BEAT_MS);
}

/* A user may set beats that are as rare as the silence. */
static void test_rare_beats_leave_a_third_of_the_silence_for_an_answer(void **state)
{
    struct detector d;
    (void)state;
    detector_init(&d, SILENCE_MS, SILENCE_MS, START_MS);
    assert_int_equal(detector_missed_beat_at_ms(&d), START_MS + SILENCE_MS * 2 / 3);
}

static void test_a_question_asked_in_time_delays_no_silence(void **state)
{
    struct detector d = heard_at_start();
    (void)state;
    detector_asked(&d, detector_missed_beat_at_ms(&d));
    assert_int_equal(detector_silent_at_ms(&d, DETECTOR_SILENCE), START_MS + SILENCE_MS);
    assert_int_equal(detector_silent_at_ms(&d, DETECTOR_LINK_CLOSED), START_MS + SILENCE_MS / 3);
    assert_int_equal(detector_silent_at_ms(&d, DETECTOR_BUSY), START_MS + 5 * SILENCE_MS);
}

static void test_a_late_question_has_time_for_its_answer(void **state)
{
    struct detector d = heard_at_start();
    (void)state;
    detector_asked(&d, START_MS + SILENCE_MS);
    assert_true(detector_silent_at_ms(&d, DETECTOR_SILENCE) > START_MS + SILENCE_MS);
    assert_true(detector_silent_at_ms(&d, DETECTOR_SILENCE) < START_MS + SILENCE_MS * 5 / 4);
}

static void test_a_sign_of_life_begins_a_new_silence(void **state)
{
    struct detector d = heard_at_start();
    (void)state;
    detector_asked(&d, START_MS + 20);
    detector_heard(&d, START_MS + 50);
    assert_int_equal(detector_silent_at_ms(&d, DETECTOR_SILENCE), START_MS + 50 + SILENCE_MS);
    detector_answered(&d);
    assert_true(detector_silent_at_ms(&d, DETECTOR_SILENCE) == UINT64_MAX);
}

static void test_an_own_stall_is_no_silence_of_the_peer(void **state)
{
    struct detector d = heard_at_start();
    (void)state;
    detector_stalled(&d, 900, START_MS + 1000);
    assert_int_equal(detector_unheard_at_ms(&d, DETECTOR_SILENCE), START_MS + 900 + SILENCE_MS);
    /* What was really heard last is still known. */
    assert_int_equal(d.peer.heard_ms, START_MS);
}

static void test_two_stalls_are_both_excused(void **state)
{
    struct detector d = heard_at_start();
    (void)state;
    detector_stalled(&d, 50, START_MS + 60);
    detector_stalled(&d, 30, START_MS + 100);
    assert_int_equal(detector_unheard_at_ms(&d, DETECTOR_SILENCE), START_MS + 80 + SILENCE_MS);
    detector_heard(&d, START_MS + 110);
    assert_int_equal(detector_unheard_at_ms(&d, DETECTOR_SILENCE), START_MS + 110 + SILENCE_MS);
}

static void test_a_stall_longer_than_the_silence_so_far_excuses_only_that(void **state)
{
    struct detector d = heard_at_start();
    (void)state;
    detector_stalled(&d, UINT64_MAX, START_MS + 10);
    assert_int_equal(detector_unheard_at_ms(&d, DETECTOR_SILENCE), START_MS + 10 + SILENCE_MS);
}

static void test_after_a_stall_nobody_is_judged_before_this_side_has_listened_as_long(void **state)
{
    struct detector d = heard_at_start();
    (void)state;
    detector_stalled(&d, 100, START_MS + 110);
    detector_asked(&d, START_MS + 110);
    /* The peer may have closed the link while this side stood still: a third of the silence is over soon. */
    assert_int_equal(detector_silent_at_ms(&d, DETECTOR_LINK_CLOSED), START_MS + 110 + 100);
    detector_stalled(&d, 100000, START_MS + 100200);
    assert_int_equal(detector_silent_at_ms(&d, DETECTOR_LINK_CLOSED), START_MS + 100200 + SILENCE_MS);
}

static void test_a_network_that_brings_nothing_is_cut_after_two_silences(void **state)
{
    struct detector d = heard_at_start();
    (void)state;
    detector_heard(&d, START_MS + 200); /* by another network */
    assert_int_equal(detector_path_cut_at_ms(&d), START_MS + 2 * SILENCE_MS);
    assert_false(detector_is_deaf(&d, START_MS + SILENCE_MS - 1));
    assert_true(detector_is_deaf(&d, START_MS + SILENCE_MS));
    detector_heard_by_path(&d, START_MS + 210);
    assert_int_equal(detector_path_cut_at_ms(&d), START_MS + 210 + 2 * SILENCE_MS);
}

static void test_a_network_is_cut_when_the_peer_has_been_deaf_for_a_silence(void **state)
{
    struct detector d = heard_at_start();
    (void)state;
    detector_told_deaf(&d, true, START_MS + 10);
    detector_told_deaf(&d, true, START_MS + 50); /* says so in every beat */
    assert_int_equal(detector_path_cut_at_ms(&d), START_MS + 10 + SILENCE_MS);
    detector_told_deaf(&d, false, START_MS + 60);
    assert_int_equal(detector_path_cut_at_ms(&d), START_MS + 2 * SILENCE_MS);
}

static void test_what_the_peer_said_before_a_stall_does_not_count(void **state)
{
    struct detector d = heard_at_start();
    (void)state;
    detector_told_deaf(&d, true, START_MS + 10);
    detector_stalled(&d, 500, START_MS + 510);
    assert_int_equal(detector_path_cut_at_ms(&d), START_MS + 500 + 2 * SILENCE_MS);
}

static void test_a_timer_that_runs_a_little_late_has_not_stalled(void **state)
{
    struct own_timer timer;
    (void)state;
    own_timer_init(&timer, BEAT_MS);
    assert_int_equal(own_timer_ran(&timer, 123456), 0); /* the first time there is nothing to compare with */
    assert_int_equal(own_timer_ran(&timer, 123456 + 3 * BEAT_MS), 0);
    assert_int_equal(own_timer_ran(&timer, 123456 + 3 * BEAT_MS + 1), 0);
}

static void test_a_timer_that_runs_late_says_for_how_long_it_should_have_run(void **state)
{
    struct own_timer timer;
    (void)state;
    own_timer_init(&timer, BEAT_MS);
    own_timer_ran(&timer, 0); /* 0 is a time like any other */
    assert_int_equal(own_timer_ran(&timer, 3 * BEAT_MS + 1), 2 * BEAT_MS + 1);
    assert_int_equal(own_timer_ran(&timer, 1000), 1000 - (3 * BEAT_MS + 1) - BEAT_MS);
    assert_int_equal(own_timer_ran(&timer, 1000), 0); /* it is told once */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_peer_that_was_not_asked_is_never_silent),
        cmocka_unit_test(test_two_beats_are_missed_before_the_peer_is_asked),
        cmocka_unit_test(test_rare_beats_leave_a_third_of_the_silence_for_an_answer),
        cmocka_unit_test(test_a_question_asked_in_time_delays_no_silence),
        cmocka_unit_test(test_a_late_question_has_time_for_its_answer),
        cmocka_unit_test(test_a_sign_of_life_begins_a_new_silence),
        cmocka_unit_test(test_an_own_stall_is_no_silence_of_the_peer),
        cmocka_unit_test(test_two_stalls_are_both_excused),
        cmocka_unit_test(test_a_stall_longer_than_the_silence_so_far_excuses_only_that),
        cmocka_unit_test(test_after_a_stall_nobody_is_judged_before_this_side_has_listened_as_long),
        cmocka_unit_test(test_a_network_that_brings_nothing_is_cut_after_two_silences),
        cmocka_unit_test(test_a_network_is_cut_when_the_peer_has_been_deaf_for_a_silence),
        cmocka_unit_test(test_what_the_peer_said_before_a_stall_does_not_count),
        cmocka_unit_test(test_a_timer_that_runs_a_little_late_has_not_stalled),
        cmocka_unit_test(test_a_timer_that_runs_late_says_for_how_long_it_should_have_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
