/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * See world.h. What happens: messages arrive, epochs are cut and applied, timers run out, and things go
 * wrong.
 */
#include <string.h>

#include "tests/simulation/world.h"

static struct session_event heartbeat(const struct session_beat *beat)
{
    return (struct session_event){.type = SESSION_EVENT_HEARTBEAT,
                                  .term = beat->term,
                                  .peer_role = beat->role,
                                  .standing = beat->standing,
                                  .query = beat->query,
                                  .answer = beat->answer,
                                  .deaf = beat->deaf};
}

static bool awake_for(const struct world *w, uint64_t us)
{
    return w->now >= w->hosts[0].stands_until + us && w->now >= w->hosts[1].stands_until + us;
}

/* A secondary takes another connection even if it has not noticed yet that the first one is gone. */
static bool may_be_dialled(const struct world *w, const struct host *host)
{
    bool replaces = w->broken && host->session.role == SESSION_SECONDARY;
    return host->alive && host->wants_link && (!host->linked || replaces);
}

static void on_dial(struct world *w)
{
    struct host *a = &w->hosts[0], *b = &w->hosts[1];
    bool can = may_be_dialled(w, a) && may_be_dialled(w, b) && !w->cut[0] && !w->cut[1] && awake_for(w, 0) &&
               !w->dead_since[0] && !w->dead_since[1];
    if (!can) {
        if ((a->alive && a->wants_link && !a->linked) || (b->alive && b->wants_link && !b->linked))
            schedule(w, between(w, 20000, 60000), (struct event){.kind = DIAL});
        return;
    }
    w->connection++;
    w->broken = w->stalled[0] = w->stalled[1] = false;
    w->queues[0] = w->queues[1] = (struct queue){0};
    a->linked = b->linked = true;
    struct session_event up[2];
    for (int h = 0; h < 2; h++)
        up[h] = (struct session_event){.type = SESSION_EVENT_LINK_UP,
                                       .term = w->hosts[1 - h].session.term,
                                       .peer_role = w->hosts[1 - h].session.role,
                                       .said = w->hosts[h].hello,
                                       .heard = w->hosts[1 - h].hello};
    /* Both had said hello: the second hears of it even if the first closes the link at once. */
    int first = (int)(next_random(w) & 1);
    feed(w, first, up[first]);
    if (w->hosts[1 - first].linked)
        feed(w, 1 - first, up[1 - first]);
}

static void receive_epoch(struct world *w, int h, const struct message *message)
{
    struct host *host = &w->hosts[h];
    uint64_t acked = host->session.acked_epoch;
    bool room = host->nstaged < 64;
    if (!room)
        return;
    host->staged[host->nstaged++] = *message;
    /* The staged epoch must be there before the session orders to apply it. */
    struct session_event event = {
        .type = SESSION_EVENT_EPOCH_RECEIVED, .term = message->term, .epoch = message->epoch};
    uint64_t before_term = host->session.term;
    feed(w, h, event);
    if (host->session.acked_epoch == acked || host->session.term != before_term) {
        if (host->nstaged)
            host->nstaged--; /* not taken */
        return;
    }
}

/* Applied as it comes, in order with what came before. */
static void receive_batch(struct world *w, int h, const struct message *message)
{
    struct host *host = &w->hosts[h];
    if (!host->alive || host->session.state != SESSION_FOLLOWING || message->term != host->session.term)
        return;
    if (host->nstaged == 64) {
        break_connection(w);
        return;
    }
    host->staged[host->nstaged++] = *message;
    apply_next(w, h);
}

