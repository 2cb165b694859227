/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The core: one event after the other into the session, and what it decides out to the parts. The session is
 * a function of the test's (the linker's wrap), and so is everything that carries a decision out.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "replicator/control/channel.h"
#include "replicator/control/replicator.h"
#include "tests/control/calls.h"

#define U(number) ((unsigned)(number))

static struct replicator r;
static struct {
    struct session_actions actions; /* of the next event; then there are none */
    enum session_state state;
    uint64_t term, next_tick_ms;
    bool takes_offered, ends_in_paths;
    void (*during)(void); /* the first action is carried out */
    struct capture_figures figures;
} now;

/* ---- the session ---- */

void __wrap_session_handle(struct session *s, const struct session_event *event, uint64_t now_ms,
                           struct session_actions *out);
uint64_t __wrap_session_next_tick_ms(const struct session *s);

void __wrap_session_handle(struct session *s, const struct session_event *event, uint64_t now_ms,
                           struct session_actions *out)
{
    assert_in_range(replicator_now_ms() - now_ms, 0, 10000);
    called("%s", session_event_name(event->type));
    *out = now.actions;
    now.actions.n = 0;
    s->state = now.state;
    s->term = now.term;
}

uint64_t __wrap_session_next_tick_ms(const struct session *s)
{
    assert_ptr_equal(s, &r.session);
    return now.next_tick_ms;
}

static void will_do(enum session_action_type type)
{
    now.actions.list[now.actions.n++].type = type;
}

/* ---- what control.c calls ---- */

void action_carry_out(struct replicator *of, const struct session_action *action, bool said_something,
                      struct staged_epoch **offered)
{
    void (*during)(void) = now.during;
    called("%s%s", session_action_name(action->type), said_something ? " after a message" : "");
    of->ended |= action->type == SESSION_DO_END;
    if (now.takes_offered)
        *offered = NULL;
    now.during = NULL;
    if (during)
        during();
}
bool action_sends_message(enum session_action_type type)
{
    return type == SESSION_DO_SEND_GOODBYE;
}
void heartbeats_send_now(struct replicator *of, bool by_link)
{
    called("beat of %u%s", U(of->session.term), by_link ? " by link" : "");
}
void applier_post_discard(struct applier *applier, struct staged_epoch *epoch)
{
    (void)applier;
    called("discard %u", U(epoch->epoch));
}
const struct capture_figures *capture_thread_figures(const struct capture_thread *thread)
{
    (void)thread;
    return &now.figures;
}
void input_log_set_active(struct input_log *log, bool active)
{
    (void)log;
    called("input log %s", active ? "on" : "off");
}
void standby_trial_stop_unless_standing_by(struct replicator *of)
{
    (void)of;
    called("trial");
}
void paths_look(struct paths *paths)
{
    (void)paths;
    called("look");
    r.ended |= now.ends_in_paths;
}
void sender_post_message(struct sender *sender, struct connection *connection,
                         const struct transport_message *message)
{
    (void)sender;
    called("send %u to %u", U(message->type), U(connection->id));
}
void channel_report_soon(struct channel *channel)
{
    (void)channel;
    called("report");
}
void channel_ended(struct channel *channel, enum session_end_reason reason, const char *message)
{
    (void)channel;
    called("ended: %s: %s", session_end_reason_name(reason), message);
}

/* ---- a protected primary of term 6 ---- */

static void on_shutdown(struct transport *transport)
{
    (void)transport;
    called("shutdown");
}

static const struct transport_ops ops = {.name = "tcp", .shutdown = on_shutdown};
static struct transport transport = {.ops = &ops};
static struct connection connection = {.transport = &transport, .id = 3};
static struct staged_epoch staged = {.epoch = 9};

static int set_up(void **state)
{
    (void)state;
    memset(&r, 0, sizeof r);
    memset(&now, 0, sizeof now);
    r.config.vm_name = (char *)"web";
    r.session.state = now.state = SESSION_PROTECTED;
    r.session.term = now.term = 6;
    r.connection = &connection;
    r.sync_ms = -1;
    now.next_tick_ms = UINT64_MAX;
    r.loop = g_main_loop_new(NULL, FALSE);
    control_open(&r);
    sink_set_vm_name(&r.sink, "web");
    calls_begin();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    g_clear_handle_id(&r.tick_source, g_source_remove);
    g_main_loop_unref(r.loop);
    sink_clear(&r.sink);
    calls_end();
    return 0;
}

static void post(enum session_event_type type)
{
    sink_event_simple(&r.sink, type);
}

static void test_what_the_session_decides_is_carried_out_in_its_order(void **state)
{
    (void)state;
    will_do(SESSION_DO_SEND_ACK);
    will_do(SESSION_DO_SEND_GOODBYE);
    will_do(SESSION_DO_STOP_CAPTURE);
    will_do(SESSION_DO_DISCONNECT);
    post(SESSION_EVENT_STOP);
    assert_calls("stop; send-ack; send-goodbye; stop-capture after a message; disconnect after a message; ");
    will_do(SESSION_DO_DISCONNECT);
    post(SESSION_EVENT_LINK_DOWN); /* another decision */
    assert_calls("link-down; disconnect; ");
}

