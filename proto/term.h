/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A term says whose guest is the right one. It is a counter and, in the lowest bit, the host to which it was
 * granted: the two hosts of a pair have different bits, so they can never have the same term, and comparing
 * terms as plain numbers always finds one newer one. The daemon that begins a pair gives its own host bit 0;
 * a standby has the opposite bit of the primary that asked for it, and keeps it when it becomes the primary.
 */
#ifndef UNDERSTUDY_PROTO_TERM_H
#define UNDERSTUDY_PROTO_TERM_H

#include <stdbool.h>
#include <stdint.h>

/* The first term of a new pair, of the host that begins it. */
#define TERM_FIRST ((uint64_t)1 << 1)

static inline unsigned term_host(uint64_t term)
{
    return (unsigned)(term & 1);
}

static inline uint64_t term_count(uint64_t term)
{
    return term >> 1;
}

/* The next term after this one, for that host. */
static inline uint64_t term_next(uint64_t term, unsigned host)
{
    return (term_count(term) + 1) << 1 | (host & 1);
}

/*
 * How far a term that somebody else names may be ahead of the newest one that this host knows in the pair. A
 * grant adds one to the counter, and each needs both hosts to have met in between, or one of them to have
 * lost the other: what is honest is ahead by one or two, by a few where messages were lost. Without a limit
 * one message could name a term after which there is none.
 */
#define TERM_WINDOW 64u
/* No pair gets there: a thousand grants a second take 34 years. term_next has room above it. */
#define TERM_COUNT_MAX (UINT64_C(1) << 40)

/*
 * Whether a term that a message or a file names can be one of this pair. known: the newest term that this
 * host knows in it, 0 if it knows none. An older term is nothing new, and is always believable.
 */
static inline bool term_is_believable(uint64_t known, uint64_t named)
{
    if (term_count(named) > TERM_COUNT_MAX)
        return false;
    return known == 0 || named <= known || term_count(named) - term_count(known) <= TERM_WINDOW;
}

#endif
