/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Output commit (I1). The guest's output is held until the peer holds the epoch to which the output belongs.
 * release() is the only function that releases an epoch. It is called only for the ack of a cut epoch of this
 * term and synchronisation, over a live link. Output is held before the first epoch is cut.
 *
 * This file also decides when an ack is overdue, and when the network that carries acks counts as cut.
 */
#include "failover/session_parts.h"

static void release(struct step *step, uint64_t epoch)
{
    struct session *s = step->s;
    if (epoch > s->cut_epoch || epoch <= s->released_epoch)
        return;
    s->released_epoch = epoch;
    step_act(step, SESSION_DO_RELEASE)->epoch = epoch;
}

void commit_on_cut(struct step *step)
{
    struct session *s = step->s;
    /* Epoch numbers may skip: an epoch that is cut while capture is being stopped is not reported. */
    s->last_epoch_due &= !step->event->ok;
    if (step->event->epoch <= s->cut_epoch)
        return;
    s->cut_epoch = step->event->epoch;
    if (s->config.chaos_release_before_ack)
        release(step, s->cut_epoch);
}

/*
 * Starts the timer for an ack when an epoch has been handed to the link in full. If heartbeats arrive but an
 * epoch stays unacked for ack_timeout_ms (a path that drops the link's packets, a stuck disk), the peer
 * counts as lost; otherwise output would wait without end. The time that sending takes does not count.
 */
void commit_on_sent(struct step *step)
{
    struct session *s = step->s;
    if (step->event->epoch > s->cut_epoch || step->event->epoch <= s->sent_epoch)
        return;
    s->sent_epoch = step->event->epoch;
    if (!s->ack_due_ms && s->sent_epoch > s->acked_epoch)
        s->ack_due_ms = step->now_ms + s->config.ack_timeout_ms;
}

void commit_on_ack(struct step *step)
{
    struct session *s = step->s;
    uint64_t epoch = step->event->epoch;
    if (!s->link_up || step->event->term != s->term || epoch > s->cut_epoch || epoch < s->first_epoch)
        return;
    step_heard(step);
    detector_heard_by_path(&s->detector, step->now_ms);
    if (epoch > s->acked_epoch) {
        s->acked_epoch = epoch;
        s->ack_due_ms = s->sent_epoch > epoch ? step->now_ms + s->config.ack_timeout_ms : 0;
    }
    release(step, epoch);
}

bool commit_ack_is_overdue(const struct step *step)
{
    return step->s->ack_due_ms != 0 && step->now_ms >= step->s->ack_due_ms;
}

/*
 * When the checkpoint network counts as cut although the peer is heard by another network: nothing came by it
 * for two silences, or the peer has said for one silence that nothing reaches it there. A standby that is
 * only slow still sends heartbeats by the checkpoint network.
 */
uint64_t commit_path_is_cut_at_ms(const struct session *s)
{
    bool awaits = s->cut_epoch > s->acked_epoch || s->state == SESSION_HANDING_OVER;
    if (!s->config.other_paths || s->config.chaos_wait_for_acks || !awaits)
        return UINT64_MAX;
    return detector_path_cut_at_ms(&s->detector);
}

bool commit_path_is_cut(const struct step *step)
{
    return step->now_ms >= commit_path_is_cut_at_ms(step->s);
}
