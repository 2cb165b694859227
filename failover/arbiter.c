/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The arbiter's rule, a compare-and-swap of the term, and the arbiter "none", which grants every request. */
#include "failover/arbiter.h"

#include <stdlib.h>

#include "proto/term.h"

bool arbiter_record_grant(struct arbiter_record *record, uint64_t term, uint32_t owner)
{
    if (term == record->term && owner == record->owner)
        return true;
    if (term_count(term) != term_count(record->term) + 1)
        return false;
    record->term = term;
    record->owner = owner;
    return true;
}

struct arbiter {
    uint64_t asked; /* counts, for status */
};

struct arbiter *arbiter_none_new(void)
{
    return calloc(1, sizeof(struct arbiter));
}

void arbiter_free(struct arbiter *arbiter)
{
    free(arbiter);
}

void arbiter_ask(struct arbiter *arbiter, uint64_t term, arbiter_answer answer, void *opaque)
{
    arbiter->asked++;
    answer(true, term, opaque);
}
