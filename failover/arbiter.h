/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The arbiter decides which side may run a guest alone (invariant I5).
 *
 * arbiter_record is the rule itself, pure: one record per VM, compare-and-swap on the term (term.h). A grant
 * for the terms with count C goes to the first host that asks when the recorded term's count is C - 1. No
 * other host ever gets it. The same host may ask for the same term again, and gets it again.
 *
 * struct arbiter is what a replicator asks. There is one kind so far, "none": nobody is asked, and the policy
 * grants. With it, a cut between two living hosts can make both run the guest, unless the primary's
 * --on-peer-loss is hold.
 */
#ifndef UNDERSTUDY_FAILOVER_ARBITER_H
#define UNDERSTUDY_FAILOVER_ARBITER_H

#include <stdbool.h>
#include <stdint.h>

struct arbiter_record {
    uint64_t term;
    uint32_t owner; /* any number that names a host */
};

/* Grants term to owner if the rule allows it, and records the grant. Returns whether owner has the term. */
bool arbiter_record_grant(struct arbiter_record *record, uint64_t term, uint32_t owner);

struct arbiter;

/* Receives the answer. The arbiter may call it before arbiter_ask returns. */
typedef void (*arbiter_answer)(bool granted, uint64_t term, void *opaque);

/* Makes the arbiter "none". The caller frees it with arbiter_free. NULL: no memory. */
struct arbiter *arbiter_none_new(void);
void arbiter_free(struct arbiter *arbiter);
/* Asks for term; answer is called exactly once with opaque. */
void arbiter_ask(struct arbiter *arbiter, uint64_t term, arbiter_answer answer, void *opaque);

#endif
