/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the parts post reaches the core once, in order, and before the post returns. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "tests/control/fake_core.h"

static struct session_event numbered(uint64_t epoch)
{
    return (struct session_event){.type = SESSION_EVENT_EPOCH_RECEIVED, .epoch = epoch};
}

/* Any pointer will do: the sink never looks behind it. */
static struct staged_epoch *staged(uint64_t number)
{
    return (struct staged_epoch *)(uintptr_t)(0x1000 + number);
}

static void test_an_event_is_handled_before_the_post_returns(void **state)
{
    struct fake_core core;
    struct sink sink;
    const struct session_event event = numbered(3);
    (void)state;
    fake_core_open(&core, &sink);
    sink_event(&sink, &event);
    assert_int_equal(core.nevents, 1);
    assert_int_equal(core.events[0].epoch, 3);
    assert_null(core.offered[0]);
    assert_int_equal(core.ndone, 1);
    sink_epoch(&sink, &event, staged(3));
    assert_ptr_equal(core.offered[1], staged(3));
    sink_event_simple(&sink, SESSION_EVENT_STOP);
    assert_int_equal(core.events[2].type, SESSION_EVENT_STOP);
    assert_int_equal(core.ndone, 3);
}

static void post_two_more(struct fake_core *core, unsigned n)
{
    const struct session_event first = numbered(10), second = numbered(11);
    if (n > 0)
        return;
    sink_epoch(core->sink, &first, staged(10));
    sink_epoch(core->sink, &second, staged(11));
    assert_int_equal(core->nevents, 1); /* they wait */
    assert_int_equal(core->ndone, 0);
}

static void test_what_an_event_brings_about_waits_until_it_is_handled(void **state)
{
    struct fake_core core;
    struct sink sink;
    (void)state;
    fake_core_open(&core, &sink);
    core.on_event = post_two_more;
    sink_event_simple(&sink, SESSION_EVENT_TICK);
    assert_false(core.was_nested);
    assert_int_equal(core.nevents, 3);
    assert_int_equal(core.events[1].epoch, 10);
    assert_ptr_equal(core.offered[1], staged(10));
    assert_int_equal(core.events[2].epoch, 11);
    assert_ptr_equal(core.offered[2], staged(11));
    assert_int_equal(core.ndone, 1); /* once, for all of them */
}

static void post_too_many(struct fake_core *core, unsigned n)
{
    for (unsigned i = 0; n == 0 && i < EVENT_QUEUE_MAX + 2; i++)
        sink_event_simple(core->sink, SESSION_EVENT_TICK);
}

static void test_an_event_amid_too_many_others_is_told_as_lost(void **state)
{
    struct fake_core core;
    struct sink sink;
    (void)state;
    fake_core_open(&core, &sink);
    core.on_event = post_too_many;
    sink_event_simple(&sink, SESSION_EVENT_TICK);
    assert_int_equal(core.nlost, 2);
    assert_int_equal(core.nevents, 1 + EVENT_QUEUE_MAX);
    assert_int_equal(core.ndone, 1);
}

static void test_an_error_stays_until_its_cause_is_over(void **state)
{
    struct fake_core core;
    struct sink sink;
    (void)state;
    fake_core_open(&core, &sink);
    assert_null(sink_last_error(&sink));
    sink_error_of(&sink, SINK_CAUSE_DISK, "disk %s is full", "vda");
    assert_string_equal(sink_last_error(&sink), "disk vda is full");
    assert_int_equal(core.nchanged, 1);
    sink_error_over(&sink, SINK_CAUSE_TERM);
    assert_non_null(sink_last_error(&sink));
    sink_error_over(&sink, SINK_CAUSE_DISK);
    assert_null(sink_last_error(&sink));
    sink_clear(&sink);
}

static void test_a_detail_does_not_replace_what_says_more(void **state)
{
    struct fake_core core;
    struct sink sink;
    (void)state;
    fake_core_open(&core, &sink);
    sink_detail_of(&sink, SINK_CAUSE_DISK, "byte %d", 1);
    assert_string_equal(sink_last_error(&sink), "byte 1");
    sink_error_of(&sink, SINK_CAUSE_DISK, "the guest stands still");
    sink_detail_of(&sink, SINK_CAUSE_DISK, "byte %d", 2);
    assert_string_equal(sink_last_error(&sink), "the guest stands still");
    sink_error_of(&sink, SINK_CAUSE_TERM, "no term");
    sink_detail_of(&sink, SINK_CAUSE_DISK, "byte %d", 3);
    assert_string_equal(sink_last_error(&sink), "byte 3");
    sink_clear(&sink);
}

