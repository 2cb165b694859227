/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * See session.h and docs/session.md. One handler a state; what a handler does not name is ignored, for a late
 * or repeated event is normal. The rules that keep the invariants stand where they act:
 *
 *   I1  release() is the only place that releases one epoch, and it is called for an ack of a cut epoch of
 *       this term, while the link that carried it is up; output is held before the first epoch is cut
 *   I2  a secondary acks only the epoch that follows the last one, and promotes only when all it acked is
 *       applied
 *   I5  a side runs alone only after a grant for its term; from the moment it asks, a secondary acks nothing
 *       more
 */
#include "replicator/session.h"

#include <string.h>

#define DEFAULT_SILENCE_MS          100
#define DEFAULT_HANDOVER_TIMEOUT_MS 5000
#define DEFAULT_GRANT_RETRY_MS      200
#define GOODBYE_TIMEOUT_MS          500

struct step {
    struct session *s;
    const struct session_event *event;
    uint64_t now_ms;
    struct session_actions *out;
};

static struct session_action *act(struct step *step, enum session_action_type type)
{
    /* Every path stays far below the limit; the last slot absorbs a mistake instead of memory. */
    size_t at = step->out->n < SESSION_MAX_ACTIONS ? step->out->n++ : SESSION_MAX_ACTIONS - 1;
    struct session_action *action = &step->out->list[at];
    memset(action, 0, sizeof *action);
    action->type = type;
    action->term = step->s->term;
    return action;
}

static void enter(struct step *step, enum session_state state)
{
    step->s->state = state;
    step->s->deadline_ms = 0;
}

static void end(struct step *step, enum session_end_reason reason)
{
    step->s->end_reason = reason;
    enter(step, SESSION_ENDED);
    act(step, SESSION_DO_END)->reason = reason;
}

static void disconnect(struct step *step)
{
    step->s->link_up = false;
    act(step, SESSION_DO_DISCONNECT);
}

static void say_goodbye(struct step *step, enum session_end_reason reason)
{
    act(step, SESSION_DO_SEND_GOODBYE)->reason = reason;
}

/*
 * How long nothing may be heard. A standby whose link was closed (which a dying process's kernel does, and a
 * cut network or a host that merely stands still does not) needs only a third of the silence to believe it.
 */
static uint64_t silence_limit_ms(const struct session *s)
{
    return s->state == SESSION_STANDBY && !s->link_up ? s->config.silence_ms / 3 : s->config.silence_ms;
}

static bool is_silent(const struct step *step)
{
    return step->now_ms >= step->s->last_heard_ms + silence_limit_ms(step->s);
}

static bool timer_ran_out(const struct step *step)
{
    return step->s->deadline_ms != 0 && step->now_ms >= step->s->deadline_ms;
}

/* A newer term exists: whatever this side holds back must never come out. */
static void fence(struct step *step)
{
    act(step, SESSION_DO_STOP_CAPTURE);
    act(step, SESSION_DO_DROP_OUTPUT);
    act(step, SESSION_DO_FENCE_GUEST);
    disconnect(step);
    enter(step, SESSION_FENCED);
    end(step, SESSION_END_FENCED);
}

static void ask_grant(struct step *step)
{
    step->s->asked_term = step->s->term + 1;
    act(step, SESSION_DO_ASK_GRANT)->term = step->s->asked_term;
    step->s->deadline_ms = step->now_ms + step->s->config.grant_retry_ms;
}

static bool is_our_grant(const struct step *step)
{
    return step->event->type == SESSION_EVENT_GRANT && step->s->asked_term != 0 &&
           step->event->term == step->s->asked_term;
}

/* ---- primary ---- */

static void connect_again(struct step *step)
{
    enter(step, SESSION_CONNECTING);
    act(step, SESSION_DO_CONNECT);
}

