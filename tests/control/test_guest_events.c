/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the machine tells of the guest, and the user's buttons: what the session, the administrator and the
 * machine hear of it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "replicator/control/replicator.h"
#include "tests/control/fake_core.h"
#include "tests/fakevm/fake_machine.h"

/* ---- what guest_events.c calls ---- */

static unsigned nresumed;

void guest_resume(struct replicator *r)
{
    (void)r;
    nresumed++;
}

/* ---- a primary whose guest runs here ---- */

static struct replicator r;
static struct fake_core core;
static struct fake_machine machine;

static int set_up(void **state)
{
    (void)state;
    memset(&r, 0, sizeof r);
    r.config.vm_name = (char *)"vm";
    r.session.role = SESSION_PRIMARY;
    r.session.state = SESSION_PROTECTED;
    r.hv_ready = true;
    fake_core_open(&core, &r.sink);
    machine = (struct fake_machine){.base = {.ops = &machine_ops_fakevm}, .ready = true};
    r.machine = &machine.base;
    nresumed = 0;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    g_clear_pointer(&r.guest_event, g_free);
    sink_clear(&r.sink);
    return 0;
}

static void assert_newest_order_is(enum machine_order order)
{
    assert_true(machine.norders > 0);
    assert_int_equal(machine.orders[machine.norders - 1], order);
}

static void test_a_guest_that_shuts_down_ends_the_vm(void **state)
{
    (void)state;
    guest_events_run(&r, RUN_EVENT_SHUTDOWN, "guest-shutdown");
    assert_int_equal(core.nevents, 1);
    assert_int_equal(core.events[0].type, SESSION_EVENT_GUEST_SHUTDOWN);
    assert_int_equal(core.events[0].reason, SESSION_END_GUEST_SHUTDOWN);
    assert_non_null(strstr(r.guest_event, "guest-shutdown"));
    assert_int_equal(core.nchanged, 1);
    assert_false(machine.was_killed);
}

static void test_a_guest_whose_line_says_pause_stands_still_and_the_session_hears_nothing(void **state)
{
    (void)state;
    r.actions.shutdown_pauses = true;
    guest_events_run(&r, RUN_EVENT_SHUTDOWN, "guest-shutdown");
    assert_int_equal(core.nevents, 0);
    assert_int_equal(r.guest_state, UNDERSTUDY__GUEST_STATE__GUEST_STATE_SHUT_OFF);
}

/* Nobody wanted the guest to end: the standby goes on with it. */
static void test_a_machine_that_was_told_to_quit_is_lost_and_no_end_of_the_vm(void **state)
{
    (void)state;
    guest_events_run(&r, RUN_EVENT_QUIT, "host-signal");
    assert_int_equal(core.nevents, 0);
    assert_true(machine.was_killed);
    assert_non_null(strstr(sink_last_error(&r.sink), "host-signal"));
}

static void test_a_panic_ends_the_vm_or_pauses_it_as_the_line_says(void **state)
{
    (void)state;
    guest_events_run(&r, RUN_EVENT_PANICKED, NULL);
    assert_int_equal(core.nevents, 1);
    assert_int_equal(core.events[0].reason, SESSION_END_PANICKED);
    r.actions.panic_pauses = true;
    guest_events_run(&r, RUN_EVENT_PANICKED, NULL);
    assert_int_equal(core.nevents, 1);
    assert_int_equal(r.guest_state, UNDERSTUDY__GUEST_STATE__GUEST_STATE_PANICKED);
}

static void test_a_watchdog_pauses_the_guest_or_ends_the_vm_or_is_only_told(void **state)
{
    (void)state;
    guest_events_run(&r, RUN_EVENT_WATCHDOG_DONE, "reset");
    assert_non_null(strstr(r.guest_event, "reset"));
    assert_int_equal(r.guest_state, UNDERSTUDY__GUEST_STATE__GUEST_STATE_RUNS);
    guest_events_run(&r, RUN_EVENT_WATCHDOG, "pause");
    assert_int_equal(r.guest_state, UNDERSTUDY__GUEST_STATE__GUEST_STATE_WATCHDOG);
    assert_int_equal(core.nevents, 0);
    r.actions.watchdog_ends = true;
    guest_events_run(&r, RUN_EVENT_WATCHDOG, "pause");
    assert_int_equal(core.nevents, 1);
}

static void test_a_standbys_machine_tells_nothing(void **state)
{
    (void)state;
    r.session.role = SESSION_SECONDARY;
    guest_events_run(&r, RUN_EVENT_SHUTDOWN, "guest-shutdown");
    r.session.role = SESSION_PRIMARY;
    r.quitting = true;
    guest_events_run(&r, RUN_EVENT_SHUTDOWN, "guest-shutdown");
    assert_int_equal(core.nevents, 0);
    assert_null(r.guest_event);
}

static void test_a_guest_that_was_paused_there_is_paused_here(void **state)
{
    (void)state;
    guest_events_taken_over(&r, MACHINE_PAUSED);
    assert_int_equal(r.guest_state, UNDERSTUDY__GUEST_STATE__GUEST_STATE_PAUSED);
    assert_int_equal(core.nevents, 0);
}

