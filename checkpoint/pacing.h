/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Pacing: plans when the next epoch is cut, how early its pages are copied, and how much the guest may write
 * to its disks until then. In: a report of each epoch, the newest acked epoch, and the time. Out: a plan.
 *
 * Epochs are cut on an absolute schedule, so cuts do not drift; a missed cut is skipped. A cut that came
 * early, because a disk's log filled up, starts a new schedule. Before a cut, early passes run as long as
 * they pay: each copies the dirty pages while the guest runs, and the next one finds only what was dirtied
 * meanwhile.
 *
 * The limit of the disks' logs goes down if the link or the standby is slow, so that the guest's output is
 * not held long behind its writes. If an epoch is not acked PACING_HOLD_US after it was cut, too much is
 * under way: the limit goes down by an eighth for each epoch; otherwise it goes up by a step. This is AIMD
 * (Chiu and Jain, 1989) with the delay as signal.
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

/* Private to pacing.c. */
struct pacing {
    int64_t epoch_us, due_us;
    uint32_t usual_pages; /* smoothed distinct pages of an epoch */
    uint64_t log_limit;
    uint64_t newest; /* epoch that was cut last; 0: none */
    int64_t cut_us[PACING_EPOCHS];
};

/* What is known of an epoch when it has been cut. */
struct pacing_report {
    uint64_t epoch; /* each report has the next number */
    int64_t cut_us; /* when it ended, in the pause */
    uint32_t pages; /* distinct pages of it */
    uint64_t acked; /* number of the newest acked epoch */
};

struct pacing_plan {
    int64_t cut_us;        /* time of the next cut, unless something is urgent before; not in the past */
    int64_t early_us;      /* time of the first early pass; not in the past, and not after cut_us */
    unsigned early_passes; /* number of early passes at most; 0: none */
    uint64_t log_limit;    /* bytes of a disk's log at which its writers wait, until the next cut */
};

/* Initialises pacing for epochs of epoch_ms, which is greater than 0. */
void pacing_init(struct pacing *pacing, unsigned epoch_ms);
/* Starts the schedule: the first epoch is due at once. Keeps the estimate of how much the guest dirties. */
void pacing_begin(struct pacing *pacing, int64_t now_us);
/* Reports an epoch that was cut, and schedules the next one. */
void pacing_cut(struct pacing *pacing, const struct pacing_report *report, int64_t now_us);
/* Reports an epoch that was due and could not be cut: it is tried again when the next one is due. */
void pacing_missed(struct pacing *pacing, int64_t now_us);
/* Returns the plan until the next cut. */
struct pacing_plan pacing_plan(const struct pacing *pacing, int64_t now_us);
/* Returns whether another early pass pays, after so many passes. copied: pages of the last pass, or its
 * negative status. */
bool pacing_copies_again(const struct pacing_plan *plan, unsigned passes, int64_t copied);
/* Returns whether this epoch may be cut, if `acked` is the newest acked one. */
bool pacing_may_cut(uint64_t epoch, uint64_t acked);

#endif
