/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Holds releases back until the term that was granted to this side is on disk. So no frame of a term leaves
 * before the host can know after a restart that it has used the term. The write begins with the grant and
 * overlaps the promotion. A secondary that follows a primary's term does not write it: the primary does.
 */
#include "failover/session_parts.h"

static bool is_ours(const struct session *s)
{
    return s->config.keeps_terms && (s->role == SESSION_PRIMARY || s->state == SESSION_PROMOTING);
}

/* Whether the action has to wait for the term. May turn the action into drop-output. */
static bool waits(struct session *s, struct session_action *action)
{
    struct term_record *record = &s->term_record;
    bool kept = !is_ours(s) || record->kept >= s->term || s->config.chaos_release_before_term;
    switch (action->type) {
    case SESSION_DO_RELEASE_ALL:
    case SESSION_DO_RELEASE_LAST:
        if (!kept && s->state == SESSION_ENDED) /* nobody will know that this term was used */
            action->type = SESSION_DO_DROP_OUTPUT;
        record->all_waits = !kept && s->state != SESSION_ENDED;
        return record->all_waits;
    case SESSION_DO_RELEASE:
        if (!kept)
            record->epoch_waits = action->epoch;
        return !kept;
    case SESSION_DO_STOP_CAPTURE: /* an ack of this synchronisation says nothing in the next one */
        record->epoch_waits = 0;
        return false;
    case SESSION_DO_HOLD_OUTPUT: /* what waits goes with the epochs that are cut from now on */
    case SESSION_DO_DROP_OUTPUT:
    case SESSION_DO_FENCE_GUEST:
        record->all_waits = false;
        record->epoch_waits = 0;
        return false;
    default:
        return false;
    }
}

void term_record_order(struct step *step, uint64_t term_before)
{
    struct session *s = step->s;
    size_t n = 0;
    for (size_t i = 0; i < step->out->n; i++) {
        struct session_action action = step->out->list[i];
        if (!waits(s, &action))
            step->out->list[n++] = action;
    }
    step->out->n = n;
    if (is_ours(s) && s->term != term_before && s->state != SESSION_ENDED)
        step_act(step, SESSION_DO_KEEP_TERM);
}

void term_record_kept(struct step *step)
{
    struct session *s = step->s;
    struct term_record *record = &s->term_record;
    if (step->event->term > record->kept)
        record->kept = step->event->term;
    if (record->kept < s->term)
        return;
    if (record->all_waits)
        step_act(step, SESSION_DO_RELEASE_ALL);
    else if (record->epoch_waits)
        step_act(step, SESSION_DO_RELEASE)->epoch = record->epoch_waits;
    record->all_waits = false;
    record->epoch_waits = 0;
}
