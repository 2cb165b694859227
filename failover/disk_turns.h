/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What waits for the disks. The session decides as if there were none; this file stands between its decision
 * and the replicator, and lets four things happen only when the disks have carried out what they depend on:
 *
 *   the session decides   the disks are ordered     when they have done so
 *   release-all           disks-durable             release-all: what clients were told is on stable storage
 *   send-handover         disks-give-up             send-handover: nothing can be written here any more
 *   resume-guest          disks-writable            resume-guest
 *   promote               disks-take-over           promote: the journal is empty and the guest may write;
 *                                                   or promoted (not ok): they could not be made ready
 *
 * Each order has a number, and the answer names it. An answer is ignored if a newer order has replaced its
 * order, or if the session has left the state that wanted it. A side that is fenced waits for no order.
 * Without replicated disks, every decision is carried out at once.
 *
 * Pure, like the session whose part it is. One thread.
 */
#ifndef UNDERSTUDY_FAILOVER_DISK_TURNS_H
#define UNDERSTUDY_FAILOVER_DISK_TURNS_H

#include <stdbool.h>
#include <stdint.h>

struct disk_turns {
    uint64_t ordered;       /* number of the newest order */
    uint64_t durable_order; /* disks-durable under way, 0: none */
    uint64_t other_order;   /* one of the others under way, 0: none: a newer one overtakes it */
    enum { DISK_TURN_HANDOVER, DISK_TURN_RESUME, DISK_TURN_PROMOTE } other;
    uint64_t term, epoch; /* of the decision that waits for it */
    bool is_volatile;     /* output is or was held: a completed write may not be durable yet */
};

struct step;

/* Replaces the actions of this step that have to wait by orders to the disks. Called after the session
 * decided. */
void disk_turns_order(struct step *step);
/* Handles an answer of the disks: adds the action that waited for it. True: the disks could not take over, so
 * the guest cannot be promoted. */
bool disk_turns_answer(struct step *step);

#endif
