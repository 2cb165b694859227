/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The primary's half of the session: it runs the guest, cuts epochs, and releases output that the peer holds.
 *
 *   connecting -> synchronising -> arming -> protected -> peer-lost, handing-over or leaving
 *
 * This file has one handler for each state, and the events that end a primary in any state. output_commit.c
 * keeps I1.
 */
#include "failover/session_parts.h"

#define GOODBYE_TIMEOUT_MS 500

/*
 * Why this side ends when the peer has not said that it ends, too. Output is held as long as the peer may
 * hold an epoch from which it could promote: then the guest may go on there, and nobody may be told
 * otherwise.
 */
static enum session_end_reason unanswered(const struct session *s)
{
    return s->held && !s->config.chaos_stop_unconfirmed ? SESSION_END_UNCONFIRMED : s->end_reason;
}

static void start_synchronising(struct step *step)
{
    struct session *s = step->s;
    bool kept = step_image_fate(step) == IMAGE_KEPT;
    s->link_up = true;
    step_heard(step);
    detector_heard_by_path(&s->detector, step->now_ms);
    detector_told_deaf(&s->detector, false, step->now_ms);
    s->ack_due_ms = 0;
    s->first_epoch = s->cut_epoch + 1; /* acks of older epochs belong to an earlier image */
    step_enter(step, SESSION_SYNCHRONISING);
    if (kept) {
        step_act(step, SESSION_DO_START_RESYNC)->epoch = s->acked_epoch;
    } else {
        step_new_image(step);
        step_act(step, SESSION_DO_START_PRECOPY);
    }
}

static void primary_link_up(struct step *step)
{
    struct session *s = step->s;
    if (!step_believes_term(step)) {
        step_disconnect(step);
        step_connect_again(step);
    } else if (step->event->term > s->term) {
        step_fence(step);
    } else if (step->event->peer_role == SESSION_PRIMARY) {
        /* The other primary has the older term and must stop. Nothing else is sent by this link. */
        step_act(step, SESSION_DO_SEND_FENCED);
        step_disconnect(step);
        step_connect_again(step);
    } else if (step_image_fate(step) == IMAGE_UNSURE) {
        step_disconnect(step);
        step_connect_again(step);
    } else {
        start_synchronising(step);
    }
}

static void on_heartbeat(struct step *step)
{
    struct session *s = step->s;
    uint64_t term = step->event->term;
    /* In a handover the peer has a newer term from its grant on, but it runs the guest only as a primary. */
    bool told = s->state == SESSION_HANDOVER_UNSURE || (s->state == SESSION_HANDING_OVER && s->handover_sent);
    if (term <= s->term || (told && step->event->peer_role == SESSION_SECONDARY)) {
        step_heard(step);
        peer_loss_weigh_answer(step);
    } else if (told) {
        handover_finish(step); /* the heartbeat arrived before HANDOVER_DONE */
    } else {
        step_fence(step);
    }
}

/* Handles the events that mean the same in any state. True if the event was handled. */
static bool primary_common(struct step *step)
{
    struct session *s = step->s;
    switch (step->event->type) {
    case SESSION_EVENT_FENCED:
        if (step->event->term <= s->term)
            return false;
        step_fence(step);
        return true;
    case SESSION_EVENT_HEARTBEAT:
        on_heartbeat(step);
        return true;
    case SESSION_EVENT_TRACKING_LOST:
        step_forget_image(step);
        return true;
    case SESSION_EVENT_HYPERVISOR_DIED:
        step_act(step, SESSION_DO_STOP_CAPTURE);
        step_act(step, SESSION_DO_DROP_OUTPUT);
        step_say_goodbye(step, SESSION_END_HYPERVISOR_DIED);
        step_end(step, SESSION_END_HYPERVISOR_DIED);
        return true;
    case SESSION_EVENT_GUEST_SHUTDOWN:
    case SESSION_EVENT_STOP:
        step_act(step, SESSION_DO_STOP_CAPTURE);
        s->end_reason = step->event->type == SESSION_EVENT_STOP       ? SESSION_END_STOPPED
                        : step->event->reason == SESSION_END_PANICKED ? SESSION_END_PANICKED
                                                                      : SESSION_END_GUEST_SHUTDOWN;
        if (!s->link_up && !s->held) {
            step_act(step, SESSION_DO_RELEASE_ALL);
            step_act(step, SESSION_DO_QUIT_HYPERVISOR);
            step_end(step, s->end_reason);
            return true;
        }
        /* Held output may be released once the peer has confirmed that it will not run this guest. A peer
         * that has taken the guest over says so meanwhile. */
        if (s->link_up)
            step_say_goodbye(step, s->end_reason);
        else
            step_disconnect(step); /* no new link for a guest that ends */
        step_enter(step, SESSION_LEAVING);
        s->deadline_ms = step->now_ms + GOODBYE_TIMEOUT_MS;
        return true;
    default:
        return false;
    }
}

