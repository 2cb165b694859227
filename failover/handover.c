/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Planned failover on the primary. The last epoch leaves the guest paused. When the peer has acked it, the
 * primary tells the peer to promote. Until then, the primary can resume the guest at any time. Afterwards the
 * peer may run the guest, so the guest here stays paused until the peer or the arbiter says who runs it.
 */
#include "failover/session_parts.h"

void handover_begin(struct step *step)
{
    step_enter(step, SESSION_HANDING_OVER);
    step->s->handover_epoch = 0;
    step->s->handover_sent = false; /* an earlier attempt may have got that far */
    step->s->last_epoch_due = true;
    step->s->deadline_ms = step->now_ms + step->s->config.handover_timeout_ms;
    step_act(step, SESSION_DO_LAST_EPOCH);
}

/* Ends this side: the peer runs the guest. The guest here has been paused since its last epoch. */
void handover_finish(struct step *step)
{
    step_act(step, SESSION_DO_STOP_CAPTURE);
    step_act(step, SESSION_DO_DROP_OUTPUT);
    step_act(step, SESSION_DO_QUIT_HYPERVISOR);
    step_end(step, SESSION_END_HANDED_OVER);
}

/* Gives the handover up: the peer was not told to promote. lost: the peer is lost as well. */
static void take_back(struct step *step, bool lost)
{
    if (lost) {
        step->s->last_epoch_due = true; /* the guest is resumed even if the last epoch has been cut already */
        peer_loss_begin(step);
    } else {
        step_act(step, SESSION_DO_RESUME_GUEST);
        step_enter(step, SESSION_PROTECTED);
        step_act(step, SESSION_DO_START_EPOCHS);
    }
}

static void send_handover_if_acked(struct step *step)
{
    struct session *s = step->s;
    /* handover_epoch is the epoch that left the guest paused. Capture reports it with ok set; ordinary epochs
     * may still be reported after LAST_EPOCH was ordered. */
    if (s->handover_epoch && s->acked_epoch >= s->handover_epoch && !s->handover_sent) {
        s->handover_sent = true;
        step_act(step, SESSION_DO_SEND_HANDOVER)->epoch = s->handover_epoch;
    }
}

static void be_unsure(struct step *step)
{
    struct session *s = step->s;
    bool gone = step->event->type == SESSION_EVENT_GOODBYE;
    if (gone && step->event->term > s->seen_term)
        s->seen_term = step->event->term;
    if (gone && step->event->term > s->term)
        step_forget_image(step);
    step_act(step, SESSION_DO_STOP_CAPTURE);
    if (step->event->type == SESSION_EVENT_LINK_DOWN || gone)
        step_disconnect(step);
    step_enter(step, SESSION_HANDOVER_UNSURE);
    peer_loss_inquire(step, gone);
}

void handover_handle(struct step *step)
{
    struct session *s = step->s;
    switch (step->event->type) {
    case SESSION_EVENT_EPOCH_CUT:
        commit_on_cut(step);
        if (step->event->ok && step->event->epoch == s->cut_epoch)
            s->handover_epoch = s->cut_epoch;
        send_handover_if_acked(step);
        break;
    case SESSION_EVENT_ACK:
        commit_on_ack(step);
        send_handover_if_acked(step);
        break;
    case SESSION_EVENT_HANDOVER_DONE:
        if (s->handover_sent && step->event->term > s->term)
            handover_finish(step);
        break;
    case SESSION_EVENT_LINK_DOWN:
    case SESSION_EVENT_GOODBYE:
    case SESSION_EVENT_TICK:
        if (step->event->type == SESSION_EVENT_TICK) {
            step_ask_if_beat_is_missed(step);
            if (!step_timer_ran_out(step) && !step_is_silent(step) && !commit_path_is_cut(step))
                break;
        }
        if (!s->handover_sent) {
            take_back(step, step->event->type != SESSION_EVENT_TICK || step_is_silent(step) ||
                                commit_path_is_cut(step));
            break;
        }
        /*
         * The peer may run the guest. The guest here stays paused until the peer, or else the arbiter, has
         * answered. A peer that could not promote says so in its goodbye, with the term that it was granted:
         * that term cannot be granted again.
         */
        be_unsure(step);
        break;
    default:
        break;
    }
}

void handover_unsure_handle(struct step *step)
{
    if (step_is_our_grant(step)) {
        if (step->event->ok) {
            step_act(step, SESSION_DO_RESUME_GUEST);
            peer_loss_run_alone(step);
        } else {
            step_fence(step);
        }
    } else if (step->s->loss_query) {
        if (step->event->type == SESSION_EVENT_HANDOVER_DONE && step->event->term > step->s->term)
            handover_finish(step);
        else
            peer_loss_await_answer(step);
    } else if (step->event->type == SESSION_EVENT_TICK && step_timer_ran_out(step)) {
        step_ask_grant(step);
    }
}