static void on_deliver(struct world *w, const struct event *event)
{
    int h = event->host;
    struct queue *queue = &w->queues[h];
    if (event->a != w->connection || queue->n == 0 || !w->hosts[h].linked)
        return;
    if (w->cut[h] || w->stalled[h]) {
        schedule(w, 5000, *event); /* TCP tries again */
        return;
    }
    struct message message = queue->list[queue->head];
    queue->head = (queue->head + 1) % 64;
    queue->n--;
    struct session_event out = {
        .term = message.term, .epoch = message.epoch, .reason = message.reason, .untried = message.untried};
    /* Held from the moment it is whole here, which is before the ack. */
    if (message.wire == W_EPOCH && w->hosts[h].alive && message.epoch < MAX_EPOCHS &&
        w->hosts[h].session.role == SESSION_SECONDARY && message.term == w->hosts[h].session.term)
        w->peer_held[message.epoch][1 - h] = true;
    switch (message.wire) {
    case W_EPOCH:
        receive_epoch(w, h, &message);
        return;
    case W_BATCH:
        receive_batch(w, h, &message);
        return;
    case W_ACK:
        out.type = SESSION_EVENT_ACK;
        break;
    case W_HANDOVER:
        out.type = SESSION_EVENT_HANDOVER;
        break;
    case W_HANDOVER_DONE:
        out.type = SESSION_EVENT_HANDOVER_DONE;
        break;
    case W_GOODBYE:
        out.type = SESSION_EVENT_GOODBYE;
        break;
    case W_FENCED:
        out.type = SESSION_EVENT_FENCED;
        break;
    case W_BEAT:
        out = heartbeat(&message.beat);
        out.by_link = true;
        break;
    }
    feed(w, h, out);
    if (chance(w, 3))
        feed(w, h, out); /* the same again: must change nothing */
}

static void on_cut(struct world *w, const struct event *event)
{
    int h = event->host;
    struct host *host = &w->hosts[h];
    if (event->a != host->generation || event->b != host->capture_serial || !host->capturing || !host->runs ||
        host->cutting)
        return;
    host->cutting = true;
    host->cutting_last = host->last_epoch;
    /* A last epoch may be waited for longer than a handover may take. */
    schedule(w, between(w, 100, host->cutting_last && chance(w, 10) ? 800000 : 2000),
             (struct event){.kind = CUT_DONE, .host = h, .a = host->generation, .b = host->capture_serial});
}

static void on_cut_done(struct world *w, const struct event *event)
{
    int h = event->host;
    struct host *host = &w->hosts[h];
    if (event->a != host->generation || event->b != host->capture_serial || !host->cutting || !host->runs)
        return;
    uint64_t serial = host->capture_serial;
    finish_cut(w, h, true);
    /* After the last epoch nothing is cut, unless epochs were ordered again meanwhile. */
    if (host->capture_serial == serial && (!host->cutting_last || !host->last_epoch))
        schedule_cut(w, h, between(w, 5000, 25000));
}

static void on_applied(struct world *w, const struct event *event)
{
    struct host *host = &w->hosts[event->host];
    if (event->a != host->generation || event->b != host->image_serial || host->nstaged == 0)
        return;
    struct message done = host->staged[0];
    host->nstaged--;
    memmove(host->staged, host->staged + 1, host->nstaged * sizeof *host->staged);
    host->image_half = false;
    for (unsigned page = 0; page < PAGES; page++)
        if (done.pages & (1u << page))
            host->image_memory[page] = done.memory[page];
    if (done.wire == W_BATCH) {
        host->image_epoch = 0;
        apply_next(w, event->host);
        return;
    }
    if (memcmp(host->image_memory, done.memory, sizeof done.memory) != 0)
        FAIL(w, "I2: the image of host %c is not the guest's memory at the end of epoch %" PRIu64,
             'a' + event->host, done.epoch);
    host->image_epoch = done.epoch;
    host->image_branch = done.branch;
    host->image_seq = done.seq;
    apply_next(w, event->host);
    feed(w, event->host, (struct session_event){.type = SESSION_EVENT_EPOCH_APPLIED, .epoch = done.epoch});
    if (host->alive && host->session.role == SESSION_SECONDARY && host->session.untried && !host->trying) {
        host->trying = true;
        schedule(
            w, between(w, 20000, 400000),
            (struct event){
                .kind = TRIED, .host = event->host, .a = host->generation, .ok = w->healed || chance(w, 80)});
    }
}

