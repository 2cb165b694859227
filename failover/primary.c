/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The primary's half of the session: it runs the guest, cuts epochs, and lets out what the peer holds.
 *
 *   connecting -> synchronising -> arming -> protected -> peer-lost, handing-over or leaving
 *
 * I1 is kept here: release() is called for the ack of a cut epoch of this term and synchronisation, over a
 * live link, and by nothing else; output is held before the first epoch is cut.
 */
#include "failover/session_internal.h"

#define GOODBYE_TIMEOUT_MS 500

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
static void inquire(struct step *step, bool gone)
{
    struct session *s = step->s;
    if (gone || s->config.chaos_ask_nobody) {
        stop_inquiring(step);
        return;
    }
    s->query_ms = 0;
    step_ask_peer(step);
    s->loss_query = s->query;
    s->deadline_ms = step->now_ms + s->config.ack_timeout_ms;
}

/* What the peer says while it is asked. Its newer term would have ended this side already. */
static void weigh_answer(struct step *step)
{
    struct session *s = step->s;
    bool leaves_it_to_us = step->event->standing == SESSION_HAS_LET_GO;
    bool leaves_it_to_the_arbiter = step->event->standing == SESSION_ASKS_ARBITER;
    if (s->loss_query && step->event->answer >= s->loss_query &&
        (leaves_it_to_us || leaves_it_to_the_arbiter))
        stop_inquiring(step);
}

/* While no grant is asked for: the peer has been asked, and what happens instead of its answer. */
static void await_answer(struct step *step)
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

/*
 * Looks for a peer. A standby that has not been found after the time for which it listens has ended, and
 * tracking what its image lacks costs the guest something.
 */
static void look_again(struct step *step)
{
    if (step->s->origin_kept)
        step->s->deadline_ms = step->now_ms + step->s->config.listen_timeout_ms;
    step_act(step, SESSION_DO_CONNECT);
}

static void connect_again(struct step *step)
{
    step_enter(step, SESSION_CONNECTING);
    look_again(step);
}

static void give_image_up(struct step *step)
{
    step->s->deadline_ms = 0;
    step_forget_image(step);
    step_act(step, SESSION_DO_FORGET_IMAGE);
    step_act(step, SESSION_DO_CONNECT); /* with another HELLO */
}

/* The peer is gone while it may hold an epoch from which it could promote. */
static void lose_peer(struct step *step)
{
    struct session *s = step->s;
    bool hold = s->config.on_peer_loss == SESSION_ON_PEER_LOSS_HOLD;
    bool gone = step->event->type == SESSION_EVENT_GOODBYE;
    bool silent = step->event->type == SESSION_EVENT_TICK && step_is_silent(step);
    s->ack_due_ms = 0;
    step_act(step, SESSION_DO_STOP_CAPTURE);
    if (step->event->type == SESSION_EVENT_LINK_DOWN || gone || hold)
        step_disconnect(step);
    step_enter(step, SESSION_PEER_LOST);
    if (!hold)
        inquire(step, gone || silent);
    else
        look_again(step); /* output stays held until a new peer holds it all */
}

static void run_alone(struct step *step)
{
    struct session *s = step->s;
    s->term = s->asked_term;
    s->asked_term = s->loss_query = s->query_ms = s->seen_term = 0;
    s->held = false;
    step_act(step, SESSION_DO_RELEASE_ALL);
    connect_again(step);
}

static void release(struct step *step, uint64_t epoch)
{
    struct session *s = step->s;
    if (epoch > s->cut_epoch || epoch <= s->released_epoch)
        return;
    s->released_epoch = epoch;
    step_act(step, SESSION_DO_RELEASE)->epoch = epoch;
}

/*
 * A peer whose heart beats but that takes or acks nothing more (a path that swallows the link, a stuck disk)
 * is as good as lost: output would wait for it for ever. How long an epoch takes to send is the link's
 * affair.
 */
