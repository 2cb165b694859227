/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Handles the loss of the peer on a primary, while the peer may hold an epoch that it could promote.
 *
 *   policy continue   the primary asks the peer to let go of its image, then the arbiter for a term; with the
 *                     grant, the guest runs on alone and its output flows
 *   policy hold       output stays held until a peer holds all of it; the arbiter is asked when a peer is
 * back
 */
#include "failover/session_parts.h"

/* Leaves the decision to the arbiter: the peer has let go, is silent or has ended, or asks the arbiter too.
 */
static void stop_inquiring(struct step *step)
{
    if (step->s->link_up)
        step_disconnect(step);
    step_ask_grant(step);
}

/*
 * Asks the peer by every path to let go of its image, in PEER_LOST and HANDOVER_UNSURE. The link stays open
 * until it fails, because it is one of the paths. gone: the peer said that it has ended, or did not answer an
 * earlier query; then the arbiter is asked at once.
 */
void peer_loss_inquire(struct step *step, bool gone)
{
    struct session *s = step->s;
    if (gone || s->config.chaos_ask_nobody) {
        stop_inquiring(step);
        return;
    }
    detector_answered(&s->detector);
    step_ask_peer(step);
    s->loss_query = s->query;
    s->deadline_ms = step->now_ms + s->config.ack_timeout_ms;
}

/*
 * Acts on the peer's answer to the query about its loss. Only an answer to a query sent since the loss
 * counts. A newer term of a peer that runs the guest has ended this side before.
 */
void peer_loss_weigh_answer(struct step *step)
{
    struct session *s = step->s;
    bool leaves_it_to_us = step->event->standing == SESSION_HAS_LET_GO;
    bool leaves_it_to_the_arbiter = step->event->standing == SESSION_ASKS_ARBITER;
    bool takes_over = step->event->standing == SESSION_TAKES_OVER;
    /* Nor does an answer to what was never asked count. */
    if (!s->loss_query || step->event->answer < s->loss_query || step->event->answer > s->query)
        return;
    if (leaves_it_to_us || leaves_it_to_the_arbiter)
        stop_inquiring(step);
    else if (takes_over) /* waits longer: the peer's disks may be slow, and it will run the guest or say why
                            not */
        s->deadline_ms = step->now_ms + s->config.ack_timeout_ms;
}

/* Handles what may happen instead of the peer's answer: link down, a goodbye, silence, or the timer. */
void peer_loss_await_answer(struct step *step)
{
    switch (step->event->type) {
    case SESSION_EVENT_LINK_DOWN:
        step_disconnect(step);
        break;
    case SESSION_EVENT_GOODBYE:
        stop_inquiring(step);
        break;
    case SESSION_EVENT_TICK:
        /* A peer that is heard but never answers hears nothing: by now it has taken over, or it cannot. */
        if (step_is_silent(step) || step_timer_ran_out(step))
            stop_inquiring(step);
        break;
    default:
        break;
    }
}

void peer_loss_give_image_up(struct step *step)
{
    step->s->deadline_ms = 0;
    step_forget_image(step);
    step_act(step, SESSION_DO_FORGET_IMAGE);
    step_act(step, SESSION_DO_CONNECT); /* with a new HELLO, which names no image */
}

/* Enters PEER_LOST: stops capture, resumes a guest that a last epoch may have paused, and asks by policy. */
void peer_loss_begin(struct step *step)
{
    struct session *s = step->s;
    bool gone = step->event->type == SESSION_EVENT_GOODBYE;
    /* A standby that failed its trial could never have taken over: the guest runs on, with policy hold too.
     */
    bool unfit = gone && step->event->reason == SESSION_END_TRIAL_FAILED;
    bool hold = s->config.on_peer_loss == SESSION_ON_PEER_LOSS_HOLD && !unfit;
    bool silent = step->event->type == SESSION_EVENT_TICK && step_is_silent(step);
    s->ack_due_ms = 0;
    step_act(step, SESSION_DO_STOP_CAPTURE);
    if (s->last_epoch_due)
        step_act(step, SESSION_DO_RESUME_GUEST);
    s->last_epoch_due = false;
    if (step->event->type == SESSION_EVENT_LINK_DOWN || gone || hold)
        step_disconnect(step);
    step_enter(step, SESSION_PEER_LOST);
    if (!hold)
        peer_loss_inquire(step, gone || silent);
    else
        step_look_for_peer(step); /* output stays held until a new peer holds it all */
}

void peer_loss_run_alone(struct step *step)
{
    struct session *s = step->s;
    s->term = s->asked_term;
    s->asked_term = s->loss_query = s->seen_term = 0;
    detector_answered(&s->detector);
    s->held = false;
    step_act(step, SESSION_DO_RELEASE_ALL);
    step_connect_again(step);
}

void peer_loss_handle(struct step *step)
{
    struct session *s = step->s;
    if (step_is_our_grant(step)) {
        if (step->event->ok)
            peer_loss_run_alone(step);
        else
            step_fence(step);
    } else if (step->event->type == SESSION_EVENT_TICK && s->asked_term && step_timer_ran_out(step)) {
        step_ask_grant(step);
    } else if (s->loss_query) {
        peer_loss_await_answer(step);
    } else if (step->event->type == SESSION_EVENT_TICK && !s->asked_term && step_timer_ran_out(step)) {
        peer_loss_give_image_up(step);
    } else if (step->event->type == SESSION_EVENT_LINK_UP && !s->asked_term) {
        /*
         * Policy hold, and a peer has returned. The peer may be a new process on a host that ran the guest in
         * between and forgot it. Only the arbiter knows whether another host has let output out since.
         */
        s->link_up = true;
        step_disconnect(step);
        if (step->event->term > s->term)
            step_fence(step);
        else
            step_ask_grant(step);
    }
}
