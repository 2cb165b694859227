/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The steps of pre-copy (precopy.h). Memory and disks each have a progress; precopy_step makes one step of
 * each and combines the two. A pass over memory begins with a harvest, which counts its pages, and then sends
 * them batch by batch. When the disks are ready for their last pass and memory has converged, memory makes
 * passes once more (last_pass); then the disks' last pass begins.
 */
#include "checkpoint/precopy.h"

#include <errno.h>

static void begin_passes(struct precopy *precopy, uint64_t left_pages)
{
    precopy->passes = 0;
    precopy->left_pages = left_pages;
    precopy->memory = PRECOPY_WORKED;
}

void precopy_begin(struct precopy *precopy, struct capture *capture, const struct precopy_calls *calls,
                   void *opaque)
{
    *precopy = (struct precopy){
        .capture = capture,
        .calls = calls,
        .opaque = opaque,
        .disks = calls->step_disks ? PRECOPY_WORKED : PRECOPY_FINISHED,
    };
    begin_passes(precopy, capture_dirty(capture));
}

static enum precopy_progress memory_failed(const struct precopy *precopy, int status, const char *what)
{
    precopy->calls->failed(precopy->opaque, status, what);
    return PRECOPY_FAILED;
}

/* Stages and sends one batch of the present pass over memory. */
static enum precopy_progress send_batch(struct precopy *precopy)
{
    int status;
    uint64_t number = precopy->calls->next_number(precopy->opaque);
    struct staged_epoch *batch = capture_batch(precopy->capture, number, PRECOPY_BATCH_PAGES, &status);
    if (!batch && status == -EAGAIN)
        return PRECOPY_WAITING;
    if (!batch) {
        precopy->left_pages = 0;
        return status < 0 ? memory_failed(precopy, status, "dirty pages could not be staged")
                          : PRECOPY_WORKED;
    }
    precopy->left_pages -= batch->npages < precopy->left_pages ? batch->npages : precopy->left_pages;
    precopy->calls->send(precopy->opaque, batch, precopy->left_pages);
    return PRECOPY_WORKED;
}

/* Makes one step of memory: a batch of the present pass, or the start of the next pass. */
static enum precopy_progress step_memory(struct precopy *precopy)
{
    if (precopy->left_pages > 0)
        return send_batch(precopy);
    int status = capture_harvest(precopy->capture);
    if (status < 0)
        return memory_failed(precopy, status, "dirty pages could not be harvested");
    uint64_t dirty = capture_dirty(precopy->capture);
    if (dirty <= PRECOPY_CONVERGED_PAGES || ++precopy->passes >= PRECOPY_MAX_PASSES)
        return PRECOPY_FINISHED;
    precopy->left_pages = dirty;
    return PRECOPY_WORKED;
}

enum precopy_progress precopy_step(struct precopy *precopy)
{
    if (precopy->memory != PRECOPY_FINISHED)
        precopy->memory = step_memory(precopy);
    if (precopy->disks != PRECOPY_FINISHED)
        precopy->disks = precopy->calls->step_disks(precopy->opaque);
    if (precopy->memory == PRECOPY_FAILED || precopy->disks == PRECOPY_FAILED)
        return PRECOPY_FAILED;
    if (precopy->memory == PRECOPY_FINISHED && precopy->disks == PRECOPY_FINISHED)
        return PRECOPY_FINISHED;
    if (precopy->disks == PRECOPY_READY && precopy->memory == PRECOPY_FINISHED) {
        if (precopy->last_pass) {
            precopy->calls->finish_disks(precopy->opaque);
            return PRECOPY_WORKED;
        }
        begin_passes(precopy, 0);
        precopy->last_pass = true;
    }
    return precopy->memory == PRECOPY_WORKED || precopy->disks == PRECOPY_WORKED ? PRECOPY_WORKED
                                                                                 : PRECOPY_WAITING;
}