static void on_sent(struct step *step)
{
    struct session *s = step->s;
    if (step->event->epoch > s->cut_epoch || step->event->epoch <= s->sent_epoch)
        return;
    s->sent_epoch = step->event->epoch;
    if (!s->ack_due_ms && s->sent_epoch > s->acked_epoch)
        s->ack_due_ms = step->now_ms + s->config.ack_timeout_ms;
}

/*
 * The checkpoints' own network, and the peer lives: it is heard by another one. Nothing has come by it for
 * twice a silence, or the peer says for a silence that nothing reaches it. A standby that is merely slow is
 * heard by that network all the time.
 */
uint64_t session_path_is_cut_at_ms(const struct session *s)
{
    uint64_t cut_ms = s->path_heard_ms + 2 * s->config.silence_ms;
    bool awaits = s->cut_epoch > s->acked_epoch || s->state == SESSION_HANDING_OVER;
    if (!s->config.other_paths || s->config.chaos_wait_for_acks || !awaits)
        return UINT64_MAX;
    if (s->deaf_since_ms && s->deaf_since_ms + s->config.silence_ms < cut_ms)
        return s->deaf_since_ms + s->config.silence_ms;
    return cut_ms;
}

static bool path_is_cut(const struct step *step)
{
    return step->now_ms >= session_path_is_cut_at_ms(step->s);
}

static bool ack_is_overdue(const struct step *step)
{
    return step->s->ack_due_ms != 0 && step->now_ms >= step->s->ack_due_ms;
}

static void on_ack(struct step *step)
{
    struct session *s = step->s;
    uint64_t epoch = step->event->epoch;
    if (!s->link_up || step->event->term != s->term || epoch > s->cut_epoch || epoch < s->first_epoch)
        return;
    step_heard(step);
    s->path_heard_ms = step->now_ms;
    if (epoch > s->acked_epoch) {
        s->acked_epoch = epoch;
        s->ack_due_ms = s->sent_epoch > epoch ? step->now_ms + s->config.ack_timeout_ms : 0;
    }
    release(step, epoch);
}

static void on_cut(struct step *step)
{
    struct session *s = step->s;
    /* Numbers grow, not always by one: an epoch that was cut while capture was being stopped is never heard
     * of. */
    if (step->event->epoch <= s->cut_epoch)
        return;
    s->cut_epoch = step->event->epoch;
    if (s->config.chaos_release_before_ack)
        release(step, s->cut_epoch);
}

static void start_synchronising(struct step *step)
{
    struct session *s = step->s;
    bool kept = step_image_fate(step) == IMAGE_KEPT;
    s->link_up = true;
    step_heard(step);
    s->path_heard_ms = step->now_ms;
    s->deaf_since_ms = 0;
    s->ack_due_ms = 0;
    s->first_epoch = s->cut_epoch + 1; /* acks of older epochs speak of an image that is gone */
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
    if (step->event->term > s->term) {
        step_fence(step);
    } else if (step->event->peer_role == SESSION_PRIMARY) {
        /* It must stop; the link is of no other use. */
        step_act(step, SESSION_DO_SEND_FENCED);
        step_disconnect(step);
        connect_again(step);
    } else if (step_image_fate(step) == IMAGE_UNSURE) {
        step_disconnect(step);
        connect_again(step);
    } else {
        start_synchronising(step);
    }
}

/* The peer runs the guest; this one has been paused since its last epoch. */
static void handed_over(struct step *step)
{
    step_act(step, SESSION_DO_STOP_CAPTURE);
    step_act(step, SESSION_DO_DROP_OUTPUT);
    step_act(step, SESSION_DO_QUIT_HYPERVISOR);
    step_end(step, SESSION_END_HANDED_OVER);
}

static void on_heartbeat(struct step *step)
{
    struct session *s = step->s;
    uint64_t term = step->event->term;
    /* In a handover the peer has the newer term from its grant on, and runs the guest only as a primary. */
    bool told = s->state == SESSION_HANDOVER_UNSURE || (s->state == SESSION_HANDING_OVER && s->handover_sent);
    if (term <= s->term || (told && step->event->peer_role == SESSION_SECONDARY)) {
        step_heard(step);
        weigh_answer(step);
    } else if (told) {
        handed_over(step); /* its heart is heard before its message is read */
    } else {
        step_fence(step);
    }
}