static void on_promoted(struct world *w, const struct event *event)
{
    struct host *host = &w->hosts[event->host];
    if (event->a != host->generation)
        return;
    if (event->ok) {
        feed(w, event->host,
             (struct session_event){.type = SESSION_EVENT_PROMOTED, .term = host->session.term});
        w->crashed = true;
        return;
    }
    if (w->ended_for_good)
        FAIL(w, "host %c takes over a guest of which its user was told that it has ended", 'a' + event->host);
    start_branch(w, host);
    host->gate = DROP; /* until the session says otherwise */
    feed(w, event->host,
         (struct session_event){.type = SESSION_EVENT_PROMOTED, .term = host->session.term, .ok = true});
}

static void on_disks_done(struct world *w, const struct event *event)
{
    struct host *host = &w->hosts[event->host];
    enum session_action_type what = (enum session_action_type)event->beat.query;
    bool newest = event->b == host->disk_order;
    struct session_event answer = {.type = SESSION_EVENT_DISKS_READY, .order = event->b, .ok = event->ok};
    if (what == SESSION_DO_DISKS_DURABLE) {
        answer.type = SESSION_EVENT_DISKS_DURABLE;
        if (host->disk_unsettled <= event->beat.answer)
            host->disk_unsettled = 0;
    } else if (newest && event->ok) {
        host->disk_writable = what != SESSION_DO_DISKS_GIVE_UP;
    }
    feed(w, event->host, answer); /* of an overtaken order as well */
}

/* The guest writes to its disks, changes its memory and sends a frame. */
static void guest_sends(struct world *w, int h)
{
    struct host *guest = &w->hosts[h];
    if (!guest->runs || guest->paused || stands_still(w, h))
        return;
    if (w->disks && !guest->disk_writable)
        FAIL(w, "disks: the guest of host %c runs and cannot write", 'a' + h);
    if (guest->session.state == SESSION_HANDOVER_UNSURE ||
        (guest->session.state == SESSION_HANDING_OVER && guest->session.handover_sent))
        FAIL(w, "host %c has handed its guest over, and it runs", 'a' + h);
    guest->seq++;
    if (!guest->disk_synchronous)
        guest->disk_unsettled = guest->seq;
    unsigned page = (unsigned)(next_random(w) % PAGES);
    guest->memory[page] = guest->branch << 32 | guest->seq;
    guest->dirty |= 1u << page;
    if (guest->gate == PASS)
        release_to(w, h, guest->seq);
}

