/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Every transition that a session may make: one table, which step_enter() holds each step to and from which
 * the table in docs/session.md is made (scripts/session-table.sh).
 */
#ifndef UNDERSTUDY_FAILOVER_TRANSITIONS_H
#define UNDERSTUDY_FAILOVER_TRANSITIONS_H

#include <stddef.h>

#include "failover/session.h"

struct transition {
    enum session_state from, to;
    enum session_role role; /* of the side once it is in the new state */
    const char *when;       /* for docs/session.md */
};

/* The table. Its order is that of docs/session.md. n is at most 64: a set of transitions is a uint64_t. */
const struct transition *transitions(size_t *n);
/* The transition's place in the table, -1: there is none, and making it is a bug. */
int transition_find(enum session_state from, enum session_state to, enum session_role role);

#endif
