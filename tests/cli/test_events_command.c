/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What `understudy events` asks the daemon for: since when, and of which VM. The test is the call. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "cli/cli.h"

#define DAY_US (86400ull * G_USEC_PER_SEC)

const char *cli_run_dir = "/nowhere";

static unsigned nasked;
static uint64_t since_us;
static char vm[64];

bool cli_call_each(const Understudy__Envelope *request, unsigned timeout_ms, cli_answer each, void *opaque)
{
    (void)timeout_ms;
    (void)each;
    (void)opaque;
    assert_int_equal(request->body_case, UNDERSTUDY__ENVELOPE__BODY_EVENTS_REQUEST);
    nasked++;
    since_us = request->events_request->since_us;
    g_strlcpy(vm, request->events_request->vm, sizeof vm);
    return true;
}

int cli_fail(const char *format, ...)
{
    (void)format;
    return EXIT_FAILED;
}

static int ask(const char *since)
{
    static const struct cli_command command = {.name = "events"};
    char *words[] = {(char *)"events", (char *)"web", (char *)"--since", (char *)since, NULL};
    cli_begin(&command);
    return cmd_events(4, words);
}

static void assert_asks_since(const char *since, uint64_t wanted_us)
{
    uint64_t now_us = (uint64_t)g_get_real_time();
    nasked = 0;
    assert_int_equal(ask(since), EXIT_OK);
    assert_int_equal(nasked, 1);
    assert_string_equal(vm, "web");
    assert_in_range(since_us, now_us - wanted_us, now_us - wanted_us + 20 * G_USEC_PER_SEC);
}

static void test_a_time_ago_is_counted_from_now(void **state)
{
    (void)state;
    assert_asks_since("30s", 30 * G_USEC_PER_SEC);
    assert_asks_since("2h", DAY_US / 12);
    assert_asks_since("3d", 3 * DAY_US);
}

/* It is not a time after now. */
static void test_a_time_ago_before_1970_is_all_there_is(void **state)
{
    (void)state;
    since_us = 1;
    assert_int_equal(ask("30000d"), EXIT_OK);
    assert_int_equal(since_us, 0);
    since_us = 1;
    assert_int_equal(ask("100000d"), EXIT_OK);
    assert_int_equal(since_us, 0);
}

static void test_what_is_no_time_asks_nobody(void **state)
{
    static const char *const wrong[] = {"", "d", "0d", "100001d", "-1h", "3w", "yesterday", "1969-12-31"};
    (void)state;
    nasked = 0;
    for (size_t i = 0; i < G_N_ELEMENTS(wrong); i++)
        if (ask(wrong[i]) != EXIT_USAGE)
            fail_msg("%s", wrong[i]);
    assert_int_equal(nasked, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_time_ago_is_counted_from_now),
        cmocka_unit_test(test_a_time_ago_before_1970_is_all_there_is),
        cmocka_unit_test(test_what_is_no_time_asks_nobody),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
