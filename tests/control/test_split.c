/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the administrator is told of two hosts that both ran the guest. The gate is a count of frames here. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "proto/term.h"
#include "replicator/control/replicator.h"
#include "tests/control/fake_core.h"

static uint64_t frames;

void gate_get_stats(const struct output_gate *gate, struct gate_stats *out)
{
    assert_non_null(gate);
    *out = (struct gate_stats){.frames_released = frames};
}

/* ---- a primary of term 3.1 whose epoch 40 was acked ---- */

static struct replicator r;
static struct fake_core core;

static uint64_t term(uint64_t count, unsigned host)
{
    return term_next((count - 1) << 1, host);
}

static int set_up(void **state)
{
    (void)state;
    memset(&r, 0, sizeof r);
    frames = 100;
    r.config.vm_name = (char *)"web";
    r.gate = (struct output_gate *)&frames;
    r.session.role = SESSION_PRIMARY;
    r.session.state = SESSION_PEER_LOST;
    r.session.term = term(3, 1);
    r.session.acked_epoch = 40;
    fake_core_open(&core, &r.sink);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    g_clear_pointer(&r.split, g_free);
    sink_clear(&r.sink);
    return 0;
}

static void test_it_is_alone_from_when_output_flows(void **state)
{
    (void)state;
    split_alone(&r);
    gint64 since = r.alone_us;
    assert_true(since > 0 && since <= g_get_monotonic_time());
    assert_int_equal(r.alone_epoch, 40);
    assert_int_equal(r.alone_frames, 100);
    frames = 120;
    r.session.acked_epoch = 50;
    split_alone(&r); /* it is so already */
    assert_int_equal(r.alone_us, since);
    assert_int_equal(r.alone_epoch, 40);
    assert_int_equal(r.alone_frames, 100);
}

static void test_who_holds_its_output_or_has_no_guest_is_not_alone(void **state)
{
    (void)state;
    r.session.held = true; /* a new standby is on its way */
    split_alone(&r);
    assert_int_equal(r.alone_us, 0);
    r.session.held = false;
    r.session.state = SESSION_LEAVING;
    split_alone(&r);
    assert_int_equal(r.alone_us, 0);
    r.session.state = SESSION_STANDBY;
    r.session.role = SESSION_SECONDARY;
    split_alone(&r);
    assert_int_equal(r.alone_us, 0);
}

static void test_one_that_ran_alone_says_for_how_long_and_what_it_let_out(void **state)
{
    (void)state;
    split_alone(&r);
    r.alone_us -= 2500 * G_TIME_SPAN_MILLISECOND;
    frames = 107;
    split_fenced(&r);
    assert_non_null(strstr(r.split, "VM web ran on both hosts"));
    assert_non_null(strstr(r.split, "stopped here (term 3.1)"));
    assert_non_null(strstr(r.split, "For 2.5 s"));
    assert_non_null(strstr(r.split, "from epoch 40 on"));
    assert_non_null(strstr(r.split, "let out 7 frames"));
    assert_string_equal(sink_last_error(&r.sink), r.split);
}

static void test_one_that_let_nothing_out_alone_says_so(void **state)
{
    (void)state;
    split_fenced(&r);
    assert_non_null(strstr(r.split, "taken it over"));
    assert_non_null(strstr(r.split, "term 3.1"));
    assert_non_null(strstr(r.split, "Nothing that the other host does not know"));
    assert_string_equal(sink_last_error(&r.sink), r.split);
}

/* It was alone once, and its output has been held since. */
static void test_one_whose_output_is_held_is_not_a_split(void **state)
{
    (void)state;
    split_alone(&r);
    r.session.held = true;
    split_fenced(&r);
    assert_null(strstr(r.split, "both hosts"));
}

/* A primary's sign of life. */
static void hear(enum session_role role, uint64_t of)
{
    const struct session_event event = {.type = SESSION_EVENT_HEARTBEAT, .term = of, .peer_role = role};
    split_heard(&r, &event);
}

static void test_a_primary_of_the_same_count_and_an_older_term_was_the_other_half(void **state)
{
    (void)state;
    hear(SESSION_PRIMARY, term(3, 0));
    assert_non_null(strstr(r.split, "goes on here (term 3.1)"));
    assert_non_null(strstr(r.split, "stopped on the other host (term 3.0)"));
    assert_null(sink_last_error(&r.sink)); /* this side is well */
    assert_int_equal(core.nevents, 0);
    char *first = r.split;
    hear(SESSION_PRIMARY, term(3, 0));
    assert_ptr_equal(r.split, first); /* told once */
}

static void test_any_other_sign_of_life_is_no_split(void **state)
{
    (void)state;
    hear(SESSION_SECONDARY, term(3, 0)); /* it took nothing over */
    hear(SESSION_PRIMARY, term(2, 0));   /* it was taken over from, and let nothing out */
    hear(SESSION_PRIMARY, term(3, 1));   /* this term */
    hear(SESSION_PRIMARY, term(4, 0));   /* a newer one: the session ends this side */
    r.session.role = SESSION_SECONDARY;
    hear(SESSION_PRIMARY, term(3, 0));
    assert_null(r.split);
    r.session.term = term(3, 0);
    r.session.role = SESSION_PRIMARY;
    hear(SESSION_PRIMARY, term(3, 1)); /* of the same count, and newer */
    assert_null(r.split);
}

static void test_without_a_gate_nothing_was_let_out(void **state)
{
    (void)state;
    r.gate = NULL;
    split_alone(&r);
    split_fenced(&r);
    assert_non_null(strstr(r.split, "let out 0 frames"));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_it_is_alone_from_when_output_flows),
        TEST(test_who_holds_its_output_or_has_no_guest_is_not_alone),
        TEST(test_one_that_ran_alone_says_for_how_long_and_what_it_let_out),
        TEST(test_one_that_let_nothing_out_alone_says_so),
        TEST(test_one_whose_output_is_held_is_not_a_split),
        TEST(test_a_primary_of_the_same_count_and_an_older_term_was_the_other_half),
        TEST(test_any_other_sign_of_life_is_no_split),
        TEST(test_without_a_gate_nothing_was_let_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
