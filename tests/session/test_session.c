/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The protocol's rules, one sentence each, for a reader of docs/session.md. The simulation looks for what
 * nobody thought of; this says what was thought of. Time is a number that the test moves.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

#include "failover/session.h"
#include "proto/term.h"

#define SILENCE_MS     60
#define ACK_TIMEOUT_MS 900
/* What the standby asks for, of a pair that has just begun. */
#define PEERS_TERM (TERM_FIRST + 3)

struct side {
    struct session session;
    struct session_actions did; /* for the last event */
    uint64_t now_ms;
};

static void begin(struct side *side, enum session_role role, enum session_peer_loss policy)
{
    const struct session_config config = {.role = role,
                                          .term = TERM_FIRST,
                                          .on_peer_loss = policy,
                                          .silence_ms = SILENCE_MS,
                                          .ack_timeout_ms = ACK_TIMEOUT_MS};
    side->now_ms = 1000;
    session_init(&side->session, &config, side->now_ms);
}

static void feed(struct side *side, struct session_event event)
{
    session_handle(&side->session, &event, side->now_ms, &side->did);
}

static void feed_simple(struct side *side, enum session_event_type type)
{
    feed(side, (struct session_event){.type = type, .term = side->session.term});
}

static void feed_epoch(struct side *side, enum session_event_type type, uint64_t epoch)
{
    feed(side, (struct session_event){.type = type, .term = side->session.term, .epoch = epoch});
}

static const struct session_action *find(const struct side *side, enum session_action_type type)
{
    for (size_t i = 0; i < side->did.n; i++) {
        if (side->did.list[i].type == type)
            return &side->did.list[i];
    }
    return NULL;
}

#define assert_did(side, type)     assert_non_null(find(side, type))
#define assert_did_not(side, type) assert_null(find(side, type))
#define assert_state(side, wanted)                                                                           \
    assert_string_equal(session_state_name((side)->session.state), session_state_name(wanted))

static void protect(struct side *side, enum session_peer_loss policy)
{
    begin(side, SESSION_PRIMARY, policy);
    feed_simple(side, SESSION_EVENT_START);
    feed(side, (struct session_event){
                   .type = SESSION_EVENT_LINK_UP, .term = TERM_FIRST, .peer_role = SESSION_SECONDARY});
    feed_simple(side, SESSION_EVENT_SYNCHRONISED);
    feed_epoch(side, SESSION_EVENT_EPOCH_CUT, 1);
    feed_epoch(side, SESSION_EVENT_EPOCH_SENT, 1);
    feed_epoch(side, SESSION_EVENT_ACK, 1);
    assert_state(side, SESSION_PROTECTED);
}

static void stand_by(struct side *side)
{
    begin(side, SESSION_SECONDARY, SESSION_ON_PEER_LOSS_CONTINUE);
    feed_simple(side, SESSION_EVENT_START);
    feed(side, (struct session_event){
                   .type = SESSION_EVENT_LINK_UP, .term = TERM_FIRST, .peer_role = SESSION_PRIMARY});
    assert_state(side, SESSION_FOLLOWING);
    feed_epoch(side, SESSION_EVENT_EPOCH_RECEIVED, 1);
    feed_epoch(side, SESSION_EVENT_EPOCH_APPLIED, 1);
    assert_state(side, SESSION_STANDBY);
}

static void test_output_is_held_before_the_first_epoch_is_cut(void **state)
{
    struct side side;
    (void)state;
    begin(&side, SESSION_PRIMARY, SESSION_ON_PEER_LOSS_CONTINUE);
    feed_simple(&side, SESSION_EVENT_START);
    feed(&side, (struct session_event){
                    .type = SESSION_EVENT_LINK_UP, .term = TERM_FIRST, .peer_role = SESSION_SECONDARY});
    assert_did(&side, SESSION_DO_START_PRECOPY);
    assert_did_not(&side, SESSION_DO_HOLD_OUTPUT);
    feed_simple(&side, SESSION_EVENT_SYNCHRONISED);
    assert_did(&side, SESSION_DO_HOLD_OUTPUT);
    assert_true(find(&side, SESSION_DO_HOLD_OUTPUT) < find(&side, SESSION_DO_START_EPOCHS));
}

