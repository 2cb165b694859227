/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QEMU's events, as its monitor sends them, in the words of machine.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "hv-hooks/qemu/qemu_events.h"

static struct {
    unsigned n; /* of all calls */
    enum run_event event;
    char *reason, *disk;
    bool stops, was_reset, resumed;
} heard;

static void on_run_event(void *opaque, enum run_event event, const char *reason)
{
    assert_ptr_equal(opaque, &heard);
    heard.n++;
    heard.event = event;
    heard.reason = g_strdup(reason);
}

static void on_reset(void *opaque)
{
    (void)opaque;
    heard.n++;
    heard.was_reset = true;
}

static void on_disk_error(void *opaque, const struct machine_disk_error *error)
{
    (void)opaque;
    heard.n++;
    heard.disk = g_strdup(error->disk);
    heard.reason = g_strdup(error->reason);
    heard.stops = error->stops;
}

static void on_resumed(void *opaque)
{
    (void)opaque;
    heard.n++;
    heard.resumed = true;
}

static int set_up(void **state)
{
    (void)state;
    memset(&heard, 0, sizeof heard);
    return 0;
}

static void forget_words(void)
{
    g_clear_pointer(&heard.reason, g_free);
    g_clear_pointer(&heard.disk, g_free);
}

static int tear_down(void **state)
{
    (void)state;
    forget_words();
    return 0;
}

static void tell(const char *name, const char *data)
{
    static const struct machine_observer observer = {
        .run_event = on_run_event, .was_reset = on_reset, .disk_error = on_disk_error, .resumed = on_resumed};
    forget_words();
    json_t *json = data ? json_loads(data, 0, NULL) : NULL;
    assert_true(json || !data);
    qemu_event_tell(name, json, &observer, &heard);
    json_decref(json);
}

static void test_a_shutdown_is_the_guests_or_that_of_this_qemu(void **state)
{
    (void)state;
    tell("SHUTDOWN", "{\"guest\": true, \"reason\": \"guest-shutdown\"}");
    assert_int_equal(heard.event, RUN_EVENT_SHUTDOWN);
    assert_string_equal(heard.reason, "guest-shutdown");
    tell("SHUTDOWN", "{\"guest\": false, \"reason\": \"host-signal\"}");
    assert_int_equal(heard.event, RUN_EVENT_QUIT);
    assert_string_equal(heard.reason, "host-signal");
    assert_int_equal(heard.n, 2);
}

static void test_a_shutdown_without_a_word_has_no_reason(void **state)
{
    (void)state;
    tell("SHUTDOWN", NULL);
    assert_int_equal(heard.n, 1);
    assert_int_equal(heard.event, RUN_EVENT_QUIT);
    assert_null(heard.reason);
}

static void test_panic_watchdog_reset_and_resume_are_told(void **state)
{
    (void)state;
    tell("GUEST_PANICKED", "{\"action\": \"pause\"}");
    assert_int_equal(heard.event, RUN_EVENT_PANICKED);
    tell("WATCHDOG", "{\"action\": \"pause\"}");
    assert_int_equal(heard.event, RUN_EVENT_WATCHDOG);
    assert_string_equal(heard.reason, "pause");
    tell("RESET", "{\"guest\": false}");
    assert_true(heard.was_reset);
    tell("RESUME", NULL);
    assert_true(heard.resumed);
    assert_int_equal(heard.n, 4);
}

static void test_a_disks_error_names_the_device_or_the_node(void **state)
{
    (void)state;
    tell("BLOCK_IO_ERROR",
         "{\"device\": \"vda\", \"node-name\": \"n0\", \"reason\": \"No space\", \"action\": \"stop\"}");
    assert_string_equal(heard.disk, "vda");
    assert_string_equal(heard.reason, "No space");
    assert_true(heard.stops);
    tell("BLOCK_IO_ERROR", "{\"device\": \"\", \"node-name\": \"n0\", \"action\": \"report\"}");
    assert_string_equal(heard.disk, "n0");
    assert_string_equal(heard.reason, "");
    assert_false(heard.stops);
    tell("BLOCK_IO_ERROR", NULL);
    assert_string_equal(heard.disk, "");
    assert_false(heard.stops);
}

/* A hostile guest may rule QEMU. */
static void test_words_do_not_control_a_terminal(void **state)
{
    (void)state;
    tell("SHUTDOWN", "{\"guest\": true, \"reason\": \"gone\\u001b[2J\\nvm: all is well\"}");
    assert_null(strpbrk(heard.reason, "\033\n"));
    tell("BLOCK_IO_ERROR", "{\"device\": \"\\u001b[2J\", \"reason\": \"\\u0007\", \"action\": \"stop\"}");
    assert_null(strchr(heard.disk, '\033'));
    assert_null(strchr(heard.reason, '\007'));
}

static void test_words_of_another_type_are_none(void **state)
{
    (void)state;
    tell("SHUTDOWN", "{\"guest\": 1, \"reason\": [\"guest-shutdown\"]}");
    assert_int_equal(heard.event, RUN_EVENT_QUIT);
    assert_null(heard.reason);
    tell("BLOCK_IO_ERROR", "{\"device\": 7, \"action\": true}");
    assert_string_equal(heard.disk, "");
    assert_false(heard.stops);
}

static void test_other_events_are_passed_over(void **state)
{
    (void)state;
    tell("NIC_RX_FILTER_CHANGED", "{\"name\": \"net0\"}");
    tell("", NULL);
    assert_int_equal(heard.n, 0);
}

static void test_run_states_are_known_by_name_and_any_other_one_stands_still(void **state)
{
    (void)state;
    assert_int_equal(qemu_event_state("running"), MACHINE_RUNS);
    assert_int_equal(qemu_event_state("paused"), MACHINE_PAUSED);
    assert_int_equal(qemu_event_state("io-error"), MACHINE_DISK_ERROR);
    assert_int_equal(qemu_event_state("guest-panicked"), MACHINE_PANICKED);
    assert_int_equal(qemu_event_state("shutdown"), MACHINE_SHUT_OFF);
    assert_int_equal(qemu_event_state("watchdog"), MACHINE_WATCHDOG);
    assert_int_equal(qemu_event_state("debug"), MACHINE_STANDS);
    assert_int_equal(qemu_event_state(NULL), MACHINE_STANDS);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_a_shutdown_is_the_guests_or_that_of_this_qemu),
        TEST(test_a_shutdown_without_a_word_has_no_reason),
        TEST(test_panic_watchdog_reset_and_resume_are_told),
        TEST(test_a_disks_error_names_the_device_or_the_node),
        TEST(test_words_do_not_control_a_terminal),
        TEST(test_words_of_another_type_are_none),
        TEST(test_other_events_are_passed_over),
        TEST(test_run_states_are_known_by_name_and_any_other_one_stands_still),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
