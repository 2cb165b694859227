/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the session hears of the peer's beats, and says in its own. The paths are three functions here. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "replicator/control/replicator.h"
#include "tests/control/calls.h"
#include "tests/control/fake_core.h"
#include "tests/control/warnings.h"

static struct {
    struct paths_config config;
    struct paths_observer observer;
    bool fails;
    uint8_t *bytes; /* where the packet's copy goes */
} now;

/* ---- what heartbeats.c calls ---- */

struct paths *paths_new(const struct paths_config *config, const struct paths_observer *observer,
                        GError **error)
{
    now.config = *config;
    now.observer = *observer;
    if (now.fails)
        g_set_error_literal(error, G_IO_ERROR, G_IO_ERROR_ADDRESS_IN_USE, "the address is taken");
    return now.fails ? NULL : (struct paths *)&now;
}

void paths_set_host(struct paths *paths, unsigned host)
{
    assert_ptr_equal(paths, &now);
    now.config.host = host;
}
void paths_send_now(struct paths *paths, uint8_t bytes[HEARTBEAT_LEN])
{
    assert_ptr_equal(paths, &now);
    memset(bytes, 0xb5, HEARTBEAT_LEN);
    now.bytes = bytes;
    called("paths");
}

void split_heard(struct replicator *r, const struct session_event *event)
{
    (void)r;
    called("split %u", (unsigned)event->term);
}

/* ---- a primary with one other path ---- */

static struct replicator r;
static struct fake_core core;
static uint8_t sent[HEARTBEAT_LEN];
static size_t nsent;

static void event_in_order(struct fake_core *of, unsigned n)
{
    called("event %u", (unsigned)of->events[n].term);
}

static void take_message(void *opaque, const struct transport_message *message)
{
    called("link");
    nsent = message->len;
    assert_true(nsent <= sizeof sent);
    memcpy(sent, message->payload, nsent);
    fake_send(opaque, message);
}

static int set_up(void **state)
{
    static const struct sink_core table = {.event = fake_event,
                                           .done = fake_done,
                                           .overflow = fake_overflow,
                                           .send = take_message,
                                           .changed = fake_changed,
                                           .give_up = fake_give_up};
    (void)state;
    memset(&r, 0, sizeof r);
    memset(&now, 0, sizeof now);
    nwarnings = 0;
    nsent = 0;
    r.config.vm_name = (char *)"vm";
    r.config.listen_address = (char *)"192.0.2.1";
    r.config.heartbeat_paths[0] =
        (struct heartbeat_path){.here = (char *)"198.51.100.1", .there = (char *)"198.51.100.2"};
    r.config.nheartbeat_paths = 1;
    r.config.heartbeat_ms = 10;
    r.config.silence_ms = 100;
    memset(r.config.token, 0x5a, sizeof r.config.token);
    r.config.sealed = true;
    memset(r.config.secret, 0x5b, sizeof r.config.secret);
    r.session.role = SESSION_PRIMARY;
    r.session.state = SESSION_PROTECTED;
    r.session.term = 6;
    fake_core_open(&core, &r.sink);
    r.sink.core = &table;
    core.on_event = event_in_order;
    calls_begin();
    assert_true(heartbeats_start(&r, NULL));
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    sink_clear(&r.sink);
    calls_end();
    return 0;
}

static void test_the_paths_are_those_of_the_order(void **state)
{
    (void)state;
    assert_ptr_equal(r.paths, &now);
    assert_string_equal(now.config.listen_address, "192.0.2.1");
    assert_ptr_equal(now.config.others, r.config.heartbeat_paths);
    assert_int_equal(now.config.nothers, 1);
    assert_int_equal(now.config.interval_ms, 10);
    assert_memory_equal(now.config.token, r.config.token, sizeof now.config.token);
    assert_true(now.config.tagged);
    assert_memory_equal(now.config.secret, r.config.secret, sizeof now.config.secret);
    assert_ptr_equal(now.observer.opaque, &r);
}

/* Of the pair's two hosts a primary is the one that its term was granted to, a standby the other. */
static void test_each_host_has_tags_of_its_own(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        r.config.term = 8 | (i & 1);
        r.config.role = i < 2 ? SESSION_PRIMARY : SESSION_SECONDARY;
        assert_true(heartbeats_start(&r, NULL));
        assert_int_equal(now.config.host, i < 2 ? (i & 1) : !(i & 1));
    }
}

static void test_a_standby_that_learns_which_host_it_is_tags_as_that(void **state)
{
    struct heartbeat beat = {0};
    (void)state;
    now.config.host = 0;
    r.session_begun = true;
    r.session.host = 1;
    now.observer.say(now.observer.opaque, &beat);
    assert_int_equal(now.config.host, 1);
}

static void test_paths_that_cannot_be_opened_are_an_error(void **state)
{
    g_autoptr(GError) error = NULL;
    (void)state;
    now.fails = true;
    assert_false(heartbeats_start(&r, &error));
    assert_string_equal(error->message, "the address is taken");
}

