/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What waits for the disks, one sentence each (failover/disk_turns.h). */
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
    uint64_t now_ms;
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
    session_handle(&side->session, &event, side->now_ms, &side->did);
}

/* The number of the order that the last event led to. */
static uint64_t ordered(const struct side *side, enum session_action_type type)
{
    assert_did(side, type);
    assert_int_not_equal(find(side, type)->order, 0);
    return find(side, type)->order;
}

static void feed_simple(struct side *side, enum session_event_type type, uint64_t epoch)
{
    feed(side, (struct session_event){.type = type, .term = side->session.term, .epoch = epoch});
}

static void answer(struct side *side, uint64_t order, bool ok)
{
    feed(side, (struct session_event){.type = SESSION_EVENT_DISKS_READY, .order = order, .ok = ok});
}

static void answer_durable(struct side *side, uint64_t order)
{
    feed(side, (struct session_event){.type = SESSION_EVENT_DISKS_DURABLE, .order = order});
}

static void grant(struct side *side)
{
    feed(side,
         (struct session_event){.type = SESSION_EVENT_GRANT, .term = side->session.asked_term, .ok = true});
}

static void begin(struct side *side, enum session_role role, bool disks)
{
    const struct session_config config = {
        .role = role, .term = TERM_FIRST, .silence_ms = 60, .disks = disks, .ack_timeout_ms = 300};
    *side = (struct side){.now_ms = 1000};
    session_init(&side->session, &config, side->now_ms);
    feed_simple(side, SESSION_EVENT_START, 0);
}

static void link_up(struct side *side)
{
    enum session_role peer = side->session.role == SESSION_PRIMARY ? SESSION_SECONDARY : SESSION_PRIMARY;
    feed(side, (struct session_event){
                   .type = SESSION_EVENT_LINK_UP, .term = side->session.term, .peer_role = peer});
}

static void protect(struct side *side)
{
    uint64_t epoch = side->session.cut_epoch + 1;
    link_up(side);
    feed_simple(side, SESSION_EVENT_SYNCHRONISED, 0);
    feed_simple(side, SESSION_EVENT_EPOCH_CUT, epoch);
    feed_simple(side, SESSION_EVENT_ACK, epoch);
    assert_int_equal(side->session.state, SESSION_PROTECTED);
}

/* Protected, then alone: the disks are ordered to make durable what they have. */
static uint64_t go_alone(struct side *side)
{
    feed(side, (struct session_event){.type = SESSION_EVENT_GOODBYE, .term = side->session.term});
    assert_int_equal(side->session.state, SESSION_PEER_LOST);
    grant(side);
    assert_int_equal(side->session.state, SESSION_CONNECTING);
    return ordered(side, SESSION_DO_DISKS_DURABLE);
}

/* The last epoch is cut and acked: returns the order to give up writing. */
static uint64_t hand_over(struct side *side)
{
    uint64_t last = side->session.cut_epoch + 1;
    feed_simple(side, SESSION_EVENT_FAILOVER_PLANNED, 0);
    feed(side, (struct session_event){
                   .type = SESSION_EVENT_EPOCH_CUT, .term = side->session.term, .epoch = last, .ok = true});
    feed_simple(side, SESSION_EVENT_ACK, last);
    assert_did_not(side, SESSION_DO_SEND_HANDOVER);
    return ordered(side, SESSION_DO_DISKS_GIVE_UP);
}

static void stand_by(struct side *side)
{
    begin(side, SESSION_SECONDARY, true);
    link_up(side);
    feed_simple(side, SESSION_EVENT_EPOCH_RECEIVED, 1);
    feed_simple(side, SESSION_EVENT_EPOCH_APPLIED, 1);
}

static uint64_t take_over(struct side *side)
{
    stand_by(side);
    feed_simple(side, SESSION_EVENT_FAILOVER_FORCE, 0);
    grant(side);
    assert_int_equal(side->session.state, SESSION_PROMOTING);
    assert_did_not(side, SESSION_DO_PROMOTE);
    return ordered(side, SESSION_DO_DISKS_TAKE_OVER);
}

