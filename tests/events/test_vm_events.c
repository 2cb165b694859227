/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a replicator says again and again, and what is told of it once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <glib.h>

#include "daemon/vm_events.h"
#include "proto/events.h"

static GString *told; /* names, a space before each */
static char *sentence;

static GLogWriterOutput collect(GLogLevelFlags level, const GLogField *fields, gsize n, gpointer opaque)
{
    (void)level, (void)opaque;
    for (gsize i = 0; i < n; i++) {
        if (strcmp(fields[i].key, "UNDERSTUDY_EVENT") == 0)
            g_string_append_printf(told, " %s", (const char *)fields[i].value);
        if (strcmp(fields[i].key, "MESSAGE") == 0) {
            g_free(sentence);
            sentence = g_strdup(fields[i].value);
        }
    }
    return G_LOG_WRITER_HANDLED;
}

/* What was told since the last call. */
static void assert_told(const char *names)
{
    assert_string_equal(told->str, names);
    g_string_truncate(told, 0);
}

static Understudy__Status primary(Understudy__State state)
{
    Understudy__Status s = UNDERSTUDY__STATUS__INIT;
    s.role = UNDERSTUDY__ROLE__ROLE_PRIMARY;
    s.state = state;
    s.peer = (char *)"hostb";
    s.guest_here = true;
    s.detect_ms = s.promote_ms = -1;
    return s;
}

static Understudy__Status secondary(Understudy__State state)
{
    Understudy__Status s = primary(state);
    s.role = UNDERSTUDY__ROLE__ROLE_SECONDARY;
    s.guest_here = false;
    return s;
}

/* Twice: nothing is told again. */
static void say(struct vm_events *events, Understudy__Status s)
{
    vm_events_status(events, &s);
    vm_events_status(events, &s);
}

static void test_the_life_of_a_primary(void **state)
{
    struct vm_events *events = vm_events_new("web", false);
    (void)state;
    say(events, primary(UNDERSTUDY__STATE__STATE_STARTING));
    assert_told("");
    say(events, primary(UNDERSTUDY__STATE__STATE_SYNCHRONISING));
    assert_told(" started"); /* not protected yet is no news */
    say(events, primary(UNDERSTUDY__STATE__STATE_PROTECTED));
    assert_told(" protected");
    Understudy__Status lost = primary(UNDERSTUDY__STATE__STATE_PEER_LOST);
    lost.last_error = (char *)"the link broke";
    say(events, lost);
    assert_told(" unprotected");
    assert_string_equal(sentence, "VM web is not protected any more (peer-lost): the link broke");
    say(events, primary(UNDERSTUDY__STATE__STATE_CONNECTING));
    vm_events_asked(events, "hostb");
    vm_events_asked(events, "hostb");
    vm_events_refused(events, "hostb", "that host is drained");
    vm_events_asked(events, "hostb");
    assert_told(" standby-asked standby-refused");
    say(events, primary(UNDERSTUDY__STATE__STATE_PROTECTED));
    assert_told(" protected");
    say(events, primary(UNDERSTUDY__STATE__STATE_CONNECTING));
    vm_events_asked(events, "hostb");
    assert_told(" unprotected standby-asked");
    vm_events_ended(events, UNDERSTUDY__ROLE__ROLE_PRIMARY, 2, SESSION_END_GUEST_SHUTDOWN, "");
    assert_told(" ended");
    vm_events_free(events);
}

static void test_a_standby_takes_over(void **state)
{
    struct vm_events *events = vm_events_new("web", false);
    (void)state;
    say(events, secondary(UNDERSTUDY__STATE__STATE_LISTENING));
    say(events, secondary(UNDERSTUDY__STATE__STATE_FOLLOWING));
    assert_told(" started");
    say(events, secondary(UNDERSTUDY__STATE__STATE_STANDBY));
    assert_told(" standby");
    say(events, secondary(UNDERSTUDY__STATE__STATE_ASKING));
    say(events, secondary(UNDERSTUDY__STATE__STATE_PROMOTING));
    assert_told("");
    Understudy__Status s = primary(UNDERSTUDY__STATE__STATE_CONNECTING);
    s.detect_ms = 30;
    s.promote_ms = 4;
    s.guest_here = false; /* a moment before QEMU says that it runs */
    say(events, s);
    assert_told("");
    s.guest_here = true;
    say(events, s);
    assert_told(" takeover unprotected");
    vm_events_free(events);
}

static void test_a_guest_that_is_handed_over_is_not_taken_over(void **state)
{
    struct vm_events *events = vm_events_new("web", false);
    (void)state;
    say(events, secondary(UNDERSTUDY__STATE__STATE_STANDBY));
    assert_told(" started standby");
    say(events, primary(UNDERSTUDY__STATE__STATE_CONNECTING));
    assert_told(" moved-here unprotected");
    vm_events_free(events);
}

static void test_a_standby_that_has_lost_its_image_stands_by_again(void **state)
{
    struct vm_events *events = vm_events_new("web", false);
    (void)state;
    say(events, secondary(UNDERSTUDY__STATE__STATE_STANDBY));
    say(events, secondary(UNDERSTUDY__STATE__STATE_LISTENING));
    say(events, secondary(UNDERSTUDY__STATE__STATE_STANDBY));
    assert_told(" started standby standby");
    vm_events_free(events);
}

