/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A new term is on disk before anything of it is let out, one sentence each (failover/term_record.c). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "failover/session.h"
#include "proto/term.h"

struct side {
    struct session session;
    struct session_actions did; /* for the last event */
};

static const struct session_action *find(const struct side *side, enum session_action_type type)
{
    for (size_t i = 0; i < side->did.n; i++)
        if (side->did.list[i].type == type)
            return &side->did.list[i];
    return NULL;
}

#define assert_did(side, type)     assert_non_null(find(side, type))
#define assert_did_not(side, type) assert_null(find(side, type))

static void feed(struct side *side, struct session_event event)
{
    session_handle(&side->session, &event, 1000, &side->did);
}

static void feed_simple(struct side *side, enum session_event_type type, uint64_t epoch)
{
    feed(side, (struct session_event){.type = type, .term = side->session.term, .epoch = epoch, .ok = true});
}

static void kept(struct side *side, uint64_t term)
{
    feed(side, (struct session_event){.type = SESSION_EVENT_TERM_KEPT, .term = term});
}

static void begin(struct side *side, enum session_role role, uint64_t used_term)
{
    const struct session_config config = {
        .role = role, .term = TERM_FIRST, .silence_ms = 60, .keeps_terms = true, .used_term = used_term};
    *side = (struct side){0};
    session_init(&side->session, &config, 1000);
    feed_simple(side, SESSION_EVENT_START, 0);
}

static void link_up(struct side *side)
{
    enum session_role peer = side->session.role == SESSION_PRIMARY ? SESSION_SECONDARY : SESSION_PRIMARY;
    feed(side, (struct session_event){
                   .type = SESSION_EVENT_LINK_UP, .term = side->session.term, .peer_role = peer});
}

static void cut_and_ack(struct side *side, uint64_t epoch)
{
    feed(side,
         (struct session_event){.type = SESSION_EVENT_EPOCH_CUT, .term = side->session.term, .epoch = epoch});
    feed_simple(side, SESSION_EVENT_ACK, epoch);
}

static void protect(struct side *side)
{
    link_up(side);
    feed_simple(side, SESSION_EVENT_SYNCHRONISED, 0);
    cut_and_ack(side, side->session.cut_epoch + 1);
    assert_int_equal(side->session.state, SESSION_PROTECTED);
}

static void grant(struct side *side)
{
    feed(side,
         (struct session_event){.type = SESSION_EVENT_GRANT, .term = side->session.asked_term, .ok = true});
}

static void go_alone(struct side *side)
{
    feed(side, (struct session_event){.type = SESSION_EVENT_GOODBYE, .term = side->session.term});
    grant(side);
    assert_int_equal(side->session.state, SESSION_CONNECTING);
}

static void ask(struct side *side, uint64_t used_term)
{
    begin(side, SESSION_SECONDARY, used_term);
    link_up(side);
    feed_simple(side, SESSION_EVENT_EPOCH_RECEIVED, 1);
    feed_simple(side, SESSION_EVENT_EPOCH_APPLIED, 1);
    feed_simple(side, SESSION_EVENT_FAILOVER_FORCE, 0);
    assert_int_equal(side->session.state, SESSION_ASKING);
}

static void test_the_first_term_of_a_pair_is_nobody_elses(void **state)
{
    struct side side;
    (void)state;
    begin(&side, SESSION_PRIMARY, 0);
    assert_did_not(&side, SESSION_DO_KEEP_TERM);
    protect(&side);
    assert_did(&side, SESSION_DO_RELEASE);
}

static void test_writing_begins_with_the_grant_and_output_waits_for_it(void **state)
{
    struct side side;
    (void)state;
    ask(&side, 0);
    grant(&side);
    assert_did(&side, SESSION_DO_PROMOTE);
    assert_did(&side, SESSION_DO_KEEP_TERM);
    assert_int_equal(find(&side, SESSION_DO_KEEP_TERM)->term, side.session.term);
    feed_simple(&side, SESSION_EVENT_PROMOTED, 0);
    assert_int_equal(side.session.state, SESSION_CONNECTING);
    assert_did_not(&side, SESSION_DO_RELEASE_ALL);
    kept(&side, side.session.term);
    assert_did(&side, SESSION_DO_RELEASE_ALL);
    kept(&side, side.session.term); /* once */
    assert_int_equal(side.did.n, 0);
}

