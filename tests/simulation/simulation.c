/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Runs seeded schedules of the world in world.h: messages are delayed, lost and repeated, connections break
 * in the middle of an epoch, networks are cut one way or both, hosts crash and come back at any step, clocks
 * drift.
 *
 * The guest is a counter: it "sends" frame q, q + 1, ... of its branch of history. A promotion from an epoch
 * starts a new branch at the frame where that epoch ends. After every step:
 *
 *   I1: output is released only for epochs that the peer had held whole.
 *   I2: a promotion starts from an image that is exactly the newest acked epoch; an epoch that is applied
 *       makes the image the guest's memory as it was, whatever links broke and came back.
 *   Disks: what is let out without a peer that holds it is on stable storage; a guest runs only where it may
 *       write; nobody is told to go on with the guest while it may still write here.
 *   I5: released frames form one chain: no frame of a branch ever passes the point where another one left it.
 *
 *   simulation [--schedules N] [--seed S] [--events N] [--plant BUG] [--expect-failure] [--soak] [--twice]
 *              [--trace] [--all-transitions]
 *
 * --seed alone runs that one; with --schedules, it is the first of N. Prints which transitions of the session
 * no schedule has made; --all-transitions: that is a failure.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "failover/transitions.h"
#include "tests/simulation/world.h"

static void begin(struct world *w, uint64_t seed, uint64_t events, const char *plant, bool trace)
{
    memset(w, 0, sizeof *w);
    w->random = seed * 0x9e3779b97f4a7c15ull + 0x1234567;
    w->limit = events;
    w->plant = plant;
    w->trace = trace;
    w->arbiter.term = TERM_FIRST;
    w->mode = (enum mode)(seed % 3);
    w->two_paths = seed / 3 % 3 != 0;
    w->durable = seed / 9 % 2;
    w->disks = seed / 18 % 2;
    w->trials = seed / 36 % 4 == 1;
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
    start_session(w, 1, SESSION_SECONDARY, TERM_FIRST);
    start_session(w, 0, SESSION_PRIMARY, TERM_FIRST);
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
    return a->alive && b->alive && a->runs && !a->paused && !b->runs && !w->stalled[0] && !w->stalled[1] &&
           a->session.state == SESSION_PROTECTED && b->session.state == SESSION_STANDBY;
}

static int count_running(const struct world *w)
{
    int running = 0;
    for (int h = 0; h < 2; h++)
        running += w->hosts[h].alive && w->hosts[h].runs && !w->hosts[h].paused;
    return running;
}

/*
 * At the end the network heals and hosts come back. The guest must be running, at one place, and be protected
 * again, unless a death may have taken it along or it was ended on purpose; and never in two places.
 */
static void check_liveness(struct world *w)
{
    w->healed = true;
    w->cut[0] = w->cut[1] = false;
    w->dead_since[0] = w->dead_since[1] = 0;
    uint64_t heard = w->now + SECOND, until = w->now + 5 * SECOND;
    while (w->nheap && w->heap[0].at < until && !w->failure[0] && w->limit && !is_settled(w)) {
        struct event event = take_event(w);
        w->now = event.at;
        step(w, &event);
        if (w->now > heard && count_running(w) > 1)
            FAIL(w, "both hosts run the guest one second after they heard each other again");
    }
    if (!w->limit || w->failure[0] || is_settled(w))
        return;
    int running = count_running(w);
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
    if (!w->failure[0])
        check_liveness(w);
    return !w->failure[0];
}

/* Which transitions of the table no schedule has made. Returns how many. */
static unsigned print_unreached(uint64_t reached)
{
    size_t n;
    const struct transition *table = transitions(&n);
    unsigned missing = 0;
    for (size_t i = 0; i < n; i++) {
        if (reached & 1ull << i)
            continue;
        missing++;
        printf("never reached: %s -> %s (%s): %s\n", session_state_name(table[i].from),
               session_state_name(table[i].to), session_role_name(table[i].role), table[i].when);
    }
    printf("%zu of %zu transitions of the session were made\n", n - missing, n);
    return missing;
}

int main(int argc, char **argv)
{
    static struct world world;
    uint64_t schedules = 0, seed = 1, events = 1200;
    const char *plant = NULL;
    bool expect_failure = false, soak = false, twice = false, trace = false, one = false, all = false;
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(argv[i], "--schedules") == 0)
            schedules = strtoull(value, NULL, 10), one = false, i++;
        else if (strcmp(argv[i], "--seed") == 0)
            seed = strtoull(value, NULL, 10), one = schedules == 0, i++;
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
        else if (strcmp(argv[i], "--all-transitions") == 0)
            all = true;
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
    uint64_t promotions = 0, protections = 0, resyncs = 0, reached = 0, first = seed;
    uint64_t last = first + (one ? 1 : schedules ? schedules : 1000) - 1;
    for (uint64_t s = first; soak || s <= last; s++) {
        bool ok = run_schedule(&world, s, events, plant, trace);
        promotions += world.promotions;
        protections += world.protections;
        resyncs += world.resyncs;
        reached |= world.transitions;
        if (ok)
            continue;
        printf("schedule %" PRIu64 " failed after %" PRIu64 " steps: %s\nreplay: simulation --seed %" PRIu64
               " --events %" PRIu64 "%s%s --trace\n",
               s, world.steps, world.failure, s, events, plant ? " --plant " : "", plant ? plant : "");
        return expect_failure ? 0 : 1;
    }
    printf("%" PRIu64 " schedules: %" PRIu64 " times protected, %" PRIu64
           " images brought up to date, %" PRIu64 " promotions, every invariant held\n",
           last - first + 1, protections, resyncs, promotions);
    unsigned missing = one ? 0 : print_unreached(reached);
    if (all && missing)
        return 1;
    return expect_failure ? 1 : 0;
}
