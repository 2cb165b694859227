/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A seeded world for the protocol core: two hosts that run the real session.c, an arbiter with the real rule,
 * and everything between them simulated. Messages are delayed, lost and repeated, connections break in the
 * middle of an epoch, networks are cut one way or both, hosts crash and come back at any step, clocks drift.
 * One seed is one schedule and replays exactly.
 *
 * The guest is a counter: it "sends" frame q, q + 1, ... of its branch of history. A promotion from an epoch
 * starts a new branch at the frame where that epoch ends. After every step:
 *
 *   I1  output is released only for epochs that the peer had held whole
 *   I2  a promotion starts from an image that is exactly the newest acked epoch
 *   I5  released frames form one chain: no frame of a branch past the point where another branch left it,
 * ever
 *
 *   simulation [--schedules N] [--seed S] [--events N] [--plant BUG] [--expect-failure] [--soak] [--twice]
 * [--trace]
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "failover/arbiter.h"
#include "replicator/session.h"

#define MAX_EVENTS   512
#define MAX_BRANCHES 64
#define MAX_EPOCHS   4096
#define HELD_FRAMES  4096
#define SECOND       1000000u /* time is in microseconds */

enum kind {
    TICK, /* a host's session timer */
    HEARTBEAT_SEND,
    HEARTBEAT, /* arrives */
    GUEST_SENDS,
    DIAL,
    DELIVER,    /* the head of a connection's queue arrives */
    BREAK_SEEN, /* a host notices that its connection is gone */
    SYNCHRONISED,
    CUT,
    CUT_DONE,
    APPLIED,
    APPLIED_LATE, /* news of an image that was thrown away meanwhile */
    ARBITER_ASKED,
    ARBITER_ANSWERS,
    PROMOTED,
    FAULT, /* something goes wrong, or right again */
    RESTART,
};

struct event {
    uint64_t at, order;
    enum kind kind;
    int host;
    uint64_t a, b; /* meaning by kind; often a generation that makes an outdated event void */
    bool ok;
};

enum wire { W_EPOCH, W_ACK, W_HANDOVER, W_HANDOVER_DONE, W_GOODBYE, W_FENCED };

struct message {
    enum wire wire;
    uint64_t term, epoch, branch, seq;
    enum session_end_reason reason;
};

struct queue {
    struct message list[64];
    unsigned head, n;
    uint64_t last_at;
};

enum gate { PASS, HOLD, DROP };

struct host {
    bool alive;
    struct session session;
    uint64_t generation; /* of this process: a crash voids its events */
    double clock_rate;
    uint64_t clock_offset;
    uint64_t tick_serial;
    /* guest */
    bool runs, paused;
    uint64_t branch, seq;
    /* gate */
    enum gate gate;
    uint64_t boundary[MAX_EPOCHS];
    uint64_t held_from; /* frames up to here are out */
    /* capture */
    uint64_t capture_serial, next_epoch;
    bool capturing, last_epoch;
    bool cutting, cutting_last; /* inside a checkpoint: it is finished whatever is decided meanwhile */
    /* image */
    uint64_t image_epoch, image_branch, image_seq;
    bool image_half;
    uint64_t image_serial; /* voids what was being applied to an image that was thrown away */
    struct message staged[64];
    unsigned nstaged;
    /* link */
    bool wants_link, linked;
};

struct world {
    uint64_t now, order, random, steps, limit;
    struct event heap[MAX_EVENTS];
    unsigned nheap;
    struct host hosts[2];
    struct queue queues[2]; /* towards host i */
    uint64_t connection;    /* counts; what belongs to an older one is void */
    bool broken;            /* the present one: what was on its way may arrive in part, nothing is added */
    bool cut[2];            /* nothing arrives at host i */
    struct arbiter_record arbiter;
    uint64_t nbranches;
    struct {
        uint64_t parent, from_seq; /* where it left its parent */
        uint64_t left_at;          /* smallest frame at which another branch left it, or UINT64_MAX */
        uint64_t released;         /* newest frame released */
    } branches[MAX_BRANCHES];
    bool peer_held[MAX_EPOCHS]
                  [2]; /* epoch n of host i as primary was held by its peer, in the present synchronisation */
    bool trace, healed;
    bool crashed; /* or ended for another reason that may take the guest along */
    bool done;    /* the guest powered itself off or was stopped by the user */
    const char *plant;
    char failure[256];
    uint64_t hash, promotions, protections, handovers;
};