static void in_connecting(struct step *step)
{
    if (step->event->type == SESSION_EVENT_LINK_UP)
        primary_link_up(step);
    else if (step->event->type == SESSION_EVENT_TICK && step_timer_ran_out(step))
        peer_loss_give_image_up(step);
}

static void in_synchronising(struct step *step)
{
    struct session *s = step->s;
    bool lost = step->event->type == SESSION_EVENT_LINK_DOWN || step->event->type == SESSION_EVENT_GOODBYE ||
                (step->event->type == SESSION_EVENT_TICK && step_is_silent(step));
    if (lost) {
        /* The peer has no whole image, so it cannot have promoted from this synchronisation. */
        step_act(step, SESSION_DO_STOP_CAPTURE);
        step_disconnect(step);
        step_connect_again(step);
    } else if (step->event->type == SESSION_EVENT_SYNCHRONISED) {
        s->held = true;
        step_act(step, SESSION_DO_HOLD_OUTPUT); /* before the first cut: I1 */
        step_enter(step, SESSION_ARMING);
        step_act(step, SESSION_DO_START_EPOCHS);
    }
}

/* Handles ARMING and PROTECTED, in which the peer may hold an epoch. */
static void in_protected(struct step *step)
{
    switch (step->event->type) {
    case SESSION_EVENT_EPOCH_CUT:
        commit_on_cut(step);
        /* The last epoch of a handover that was given up has paused the guest: nothing else resumes it. */
        if (step->event->ok)
            step_act(step, SESSION_DO_RESUME_GUEST);
        break;
    case SESSION_EVENT_EPOCH_SENT:
        commit_on_sent(step);
        break;
    case SESSION_EVENT_ACK:
        commit_on_ack(step);
        if (step->s->state == SESSION_ARMING && step->s->acked_epoch >= step->s->first_epoch &&
            !step->event->untried)
            step_enter(step, SESSION_PROTECTED);
        if (step->s->acked_epoch >= step->s->first_epoch)
            step_image_is_whole(step);
        break;
    case SESSION_EVENT_LINK_DOWN:
    case SESSION_EVENT_GOODBYE:
        peer_loss_begin(step);
        break;
    case SESSION_EVENT_TICK:
        step_ask_if_beat_is_missed(step);
        if (step_is_silent(step) || commit_ack_is_overdue(step) || commit_path_is_cut(step))
            peer_loss_begin(step);
        break;
    case SESSION_EVENT_FAILOVER_PLANNED:
        if (step->s->state == SESSION_PROTECTED)
            handover_begin(step);
        break;
    default:
        break;
    }
}

static void in_leaving(struct step *step)
{
    struct session *s = step->s;
    enum session_event_type type = step->event->type;
    bool told = type == SESSION_EVENT_GOODBYE;
    /* A peer that holds nothing has nothing to add once its link is gone. */
    bool alone = (type == SESSION_EVENT_LINK_DOWN && !s->held) ||
                 (type == SESSION_EVENT_TICK && step_timer_ran_out(step));
    if ((type == SESSION_EVENT_HEARTBEAT || type == SESSION_EVENT_FENCED) && step->event->term > s->term) {
        step_fence(step);
        return;
    }
    if (type == SESSION_EVENT_LINK_DOWN)
        step_disconnect(step);
    if (!told && !alone)
        return;
    /* Only the peer's goodbye proves that the peer will not run the guest. Without it, held output is
     * dropped. */
    step_act(step, told || !s->held ? SESSION_DO_RELEASE_ALL : SESSION_DO_DROP_OUTPUT);
    step_act(step, SESSION_DO_QUIT_HYPERVISOR);
    step_end(step, told ? s->end_reason : unanswered(s));
}

void session_handle_primary(struct step *step)
{
    if (step->s->state != SESSION_LEAVING && (leave_handle(step) || primary_common(step)))
        return;
    switch (step->s->state) {
    case SESSION_CONNECTING:
        in_connecting(step);
        break;
    case SESSION_SYNCHRONISING:
        in_synchronising(step);
        break;
    case SESSION_ARMING:
    case SESSION_PROTECTED:
        in_protected(step);
        break;
    case SESSION_PEER_LOST:
        peer_loss_handle(step);
        break;
    case SESSION_HANDING_OVER:
        handover_handle(step);
        break;
    case SESSION_HANDOVER_UNSURE:
        handover_unsure_handle(step);
        break;
    case SESSION_LEAVING:
        in_leaving(step);
        break;
    default:
        break;
    }
}
