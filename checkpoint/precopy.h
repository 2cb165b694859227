/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Pre-copy: sends memory and disks to the peer while the guest runs, until what is left fits into one epoch.
 * It sends a batch of each in turn.
 *
 * Memory makes passes over the dirty pages; each pass sends what the pass before left or the guest dirtied
 * meanwhile. Memory has converged when few pages are dirty, or when more passes do not help. The disks are
 * the caller's: pre-copy knows only that they have a last pass, and that their log fills from its start on.
 *
 * If memory has converged and the disks have not, memory waits. Before the disks' last pass memory converges
 * once more, so that the log need not hold what the guest writes during long passes over memory.
 *
 * Pre-copy has no thread and never waits: the caller makes step after step, on the capture thread.
 */
#ifndef UNDERSTUDY_CHECKPOINT_PRECOPY_H
#define UNDERSTUDY_CHECKPOINT_PRECOPY_H

#include <stdbool.h>
#include <stdint.h>

#include "checkpoint/capture.h"

#define PRECOPY_BATCH_PAGES     2048u
#define PRECOPY_CONVERGED_PAGES 2048u /* memory has converged when no more than this is dirty */
#define PRECOPY_MAX_PASSES      30u

enum precopy_progress {
    PRECOPY_WORKED,  /* make the next step at once */
    PRECOPY_WAITING, /* there is no room in staging, or the peer has not answered: make the next step later */
    PRECOPY_READY,   /* disks only: little is left */
    PRECOPY_FINISHED, /* what is left fits into one epoch, or more passes do not help */
    PRECOPY_FAILED,   /* calls->failed was called with the reason */
};

/* Functions of the caller that precopy_step calls. */
struct precopy_calls {
    /* Returns the number of the next batch: batches of memory and disks are numbered together. */
    uint64_t (*next_number)(void *opaque);
    /* Sends a staged batch of memory, and takes it over. left_pages: what is left of the present pass. */
    void (*send)(void *opaque, struct staged_epoch *batch, uint64_t left_pages);
    /* Makes one step of the disks. After READY, finish_disks is called. Reports failures itself. NULL: there
     * are no disks. */
    enum precopy_progress (*step_disks)(void *opaque);
    /* Begins the disks' last pass. */
    void (*finish_disks)(void *opaque);
    /* Reports that memory's part failed: status is -errno, `what` says what could not be done. */
    void (*failed)(void *opaque, int status, const char *what);
};

/* Private to precopy.c. */
struct precopy {
    struct capture *capture;
    const struct precopy_calls *calls;
    void *opaque;
    unsigned passes;
    uint64_t left_pages; /* of the present pass */
    bool last_pass;      /* memory converges for the second time */
    enum precopy_progress memory, disks;
};

/* Initialises a pre-copy of the pages that are dirty after capture_start or capture_resume. capture, calls
 * and opaque must outlive it. */
void precopy_begin(struct precopy *precopy, struct capture *capture, const struct precopy_calls *calls,
                   void *opaque);
/* Makes one step: at most one batch of memory and one step of the disks. Never returns PRECOPY_READY. */
enum precopy_progress precopy_step(struct precopy *precopy);

#endif