static void test_a_newer_error_is_not_over_with_the_older_ones_cause(void **state)
{
    struct fake_core core;
    struct sink sink;
    (void)state;
    fake_core_open(&core, &sink);
    sink_error_of(&sink, SINK_CAUSE_DISK, "disk is full");
    sink_error(&sink, "QEMU ended");
    sink_error_over(&sink, SINK_CAUSE_DISK);
    assert_string_equal(sink_last_error(&sink), "QEMU ended");
    sink_error_of(&sink, SINK_CAUSE_TERM, "no term");
    sink_keep_error(&sink, "it was stopped here");
    sink_error_over(&sink, SINK_CAUSE_TERM);
    assert_string_equal(sink_last_error(&sink), "it was stopped here");
    sink_error_over(&sink, SINK_CAUSE_OTHER);
    assert_null(sink_last_error(&sink));
    sink_clear(&sink);
}

/* An error may quote QEMU or the peer, or the error before. */
static void test_an_error_is_one_readable_line(void **state)
{
    struct fake_core core;
    struct sink sink;
    (void)state;
    fake_core_open(&core, &sink);
    sink_error(&sink, "QEMU says: %s", "a\033[2Jb\nc");
    assert_null(strpbrk(sink_last_error(&sink), "\033\n"));
    sink_error(&sink, "again: %s", sink_last_error(&sink));
    assert_non_null(strstr(sink_last_error(&sink), "again: QEMU says: a"));
    sink_keep_error(&sink, sink_last_error(&sink));
    assert_non_null(strstr(sink_last_error(&sink), "again: QEMU says: a"));
    sink_clear(&sink);
}

static void test_messages_changes_and_giving_up_reach_the_core_at_once(void **state)
{
    struct fake_core core;
    struct sink sink;
    (void)state;
    fake_core_open(&core, &sink);
    sink_send(&sink, MESSAGE_ACK, 5, 6, 7);
    assert_int_equal(core.nmessages, 1);
    assert_int_equal(core.messages[0].type, MESSAGE_ACK);
    assert_int_equal(core.messages[0].term, 5);
    assert_int_equal(core.messages[0].epoch, 6);
    assert_int_equal(core.messages[0].arg, 7);
    assert_int_equal(core.messages[0].len, 0);
    sink_changed(&sink);
    assert_int_equal(core.nchanged, 1);
    sink_give_up(&sink);
    assert_int_equal(core.ngiven_up, 1);
    assert_int_equal(core.nevents, 0);
}

static unsigned nlogged;

static void count_line(const gchar *domain, GLogLevelFlags level, const gchar *message, gpointer opaque)
{
    (void)domain;
    (void)level;
    (void)message;
    (void)opaque;
    nlogged++;
}

/* A full disk says the same every second, and two of them in turns. */
static void test_a_sentence_that_comes_again_and_again_is_logged_once_a_minute(void **state)
{
    struct fake_core core;
    struct sink sink;
    (void)state;
    fake_core_open(&core, &sink);
    GLogFunc before = g_log_set_default_handler(count_line, NULL);
    nlogged = 0;
    for (unsigned i = 0; i < 5; i++) {
        sink_error_of(&sink, SINK_CAUSE_DISK, "disk vda is full");
        sink_error_of(&sink, SINK_CAUSE_DISK, "disk vdb is full");
    }
    assert_int_equal(nlogged, 2);
    assert_int_equal(core.nchanged, 10);
    sink.logged[1].at_us -= SINK_LOG_AGAIN_US; /* vda's */
    sink_error_of(&sink, SINK_CAUSE_DISK, "disk vda is full");
    sink_error_of(&sink, SINK_CAUSE_DISK, "disk vdb is full");
    assert_int_equal(nlogged, 3);
    for (unsigned i = 0; i < 2 * SINK_LOGGED; i++)
        sink_error(&sink, "error %u", i);
    assert_int_equal(nlogged, 3 + 2 * SINK_LOGGED);
    assert_string_equal(sink_last_error(&sink), "error 7");
    g_log_set_default_handler(before, NULL);
    sink_clear(&sink);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_event_is_handled_before_the_post_returns),
        cmocka_unit_test(test_what_an_event_brings_about_waits_until_it_is_handled),
        cmocka_unit_test(test_an_event_amid_too_many_others_is_told_as_lost),
        cmocka_unit_test(test_an_error_stays_until_its_cause_is_over),
        cmocka_unit_test(test_a_detail_does_not_replace_what_says_more),
        cmocka_unit_test(test_a_newer_error_is_not_over_with_the_older_ones_cause),
        cmocka_unit_test(test_an_error_is_one_readable_line),
        cmocka_unit_test(test_a_sentence_that_comes_again_and_again_is_logged_once_a_minute),
        cmocka_unit_test(test_messages_changes_and_giving_up_reach_the_core_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