static void test_nothing_follows_an_end(void **state)
{
    (void)state;
    will_do(SESSION_DO_END);
    will_do(SESSION_DO_CONNECT);
    post(SESSION_EVENT_STOP);
    assert_calls("stop; end; ");
    will_do(SESSION_DO_CONNECT);
    post(SESSION_EVENT_LINK_DOWN);
    assert_calls("link-down; ");
}

static void test_the_peer_hears_of_a_new_term_before_anything_is_done_about_it(void **state)
{
    (void)state;
    now.term = 8;
    will_do(SESSION_DO_RELEASE_ALL);
    post(SESSION_EVENT_GRANT);
    assert_calls("grant; beat of 8; release-all; ");
    post(SESSION_EVENT_ACK);
    assert_calls("ack; ");
}

static void post_two(void)
{
    post(SESSION_EVENT_GRANT);
    post(SESSION_EVENT_TERM_KEPT);
    called("posted");
}

static void test_an_event_that_an_action_posts_waits_for_the_last_action(void **state)
{
    (void)state;
    now.during = post_two;
    will_do(SESSION_DO_ASK_GRANT);
    will_do(SESSION_DO_RELEASE);
    post(SESSION_EVENT_LINK_DOWN);
    assert_calls("link-down; ask-grant; posted; release; grant; term-kept; ");
}

/* ---- the epoch that came with an event ---- */

static void receive(void)
{
    const struct session_event event = {.type = SESSION_EVENT_EPOCH_RECEIVED};
    sink_epoch(&r.sink, &event, &staged);
}

static void test_an_epoch_that_no_action_takes_is_given_back(void **state)
{
    (void)state;
    receive();
    assert_calls("epoch-received; discard 9; ");
    will_do(SESSION_DO_SEND_ACK);
    receive();
    assert_calls("epoch-received; send-ack; discard 9; ");
    now.takes_offered = true;
    will_do(SESSION_DO_APPLY);
    receive();
    assert_calls("epoch-received; apply; ");
}

static void receive_too_many(void)
{
    for (unsigned i = 0; i <= EVENT_QUEUE_MAX; i++)
        receive();
    assert_calls("epoch-received; send-ack; discard 9; shutdown; ");
}

static void test_an_epoch_amid_too_many_events_ends_the_connection(void **state)
{
    (void)state;
    now.during = receive_too_many;
    will_do(SESSION_DO_SEND_ACK);
    receive();
    g_string_truncate(calls, 0);
    r.connection = NULL;
    r.sink.events.n = EVENT_QUEUE_MAX;
    r.sink.events.runs = true;
    post(SESSION_EVENT_TICK); /* without one there is nothing to end, nor to give back */
    assert_calls("");
}

/* ---- states ---- */

static void test_a_new_state_is_told_to_those_that_it_concerns(void **state)
{
    (void)state;
    r.session.state = SESSION_SYNCHRONISING;
    now.state = SESSION_ARMING;
    post(SESSION_EVENT_SYNCHRONISED);
    assert_calls("synchronised; input log on; trial; report; ");
    assert_in_range(r.since_us, 1, g_get_monotonic_time());
    now.state = SESSION_PROTECTED;
    post(SESSION_EVENT_ACK);
    assert_calls("ack; input log on; trial; report; ");
    r.since_us = 0;
    post(SESSION_EVENT_ACK);
    assert_calls("ack; ");
    assert_int_equal(r.since_us, 0);
    now.state = SESSION_PEER_LOST;
    post(SESSION_EVENT_LINK_DOWN);
    assert_calls("link-down; input log off; trial; report; ");
}

static void test_the_time_to_protection_is_measured_once(void **state)
{
    (void)state;
    r.sync_began_us = g_get_monotonic_time() - 20 * 1000;
    now.state = SESSION_ARMING;
    post(SESSION_EVENT_SYNCHRONISED);
    assert_true(r.sync_ms < 0);
    now.state = SESSION_PROTECTED;
    post(SESSION_EVENT_ACK);
    assert_true(r.sync_ms >= 20 && r.sync_ms < 20000);
    assert_int_equal(r.sync_began_us, 0);
    double sync_ms = r.sync_ms;
    post(SESSION_EVENT_ACK);
    assert_true(r.sync_ms == sync_ms);
}

/* ---- the rest that the parts post ---- */

static void test_a_message_goes_to_the_peer_if_there_is_one(void **state)
{
    (void)state;
    sink_send(&r.sink, MESSAGE_ACK, 6, 9, 0);
    assert_calls("send 3 to 3; ");
    r.connection = NULL;
    sink_send(&r.sink, MESSAGE_ACK, 6, 9, 0);
    assert_calls("");
}