void start_session(struct world *w, int h, enum session_role role, uint64_t term)
{
    struct host *host = &w->hosts[h];
    struct session_config config = {
        .role = role,
        .term = term,
        .silence_ms = 60,
        .heartbeat_ms = 10,
        .query_base = host->generation * 1000000,
        .other_paths = w->two_paths,
        .durable_acks = w->durable,
        .keeps_terms = true,
        .used_term = w->mode == ARBITER ? 0 : host->kept_term,
        .disks = w->disks && !(w->plant && strcmp(w->plant, "ignore-disks") == 0),
        .untried = w->trials,
        .handover_timeout_ms = 500,
        .grant_retry_ms = 50,
        .listen_timeout_ms = 2000,
        .leave_timeout_ms = 200,
        .power_down_timeout_ms = 400,
        .ack_timeout_ms = w->plant && strcmp(w->plant, "wait-for-acks-for-ever") == 0 ? 1000000000 : 300,
        .on_peer_loss = chance(w, 70) ? SESSION_ON_PEER_LOSS_CONTINUE : SESSION_ON_PEER_LOSS_HOLD,
        .chaos_release_before_ack = w->plant && strcmp(w->plant, "release-before-ack") == 0,
        .chaos_promote_without_grant = w->plant && strcmp(w->plant, "promote-without-grant") == 0,
        .chaos_apply_unacked = w->plant && strcmp(w->plant, "apply-half") == 0,
        .chaos_ask_nobody = w->plant && strcmp(w->plant, "ask-nobody") == 0,
        .chaos_keep_image = w->plant && strcmp(w->plant, "keep-image") == 0,
        .chaos_wait_for_acks = w->plant && strcmp(w->plant, "wait-for-acks") == 0,
        .chaos_ack_while_asking = w->plant && strcmp(w->plant, "ack-while-asking") == 0,
        .chaos_equal_terms = w->plant && strcmp(w->plant, "equal-terms") == 0,
        .chaos_release_before_term = w->plant && strcmp(w->plant, "release-before-term") == 0,
        .chaos_any_disk_answer = w->plant && strcmp(w->plant, "any-disk-answer") == 0,
        .chaos_late_disk_answer = w->plant && strcmp(w->plant, "late-disk-answer") == 0,
        .chaos_ask_while_following = w->plant && strcmp(w->plant, "ask-while-following") == 0,
        .chaos_stop_unconfirmed = w->plant && strcmp(w->plant, "stop-unconfirmed") == 0,
        .chaos_keep_any_image = w->plant && strcmp(w->plant, "keep-any-image") == 0,
        .run = next_random(w),
    };
    host->alive = true;
    host->wants_link = host->linked = false;
    host->capturing = host->last_epoch = host->cutting = false;
    host->stopping = host->connects_then = host->resumes_then = false;
    host->next_epoch = 1;
    host->image_epoch = 0;
    host->image_half = false;
    host->nstaged = 0;
    host->trying = false;
    host->stands_until = host->heard_sequence = 0;
    host->sequence = host->generation * 1000000;
    host->tracking = false;
    host->disk_writable = role == SESSION_PRIMARY;
    host->disk_synchronous = true;
    host->disk_unsettled = host->disk_order = 0;
    memset(host->image_memory, 0, sizeof host->image_memory);
    memset(host->epoch_serial, 0, sizeof host->epoch_serial);
    session_init(&host->session, &config, clock_ms(w, h));
    own_timer_init(&host->own_timer, config.heartbeat_ms);
    feed_simple(w, h, SESSION_EVENT_START);
    schedule(w, between(w, 100, 10000),
             (struct event){.kind = HEARTBEAT_SEND, .host = h, .a = host->generation});
}

/*
 * Without an arbiter, a host that took over, and dies or stands still before the other heard, cannot be
 * asked: schedules that must never have two guests have no such death.
 */
static bool death_is_told(const struct world *w, int h)
{
    const struct session *here = &w->hosts[h].session, *there = &w->hosts[1 - h].session;
    const struct session *secondary = here->role == SESSION_SECONDARY ? here : there;
    bool deciding = secondary->state == SESSION_ASKING || secondary->state == SESSION_PROMOTING;
    return w->mode != REACHABLE || (awake_for(w, 500000) && here->role != there->role && !deciding);
}

static void crash(struct world *w, int h)
{
    struct host *host = &w->hosts[h];
    if (!host->alive || !death_is_told(w, h))
        return;
    w->crashed = true;
    host->alive = false;
    host->generation++;
    host->runs = false;
    if (host->linked)
        break_connection(w);
    host->linked = host->wants_link = false;
    schedule(w, between(w, 10000, 400000), (struct event){.kind = RESTART, .host = h});
}

/* A host comes back as a standby, prepared by the one that runs the guest; alone it has nothing to run. */
static void on_restart(struct world *w, int h)
{
    struct host *host = &w->hosts[h], *peer = &w->hosts[1 - h];
    if (host->alive)
        return;
    if (!peer->alive || peer->session.role != SESSION_PRIMARY || stands_still(w, 1 - h)) {
        if (peer->alive)
            schedule(w, between(w, 50000, 200000), (struct event){.kind = RESTART, .host = h});
        return;
    }
    start_session(w, h, SESSION_SECONDARY, peer->session.term);
}

/* A disk's log was given up, or RAM blocks have changed: the replicator closes the link, too. */
static void lose_tracking(struct world *w, int h)
{
    struct host *host = &w->hosts[h];
    if (!host->alive || host->session.role != SESSION_PRIMARY)
        return;
    host->tracking = false;
    feed_simple(w, h, SESSION_EVENT_TRACKING_LOST);
    break_connection(w);
}

