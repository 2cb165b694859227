/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which sequence numbers of the peer's heartbeats are believed. Each packet counts once by each path, and
 * only if it is not much older than the newest by any path: what somebody recorded, or held back, on one
 * network is no sign of life later. No packet can use up the numbers. Pure; one thread.
 */
#ifndef UNDERSTUDY_HEARTBEAT_WINDOW_H
#define UNDERSTUDY_HEARTBEAT_WINDOW_H

#include <stdbool.h>
#include <stdint.h>

/* By how much a packet may be behind the newest: networks are not equally fast. */
#define WINDOW_BEHIND 64u
/* By how much it may be ahead. Numbers begin at the sender's clock, in microseconds: nine years. */
#define WINDOW_AHEAD (UINT64_C(1) << 48)
/* No number is above it: no clock shows a time after the year 4000, and numbers grow slower than a clock. */
#define WINDOW_MAX (UINT64_C(1) << 56)

/*
 * Returns whether a packet counts. newest: the newest by any path, newest_here: by this path; 0: none yet.
 */
static inline bool window_takes(uint64_t newest, uint64_t newest_here, uint64_t sequence)
{
    if (sequence == 0 || sequence > WINDOW_MAX || sequence <= newest_here)
        return false;
    if (sequence > newest)
        return newest == 0 || sequence - newest <= WINDOW_AHEAD;
    return newest - sequence <= WINDOW_BEHIND;
}

#endif