/* What ends a primary in any state. True if it did. */
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
        if (!s->link_up) {
            if (!s->held)
                step_act(step, SESSION_DO_RELEASE_ALL);
            step_act(step, SESSION_DO_QUIT_HYPERVISOR);
            step_end(step, s->end_reason);
            return true;
        }
        /* What is still held may go out once the peer will never resume this guest. */
        step_say_goodbye(step, s->end_reason);
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
        give_image_up(step);
}

static void in_synchronising(struct step *step)
{
    struct session *s = step->s;
    bool lost = step->event->type == SESSION_EVENT_LINK_DOWN || step->event->type == SESSION_EVENT_GOODBYE ||
                (step->event->type == SESSION_EVENT_TICK && step_is_silent(step));
    if (lost) {
        /* No whole image over there: it cannot have been promoted from this synchronisation. */
        step_act(step, SESSION_DO_STOP_CAPTURE);
        step_disconnect(step);
        connect_again(step);
    } else if (step->event->type == SESSION_EVENT_SYNCHRONISED) {
        s->held = true;
        step_act(step, SESSION_DO_HOLD_OUTPUT); /* before the first cut: I1 */
        step_enter(step, SESSION_ARMING);
        step_act(step, SESSION_DO_START_EPOCHS);
    }
}

void step_begin_handover(struct step *step)
{
    step_enter(step, SESSION_HANDING_OVER);
    step->s->handover_epoch = 0;
    step->s->handover_sent = false; /* an earlier attempt may have got that far */
    step->s->deadline_ms = step->now_ms + step->s->config.handover_timeout_ms;
    step_act(step, SESSION_DO_LAST_EPOCH);
}

/* ARMING and PROTECTED: the peer may hold an epoch. */
static void in_protected(struct step *step)
{
    switch (step->event->type) {
    case SESSION_EVENT_EPOCH_CUT:
        on_cut(step);
        /* The last epoch of a handover that was given up meanwhile: nobody else will wake the guest. */
        if (step->event->ok)
            step_act(step, SESSION_DO_RESUME_GUEST);
        break;
    case SESSION_EVENT_EPOCH_SENT:
        on_sent(step);
        break;
    case SESSION_EVENT_ACK:
        on_ack(step);
        if (step->s->state == SESSION_ARMING && step->s->acked_epoch >= step->s->first_epoch)
            step_enter(step, SESSION_PROTECTED);
        if (step->s->acked_epoch >= step->s->first_epoch)
            step_image_is_whole(step);
        break;
    case SESSION_EVENT_LINK_DOWN:
    case SESSION_EVENT_GOODBYE:
        lose_peer(step);
        break;
    case SESSION_EVENT_TICK:
        step_ask_if_beat_is_missed(step);
        if (step_is_silent(step) || ack_is_overdue(step) || path_is_cut(step))
            lose_peer(step);
        break;
    case SESSION_EVENT_FAILOVER_PLANNED:
        if (step->s->state == SESSION_PROTECTED)
            step_begin_handover(step);
        break;
    default:
        break;
    }
}