static void test_a_change_is_reported(void **state)
{
    (void)state;
    sink_changed(&r.sink);
    assert_calls("report; ");
}

static gboolean give_up(gpointer opaque)
{
    (void)opaque;
    sink_give_up(&r.sink);
    return G_SOURCE_REMOVE;
}

static gboolean not_quit(gpointer opaque)
{
    *(bool *)opaque = true;
    g_main_loop_quit(r.loop);
    return G_SOURCE_REMOVE;
}

static void test_giving_up_ends_the_process_with_the_last_error(void **state)
{
    bool goes_on = false;
    (void)state;
    sink_error(&r.sink, "no memory");
    assert_calls("report; ");
    g_idle_add(give_up, NULL);
    guint later = g_idle_add_full(G_PRIORITY_LOW, not_quit, &goes_on, NULL);
    g_main_loop_run(r.loop);
    assert_false(goes_on);
    g_source_remove(later);
    assert_calls("ended: hypervisor-died: no memory; ");
    assert_true(r.ended);
    assert_int_equal(r.exit_status, 1);
    sink_give_up(&r.sink);
    assert_calls("");
}

static void test_a_session_that_has_ended_gives_nothing_up(void **state)
{
    (void)state;
    r.ended = true;
    sink_give_up(&r.sink);
    assert_int_equal(r.exit_status, 0);
    assert_calls("");
}

/* ---- the timer ---- */

static void test_the_timer_looks_for_beats_and_then_ticks(void **state)
{
    (void)state;
    now.next_tick_ms = replicator_now_ms();
    post(SESSION_EVENT_START);
    assert_calls("start; ");
    now.next_tick_ms = UINT64_MAX;
    while (calls->len == 0)
        g_main_context_iteration(NULL, TRUE);
    assert_calls("look; tick; ");
    assert_int_equal(r.tick_source, 0); /* there is no next one */
}

static void test_the_timer_waits_until_it_is_due(void **state)
{
    uint64_t due_ms = replicator_now_ms() + 30;
    (void)state;
    now.next_tick_ms = due_ms;
    post(SESSION_EVENT_START);
    now.next_tick_ms = UINT64_MAX;
    g_string_truncate(calls, 0);
    while (calls->len == 0)
        g_main_context_iteration(NULL, TRUE);
    assert_true(replicator_now_ms() >= due_ms);
    assert_calls("look; tick; ");
}

static void test_there_is_one_timer_and_the_newest(void **state)
{
    (void)state;
    now.next_tick_ms = replicator_now_ms();
    post(SESSION_EVENT_START);
    now.next_tick_ms = UINT64_MAX;
    post(SESSION_EVENT_ACK); /* nothing is due any more */
    assert_int_equal(r.tick_source, 0);
    while (g_main_context_iteration(NULL, FALSE))
        ;
    assert_calls("start; ack; ");
    now.next_tick_ms = replicator_now_ms() + 3600 * 1000;
    post(SESSION_EVENT_ACK);
    guint first = r.tick_source;
    assert_int_not_equal(first, 0);
    post(SESSION_EVENT_ACK);
    assert_int_not_equal(r.tick_source, first);
    assert_null(g_main_context_find_source_by_id(NULL, first));
}

static void test_a_session_that_has_ended_ticks_no_more(void **state)
{
    (void)state;
    now.next_tick_ms = replicator_now_ms();
    now.ends_in_paths = true; /* a beat of a newer term was there */
    post(SESSION_EVENT_START);
    assert_calls("start; ");
    while (calls->len == 0)
        g_main_context_iteration(NULL, TRUE);
    assert_calls("look; ");
    post(SESSION_EVENT_ACK);
    assert_int_equal(r.tick_source, 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_what_the_session_decides_is_carried_out_in_its_order),
        TEST(test_nothing_follows_an_end),
        TEST(test_the_peer_hears_of_a_new_term_before_anything_is_done_about_it),
        TEST(test_an_event_that_an_action_posts_waits_for_the_last_action),
        TEST(test_an_epoch_that_no_action_takes_is_given_back),
        TEST(test_an_epoch_amid_too_many_events_ends_the_connection),
        TEST(test_a_new_state_is_told_to_those_that_it_concerns),
        TEST(test_the_time_to_protection_is_measured_once),
        TEST(test_a_message_goes_to_the_peer_if_there_is_one),
        TEST(test_a_change_is_reported),
        TEST(test_giving_up_ends_the_process_with_the_last_error),
        TEST(test_a_session_that_has_ended_gives_nothing_up),
        TEST(test_the_timer_looks_for_beats_and_then_ticks),
        TEST(test_the_timer_waits_until_it_is_due),
        TEST(test_there_is_one_timer_and_the_newest),
        TEST(test_a_session_that_has_ended_ticks_no_more),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
