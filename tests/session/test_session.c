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
#include "failover/transitions.h"
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

/* A standby whose QEMU has yet to be tried. */
static void stand_by_untried(struct side *side)
{
    stand_by(side);
    side->session.untried = true;
}

static void feed_untried_ack(struct side *side, uint64_t epoch)
{
    feed(side, (struct session_event){
                   .type = SESSION_EVENT_ACK, .term = side->session.term, .epoch = epoch, .untried = true});
}

static void feed_tried(struct side *side, bool ok)
{
    feed(side, (struct session_event){.type = SESSION_EVENT_TRIED, .ok = ok});
}

static void feed_heartbeat(struct side *side, uint64_t term, enum session_role peer_role)
{
    feed(side, (struct session_event){.type = SESSION_EVENT_HEARTBEAT, .term = term, .peer_role = peer_role});
}

/* The peer answers the query that this side has just asked. */
static void feed_answer(struct side *side, enum session_standing standing)
{
    feed(side, (struct session_event){.type = SESSION_EVENT_HEARTBEAT,
                                      .term = side->session.term,
                                      .peer_role = side->session.role == SESSION_PRIMARY ? SESSION_SECONDARY
                                                                                         : SESSION_PRIMARY,
                                      .standing = standing,
                                      .answer = side->session.query});
}

/* Time passes, with the ticks that the session wants, and nothing is heard. */
static void wait_in_silence(struct side *side, uint64_t ms)
{
    for (uint64_t until = side->now_ms + ms; side->now_ms < until;) {
        uint64_t next = session_next_tick_ms(&side->session);
        side->now_ms = next < until ? (next > side->now_ms ? next : side->now_ms + 1) : until;
        feed_simple(side, SESSION_EVENT_TICK);
        if (find(side, SESSION_DO_ASK_GRANT))
            return;
    }
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
    assert_did(&side, SESSION_DO_ASK_PEER);
    assert_did_not(&side, SESSION_DO_ASK_GRANT);
    feed_answer(&side, SESSION_HAS_LET_GO);
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
    wait_in_silence(&side, SILENCE_MS);
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
    wait_in_silence(&side, SILENCE_MS - 1);
    assert_did_not(&side, SESSION_DO_ASK_GRANT);
    wait_in_silence(&side, 1); /* not a moment later than without a question */
    assert_did(&side, SESSION_DO_ASK_GRANT);
    assert_did_not(&side, SESSION_DO_PROMOTE);
    uint64_t term = find(&side, SESSION_DO_ASK_GRANT)->term;
    assert_int_equal(term, PEERS_TERM);
    feed(&side, (struct session_event){.type = SESSION_EVENT_GRANT, .term = term, .ok = true});
    assert_did(&side, SESSION_DO_PROMOTE);
    assert_int_equal(find(&side, SESSION_DO_PROMOTE)->epoch, 1);
}

static void test_whoever_misses_a_beat_asks_and_an_answer_ends_the_matter(void **state)
{
    struct side side;
    struct session_beat beat;
    (void)state;
    stand_by(&side);
    side.now_ms = session_next_tick_ms(&side.session);
    assert_true(side.now_ms < 1000 + SILENCE_MS / 2);
    feed_simple(&side, SESSION_EVENT_TICK);
    assert_did(&side, SESSION_DO_ASK_PEER);
    session_beat(&side.session, side.now_ms, &beat);
    assert_int_equal(beat.query, find(&side, SESSION_DO_ASK_PEER)->epoch);
    assert_int_equal(beat.standing, SESSION_MAY_TAKE_OVER);
    side.now_ms += SILENCE_MS / 2;
    feed_answer(&side, SESSION_RUNS_GUEST);
    wait_in_silence(&side, SILENCE_MS - 1);
    assert_did_not(&side, SESSION_DO_ASK_GRANT);
    assert_state(&side, SESSION_STANDBY);
}

/* Its timer is far too late, and nobody told it that it stood still: it has asked nobody yet. */
static void test_a_tick_that_comes_late_asks_before_it_concludes(void **state)
{
    struct side side;
    (void)state;
    stand_by(&side);
    side.now_ms += 100 * SILENCE_MS;
    feed_simple(&side, SESSION_EVENT_TICK);
    assert_did(&side, SESSION_DO_ASK_PEER);
    assert_did_not(&side, SESSION_DO_ASK_GRANT);
    feed_heartbeat(&side, TERM_FIRST, SESSION_PRIMARY);
    assert_state(&side, SESSION_STANDBY);
}

static void test_a_query_is_answered_at_once_in_every_state(void **state)
{
    struct side side[2];
    (void)state;
    protect(&side[0], SESSION_ON_PEER_LOSS_CONTINUE);
    stand_by(&side[1]);
    for (int i = 0; i < 2; i++) {
        feed(&side[i], (struct session_event){.type = SESSION_EVENT_HEARTBEAT,
                                              .term = TERM_FIRST,
                                              .peer_role = i ? SESSION_PRIMARY : SESSION_SECONDARY,
                                              .standing = i ? SESSION_RUNS_GUEST : SESSION_MAY_TAKE_OVER,
                                              .query = 77});
        struct session_beat beat;
        session_beat(&side[i].session, side[i].now_ms, &beat);
        assert_int_equal(find(&side[i], SESSION_DO_SEND_ANSWER)->epoch, 77);
        assert_int_equal(beat.answer, 77);
        assert_int_equal(beat.standing, i ? SESSION_MAY_TAKE_OVER : SESSION_RUNS_GUEST);
    }
}

static void test_a_primary_whose_peer_lives_waits_until_it_has_let_go(void **state)
{
    struct side side;
    struct session_beat beat;
    (void)state;
    protect(&side, SESSION_ON_PEER_LOSS_CONTINUE);
    feed_simple(&side, SESSION_EVENT_LINK_DOWN);
    session_beat(&side.session, side.now_ms, &beat);
    assert_int_equal(beat.standing, SESSION_GOES_ALONE);
    for (unsigned i = 0; i < 10; i++) {
        side.now_ms += SILENCE_MS / 4;
        feed(&side, (struct session_event){.type = SESSION_EVENT_HEARTBEAT,
                                           .term = TERM_FIRST,
                                           .peer_role = SESSION_SECONDARY,
                                           .standing = SESSION_MAY_TAKE_OVER,
                                           .answer = beat.query});
        assert_did_not(&side, SESSION_DO_ASK_GRANT);
        feed_simple(&side, SESSION_EVENT_TICK);
        assert_did_not(&side, SESSION_DO_ASK_GRANT);
    }
    /* What it said before it was asked is no answer. */
    feed(&side, (struct session_event){.type = SESSION_EVENT_HEARTBEAT,
                                       .term = TERM_FIRST,
                                       .peer_role = SESSION_SECONDARY,
                                       .standing = SESSION_HAS_LET_GO,
                                       .answer = beat.query - 1});
    assert_did_not(&side, SESSION_DO_ASK_GRANT);
    /* Nor is an answer to what was never asked. */
    feed(&side, (struct session_event){.type = SESSION_EVENT_HEARTBEAT,
                                       .term = TERM_FIRST,
                                       .peer_role = SESSION_SECONDARY,
                                       .standing = SESSION_HAS_LET_GO,
                                       .answer = UINT64_MAX});
    assert_did_not(&side, SESSION_DO_ASK_GRANT);
    feed_answer(&side, SESSION_HAS_LET_GO);
    assert_did(&side, SESSION_DO_ASK_GRANT);
}