static void test_an_ack_releases_its_epoch_and_no_later_one(void **state)
{
    struct side side;
    (void)state;
    protect(&side, SESSION_ON_PEER_LOSS_CONTINUE);
    feed_epoch(&side, SESSION_EVENT_EPOCH_CUT, 2);
    assert_did_not(&side, SESSION_DO_RELEASE);
    feed_epoch(&side, SESSION_EVENT_EPOCH_CUT, 3);
    feed_epoch(&side, SESSION_EVENT_ACK, 2);
    assert_did(&side, SESSION_DO_RELEASE);
    assert_int_equal(find(&side, SESSION_DO_RELEASE)->epoch, 2);
}

static void test_an_ack_of_an_epoch_that_was_never_cut_releases_nothing(void **state)
{
    struct side side;
    (void)state;
    protect(&side, SESSION_ON_PEER_LOSS_CONTINUE);
    feed_epoch(&side, SESSION_EVENT_ACK, 7);
    assert_did_not(&side, SESSION_DO_RELEASE);
    assert_did_not(&side, SESSION_DO_RELEASE_ALL);
}

static void test_a_lost_link_releases_nothing_before_the_grant(void **state)
{
    struct side side;
    (void)state;
    protect(&side, SESSION_ON_PEER_LOSS_CONTINUE);
    feed_simple(&side, SESSION_EVENT_LINK_DOWN);
    assert_state(&side, SESSION_PEER_LOST);
    assert_did_not(&side, SESSION_DO_RELEASE_ALL);
    assert_did(&side, SESSION_DO_ASK_GRANT);
    uint64_t term = find(&side, SESSION_DO_ASK_GRANT)->term;
    feed(&side, (struct session_event){.type = SESSION_EVENT_GRANT, .term = term, .ok = true});
    assert_did(&side, SESSION_DO_RELEASE_ALL);
    assert_state(&side, SESSION_CONNECTING);
}

static void test_a_primary_that_is_denied_the_grant_fences_itself(void **state)
{
    struct side side;
    (void)state;
    protect(&side, SESSION_ON_PEER_LOSS_CONTINUE);
    feed_simple(&side, SESSION_EVENT_LINK_DOWN);
    uint64_t term = find(&side, SESSION_DO_ASK_GRANT)->term;
    feed(&side, (struct session_event){.type = SESSION_EVENT_GRANT, .term = term, .ok = false});
    assert_did(&side, SESSION_DO_FENCE_GUEST);
    assert_did_not(&side, SESSION_DO_RELEASE_ALL);
}

static void test_hold_releases_nothing_while_the_standby_is_away(void **state)
{
    struct side side;
    (void)state;
    protect(&side, SESSION_ON_PEER_LOSS_HOLD);
    feed_simple(&side, SESSION_EVENT_LINK_DOWN);
    assert_state(&side, SESSION_PEER_LOST);
    for (unsigned i = 0; i < 100; i++) {
        side.now_ms += SILENCE_MS;
        feed_simple(&side, SESSION_EVENT_TICK);
        assert_did_not(&side, SESSION_DO_RELEASE_ALL);
        assert_did_not(&side, SESSION_DO_RELEASE);
    }
}

static void test_a_newer_term_fences_a_primary(void **state)
{
    struct side side;
    (void)state;
    protect(&side, SESSION_ON_PEER_LOSS_CONTINUE);
    feed(&side, (struct session_event){.type = SESSION_EVENT_FENCED, .term = PEERS_TERM});
    assert_did(&side, SESSION_DO_FENCE_GUEST);
}

