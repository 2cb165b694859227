/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The secondary's half of the session: it holds an image and acks what it holds whole.
 *
 *   listening -> following -> standby -> asking -> promoting -> (connecting, as the primary)
 *
 * I2 is kept here: only the epoch after the last one is acked. takeover.c has the last two states.
 */
#include "failover/session_parts.h"

static void follow(struct step *step)
{
    struct session *s = step->s;
    enum image_fate fate = step_image_fate(step);
    /* A primary that was told that it may run alone comes back in a newer term: this is an old connection. */
    bool let_go = step->event->term == s->let_go_term && !s->config.chaos_keep_image;
    if (step->event->term < s->term || let_go || step->event->peer_role != SESSION_PRIMARY) {
        step_act(step, SESSION_DO_SEND_FENCED);
        step_disconnect(step);
        step_act(step, SESSION_DO_CONNECT);
        return;
    }
    if (fate == IMAGE_UNSURE) {
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

/* What was acked stays whole and may be promoted; the primary has to synchronise again. */
static void refuse_stream(struct step *step)
{
    step_disconnect(step);
    if (step->s->state == SESSION_FOLLOWING)
        step_listen_again(step);
    else
        step_act(step, SESSION_DO_CONNECT);
}

/* It says whether this side could take over, as far as anybody knows. */
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
    /* The link is ordered: anything but the next epoch is the peer's mistake. */
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

/* Of an epoch that came by an older link, the replicator says nothing. */
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
 * The trial load has ended. From then on the primary counts as protected, with the next ack; where acks do
 * not wait for the disk, the newest one is repeated, so that it need not wait for an epoch. A side that has
 * begun to take over goes on with that whatever the trial says: the guest has nobody else.
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
 * The primary went on alone, in a newer term: what is here must never be promoted. It will bring it up to
 * date, or synchronise anew.
 */
static void outdated(struct step *step)
{
    if (step->s->config.chaos_keep_image)
        return;
    step_disconnect(step);
    step_listen_again(step);
}

/*
 * The primary has lost this side, although it is heard, and wants to go on alone. It may, once it knows that
 * nobody goes on from the image here. An epoch that is still on the link must not make it whole again.
 */
static void let_go(struct step *step)
{
    step_answer(step);
    step->s->let_go_term = step->s->term;
    if (step->s->state != SESSION_LISTENING)
        outdated(step);
}

static void secondary_heartbeat(struct step *step)
{
    struct session *s = step->s;
    const struct session_event *event = step->event;
    /* An old primary's sign of life says nothing about the present one. */
    if (event->term >= s->term)
        step_heard(step);
    if (event->term > s->term && s->state != SESSION_LISTENING)
        outdated(step);
    else if (event->term == s->term && event->peer_role == SESSION_PRIMARY && event->query &&
             event->standing == SESSION_GOES_ALONE)
        let_go(step);
}

/* What a secondary does in every state before it asks to run. True if handled. */
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
        leave_secondary(step, SESSION_END_ABANDONED); /* a primary that lives asks for a new standby */
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
        /* Perhaps only the peer's process: while its heart beats, wait for it to come back. */
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
        /* The primary's own word that its guest is dead: no need to wait for silence. */
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

/* In every state: without its hypervisor, or with an image that is no whole epoch, it can never run the
 * guest. */
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
    /* It has begun to take over: the guest has nobody else. It leaves once it is a primary. */
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