/* The guest powers itself off, the user stops a side, or a hypervisor dies. */
static void guest_fault(struct world *w, int h)
{
    struct host *host = &w->hosts[h];
    bool primary = host->session.role == SESSION_PRIMARY;
    if (!host->alive || stands_still(w, h) || !death_is_told(w, h))
        return;
    switch (next_random(w) % 3) {
    case 0:
        if (primary && host->runs && !host->paused) {
            host->paused = true;
            w->done = true;
            feed_simple(w, h, SESSION_EVENT_GUEST_SHUTDOWN);
        }
        break;
    case 1:
        w->done |= primary;
        /* Whoever stops a standby to which the guest is being left has stopped the guest. */
        w->crashed |= !primary && (!w->hosts[1 - h].alive || w->hosts[1 - h].session.leaving);
        feed_simple(w, h, SESSION_EVENT_STOP);
        break;
    default:
        w->crashed = true;
        host->runs = false;
        feed_simple(w, h, SESSION_EVENT_HYPERVISOR_DIED);
        break;
    }
}

static void stand_still(struct world *w, int h)
{
    struct host *host = &w->hosts[h];
    uint64_t us = between(w, 20000, chance(w, 70) ? 100000 : 400000);
    if (!host->alive || stands_still(w, h) || !death_is_told(w, h))
        return;
    host->stands_until = w->now + us;
    schedule(w, us + 50, (struct event){.kind = WAKE, .host = h, .a = host->generation});
}

/* The own timer of host h runs: it notices that the host stood still. */
static void run_own_timer(struct world *w, int h)
{
    uint64_t stalled_ms = own_timer_ran(&w->hosts[h].own_timer, clock_ms(w, h));
    if (stalled_ms)
        feed(w, h, (struct session_event){.type = SESSION_EVENT_STALLED, .stalled_ms = stalled_ms});
}

/* What reaches a host that stands still waits. Beats are read first when it wakes. */
static bool waits(struct world *w, const struct event *event)
{
    uint64_t us = w->hosts[event->host].stands_until - w->now;
    switch (event->kind) {
    case HEARTBEAT:
        us += 1;
        break;
    case TICK:
    case HEARTBEAT_SEND:
        us += between(w, 60, 300);
        break;
    case DELIVER:
    case BREAK_SEEN:
    case SYNCHRONISED:
    case CUT:
    case CUT_DONE:
    case CAPTURE_STOPPED:
    case SENT:
    case APPLIED:
    case APPLIED_LATE:
    case JOURNALLED:
    case DISKS_DONE:
    case TERM_KEPT:
    case ARBITER_ANSWERS:
    case PROMOTED:
    case TRIED:
        us += between(w, 2, 300);
        break;
    default:
        return false;
    }
    if (!stands_still(w, event->host))
        return false;
    schedule(w, us, *event);
    return true;
}

/* The checkpoints' network brings host h nothing any more; the second one, if there is one, does. */
static void cut_path(struct world *w, int h)
{
    if (!w->two_paths || w->broken)
        return;
    w->stalled[h] = true;
    w->dead_since[h] = w->now;
}

/*
 * The host goes down cleanly. Where the peer holds a whole image and stays, the guest is not lost by it:
 * neither `crashed` nor `done` is set, so liveness is asked for.
 */
static void leave(struct world *w, int h)
{
    bool as_stop = w->plant && strcmp(w->plant, "leave-as-stop") == 0;
    const struct host *host = &w->hosts[h], *peer = &w->hosts[1 - h];
    bool holds = peer->session.state == SESSION_STANDBY || peer->session.state == SESSION_ASKING ||
                 peer->session.state == SESSION_PROMOTING;
    if (!host->alive || stands_still(w, h) || !death_is_told(w, h))
        return;
    if (host->session.role == SESSION_PRIMARY ? !peer->alive || !holds : peer->session.leaving)
        w->crashed = true;
    feed_simple(w, h, as_stop ? SESSION_EVENT_STOP : SESSION_EVENT_LEAVE);
}