static void test_a_secondary_without_a_whole_image_never_promotes(void **state)
{
    struct side side;
    (void)state;
    begin(&side, SESSION_SECONDARY, SESSION_ON_PEER_LOSS_CONTINUE);
    feed_simple(&side, SESSION_EVENT_START);
    feed(&side, (struct session_event){
                    .type = SESSION_EVENT_LINK_UP, .term = TERM_FIRST, .peer_role = SESSION_PRIMARY});
    for (unsigned i = 0; i < 100; i++) {
        side.now_ms += SILENCE_MS;
        feed_simple(&side, i == 3 ? SESSION_EVENT_LINK_DOWN : SESSION_EVENT_TICK);
        assert_did_not(&side, SESSION_DO_ASK_GRANT);
        assert_did_not(&side, SESSION_DO_PROMOTE);
    }
}

static void test_silence_makes_the_standby_ask_and_only_a_grant_makes_it_promote(void **state)
{
    struct side side;
    (void)state;
    stand_by(&side);
    side.now_ms += SILENCE_MS - 1;
    feed_simple(&side, SESSION_EVENT_TICK);
    assert_did_not(&side, SESSION_DO_ASK_GRANT);
    side.now_ms += 2;
    feed_simple(&side, SESSION_EVENT_TICK);
    assert_did(&side, SESSION_DO_ASK_GRANT);
    assert_did_not(&side, SESSION_DO_PROMOTE);
    uint64_t term = find(&side, SESSION_DO_ASK_GRANT)->term;
    assert_int_equal(term, PEERS_TERM);
    feed(&side, (struct session_event){.type = SESSION_EVENT_GRANT, .term = term, .ok = true});
    assert_did(&side, SESSION_DO_PROMOTE);
    assert_int_equal(find(&side, SESSION_DO_PROMOTE)->epoch, 1);
}

static void test_time_in_which_this_side_did_not_run_is_no_silence(void **state)
{
    struct side side;
    (void)state;
    stand_by(&side);
    side.now_ms += SILENCE_MS + 40;
    session_excuse_silence(&side.session, SILENCE_MS + 20, side.now_ms);
    feed_simple(&side, SESSION_EVENT_TICK);
    assert_did_not(&side, SESSION_DO_ASK_GRANT);
    side.now_ms += SILENCE_MS;
    feed_simple(&side, SESSION_EVENT_TICK);
    assert_did(&side, SESSION_DO_ASK_GRANT);
}

static void test_a_peer_that_lives_but_acks_nothing_is_lost(void **state)
{
    struct side side;
    (void)state;
    protect(&side, SESSION_ON_PEER_LOSS_CONTINUE);
    feed_epoch(&side, SESSION_EVENT_EPOCH_CUT, 2);
    /* However long the link takes to send it. */
    side.now_ms += 60000;
    feed_simple(&side, SESSION_EVENT_HEARTBEAT);
    feed_simple(&side, SESSION_EVENT_TICK);
    assert_state(&side, SESSION_PROTECTED);
    feed_epoch(&side, SESSION_EVENT_EPOCH_SENT, 2);
    uint64_t sent_ms = side.now_ms;
    for (; side.now_ms < sent_ms + ACK_TIMEOUT_MS; side.now_ms += SILENCE_MS / 2) {
        feed_simple(&side, SESSION_EVENT_HEARTBEAT);
        feed_simple(&side, SESSION_EVENT_TICK);
        assert_state(&side, SESSION_PROTECTED);
        assert_true(session_next_tick_ms(&side.session) <= sent_ms + ACK_TIMEOUT_MS);
    }
    feed_simple(&side, SESSION_EVENT_HEARTBEAT);
    feed_simple(&side, SESSION_EVENT_TICK);
    assert_state(&side, SESSION_PEER_LOST);
    assert_did_not(&side, SESSION_DO_RELEASE_ALL);
    assert_did(&side, SESSION_DO_ASK_GRANT);
}

