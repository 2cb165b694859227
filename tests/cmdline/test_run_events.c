/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the user's QEMU line says of the guest's end is what happens. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "hv-hooks/line.h"
#include "hv-hooks/qemu/qemu_events.h"

#define READ(actions, ...)                                                                                   \
    line_run_actions((const char *const[]){"qemu-system-x86_64", __VA_ARGS__, NULL}, actions)

static enum run_verdict shutdown_of(const struct run_actions *actions, bool guest, const char *reason)
{
    return run_verdict_of(actions, qemu_event_shutdown(guest, reason));
}

static enum run_verdict panic_of(const struct run_actions *actions)
{
    return run_verdict_of(actions, RUN_EVENT_PANICKED);
}

static enum run_verdict watchdog_of(const struct run_actions *actions, const char *action)
{
    return run_verdict_of(actions, qemu_event_watchdog(action));
}

static void test_without_a_word_the_guest_s_own_end_ends_the_vm(void **state)
{
    struct run_actions actions;
    (void)state;
    READ(&actions, "-m", "64");
    assert_int_equal(shutdown_of(&actions, true, "guest-shutdown"), RUN_ENDED);
    assert_int_equal(shutdown_of(&actions, true, "guest-reset"), RUN_ENDED);
    assert_int_equal(panic_of(&actions), RUN_ENDED);
    assert_int_equal(watchdog_of(&actions, "reset"), RUN_GOES_ON);
}

static void test_what_is_done_to_this_qemu_is_not_the_guest_s_wish(void **state)
{
    static const char *const reasons[] = {"host-signal", "host-qmp-quit", "host-ui", "host-error", NULL};
    struct run_actions actions;
    (void)state;
    READ(&actions, "-no-shutdown");
    for (int i = 0; i < 5; i++)
        assert_int_equal(shutdown_of(&actions, false, reasons[i]), RUN_LOST);
}

static void test_a_guest_that_is_to_pause_stands_still(void **state)
{
    struct run_actions actions;
    (void)state;
    READ(&actions, "-action", "panic=pause");
    assert_int_equal(panic_of(&actions), RUN_STANDS);
    assert_int_equal(shutdown_of(&actions, true, "guest-shutdown"), RUN_ENDED);
    READ(&actions, "--no-shutdown");
    assert_int_equal(shutdown_of(&actions, true, "guest-shutdown"), RUN_STANDS);
    assert_int_equal(panic_of(&actions), RUN_STANDS);
}

static void test_the_last_word_counts(void **state)
{
    struct run_actions actions;
    (void)state;
    READ(&actions, "-action", "panic=pause,watchdog=poweroff", "-action", "panic=none");
    assert_int_equal(panic_of(&actions), RUN_GOES_ON);
    assert_int_equal(watchdog_of(&actions, "pause"), RUN_ENDED);
    READ(&actions, "-watchdog-action", "poweroff", "-watchdog-action", "pause");
    assert_int_equal(watchdog_of(&actions, "pause"), RUN_STANDS);
}

static void test_an_option_without_its_value_is_nothing(void **state)
{
    struct run_actions actions;
    (void)state;
    READ(&actions, "-action");
    assert_int_equal(panic_of(&actions), RUN_ENDED);
    READ(&actions, "-action", "panic,=,shutdown=");
    assert_int_equal(shutdown_of(&actions, true, "guest-shutdown"), RUN_ENDED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_without_a_word_the_guest_s_own_end_ends_the_vm),
        cmocka_unit_test(test_what_is_done_to_this_qemu_is_not_the_guest_s_wish),
        cmocka_unit_test(test_a_guest_that_is_to_pause_stands_still),
        cmocka_unit_test(test_the_last_word_counts),
        cmocka_unit_test(test_an_option_without_its_value_is_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
