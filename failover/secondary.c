/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The secondary's half of the session: it keeps an image of the guest, and acks each epoch that is whole.
 *
 *   listening -> following -> standby -> asking -> promoting -> (connecting, as the primary)
 *
 * This file keeps I2: a secondary acks only the epoch after the last one. takeover.c has the last two states.
 */
#include "failover/session_parts.h"

/* Follows the primary of a new link, or refuses the link. */
static void follow(struct step *step)
{
    struct session *s = step->s;
    enum image_fate fate = step_image_fate(step);
    /* A primary that was told that it may run alone, or was heard in a newer term, returns in that newer
     * term, so this connection is an old one. What it brings must not become an image that could be promoted.
     */
    bool let_go = step->event->term <= s->let_go_term && !s->config.chaos_keep_image;
    bool is_old = step->event->term < s->primary_term;
    if (step->event->term < s->term || let_go || is_old || step->event->peer_role != SESSION_PRIMARY) {
        step_act(step, SESSION_DO_SEND_FENCED);
        step_disconnect(step);
        step_act(step, SESSION_DO_CONNECT);
        return;
    }
    if (fate == IMAGE_UNSURE || !step_believes_term(step)) {
        step_disconnect(step);
        step_act(step, SESSION_DO_CONNECT);
        return;
    }
    s->term = step->event->term;
    s->host = !term_host(s->term);
    s->link_up = true;
    step_heard(step);
    detector_heard_by_path(&s->detector, step->now_ms);
    s->acked_epoch = s->applied_epoch = 0;
    s->asked_term = 0;
    if (fate == IMAGE_KEPT) {
        step_act(step, SESSION_DO_KEEP_IMAGE);
    } else {
        step_new_image(step);
        step_act(step, SESSION_DO_DISCARD_IMAGE);
    }
    step_enter(step, SESSION_FOLLOWING);
}

/* Closes a link that brought a wrong epoch. Acked epochs stay whole and may be promoted. */
static void refuse_stream(struct step *step)
{
    step_disconnect(step);
    if (step->s->state == SESSION_FOLLOWING)
        step_listen_again(step);
    else
        step_act(step, SESSION_DO_CONNECT);
}

/* Sends an ack. It also says whether this side's QEMU has yet to prove that it can take over. */
static void ack(struct step *step, uint64_t epoch)
{
    struct session_action *action = step_act(step, SESSION_DO_SEND_ACK);
    action->epoch = epoch;
    action->untried = step->s->untried;
}

static void on_epoch_received(struct step *step)
{
    struct session *s = step->s;
    uint64_t epoch = step->event->epoch;
    if (step->event->term != s->term || !s->link_up)
        return;
    step_heard(step);
    detector_heard_by_path(&s->detector, step->now_ms);
    /* The link is ordered, so an epoch other than the next one is the peer's mistake. */
    if (epoch == 0 || (s->acked_epoch != 0 && epoch != s->acked_epoch + 1)) {
        if (epoch == 0 || epoch > s->acked_epoch + 1)
            refuse_stream(step);
        return;
    }
    s->acked_epoch = epoch;
    step_image_is_whole(step);
    step_act(step, SESSION_DO_APPLY)->epoch = epoch;
    if (!s->config.durable_acks)
        ack(step, epoch);
    if (s->state != SESSION_STANDBY)
        step_enter(step, SESSION_STANDBY);
}

/* Acks an epoch that is durable. The replicator does not report epochs that came by an older link. */
static void on_durable(struct step *step)
{
    const struct session *s = step->s;
    if (s->config.durable_acks && s->link_up && step->event->term == s->term &&
        step->event->epoch <= s->acked_epoch)
        ack(step, step->event->epoch);
}

static void on_applied(struct step *step)
{
    if (step->event->epoch > step->s->applied_epoch && step->event->epoch <= step->s->acked_epoch)
        step->s->applied_epoch = step->event->epoch;
}

