/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The secondary's half of the session: it holds an image, acks what it holds whole, and takes over.
 *
 *   listening -> following -> standby -> asking -> promoting -> (connecting, as the primary)
 *
 * I2 is kept here: only the epoch after the last one is acked, and nothing is promoted before all that was
 * acked is applied. I5: from the moment it asks to run, it acks nothing more.
 */
#include "failover/session_internal.h"

static void listen_again(struct step *step)
{
    step_enter(step, SESSION_LISTENING);
    step->s->deadline_ms = step->now_ms + step->s->config.listen_timeout_ms;
    step_act(step, SESSION_DO_CONNECT);
}

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
    s->path_heard_ms = step->now_ms;
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

static void promote(struct step *step)
{
    step_enter(step, SESSION_PROMOTING);
    struct session_action *action = step_act(step, SESSION_DO_PROMOTE);
    action->term = step->s->term;
    action->epoch = step->s->acked_epoch;
    step->s->promoting = true;
    step_forget_image(step); /* the guest that runs from it is another run */
}

static void promote_when_applied(struct step *step)
{
    struct session *s = step->s;
    if (!s->promoting && (s->applied_epoch >= s->acked_epoch || s->config.chaos_apply_unacked))
        promote(step);
}

/* From here on nothing is acked. */
static void want_to_run(struct step *step, bool keep_link)
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

/* What was acked stays whole and may be promoted; the primary has to synchronise again. */
static void refuse_stream(struct step *step)
{
    step_disconnect(step);
    if (step->s->state == SESSION_FOLLOWING)
        listen_again(step);
    else
        step_act(step, SESSION_DO_CONNECT);
}

static void on_epoch_received(struct step *step)
{
    struct session *s = step->s;
    uint64_t epoch = step->event->epoch;
    if (step->event->term != s->term || !s->link_up)
        return;
    step_heard(step);
    s->path_heard_ms = step->now_ms;
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
        step_act(step, SESSION_DO_SEND_ACK)->epoch = epoch;
    step_enter(step, SESSION_STANDBY);
}

/* Of an epoch that came by an older link, the replicator says nothing. */
static void on_durable(struct step *step)
{
    const struct session *s = step->s;
    if (s->config.durable_acks && s->link_up && step->event->term == s->term &&
        step->event->epoch <= s->acked_epoch)
        step_act(step, SESSION_DO_SEND_ACK)->epoch = step->event->epoch;
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
 * The primary went on alone, in a newer term: what is here must never be promoted. It will bring it up to
 * date, or synchronise anew.
 */
static void outdated(struct step *step)
{
    if (step->s->config.chaos_keep_image)
        return;
    step_disconnect(step);
    listen_again(step);
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
        listen_again(step);
        break;
    case SESSION_EVENT_TICK:
        if (step_is_silent(step)) {
            step_disconnect(step);
            listen_again(step);
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
            want_to_run(step, false);
        break;
    case SESSION_EVENT_HANDOVER:
        if (step->event->term == s->term && step->event->epoch == s->acked_epoch) {
            s->handed_over = true;
            want_to_run(step, true);
        }
        break;
    case SESSION_EVENT_FAILOVER_FORCE:
        want_to_run(step, true);
        break;
    case SESSION_EVENT_TICK:
        step_ask_if_beat_is_missed(step);
        if (step_is_silent(step))
            want_to_run(step, false);
        break;
    default:
        break;
    }
}

static void in_asking(struct step *step)
{
    struct session *s = step->s;
    if (s->config.chaos_ack_while_asking && step->event->type == SESSION_EVENT_EPOCH_DURABLE)
        on_durable(step);
    if (step_is_our_grant(step)) {
        if (!step->event->ok) {
            /* The other side runs alone: this image is history, unless that side brings it up to date. */
            s->asked_term = 0;
            s->handed_over = false;
            step_disconnect(step);
            listen_again(step);
            return;
        }
        s->term = s->asked_term;
        s->asked_term = 0;
        /* A primary that still lives (forced failover) hears it before the link goes. */
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
    /* After a handover the old primary closes the link, once it has read that it may quit. */
    if (s->handed_over && s->link_up)
        step_act(step, SESSION_DO_SEND_HANDOVER_DONE);
    else
        step_disconnect(step);
    s->link_up = false;
    s->role = SESSION_PRIMARY;
    s->handed_over = s->promoting = s->held = s->handover_sent = false;
    s->cut_epoch = s->released_epoch = s->sent_epoch = s->acked_epoch;
    s->ack_due_ms = s->query_ms = s->deaf_since_ms = 0;
    s->first_epoch = s->cut_epoch + 1;
    step_act(step, SESSION_DO_RELEASE_ALL);
    step_connect_again(step);
}

static void in_promoting(struct step *step)
{
    if (step->event->type == SESSION_EVENT_PROMOTED) {
        if (step->event->ok) {
            become_primary(step);
            return;
        }
        /* After a handover the old primary still has the guest, and takes it back. */
        if (step->s->handed_over && step->s->link_up)
            step_say_goodbye(step, SESSION_END_PROMOTE_FAILED);
        step_end(step, SESSION_END_PROMOTE_FAILED);
        return;
    }
    promote_when_applied(step);
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
        in_asking(step);
        break;
    case SESSION_PROMOTING:
        in_promoting(step);
        break;
    default:
        break;
    }
}