/* The term with this counter, of the host that did not begin the pair. */
static uint64_t peers_term(uint64_t count)
{
    return count << 1 | 1;
}

static void test_a_named_term_is_believed_within_a_window(void **state)
{
    const uint64_t known = peers_term(1000), edge = 1000 + TERM_WINDOW;
    (void)state;
    assert_true(term_is_believable(known, 0));
    assert_true(term_is_believable(known, known));
    assert_true(term_is_believable(known, known - 1));
    assert_true(term_is_believable(known, TERM_FIRST));
    assert_true(term_is_believable(known, term_next(known, 0)));
    assert_true(term_is_believable(known, peers_term(edge)));
    assert_false(term_is_believable(known, peers_term(edge + 1) - 1));
    assert_false(term_is_believable(known, peers_term(2000)));
    assert_false(term_is_believable(known, UINT64_MAX));
    /* Whoever knows nothing has nothing to compare with, and no pair counts that far. */
    assert_true(term_is_believable(0, peers_term(123456)));
    assert_true(term_is_believable(0, peers_term(TERM_COUNT_MAX)));
    assert_false(term_is_believable(0, peers_term(TERM_COUNT_MAX + 1)));
    assert_false(term_is_believable(UINT64_MAX, UINT64_MAX));
    assert_true(term_next(peers_term(TERM_COUNT_MAX), 0) > peers_term(TERM_COUNT_MAX));
}

/* Messages by which a peer names a term, and one that is too far ahead. */
static void test_no_message_moves_a_primary_s_term_by_a_thousand(void **state)
{
    static const enum session_event_type types[] = {SESSION_EVENT_HEARTBEAT, SESSION_EVENT_FENCED,
                                                    SESSION_EVENT_GOODBYE, SESSION_EVENT_HANDOVER_DONE};
    static const uint64_t counts[] = {1 + TERM_WINDOW + 1, 1001, UINT64_MAX >> 1};
    enum { NTYPES = sizeof types / sizeof types[0], NCOUNTS = sizeof counts / sizeof counts[0] };
    (void)state;
    for (size_t i = 0; i < NTYPES * NCOUNTS; i++) {
        struct side side;
        protect(&side, SESSION_ON_PEER_LOSS_CONTINUE);
        feed(&side, (struct session_event){.type = types[i % NTYPES],
                                           .term = peers_term(counts[i / NTYPES]),
                                           .peer_role = SESSION_PRIMARY});
        assert_state(&side, SESSION_PROTECTED);
        assert_int_equal(side.did.n, 0);
        assert_int_equal(side.session.seen_term, 0);
    }
    struct side side;
    protect(&side, SESSION_ON_PEER_LOSS_CONTINUE);
    feed(&side, (struct session_event){.type = SESSION_EVENT_HEARTBEAT,
                                       .term = peers_term(1 + TERM_WINDOW),
                                       .peer_role = SESSION_PRIMARY});
    assert_did(&side, SESSION_DO_FENCE_GUEST);
}

static void test_a_hello_with_a_term_of_no_pair_makes_no_link(void **state)
{
    struct side side;
    (void)state;
    begin(&side, SESSION_SECONDARY, SESSION_ON_PEER_LOSS_CONTINUE);
    feed_simple(&side, SESSION_EVENT_START);
    feed(&side, (struct session_event){
                    .type = SESSION_EVENT_LINK_UP, .term = UINT64_MAX - 1, .peer_role = SESSION_PRIMARY});
    assert_state(&side, SESSION_LISTENING);
    assert_did(&side, SESSION_DO_DISCONNECT);
    assert_did(&side, SESSION_DO_CONNECT);
    assert_int_equal(side.session.term, TERM_FIRST);
    begin(&side, SESSION_PRIMARY, SESSION_ON_PEER_LOSS_CONTINUE);
    feed_simple(&side, SESSION_EVENT_START);
    feed(&side, (struct session_event){
                    .type = SESSION_EVENT_LINK_UP, .term = UINT64_MAX, .peer_role = SESSION_SECONDARY});
    assert_state(&side, SESSION_CONNECTING);
    assert_did_not(&side, SESSION_DO_FENCE_GUEST);
    assert_did(&side, SESSION_DO_DISCONNECT);
}

/* A host that was away for long: its own earlier process had a newer term than its primary has now. */
static void test_the_window_begins_at_the_newest_term_that_this_host_used(void **state)
{
    struct side side;
    (void)state;
    begin(&side, SESSION_SECONDARY, SESSION_ON_PEER_LOSS_CONTINUE);
    side.session.config.used_term = peers_term(500);
    feed(&side, (struct session_event){.type = SESSION_EVENT_LINK_UP,
                                       .term = term_next(peers_term(500 + TERM_WINDOW - 1), 0),
                                       .peer_role = SESSION_PRIMARY});
    assert_state(&side, SESSION_FOLLOWING);
}

static void ask_to_let_go(struct side *side)
{
    feed(side, (struct session_event){.type = SESSION_EVENT_HEARTBEAT,
                                      .term = TERM_FIRST,
                                      .peer_role = SESSION_PRIMARY,
                                      .standing = SESSION_GOES_ALONE,
                                      .query = 5});
}

static void test_a_standby_that_let_go_never_takes_over_in_that_term(void **state)
{
    struct side side;
    struct session_beat beat;
    (void)state;
    stand_by(&side);
    ask_to_let_go(&side);
    assert_state(&side, SESSION_LISTENING);
    assert_true(find(&side, SESSION_DO_SEND_ANSWER) < find(&side, SESSION_DO_DISCONNECT));
    session_beat(&side.session, side.now_ms, &beat);
    assert_int_equal(beat.standing, SESSION_HAS_LET_GO);
    /* What the old connection still brings makes no image. */
    feed(&side, (struct session_event){
                    .type = SESSION_EVENT_LINK_UP, .term = TERM_FIRST, .peer_role = SESSION_PRIMARY});
    feed_epoch(&side, SESSION_EVENT_EPOCH_RECEIVED, 2);
    assert_did_not(&side, SESSION_DO_SEND_ACK);
    wait_in_silence(&side, 10 * SILENCE_MS);
    assert_did_not(&side, SESSION_DO_ASK_GRANT);
    /* In its new term the primary is welcome. */
    feed(&side, (struct session_event){.type = SESSION_EVENT_LINK_UP,
                                       .term = term_next(TERM_FIRST, 0),
                                       .peer_role = SESSION_PRIMARY});
    assert_state(&side, SESSION_FOLLOWING);
}

/*
 * A link was made, and its primary lost this side before it was heard of here. What a listening side says or
 * hears of a newer term holds for the link of an older one that comes to its ears later.
 */