/* The other host died between the guest's end and telling it. */
static void test_a_guest_that_had_shut_down_there_ends_here(void **state)
{
    (void)state;
    guest_events_taken_over(&r, MACHINE_SHUT_OFF);
    assert_int_equal(core.nevents, 1);
    assert_int_equal(core.events[0].type, SESSION_EVENT_GUEST_SHUTDOWN);
    guest_events_taken_over(&r, MACHINE_RUNS);
    assert_int_equal(core.nevents, 1);
}

static void test_pause_and_resume_reach_the_machine(void **state)
{
    (void)state;
    guest_button(&r, UNDERSTUDY__POWER_ACTION__POWER_PAUSE);
    assert_newest_order_is(MACHINE_PAUSE);
    assert_int_equal(r.guest_state, UNDERSTUDY__GUEST_STATE__GUEST_STATE_PAUSED);
    guest_button(&r, UNDERSTUDY__POWER_ACTION__POWER_PAUSE); /* it stands still already */
    assert_int_equal(machine.norders, 1);
    guest_button(&r, UNDERSTUDY__POWER_ACTION__POWER_RESUME);
    assert_int_equal(r.guest_state, UNDERSTUDY__GUEST_STATE__GUEST_STATE_RUNS);
    assert_int_equal(nresumed, 1);
    assert_int_equal(core.nchanged, 3);
}

static void test_a_panicked_guest_is_not_resumed_but_goes_on_after_a_reset(void **state)
{
    (void)state;
    r.actions.panic_pauses = true;
    guest_events_run(&r, RUN_EVENT_PANICKED, NULL);
    guest_button(&r, UNDERSTUDY__POWER_ACTION__POWER_RESUME);
    assert_int_equal(nresumed, 0);
    assert_non_null(strstr(sink_last_error(&r.sink), "cannot be resumed"));
    guest_button(&r, UNDERSTUDY__POWER_ACTION__POWER_RESET);
    assert_newest_order_is(MACHINE_RESET);
    assert_int_equal(nresumed, 0); /* the machine has yet to say that it was reset */
    guest_events_reset(&r);
    assert_int_equal(nresumed, 1);
    assert_int_equal(r.guest_state, UNDERSTUDY__GUEST_STATE__GUEST_STATE_RUNS);
    guest_events_reset(&r); /* the guest's own */
    assert_int_equal(nresumed, 1);
}

static void test_a_paused_guest_stays_paused_after_a_reset(void **state)
{
    (void)state;
    guest_button(&r, UNDERSTUDY__POWER_ACTION__POWER_PAUSE);
    guest_button(&r, UNDERSTUDY__POWER_ACTION__POWER_RESET);
    guest_events_reset(&r);
    assert_int_equal(nresumed, 0);
    assert_int_equal(r.guest_state, UNDERSTUDY__GUEST_STATE__GUEST_STATE_PAUSED);
}

static void test_buttons_do_nothing_where_the_guest_is_not(void **state)
{
    (void)state;
    r.session.role = SESSION_SECONDARY;
    r.session.state = SESSION_STANDBY;
    guest_button(&r, UNDERSTUDY__POWER_ACTION__POWER_SHUTDOWN);
    r.session.role = SESSION_PRIMARY;
    r.session.state = SESSION_PROTECTED;
    r.qemu_gone = true;
    guest_button(&r, UNDERSTUDY__POWER_ACTION__POWER_SHUTDOWN);
    assert_int_equal(machine.norders, 0);
    assert_int_equal(core.nchanged, 0);
}

static void test_an_order_that_the_machine_refuses_is_an_error(void **state)
{
    (void)state;
    guest_button(&r, UNDERSTUDY__POWER_ACTION__POWER_SHUTDOWN);
    assert_newest_order_is(MACHINE_POWER_DOWN);
    assert_null(sink_last_error(&r.sink));
    r.quitting = true;
    machine.refused(machine.refused_opaque, "not now");
    assert_null(sink_last_error(&r.sink));
    r.quitting = false;
    machine.refused(machine.refused_opaque, "not now");
    assert_non_null(strstr(sink_last_error(&r.sink), "not now"));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_a_guest_that_shuts_down_ends_the_vm),
        TEST(test_a_guest_whose_line_says_pause_stands_still_and_the_session_hears_nothing),
        TEST(test_a_machine_that_was_told_to_quit_is_lost_and_no_end_of_the_vm),
        TEST(test_a_panic_ends_the_vm_or_pauses_it_as_the_line_says),
        TEST(test_a_watchdog_pauses_the_guest_or_ends_the_vm_or_is_only_told),
        TEST(test_a_standbys_machine_tells_nothing),
        TEST(test_a_guest_that_was_paused_there_is_paused_here),
        TEST(test_a_guest_that_had_shut_down_there_ends_here),
        TEST(test_pause_and_resume_reach_the_machine),
        TEST(test_a_panicked_guest_is_not_resumed_but_goes_on_after_a_reset),
        TEST(test_a_paused_guest_stays_paused_after_a_reset),
        TEST(test_buttons_do_nothing_where_the_guest_is_not),
        TEST(test_an_order_that_the_machine_refuses_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
