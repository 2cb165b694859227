/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * See world.h. What a host does when its session orders it: the replicator's part, with the guest, the output
 * gate, the capture and the image as counters. I1 and I2 are checked here, where they would be broken.
 */
#include <string.h>

#include "tests/simulation/world.h"

void start_branch(struct world *w, struct host *host)
{
    uint64_t parent = host->image_branch;
    if (w->nbranches == MAX_BRANCHES) {
        w->limit = 0;
        return;
    }
    if (w->mode != CUTS && w->branches[parent].released > host->image_seq)
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
    host->tracking = false;
    memcpy(host->memory, host->image_memory, sizeof host->memory);
}

/* The pages are in staging, under a serial of their own. */
static void stage(struct host *host, unsigned pages)
{
    host->serial++;
    host->dirty &= ~pages;
    for (unsigned page = 0; page < PAGES; page++)
        if (pages & (1u << page))
            host->page_serial[page] = host->serial;
}

/* Part of what is dirty, in batches, before the first epoch. */
static void send_batches(struct world *w, int h)
{
    struct host *host = &w->hosts[h];
    while (host->dirty && chance(w, 70)) {
        unsigned pages = host->dirty & (unsigned)next_random(w);
        struct message message = {.wire = W_BATCH, .term = host->session.term, .pages = pages};
        memcpy(message.memory, host->memory, sizeof message.memory);
        stage(host, pages);
        send_message(w, h, message);
    }
}

static void start_precopy(struct world *w, int h)
{
    struct host *host = &w->hosts[h];
    host->tracking = true;
    host->held_serial = host->serial;
    host->dirty = 0;
    for (unsigned page = 0; page < PAGES; page++)
        if (host->memory[page])
            host->dirty |= 1u << page;
}

static void start_resync(struct world *w, int h, uint64_t held_epoch)
{
    struct host *host = &w->hosts[h];
    w->resyncs++;
    if (!host->tracking)
        FAIL(w, "host %c sends a difference that it has not tracked", 'a' + h);
    if (held_epoch < MAX_EPOCHS && host->epoch_serial[held_epoch] > host->held_serial)
        host->held_serial = host->epoch_serial[held_epoch];
    for (unsigned page = 0; page < PAGES; page++)
        if (host->page_serial[page] > host->held_serial &&
            !(w->plant && strcmp(w->plant, "forget-unacked") == 0))
            host->dirty |= 1u << page;
}

/*
 * The boundary is fixed and the epoch sent. A checkpoint that was under way when capture was stopped is
 * finished and sent all the same, but the session never hears of it.
 */
void finish_cut(struct world *w, int h, bool tell)
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
                              .term = host->capture_term,
                              .epoch = epoch,
                              .branch = host->branch,
                              .seq = host->seq,
                              .pages = host->dirty};
    memcpy(message.memory, host->memory, sizeof message.memory);
    stage(host, host->dirty);
    host->epoch_serial[epoch] = host->serial;
    if (tell)
        feed(w, h,
             (struct session_event){
                 .type = SESSION_EVENT_EPOCH_CUT, .term = message.term, .epoch = epoch, .ok = last});
    send_message(w, h, message);
    if (tell)
        schedule(w, between(w, 10, 2000),
                 (struct event){.kind = SENT, .host = h, .a = w->connection, .b = epoch});
}

static void stop_capture(struct world *w, int h)
{
    struct host *host = &w->hosts[h];
    if (host->cutting)
        finish_cut(w, h, false);
    host->capture_serial++;
    host->capturing = false;
}

static void connect_link(struct world *w, struct host *host)
{
    host->wants_link = true;
    session_hello(&host->session, &host->hello);
    schedule(w, between(w, 500, 20000), (struct event){.kind = DIAL});
}

/*
 * Often at once; sometimes the capture hangs for a while, and what it is at is finished only then. Meanwhile
 * no link is asked for, and a guest that its last epoch may pause is not woken.
 */
static void order_stop(struct world *w, int h)
{
    struct host *host = &w->hosts[h];
    if (!host->stopping && !chance(w, 30)) {
        stop_capture(w, h);
        return;
    }
    host->capture_serial++;
    host->capturing = false;
    host->stopping = true;
    schedule(
        w, between(w, 1000, chance(w, 10) ? 300000 : 50000),
        (struct event){.kind = CAPTURE_STOPPED, .host = h, .a = host->generation, .b = ++host->stop_serial});
}