static void test_a_listening_side_does_not_follow_a_link_that_is_history(void **state)
{
    const uint64_t old = term_next(TERM_FIRST, 0), newer = term_next(old, 0);
    (void)state;
    for (int told = 0; told < 2; told++) {
        struct side side;
        begin(&side, SESSION_SECONDARY, SESSION_ON_PEER_LOSS_CONTINUE);
        assert_state(&side, SESSION_LISTENING);
        /* Told: it asks to run alone, and is answered HAS_LET_GO. Otherwise: it runs alone by now. */
        feed(&side, (struct session_event){.type = SESSION_EVENT_HEARTBEAT,
                                           .term = told ? old : newer,
                                           .peer_role = SESSION_PRIMARY,
                                           .standing = told ? SESSION_GOES_ALONE : SESSION_RUNS_GUEST,
                                           .query = told ? 7 : 0});
        feed(&side, (struct session_event){
                        .type = SESSION_EVENT_LINK_UP, .term = old, .peer_role = SESSION_PRIMARY});
        assert_did(&side, SESSION_DO_DISCONNECT);
        assert_state(&side, SESSION_LISTENING);
        feed(&side, (struct session_event){
                        .type = SESSION_EVENT_LINK_UP, .term = newer, .peer_role = SESSION_PRIMARY});
        assert_state(&side, SESSION_FOLLOWING);
    }
}

static void stall(struct side *side, uint64_t ms)
{
    side->now_ms += ms;
    feed(side, (struct session_event){.type = SESSION_EVENT_STALLED, .stalled_ms = ms});
}

/* Every process of the host was stopped, and the standby has taken over meanwhile. */
static void test_a_primary_that_wakes_to_a_closed_link_runs_alone_only_if_the_peer_is_silent(void **state)
{
    struct side side;
    (void)state;
    protect(&side, SESSION_ON_PEER_LOSS_CONTINUE);
    side.now_ms += SILENCE_MS;
    feed_simple(&side, SESSION_EVENT_LINK_DOWN); /* read before anybody knows of the stall */
    assert_did_not(&side, SESSION_DO_ASK_GRANT);
    feed(&side, (struct session_event){.type = SESSION_EVENT_STALLED, .stalled_ms = SILENCE_MS});
    assert_did(&side, SESSION_DO_ASK_PEER);
    wait_in_silence(&side, SILENCE_MS - 1);
    assert_did_not(&side, SESSION_DO_ASK_GRANT);
    assert_did_not(&side, SESSION_DO_RELEASE_ALL);
    struct side other = side;
    feed(&side, (struct session_event){.type = SESSION_EVENT_HEARTBEAT,
                                       .term = PEERS_TERM,
                                       .peer_role = SESSION_SECONDARY,
                                       .standing = SESSION_TAKES_OVER});
    assert_did(&side, SESSION_DO_FENCE_GUEST);
    wait_in_silence(&other, SILENCE_MS);
    assert_did(&other, SESSION_DO_ASK_GRANT);
}

static void test_time_in_which_this_side_did_not_run_is_no_silence(void **state)
{
    struct side side;
    (void)state;
    stand_by(&side);
    stall(&side, SILENCE_MS + 20);
    assert_did(&side, SESSION_DO_ASK_PEER);
    feed_simple(&side, SESSION_EVENT_TICK);
    assert_did_not(&side, SESSION_DO_ASK_GRANT);
    wait_in_silence(&side, SILENCE_MS);
    assert_did(&side, SESSION_DO_ASK_GRANT);
    /* A short one takes nothing from the silence either. */
    stand_by(&side);
    side.now_ms += 5;
    stall(&side, SILENCE_MS / 2);
    wait_in_silence(&side, SILENCE_MS - 6);
    assert_did_not(&side, SESSION_DO_ASK_GRANT);
    wait_in_silence(&side, 1);
    assert_did(&side, SESSION_DO_ASK_GRANT);
}

/* Beats by both networks, by the second one, or by none. */
static void beat_by(struct side *side, bool first, bool second, bool deaf)
{
    for (int path = 0; path < 2; path++) {
        if (path == 0 ? first : second)
            feed(side, (struct session_event){.type = SESSION_EVENT_HEARTBEAT,
                                              .term = TERM_FIRST,
                                              .peer_role = SESSION_SECONDARY,
                                              .standing = SESSION_MAY_TAKE_OVER,
                                              .deaf = deaf,
                                              .by_link = path == 0});
    }
}

/* Milliseconds until the primary gives its peer up, of which it hears so much. */
static uint64_t given_up_after(bool first, bool deaf, uint64_t limit_ms)
{
    struct side side;
    protect(&side, SESSION_ON_PEER_LOSS_CONTINUE);
    side.session.config.other_paths = true;
    feed_epoch(&side, SESSION_EVENT_EPOCH_CUT, 2);
    feed_epoch(&side, SESSION_EVENT_EPOCH_SENT, 2);
    uint64_t began = side.now_ms;
    for (; side.now_ms < began + limit_ms && side.session.state == SESSION_PROTECTED; side.now_ms += 5) {
        beat_by(&side, first, true, deaf);
        feed_simple(&side, SESSION_EVENT_TICK);
    }
    return side.now_ms - began;
}

static void test_a_checkpoint_network_that_is_cut_is_noticed_while_hearts_beat_by_another(void **state)
{
    (void)state;
    assert_true(given_up_after(false, false, 3 * SILENCE_MS) <= 2 * SILENCE_MS + 10);
    assert_true(given_up_after(true, true, 3 * SILENCE_MS) <= 2 * SILENCE_MS + 10); /* the other way */
}

static void test_a_slow_standby_is_not_taken_for_a_cut_network(void **state)
{
    (void)state;
    assert_true(given_up_after(true, false, ACK_TIMEOUT_MS - 10) >= ACK_TIMEOUT_MS - 10);
}

static void test_an_epoch_that_becomes_durable_while_the_standby_asks_is_not_acked(void **state)
{
    struct side side;
    (void)state;
    stand_by(&side);
    side.session.config.durable_acks = true;
    feed_epoch(&side, SESSION_EVENT_EPOCH_RECEIVED, 2);
    assert_did_not(&side, SESSION_DO_SEND_ACK);
    struct side other = side;
    feed_epoch(&side, SESSION_EVENT_EPOCH_DURABLE, 2);
    assert_int_equal(find(&side, SESSION_DO_SEND_ACK)->epoch, 2);
    feed_simple(&other, SESSION_EVENT_FAILOVER_FORCE);
    assert_state(&other, SESSION_ASKING);
    feed_epoch(&other, SESSION_EVENT_EPOCH_DURABLE, 2);
    assert_did_not(&other, SESSION_DO_SEND_ACK);
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
    assert_did(&side, SESSION_DO_ASK_PEER);
    assert_did_not(&side, SESSION_DO_ASK_GRANT);
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
    wait_in_silence(&side, SILENCE_MS);
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
    wait_in_silence(&side, SILENCE_MS);
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

/* ---- what a user may rely on who ends a VM while its peer may take it over ---- */

static void test_a_stop_that_the_peer_confirms_ends_the_vm(void **state)
{
    struct side side;
    (void)state;
    protect(&side, SESSION_ON_PEER_LOSS_CONTINUE);
    feed_simple(&side, SESSION_EVENT_STOP);
    assert_state(&side, SESSION_LEAVING);
    feed(&side, (struct session_event){
                    .type = SESSION_EVENT_GOODBYE, .term = TERM_FIRST, .reason = SESSION_END_STOPPED});
    assert_did(&side, SESSION_DO_RELEASE_ALL);
    assert_int_equal(find(&side, SESSION_DO_END)->reason, SESSION_END_STOPPED);
}

static void test_a_stop_that_meets_a_takeover_says_so(void **state)
{
    const enum session_event_type tells[] = {SESSION_EVENT_HEARTBEAT, SESSION_EVENT_FENCED};
    const enum session_event_type ends[] = {SESSION_EVENT_STOP, SESSION_EVENT_GUEST_SHUTDOWN};
    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        struct side side;
        protect(&side, SESSION_ON_PEER_LOSS_CONTINUE);
        feed_simple(&side, ends[i / 2]);
        feed_simple(&side, SESSION_EVENT_LINK_DOWN); /* the peer has promoted, and closes it */
        assert_state(&side, SESSION_LEAVING);
        feed(&side, (struct session_event){.type = tells[i % 2],
                                           .term = term_next(TERM_FIRST, 1),
                                           .peer_role = SESSION_PRIMARY,
                                           .standing = SESSION_RUNS_GUEST});
        assert_did_not(&side, SESSION_DO_RELEASE_ALL);
        assert_did(&side, SESSION_DO_DROP_OUTPUT);
        assert_int_equal(find(&side, SESSION_DO_END)->reason, SESSION_END_FENCED);
    }
}

