/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Computes when the peer counts as silent. A detector has a clock of what was last heard by any path, and one
 * of what was last heard by the checkpoints' own network; struct own_timer watches this side's own timer.
 * Pure: the time is an argument, in milliseconds of any monotonic clock of this host; no system call, no
 * thread, no allocation. One thread owns each struct.
 *
 * Silence is the lack of an answer. A peer that misses a heartbeat is asked. It is silent when nothing has
 * been heard for the limit and the query has had time for an answer.
 *
 * Time in which this side itself did not run does not count as the peer's silence: otherwise two sides that
 * wake from the same stall would declare each other dead. The peer may also have declared this side dead in
 * that time. So after a stall, this side listens for as long as it stood still, or for a whole silence,
 * before it declares the peer silent.
 */
#ifndef UNDERSTUDY_HEARTBEAT_DETECTOR_H
#define UNDERSTUDY_HEARTBEAT_DETECTOR_H

#include <stdbool.h>
#include <stdint.h>

/* How long nothing may be heard before the peer counts as silent. */
enum detector_limit {
    DETECTOR_SILENCE,     /* --silence-ms */
    DETECTOR_LINK_CLOSED, /* a third of it: the peer's kernel closed the link, as that of a dying process does
                           */
    DETECTOR_BUSY,        /* five times: the peer starts a guest, and may be too busy for a heartbeat */
};

struct detector_clock {
    uint64_t heard_ms;
    uint64_t excused_ms; /* part of the time since then in which this side did not run */
};

struct detector {
    uint64_t silence_ms, beat_ms; /* beat_ms: interval of the peer's heartbeats */
    struct detector_clock peer;   /* by any path */
    struct detector_clock path;   /* by the checkpoints' own network */
    bool asked;                   /* an answer is awaited */
    uint64_t asked_ms;
    bool told_deaf; /* the peer says that it hears nothing by that network */
    uint64_t told_deaf_ms;
    uint64_t listens_until_ms; /* after a stall of this side: the peer is not silent before this time */
};

/* Initialises the detector; the peer counts as heard now. */
void detector_init(struct detector *d, uint64_t silence_ms, uint64_t beat_ms, uint64_t now_ms);
/* Notes a sign of life, by any path. A query stays open until detector_answered. */
void detector_heard(struct detector *d, uint64_t now_ms);
/* Notes a sign of life that came by the checkpoints' own network. */
void detector_heard_by_path(struct detector *d, uint64_t now_ms);
/* Notes whether the peer says that nothing reaches it by the checkpoints' own network. */
void detector_told_deaf(struct detector *d, bool deaf, uint64_t now_ms);
/* Notes that the peer was asked. */
void detector_asked(struct detector *d, uint64_t now_ms);
/* Notes that the peer has answered. */
void detector_answered(struct detector *d);
/* Notes that this side did not run for stalled_ms, until now. Call it after everything that came meanwhile
 * was noted. */
void detector_stalled(struct detector *d, uint64_t stalled_ms, uint64_t now_ms);

/* Returns the time from which the peer has missed a heartbeat, if nothing is heard before. */
uint64_t detector_missed_beat_at_ms(const struct detector *d);
/* Returns the time at which nothing will have been heard for the limit. */
uint64_t detector_unheard_at_ms(const struct detector *d, enum detector_limit limit);
/* Returns the time at which the peer counts as silent, so that this side may go on alone. UINT64_MAX: the
 * peer was not asked. */
uint64_t detector_silent_at_ms(const struct detector *d, enum detector_limit limit);
/* Returns the time at which the checkpoints' own network counts as cut, if nothing comes by it and the peer
 * goes on saying what it says now. */
uint64_t detector_path_cut_at_ms(const struct detector *d);
/* Returns whether nothing has come by that network for a silence. This side's heartbeats say so to the peer.
 */
bool detector_is_deaf(const struct detector *d, uint64_t now_ms);

/* Watches this side's own timer, which must run at least once per interval. */
struct own_timer {
    uint64_t interval_ms, ran_ms;
    bool has_run;
};

void own_timer_init(struct own_timer *timer, uint64_t interval_ms);
/* Notes that the timer ran. Returns for how long this side did not run before; 0 if the timer was in time or
 * a little late. */
uint64_t own_timer_ran(struct own_timer *timer, uint64_t now_ms);

#endif