static void resume_guest(struct world *w, int h)
{
    if (w->disks && !w->hosts[h].disk_writable)
        FAIL(w, "disks: host %c lets its guest go on, which cannot write here", 'a' + h);
    w->hosts[h].paused = false;
}

void capture_stopped(struct world *w, int h)
{
    struct host *host = &w->hosts[h];
    if (host->cutting && host->runs)
        finish_cut(w, h, false);
    host->cutting = host->stopping = false;
    if (host->resumes_then)
        resume_guest(w, h);
    if (host->connects_then)
        connect_link(w, host);
    host->resumes_then = host->connects_then = false;
}

void schedule_cut(struct world *w, int h, uint64_t delay)
{
    struct host *host = &w->hosts[h];
    schedule(w, delay,
             (struct event){.kind = CUT, .host = h, .a = host->generation, .b = host->capture_serial});
}

void apply_next(struct world *w, int h)
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
    if (w->disks && !host->disk_writable)
        FAIL(w, "disks: host %c promotes, and its guest cannot write here", 'a' + h);
    if (host->image_half || host->image_epoch != host->session.acked_epoch ||
        action->epoch != host->image_epoch || host->image_epoch == 0)
        FAIL(w, "I2: host %c promotes epoch %" PRIu64 " with an image at %" PRIu64 "%s, acked %" PRIu64,
             'a' + h, action->epoch, host->image_epoch, host->image_half ? " and a half" : "",
             host->session.acked_epoch);
    w->promotions++;
    schedule(w, between(w, 500, 20000),
             (struct event){.kind = PROMOTED, .host = h, .a = host->generation, .ok = chance(w, 2)});
}

/* The disks are slow now and then, and refuse now and then: then the guest is lost, or stays paused. */
static void order_disks(struct world *w, int h, const struct session_action *action)
{
    struct host *host = &w->hosts[h];
    bool durable = action->type == SESSION_DO_DISKS_DURABLE;
    struct event done = {
        .kind = DISKS_DONE, .host = h, .a = host->generation, .b = action->order, .ok = true};
    /* An answer to the order before may still be on its way. */
    struct event old = done;
    old.b--;
    old.beat.query = durable ? SESSION_DO_DISKS_DURABLE : action->type;
    if (chance(w, 20))
        schedule(w, between(w, 1, 2000), old);
    if (!durable)
        host->disk_order = action->order;
    if (action->type == SESSION_DO_DISKS_WRITABLE || action->type == SESSION_DO_DISKS_TAKE_OVER)
        done.ok = !chance(w, 2);
    w->crashed |= !done.ok;
    host->disk_synchronous |= durable;
    done.beat.query = action->type;
    done.beat.answer = host->seq; /* written until now */
    uint64_t most = chance(w, action->type == SESSION_DO_DISKS_WRITABLE ? 50 : 90) ? 8000
                    : chance(w, 70)                                                ? 150000
                                                                                   : SECOND;
    schedule(w, between(w, 100, most), done);
}

/* Output leaves without a peer that holds what it depends on. */
static void pass_all(struct world *w, int h)
{
    struct host *host = &w->hosts[h];
    if (w->disks && host->disk_unsettled)
        FAIL(w, "disks: host %c lets frame %" PRIu64 " out, and what was written before is in memory alone",
             'a' + h, host->seq);
    host->gate = PASS;
    release_to(w, h, host->seq);
}

