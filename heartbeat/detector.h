/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * When the peer counts as silent. One clock each of what was heard last, by any path and by the checkpoints'
 * own network, and one of this side's own timer. Pure: the time comes in, in milliseconds of any monotonic
 * clock of this host; no system call, no thread, no allocation. One thread owns each struct.
 *
 * Silence is the lack of an answer. A peer that misses a beat is asked; it is silent when nothing has been
 * heard for the limit and the question has had time for an answer.
 *
 * Time in which this side itself did not run is no silence of the peer's: otherwise two sides that wake from
 * one stall take each other for dead. And the peer may have taken this side for dead meanwhile: so after a
 * stall nobody is judged before this side has listened for as long as it stood still, or for a whole silence.
 */
#ifndef UNDERSTUDY_HEARTBEAT_DETECTOR_H
#define UNDERSTUDY_HEARTBEAT_DETECTOR_H

#include <stdbool.h>
#include <stdint.h>

/* How long nothing may be heard. */
enum detector_limit {
    DETECTOR_SILENCE,     /* as long as the user said */
    DETECTOR_LINK_CLOSED, /* a third of it: the peer's kernel closed the link, as that of a dying process does
                           */
    DETECTOR_BUSY,        /* five of it: the peer starts a guest, and may be too busy for a beat */
};

struct detector_clock {
    uint64_t heard_ms;
    uint64_t excused_ms; /* of the time since then: this side did not run */
};

struct detector {
    uint64_t silence_ms, beat_ms; /* the peer's beats come as often as this */
    struct detector_clock peer;   /* by any path */
    struct detector_clock path;   /* by the checkpoints' own network */
    bool asked;                   /* an answer is awaited */
    uint64_t asked_ms;
    bool told_deaf; /* the peer says that it hears nothing by that network */
    uint64_t told_deaf_ms;
    uint64_t listens_until_ms; /* this side stood still: it judges nobody before */
};

/* The peer counts as heard now. */
void detector_init(struct detector *d, uint64_t silence_ms, uint64_t beat_ms, uint64_t now_ms);
/* A sign of life, by any path. A question stays open until detector_answered. */
void detector_heard(struct detector *d, uint64_t now_ms);
void detector_heard_by_path(struct detector *d, uint64_t now_ms);
/* The peer says that the checkpoints' own network brings it something, or nothing. */
void detector_told_deaf(struct detector *d, bool deaf, uint64_t now_ms);
void detector_asked(struct detector *d, uint64_t now_ms);
void detector_answered(struct detector *d);
/* This side did not run for stalled_ms, until now. To be called after what came meanwhile was heard. */
void detector_stalled(struct detector *d, uint64_t stalled_ms, uint64_t now_ms);

/* From here on the peer has missed a beat, unless it is heard meanwhile. */
uint64_t detector_missed_beat_at_ms(const struct detector *d);
/* When nothing will have been heard for the limit. */
uint64_t detector_unheard_at_ms(const struct detector *d, enum detector_limit limit);
/* When the peer counts as silent, which a side has to know that goes on alone. UINT64_MAX: it was not asked.
 */
uint64_t detector_silent_at_ms(const struct detector *d, enum detector_limit limit);
/* When the checkpoints' own network counts as cut, if nothing comes by it and the peer goes on saying what it
 * says. */
uint64_t detector_path_cut_at_ms(const struct detector *d);
/* Nothing has come by that network for a silence: what this side's beats tell the peer. */
bool detector_is_deaf(const struct detector *d, uint64_t now_ms);

/* This side's own timer, which runs once an interval at least. */
struct own_timer {
    uint64_t interval_ms, ran_ms;
    bool has_run;
};

void own_timer_init(struct own_timer *timer, uint64_t interval_ms);
/* It ran. Returns for how long this side did not run before that, 0: it ran in time, or a little late. */
uint64_t own_timer_ran(struct own_timer *timer, uint64_t now_ms);

#endif