static void test_a_beat_reaches_the_session_with_all_that_it_says(void **state)
{
    const struct heartbeat beat = {.role = WIRE_ROLE_SECONDARY,
                                   .term = 7,
                                   .standing = SESSION_MAY_TAKE_OVER,
                                   .query = 11,
                                   .answer = 12,
                                   .deaf = true};
    (void)state;
    now.observer.heard(now.observer.opaque, &beat, true);
    assert_calls("split 7; event 7; "); /* a split is noticed before the session makes an end of it */
    const struct session_event *event = &core.events[0];
    assert_int_equal(event->type, SESSION_EVENT_HEARTBEAT);
    assert_int_equal(event->peer_role, SESSION_SECONDARY);
    assert_int_equal(event->standing, SESSION_MAY_TAKE_OVER);
    assert_int_equal(event->query, 11);
    assert_int_equal(event->answer, 12);
    assert_true(event->deaf);
    assert_true(event->by_link);
}

static void test_the_other_primary_is_known_as_one(void **state)
{
    const struct heartbeat beat = {.role = WIRE_ROLE_PRIMARY, .term = 5};
    (void)state;
    now.observer.heard(now.observer.opaque, &beat, false);
    assert_int_equal(core.events[0].peer_role, SESSION_PRIMARY);
    assert_false(core.events[0].by_link);
    assert_false(core.events[0].deaf);
}

static void test_a_message_counts_as_a_sign_of_life(void **state)
{
    const struct session_event event = {.type = SESSION_EVENT_HEARTBEAT, .term = 9, .by_link = true};
    (void)state;
    heartbeats_heard(&r, &event);
    assert_calls("split 9; event 9; ");
    assert_true(core.events[0].by_link);
}

static void test_the_session_hears_of_a_stall_and_a_long_one_is_logged(void **state)
{
    (void)state;
    now.observer.stalled(now.observer.opaque, 50);
    assert_int_equal(core.events[0].type, SESSION_EVENT_STALLED);
    assert_int_equal(core.events[0].stalled_ms, 50);
    assert_int_equal(nwarnings, 0); /* half of what looks like death */
    now.observer.stalled(now.observer.opaque, 51);
    assert_int_equal(core.events[1].stalled_ms, 51);
    assert_int_equal(nwarnings, 1);
}

static void test_a_beat_says_what_the_session_is(void **state)
{
    struct heartbeat beat = {.sequence = 44};
    struct session_beat says;
    (void)state;
    r.session.query = 21;
    r.session.peer_query = 22;
    session_beat(&r.session, replicator_now_ms(), &says);
    assert_int_equal(says.standing, SESSION_RUNS_GUEST);
    now.observer.say(now.observer.opaque, &beat);
    assert_int_equal(beat.term, 6);
    assert_int_equal(beat.role, WIRE_ROLE_PRIMARY);
    assert_int_equal(beat.standing, SESSION_RUNS_GUEST);
    assert_int_equal(beat.query, says.query);
    assert_int_equal(beat.answer, 22);
    assert_int_equal(beat.deaf, says.deaf);
    assert_int_equal(beat.sequence, 44); /* the paths' own */
    r.session.role = SESSION_SECONDARY;
    r.session.state = SESSION_LISTENING;
    now.observer.say(now.observer.opaque, &beat);
    assert_int_equal(beat.role, WIRE_ROLE_SECONDARY);
    assert_int_equal(beat.standing, SESSION_HAS_LET_GO);
}

/* A query, and that the peer's checkpoints do not arrive here, are in the beat as well. */
static void test_a_beat_has_the_query_and_whether_this_side_is_deaf(void **state)
{
    struct heartbeat beat = {0};
    struct session_beat says;
    (void)state;
    r.session.role = SESSION_SECONDARY;
    r.session.state = SESSION_STANDBY;
    r.session.config.other_paths = true;
    r.session.query = 21;
    detector_init(&r.session.detector, 100, 10, 0);
    r.session.detector.asked = true;
    session_beat(&r.session, replicator_now_ms(), &says);
    now.observer.say(now.observer.opaque, &beat);
    assert_int_equal(says.query, 21);
    assert_int_equal(beat.query, 21);
    assert_true(says.deaf); /* nothing has come by the link for a long time */
    assert_true(beat.deaf);
}

static void test_a_beat_at_once_goes_by_every_path_and_by_the_link_if_that_is_wanted(void **state)
{
    (void)state;
    heartbeats_send_now(&r, false);
    assert_calls("paths; ");
    assert_int_equal(core.nmessages, 0);
    heartbeats_send_now(&r, true);
    assert_calls("paths; link; ");
    assert_int_equal(core.nmessages, 1);
    assert_int_equal(core.messages[0].type, MESSAGE_BEAT);
    assert_int_equal(core.messages[0].term, 6);
    assert_int_equal(nsent, HEARTBEAT_LEN);
    for (size_t i = 0; i < HEARTBEAT_LEN; i++)
        assert_int_equal(sent[i], 0xb5); /* the same packet */
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_the_paths_are_those_of_the_order),
        TEST(test_each_host_has_tags_of_its_own),
        TEST(test_a_standby_that_learns_which_host_it_is_tags_as_that),
        TEST(test_paths_that_cannot_be_opened_are_an_error),
        TEST(test_a_beat_reaches_the_session_with_all_that_it_says),
        TEST(test_the_other_primary_is_known_as_one),
        TEST(test_a_message_counts_as_a_sign_of_life),
        TEST(test_the_session_hears_of_a_stall_and_a_long_one_is_logged),
        TEST(test_a_beat_says_what_the_session_is),
        TEST(test_a_beat_has_the_query_and_whether_this_side_is_deaf),
        TEST(test_a_beat_at_once_goes_by_every_path_and_by_the_link_if_that_is_wanted),
    };
    g_log_set_writer_func(count_warnings, NULL, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
