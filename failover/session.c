/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Starts a session, dispatches each event to the handler of its role, and computes when the next tick is due.
 * session.h has the interface, docs/session.md the rules. primary.c and secondary.c implement the two roles
 * with one handler for each state. A handler ignores the events that it does not name, because events may
 * arrive late or twice. session_step.c has the steps that both roles share.
 *
 * The invariants are kept in these files:
 *
 *   I1 (output_commit.c): output is held before the first epoch is cut, and released only for the ack of a
 *   cut epoch of this term over a live link.
 *
 *   I2 (secondary.c, takeover.c): only the epoch after the last one is acked, and nothing is promoted before
 *   every acked epoch is applied.
 *
 *   I5 (peer_loss.c, takeover.c): a side runs alone only after a grant for its term (step_ask_grant,
 *   step_is_our_grant); from the moment it asks, a secondary acks nothing more.
 */
#include "failover/session_parts.h"

#include <string.h>

#define DEFAULT_SILENCE_MS          100
#define DEFAULT_HANDOVER_TIMEOUT_MS 5000
#define DEFAULT_GRANT_RETRY_MS      200
#define DEFAULT_ACK_TIMEOUT_MS      3000
#define DEFAULT_LISTEN_TIMEOUT_MS   60000
#define DEFAULT_LEAVE_TIMEOUT_MS    2000
#define DEFAULT_POWER_DOWN_MS       60000

void session_init(struct session *s, const struct session_config *config, uint64_t now_ms)
{
    memset(s, 0, sizeof *s);
    s->config = *config;
    if (!s->config.silence_ms)
        s->config.silence_ms = DEFAULT_SILENCE_MS;
    if (!s->config.heartbeat_ms)
        s->config.heartbeat_ms = s->config.silence_ms / 10;
    if (!s->config.handover_timeout_ms)
        s->config.handover_timeout_ms = DEFAULT_HANDOVER_TIMEOUT_MS;
    if (!s->config.grant_retry_ms)
        s->config.grant_retry_ms = DEFAULT_GRANT_RETRY_MS;
    if (!s->config.ack_timeout_ms)
        s->config.ack_timeout_ms = DEFAULT_ACK_TIMEOUT_MS;
    if (!s->config.listen_timeout_ms)
        s->config.listen_timeout_ms = DEFAULT_LISTEN_TIMEOUT_MS;
    if (!s->config.leave_timeout_ms)
        s->config.leave_timeout_ms = DEFAULT_LEAVE_TIMEOUT_MS;
    if (!s->config.power_down_timeout_ms)
        s->config.power_down_timeout_ms = DEFAULT_POWER_DOWN_MS;
    s->role = config->role;
    s->state = config->role == SESSION_PRIMARY ? SESSION_CONNECTING : SESSION_LISTENING;
    s->term = config->term;
    /* A primary's term is its own host's, and a standby is the other host. */
    s->host = config->role == SESSION_PRIMARY ? term_host(config->term) : !term_host(config->term);
    s->term_record.kept = config->term; /* a new pair's first term, or another side's */
    s->first_epoch = 1;
    s->untried = config->untried && config->role == SESSION_SECONDARY;
    s->query = config->query_base;
    detector_init(&s->detector, s->config.silence_ms, s->config.heartbeat_ms, now_ms);
    if (s->state == SESSION_LISTENING)
        s->deadline_ms = now_ms + s->config.listen_timeout_ms;
}

/* Messages of the peer whose term counts though it is not this side's. (A HELLO's is looked at by the state.)
 */
static bool names_peers_term(enum session_event_type type)
{
    return type == SESSION_EVENT_HEARTBEAT || type == SESSION_EVENT_FENCED || type == SESSION_EVENT_GOODBYE ||
           type == SESSION_EVENT_HANDOVER || type == SESSION_EVENT_HANDOVER_DONE;
}

/* Records what a heartbeat says in every role and state. */
static void hear(struct step *step)
{
    struct session *s = step->s;
    const struct session_event *event = step->event;
    if (event->query > s->peer_query)
        s->peer_query = event->query;
    if (event->by_link)
        detector_heard_by_path(&s->detector, step->now_ms);
    if (event->standing == SESSION_STANDING_UNKNOWN)
        return;
    detector_told_deaf(&s->detector, event->deaf, step->now_ms);
}

/*
 * Handles a stall of this side. The peer may have taken this side for dead during the stall, so this side
 * asks the peer before it judges anything by the time that has passed.
 */
static void wake(struct step *step)
{
    struct session *s = step->s;
    detector_stalled(&s->detector, step->event->stalled_ms, step->now_ms);
    if (s->ack_due_ms)
        s->ack_due_ms += step->event->stalled_ms;
    if (session_watches_peer(s)) {
        detector_answered(&s->detector);
        step_ask_peer(step);
    }
}