static void test_what_an_earlier_daemon_told_is_not_told_again(void **state)
{
    struct vm_events *events = vm_events_new("web", true);
    Understudy__Status s = primary(UNDERSTUDY__STATE__STATE_PROTECTED);
    (void)state;
    s.split = (char *)"both ran it";
    s.guest_event = (char *)"the guest was reset";
    say(events, s);
    assert_told(" adopted");
    s.split = (char *)"both ran it again";
    say(events, s);
    assert_told(" split");
    s.state = UNDERSTUDY__STATE__STATE_CONNECTING;
    say(events, s);
    assert_told(" unprotected");
    vm_events_free(events);
}

static void test_an_adopted_vm_without_a_standby_is_not_news(void **state)
{
    struct vm_events *events = vm_events_new("web", true);
    (void)state;
    say(events, primary(UNDERSTUDY__STATE__STATE_CONNECTING));
    assert_told(" adopted");
    say(events, primary(UNDERSTUDY__STATE__STATE_PROTECTED));
    assert_told(" protected");
    vm_events_free(events);
}

static void test_fenced_is_told_once(void **state)
{
    struct vm_events *events = vm_events_new("web", false);
    (void)state;
    say(events, primary(UNDERSTUDY__STATE__STATE_FENCED));
    assert_told(" started fenced");
    vm_events_ended(events, UNDERSTUDY__ROLE__ROLE_PRIMARY, 2, SESSION_END_FENCED, "");
    assert_told("");
    vm_events_free(events);
    events = vm_events_new("web", false);
    vm_events_ended(events, UNDERSTUDY__ROLE__ROLE_PRIMARY, 2, SESSION_END_FENCED, "");
    assert_told(" fenced");
    vm_events_free(events);
}

static void test_the_guests_panic_and_what_else_qemu_tells(void **state)
{
    struct vm_events *events = vm_events_new("web", false);
    Understudy__Status s = primary(UNDERSTUDY__STATE__STATE_PROTECTED);
    (void)state;
    s.guest_event = (char *)"the guest was reset";
    say(events, s);
    assert_told(" started protected guest");
    s.guest_event = (char *)"the guest's kernel has panicked and stands still";
    s.guest_state = UNDERSTUDY__GUEST_STATE__GUEST_STATE_PANICKED;
    say(events, s);
    assert_told(" guest-panicked");
    vm_events_ended(events, s.role, 2, SESSION_END_PANICKED, "");
    assert_told(" ended");
    s.guest_state = UNDERSTUDY__GUEST_STATE__GUEST_STATE_RUNS;
    vm_events_free(events);
    events = vm_events_new("web", false);
    vm_events_ended(events, s.role, 2, SESSION_END_PANICKED, "");
    assert_told(" guest-panicked ended");
    vm_events_free(events);
}

static void test_warnings_are_told_when_they_come_and_when_they_go(void **state)
{
    struct vm_events *events = vm_events_new("web", false);
    Understudy__Status s = primary(UNDERSTUDY__STATE__STATE_PROTECTED);
    char *both[] = {(char *)"tap down", (char *)"mtu"}, *turned[] = {(char *)"mtu", (char *)"tap down"},
         *other[] = {(char *)"mtu", (char *)"bridge"};
    (void)state;
    s.warnings = both;
    s.n_warnings = 2;
    say(events, s);
    assert_told(" started protected warning warning");
    s.warnings = turned;
    say(events, s);
    assert_told("");
    s.warnings = other;
    say(events, s);
    assert_told(" warning warning-cleared");
    s.n_warnings = 0;
    say(events, s);
    assert_told(" warning-cleared warning-cleared");
    vm_events_free(events);
}

static void test_what_broke_is_a_failure(void **state)
{
    struct vm_events *events = vm_events_new("web", false);
    (void)state;
    vm_events_ended(events, UNDERSTUDY__ROLE__ROLE_PRIMARY, 2, SESSION_END_HYPERVISOR_DIED, "no memory");
    assert_told(" failed");
    assert_string_equal(sentence,
                        "VM web ended here: QEMU ended by itself or could not be used any more: no memory");
    vm_events_lost(events, UNDERSTUDY__ROLE__ROLE_SECONDARY, 2);
    assert_told(" failed");
    vm_events_free(events);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_life_of_a_primary),
        cmocka_unit_test(test_a_standby_takes_over),
        cmocka_unit_test(test_a_guest_that_is_handed_over_is_not_taken_over),
        cmocka_unit_test(test_a_standby_that_has_lost_its_image_stands_by_again),
        cmocka_unit_test(test_what_an_earlier_daemon_told_is_not_told_again),
        cmocka_unit_test(test_an_adopted_vm_without_a_standby_is_not_news),
        cmocka_unit_test(test_fenced_is_told_once),
        cmocka_unit_test(test_the_guests_panic_and_what_else_qemu_tells),
        cmocka_unit_test(test_warnings_are_told_when_they_come_and_when_they_go),
        cmocka_unit_test(test_what_broke_is_a_failure),
    };
    told = g_string_new(NULL);
    g_log_set_writer_func(collect, NULL, NULL);
    int result = cmocka_run_group_tests(tests, NULL, NULL);
    g_string_free(told, TRUE);
    g_free(sentence);
    return result;
}