static void test_acks_that_come_keep_a_peer(void **state)
{
    struct side side;
    (void)state;
    protect(&side, SESSION_ON_PEER_LOSS_CONTINUE);
    for (uint64_t epoch = 2; epoch < 20; epoch++) {
        feed_epoch(&side, SESSION_EVENT_EPOCH_CUT, epoch);
        feed_epoch(&side, SESSION_EVENT_EPOCH_SENT, epoch);
        side.now_ms += ACK_TIMEOUT_MS / 3;
        feed_simple(&side, SESSION_EVENT_HEARTBEAT);
        feed_simple(&side, SESSION_EVENT_TICK);
        assert_state(&side, SESSION_PROTECTED);
        if (epoch > 2)
            feed_epoch(&side, SESSION_EVENT_ACK, epoch - 1); /* always one behind, never none */
    }
}

static void test_a_secondary_to_which_no_primary_comes_ends(void **state)
{
    struct side side;
    (void)state;
    begin(&side, SESSION_SECONDARY, SESSION_ON_PEER_LOSS_CONTINUE);
    feed_simple(&side, SESSION_EVENT_START);
    side.now_ms = session_next_tick_ms(&side.session) - 1;
    feed_simple(&side, SESSION_EVENT_TICK);
    assert_state(&side, SESSION_LISTENING);
    side.now_ms++;
    feed_simple(&side, SESSION_EVENT_TICK);
    assert_did(&side, SESSION_DO_QUIT_HYPERVISOR);
    assert_state(&side, SESSION_ENDED);
}

static void test_a_standby_promotes_only_when_all_it_acked_is_applied(void **state)
{
    struct side side;
    (void)state;
    stand_by(&side);
    feed_epoch(&side, SESSION_EVENT_EPOCH_RECEIVED, 2);
    assert_did(&side, SESSION_DO_SEND_ACK);
    side.now_ms += SILENCE_MS + 1;
    feed_simple(&side, SESSION_EVENT_TICK);
    uint64_t term = find(&side, SESSION_DO_ASK_GRANT)->term;
    feed(&side, (struct session_event){.type = SESSION_EVENT_GRANT, .term = term, .ok = true});
    assert_did_not(&side, SESSION_DO_PROMOTE);
    feed_epoch(&side, SESSION_EVENT_EPOCH_APPLIED, 2);
    assert_did(&side, SESSION_DO_PROMOTE);
    assert_int_equal(find(&side, SESSION_DO_PROMOTE)->epoch, 2);
}

static void test_a_standby_that_asked_acks_nothing_more(void **state)
{
    struct side side;
    (void)state;
    stand_by(&side);
    side.now_ms += SILENCE_MS + 1;
    feed_simple(&side, SESSION_EVENT_TICK);
    assert_state(&side, SESSION_ASKING);
    feed_epoch(&side, SESSION_EVENT_EPOCH_RECEIVED, 2);
    assert_did_not(&side, SESSION_DO_SEND_ACK);
    assert_did_not(&side, SESSION_DO_APPLY);
}

static void test_an_epoch_out_of_order_is_not_acked(void **state)
{
    struct side side;
    (void)state;
    stand_by(&side);
    feed_epoch(&side, SESSION_EVENT_EPOCH_RECEIVED, 3);
    assert_did_not(&side, SESSION_DO_SEND_ACK);
    assert_did_not(&side, SESSION_DO_APPLY);
}

static void test_a_guest_that_powers_itself_off_ends_both_sides_without_a_takeover(void **state)
{
    struct side primary, standby;
    (void)state;
    protect(&primary, SESSION_ON_PEER_LOSS_CONTINUE);
    feed_simple(&primary, SESSION_EVENT_GUEST_SHUTDOWN);
    assert_did(&primary, SESSION_DO_SEND_GOODBYE);
    stand_by(&standby);
    feed(&standby, (struct session_event){.type = SESSION_EVENT_GOODBYE,
                                          .term = TERM_FIRST,
                                          .reason = find(&primary, SESSION_DO_SEND_GOODBYE)->reason});
    assert_did_not(&standby, SESSION_DO_ASK_GRANT);
    assert_did_not(&standby, SESSION_DO_PROMOTE);
    assert_did(&standby, SESSION_DO_END);
}