/*
 * Ends the session after an illegal transition. The actions of this step are dropped, so nothing is released,
 * acked or promoted. No goodbye is sent, as in a crash: the peer's rules for a crash are safe for every state
 * that this side may have been in.
 */
static void crash(struct step *step)
{
    struct session *s = step->s;
    step->out->n = 0;
    step_act(step, SESSION_DO_STOP_CAPTURE);
    step_act(step, SESSION_DO_DROP_OUTPUT);
    step_act(step, SESSION_DO_FENCE_GUEST);
    step_disconnect(step);
    s->state = SESSION_ENDED;
    s->end_reason = SESSION_END_BUG;
    step_act(step, SESSION_DO_END)->reason = SESSION_END_BUG;
}

void session_handle(struct session *s, const struct session_event *event, uint64_t now_ms,
                    struct session_actions *out)
{
    struct step step = {.s = s, .event = event, .now_ms = now_ms, .out = out};
    const struct session_event cannot_promote = {.type = SESSION_EVENT_PROMOTED, .term = s->term};
    const uint64_t term = s->term;
    out->n = 0;
    if (s->state == SESSION_ENDED)
        return;
    if (event->type == SESSION_EVENT_START) {
        step_act(&step, SESSION_DO_CONNECT);
        return;
    }
    if (event->type == SESSION_EVENT_STALLED) {
        wake(&step);
        return;
    }
    if (event->type == SESSION_EVENT_TERM_KEPT) {
        term_record_kept(&step);
        return;
    }
    if (event->type == SESSION_EVENT_DISKS_DURABLE || event->type == SESSION_EVENT_DISKS_READY) {
        if (!disk_turns_answer(&step)) {
            term_record_order(&step, term);
            return;
        }
        step.event = &cannot_promote;
    }
    if (names_peers_term(event->type) && !step_believes_term(&step))
        return;
    if (event->type == SESSION_EVENT_HEARTBEAT)
        hear(&step);
    if (s->role == SESSION_PRIMARY)
        session_handle_primary(&step);
    else
        session_handle_secondary(&step);
    leave_go_on(&step);
    if (event->type == SESSION_EVENT_HEARTBEAT && s->state != SESSION_ENDED)
        step_answer(&step);
    if (step.bug)
        crash(&step);
    disk_turns_order(&step);
    term_record_order(&step, term);
}

static enum session_standing standing_of(const struct session *s)
{
    if (s->role == SESSION_PRIMARY)
        return session_watches_peer(s) && s->loss_query ? SESSION_GOES_ALONE : SESSION_RUNS_GUEST;
    switch (s->state) {
    case SESSION_STANDBY:
        return s->config.chaos_keep_image ? SESSION_HAS_LET_GO : SESSION_MAY_TAKE_OVER;
    case SESSION_ASKING:
        return SESSION_ASKS_ARBITER;
    case SESSION_PROMOTING:
        return SESSION_TAKES_OVER;
    default:
        return SESSION_HAS_LET_GO;
    }
}

void session_beat(const struct session *s, uint64_t now_ms, struct session_beat *beat)
{
    bool hears_link = s->state == SESSION_FOLLOWING || s->state == SESSION_STANDBY;
    *beat = (struct session_beat){
        .term = s->term,
        .query = s->detector.asked ? s->query : 0,
        .answer = s->peer_query,
        .role = s->role,
        .standing = standing_of(s),
        .deaf = hears_link && s->config.other_paths && detector_is_deaf(&s->detector, now_ms),
    };
}

static uint64_t sooner(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

uint64_t session_next_tick_ms(const struct session *s)
{
    uint64_t next = s->deadline_ms ? s->deadline_ms : UINT64_MAX;
    bool watches = session_watches_peer(s);
    if (s->leave_due_ms)
        next = sooner(next, s->leave_due_ms);
    if (s->state == SESSION_ENDED)
        return UINT64_MAX;
    if (watches && !s->detector.asked)
        next = sooner(next, detector_missed_beat_at_ms(&s->detector));
    else if (watches || s->state == SESSION_SYNCHRONISING || s->state == SESSION_FOLLOWING)
        next = sooner(next, session_silent_at_ms(s));
    bool awaits_acks = s->state == SESSION_ARMING || s->state == SESSION_PROTECTED;
    if (awaits_acks && s->ack_due_ms)
        next = sooner(next, s->ack_due_ms);
    if (awaits_acks || s->state == SESSION_HANDING_OVER)
        next = sooner(next, commit_path_is_cut_at_ms(s));
    return next;
}