static void send_handover(struct world *w, int h, struct message message)
{
    if (w->disks && w->hosts[h].disk_writable)
        FAIL(w, "disks: host %c tells its peer to go on with the guest while it may write here", 'a' + h);
    if (!w->hosts[h].paused)
        FAIL(w, "host %c tells its peer to go on with the guest, and it runs here", 'a' + h);
    message.wire = W_HANDOVER;
    send_message(w, h, message);
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

/* Who is told that the guest has ended may rely on it: it neither runs on the other host nor will. */
static void on_end(struct world *w, int h, enum session_end_reason reason)
{
    const struct host *host = &w->hosts[h], *peer = &w->hosts[1 - h];
    bool for_good = reason == SESSION_END_STOPPED || reason == SESSION_END_GUEST_SHUTDOWN;
    if (w->mode == CUTS || host->session.role != SESSION_PRIMARY || !for_good)
        return;
    w->ended_for_good = true;
    /* One of an older term has been taken over, and only has to hear of it. */
    bool runs = peer->alive && peer->session.role == SESSION_PRIMARY && peer->runs;
    if (runs && peer->session.term > host->session.term)
        FAIL(w, "host %c says that the guest has ended, and host %c runs it", 'a' + h, 'a' + 1 - h);
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
        if (host->stopping)
            host->connects_then = true;
        else
            connect_link(w, host);
        break;
    case SESSION_DO_DISCONNECT:
        host->wants_link = host->connects_then = false;
        if (host->linked) {
            host->linked = false;
            break_connection(w);
        }
        break;
    case SESSION_DO_START_PRECOPY:
    case SESSION_DO_START_RESYNC:
        stop_capture(w, h);
        host->capture_term = host->session.term;
        if (action->type == SESSION_DO_START_PRECOPY)
            start_precopy(w, h);
        else
            start_resync(w, h, action->epoch);
        send_batches(w, h);
        for (uint64_t n = 0; n < MAX_EPOCHS; n++)
            w->peer_held[n][h] = false;
        schedule(w, between(w, 2000, 60000),
                 (struct event){
                     .kind = SYNCHRONISED, .host = h, .a = host->generation, .b = host->capture_serial});
        break;
    case SESSION_DO_STOP_CAPTURE:
        order_stop(w, h);
        host->disk_synchronous = true;
        break;
    case SESSION_DO_FORGET_IMAGE:
        host->tracking = false;
        break;
    case SESSION_DO_KEEP_IMAGE: /* what is still to be applied belongs to it */
        break;
    case SESSION_DO_HOLD_OUTPUT:
        host->gate = HOLD;
        host->disk_synchronous = false;
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
        pass_all(w, h);
        break;
    case SESSION_DO_RELEASE_LAST: /* waits for the disks */
        host->disk_unsettled = 0;
        pass_all(w, h);
        break;
    case SESSION_DO_KEEP_TERM:
        schedule(w, between(w, 100, chance(w, 10) ? 150000 : 15000),
                 (struct event){.kind = TERM_KEPT, .host = h, .a = host->generation, .b = action->term});
        break;
    case SESSION_DO_DISKS_DURABLE:
    case SESSION_DO_DISKS_GIVE_UP:
    case SESSION_DO_DISKS_WRITABLE:
    case SESSION_DO_DISKS_TAKE_OVER:
        order_disks(w, h, action);
        break;
    case SESSION_DO_DROP_OUTPUT:
        host->gate = DROP;
        host->resumes_then = false;
        host->disk_writable = false;
        host->disk_order = 0;
        break;
    case SESSION_DO_APPLY:
        if (w->durable)
            schedule(w, between(w, 100, chance(w, 10) ? 90000 : 10000),
                     (struct event){.kind = JOURNALLED,
                                    .host = h,
                                    .a = host->generation,
                                    .b = action->epoch,
                                    .beat = {.term = action->term, .query = w->connection}});
        apply_next(w, h);
        break;
    case SESSION_DO_DISCARD_IMAGE:
        if (host->image_half)
            schedule(w, between(w, 10, 50000),
                     (struct event){
                         .kind = APPLIED_LATE, .host = h, .a = host->generation, .b = host->staged[0].epoch});
        host->image_serial++;
        memset(host->image_memory, 0, sizeof host->image_memory);
        host->image_epoch = 0;
        host->image_half = false;
        host->nstaged = 0;
        break;
    case SESSION_DO_ASK_PEER:
    case SESSION_DO_SEND_ANSWER:
        send_beat(w, h);
        message.wire = W_BEAT;
        session_beat(&host->session, clock_ms(w, h), &message.beat);
        send_message(w, h, message);
        break;
    case SESSION_DO_ASK_GRANT:
        host->granted = action->term;
        if (w->mode != ARBITER)
            break;
        schedule(w, between(w, 500, 20000),
                 (struct event){.kind = ARBITER_ASKED, .host = h, .a = action->term, .b = host->generation});
        break;
    case SESSION_DO_PROMOTE:
        on_promote(w, h, action);
        break;
    case SESSION_DO_RESUME_GUEST:
        if (host->stopping && !(w->plant && strcmp(w->plant, "resume-too-soon") == 0))
            host->resumes_then = true;
        else
            resume_guest(w, h);
        break;
    case SESSION_DO_FENCE_GUEST:
    case SESSION_DO_QUIT_HYPERVISOR:
        stop_guest(host);
        break;
    case SESSION_DO_POWER_DOWN_GUEST:
        w->done = true; /* nobody could take it: it is not lost, whatever becomes of it */
        if (chance(w, 60))
            schedule(w, between(w, 10000, 300000),
                     (struct event){.kind = POWERED_DOWN, .host = h, .a = host->generation});
        break;
    case SESSION_DO_SEND_ACK:
        if (host->session.state != SESSION_STANDBY)
            FAIL(w, "I5: host %c acks epoch %" PRIu64 " while it is %s", 'a' + h, action->epoch,
                 session_state_name(host->session.state));
        message.wire = W_ACK;
        message.untried = action->untried && !(w->plant && strcmp(w->plant, "untried-protects") == 0);
        send_message(w, h, message);
        break;
    case SESSION_DO_SEND_HANDOVER:
        send_handover(w, h, message);
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
        if (action->reason == SESSION_END_BUG)
            FAIL(w, "host %c was about to go from %s to %s, which no table knows", 'a' + h,
                 session_state_name(host->session.bug_from), session_state_name(host->session.bug_to));
        on_end(w, h, action->reason);
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

/* Whoever is called protected could be taken over: by a standby that was tried, where it must be. */
static void on_protected(struct world *w, int h)
{
    const struct host *peer = &w->hosts[1 - h];
    w->protections++;
    if (peer->alive && peer->session.state == SESSION_STANDBY && peer->session.untried)
        FAIL(w, "host %c is protected by a standby that has yet to be tried", 'a' + h);
}

/* States that are rare or short are not left in peace as often as the others. */
static void plan_upset(struct world *w, int h, enum session_state before)
{
    enum session_state state = w->hosts[h].session.state;
    bool given_up = before == SESSION_HANDING_OVER && state == SESSION_PROTECTED;
    if (given_up && chance(w, 50)) /* the user tries again at once */
        schedule(w, between(w, 10, 20000),
                 (struct event){.kind = UPSET, .host = h, .a = w->hosts[h].generation, .ok = true});
    bool rare = state == SESSION_PEER_LOST || state == SESSION_HANDING_OVER || state == SESSION_ASKING;
    if (chance(w, state == SESSION_HANDOVER_UNSURE ? 30 : rare ? 3 : 1))
        schedule(w, between(w, 10, 30000),
                 (struct event){.kind = UPSET, .host = h, .a = w->hosts[h].generation});
}

void feed(struct world *w, int h, struct session_event event)
{
    struct host *host = &w->hosts[h];
    struct session_actions actions;
    uint64_t generation = host->generation;
    enum session_state state = host->session.state;
    uint64_t term = host->session.term;
    if (!host->alive)
        return;
    session_handle(&host->session, &event, clock_ms(w, h), &actions);
    w->transitions |= host->session.transitions;
    if (w->trace && event.type != SESSION_EVENT_HEARTBEAT && event.type != SESSION_EVENT_TICK)
        printf("%9.3f %c %s: %s -> %s\n", (double)w->now / 1000, 'a' + h, session_event_name(event.type),
               session_state_name(state), session_state_name(host->session.state));
    if (state != SESSION_PROTECTED && host->session.state == SESSION_PROTECTED)
        on_protected(w, h);
    if (state != host->session.state)
        plan_upset(w, h, state);
    /* The peer hears of a new term before anything is done about it. */
    if (host->session.term != term)
        send_beat(w, h);
    for (size_t i = 0; i < actions.n && host->generation == generation; i++)
        act(w, h, &actions.list[i]);
    arm_tick(w, h);
    uint64_t granted = host->granted;
    host->granted = 0;
    if (w->mode != ARBITER && granted && host->generation == generation)
        feed(w, h, (struct session_event){.type = SESSION_EVENT_GRANT, .term = granted, .ok = true});
}

void feed_simple(struct world *w, int h, enum session_event_type type)
{
    feed(w, h, (struct session_event){.type = type});
}
