/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What QEMU tells of the guest, and the user's buttons: what the session, the administrator and QEMU hear of
 * it. QEMU's monitor and the guest's run are written down here.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "replicator/control/replicator.h"
#include "tests/control/fake_core.h"

/* ---- what guest_events.c calls ---- */

static unsigned nresumed, nkilled, ncommands;
static const char *command;
static qmp_reply command_reply;

void guest_resume(struct replicator *r)
{
    (void)r;
    nresumed++;
}

void child_process_kill(struct child_process *process)
{
    (void)process;
    nkilled++;
}

void qmp_execute(struct qmp *qmp, const char *name, json_t *arguments, int fd, qmp_reply reply, void *opaque)
{
    (void)qmp;
    (void)arguments;
    (void)fd;
    (void)opaque;
    ncommands++;
    command = name;
    command_reply = reply;
}

/* ---- a primary whose guest runs here ---- */

static struct replicator r;
static struct fake_core core;

static int set_up(void **state)
{
    (void)state;
    memset(&r, 0, sizeof r);
    r.config.vm_name = (char *)"vm";
    r.session.role = SESSION_PRIMARY;
    r.session.state = SESSION_PROTECTED;
    r.hv_ready = true;
    fake_core_open(&core, &r.sink);
    nresumed = nkilled = ncommands = 0;
    command = NULL;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    g_clear_pointer(&r.guest_event, g_free);
    sink_clear(&r.sink);
    return 0;
}

static void hear(const char *name, const char *data)
{
    json_t *json = data ? json_loads(data, 0, NULL) : NULL;
    guest_events_heard(&r, name, json);
    json_decref(json);
}

static void test_a_guest_that_shuts_down_ends_the_vm(void **state)
{
    (void)state;
    hear("SHUTDOWN", "{\"guest\": true, \"reason\": \"guest-shutdown\"}");
    assert_int_equal(core.nevents, 1);
    assert_int_equal(core.events[0].type, SESSION_EVENT_GUEST_SHUTDOWN);
    assert_int_equal(core.events[0].reason, SESSION_END_GUEST_SHUTDOWN);
    assert_non_null(strstr(r.guest_event, "guest-shutdown"));
    assert_int_equal(core.nchanged, 1);
    assert_int_equal(nkilled, 0);
}

static void test_a_guest_whose_line_says_pause_stands_still_and_the_session_hears_nothing(void **state)
{
    (void)state;
    r.actions.shutdown_pauses = true;
    hear("SHUTDOWN", "{\"guest\": true, \"reason\": \"guest-shutdown\"}");
    assert_int_equal(core.nevents, 0);
    assert_int_equal(r.guest_state, UNDERSTUDY__GUEST_STATE__GUEST_STATE_SHUT_OFF);
}

/* Nobody wanted the guest to end: the standby goes on with it. */
static void test_a_qemu_that_was_told_to_quit_is_lost_and_no_end_of_the_vm(void **state)
{
    (void)state;
    hear("SHUTDOWN", "{\"guest\": false, \"reason\": \"host-signal\"}");
    assert_int_equal(core.nevents, 0);
    assert_int_equal(nkilled, 1);
    assert_non_null(strstr(sink_last_error(&r.sink), "host-signal"));
}

static void test_a_panic_ends_the_vm_or_pauses_it_as_the_line_says(void **state)
{
    (void)state;
    hear("GUEST_PANICKED", NULL);
    assert_int_equal(core.nevents, 1);
    assert_int_equal(core.events[0].reason, SESSION_END_PANICKED);
    r.actions.panic_pauses = true;
    hear("GUEST_PANICKED", NULL);
    assert_int_equal(core.nevents, 1);
    assert_int_equal(r.guest_state, UNDERSTUDY__GUEST_STATE__GUEST_STATE_PANICKED);
}

static void test_a_standbys_qemu_tells_nothing(void **state)
{
    (void)state;
    r.session.role = SESSION_SECONDARY;
    hear("SHUTDOWN", "{\"guest\": true, \"reason\": \"guest-shutdown\"}");
    r.session.role = SESSION_PRIMARY;
    r.quitting = true;
    hear("SHUTDOWN", "{\"guest\": true, \"reason\": \"guest-shutdown\"}");
    assert_int_equal(core.nevents, 0);
    assert_null(r.guest_event);
}

