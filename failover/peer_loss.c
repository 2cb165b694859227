/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A primary that has lost its peer, while the peer may hold an epoch from which it could promote.
 *
 *   policy continue   the peer is asked to let go of its image, then the arbiter for a term; then the guest
 *                     runs on alone and output flows
 *   policy hold       output waits for a peer that holds it all; nobody is asked before one is back
 */
#include "failover/session_parts.h"

/* The arbiter decides: the peer has let go, is dead as far as anybody can see, or has asked it as well. */
static void stop_inquiring(struct step *step)
{
    if (step->s->link_up)
        step_disconnect(step);
    step_ask_grant(step);
}

/*
 * PEER_LOST and HANDOVER_UNSURE: the peer may hold an epoch from which it could promote. It is asked to let
 * go of it, by every path, and the link stays as long as it is one. gone: it said itself that it has ended,
 * or it was asked and is silent.
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

/* What the peer says while it is asked. Its newer term would have ended this side already. */
void peer_loss_weigh_answer(struct step *step)
{
    struct session *s = step->s;
    bool leaves_it_to_us = step->event->standing == SESSION_HAS_LET_GO;
    bool leaves_it_to_the_arbiter = step->event->standing == SESSION_ASKS_ARBITER;
    bool takes_over = step->event->standing == SESSION_TAKES_OVER;
    if (!s->loss_query || step->event->answer < s->loss_query)
        return;
    if (leaves_it_to_us || leaves_it_to_the_arbiter)
        stop_inquiring(step);
    else if (takes_over) /* its disks may be slow: it will run the guest, or say why not */
        s->deadline_ms = step->now_ms + s->config.ack_timeout_ms;
}

/* While no grant is asked for: the peer has been asked, and what happens instead of its answer. */
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
        /* One that is heard and never answers hears nothing itself: it has taken over by now, or cannot. */
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
    step_act(step, SESSION_DO_CONNECT); /* with another HELLO */
}

/* The peer is gone while it may hold an epoch from which it could promote. */
void peer_loss_begin(struct step *step)
{
    struct session *s = step->s;
    bool gone = step->event->type == SESSION_EVENT_GOODBYE;
    /* One that could never have taken over protected nothing: the guest goes on as it was before. */
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
         * Policy hold, and a peer is back. It may be a new one that knows nothing of a promotion that
         * happened and died meanwhile; only the arbiter knows that nobody else's output came out since.
         */
        s->link_up = true;
        step_disconnect(step);
        if (step->event->term > s->term)
            step_fence(step);
        else
            step_ask_grant(step);
    }
}
