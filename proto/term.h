/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A term decides which host's guest is the valid one. It is a counter with, in the lowest bit, the host to
 * which the term was granted. The two hosts of a pair have different bits, so they can never have the same
 * term, and comparing terms as plain numbers always gives one newer term. The daemon that begins a pair gives
 * its own host bit 0. A standby has the opposite bit of the primary that asked for it, and keeps that bit
 * when it becomes the primary.
 */
#ifndef UNDERSTUDY_PROTO_TERM_H
#define UNDERSTUDY_PROTO_TERM_H

#include <stdbool.h>
#include <stdint.h>

/* The first term of a new pair, of the host that begins it. */
#define TERM_FIRST ((uint64_t)1 << 1)

/* Returns the host (0 or 1) to which the term was granted. */
static inline unsigned term_host(uint64_t term)
{
    return (unsigned)(term & 1);
}

/* Returns the term's counter. */
static inline uint64_t term_count(uint64_t term)
{
    return term >> 1;
}

/* Returns the next term after this one, for that host. */
static inline uint64_t term_next(uint64_t term, unsigned host)
{
    return (term_count(term) + 1) << 1 | (host & 1);
}

/*
 * A term in a message may be ahead of the newest term that this host knows in the pair by at most this. A
 * grant adds one to the counter, and between two grants the hosts have met, or one of them has lost the
 * other. So an honest term is ahead by one or two, or by a few more if messages were lost. Without a limit,
 * one message could use up all terms.
 */
#define TERM_WINDOW 64u
/* No pair reaches this: a thousand grants a second take 34 years. term_next has room above it. */
#define TERM_COUNT_MAX (UINT64_C(1) << 40)

/*
 * Returns whether a term in a message or a file can be a term of this pair. known: the newest term of the
 * pair that this host knows, 0 if it knows none. An older term is always believable.
 */
static inline bool term_is_believable(uint64_t known, uint64_t named)
{
    if (term_count(named) > TERM_COUNT_MAX)
        return false;
    return known == 0 || named <= known || term_count(named) - term_count(known) <= TERM_WINDOW;
}

#endif