static uint64_t next_random(struct world *w)
{
    w->random ^= w->random << 13;
    w->random ^= w->random >> 7;
    w->random ^= w->random << 17;
    return w->random;
}

static uint64_t between(struct world *w, uint64_t low, uint64_t high)
{
    return low + next_random(w) % (high - low + 1);
}

static bool chance(struct world *w, unsigned percent)
{
    return next_random(w) % 100 < percent;
}

#define FAIL(w, ...)                                                                                         \
    do {                                                                                                     \
        if (!(w)->failure[0])                                                                                \
            snprintf((w)->failure, sizeof(w)->failure, __VA_ARGS__);                                         \
    } while (0)

static bool before(const struct event *x, const struct event *y)
{
    return x->at != y->at ? x->at < y->at : x->order < y->order;
}

static void schedule(struct world *w, uint64_t delay, struct event event)
{
    unsigned i = w->nheap;
    if (w->nheap == MAX_EVENTS)
        return; /* a schedule that piles up this much has been explored enough */
    event.at = w->now + delay;
    event.order = ++w->order;
    w->nheap++;
    while (i > 0 && before(&event, &w->heap[(i - 1) / 2])) {
        w->heap[i] = w->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    w->heap[i] = event;
}

static struct event take_event(struct world *w)
{
    struct event top = w->heap[0], last = w->heap[--w->nheap];
    unsigned i = 0;
    for (;;) {
        unsigned child = 2 * i + 1;
        if (child >= w->nheap)
            break;
        if (child + 1 < w->nheap && before(&w->heap[child + 1], &w->heap[child]))
            child++;
        if (!before(&w->heap[child], &last))
            break;
        w->heap[i] = w->heap[child];
        i = child;
    }
    w->heap[i] = last;
    return top;
}

static uint64_t clock_ms(const struct world *w, int h)
{
    return (uint64_t)((double)w->now / 1000 * w->hosts[h].clock_rate) + w->hosts[h].clock_offset;
}

/* ---- what the client sees ---- */

static void client_sees(struct world *w, int h, uint64_t branch, uint64_t seq)
{
    if (seq > w->branches[branch].left_at)
        FAIL(w,
             "I5: host %c released frame %" PRIu64 " of branch %" PRIu64 ", which history left at %" PRIu64,
             'a' + h, seq, branch, w->branches[branch].left_at);
    if (seq > w->branches[branch].released)
        w->branches[branch].released = seq;
}

static void release_to(struct world *w, int h, uint64_t seq)
{
    struct host *host = &w->hosts[h];
    if (host->held_from < seq) {
        host->held_from = seq;
        client_sees(w, h, host->branch, seq);
    }
}

/* ---- carrying out what a session decides ---- */

static void feed(struct world *w, int h, struct session_event event);

static void send_message(struct world *w, int from, struct message message)
{
    int to = 1 - from;
    struct queue *queue = &w->queues[to];
    if (!w->hosts[from].linked || w->broken || queue->n == 64)
        return;
    queue->list[(queue->head + queue->n++) % 64] = message;
    uint64_t at = w->now + between(w, 50, 3000);
    if (at <= queue->last_at)
        at = queue->last_at + 1;
    queue->last_at = at;
    schedule(w, at - w->now, (struct event){.kind = DELIVER, .host = to, .a = w->connection});
}

/* The connection ends; what was on its way arrives in part (a dead host's kernel, too, has sent things). */
static void break_connection(struct world *w)
{
    w->broken = true;
    for (int h = 0; h < 2; h++) {
        w->queues[h].n = (unsigned)between(w, 0, w->queues[h].n);
        if (w->hosts[h].alive && w->hosts[h].linked)
            schedule(w, between(w, 10, 30000),
                     (struct event){
                         .kind = BREAK_SEEN, .host = h, .a = w->hosts[h].generation, .b = w->connection});
    }
}

static void start_branch(struct world *w, struct host *host)
{
    uint64_t parent = host->image_branch;
    if (w->nbranches == MAX_BRANCHES) {
        w->limit = 0;
        return;
    }
    if (w->branches[parent].released > host->image_seq)
        FAIL(w, "a client saw frame %" PRIu64 ", but the guest goes on from frame %" PRIu64,
             w->branches[parent].released, host->image_seq);
    if (host->image_seq < w->branches[parent].left_at)
        w->branches[parent].left_at = host->image_seq;
    host->branch = w->nbranches++;
    host->seq = host->image_seq;
    host->held_from = host->seq;
    w->branches[host->branch].parent = parent;
    w->branches[host->branch].from_seq = host->seq;
    w->branches[host->branch].left_at = UINT64_MAX;
    w->branches[host->branch].released = host->seq;
    host->runs = true;
    host->paused = false;
}

/*
 * The boundary is fixed and the epoch sent. A checkpoint that was under way when capture was stopped is
 * finished and sent all the same, but the session never hears of it.
 */
static void finish_cut(struct world *w, int h, bool tell)
{
    struct host *host = &w->hosts[h];
    uint64_t epoch = host->next_epoch++;
    bool last = host->cutting_last;
    host->cutting = false;
    if (epoch >= MAX_EPOCHS) {
        w->limit = 0;
        return;
    }
    host->boundary[epoch] = host->seq;
    host->paused |= last;
    struct message message = {.wire = W_EPOCH,
                              .term = host->session.term,
                              .epoch = epoch,
                              .branch = host->branch,
                              .seq = host->seq};
    if (tell)
        feed(w, h,
             (struct session_event){
                 .type = SESSION_EVENT_EPOCH_CUT, .term = message.term, .epoch = epoch, .ok = last});
    send_message(w, h, message);
}

static void stop_capture(struct world *w, int h)
{
    struct host *host = &w->hosts[h];
    if (host->cutting)
        finish_cut(w, h, false);
    host->capture_serial++;
    host->capturing = false;
}

static void schedule_cut(struct world *w, int h, uint64_t delay)
{
    struct host *host = &w->hosts[h];
    schedule(w, delay,
             (struct event){.kind = CUT, .host = h, .a = host->generation, .b = host->capture_serial});
}

static void apply_next(struct world *w, int h)
{
    struct host *host = &w->hosts[h];
    if (host->nstaged == 0 || host->image_half)
        return;
    host->image_half = true;
    schedule(w, between(w, 100, chance(w, 10) ? 80000 : 8000),
             (struct event){.kind = APPLIED, .host = h, .a = host->generation, .b = host->image_serial});
}

static void on_promote(struct world *w, int h, const struct session_action *action)
{
    struct host *host = &w->hosts[h];
    if (host->image_half || host->image_epoch != host->session.acked_epoch ||
        action->epoch != host->image_epoch || host->image_epoch == 0)
        FAIL(w, "I2: host %c promotes epoch %" PRIu64 " with an image at %" PRIu64 "%s, acked %" PRIu64,
             'a' + h, action->epoch, host->image_epoch, host->image_half ? " and a half" : "",
             host->session.acked_epoch);
    w->promotions++;
    schedule(w, between(w, 500, 20000),
             (struct event){.kind = PROMOTED, .host = h, .a = host->generation, .ok = chance(w, 2)});
}

static void on_release(struct world *w, int h, uint64_t epoch)
{
    if (epoch < MAX_EPOCHS && !w->peer_held[epoch][h])
        FAIL(w, "I1: host %c releases epoch %" PRIu64 ", which its peer does not hold", 'a' + h, epoch);
    if (epoch < MAX_EPOCHS && w->hosts[h].gate == HOLD)
        release_to(w, h, w->hosts[h].boundary[epoch]);
}

static void stop_guest(struct host *host)
{
    host->runs = false;
    host->gate = DROP;
}

static void act(struct world *w, int h, const struct session_action *action)
{
    struct host *host = &w->hosts[h];
    struct message message = {.term = action->term, .epoch = action->epoch, .reason = action->reason};
    if (w->trace)
        printf("%9.3f   %c: %s term %" PRIu64 " epoch %" PRIu64 "\n", (double)w->now / 1000, 'a' + h,
               session_action_name(action->type), action->term, action->epoch);
    w->hash = (w->hash ^ ((uint64_t)action->type * 31 + action->epoch * 7 + (uint64_t)h)) * 1099511628211ull;
    switch (action->type) {
    case SESSION_DO_CONNECT:
        host->wants_link = true;
        schedule(w, between(w, 500, 20000), (struct event){.kind = DIAL});
        break;
    case SESSION_DO_DISCONNECT:
        host->wants_link = false;
        if (host->linked) {
            host->linked = false;
            break_connection(w);
        }
        break;
    case SESSION_DO_START_PRECOPY:
        stop_capture(w, h);
        for (uint64_t n = 0; n < MAX_EPOCHS; n++)
            w->peer_held[n][h] = false;
        schedule(w, between(w, 2000, 60000),
                 (struct event){
                     .kind = SYNCHRONISED, .host = h, .a = host->generation, .b = host->capture_serial});
        break;
    case SESSION_DO_STOP_CAPTURE:
        stop_capture(w, h);
        break;
    case SESSION_DO_HOLD_OUTPUT:
        host->gate = HOLD;
        break;
    case SESSION_DO_START_EPOCHS:
        host->capturing = true;
        host->last_epoch = false;
        if (host->next_epoch <= host->session.cut_epoch)
            host->next_epoch = host->session.cut_epoch + 1;
        if (!host->cutting)
            schedule_cut(w, h, between(w, 100, 5000));
        break;
    case SESSION_DO_LAST_EPOCH:
        host->last_epoch = true;
        break;
    case SESSION_DO_RELEASE:
        on_release(w, h, action->epoch);
        break;
    case SESSION_DO_RELEASE_ALL:
        host->gate = PASS;
        release_to(w, h, host->seq);
        break;
    case SESSION_DO_DROP_OUTPUT:
        host->gate = DROP;
        break;
    case SESSION_DO_APPLY:
        apply_next(w, h);
        break;
    case SESSION_DO_DISCARD_IMAGE:
        if (host->image_half)
            schedule(w, between(w, 10, 50000),
                     (struct event){
                         .kind = APPLIED_LATE, .host = h, .a = host->generation, .b = host->staged[0].epoch});
        host->image_serial++;
        host->image_epoch = 0;
        host->image_half = false;
        host->nstaged = 0;
        break;
    case SESSION_DO_ASK_GRANT:
        schedule(w, between(w, 500, 20000),
                 (struct event){.kind = ARBITER_ASKED, .host = h, .a = action->term, .b = host->generation});
        break;
    case SESSION_DO_PROMOTE:
        on_promote(w, h, action);
        break;
    case SESSION_DO_RESUME_GUEST:
        host->paused = false;
        break;
    case SESSION_DO_FENCE_GUEST:
    case SESSION_DO_QUIT_HYPERVISOR:
        stop_guest(host);
        break;
    case SESSION_DO_SEND_ACK:
        message.wire = W_ACK;
        send_message(w, h, message);
        break;
    case SESSION_DO_SEND_HANDOVER:
        message.wire = W_HANDOVER;
        send_message(w, h, message);
        break;
    case SESSION_DO_SEND_HANDOVER_DONE:
        message.wire = W_HANDOVER_DONE;
        send_message(w, h, message);
        break;
    case SESSION_DO_SEND_GOODBYE:
        message.wire = W_GOODBYE;
        send_message(w, h, message);
        break;
    case SESSION_DO_SEND_FENCED:
        message.wire = W_FENCED;
        send_message(w, h, message);
        break;
    case SESSION_DO_END:
        stop_guest(host);
        host->alive = false;
        host->generation++;
        if (host->linked)
            break_connection(w);
        host->linked = host->wants_link = false;
        schedule(w, between(w, 10000, 300000), (struct event){.kind = RESTART, .host = h});
        break;
    case SESSION_NACTIONS:
        break;
    }
}

static void arm_tick(struct world *w, int h)
{
    struct host *host = &w->hosts[h];
    uint64_t next = session_next_tick_ms(&host->session), now = clock_ms(w, h);
    if (next == UINT64_MAX || !host->alive)
        return;
    uint64_t delay_ms = next > now ? next - now : 0;
    /* Timers are late, never early. */
    uint64_t delay = (uint64_t)((double)(delay_ms * 1000) / host->clock_rate) + between(w, 100, 3000);
    schedule(w, delay,
             (struct event){.kind = TICK, .host = h, .a = host->generation, .b = ++host->tick_serial});
}

static void feed(struct world *w, int h, struct session_event event)
{
    struct host *host = &w->hosts[h];
    struct session_actions actions;
    uint64_t generation = host->generation;
    enum session_state state = host->session.state;
    if (!host->alive)
        return;
    session_handle(&host->session, &event, clock_ms(w, h), &actions);
    if (w->trace && event.type != SESSION_EVENT_HEARTBEAT && event.type != SESSION_EVENT_TICK)
        printf("%9.3f %c %s: %s -> %s\n", (double)w->now / 1000, 'a' + h, session_event_name(event.type),
               session_state_name(state), session_state_name(host->session.state));
    if (state != SESSION_PROTECTED && host->session.state == SESSION_PROTECTED)
        w->protections++;
    for (size_t i = 0; i < actions.n && host->generation == generation; i++)
        act(w, h, &actions.list[i]);
    arm_tick(w, h);
}

static void feed_simple(struct world *w, int h, enum session_event_type type)
{
    feed(w, h, (struct session_event){.type = type});
}

/* ---- what happens ---- */

static void on_dial(struct world *w)
{
    struct host *a = &w->hosts[0], *b = &w->hosts[1];
    bool can = a->alive && b->alive && a->wants_link && b->wants_link && !a->linked && !b->linked &&
               !w->cut[0] && !w->cut[1];
    if (!can) {
        if ((a->alive && a->wants_link && !a->linked) || (b->alive && b->wants_link && !b->linked))
            schedule(w, between(w, 20000, 60000), (struct event){.kind = DIAL});
        return;
    }
    w->connection++;
    w->broken = false;
    w->queues[0] = w->queues[1] = (struct queue){0};
    a->linked = b->linked = true;
    struct session_event up[2];
    for (int h = 0; h < 2; h++)
        up[h] = (struct session_event){.type = SESSION_EVENT_LINK_UP,
                                       .term = w->hosts[1 - h].session.term,
                                       .peer_role = w->hosts[1 - h].session.role};
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

static void on_deliver(struct world *w, const struct event *event)
{
    int h = event->host;
    struct queue *queue = &w->queues[h];
    if (event->a != w->connection || queue->n == 0 || !w->hosts[h].linked)
        return;
    if (w->cut[h]) {
        schedule(w, 5000, *event); /* TCP tries again */
        return;
    }
    struct message message = queue->list[queue->head];
    queue->head = (queue->head + 1) % 64;
    queue->n--;
    struct session_event out = {.term = message.term, .epoch = message.epoch, .reason = message.reason};
    /* Held from the moment it is whole here, which is before the ack. */
    if (message.wire == W_EPOCH && w->hosts[h].alive && message.epoch < MAX_EPOCHS &&
        w->hosts[h].session.role == SESSION_SECONDARY && message.term == w->hosts[h].session.term)
        w->peer_held[message.epoch][1 - h] = true;
    switch (message.wire) {
    case W_EPOCH:
        receive_epoch(w, h, &message);
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
    schedule(w, between(w, 100, 2000),
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
    host->image_epoch = done.epoch;
    host->image_branch = done.branch;
    host->image_seq = done.seq;
    apply_next(w, event->host);
    feed(w, event->host, (struct session_event){.type = SESSION_EVENT_EPOCH_APPLIED, .epoch = done.epoch});
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
    start_branch(w, host);
    host->gate = DROP; /* until the session says otherwise */
    feed(w, event->host,
         (struct session_event){.type = SESSION_EVENT_PROMOTED, .term = host->session.term, .ok = true});
}

static void start_session(struct world *w, int h, enum session_role role, uint64_t term)
{
    struct host *host = &w->hosts[h];
    struct session_config config = {
        .role = role,
        .term = term,
        .silence_ms = 60,
        .handover_timeout_ms = 500,
        .grant_retry_ms = 50,
        .on_peer_loss = chance(w, 70) ? SESSION_ON_PEER_LOSS_CONTINUE : SESSION_ON_PEER_LOSS_HOLD,
        .chaos_release_before_ack = w->plant && strcmp(w->plant, "release-before-ack") == 0,
        .chaos_promote_without_grant = w->plant && strcmp(w->plant, "promote-without-grant") == 0,
        .chaos_apply_unacked = w->plant && strcmp(w->plant, "apply-half") == 0,
    };
    host->alive = true;
    host->wants_link = host->linked = false;
    host->capturing = host->last_epoch = host->cutting = false;
    host->next_epoch = 1;
    host->image_epoch = 0;
    host->image_half = false;
    host->nstaged = 0;
    session_init(&host->session, &config, clock_ms(w, h));
    feed_simple(w, h, SESSION_EVENT_START);
    schedule(w, between(w, 100, 10000),
             (struct event){.kind = HEARTBEAT_SEND, .host = h, .a = host->generation});
}

static void crash(struct world *w, int h)
{
    struct host *host = &w->hosts[h];
    if (!host->alive)
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
    if (!peer->alive || peer->session.role != SESSION_PRIMARY) {
        if (peer->alive)
            schedule(w, between(w, 50000, 200000), (struct event){.kind = RESTART, .host = h});
        return;
    }
    start_session(w, h, SESSION_SECONDARY, peer->session.term);
}

/* The guest powers itself off, the user stops a side, or a hypervisor dies. */
static void guest_fault(struct world *w, int h)
{
    struct host *host = &w->hosts[h];
    bool primary = host->session.role == SESSION_PRIMARY;
    if (!host->alive || chance(w, 60))
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
        feed_simple(w, h, SESSION_EVENT_STOP);
        break;
    default:
        w->crashed = true;
        host->runs = false;
        feed_simple(w, h, SESSION_EVENT_HYPERVISOR_DIED);
        break;
    }
}

static void on_fault(struct world *w)
{
    int h = (int)(next_random(w) & 1);
    if (w->healed)
        return;
    switch (next_random(w) % 11) {
    case 0:
    case 1:
        crash(w, h);
        break;
    case 2:
    case 3:
        w->cut[h] = true;
        break;
    case 4:
        w->cut[0] = w->cut[1] = true;
        break;
    case 5:
        w->cut[0] = w->cut[1] = false;
        break;
    case 6:
        break_connection(w);
        break;
    case 7:
        for (int i = 0; i < 2; i++)
            feed_simple(w, i, SESSION_EVENT_FAILOVER_PLANNED);
        break;
    case 8:
        if (chance(w, 30))
            feed_simple(w, h, SESSION_EVENT_FAILOVER_FORCE);
        break;
    case 9:
        guest_fault(w, h);
        break;
    default:
        w->cut[h] = false;
        break;
    }
    schedule(w, between(w, 5000, 250000), (struct event){.kind = FAULT});
}

static void on_heartbeat_send(struct world *w, const struct event *event)
{
    struct host *host = &w->hosts[event->host];
    int to = 1 - event->host;
    if (event->a != host->generation)
        return;
    schedule(w, 10000, *event);
    for (int copies = chance(w, 2) ? 2 : 1; copies; copies--) {
        if (!chance(w, 3))
            schedule(w, between(w, 50, chance(w, 2) ? 90000 : 2000),
                     (struct event){.kind = HEARTBEAT, .host = to, .a = host->session.term});
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

static void step(struct world *w, const struct event *event)
{
    struct host *host = &w->hosts[event->host];
    bool mine = event->a == host->generation && host->alive;
    switch (event->kind) {
    case TICK:
        if (mine && event->b == host->tick_serial)
            feed_simple(w, event->host, SESSION_EVENT_TICK);
        break;
    case HEARTBEAT_SEND:
        on_heartbeat_send(w, event);
        break;
    case HEARTBEAT:
        if (!w->cut[event->host])
            feed(w, event->host, (struct session_event){.type = SESSION_EVENT_HEARTBEAT, .term = event->a});
        break;
    case GUEST_SENDS:
        for (int h = 0; h < 2; h++) {
            struct host *guest = &w->hosts[h];
            if (!guest->runs || guest->paused)
                continue;
            guest->seq++;
            if (guest->gate == PASS)
                release_to(w, h, guest->seq);
        }
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
    case FAULT:
        on_fault(w);
        break;
    case RESTART:
        on_restart(w, event->host);
        break;
    }
}

static void begin(struct world *w, uint64_t seed, uint64_t events, const char *plant, bool trace)
{
    memset(w, 0, sizeof *w);
    w->random = seed * 0x9e3779b97f4a7c15ull + 0x1234567;
    w->limit = events;
    w->plant = plant;
    w->trace = trace;
    w->arbiter.term = 1;
    w->nbranches = 1;
    w->branches[0].left_at = UINT64_MAX;
    for (int i = 0; i < 8; i++)
        next_random(w);
    for (int h = 0; h < 2; h++) {
        w->hosts[h].clock_rate = 0.98 + (double)(next_random(w) % 40) / 1000;
        w->hosts[h].clock_offset = next_random(w) % 100000;
        w->hosts[h].generation = 1;
    }
    w->hosts[0].runs = true;
    start_session(w, 1, SESSION_SECONDARY, 1);
    start_session(w, 0, SESSION_PRIMARY, 1);
    schedule(w, 1000, (struct event){.kind = GUEST_SENDS});
    schedule(w, between(w, 50000, 400000), (struct event){.kind = FAULT});
}

static bool is_settled(const struct world *w)
{
    const struct host *a = &w->hosts[0], *b = &w->hosts[1];
    if (a->session.role == SESSION_SECONDARY) {
        a = &w->hosts[1];
        b = &w->hosts[0];
    }
    return a->alive && b->alive && a->runs && !a->paused && !b->runs &&
           a->session.state == SESSION_PROTECTED && b->session.state == SESSION_STANDBY;
}

/*
 * At the end the network heals and hosts come back. The guest must be running, at one place, and be protected
 * again, unless a death may have taken it along or it was ended on purpose; and never in two places.
 */
static void check_liveness(struct world *w)
{
    w->healed = true;
    w->cut[0] = w->cut[1] = false;
    uint64_t until = w->now + 5 * SECOND;
    while (w->nheap && w->heap[0].at < until && !w->failure[0] && w->limit && !is_settled(w)) {
        struct event event = take_event(w);
        w->now = event.at;
        step(w, &event);
    }
    if (!w->limit || w->failure[0] || is_settled(w))
        return;
    int running = 0;
    for (int h = 0; h < 2; h++)
        running += w->hosts[h].alive && w->hosts[h].runs && !w->hosts[h].paused;
    if (running == 1 || running > 1 || (!w->crashed && !w->done))
        FAIL(w, "liveness: the network is whole, but %d guests run (a: %s, b: %s)", running,
             session_state_name(w->hosts[0].session.state), session_state_name(w->hosts[1].session.state));
}

static bool run_schedule(struct world *w, uint64_t seed, uint64_t events, const char *plant, bool trace)
{
    begin(w, seed, events, plant, trace);
    while (w->nheap && w->steps++ < w->limit && !w->failure[0]) {
        struct event event = take_event(w);
        w->now = event.at;
        step(w, &event);
    }
    if (!w->failure[0] && !plant)
        check_liveness(w);
    return !w->failure[0];
}

int main(int argc, char **argv)
{
    static struct world world;
    uint64_t schedules = 1000, seed = 1, events = 600;
    const char *plant = NULL;
    bool expect_failure = false, soak = false, twice = false, trace = false, one = false;
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(argv[i], "--schedules") == 0)
            schedules = strtoull(value, NULL, 10), i++;
        else if (strcmp(argv[i], "--seed") == 0)
            seed = strtoull(value, NULL, 10), one = true, i++;
        else if (strcmp(argv[i], "--events") == 0)
            events = strtoull(value, NULL, 10), i++;
        else if (strcmp(argv[i], "--plant") == 0)
            plant = value, i++;
        else if (strcmp(argv[i], "--expect-failure") == 0)
            expect_failure = true;
        else if (strcmp(argv[i], "--soak") == 0)
            soak = true;
        else if (strcmp(argv[i], "--twice") == 0)
            twice = true;
        else if (strcmp(argv[i], "--trace") == 0)
            trace = true;
        else
            return fprintf(stderr, "simulation: unknown option %s\n", argv[i]), 2;
    }
    if (twice) {
        run_schedule(&world, seed, events, plant, trace);
        uint64_t hash = world.hash, steps = world.steps;
        run_schedule(&world, seed, events, plant, trace);
        bool same = hash == world.hash && steps == world.steps;
        printf("seed %" PRIu64 ": %s\n", seed, same ? "replays exactly" : "DIFFERS");
        return !same;
    }
    uint64_t promotions = 0, protections = 0, first = seed, last = one ? seed : schedules;
    for (uint64_t s = first; soak || s <= last; s++) {
        bool ok = run_schedule(&world, s, events, plant, trace);
        promotions += world.promotions;
        protections += world.protections;
        if (ok)
            continue;
        printf("schedule %" PRIu64 " failed after %" PRIu64 " steps: %s\nreplay: simulation --seed %" PRIu64
               " --events %" PRIu64 "%s%s --trace\n",
               s, world.steps, world.failure, s, events, plant ? " --plant " : "", plant ? plant : "");
        return expect_failure ? 0 : 1;
    }
    printf("%" PRIu64 " schedules: %" PRIu64 " times protected, %" PRIu64
           " promotions, every invariant held\n",
           last - first + 1, protections, promotions);
    return expect_failure ? 1 : 0;
}