static void leave_secondary(struct step *step, enum session_end_reason reason)
{
    step_say_goodbye(step, reason);
    step_act(step, SESSION_DO_QUIT_HYPERVISOR);
    step_end(step, reason);
}

/*
 * Handles the end of the trial load. If the load succeeded, the next ack makes the primary `protected`. Where
 * acks do not wait for the disk, the newest ack is repeated at once, so that no new epoch is needed. A
 * secondary that has begun to take over ignores a failed trial, because no other host can run the guest.
 */
static void on_tried(struct step *step)
{
    struct session *s = step->s;
    bool deciding = s->state == SESSION_ASKING || s->state == SESSION_PROMOTING;
    if (!step->event->ok && !deciding) {
        leave_secondary(step, SESSION_END_TRIAL_FAILED);
        return;
    }
    s->untried = false;
    if (s->state == SESSION_STANDBY && s->link_up && !s->config.durable_acks)
        ack(step, s->acked_epoch);
}

/*
 * Stops this side from promoting its image, because the primary runs alone in a newer term. The primary will
 * bring the image up to date or send all of it again.
 */
static void outdated(struct step *step)
{
    if (step->s->config.chaos_keep_image)
        return;
    step_disconnect(step);
    step_listen_again(step);
}

/*
 * Lets go of the image for a primary that has lost this side and asks to run alone. The answer HAS_LET_GO
 * promises that this side will not promote in that term. So the link is closed, and one that was opened in
 * that term and is heard of later is refused: an epoch that is still on it must not make the image whole
 * again.
 */
static void let_go(struct step *step)
{
    step_answer(step);
    step->s->let_go_term = step->event->term;
    if (step->s->state != SESSION_LISTENING)
        outdated(step);
}

static void secondary_heartbeat(struct step *step)
{
    struct session *s = step->s;
    const struct session_event *event = step->event;
    /* A sign of life in an older term says nothing about the present primary. */
    if (event->term >= s->term)
        step_heard(step);
    if (event->peer_role == SESSION_PRIMARY && event->term > s->primary_term)
        s->primary_term = event->term;
    if (event->term > s->term && s->state != SESSION_LISTENING)
        outdated(step);
    else if (event->term >= s->term && event->peer_role == SESSION_PRIMARY && event->query &&
             event->standing == SESSION_GOES_ALONE)
        let_go(step);
}

/* Handles the events that mean the same in every state before ASKING. True if the event was handled. */
static bool secondary_common(struct step *step)
{
    struct session *s = step->s;
    bool ends = step->event->reason == SESSION_END_GUEST_SHUTDOWN ||
                step->event->reason == SESSION_END_STOPPED || step->event->reason == SESSION_END_PANICKED;
    switch (step->event->type) {
    case SESSION_EVENT_HEARTBEAT:
        secondary_heartbeat(step);
        return true;
    case SESSION_EVENT_STOP:
        leave_secondary(step, SESSION_END_STOPPED);
        return true;
    case SESSION_EVENT_LEAVE:
        leave_secondary(step, SESSION_END_LEFT);
        return true;
    case SESSION_EVENT_GOODBYE:
        if (step->event->term != s->term || !ends)
            return false;
        leave_secondary(step, step->event->reason);
        return true;
    case SESSION_EVENT_EPOCH_APPLIED:
        on_applied(step);
        return true;
    default:
        return false;
    }
}

static void in_listening(struct step *step)
{
    if (step->event->type == SESSION_EVENT_LINK_UP)
        follow(step);
    else if (step->event->type == SESSION_EVENT_TICK && step_timer_ran_out(step))
        leave_secondary(step, SESSION_END_ABANDONED); /* a primary that is alive asks for a new standby */
}