static void test_a_guest_that_was_paused_there_is_paused_here(void **state)
{
    (void)state;
    guest_events_taken_over(&r, "paused");
    assert_int_equal(r.guest_state, UNDERSTUDY__GUEST_STATE__GUEST_STATE_PAUSED);
    assert_int_equal(core.nevents, 0);
}

/* The other host died between the guest's end and telling it. */
static void test_a_guest_that_had_shut_down_there_ends_here(void **state)
{
    (void)state;
    guest_events_taken_over(&r, "shutdown");
    assert_int_equal(core.nevents, 1);
    assert_int_equal(core.events[0].type, SESSION_EVENT_GUEST_SHUTDOWN);
    guest_events_taken_over(&r, "running");
    assert_int_equal(core.nevents, 1);
}

static void test_pause_and_resume_reach_qemu(void **state)
{
    (void)state;
    guest_button(&r, UNDERSTUDY__POWER_ACTION__POWER_PAUSE);
    assert_string_equal(command, "stop");
    assert_int_equal(r.guest_state, UNDERSTUDY__GUEST_STATE__GUEST_STATE_PAUSED);
    guest_button(&r, UNDERSTUDY__POWER_ACTION__POWER_PAUSE); /* it stands still already */
    assert_int_equal(ncommands, 1);
    guest_button(&r, UNDERSTUDY__POWER_ACTION__POWER_RESUME);
    assert_int_equal(r.guest_state, UNDERSTUDY__GUEST_STATE__GUEST_STATE_RUNS);
    assert_int_equal(nresumed, 1);
    assert_int_equal(core.nchanged, 3);
}

static void test_a_panicked_guest_is_not_resumed_but_goes_on_after_a_reset(void **state)
{
    (void)state;
    r.actions.panic_pauses = true;
    hear("GUEST_PANICKED", NULL);
    guest_button(&r, UNDERSTUDY__POWER_ACTION__POWER_RESUME);
    assert_int_equal(nresumed, 0);
    assert_non_null(strstr(sink_last_error(&r.sink), "cannot be resumed"));
    guest_button(&r, UNDERSTUDY__POWER_ACTION__POWER_RESET);
    assert_string_equal(command, "system_reset");
    assert_int_equal(nresumed, 0); /* QEMU has yet to say that it was reset */
    hear("RESET", NULL);
    assert_int_equal(nresumed, 1);
    assert_int_equal(r.guest_state, UNDERSTUDY__GUEST_STATE__GUEST_STATE_RUNS);
    hear("RESET", NULL); /* the guest's own */
    assert_int_equal(nresumed, 1);
}

static void test_a_paused_guest_stays_paused_after_a_reset(void **state)
{
    (void)state;
    guest_button(&r, UNDERSTUDY__POWER_ACTION__POWER_PAUSE);
    guest_button(&r, UNDERSTUDY__POWER_ACTION__POWER_RESET);
    hear("RESET", NULL);
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
    assert_int_equal(ncommands, 0);
    assert_int_equal(core.nchanged, 0);
}

static void test_an_order_that_qemu_refuses_is_an_error(void **state)
{
    g_autoptr(GError) error = g_error_new_literal(g_quark_from_static_string("test"), 1, "not now");
    (void)state;
    guest_button(&r, UNDERSTUDY__POWER_ACTION__POWER_SHUTDOWN);
    assert_string_equal(command, "system_powerdown");
    command_reply(NULL, NULL, NULL, &r);
    assert_null(sink_last_error(&r.sink));
    command_reply(NULL, NULL, error, &r);
    assert_non_null(strstr(sink_last_error(&r.sink), "not now"));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_a_guest_that_shuts_down_ends_the_vm),
        TEST(test_a_guest_whose_line_says_pause_stands_still_and_the_session_hears_nothing),
        TEST(test_a_qemu_that_was_told_to_quit_is_lost_and_no_end_of_the_vm),
        TEST(test_a_panic_ends_the_vm_or_pauses_it_as_the_line_says),
        TEST(test_a_standbys_qemu_tells_nothing),
        TEST(test_a_guest_that_was_paused_there_is_paused_here),
        TEST(test_a_guest_that_had_shut_down_there_ends_here),
        TEST(test_pause_and_resume_reach_qemu),
        TEST(test_a_panicked_guest_is_not_resumed_but_goes_on_after_a_reset),
        TEST(test_a_paused_guest_stays_paused_after_a_reset),
        TEST(test_buttons_do_nothing_where_the_guest_is_not),
        TEST(test_an_order_that_qemu_refuses_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
