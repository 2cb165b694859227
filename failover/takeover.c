/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Takes over on a secondary: asks the arbiter for a term, and promotes the newest acked epoch once the term
 * is granted.
 *
 * I5: a secondary that has asked for a term acks nothing more, and it promotes only with a grant.
 * I2: a secondary promotes only after every epoch that it acked has been applied.
 */
#include "failover/session_parts.h"

static void promote(struct step *step)
{
    struct session_action *action = step_act(step, SESSION_DO_PROMOTE);
    action->term = step->s->term;
    action->epoch = step->s->acked_epoch;
    step->s->promoting = true;
    step_forget_image(step); /* the promoted guest is a new run, so the image's origin does not hold for it */
}

static void promote_when_applied(struct step *step)
{
    struct session *s = step->s;
    if (!s->promoting && (s->applied_epoch >= s->acked_epoch || s->config.chaos_apply_unacked))
        promote(step);
}

/* Asks for a term. This side acks nothing from here on. */
void takeover_begin(struct step *step, bool keep_link)
{
    if (!keep_link)
        step_disconnect(step);
    step->s->promoting = false;
    step_enter(step, SESSION_ASKING);
    if (step->s->config.chaos_promote_without_grant) {
        step->s->term = term_next(step->s->term, step->s->host);
        step_enter(step, SESSION_PROMOTING);
        promote_when_applied(step);
        return;
    }
    step_ask_grant(step);
}

void takeover_handle_asking(struct step *step)
{
    struct session *s = step->s;
    if (step_is_our_grant(step)) {
        if (!step->event->ok) {
            /* The other side runs alone: this image must not be promoted until that side has updated it. */
            s->asked_term = 0;
            s->handed_over = false;
            step_disconnect(step);
            step_listen_again(step);
            return;
        }
        s->term = s->asked_term;
        s->asked_term = 0;
        /* Tells a primary that is still alive (forced failover) before the link is closed. */
        if (s->link_up && !s->handed_over)
            step_act(step, SESSION_DO_SEND_FENCED);
        step_enter(step, SESSION_PROMOTING);
        promote_when_applied(step);
    } else if (step->event->type == SESSION_EVENT_TICK && step_timer_ran_out(step)) {
        step_ask_grant(step);
    }
}

static void become_primary(struct step *step)
{
    struct session *s = step->s;
    /* After a handover, the old primary closes the link when it has read HANDOVER_DONE. */
    if (s->handed_over && s->link_up)
        step_act(step, SESSION_DO_SEND_HANDOVER_DONE);
    else
        step_disconnect(step);
    s->link_up = false;
    s->role = SESSION_PRIMARY;
    s->handed_over = s->promoting = s->held = s->handover_sent = false;
    s->cut_epoch = s->released_epoch = s->sent_epoch = s->acked_epoch;
    s->ack_due_ms = 0;
    detector_answered(&s->detector);
    detector_told_deaf(&s->detector, false, step->now_ms);
    s->first_epoch = s->cut_epoch + 1;
    step_act(step, SESSION_DO_RELEASE_ALL);
    step_connect_again(step);
}

void takeover_handle_promoting(struct step *step)
{
    if (step->event->type == SESSION_EVENT_PROMOTED) {
        if (step->event->ok) {
            become_primary(step);
            return;
        }
        /* After a handover, the old primary still has the paused guest, and takes it back. */
        if (step->s->handed_over && step->s->link_up)
            step_say_goodbye(step, SESSION_END_PROMOTE_FAILED);
        step_end(step, SESSION_END_PROMOTE_FAILED);
        return;
    }
    promote_when_applied(step);
}
