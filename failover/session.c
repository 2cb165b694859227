/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * See session.h and docs/session.md. Here: what both sides share, the step of an event and what it may do.
 * primary.c and secondary.c have the two roles, one handler a state; what a handler does not
 * name is ignored, for a late or repeated event is normal.
 *
 * The rules that keep the invariants stand where they act:
 *
 *   I1 (primary.c): release() is the only place that releases one epoch. It is called for an ack
 *   of a cut epoch of this term, over a live link; output is held before the first epoch is cut.
 *
 *   I2 (secondary.c): only the epoch that follows the last one is acked, and nothing is promoted
 *   before all that was acked is applied.
 *
 *   I5: a side runs alone only after a grant for its term (step_ask_grant, step_is_our_grant); from the
 *   moment it asks, a secondary acks nothing more.
 */
#include "failover/session_internal.h"

#include <string.h>

#define DEFAULT_SILENCE_MS          100
#define DEFAULT_HANDOVER_TIMEOUT_MS 5000
#define DEFAULT_GRANT_RETRY_MS      200
#define DEFAULT_ACK_TIMEOUT_MS      3000
#define DEFAULT_LISTEN_TIMEOUT_MS   60000

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
    step->s->state = state;
    step->s->deadline_ms = 0;
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
 * How long nothing may be heard. A standby whose link was closed (which a dying process's kernel does, and a
 * cut network or a host that merely stands still does not) needs only a third of the silence to believe it.
 */
static uint64_t silence_limit_ms(const struct session *s)
{
    return s->state == SESSION_STANDBY && !s->link_up ? s->config.silence_ms / 3 : s->config.silence_ms;
}

bool step_is_silent(const struct step *step)
{
    return step->now_ms >= step->s->last_heard_ms + silence_limit_ms(step->s);
}

bool step_timer_ran_out(const struct step *step)
{
    return step->s->deadline_ms != 0 && step->now_ms >= step->s->deadline_ms;
}

/* A newer term exists: whatever this side holds back must never come out. */
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
    step->s->asked_term = term_next(step->s->term, step->s->host);
    step_act(step, SESSION_DO_ASK_GRANT)->term = step->s->asked_term;
    step->s->deadline_ms = step->now_ms + step->s->config.grant_retry_ms;
}

bool step_is_our_grant(const struct step *step)
{
    return step->event->type == SESSION_EVENT_GRANT && step->s->asked_term != 0 &&
           step->event->term == step->s->asked_term;
}

void step_connect_again(struct step *step)
{
    step_enter(step, SESSION_CONNECTING);
    step_act(step, SESSION_DO_CONNECT);
}

void session_init(struct session *s, const struct session_config *config, uint64_t now_ms)
{
    memset(s, 0, sizeof *s);
    s->config = *config;
    if (!s->config.silence_ms)
        s->config.silence_ms = DEFAULT_SILENCE_MS;
    if (!s->config.handover_timeout_ms)
        s->config.handover_timeout_ms = DEFAULT_HANDOVER_TIMEOUT_MS;
    if (!s->config.grant_retry_ms)
        s->config.grant_retry_ms = DEFAULT_GRANT_RETRY_MS;
    if (!s->config.ack_timeout_ms)
        s->config.ack_timeout_ms = DEFAULT_ACK_TIMEOUT_MS;
    if (!s->config.listen_timeout_ms)
        s->config.listen_timeout_ms = DEFAULT_LISTEN_TIMEOUT_MS;
    s->role = config->role;
    s->state = config->role == SESSION_PRIMARY ? SESSION_CONNECTING : SESSION_LISTENING;
    s->term = config->term;
    /* A primary's term is its own host's, and a standby is the other host. */
    s->host = config->role == SESSION_PRIMARY ? term_host(config->term) : !term_host(config->term);
    s->first_epoch = 1;
    s->last_heard_ms = now_ms;
    if (s->state == SESSION_LISTENING)
        s->deadline_ms = now_ms + s->config.listen_timeout_ms;
}

void session_handle(struct session *s, const struct session_event *event, uint64_t now_ms,
                    struct session_actions *out)
{
    struct step step = {.s = s, .event = event, .now_ms = now_ms, .out = out};
    out->n = 0;
    if (s->state == SESSION_ENDED)
        return;
    if (event->type == SESSION_EVENT_START) {
        step_act(&step, SESSION_DO_CONNECT);
        return;
    }
    if (s->role == SESSION_PRIMARY)
        session_handle_primary(&step);
    else
        session_handle_secondary(&step);
}

uint64_t session_next_tick_ms(const struct session *s)
{
    uint64_t next = s->deadline_ms ? s->deadline_ms : UINT64_MAX;
    switch (s->state) {
    case SESSION_SYNCHRONISING:
    case SESSION_ARMING:
    case SESSION_PROTECTED:
    case SESSION_HANDING_OVER:
    case SESSION_FOLLOWING:
    case SESSION_STANDBY: {
        uint64_t silent = s->last_heard_ms + silence_limit_ms(s);
        bool awaits_acks = s->state == SESSION_ARMING || s->state == SESSION_PROTECTED;
        if (awaits_acks && s->ack_due_ms && s->ack_due_ms < next)
            next = s->ack_due_ms;
        return silent < next ? silent : next;
    }
    case SESSION_ENDED:
        return UINT64_MAX;
    default:
        return next;
    }
}

void session_excuse_silence(struct session *s, uint64_t stalled_ms, uint64_t now_ms)
{
    uint64_t excused = s->last_heard_ms + stalled_ms;
    if (excused > s->last_heard_ms)
        s->last_heard_ms = excused < now_ms ? excused : now_ms;
    if (s->ack_due_ms)
        s->ack_due_ms += stalled_ms;
}
