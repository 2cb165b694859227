/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Helpers for one step of the session: actions, transitions, queries, requests to the arbiter, fencing. */
#include "failover/session_step.h"

#include "failover/transitions.h"

#include <string.h>

struct session_action *step_act(struct step *step, enum session_action_type type)
{
    /* Every path stays far below the limit; the last slot absorbs a mistake instead of memory. */
    size_t at = step->out->n < SESSION_MAX_ACTIONS ? step->out->n++ : SESSION_MAX_ACTIONS - 1;
    struct session_action *action = &step->out->list[at];
    memset(action, 0, sizeof *action);
    action->type = type;
    action->term = step->s->term;
    return action;
}

void step_enter(struct step *step, enum session_state state)
{
    struct session *s = step->s;
    int place = transition_find(s->state, state, s->role);
    if (place >= 0) {
        s->transitions |= 1ull << place;
    } else if (!step->bug) {
        step->bug = true;
        s->bug_from = s->state;
        s->bug_to = state;
    }
    s->state = state;
    s->deadline_ms = 0;
}

void step_end(struct step *step, enum session_end_reason reason)
{
    step->s->end_reason = reason;
    step_enter(step, SESSION_ENDED);
    step_act(step, SESSION_DO_END)->reason = reason;
}

void step_disconnect(struct step *step)
{
    step->s->link_up = false;
    step_act(step, SESSION_DO_DISCONNECT);
}

void step_say_goodbye(struct step *step, enum session_end_reason reason)
{
    step_act(step, SESSION_DO_SEND_GOODBYE)->reason = reason;
}

/*
 * Chooses how long the peer may be silent. The limit is shorter if the peer closed the link: the kernel
 * closes it when a process dies, but not when a network is cut or a host stands still.
 */
static enum detector_limit limit_of(const struct session *s)
{
    if (s->state == SESSION_HANDOVER_UNSURE)
        return DETECTOR_BUSY; /* the peer was told to promote */
    bool link_counts = s->state == SESSION_STANDBY || s->state == SESSION_PEER_LOST;
    return link_counts && !s->link_up ? DETECTOR_LINK_CLOSED : DETECTOR_SILENCE;
}

bool session_has_guest(const struct session *s)
{
    switch (s->state) {
    case SESSION_CONNECTING:
    case SESSION_SYNCHRONISING:
    case SESSION_ARMING:
    case SESSION_PROTECTED:
    case SESSION_PEER_LOST:
        return s->role == SESSION_PRIMARY;
    default:
        return false;
    }
}

bool session_peer_takes_back(const struct session *s)
{
    return s->handed_over && s->link_up;
}

bool session_watches_peer(const struct session *s)
{
    switch (s->state) {
    case SESSION_ARMING:
    case SESSION_PROTECTED:
    case SESSION_HANDING_OVER:
    case SESSION_STANDBY:
        return true;
    case SESSION_PEER_LOST:
    case SESSION_HANDOVER_UNSURE:
        return s->asked_term == 0 && s->loss_query != 0;
    default:
        return false;
    }
}

static uint64_t later(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

uint64_t session_silent_at_ms(const struct session *s)
{
    bool asks = session_watches_peer(s) && !s->config.chaos_ask_nobody;
    return asks ? detector_silent_at_ms(&s->detector, limit_of(s))
                : detector_unheard_at_ms(&s->detector, limit_of(s));
}

bool step_is_silent(const struct step *step)
{
    return step->now_ms >= session_silent_at_ms(step->s);
}

void step_ask_peer(struct step *step)
{
    struct session *s = step->s;
    if (s->detector.asked)
        return;
    s->query++;
    detector_asked(&s->detector, step->now_ms);
    step_act(step, SESSION_DO_ASK_PEER)->epoch = s->query;
}

void step_ask_if_beat_is_missed(struct step *step)
{
    if (step->now_ms >= detector_missed_beat_at_ms(&step->s->detector))
        step_ask_peer(step);
}

void step_heard(struct step *step)
{
    struct session *s = step->s;
    detector_heard(&s->detector, step->now_ms);
    if (!s->loss_query)
        detector_answered(&s->detector);
}

void step_answer(struct step *step)
{
    if (step->event->query && !step->answered)
        step_act(step, SESSION_DO_SEND_ANSWER)->epoch = step->event->query;
    step->answered = true;
}

bool step_timer_ran_out(const struct step *step)
{
    return step->s->deadline_ms != 0 && step->now_ms >= step->s->deadline_ms;
}

/* Output that is held must never be released, because a newer term exists. */
void step_fence(struct step *step)
{
    step_act(step, SESSION_DO_STOP_CAPTURE);
    step_act(step, SESSION_DO_DROP_OUTPUT);
    step_act(step, SESSION_DO_FENCE_GUEST);
    step_disconnect(step);
    step_enter(step, SESSION_FENCED);
    step_end(step, SESSION_END_FENCED);
}

void step_ask_grant(struct step *step)
{
    struct session *s = step->s;
    s->asked_term = term_next(later(later(s->term, s->seen_term), s->config.used_term), s->host);
    if (s->config.chaos_equal_terms)
        s->asked_term = term_next(s->term, 0);
    s->loss_query = 0;
    detector_answered(&s->detector);
    step_act(step, SESSION_DO_ASK_GRANT)->term = s->asked_term;
    s->deadline_ms = step->now_ms + s->config.grant_retry_ms;
}

bool step_believes_term(const struct step *step)
{
    const struct session *s = step->s;
    uint64_t known = later(later(s->term, s->asked_term), later(s->seen_term, s->config.used_term));
    known = later(known, s->primary_term);
    return term_is_believable(known, step->event->term);
}

bool step_is_our_grant(const struct step *step)
{
    return step->event->type == SESSION_EVENT_GRANT && step->s->asked_term != 0 &&
           step->event->term == step->s->asked_term;
}

/*
 * Looks for a peer. A standby listens for listen_timeout_ms and then ends. The primary stops tracking changes
 * for it after that time, since tracking slows the guest down.
 */
void step_look_for_peer(struct step *step)
{
    if (step->s->origin_kept)
        step->s->deadline_ms = step->now_ms + step->s->config.listen_timeout_ms;
    step_act(step, SESSION_DO_CONNECT);
}

void step_connect_again(struct step *step)
{
    step_enter(step, SESSION_CONNECTING);
    step_look_for_peer(step);
}

void step_listen_again(struct step *step)
{
    step_enter(step, SESSION_LISTENING);
    step->s->deadline_ms = step->now_ms + step->s->config.listen_timeout_ms;
    step_act(step, SESSION_DO_CONNECT);
}