static void test_a_disk_that_is_faster_than_the_promotion_delays_nothing(void **state)
{
    struct side side;
    (void)state;
    ask(&side, 0);
    grant(&side);
    kept(&side, side.session.term);
    assert_int_equal(side.did.n, 0);
    feed_simple(&side, SESSION_EVENT_PROMOTED, 0);
    assert_did(&side, SESSION_DO_RELEASE_ALL);
}

static void test_a_primary_that_goes_alone_waits_as_well(void **state)
{
    struct side side;
    (void)state;
    begin(&side, SESSION_PRIMARY, 0);
    protect(&side);
    go_alone(&side);
    assert_did(&side, SESSION_DO_KEEP_TERM);
    assert_did_not(&side, SESSION_DO_RELEASE_ALL);
    kept(&side, TERM_FIRST); /* an older one */
    assert_did_not(&side, SESSION_DO_RELEASE_ALL);
    kept(&side, side.session.term);
    assert_did(&side, SESSION_DO_RELEASE_ALL);
}

static void test_an_ack_before_the_term_is_kept_releases_later(void **state)
{
    struct side side;
    (void)state;
    begin(&side, SESSION_PRIMARY, 0);
    protect(&side);
    go_alone(&side);
    protect(&side);
    assert_did_not(&side, SESSION_DO_RELEASE);
    uint64_t newest = side.session.cut_epoch + 1;
    cut_and_ack(&side, newest);
    assert_did_not(&side, SESSION_DO_RELEASE);
    kept(&side, side.session.term);
    assert_did_not(&side, SESSION_DO_RELEASE_ALL); /* output is held again by now */
    assert_did(&side, SESSION_DO_RELEASE);
    assert_int_equal(find(&side, SESSION_DO_RELEASE)->epoch, newest);
}

static void test_an_ack_of_a_peer_that_is_lost_by_then_releases_nothing(void **state)
{
    struct side side;
    (void)state;
    begin(&side, SESSION_PRIMARY, 0);
    protect(&side);
    go_alone(&side);
    uint64_t term = side.session.term;
    protect(&side);
    feed(&side, (struct session_event){.type = SESSION_EVENT_GOODBYE, .term = term});
    assert_int_equal(side.session.state, SESSION_PEER_LOST);
    kept(&side, term);
    assert_int_equal(side.did.n, 0);
}

static void test_what_waits_for_the_term_is_lost_when_the_side_ends(void **state)
{
    struct side side;
    (void)state;
    begin(&side, SESSION_PRIMARY, 0);
    protect(&side);
    go_alone(&side);
    feed_simple(&side, SESSION_EVENT_STOP, 0);
    assert_int_equal(side.session.state, SESSION_ENDED);
    assert_did(&side, SESSION_DO_DROP_OUTPUT);
    assert_did_not(&side, SESSION_DO_RELEASE_ALL);
    assert_did_not(&side, SESSION_DO_RELEASE_LAST);
}

static void test_a_follower_keeps_no_term(void **state)
{
    struct side side;
    (void)state;
    begin(&side, SESSION_SECONDARY, 0);
    feed(&side, (struct session_event){
                    .type = SESSION_EVENT_LINK_UP, .term = TERM_FIRST + 4, .peer_role = SESSION_PRIMARY});
    assert_int_equal(side.session.term, TERM_FIRST + 4);
    assert_did_not(&side, SESSION_DO_KEEP_TERM);
}

static void test_a_side_that_restarts_asks_for_no_term_that_it_used(void **state)
{
    struct side side, other;
    (void)state;
    ask(&other, 0);
    uint64_t used = other.session.asked_term;
    ask(&side, used);
    assert_true(side.session.asked_term > used);
    assert_int_equal(term_host(side.session.asked_term), term_host(used));
    ask(&side, 20 * used);
    assert_true(side.session.asked_term > 20 * used);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_first_term_of_a_pair_is_nobody_elses),
        cmocka_unit_test(test_writing_begins_with_the_grant_and_output_waits_for_it),
        cmocka_unit_test(test_a_disk_that_is_faster_than_the_promotion_delays_nothing),
        cmocka_unit_test(test_a_primary_that_goes_alone_waits_as_well),
        cmocka_unit_test(test_an_ack_before_the_term_is_kept_releases_later),
        cmocka_unit_test(test_an_ack_of_a_peer_that_is_lost_by_then_releases_nothing),
        cmocka_unit_test(test_what_waits_for_the_term_is_lost_when_the_side_ends),
        cmocka_unit_test(test_a_follower_keeps_no_term),
        cmocka_unit_test(test_a_side_that_restarts_asks_for_no_term_that_it_used),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