static void on_fault(struct world *w)
{
    int h = (int)(next_random(w) & 1);
    if (w->healed)
        return;
    bool cuts = w->mode != REACHABLE;
    uint64_t which = next_random(w) % 17;
    if (!cuts && (which == 3 || which == 4))
        which = which == 3 ? 12 : 14;
    switch (which) {
    case 16:
        leave(w, h);
        break;
    case 0:
    case 1:
        crash(w, h);
        break;
    case 2:
    case 3:
        w->cut[h] = cuts;
        break;
    case 4:
        w->cut[0] = w->cut[1] = cuts;
        break;
    case 5:
        w->cut[0] = w->cut[1] = false;
        break;
    case 6:
        break_connection(w);
        break;
    case 7:
        for (int i = 0; i < 2; i++)
            if (!stands_still(w, i))
                feed_simple(w, i, SESSION_EVENT_FAILOVER_PLANNED);
        break;
    case 8:
        if (chance(w, 30) && !stands_still(w, h))
            feed_simple(w, h, SESSION_EVENT_FAILOVER_FORCE);
        break;
    case 9:
        if (chance(w, 40))
            guest_fault(w, h);
        break;
    case 10:
        w->stalled[h] = !w->broken;
        break;
    case 12:
    case 13:
        stand_still(w, h);
        break;
    case 14:
        cut_path(w, h);
        break;
    case 15:
        w->dead_since[0] = w->dead_since[1] = 0;
        break;
    default:
        if (chance(w, 20))
            lose_tracking(w, h);
        w->cut[h] = false;
        break;
    }
    schedule(w, between(w, 5000, 250000), (struct event){.kind = FAULT});
}

static void on_heartbeat_send(struct world *w, const struct event *event)
{
    if (event->a != w->hosts[event->host].generation)
        return;
    schedule(w, 10000, *event);
    run_own_timer(w, event->host);
    send_beat(w, event->host);
}

/* One that is older than another that came is a sign of life, and says nothing. */
static void on_heartbeat(struct world *w, const struct event *event)
{
    struct host *host = &w->hosts[event->host];
    struct session_event out = heartbeat(&event->beat);
    out.by_link = event->ok;
    if (w->cut[event->host] || (event->ok && w->dead_since[event->host]))
        return;
    if (event->a < host->heard_sequence) {
        out.standing = SESSION_STANDING_UNKNOWN;
        out.query = out.answer = 0;
    }
    host->heard_sequence = event->a > host->heard_sequence ? event->a : host->heard_sequence;
    feed(w, event->host, out);
}

/*
 * The checkpoints' network has been cut for a while, and the hosts hear each other by the second one: clients
 * must not wait for an ack that cannot come.
 */
static void check_waiting(struct world *w)
{
    for (int h = 0; h < 2; h++) {
        uint64_t since = w->dead_since[0] && (!w->dead_since[1] || w->dead_since[0] < w->dead_since[1])
                             ? w->dead_since[0]
                             : w->dead_since[1];
        const struct session *s = &w->hosts[h].session;
        bool waits = s->state == SESSION_PROTECTED && s->sent_epoch > s->acked_epoch;
        if (w->mode == REACHABLE && since && w->now > since + 240000 && awake_for(w, 240000) && waits &&
            w->hosts[h].alive && w->hosts[1 - h].alive && !w->broken)
            FAIL(w,
                 "host %c waits for an ack of epoch %" PRIu64 " by a network that was cut %" PRIu64 " ms ago",
                 'a' + h, s->sent_epoch, (w->now - since) / 1000);
    }
}

static void on_arbiter_asked(struct world *w, const struct event *event)
{
    if (chance(w, 10))
        return; /* lost on the way */
    bool granted =
        arbiter_record_grant(&w->arbiter, event->a, (uint32_t)event->host * 1000000u + (uint32_t)event->b);
    if (!chance(w, 10))
        schedule(
            w, between(w, 500, 40000),
            (struct event){
                .kind = ARBITER_ANSWERS, .host = event->host, .a = event->a, .b = event->b, .ok = granted});
}

