/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Pre-copy: brings a peer's copy of the guest near to the guest while it runs, until what is left fits into
 * one epoch. Memory and disks side by side, a batch of each in turn:
 *
 *   memory   passes over what is dirty; each pass sends what the one before left or the guest dirtied during
 *            it. It has converged when little is dirty, or when passes do not help
 *   disks    the caller's: how they are synchronised is not known here, only that they have a last pass,
 *            from the start of which their log fills
 *
 * Memory waits when it has converged and the disks have not, and converges once more before the disks' last
 * pass, so that the log need not hold what the guest writes during long passes over memory.
 *
 * No thread and no waiting: the caller takes step after step. One thread, which is the capture's.
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
    PRECOPY_WORKED,   /* take the next step */
    PRECOPY_WAITING,  /* for room in staging, or for the peer: take the next step when one may be there */
    PRECOPY_READY,    /* disks only: little is left */
    PRECOPY_FINISHED, /* what is left fits into one epoch, or passes do not help */
    PRECOPY_FAILED,   /* calls->failed has been told why */
};

/* What a pre-copy asks of its caller, in precopy_step. */
struct precopy_calls {
    /* The number of the next batch: batches of memory and disks are numbered together. */
    uint64_t (*next_number)(void *opaque);
    /* A batch of memory is staged; so many pages of the present pass are left. Takes the batch over. */
    void (*send)(void *opaque, struct staged_epoch *batch, uint64_t left_pages);
    /* One step of the disks. READY asks for finish_disks. The call tells failures itself. NULL: no disks. */
    enum precopy_progress (*step_disks)(void *opaque);
    /* The disks' last pass. */
    void (*finish_disks)(void *opaque);
    /* Memory's part failed: status is -errno, what says what could not be done. */
    void (*failed)(void *opaque, int status, const char *what);
};

/* The module's own. */
struct precopy {
    struct capture *capture;
    const struct precopy_calls *calls;
    void *opaque;
    unsigned passes;
    uint64_t left_pages; /* of the present pass */
    bool last_pass;      /* memory converges for the second time */
    enum precopy_progress memory, disks;
};

/* Begins with what is dirty: after capture_start or capture_resume. All three outlive the pre-copy. */
void precopy_begin(struct precopy *precopy, struct capture *capture, const struct precopy_calls *calls,
                   void *opaque);
/* At most a batch of memory and a step of the disks. Never READY. */
enum precopy_progress precopy_step(struct precopy *precopy);

#endif