/* The peer is gone while it may hold an epoch from which it could promote. */
static void lose_peer(struct step *step)
{
    struct session *s = step->s;
    act(step, SESSION_DO_STOP_CAPTURE);
    disconnect(step);
    enter(step, SESSION_PEER_LOST);
    if (s->config.on_peer_loss == SESSION_ON_PEER_LOSS_CONTINUE)
        ask_grant(step);
    else
        act(step, SESSION_DO_CONNECT); /* output stays held until a new peer holds it all */
}

static void run_alone(struct step *step)
{
    struct session *s = step->s;
    s->term = s->asked_term;
    s->asked_term = 0;
    s->held = false;
    act(step, SESSION_DO_RELEASE_ALL);
    connect_again(step);
}

static void release(struct step *step, uint64_t epoch)
{
    struct session *s = step->s;
    if (epoch > s->cut_epoch || epoch <= s->released_epoch)
        return;
    s->released_epoch = epoch;
    act(step, SESSION_DO_RELEASE)->epoch = epoch;
}

static void on_ack(struct step *step)
{
    struct session *s = step->s;
    uint64_t epoch = step->event->epoch;
    if (!s->link_up || step->event->term != s->term || epoch > s->cut_epoch || epoch < s->first_epoch)
        return;
    s->last_heard_ms = step->now_ms;
    if (epoch > s->acked_epoch)
        s->acked_epoch = epoch;
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
    s->link_up = true;
    s->last_heard_ms = step->now_ms;
    s->first_epoch = s->cut_epoch + 1; /* acks of older epochs speak of an image that is gone */
    enter(step, SESSION_SYNCHRONISING);
    act(step, SESSION_DO_START_PRECOPY);
}

static void primary_link_up(struct step *step)
{
    struct session *s = step->s;
    if (step->event->term > s->term) {
        fence(step);
    } else if (step->event->peer_role == SESSION_PRIMARY) {
        /* It must stop; the link is of no other use. */
        act(step, SESSION_DO_SEND_FENCED);
        disconnect(step);
        connect_again(step);
    } else {
        start_synchronising(step);
    }
}

/* The peer runs the guest; this one has been paused since its last epoch. */
static void handed_over(struct step *step)
{
    act(step, SESSION_DO_STOP_CAPTURE);
    act(step, SESSION_DO_DROP_OUTPUT);
    act(step, SESSION_DO_QUIT_HYPERVISOR);
    end(step, SESSION_END_HANDED_OVER);
}