static void in_peer_lost(struct step *step)
{
    struct session *s = step->s;
    if (step_is_our_grant(step)) {
        if (step->event->ok)
            run_alone(step);
        else
            step_fence(step);
    } else if (step->event->type == SESSION_EVENT_TICK && s->asked_term && step_timer_ran_out(step)) {
        step_ask_grant(step);
    } else if (s->loss_query) {
        await_answer(step);
    } else if (step->event->type == SESSION_EVENT_TICK && !s->asked_term && step_timer_ran_out(step)) {
        give_image_up(step);
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

/* The handover cannot be finished and the peer was never told to promote. */
static void take_back(struct step *step, bool lost)
{
    if (lost) {
        /* Capture is stopped first: it may be about to leave the guest paused. */
        lose_peer(step);
        step_act(step, SESSION_DO_RESUME_GUEST);
    } else {
        step_act(step, SESSION_DO_RESUME_GUEST);
        step_enter(step, SESSION_PROTECTED);
        step_act(step, SESSION_DO_START_EPOCHS);
    }
}

static void send_handover_if_acked(struct step *step)
{
    struct session *s = step->s;
    /* The newest cut is the last epoch: its cut was reported after LAST_EPOCH was ordered, so more may still
     * come until capture says so; the epoch that stays newest and acked is the one that left the guest
     * paused. */
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
    inquire(step, gone);
}

static void in_handing_over(struct step *step)
{
    struct session *s = step->s;
    switch (step->event->type) {
    case SESSION_EVENT_EPOCH_CUT:
        on_cut(step);
        if (step->event->ok && step->event->epoch == s->cut_epoch)
            s->handover_epoch = s->cut_epoch;
        send_handover_if_acked(step);
        break;
    case SESSION_EVENT_ACK:
        on_ack(step);
        send_handover_if_acked(step);
        break;
    case SESSION_EVENT_HANDOVER_DONE:
        if (s->handover_sent && step->event->term > s->term)
            handed_over(step);
        break;
    case SESSION_EVENT_LINK_DOWN:
    case SESSION_EVENT_GOODBYE:
    case SESSION_EVENT_TICK:
        if (step->event->type == SESSION_EVENT_TICK) {
            step_ask_if_beat_is_missed(step);
            if (!step_timer_ran_out(step) && !step_is_silent(step) && !path_is_cut(step))
                break;
        }
        if (!s->handover_sent) {
            take_back(step,
                      step->event->type != SESSION_EVENT_TICK || step_is_silent(step) || path_is_cut(step));
            break;
        }
        /*
         * It may be running there. The peer knows, and then the arbiter; the guest here stays paused until
         * they have spoken. A peer that could not promote says so itself, with the term that it was granted:
         * that one is used up.
         */
        be_unsure(step);
        break;
    default:
        break;
    }
}

static void in_handover_unsure(struct step *step)
{
    if (step_is_our_grant(step)) {
        if (step->event->ok) {
            step_act(step, SESSION_DO_RESUME_GUEST);
            run_alone(step);
        } else {
            step_fence(step);
        }
    } else if (step->s->loss_query) {
        if (step->event->type == SESSION_EVENT_HANDOVER_DONE && step->event->term > step->s->term)
            handed_over(step);
        else
            await_answer(step);
    } else if (step->event->type == SESSION_EVENT_TICK && step_timer_ran_out(step)) {
        step_ask_grant(step);
    }
}

static void in_leaving(struct step *step)
{
    struct session *s = step->s;
    bool told = step->event->type == SESSION_EVENT_GOODBYE;
    bool alone = step->event->type == SESSION_EVENT_LINK_DOWN ||
                 (step->event->type == SESSION_EVENT_TICK && step_timer_ran_out(step));
    if (!told && !alone)
        return;
    /* Only the peer's own goodbye makes it sure that it will not resume the guest: without it, held output is
     * lost. */
    step_act(step, told || !s->held ? SESSION_DO_RELEASE_ALL : SESSION_DO_DROP_OUTPUT);
    step_act(step, SESSION_DO_QUIT_HYPERVISOR);
    step_end(step, s->end_reason);
}

void session_handle_primary(struct step *step)
{
    if (step->s->state != SESSION_LEAVING && (step_leave(step) || primary_common(step)))
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
        in_peer_lost(step);
        break;
    case SESSION_HANDING_OVER:
        in_handing_over(step);
        break;
    case SESSION_HANDOVER_UNSURE:
        in_handover_unsure(step);
        break;
    case SESSION_LEAVING:
        in_leaving(step);
        break;
    default:
        break;
    }
}
