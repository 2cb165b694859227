/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The arithmetic of the plan (pacing.h). The schedule is due_us, which moves by whole epochs. The lead of the
 * early passes is proportional to usual_pages, a moving average (7/8 old, 1/8 new) of the distinct pages of
 * an epoch. The limit of the disks' logs follows the age of the oldest epoch that is not acked; cut_us is a
 * ring with the times of the cuts.
 */
#include "checkpoint/pacing.h"

/* Time that the early passes take: the first one copies usual_pages, the later ones fit into the base. */
#define EARLY_BASE_US 600
#define EARLY_PAGE_NS 900

/* ---- when to cut ---- */

void pacing_init(struct pacing *pacing, unsigned epoch_ms)
{
    *pacing = (struct pacing){.epoch_us = (int64_t)epoch_ms * 1000, .log_limit = PACING_LOG_MAX};
}

void pacing_begin(struct pacing *pacing, int64_t now_us)
{
    *pacing = (struct pacing){
        .epoch_us = pacing->epoch_us,
        .due_us = now_us,
        .usual_pages = pacing->usual_pages,
        .log_limit = PACING_LOG_MAX,
    };
}

void pacing_missed(struct pacing *pacing, int64_t now_us)
{
    int64_t epoch_us = pacing->epoch_us;
    pacing->due_us += epoch_us;
    if (pacing->due_us <= now_us)
        pacing->due_us += (now_us - pacing->due_us) / epoch_us * epoch_us + epoch_us;
    /* The epoch was cut before it was due. A new schedule begins here, since otherwise each such cut would
     * delay the next one further. */
    if (pacing->due_us > now_us + epoch_us)
        pacing->due_us = now_us + epoch_us;
}

bool pacing_may_cut(uint64_t epoch, uint64_t acked)
{
    return epoch <= acked + PACING_MAX_UNACKED;
}

/* ---- how much the disks may log ---- */

/* Returns whether the oldest epoch that is not acked was cut too long ago. */
static bool is_late(const struct pacing *pacing, uint64_t acked, int64_t now_us)
{
    uint64_t oldest = acked + 1;
    return oldest <= pacing->newest && pacing->newest - oldest < PACING_EPOCHS &&
           now_us - pacing->cut_us[oldest % PACING_EPOCHS] > PACING_HOLD_US;
}

static uint64_t next_log_limit(const struct pacing *pacing, uint64_t acked, int64_t now_us)
{
    uint64_t limit = pacing->log_limit;
    limit = is_late(pacing, acked, now_us) ? limit - limit / 8 : limit + PACING_LOG_STEP;
    if (limit < PACING_LOG_MIN)
        return PACING_LOG_MIN;
    return limit > PACING_LOG_MAX ? PACING_LOG_MAX : limit;
}

/* ---- how early to copy ---- */

static int64_t early_lead_us(const struct pacing *pacing)
{
    return EARLY_BASE_US + (int64_t)pacing->usual_pages * EARLY_PAGE_NS / 1000;
}

bool pacing_copies_again(const struct pacing_plan *plan, unsigned passes, int64_t copied)
{
    return passes < plan->early_passes && copied >= (int64_t)PACING_EARLY_WORTH_PAGES / 2;
}

/* ---- in and out ---- */

void pacing_cut(struct pacing *pacing, const struct pacing_report *report, int64_t now_us)
{
    pacing->newest = report->epoch;
    pacing->cut_us[report->epoch % PACING_EPOCHS] = report->cut_us;
    pacing->log_limit = next_log_limit(pacing, report->acked, now_us);
    pacing->usual_pages = (uint32_t)(((uint64_t)pacing->usual_pages * 7 + report->pages) / 8);
    pacing_missed(pacing, now_us);
}

static int64_t no_earlier(int64_t at_us, int64_t now_us)
{
    return at_us > now_us ? at_us : now_us;
}

struct pacing_plan pacing_plan(const struct pacing *pacing, int64_t now_us)
{
    bool is_worth_it = pacing->usual_pages >= PACING_EARLY_WORTH_PAGES;
    return (struct pacing_plan){
        .cut_us = no_earlier(pacing->due_us, now_us),
        .early_us = no_earlier(pacing->due_us - early_lead_us(pacing), now_us),
        .early_passes = is_worth_it ? PACING_MAX_EARLY_PASSES : 0,
        .log_limit = pacing->log_limit,
    };
}