/* What ends a primary in any state. True if it did. */
static bool primary_common(struct step *step)
{
    struct session *s = step->s;
    switch (step->event->type) {
    case SESSION_EVENT_FENCED:
        if (step->event->term <= s->term)
            return false;
        fence(step);
        return true;
    case SESSION_EVENT_HEARTBEAT:
        if (step->event->term > s->term) {
            /* After a handover the new primary's heart may be heard before its message is read. */
            if (s->state == SESSION_HANDING_OVER && s->handover_sent)
                handed_over(step);
            else
                fence(step);
            return true;
        }
        s->last_heard_ms = step->now_ms;
        return true;
    case SESSION_EVENT_HYPERVISOR_DIED:
        act(step, SESSION_DO_STOP_CAPTURE);
        act(step, SESSION_DO_DROP_OUTPUT);
        say_goodbye(step, SESSION_END_HYPERVISOR_DIED);
        end(step, SESSION_END_HYPERVISOR_DIED);
        return true;
    case SESSION_EVENT_GUEST_SHUTDOWN:
    case SESSION_EVENT_STOP:
        act(step, SESSION_DO_STOP_CAPTURE);
        s->end_reason =
            step->event->type == SESSION_EVENT_STOP ? SESSION_END_STOPPED : SESSION_END_GUEST_SHUTDOWN;
        if (!s->link_up) {
            if (!s->held)
                act(step, SESSION_DO_RELEASE_ALL);
            act(step, SESSION_DO_QUIT_HYPERVISOR);
            end(step, s->end_reason);
            return true;
        }
        /* What is still held may go out once the peer will never resume this guest. */
        say_goodbye(step, s->end_reason);
        enter(step, SESSION_LEAVING);
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
}

static void in_synchronising(struct step *step)
{
    struct session *s = step->s;
    bool lost = step->event->type == SESSION_EVENT_LINK_DOWN || step->event->type == SESSION_EVENT_GOODBYE ||
                (step->event->type == SESSION_EVENT_TICK && is_silent(step));
    if (lost) {
        /* No whole image over there: it cannot have been promoted from this synchronisation. */
        act(step, SESSION_DO_STOP_CAPTURE);
        disconnect(step);
        connect_again(step);
    } else if (step->event->type == SESSION_EVENT_SYNCHRONISED) {
        s->held = true;
        act(step, SESSION_DO_HOLD_OUTPUT); /* before the first cut: I1 */
        enter(step, SESSION_ARMING);
        act(step, SESSION_DO_START_EPOCHS);
    }
}

static void begin_handover(struct step *step)
{
    enter(step, SESSION_HANDING_OVER);
    step->s->handover_epoch = 0;
    step->s->handover_sent = false; /* an earlier attempt may have got that far */
    step->s->deadline_ms = step->now_ms + step->s->config.handover_timeout_ms;
    act(step, SESSION_DO_LAST_EPOCH);
}

/* ARMING and PROTECTED: the peer may hold an epoch. */
static void in_protected(struct step *step)
{
    switch (step->event->type) {
    case SESSION_EVENT_EPOCH_CUT:
        on_cut(step);
        /* The last epoch of a handover that was given up meanwhile: nobody else will wake the guest. */
        if (step->event->ok)
            act(step, SESSION_DO_RESUME_GUEST);
        break;
    case SESSION_EVENT_ACK:
        on_ack(step);
        if (step->s->state == SESSION_ARMING && step->s->acked_epoch >= step->s->first_epoch)
            enter(step, SESSION_PROTECTED);
        break;
    case SESSION_EVENT_LINK_DOWN:
    case SESSION_EVENT_GOODBYE:
        lose_peer(step);
        break;
    case SESSION_EVENT_TICK:
        if (is_silent(step))
            lose_peer(step);
        break;
    case SESSION_EVENT_FAILOVER_PLANNED:
        if (step->s->state == SESSION_PROTECTED)
            begin_handover(step);
        break;
    default:
        break;
    }
}

static void in_peer_lost(struct step *step)
{
    struct session *s = step->s;
    if (is_our_grant(step)) {
        if (step->event->ok)
            run_alone(step);
        else
            fence(step);
    } else if (step->event->type == SESSION_EVENT_TICK && s->asked_term && timer_ran_out(step)) {
        ask_grant(step);
    } else if (step->event->type == SESSION_EVENT_LINK_UP && !s->asked_term) {
        /*
         * Policy hold, and a peer is back. It may be a new one that knows nothing of a promotion that
         * happened and died meanwhile; only the arbiter knows that nobody else's output came out since.
         */
        s->link_up = true;
        disconnect(step);
        if (step->event->term > s->term)
            fence(step);
        else
            ask_grant(step);
    }
}

/* The handover cannot be finished and the peer was never told to promote. */
static void take_back(struct step *step, bool lost)
{
    if (lost) {
        /* Capture is stopped first: it may be about to leave the guest paused. */
        lose_peer(step);
        act(step, SESSION_DO_RESUME_GUEST);
    } else {
        act(step, SESSION_DO_RESUME_GUEST);
        enter(step, SESSION_PROTECTED);
        act(step, SESSION_DO_START_EPOCHS);
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
        act(step, SESSION_DO_SEND_HANDOVER)->epoch = s->handover_epoch;
    }
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
        if (step->event->type == SESSION_EVENT_TICK && !timer_ran_out(step) && !is_silent(step))
            break;
        if (!s->handover_sent) {
            take_back(step, step->event->type != SESSION_EVENT_TICK || is_silent(step));
            break;
        }
        /* It may be running there. Only the arbiter knows; the guest here stays paused until it has spoken.
         */
        act(step, SESSION_DO_STOP_CAPTURE);
        disconnect(step);
        enter(step, SESSION_HANDOVER_UNSURE);
        ask_grant(step);
        break;
    default:
        break;
    }
}