/* Up to the peer's order to promote. */
static void hand_over(struct side *primary)
{
    protect(primary, SESSION_ON_PEER_LOSS_CONTINUE);
    feed_simple(primary, SESSION_EVENT_FAILOVER_PLANNED);
    assert_did(primary, SESSION_DO_LAST_EPOCH);
    feed(primary,
         (struct session_event){.type = SESSION_EVENT_EPOCH_CUT, .term = TERM_FIRST, .epoch = 2, .ok = true});
    feed_epoch(primary, SESSION_EVENT_EPOCH_SENT, 2);
    feed_epoch(primary, SESSION_EVENT_ACK, 2);
    assert_did(primary, SESSION_DO_SEND_HANDOVER);
}

static void feed_heartbeat(struct side *side, uint64_t term, enum session_role peer_role)
{
    feed(side, (struct session_event){.type = SESSION_EVENT_HEARTBEAT, .term = term, .peer_role = peer_role});
}

/* Nothing is heard of the peer any more, and everybody is granted what it asks for. */
static void run_alone(struct side *side)
{
    while (side->session.state != SESSION_CONNECTING) {
        side->now_ms = session_next_tick_ms(&side->session);
        feed_simple(side, SESSION_EVENT_TICK);
        if (find(side, SESSION_DO_ASK_GRANT))
            feed(side, (struct session_event){.type = SESSION_EVENT_GRANT,
                                              .term = find(side, SESSION_DO_ASK_GRANT)->term,
                                              .ok = true});
        if (find(side, SESSION_DO_PROMOTE))
            feed(side, (struct session_event){
                           .type = SESSION_EVENT_PROMOTED, .term = side->session.term, .ok = true});
    }
}

static void test_a_guest_handed_over_is_given_up_only_once_it_runs_there(void **state)
{
    struct side side;
    (void)state;
    hand_over(&side);
    feed_heartbeat(&side, PEERS_TERM, SESSION_SECONDARY); /* granted, and still promoting */
    assert_state(&side, SESSION_HANDING_OVER);
    assert_did_not(&side, SESSION_DO_QUIT_HYPERVISOR);
    feed_heartbeat(&side, PEERS_TERM, SESSION_PRIMARY);
    assert_did(&side, SESSION_DO_QUIT_HYPERVISOR);
    assert_int_equal(find(&side, SESSION_DO_END)->reason, SESSION_END_HANDED_OVER);
}

static void test_a_guest_that_the_peer_could_not_start_is_taken_back(void **state)
{
    struct side primary, secondary;
    (void)state;
    stand_by(&secondary);
    feed(&secondary, (struct session_event){.type = SESSION_EVENT_HANDOVER, .term = TERM_FIRST, .epoch = 1});
    feed(&secondary, (struct session_event){.type = SESSION_EVENT_GRANT, .term = PEERS_TERM, .ok = true});
    assert_did(&secondary, SESSION_DO_PROMOTE);
    feed(&secondary, (struct session_event){.type = SESSION_EVENT_PROMOTED, .term = PEERS_TERM});
    const struct session_action *goodbye = find(&secondary, SESSION_DO_SEND_GOODBYE);
    assert_non_null(goodbye);
    assert_true(goodbye < find(&secondary, SESSION_DO_END));

    hand_over(&primary);
    feed_heartbeat(&primary, PEERS_TERM, SESSION_SECONDARY);
    feed(&primary, (struct session_event){
                       .type = SESSION_EVENT_GOODBYE, .term = goodbye->term, .reason = goodbye->reason});
    /* The term after the first was the peer's. */
    assert_int_equal(find(&primary, SESSION_DO_ASK_GRANT)->term, term_next(PEERS_TERM, 0));
    assert_did_not(&primary, SESSION_DO_RESUME_GUEST);
    feed(&primary,
         (struct session_event){.type = SESSION_EVENT_GRANT, .term = term_next(PEERS_TERM, 0), .ok = true});
    assert_did(&primary, SESSION_DO_RESUME_GUEST);
    assert_did(&primary, SESSION_DO_RELEASE_ALL);
    assert_state(&primary, SESSION_CONNECTING);
}