static void in_following(struct step *step)
{
    switch (step->event->type) {
    case SESSION_EVENT_EPOCH_RECEIVED:
        on_epoch_received(step);
        break;
    case SESSION_EVENT_LINK_UP:
        follow(step);
        break;
    case SESSION_EVENT_LINK_DOWN:
    case SESSION_EVENT_GOODBYE:
        step_disconnect(step);
        step_listen_again(step);
        break;
    case SESSION_EVENT_TICK:
        if (step_is_silent(step) && step->s->config.chaos_ask_while_following) {
            takeover_begin(step, false);
        } else if (step_is_silent(step)) {
            step_disconnect(step);
            step_listen_again(step);
        }
        break;
    default:
        break;
    }
}

static void in_standby(struct step *step)
{
    struct session *s = step->s;
    switch (step->event->type) {
    case SESSION_EVENT_EPOCH_RECEIVED:
        on_epoch_received(step);
        break;
    case SESSION_EVENT_LINK_UP:
        follow(step);
        break;
    case SESSION_EVENT_LINK_DOWN:
        /* Only the link may have failed: this side waits for a new one while heartbeats arrive. */
        if (s->link_up) {
            step_disconnect(step);
            step_act(step, SESSION_DO_CONNECT);
            step_ask_peer(step);
        }
        break;
    case SESSION_EVENT_EPOCH_DURABLE:
        on_durable(step);
        break;
    case SESSION_EVENT_GOODBYE:
        /* The primary says that its guest is dead, so this side does not wait for silence. */
        if (step->event->term == s->term && step->event->reason == SESSION_END_HYPERVISOR_DIED)
            takeover_begin(step, false);
        break;
    case SESSION_EVENT_HANDOVER:
        if (step->event->term == s->term && step->event->epoch == s->acked_epoch) {
            s->handed_over = true;
            takeover_begin(step, true);
        }
        break;
    case SESSION_EVENT_FAILOVER_FORCE:
        takeover_begin(step, true);
        break;
    case SESSION_EVENT_TICK:
        step_ask_if_beat_is_missed(step);
        if (step_is_silent(step))
            takeover_begin(step, false);
        break;
    default:
        break;
    }
}

/* Ends a secondary that can never run the guest: its hypervisor died, or its image is no whole epoch. True
 * if the event was handled. */
static bool fails_for_good(struct step *step)
{
    bool image = step->event->type == SESSION_EVENT_IMAGE_FAILED;
    if (!image && step->event->type != SESSION_EVENT_HYPERVISOR_DIED)
        return false;
    if (step->s->state != SESSION_ENDED)
        leave_secondary(step, image ? SESSION_END_IMAGE_FAILED : SESSION_END_HYPERVISOR_DIED);
    return true;
}

void session_handle_secondary(struct step *step)
{
    bool deciding = step->s->state == SESSION_ASKING || step->s->state == SESSION_PROMOTING;
    if (step->event->type == SESSION_EVENT_EPOCH_APPLIED)
        on_applied(step);
    if (deciding && step->event->type == SESSION_EVENT_LINK_DOWN)
        step->s->link_up = false;
    /* A secondary that is taking over leaves only once it is a primary: no other host can run the guest. */
    if (deciding && step->event->type == SESSION_EVENT_LEAVE)
        step->s->leaving = true;
    if (step->event->type == SESSION_EVENT_TRIED) {
        on_tried(step);
        return;
    }
    if (fails_for_good(step) || (!deciding && secondary_common(step)))
        return;
    switch (step->s->state) {
    case SESSION_LISTENING:
        in_listening(step);
        break;
    case SESSION_FOLLOWING:
        in_following(step);
        break;
    case SESSION_STANDBY:
        in_standby(step);
        break;
    case SESSION_ASKING:
        if (step->s->config.chaos_ack_while_asking && step->event->type == SESSION_EVENT_EPOCH_DURABLE)
            on_durable(step);
        takeover_handle_asking(step);
        break;
    case SESSION_PROMOTING:
        takeover_handle_promoting(step);
        break;
    default:
        break;
    }
}
