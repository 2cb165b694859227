/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Pacing: when the next epoch is cut, how early its pages are copied, and how much the guest may write to its
 * disks until then. In: a report of each epoch, the newest one that is acked, and the time. Out: a plan.
 *
 * Epochs are cut on an absolute schedule: no drift, and cuts that were missed are skipped. A cut that came
 * early, since a disk's log filled, begins the schedule anew. Before a cut, early passes run while they pay:
 * each copies what is dirty while the guest runs, and the next one finds only what was dirtied meanwhile.
 *
 * The limit of the disks' logs is lower where the link or the standby is slow, so that the guest's output is
 * not held long behind its writes. An epoch that is not acked PACING_HOLD_US after it was cut means that too
 * much is under way: then the limit goes down by an eighth an epoch, otherwise up by a step. The idea of AIMD
 * (Chiu and Jain, 1989), with the delay as signal.
 *
 * Pure: no clock, no thread, no memory but the struct. Times are of any clock that does not go back.
 */
#ifndef UNDERSTUDY_CHECKPOINT_PACING_H
#define UNDERSTUDY_CHECKPOINT_PACING_H

#include <stdbool.h>
#include <stdint.h>

#define PACING_MAX_UNACKED 32u /* epochs in flight */
#define PACING_EPOCHS      64u /* whose cut is remembered: more than are in flight */

#define PACING_MAX_EARLY_PASSES  4u
#define PACING_EARLY_WORTH_PAGES 256u /* fewer dirty pages than this are copied in the pause */

#define PACING_HOLD_US 100000
/* Two epochs of a guest that writes as fast as it can: one is taken out while the next is written. */
#define PACING_LOG_MAX  (16u << 20)
#define PACING_LOG_MIN  (1u << 20) /* the longest record: less would be one write at a time */
#define PACING_LOG_STEP (256u << 10)

/* The module's own. */
struct pacing {
    int64_t epoch_us, due_us;
    uint32_t usual_pages; /* smoothed distinct pages of an epoch */
    uint64_t log_limit;
    uint64_t newest; /* epoch that was cut last; 0: none */
    int64_t cut_us[PACING_EPOCHS];
};

/* What is known of an epoch when it has been cut. */
struct pacing_report {
    uint64_t epoch; /* epochs go up one by one */
    int64_t cut_us; /* when it ended, in the pause */
    uint32_t pages; /* distinct pages of it */
    uint64_t acked; /* the newest epoch that is acked */
};

struct pacing_plan {
    int64_t cut_us;        /* the next cut, if nothing is urgent before: now or later */
    int64_t early_us;      /* when the early passes begin: now or later, and not after cut_us */
    unsigned early_passes; /* at most; 0: none */
    uint64_t log_limit;    /* bytes of a disk's log from which on its writers wait, until the next cut */
};

/* epoch_ms: greater than 0. */
void pacing_init(struct pacing *pacing, unsigned epoch_ms);
/* Epochs follow each other from now on: the first is due at once. How much the guest dirties is remembered.
 */
void pacing_begin(struct pacing *pacing, int64_t now_us);
/* An epoch was cut. */
void pacing_cut(struct pacing *pacing, const struct pacing_report *report, int64_t now_us);
/* An epoch was due and could not be cut: it is tried again when the next one is due. */
void pacing_missed(struct pacing *pacing, int64_t now_us);
struct pacing_plan pacing_plan(const struct pacing *pacing, int64_t now_us);
/* Whether another early pass pays: passes have run, the last one copied so many pages, or failed (negative).
 */
bool pacing_copies_again(const struct pacing_plan *plan, unsigned passes, int64_t copied);
/* Whether this epoch may be put in flight, with what is acked. */
bool pacing_may_cut(uint64_t epoch, uint64_t acked);

#endif