/* A cable out and in again: both had asked for the term after the first. */
static void test_of_two_hosts_that_went_on_alone_exactly_one_is_fenced(void **state)
{
    struct side side[2];
    uint64_t term[2];
    (void)state;
    protect(&side[0], SESSION_ON_PEER_LOSS_CONTINUE);
    stand_by(&side[1]);
    for (int i = 0; i < 2; i++) {
        run_alone(&side[i]);
        term[i] = side[i].session.term;
    }
    assert_int_not_equal(term[0], term[1]);
    for (int i = 0; i < 2; i++)
        feed_heartbeat(&side[i], term[1 - i], SESSION_PRIMARY);
    assert_did(&side[term[0] < term[1] ? 0 : 1], SESSION_DO_FENCE_GUEST);
    assert_did_not(&side[term[0] < term[1] ? 1 : 0], SESSION_DO_FENCE_GUEST);
}

static void test_every_state_and_event_has_a_name(void **state)
{
    (void)state;
    for (int i = 0; i < SESSION_NSTATES; i++)
        assert_non_null(session_state_name((enum session_state)i));
    for (int i = 0; i < SESSION_NEVENTS; i++)
        assert_non_null(session_event_name((enum session_event_type)i));
    for (int i = 0; i < SESSION_NACTIONS; i++)
        assert_non_null(session_action_name((enum session_action_type)i));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_output_is_held_before_the_first_epoch_is_cut),
        cmocka_unit_test(test_an_ack_releases_its_epoch_and_no_later_one),
        cmocka_unit_test(test_an_ack_of_an_epoch_that_was_never_cut_releases_nothing),
        cmocka_unit_test(test_a_lost_link_releases_nothing_before_the_grant),
        cmocka_unit_test(test_a_primary_that_is_denied_the_grant_fences_itself),
        cmocka_unit_test(test_hold_releases_nothing_while_the_standby_is_away),
        cmocka_unit_test(test_a_newer_term_fences_a_primary),
        cmocka_unit_test(test_a_secondary_without_a_whole_image_never_promotes),
        cmocka_unit_test(test_silence_makes_the_standby_ask_and_only_a_grant_makes_it_promote),
        cmocka_unit_test(test_time_in_which_this_side_did_not_run_is_no_silence),
        cmocka_unit_test(test_a_peer_that_lives_but_acks_nothing_is_lost),
        cmocka_unit_test(test_acks_that_come_keep_a_peer),
        cmocka_unit_test(test_a_secondary_to_which_no_primary_comes_ends),
        cmocka_unit_test(test_a_standby_promotes_only_when_all_it_acked_is_applied),
        cmocka_unit_test(test_a_standby_that_asked_acks_nothing_more),
        cmocka_unit_test(test_an_epoch_out_of_order_is_not_acked),
        cmocka_unit_test(test_a_guest_that_powers_itself_off_ends_both_sides_without_a_takeover),
        cmocka_unit_test(test_a_guest_handed_over_is_given_up_only_once_it_runs_there),
        cmocka_unit_test(test_a_guest_that_the_peer_could_not_start_is_taken_back),
        cmocka_unit_test(test_of_two_hosts_that_went_on_alone_exactly_one_is_fenced),
        cmocka_unit_test(test_every_state_and_event_has_a_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