static void in_handover_unsure(struct step *step)
{
    if (is_our_grant(step)) {
        if (step->event->ok) {
            act(step, SESSION_DO_RESUME_GUEST);
            run_alone(step);
        } else {
            fence(step);
        }
    } else if (step->event->type == SESSION_EVENT_TICK && timer_ran_out(step)) {
        ask_grant(step);
    }
}

static void in_leaving(struct step *step)
{
    struct session *s = step->s;
    bool told = step->event->type == SESSION_EVENT_GOODBYE;
    bool alone = step->event->type == SESSION_EVENT_LINK_DOWN ||
                 (step->event->type == SESSION_EVENT_TICK && timer_ran_out(step));
    if (!told && !alone)
        return;
    /* Only the peer's own goodbye makes it sure that it will not resume the guest: without it, held output is
     * lost. */
    act(step, told || !s->held ? SESSION_DO_RELEASE_ALL : SESSION_DO_DROP_OUTPUT);
    act(step, SESSION_DO_QUIT_HYPERVISOR);
    end(step, s->end_reason);
}

static void handle_primary(struct step *step)
{
    if (step->s->state != SESSION_LEAVING && primary_common(step))
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

/* ---- secondary ---- */

static void listen_again(struct step *step)
{
    enter(step, SESSION_LISTENING);
    act(step, SESSION_DO_CONNECT);
}

static void follow(struct step *step)
{
    struct session *s = step->s;
    if (step->event->term < s->term || step->event->peer_role != SESSION_PRIMARY) {
        act(step, SESSION_DO_SEND_FENCED);
        disconnect(step);
        act(step, SESSION_DO_CONNECT);
        return;
    }
    s->term = step->event->term;
    s->link_up = true;
    s->last_heard_ms = step->now_ms;
    s->acked_epoch = s->applied_epoch = 0;
    s->asked_term = 0;
    act(step, SESSION_DO_DISCARD_IMAGE);
    enter(step, SESSION_FOLLOWING);
}

static void promote(struct step *step)
{
    enter(step, SESSION_PROMOTING);
    struct session_action *action = act(step, SESSION_DO_PROMOTE);
    action->term = step->s->term;
    action->epoch = step->s->acked_epoch;
    step->s->promoting = true;
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
        disconnect(step);
    step->s->promoting = false;
    enter(step, SESSION_ASKING);
    if (step->s->config.chaos_promote_without_grant) {
        step->s->term++;
        enter(step, SESSION_PROMOTING);
        promote_when_applied(step);
        return;
    }
    ask_grant(step);
}

/* What was acked stays whole and may be promoted; the primary has to synchronise again. */
static void refuse_stream(struct step *step)
{
    disconnect(step);
    if (step->s->state == SESSION_FOLLOWING)
        listen_again(step);
    else
        act(step, SESSION_DO_CONNECT);
}

static void on_epoch_received(struct step *step)
{
    struct session *s = step->s;
    uint64_t epoch = step->event->epoch;
    if (step->event->term != s->term || !s->link_up)
        return;
    s->last_heard_ms = step->now_ms;
    /* The link is ordered: anything but the next epoch is the peer's mistake. */
    if (epoch == 0 || (s->acked_epoch != 0 && epoch != s->acked_epoch + 1)) {
        if (epoch == 0 || epoch > s->acked_epoch + 1)
            refuse_stream(step);
        return;
    }
    s->acked_epoch = epoch;
    act(step, SESSION_DO_APPLY)->epoch = epoch;
    act(step, SESSION_DO_SEND_ACK)->epoch = epoch;
    enter(step, SESSION_STANDBY);
}

static void on_applied(struct step *step)
{
    if (step->event->epoch > step->s->applied_epoch && step->event->epoch <= step->s->acked_epoch)
        step->s->applied_epoch = step->event->epoch;
}

static void leave_secondary(struct step *step, enum session_end_reason reason)
{
    say_goodbye(step, reason);
    act(step, SESSION_DO_QUIT_HYPERVISOR);
    end(step, reason);
}

/* The primary went on alone, in a newer term: what is here must never be promoted. It will synchronise again.
 */
static void outdated(struct step *step)
{
    disconnect(step);
    act(step, SESSION_DO_DISCARD_IMAGE);
    listen_again(step);
}

/* What a secondary does in every state before it asks to run. True if handled. */
static bool secondary_common(struct step *step)
{
    struct session *s = step->s;
    bool ends =
        step->event->reason == SESSION_END_GUEST_SHUTDOWN || step->event->reason == SESSION_END_STOPPED;
    switch (step->event->type) {
    case SESSION_EVENT_HEARTBEAT:
        /* An old primary's sign of life says nothing about the present one. */
        if (step->event->term >= s->term)
            s->last_heard_ms = step->now_ms;
        if (step->event->term > s->term && s->state != SESSION_LISTENING)
            outdated(step);
        return true;
    case SESSION_EVENT_STOP:
        leave_secondary(step, SESSION_END_STOPPED);
        return true;
    case SESSION_EVENT_HYPERVISOR_DIED:
        leave_secondary(step, SESSION_END_HYPERVISOR_DIED);
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
        disconnect(step);
        listen_again(step);
        break;
    case SESSION_EVENT_TICK:
        if (is_silent(step)) {
            disconnect(step);
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
            disconnect(step);
            act(step, SESSION_DO_CONNECT);
        }
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
        if (is_silent(step))
            want_to_run(step, false);
        break;
    default:
        break;
    }
}

static void in_asking(struct step *step)
{
    struct session *s = step->s;
    if (is_our_grant(step)) {
        if (!step->event->ok) {
            /* The other side runs alone: this image is history. */
            s->asked_term = 0;
            s->handed_over = false;
            disconnect(step);
            act(step, SESSION_DO_DISCARD_IMAGE);
            listen_again(step);
            return;
        }
        s->term = s->asked_term;
        s->asked_term = 0;
        /* A primary that still lives (forced failover) hears it before the link goes. */
        if (s->link_up && !s->handed_over)
            act(step, SESSION_DO_SEND_FENCED);
        enter(step, SESSION_PROMOTING);
        promote_when_applied(step);
    } else if (step->event->type == SESSION_EVENT_TICK && timer_ran_out(step)) {
        ask_grant(step);
    }
}

static void become_primary(struct step *step)
{
    struct session *s = step->s;
    /* After a handover the old primary closes the link, once it has read that it may quit. */
    if (s->handed_over && s->link_up)
        act(step, SESSION_DO_SEND_HANDOVER_DONE);
    else
        disconnect(step);
    s->link_up = false;
    s->role = SESSION_PRIMARY;
    s->handed_over = s->promoting = s->held = s->handover_sent = false;
    s->cut_epoch = s->released_epoch = s->acked_epoch;
    s->first_epoch = s->cut_epoch + 1;
    act(step, SESSION_DO_RELEASE_ALL);
    connect_again(step);
}

static void in_promoting(struct step *step)
{
    if (step->event->type == SESSION_EVENT_PROMOTED) {
        if (step->event->ok)
            become_primary(step);
        else
            end(step, SESSION_END_PROMOTE_FAILED);
        return;
    }
    promote_when_applied(step);
}

static void handle_secondary(struct step *step)
{
    bool deciding = step->s->state == SESSION_ASKING || step->s->state == SESSION_PROMOTING;
    if (step->event->type == SESSION_EVENT_EPOCH_APPLIED)
        on_applied(step);
    if (deciding && step->event->type == SESSION_EVENT_LINK_DOWN)
        step->s->link_up = false;
    if (step->event->type == SESSION_EVENT_HYPERVISOR_DIED || (!deciding && secondary_common(step))) {
        if (step->s->state != SESSION_ENDED && step->event->type == SESSION_EVENT_HYPERVISOR_DIED)
            leave_secondary(step, SESSION_END_HYPERVISOR_DIED);
        return;
    }
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

/* ---- both ---- */

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
    s->role = config->role;
    s->state = config->role == SESSION_PRIMARY ? SESSION_CONNECTING : SESSION_LISTENING;
    s->term = config->term;
    s->first_epoch = 1;
    s->last_heard_ms = now_ms;
}

void session_handle(struct session *s, const struct session_event *event, uint64_t now_ms,
                    struct session_actions *out)
{
    struct step step = {.s = s, .event = event, .now_ms = now_ms, .out = out};
    out->n = 0;
    if (s->state == SESSION_ENDED)
        return;
    if (event->type == SESSION_EVENT_START) {
        act(&step, SESSION_DO_CONNECT);
        return;
    }
    if (s->role == SESSION_PRIMARY)
        handle_primary(&step);
    else
        handle_secondary(&step);
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
        return silent < next ? silent : next;
    }
    case SESSION_ENDED:
        return UINT64_MAX;
    default:
        return next;
    }
}

