/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A term says whose guest is the right one. It is a counter and, in the lowest bit, the host to which it was
 * granted: the two hosts of a pair have different bits, so they can never have the same term, and comparing
 * terms as plain numbers always finds one newer one. The daemon that begins a pair gives its own host bit 0;
 * a standby has the opposite bit of the primary that asked for it, and keeps it when it becomes the primary.
 */
#ifndef UNDERSTUDY_PROTO_TERM_H
#define UNDERSTUDY_PROTO_TERM_H

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

#endif
