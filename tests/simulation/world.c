/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See world.h: chance, time, the connection between the hosts, and what clients see. */
#include "tests/simulation/world.h"

uint64_t next_random(struct world *w)
{
    w->random ^= w->random << 13;
    w->random ^= w->random >> 7;
    w->random ^= w->random << 17;
    return w->random;
}

uint64_t between(struct world *w, uint64_t low, uint64_t high)
{
    return low + next_random(w) % (high - low + 1);
}

bool chance(struct world *w, unsigned percent)
{
    return next_random(w) % 100 < percent;
}

static bool before(const struct event *x, const struct event *y)
{
    return x->at != y->at ? x->at < y->at : x->order < y->order;
}

void schedule(struct world *w, uint64_t delay, struct event event)
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

struct event take_event(struct world *w)
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

uint64_t clock_ms(const struct world *w, int h)
{
    return (uint64_t)((double)w->now / 1000 * w->hosts[h].clock_rate) + w->hosts[h].clock_offset;
}

bool stands_still(const struct world *w, int h)
{
    return w->now < w->hosts[h].stands_until;
}

static void client_sees(struct world *w, int h, uint64_t branch, uint64_t seq)
{
    if (w->mode != CUTS && seq > w->branches[branch].left_at)
        FAIL(w,
             "I5: host %c released frame %" PRIu64 " of branch %" PRIu64 ", which history left at %" PRIu64,
             'a' + h, seq, branch, w->branches[branch].left_at);
    if (seq > w->branches[branch].released)
        w->branches[branch].released = seq;
}

/* A term is one process's: whoever restarts must not use again what let out frames before. */
static void check_term(struct world *w, int h)
{
    const struct host *host = &w->hosts[h];
    uint64_t term = host->session.term, owner = (uint64_t)h << 32 | host->generation;
    if (term > TERM_FIRST && host->kept_term < term)
        FAIL(w, "host %c lets frames out in term %" PRIu64 ", which is not on its disk", 'a' + h, term);
    if (term >= MAX_TERMS)
        return;
    if (w->let_out[term] && w->let_out[term] != owner)
        FAIL(w, "host %c lets frames out in term %" PRIu64 ", in which another process did so before",
             'a' + h, term);
    w->let_out[term] = owner;
}

void release_to(struct world *w, int h, uint64_t seq)
{
    struct host *host = &w->hosts[h];
    if (host->held_from < seq) {
        check_term(w, h);
        host->held_from = seq;
        client_sees(w, h, host->branch, seq);
    }
}

void send_message(struct world *w, int from, struct message message)
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

void send_beat(struct world *w, int h)
{
    struct event event = {.kind = HEARTBEAT, .host = 1 - h, .a = ++w->hosts[h].sequence};
    session_beat(&w->hosts[h].session, clock_ms(w, h), &event.beat);
    for (int path = 0; path < (w->two_paths ? 2 : 1); path++) {
        bool lost = w->mode != REACHABLE && chance(w, 3);
        bool late = w->mode != REACHABLE && chance(w, 2);
        /* Rarely so late that its sender has died and come back meanwhile. */
        uint64_t most = !late ? 2000 : chance(w, 40) ? SECOND : 90000;
        event.ok = path == 0;
        if (!lost)
            schedule(w, between(w, 50, most), event);
    }
}

/* The connection ends; what was on its way arrives in part (a dead host's kernel, too, has sent things). */
void break_connection(struct world *w)
{
    /* Nobody can tell a host whose path swallows everything; it finds out by itself, late. */
    uint64_t notice = w->stalled[0] || w->stalled[1] ? 500000 : 30000;
    w->broken = true;
    for (int h = 0; h < 2; h++) {
        w->queues[h].n = (unsigned)between(w, 0, w->queues[h].n);
        if (w->hosts[h].alive && w->hosts[h].linked)
            schedule(w, between(w, 10, notice),
                     (struct event){
                         .kind = BREAK_SEEN, .host = h, .a = w->hosts[h].generation, .b = w->connection});
    }
}