static const char *name_of(const char *const *names, size_t n, size_t i)
{
    return i < n && names[i] ? names[i] : "unknown";
}
#define NAME_OF(names, i) name_of(names, sizeof(names) / sizeof *(names), (size_t)(i))

void session_excuse_silence(struct session *s, uint64_t stalled_ms, uint64_t now_ms)
{
    uint64_t excused = s->last_heard_ms + stalled_ms;
    if (excused > s->last_heard_ms)
        s->last_heard_ms = excused < now_ms ? excused : now_ms;
}

const char *session_state_name(enum session_state state)
{
    static const char *const names[] = {
        [SESSION_CONNECTING] = "connecting",
        [SESSION_SYNCHRONISING] = "synchronising",
        [SESSION_ARMING] = "arming",
        [SESSION_PROTECTED] = "protected",
        [SESSION_PEER_LOST] = "peer-lost",
        [SESSION_HANDING_OVER] = "handing-over",
        [SESSION_HANDOVER_UNSURE] = "handover-unsure",
        [SESSION_LEAVING] = "leaving",
        [SESSION_LISTENING] = "listening",
        [SESSION_FOLLOWING] = "following",
        [SESSION_STANDBY] = "standby",
        [SESSION_ASKING] = "asking",
        [SESSION_PROMOTING] = "promoting",
        [SESSION_FENCED] = "fenced",
        [SESSION_ENDED] = "ended",
    };
    return NAME_OF(names, state);
}