void step(struct world *w, const struct event *event)
{
    struct host *host = &w->hosts[event->host];
    bool mine = event->a == host->generation && host->alive;
    if (waits(w, event))
        return;
    check_waiting(w);
    switch (event->kind) {
    case TICK:
        if (mine && event->b == host->tick_serial) {
            run_own_timer(w, event->host);
            feed_simple(w, event->host, SESSION_EVENT_TICK);
        }
        break;
    case HEARTBEAT_SEND:
        on_heartbeat_send(w, event);
        break;
    case HEARTBEAT:
        on_heartbeat(w, event);
        break;
    case WAKE: /* its timer is late: the first thing after the beats that wait, and before the session's timer
                */
        if (mine)
            run_own_timer(w, event->host);
        break;
    case TERM_KEPT:
        if (!mine)
            break;
        if (event->b > host->kept_term)
            host->kept_term = event->b;
        feed(w, event->host, (struct session_event){.type = SESSION_EVENT_TERM_KEPT, .term = event->b});
        break;
    case DISKS_DONE:
        if (mine)
            on_disks_done(w, event);
        break;
    case JOURNALLED:
        if (mine && host->linked && event->beat.query == w->connection)
            feed(w, event->host,
                 (struct session_event){
                     .type = SESSION_EVENT_EPOCH_DURABLE, .term = event->beat.term, .epoch = event->b});
        break;
    case GUEST_SENDS:
        for (int h = 0; h < 2; h++)
            guest_sends(w, h);
        schedule(w, between(w, 1000, 8000), *event);
        break;
    case DIAL:
        on_dial(w);
        break;
    case DELIVER:
        on_deliver(w, event);
        break;
    case BREAK_SEEN:
        if (mine && host->linked && event->b == w->connection) {
            host->linked = false;
            feed_simple(w, event->host, SESSION_EVENT_LINK_DOWN);
        }
        break;
    case SYNCHRONISED:
        if (mine && event->b == host->capture_serial)
            feed_simple(w, event->host, SESSION_EVENT_SYNCHRONISED);
        break;
    case CUT:
        on_cut(w, event);
        break;
    case CUT_DONE:
        on_cut_done(w, event);
        break;
    case CAPTURE_STOPPED:
        if (mine && event->b == host->stop_serial)
            capture_stopped(w, event->host);
        break;
    case SENT:
        if (host->alive && host->linked && event->a == w->connection)
            feed(w, event->host, (struct session_event){.type = SESSION_EVENT_EPOCH_SENT, .epoch = event->b});
        break;
    case APPLIED_LATE:
        if (mine)
            feed(w, event->host,
                 (struct session_event){.type = SESSION_EVENT_EPOCH_APPLIED, .epoch = event->b});
        break;
    case APPLIED:
        on_applied(w, event);
        break;
    case ARBITER_ASKED:
        on_arbiter_asked(w, event);
        break;
    case ARBITER_ANSWERS:
        if (event->b == host->generation && host->alive)
            feed(w, event->host,
                 (struct session_event){.type = SESSION_EVENT_GRANT, .term = event->a, .ok = event->ok});
        break;
    case PROMOTED:
        if (mine)
            on_promoted(w, event);
        break;
    case TRIED:
        if (mine)
            feed(w, event->host, (struct session_event){.type = SESSION_EVENT_TRIED, .ok = event->ok});
        break;
    case POWERED_DOWN:
        if (mine && host->runs && !host->paused && host->session.role == SESSION_PRIMARY) {
            host->paused = true;
            feed_simple(w, event->host, SESSION_EVENT_GUEST_SHUTDOWN);
        }
        break;
    case UPSET:
        if (mine && !w->healed && event->ok && !stands_still(w, event->host))
            feed_simple(w, event->host, SESSION_EVENT_FAILOVER_PLANNED);
        else if (mine && !w->healed && !event->ok)
            guest_fault(w, event->host);
        break;
    case FAULT:
        on_fault(w);
        break;
    case RESTART:
        on_restart(w, event->host);
        break;
    }
}