static void test_without_disks_nothing_waits(void **state)
{
    struct side side;
    (void)state;
    begin(&side, SESSION_PRIMARY, false);
    protect(&side);
    feed(&side, (struct session_event){.type = SESSION_EVENT_GOODBYE, .term = side.session.term});
    grant(&side);
    assert_did(&side, SESSION_DO_RELEASE_ALL);
}

static void test_output_waits_until_what_was_written_meanwhile_is_durable(void **state)
{
    struct side side;
    (void)state;
    begin(&side, SESSION_PRIMARY, true);
    protect(&side);
    uint64_t order = go_alone(&side);
    assert_did_not(&side, SESSION_DO_RELEASE_ALL);
    answer_durable(&side, order);
    assert_did(&side, SESSION_DO_RELEASE_ALL);
    answer_durable(&side, order); /* once */
    assert_did_not(&side, SESSION_DO_RELEASE_ALL);
}

static void test_durability_of_an_earlier_loss_releases_nothing(void **state)
{
    struct side side;
    (void)state;
    begin(&side, SESSION_PRIMARY, true);
    protect(&side);
    uint64_t old = go_alone(&side);
    protect(&side); /* output is held again, before the disks were done */
    answer_durable(&side, old);
    assert_did_not(&side, SESSION_DO_RELEASE_ALL);
    uint64_t order = go_alone(&side);
    answer_durable(&side, old);
    assert_did_not(&side, SESSION_DO_RELEASE_ALL);
    answer_durable(&side, order);
    assert_did(&side, SESSION_DO_RELEASE_ALL);
}

static void test_a_guest_that_ends_alone_has_its_last_output_once_the_disks_are_durable(void **state)
{
    struct side side;
    (void)state;
    begin(&side, SESSION_PRIMARY, true);
    protect(&side);
    go_alone(&side);
    feed_simple(&side, SESSION_EVENT_STOP, 0);
    assert_int_equal(side.session.state, SESSION_ENDED);
    assert_did(&side, SESSION_DO_RELEASE_LAST);
    assert_did_not(&side, SESSION_DO_RELEASE_ALL);
}

static void test_the_peer_is_told_to_go_on_when_nothing_can_be_written_here(void **state)
{
    struct side side;
    (void)state;
    begin(&side, SESSION_PRIMARY, true);
    protect(&side);
    uint64_t order = hand_over(&side);
    answer(&side, order + 1, true);
    assert_did_not(&side, SESSION_DO_SEND_HANDOVER);
    answer(&side, order, true);
    assert_did(&side, SESSION_DO_SEND_HANDOVER);
    assert_int_equal(find(&side, SESSION_DO_SEND_HANDOVER)->epoch, 2);
}

static void test_a_handover_that_was_given_up_is_not_told_to_the_peer_later(void **state)
{
    struct side side;
    (void)state;
    begin(&side, SESSION_PRIMARY, true);
    protect(&side);
    uint64_t order = hand_over(&side);
    feed_simple(&side, SESSION_EVENT_LINK_DOWN, 0);
    assert_int_equal(side.session.state, SESSION_HANDOVER_UNSURE);
    answer(&side, order, true);
    assert_did_not(&side, SESSION_DO_SEND_HANDOVER);
}

static void test_a_guest_that_comes_back_goes_on_once_it_may_write(void **state)
{
    struct side side;
    (void)state;
    begin(&side, SESSION_PRIMARY, true);
    protect(&side);
    uint64_t given_up = hand_over(&side);
    feed(&side, (struct session_event){.type = SESSION_EVENT_GOODBYE, .term = side.session.term});
    grant(&side);
    uint64_t order = ordered(&side, SESSION_DO_DISKS_WRITABLE);
    assert_did_not(&side, SESSION_DO_RESUME_GUEST);
    answer(&side, given_up, true); /* late */
    assert_did_not(&side, SESSION_DO_RESUME_GUEST);
    answer(&side, order, true);
    assert_did(&side, SESSION_DO_RESUME_GUEST);
}