static void test_a_stop_that_a_fit_peer_does_not_answer_is_not_called_done(void **state)
{
    (void)state;
    for (int linked = 0; linked < 2; linked++) {
        struct side side;
        protect(&side, SESSION_ON_PEER_LOSS_HOLD);
        if (!linked)
            feed_simple(&side, SESSION_EVENT_LINK_DOWN);
        feed_simple(&side, SESSION_EVENT_STOP);
        assert_state(&side, SESSION_LEAVING);
        if (!linked) /* and no new link: what it would synchronise is about to end */
            assert_did(&side, SESSION_DO_DISCONNECT);
        side.now_ms = session_next_tick_ms(&side.session);
        feed_simple(&side, SESSION_EVENT_TICK);
        assert_did(&side, SESSION_DO_DROP_OUTPUT);
        assert_int_equal(find(&side, SESSION_DO_END)->reason, SESSION_END_UNCONFIRMED);
        assert_string_equal(session_end_reason_name(SESSION_END_UNCONFIRMED), "unconfirmed");
    }
}

/* Nobody else has a whole image: nobody has to be waited for. */
static void test_a_stop_of_an_unprotected_guest_is_done_at_once(void **state)
{
    struct side side;
    (void)state;
    begin(&side, SESSION_PRIMARY, SESSION_ON_PEER_LOSS_CONTINUE);
    feed_simple(&side, SESSION_EVENT_STOP);
    assert_int_equal(find(&side, SESSION_DO_END)->reason, SESSION_END_STOPPED);
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
    assert_true(session_peer_takes_back(&secondary.session));
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

/* It was told to go on, and what became of that is not known. */
static void test_a_broken_handover_asks_the_peer_and_gives_the_guest_up_only_to_one_that_runs_it(void **state)
{
    struct side side;
    (void)state;
    hand_over(&side);
    feed_simple(&side, SESSION_EVENT_LINK_DOWN);
    assert_state(&side, SESSION_HANDOVER_UNSURE);
    assert_did(&side, SESSION_DO_ASK_PEER);
    assert_did_not(&side, SESSION_DO_ASK_GRANT);
    struct side other = side;
    feed_heartbeat(&side, PEERS_TERM, SESSION_SECONDARY);
    assert_state(&side, SESSION_HANDOVER_UNSURE);
    feed_heartbeat(&side, PEERS_TERM, SESSION_PRIMARY);
    assert_int_equal(find(&side, SESSION_DO_END)->reason, SESSION_END_HANDED_OVER);
    feed_answer(&other, SESSION_HAS_LET_GO);
    assert_did(&other, SESSION_DO_ASK_GRANT);
}

#define RUN 77

static const struct session_hello first_of_run = {.next = {.run = RUN, .number = 1}};

static uint64_t newest(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* In the newest term that this side knows. */
static void feed_link_up(struct side *side, enum session_role peer_role, struct session_hello said,
                         struct session_hello heard)
{
    feed(side, (struct session_event){.type = SESSION_EVENT_LINK_UP,
                                      .term = newest(side->session.term, side->session.primary_term),
                                      .peer_role = peer_role,
                                      .said = said,
                                      .heard = heard});
}

static struct session_hello hello_of(const struct side *side)
{
    struct session_hello hello;
    session_hello(&side->session, &hello);
    return hello;
}

/* A primary of run RUN whose standby has the image 1 of it, and whose link has gone: it went on alone. */
static void go_alone(struct side *side, bool acked)
{
    begin(side, SESSION_PRIMARY, SESSION_ON_PEER_LOSS_CONTINUE);
    side->session.config.run = RUN;
    feed_simple(side, SESSION_EVENT_START);
    feed_link_up(side, SESSION_SECONDARY, hello_of(side), (struct session_hello){0});
    assert_did(side, SESSION_DO_START_PRECOPY);
    feed_simple(side, SESSION_EVENT_SYNCHRONISED);
    feed_epoch(side, SESSION_EVENT_EPOCH_CUT, 1);
    feed_epoch(side, SESSION_EVENT_EPOCH_SENT, 1);
    if (acked)
        feed_epoch(side, SESSION_EVENT_ACK, 1);
    feed_epoch(side, SESSION_EVENT_EPOCH_CUT, 2);
    feed_simple(side, SESSION_EVENT_LINK_DOWN);
    feed_answer(side, SESSION_HAS_LET_GO);
    const struct session_action *asks = find(side, SESSION_DO_ASK_GRANT);
    assert_non_null(asks);
    feed(side, (struct session_event){.type = SESSION_EVENT_GRANT, .term = asks->term, .ok = true});
    assert_state(side, SESSION_CONNECTING);
}

/* A standby with the image 1 of RUN, whose primary went on alone in a newer term. */
static void be_left(struct side *side)
{
    begin(side, SESSION_SECONDARY, SESSION_ON_PEER_LOSS_CONTINUE);
    feed_simple(side, SESSION_EVENT_START);
    feed_link_up(side, SESSION_PRIMARY, (struct session_hello){0}, first_of_run);
    assert_did(side, SESSION_DO_DISCARD_IMAGE);
    feed_epoch(side, SESSION_EVENT_EPOCH_RECEIVED, 1);
    feed(side, (struct session_event){.type = SESSION_EVENT_HEARTBEAT,
                                      .term = side->session.term + 2,
                                      .peer_role = SESSION_PRIMARY});
    assert_state(side, SESSION_LISTENING);
}

static void test_a_primary_whose_link_returns_sends_what_the_kept_image_lacks(void **state)
{
    (void)state;
    struct side side;
    go_alone(&side, true);
    struct session_hello ours = hello_of(&side);
    assert_int_equal(ours.origin.run, RUN);
    assert_int_equal(ours.origin.number, 1);
    feed_link_up(&side, SESSION_SECONDARY, ours, (struct session_hello){.origin = ours.origin});
    assert_did_not(&side, SESSION_DO_START_PRECOPY);
    assert_did(&side, SESSION_DO_START_RESYNC);
    assert_int_equal(find(&side, SESSION_DO_START_RESYNC)->epoch, 1);
    assert_state(&side, SESSION_SYNCHRONISING);
    /* And again, if that link breaks before it is done. */
    feed_simple(&side, SESSION_EVENT_LINK_DOWN);
    feed_link_up(&side, SESSION_SECONDARY, ours, (struct session_hello){.origin = ours.origin});
    assert_did(&side, SESSION_DO_START_RESYNC);
}

static void test_a_standby_keeps_its_image_only_for_the_run_that_it_stems_from(void **state)
{
    (void)state;
    struct side side;
    be_left(&side);
    struct session_hello ours = hello_of(&side);
    feed_link_up(&side, SESSION_PRIMARY, ours,
                 (struct session_hello){.origin = ours.origin, .next = {.run = RUN, .number = 2}});
    assert_did(&side, SESSION_DO_KEEP_IMAGE);
    assert_did_not(&side, SESSION_DO_DISCARD_IMAGE);
    assert_state(&side, SESSION_FOLLOWING);
    const struct session_hello others[] = {
        {.origin = {.run = RUN + 1, .number = 1}, .next = {.run = RUN + 1, .number = 2}}, /* another guest */
        {.origin = {.run = RUN, .number = 2}, .next = {.run = RUN, .number = 3}},         /* another image */
        {.next = {.run = RUN, .number = 2}}, /* it does not know what the image lacks */
    };
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        be_left(&side);
        feed_link_up(&side, SESSION_PRIMARY, ours, others[i]);
        assert_did(&side, SESSION_DO_DISCARD_IMAGE);
        assert_did_not(&side, SESSION_DO_KEEP_IMAGE);
        assert_int_equal(hello_of(&side).origin.number, 0); /* until an epoch is whole */
        feed_epoch(&side, SESSION_EVENT_EPOCH_RECEIVED, 9);
        assert_int_equal(hello_of(&side).origin.number, others[i].next.number);
    }
}

static void test_a_primary_synchronises_a_new_standby_in_full(void **state)
{
    (void)state;
    struct side side;
    go_alone(&side, true);
    feed_link_up(&side, SESSION_SECONDARY, hello_of(&side), (struct session_hello){0});
    assert_did(&side, SESSION_DO_START_PRECOPY);
    assert_int_equal(hello_of(&side).origin.number, 0);
}

static void test_an_image_that_was_never_whole_is_not_brought_up_to_date(void **state)
{
    (void)state;
    struct side side;
    go_alone(&side, false);
    assert_int_equal(hello_of(&side).origin.number, 0);
}

static void test_a_standby_that_is_being_brought_up_to_date_does_not_promote(void **state)
{
    (void)state;
    struct side side;
    be_left(&side);
    struct session_hello ours = hello_of(&side);
    side.now_ms += 100 * SILENCE_MS;
    feed_simple(&side, SESSION_EVENT_TICK);
    assert_did_not(&side, SESSION_DO_ASK_GRANT);
    feed_link_up(&side, SESSION_PRIMARY, ours, (struct session_hello){.origin = ours.origin});
    side.now_ms += 100 * SILENCE_MS;
    feed_simple(&side, SESSION_EVENT_TICK);
    assert_did_not(&side, SESSION_DO_ASK_GRANT);
    assert_state(&side, SESSION_LISTENING);
    assert_int_equal(hello_of(&side).origin.number, 1); /* half new, and still what the primary knows */
}

static void test_a_primary_that_lost_track_synchronises_in_full(void **state)
{
    (void)state;
    struct side side;
    go_alone(&side, true);
    feed_simple(&side, SESSION_EVENT_TRACKING_LOST);
    assert_int_equal(hello_of(&side).origin.number, 0);
}

static void test_a_primary_gives_an_image_up_that_nobody_can_have_any_more(void **state)
{
    (void)state;
    struct side side;
    go_alone(&side, true);
    struct session_hello old = hello_of(&side);
    side.now_ms = session_next_tick_ms(&side.session);
    feed_simple(&side, SESSION_EVENT_TICK);
    assert_did(&side, SESSION_DO_FORGET_IMAGE);
    assert_did(&side, SESSION_DO_CONNECT); /* with another HELLO */
    assert_int_equal(hello_of(&side).origin.number, 0);
    /* A link that was made with the old one is of no use: the standby would keep its image. */
    feed_link_up(&side, SESSION_SECONDARY, old, (struct session_hello){.origin = old.origin});
    assert_did(&side, SESSION_DO_DISCONNECT);
    assert_did(&side, SESSION_DO_CONNECT);
    assert_did_not(&side, SESSION_DO_START_PRECOPY);
    assert_did_not(&side, SESSION_DO_START_RESYNC);
}

static void test_an_image_from_which_the_guest_runs_is_none_any_more(void **state)
{
    (void)state;
    struct side side;
    begin(&side, SESSION_SECONDARY, SESSION_ON_PEER_LOSS_CONTINUE);
    feed_simple(&side, SESSION_EVENT_START);
    feed_link_up(&side, SESSION_PRIMARY, (struct session_hello){0}, first_of_run);
    feed_epoch(&side, SESSION_EVENT_EPOCH_RECEIVED, 1);
    feed_epoch(&side, SESSION_EVENT_EPOCH_APPLIED, 1);
    feed_simple(&side, SESSION_EVENT_FAILOVER_FORCE);
    const struct session_action *asks = find(&side, SESSION_DO_ASK_GRANT);
    feed(&side, (struct session_event){.type = SESSION_EVENT_GRANT, .term = asks->term, .ok = true});
    assert_did(&side, SESSION_DO_PROMOTE);
    assert_int_equal(hello_of(&side).origin.number, 0);
}

/* ---- a host that goes down cleanly ---- */

static void test_a_protected_guest_is_handed_over_when_its_host_goes_down(void **state)
{
    struct side side;
    (void)state;
    protect(&side, SESSION_ON_PEER_LOSS_CONTINUE);
    feed_simple(&side, SESSION_EVENT_LEAVE);
    assert_state(&side, SESSION_HANDING_OVER);
    assert_did(&side, SESSION_DO_LAST_EPOCH);
    assert_did_not(&side, SESSION_DO_SEND_GOODBYE);
    feed_simple(&side, SESSION_EVENT_LEAVE); /* QEMU got the signal too, and passed it on */
    assert_int_equal(side.did.n, 0);
    feed(&side, (struct session_event){
                    .type = SESSION_EVENT_EPOCH_CUT, .term = side.session.term, .epoch = 2, .ok = true});
    feed_epoch(&side, SESSION_EVENT_ACK, 2);
    assert_did(&side, SESSION_DO_SEND_HANDOVER);
    feed(&side, (struct session_event){.type = SESSION_EVENT_HANDOVER_DONE, .term = side.session.term + 1});
    assert_int_equal(side.session.end_reason, SESSION_END_HANDED_OVER);
}

/* The standby that acks nothing more is told that the hypervisor is dead, never that the user stopped the VM.
 */
static void test_a_handover_that_takes_too_long_is_left_to_the_standby(void **state)
{
    struct side side;
    (void)state;
    protect(&side, SESSION_ON_PEER_LOSS_CONTINUE);
    feed_simple(&side, SESSION_EVENT_LEAVE);
    side.now_ms = session_next_tick_ms(&side.session);
    for (int i = 0; i < 1000 && side.session.state != SESSION_ENDED; i++) {
        feed(&side, (struct session_event){.type = SESSION_EVENT_HEARTBEAT,
                                           .term = side.session.term,
                                           .peer_role = SESSION_SECONDARY});
        feed_simple(&side, SESSION_EVENT_TICK);
        if (side.session.state != SESSION_ENDED)
            side.now_ms += 10;
    }
    assert_state(&side, SESSION_ENDED);
    assert_int_equal(side.session.end_reason, SESSION_END_LEFT);
    assert_did(&side, SESSION_DO_DROP_OUTPUT);
    assert_int_equal(find(&side, SESSION_DO_SEND_GOODBYE)->reason, SESSION_END_HYPERVISOR_DIED);
    /* Nothing runs here any more when the standby hears it. */
    assert_true(find(&side, SESSION_DO_FENCE_GUEST) < find(&side, SESSION_DO_SEND_GOODBYE));
}

static void test_a_guest_that_is_protected_in_time_is_handed_over(void **state)
{
    struct side side;
    (void)state;
    begin(&side, SESSION_PRIMARY, SESSION_ON_PEER_LOSS_CONTINUE);
    feed(&side,
         (struct session_event){.type = SESSION_EVENT_LINK_UP, .term = 1, .peer_role = SESSION_SECONDARY});
    feed_simple(&side, SESSION_EVENT_LEAVE);
    assert_state(&side, SESSION_SYNCHRONISING);
    assert_did_not(&side, SESSION_DO_POWER_DOWN_GUEST);
    feed_simple(&side, SESSION_EVENT_SYNCHRONISED);
    feed_epoch(&side, SESSION_EVENT_EPOCH_CUT, 1);
    feed_epoch(&side, SESSION_EVENT_ACK, 1);
    assert_state(&side, SESSION_HANDING_OVER);
}

static void test_a_guest_that_nobody_can_take_is_asked_once_and_ended_in_the_end(void **state)
{
    struct side side;
    (void)state;
    begin(&side, SESSION_PRIMARY, SESSION_ON_PEER_LOSS_CONTINUE);
    feed_simple(&side, SESSION_EVENT_START);
    feed_simple(&side, SESSION_EVENT_LEAVE);
    assert_did(&side, SESSION_DO_POWER_DOWN_GUEST);
    assert_did_not(&side, SESSION_DO_QUIT_HYPERVISOR);
    feed_simple(&side, SESSION_EVENT_LEAVE);
    assert_did_not(&side, SESSION_DO_POWER_DOWN_GUEST);
    side.now_ms = session_next_tick_ms(&side.session);
    feed_simple(&side, SESSION_EVENT_TICK);
    assert_did(&side, SESSION_DO_QUIT_HYPERVISOR);
    assert_int_equal(side.session.end_reason, SESSION_END_LEFT);
}

static void test_a_standby_whose_host_goes_down_says_goodbye(void **state)
{
    struct side side;
    (void)state;
    stand_by(&side);
    feed_simple(&side, SESSION_EVENT_LEAVE);
    assert_did(&side, SESSION_DO_SEND_GOODBYE);
    assert_did_not(&side, SESSION_DO_ASK_GRANT);
    assert_state(&side, SESSION_ENDED);
}

static void test_a_host_that_goes_down_while_it_takes_over_does_not_drop_the_guest(void **state)
{
    struct side side;
    (void)state;
    stand_by(&side);
    for (int i = 0; i < 10 && side.session.state == SESSION_STANDBY; i++) {
        side.now_ms += SILENCE_MS;
        feed_simple(&side, SESSION_EVENT_TICK);
    }
    assert_state(&side, SESSION_ASKING);
    feed_simple(&side, SESSION_EVENT_LEAVE);
    feed(&side,
         (struct session_event){.type = SESSION_EVENT_GRANT, .term = side.session.asked_term, .ok = true});
    assert_state(&side, SESSION_PROMOTING);
    feed(&side,
         (struct session_event){.type = SESSION_EVENT_PROMOTED, .term = side.session.term, .ok = true});
    assert_state(&side, SESSION_CONNECTING);
    assert_did(&side, SESSION_DO_POWER_DOWN_GUEST);
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
    for (int i = 0; i < SESSION_NSTANDINGS; i++)
        assert_non_null(session_standing_name((enum session_standing)i));
}

/* Its journal may be long and its disk slow: as long as it says so, it is waited for. */
static void test_a_peer_that_takes_over_slowly_is_waited_for(void **state)
{
    struct side side;
    (void)state;
    protect(&side, SESSION_ON_PEER_LOSS_CONTINUE);
    feed_simple(&side, SESSION_EVENT_FAILOVER_PLANNED);
    feed(&side, (struct session_event){
                    .type = SESSION_EVENT_EPOCH_CUT, .term = side.session.term, .epoch = 2, .ok = true});
    feed_epoch(&side, SESSION_EVENT_ACK, 2);
    assert_did(&side, SESSION_DO_SEND_HANDOVER);
    feed_simple(&side, SESSION_EVENT_LINK_DOWN);
    assert_state(&side, SESSION_HANDOVER_UNSURE);
    for (int i = 0; i < 1000; i++) {
        side.now_ms += SILENCE_MS / 4;
        feed(&side, (struct session_event){.type = SESSION_EVENT_HEARTBEAT,
                                           .term = PEERS_TERM,
                                           .peer_role = SESSION_SECONDARY,
                                           .standing = SESSION_TAKES_OVER,
                                           .answer = side.session.query});
        feed_simple(&side, SESSION_EVENT_TICK);
        assert_did_not(&side, SESSION_DO_ASK_GRANT);
    }
    wait_in_silence(&side, 10 * SILENCE_MS);
    assert_did(&side, SESSION_DO_ASK_GRANT);
}

static void test_the_guest_is_ours_until_it_is_handed_over(void **state)
{
    struct side side;
    (void)state;
    begin(&side, SESSION_PRIMARY, SESSION_ON_PEER_LOSS_CONTINUE);
    assert_true(session_has_guest(&side.session));
    protect(&side, SESSION_ON_PEER_LOSS_CONTINUE);
    assert_true(session_has_guest(&side.session));
    feed_simple(&side, SESSION_EVENT_FAILOVER_PLANNED);
    assert_state(&side, SESSION_HANDING_OVER);
    assert_false(session_has_guest(&side.session));
    stand_by(&side);
    assert_false(session_has_guest(&side.session));
    feed_simple(&side, SESSION_EVENT_FAILOVER_FORCE);
    assert_false(session_has_guest(&side.session));
    feed(&side,
         (struct session_event){.type = SESSION_EVENT_GRANT, .term = side.session.asked_term, .ok = true});
    assert_state(&side, SESSION_PROMOTING);
    assert_false(session_has_guest(&side.session));
    feed(&side, (struct session_event){.type = SESSION_EVENT_PROMOTED, .ok = true});
    assert_true(session_has_guest(&side.session));
}

/* ---- transitions ---- */

static void test_a_transition_that_is_in_no_table_ends_the_session_and_does_nothing_else(void **state)
{
    struct side side;
    (void)state;
    protect(&side, SESSION_ON_PEER_LOSS_CONTINUE);
    /* As if memory had been overwritten: no primary promotes, so nobody stops a guest there. */
    side.session.state = SESSION_PROMOTING;
    feed_simple(&side, SESSION_EVENT_STOP);
    assert_state(&side, SESSION_ENDED);
    assert_int_equal(side.session.end_reason, SESSION_END_BUG);
    assert_int_equal(side.session.bug_from, SESSION_PROMOTING);
    assert_int_equal(side.session.bug_to, SESSION_LEAVING);
    /* No goodbye: the peer could take it for the guest's end. */
    const enum session_action_type wanted[] = {SESSION_DO_STOP_CAPTURE, SESSION_DO_DROP_OUTPUT,
                                               SESSION_DO_FENCE_GUEST, SESSION_DO_DISCONNECT, SESSION_DO_END};
    assert_int_equal(side.did.n, sizeof wanted / sizeof *wanted);
    for (size_t i = 0; i < side.did.n; i++)
        assert_int_equal(side.did.list[i].type, wanted[i]);
    assert_int_equal(find(&side, SESSION_DO_END)->reason, SESSION_END_BUG);
    assert_true(session_next_tick_ms(&side.session) == UINT64_MAX);
}

/* The same without a link: output that is not held is let out, then the session ends. */
static void test_a_wrong_transition_takes_back_what_its_step_had_decided(void **state)
{
    struct side side;
    (void)state;
    protect(&side, SESSION_ON_PEER_LOSS_CONTINUE);
    side.session.state = SESSION_PROMOTING;
    side.session.link_up = side.session.held = false;
    assert_true(transition_find(SESSION_PROMOTING, SESSION_ENDED, SESSION_PRIMARY) < 0);
    feed_simple(&side, SESSION_EVENT_STOP);
    assert_int_equal(side.session.end_reason, SESSION_END_BUG);
    assert_did_not(&side, SESSION_DO_RELEASE_ALL);
    assert_did(&side, SESSION_DO_DROP_OUTPUT);
}

/* The real session, with a rule broken on purpose: what the table is for. */
static void test_a_secondary_without_a_whole_image_cannot_ask(void **state)
{
    struct side side;
    (void)state;
    begin(&side, SESSION_SECONDARY, SESSION_ON_PEER_LOSS_CONTINUE);
    side.session.config.chaos_ask_while_following = true;
    feed(&side, (struct session_event){
                    .type = SESSION_EVENT_LINK_UP, .term = TERM_FIRST, .peer_role = SESSION_PRIMARY});
    assert_state(&side, SESSION_FOLLOWING);
    side.now_ms += 10 * SILENCE_MS;
    feed_simple(&side, SESSION_EVENT_TICK);
    assert_int_equal(side.session.end_reason, SESSION_END_BUG);
    assert_did_not(&side, SESSION_DO_ASK_GRANT);
}

static void test_no_transition_is_listed_twice(void **state)
{
    size_t n;
    const struct transition *table = transitions(&n);
    (void)state;
    for (size_t i = 0; i < n; i++)
        assert_int_equal(transition_find(table[i].from, table[i].to, table[i].role), (int)i);
}

static void test_no_secondary_comes_from_a_primary_and_nothing_comes_from_the_end(void **state)
{
    size_t n;
    const struct transition *table = transitions(&n);
    (void)state;
    for (size_t i = 0; i < n; i++) {
        bool was_primary = table[i].from < SESSION_LISTENING || table[i].from == SESSION_FENCED;
        assert_true(table[i].from != SESSION_ENDED);
        assert_false(was_primary && table[i].role == SESSION_SECONDARY);
        /* The only way from a secondary to a primary. */
        if (!was_primary && table[i].role == SESSION_PRIMARY)
            assert_true(table[i].from == SESSION_PROMOTING && table[i].to == SESSION_CONNECTING);
    }
}

/* ---- a standby on trial ---- */

static void arm(struct side *side, enum session_peer_loss policy)
{
    begin(side, SESSION_PRIMARY, policy);
    feed_simple(side, SESSION_EVENT_START);
    feed(side, (struct session_event){
                   .type = SESSION_EVENT_LINK_UP, .term = TERM_FIRST, .peer_role = SESSION_SECONDARY});
    feed_simple(side, SESSION_EVENT_SYNCHRONISED);
    feed_epoch(side, SESSION_EVENT_EPOCH_CUT, 1);
    feed_epoch(side, SESSION_EVENT_EPOCH_SENT, 1);
    assert_state(side, SESSION_ARMING);
}

static void test_acks_of_an_untried_standby_release_output_and_protect_nothing(void **state)
{
    struct side side;
    (void)state;
    arm(&side, SESSION_ON_PEER_LOSS_CONTINUE);
    feed_untried_ack(&side, 1);
    assert_did(&side, SESSION_DO_RELEASE);
    assert_state(&side, SESSION_ARMING);
    feed_simple(&side, SESSION_EVENT_FAILOVER_PLANNED);
    assert_did_not(&side, SESSION_DO_LAST_EPOCH);
    feed_epoch(&side, SESSION_EVENT_EPOCH_CUT, 2);
    feed_untried_ack(&side, 2);
    assert_did(&side, SESSION_DO_RELEASE);
    assert_state(&side, SESSION_ARMING);
    /* The same epoch again, now that it is known. */
    feed_epoch(&side, SESSION_EVENT_ACK, 2);
    assert_state(&side, SESSION_PROTECTED);
}

static void test_an_untried_standby_says_so_until_it_was_tried(void **state)
{
    const struct session_config config = {
        .role = SESSION_SECONDARY, .term = TERM_FIRST, .silence_ms = SILENCE_MS, .untried = true};
    struct side side;
    (void)state;
    side.now_ms = 1000;
    session_init(&side.session, &config, side.now_ms);
    feed_simple(&side, SESSION_EVENT_START);
    feed(&side, (struct session_event){
                    .type = SESSION_EVENT_LINK_UP, .term = TERM_FIRST, .peer_role = SESSION_PRIMARY});
    feed_epoch(&side, SESSION_EVENT_EPOCH_RECEIVED, 1);
    assert_true(find(&side, SESSION_DO_SEND_ACK)->untried);
    feed_epoch(&side, SESSION_EVENT_EPOCH_RECEIVED, 2);
    assert_true(find(&side, SESSION_DO_SEND_ACK)->untried);
    feed_tried(&side, true);
    assert_int_equal(find(&side, SESSION_DO_SEND_ACK)->epoch, 2);
    assert_false(find(&side, SESSION_DO_SEND_ACK)->untried);
    feed_epoch(&side, SESSION_EVENT_EPOCH_RECEIVED, 3);
    assert_false(find(&side, SESSION_DO_SEND_ACK)->untried);
}

static void test_a_standby_with_durable_acks_repeats_none_that_is_not_durable(void **state)
{
    struct side side;
    (void)state;
    stand_by_untried(&side);
    side.session.config.durable_acks = true;
    feed_epoch(&side, SESSION_EVENT_EPOCH_RECEIVED, 2);
    feed_tried(&side, true);
    assert_did_not(&side, SESSION_DO_SEND_ACK);
    feed_epoch(&side, SESSION_EVENT_EPOCH_DURABLE, 2);
    assert_false(find(&side, SESSION_DO_SEND_ACK)->untried);
}

static void test_a_standby_whose_trial_failed_ends_and_says_why(void **state)
{
    struct side side;
    (void)state;
    stand_by_untried(&side);
    feed_tried(&side, false);
    assert_int_equal(find(&side, SESSION_DO_SEND_GOODBYE)->reason, SESSION_END_TRIAL_FAILED);
    assert_did(&side, SESSION_DO_QUIT_HYPERVISOR);
    assert_int_equal(find(&side, SESSION_DO_END)->reason, SESSION_END_TRIAL_FAILED);
    assert_string_equal(session_end_reason_name(SESSION_END_TRIAL_FAILED), "trial-failed");
}

static void test_an_untried_standby_takes_over_nonetheless(void **state)
{
    struct side side;
    (void)state;
    stand_by_untried(&side);
    wait_in_silence(&side, 10 * SILENCE_MS);
    assert_state(&side, SESSION_ASKING);
    feed_tried(&side, false);
    assert_state(&side, SESSION_ASKING);
    feed(&side, (struct session_event){.type = SESSION_EVENT_GRANT, .term = PEERS_TERM, .ok = true});
    assert_did(&side, SESSION_DO_PROMOTE);
    feed_tried(&side, false);
    assert_state(&side, SESSION_PROMOTING);
    feed(&side, (struct session_event){.type = SESSION_EVENT_PROMOTED, .ok = true});
    assert_state(&side, SESSION_CONNECTING);
}

/* Whatever the policy: it was never protected, and holding would only stop the guest. */
static void runs_alone_after_a_failed_trial(enum session_peer_loss policy)
{
    struct side side;
    arm(&side, policy);
    feed_untried_ack(&side, 1);
    feed(&side, (struct session_event){
                    .type = SESSION_EVENT_GOODBYE, .term = TERM_FIRST, .reason = SESSION_END_TRIAL_FAILED});
    const struct session_action *ask = find(&side, SESSION_DO_ASK_GRANT);
    assert_non_null(ask);
    feed(&side, (struct session_event){.type = SESSION_EVENT_GRANT, .term = ask->term, .ok = true});
    assert_did(&side, SESSION_DO_RELEASE_ALL);
    assert_state(&side, SESSION_CONNECTING);
}

static void test_a_primary_goes_on_alone_when_its_standby_failed_the_trial(void **state)
{
    (void)state;
    runs_alone_after_a_failed_trial(SESSION_ON_PEER_LOSS_CONTINUE);
    runs_alone_after_a_failed_trial(SESSION_ON_PEER_LOSS_HOLD);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_peer_that_takes_over_slowly_is_waited_for),
        cmocka_unit_test(test_the_guest_is_ours_until_it_is_handed_over),
        cmocka_unit_test(test_a_transition_that_is_in_no_table_ends_the_session_and_does_nothing_else),
        cmocka_unit_test(test_a_wrong_transition_takes_back_what_its_step_had_decided),
        cmocka_unit_test(test_a_secondary_without_a_whole_image_cannot_ask),
        cmocka_unit_test(test_no_transition_is_listed_twice),
        cmocka_unit_test(test_no_secondary_comes_from_a_primary_and_nothing_comes_from_the_end),
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
        cmocka_unit_test(test_a_stop_that_the_peer_confirms_ends_the_vm),
        cmocka_unit_test(test_a_stop_that_meets_a_takeover_says_so),
        cmocka_unit_test(test_a_stop_that_a_fit_peer_does_not_answer_is_not_called_done),
        cmocka_unit_test(test_a_stop_of_an_unprotected_guest_is_done_at_once),
        cmocka_unit_test(test_a_guest_handed_over_is_given_up_only_once_it_runs_there),
        cmocka_unit_test(test_a_guest_that_the_peer_could_not_start_is_taken_back),
        cmocka_unit_test(test_of_two_hosts_that_went_on_alone_exactly_one_is_fenced),
        cmocka_unit_test(test_whoever_misses_a_beat_asks_and_an_answer_ends_the_matter),
        cmocka_unit_test(test_a_tick_that_comes_late_asks_before_it_concludes),
        cmocka_unit_test(test_a_query_is_answered_at_once_in_every_state),
        cmocka_unit_test(test_a_named_term_is_believed_within_a_window),
        cmocka_unit_test(test_no_message_moves_a_primary_s_term_by_a_thousand),
        cmocka_unit_test(test_a_hello_with_a_term_of_no_pair_makes_no_link),
        cmocka_unit_test(test_the_window_begins_at_the_newest_term_that_this_host_used),
        cmocka_unit_test(test_a_primary_whose_peer_lives_waits_until_it_has_let_go),
        cmocka_unit_test(test_a_standby_that_let_go_never_takes_over_in_that_term),
        cmocka_unit_test(test_a_listening_side_does_not_follow_a_link_that_is_history),
        cmocka_unit_test(test_a_primary_that_wakes_to_a_closed_link_runs_alone_only_if_the_peer_is_silent),
        cmocka_unit_test(test_a_checkpoint_network_that_is_cut_is_noticed_while_hearts_beat_by_another),
        cmocka_unit_test(test_a_slow_standby_is_not_taken_for_a_cut_network),
        cmocka_unit_test(test_an_epoch_that_becomes_durable_while_the_standby_asks_is_not_acked),
        cmocka_unit_test(
            test_a_broken_handover_asks_the_peer_and_gives_the_guest_up_only_to_one_that_runs_it),
        cmocka_unit_test(test_a_primary_whose_link_returns_sends_what_the_kept_image_lacks),
        cmocka_unit_test(test_a_standby_keeps_its_image_only_for_the_run_that_it_stems_from),
        cmocka_unit_test(test_a_primary_synchronises_a_new_standby_in_full),
        cmocka_unit_test(test_an_image_that_was_never_whole_is_not_brought_up_to_date),
        cmocka_unit_test(test_a_standby_that_is_being_brought_up_to_date_does_not_promote),
        cmocka_unit_test(test_a_primary_that_lost_track_synchronises_in_full),
        cmocka_unit_test(test_a_primary_gives_an_image_up_that_nobody_can_have_any_more),
        cmocka_unit_test(test_an_image_from_which_the_guest_runs_is_none_any_more),
        cmocka_unit_test(test_a_protected_guest_is_handed_over_when_its_host_goes_down),
        cmocka_unit_test(test_a_handover_that_takes_too_long_is_left_to_the_standby),
        cmocka_unit_test(test_a_guest_that_is_protected_in_time_is_handed_over),
        cmocka_unit_test(test_a_guest_that_nobody_can_take_is_asked_once_and_ended_in_the_end),
        cmocka_unit_test(test_a_standby_whose_host_goes_down_says_goodbye),
        cmocka_unit_test(test_a_host_that_goes_down_while_it_takes_over_does_not_drop_the_guest),
        cmocka_unit_test(test_every_state_and_event_has_a_name),
        cmocka_unit_test(test_acks_of_an_untried_standby_release_output_and_protect_nothing),
        cmocka_unit_test(test_an_untried_standby_says_so_until_it_was_tried),
        cmocka_unit_test(test_a_standby_with_durable_acks_repeats_none_that_is_not_durable),
        cmocka_unit_test(test_a_standby_whose_trial_failed_ends_and_says_why),
        cmocka_unit_test(test_an_untried_standby_takes_over_nonetheless),
        cmocka_unit_test(test_a_primary_goes_on_alone_when_its_standby_failed_the_trial),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
