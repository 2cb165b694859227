/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The arithmetic of silence (detector.h). Each clock has the time at which something was last heard and, of
 * the time since then, the part that is excused because this side did not run. Every "at" function adds a
 * limit to the sum of the two, so that the caller can set its timer to the result.
 */
#include "heartbeat/detector.h"

#include <string.h>

#define LATE_INTERVALS 2 /* the own timer must be later than this before it counts as a stall */

static uint64_t sooner(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t later(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static void set(struct detector_clock *clock, uint64_t now_ms)
{
    *clock = (struct detector_clock){.heard_ms = now_ms};
}

/* The time from which silence counts. */
static uint64_t since(const struct detector_clock *clock)
{
    return clock->heard_ms + clock->excused_ms;
}

/* Adds to the excused time, but never beyond now_ms. */
static void excuse(struct detector_clock *clock, uint64_t stalled_ms, uint64_t now_ms)
{
    uint64_t most_ms = now_ms > since(clock) ? now_ms - since(clock) : 0;
    clock->excused_ms += sooner(stalled_ms, most_ms);
}

void detector_init(struct detector *d, uint64_t silence_ms, uint64_t beat_ms, uint64_t now_ms)
{
    memset(d, 0, sizeof *d);
    d->silence_ms = silence_ms;
    d->beat_ms = beat_ms;
    set(&d->peer, now_ms);
    set(&d->path, now_ms);
}

void detector_heard(struct detector *d, uint64_t now_ms)
{
    set(&d->peer, now_ms);
}

void detector_heard_by_path(struct detector *d, uint64_t now_ms)
{
    set(&d->path, now_ms);
}

void detector_told_deaf(struct detector *d, bool deaf, uint64_t now_ms)
{
    if (deaf && !d->told_deaf)
        d->told_deaf_ms = now_ms;
    d->told_deaf = deaf;
}

void detector_asked(struct detector *d, uint64_t now_ms)
{
    d->asked = true;
    d->asked_ms = now_ms;
}

void detector_answered(struct detector *d)
{
    d->asked = false;
}

void detector_stalled(struct detector *d, uint64_t stalled_ms, uint64_t now_ms)
{
    excuse(&d->peer, stalled_ms, now_ms);
    excuse(&d->path, stalled_ms, now_ms);
    d->told_deaf = false;
    d->listens_until_ms = now_ms + sooner(stalled_ms, d->silence_ms);
}

uint64_t detector_missed_beat_at_ms(const struct detector *d)
{
    return since(&d->peer) + sooner(2 * d->beat_ms, d->silence_ms * 2 / 3);
}

static uint64_t limit_ms(const struct detector *d, enum detector_limit limit)
{
    switch (limit) {
    case DETECTOR_LINK_CLOSED:
        return d->silence_ms / 3;
    case DETECTOR_BUSY:
        return 5 * d->silence_ms;
    default:
        return d->silence_ms;
    }
}

/* Time that an answer may take. It is a part of the shortest limit, which is a third of a silence. */
static uint64_t answer_ms(const struct detector *d)
{
    return d->silence_ms / 8;
}

uint64_t detector_unheard_at_ms(const struct detector *d, enum detector_limit limit)
{
    return since(&d->peer) + limit_ms(d, limit);
}

uint64_t detector_silent_at_ms(const struct detector *d, enum detector_limit limit)
{
    if (!d->asked)
        return UINT64_MAX;
    return later(later(detector_unheard_at_ms(d, limit), d->asked_ms + answer_ms(d)), d->listens_until_ms);
}

uint64_t detector_path_cut_at_ms(const struct detector *d)
{
    uint64_t cut_ms = since(&d->path) + 2 * d->silence_ms;
    return d->told_deaf ? sooner(cut_ms, d->told_deaf_ms + d->silence_ms) : cut_ms;
}

bool detector_is_deaf(const struct detector *d, uint64_t now_ms)
{
    return now_ms >= since(&d->path) + d->silence_ms;
}

void own_timer_init(struct own_timer *timer, uint64_t interval_ms)
{
    *timer = (struct own_timer){.interval_ms = interval_ms};
}

uint64_t own_timer_ran(struct own_timer *timer, uint64_t now_ms)
{
    uint64_t due_ms = timer->ran_ms + timer->interval_ms;
    bool late = timer->has_run && now_ms > due_ms + LATE_INTERVALS * timer->interval_ms;
    timer->ran_ms = now_ms;
    timer->has_run = true;
    return late ? now_ms - due_ms : 0;
}