static void test_a_guest_whose_disk_another_host_has_stays_paused(void **state)
{
    struct side side;
    (void)state;
    begin(&side, SESSION_PRIMARY, true);
    protect(&side);
    hand_over(&side);
    feed(&side, (struct session_event){.type = SESSION_EVENT_GOODBYE, .term = side.session.term});
    grant(&side);
    answer(&side, ordered(&side, SESSION_DO_DISKS_WRITABLE), false);
    assert_int_equal(side.did.n, 0);
    assert_int_equal(side.session.state, SESSION_CONNECTING);
}

/* Given up, and tried again while the disks are still being made writable: the last epoch leaves it paused.
 */
static void test_a_guest_is_not_resumed_in_the_midst_of_its_next_handover(void **state)
{
    struct side side;
    (void)state;
    begin(&side, SESSION_PRIMARY, true);
    protect(&side);
    feed_simple(&side, SESSION_EVENT_FAILOVER_PLANNED, 0);
    side.now_ms += 5001;
    feed(&side, (struct session_event){.type = SESSION_EVENT_HEARTBEAT,
                                       .term = side.session.term,
                                       .peer_role = SESSION_SECONDARY});
    feed_simple(&side, SESSION_EVENT_TICK, 0);
    assert_int_equal(side.session.state, SESSION_PROTECTED);
    uint64_t order = ordered(&side, SESSION_DO_DISKS_WRITABLE);
    feed_simple(&side, SESSION_EVENT_FAILOVER_PLANNED, 0);
    assert_int_equal(side.session.state, SESSION_HANDING_OVER);
    answer(&side, order, true);
    assert_did_not(&side, SESSION_DO_RESUME_GUEST);
}

static void test_a_standby_promotes_once_its_journal_is_empty(void **state)
{
    struct side side;
    (void)state;
    uint64_t order = take_over(&side);
    answer(&side, order, true);
    assert_did(&side, SESSION_DO_PROMOTE);
    assert_int_equal(find(&side, SESSION_DO_PROMOTE)->epoch, 1);
    assert_int_equal(find(&side, SESSION_DO_PROMOTE)->term, side.session.term);
}

static void test_a_standby_whose_disks_cannot_be_made_ready_says_so(void **state)
{
    struct side side;
    (void)state;
    answer(&side, take_over(&side), false);
    assert_int_equal(side.session.state, SESSION_ENDED);
    assert_int_equal(side.session.end_reason, SESSION_END_PROMOTE_FAILED);
    assert_did_not(&side, SESSION_DO_PROMOTE);
}

static void test_a_side_that_is_fenced_waits_for_nothing(void **state)
{
    struct side side;
    (void)state;
    begin(&side, SESSION_PRIMARY, true);
    protect(&side);
    uint64_t order = hand_over(&side);
    feed(&side, (struct session_event){.type = SESSION_EVENT_FENCED, .term = side.session.term + 2});
    assert_int_equal(side.session.end_reason, SESSION_END_FENCED);
    answer(&side, order, true);
    assert_int_equal(side.did.n, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_without_disks_nothing_waits),
        cmocka_unit_test(test_output_waits_until_what_was_written_meanwhile_is_durable),
        cmocka_unit_test(test_durability_of_an_earlier_loss_releases_nothing),
        cmocka_unit_test(test_a_guest_that_ends_alone_has_its_last_output_once_the_disks_are_durable),
        cmocka_unit_test(test_the_peer_is_told_to_go_on_when_nothing_can_be_written_here),
        cmocka_unit_test(test_a_handover_that_was_given_up_is_not_told_to_the_peer_later),
        cmocka_unit_test(test_a_guest_that_comes_back_goes_on_once_it_may_write),
        cmocka_unit_test(test_a_guest_whose_disk_another_host_has_stays_paused),
        cmocka_unit_test(test_a_guest_is_not_resumed_in_the_midst_of_its_next_handover),
        cmocka_unit_test(test_a_standby_promotes_once_its_journal_is_empty),
        cmocka_unit_test(test_a_standby_whose_disks_cannot_be_made_ready_says_so),
        cmocka_unit_test(test_a_side_that_is_fenced_waits_for_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