const char *session_event_name(enum session_event_type type)
{
    static const char *const names[] = {
        "start",
        "tick",
        "link-up",
        "link-down",
        "heartbeat",
        "synchronised",
        "epoch-cut",
        "epoch-sent",
        "epoch-received",
        "epoch-applied",
        "ack",
        "handover",
        "handover-done",
        "goodbye",
        "fenced",
        "grant",
        "promoted",
        "guest-shutdown",
        "hypervisor-died",
        "failover-planned",
        "failover-force",
        "stop",
    };
    return NAME_OF(names, type);
}

const char *session_action_name(enum session_action_type type)
{
    static const char *const names[] = {
        "connect",
        "disconnect",
        "start-precopy",
        "stop-capture",
        "hold-output",
        "start-epochs",
        "release",
        "release-all",
        "drop-output",
        "send-ack",
        "apply",
        "discard-image",
        "ask-grant",
        "promote",
        "last-epoch",
        "send-handover",
        "send-handover-done",
        "send-goodbye",
        "send-fenced",
        "resume-guest",
        "fence-guest",
        "quit-hypervisor",
        "end",
    };
    return NAME_OF(names, type);
}

const char *session_end_reason_name(enum session_end_reason reason)
{
    static const char *const names[] = {"none",   "guest-shutdown",  "stopped",       "handed-over",
                                        "fenced", "hypervisor-died", "promote-failed"};
    return NAME_OF(names, reason);
}
