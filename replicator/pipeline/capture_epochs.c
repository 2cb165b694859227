/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Epoch after epoch, on the capture thread: waits for room and for the time of the cut, copies early, cuts,
 * and hands the epoch to the sender. When an epoch is cut and how early its pages are copied is
 * checkpoint/pacing.h's.
 */
#include <errno.h>

#include "replicator/network/frame_stream.h"
#include "replicator/note.h"
#include "replicator/pipeline/capture_internal.h"

_Static_assert(PACING_MAX_UNACKED < FRAME_STREAM_EPOCHS, "the gate remembers every epoch in flight");

static struct pacing_plan plan_now(const struct capture_thread *t)
{
    return pacing_plan(&t->pacing, g_get_monotonic_time());
}

/* From when on a disk's writers wait is told at once, before anything that takes time. */
static void plan_next(struct capture_thread *t, const struct staged_epoch *cut,
                      const struct capture_report *report)
{
    const struct pacing_report cut_report = {
        .epoch = cut->epoch,
        .cut_us = (int64_t)(cut->boundary_ns / 1000),
        .pages = report->pages,
        .acked = atomic_load_explicit(&t->acked_epoch, memory_order_acquire),
    };
    pacing_cut(&t->pacing, &cut_report, g_get_monotonic_time());
}

/* Waits until due_us or a change of order. True if it is time. */
static bool wait_until(struct capture_thread *t, const struct capture_order *order, gint64 due_us)
{
    gint64 now;
    while ((now = g_get_monotonic_time()) < due_us) {
        if (!capture_order_is_current(t, order))
            return false;
        if (atomic_load_explicit(&t->hurry, memory_order_acquire))
            break;
        if (due_us - now < 1000) {
            g_usleep((gulong)(due_us - now)); /* finer than poll's milliseconds; nothing else to await */
            break;
        }
        mailbox_wait(&t->wake, (int)((due_us - now) / 1000));
    }
    return capture_order_is_current(t, order);
}

/* Copies early while it pays. Ends shortly before the cut in the usual case. */
static bool early_passes(struct capture_thread *t, const struct capture_order *order,
                         const struct pacing_plan *plan)
{
    int64_t copied;
    unsigned passes = 0;
    if (plan->early_passes == 0)
        return true;
    if (!wait_until(t, order, plan->early_us))
        return false;
    do
        copied = capture_early_pass(t->capture, t->next_epoch);
    while (pacing_copies_again(plan, ++passes, copied));
    return capture_order_is_current(t, order);
}

/* Copies early and waits for the time of the cut. False when the order ended. */
static bool until_cut(struct capture_thread *t, const struct capture_order *order)
{
    struct pacing_plan plan = plan_now(t);
    return early_passes(t, order, &plan) && wait_until(t, order, plan.cut_us);
}

/* One epoch. False when the order ended. */
static bool run_epoch(struct capture_thread *t, const struct capture_order *order, bool last)
{
    struct capture_report report;
    struct staged_epoch *epoch = NULL;
    t->serving = order;
    atomic_store_explicit(&t->hurry, false, memory_order_release);
    int status = capture_epoch(t->capture, t->next_epoch, last, &epoch, &report);
    if (status == 0)
        plan_next(t, epoch, &report);
    disks_limit_logs(t->config.disks, plan_now(t).log_limit);
    /* -EBUSY: the guest stands still for a full disk, say. The standby keeps the epoch before that. */
    if (status == -EAGAIN || status == -ETIME || status == -EBUSY) {
        if (status == -ETIME)
            atomic_fetch_add_explicit(&t->figures.expired, 1, memory_order_relaxed);
        mailbox_wait(&t->wake, (int)t->config.epoch_ms);
        pacing_missed(&t->pacing, g_get_monotonic_time());
        return capture_order_is_current(t, order);
    }
    if (status < 0) {
        capture_note_failure(t, order->generation, status,
                             status == -ESTALE    ? "the guest's RAM layout changed"
                             : status == -ENOBUFS ? "the guest writes more in one epoch than staging holds"
                             : status == -EIO     ? "the log of a disk is not whole"
                                                  : "a checkpoint failed");
        return false;
    }
    capture_figures_record(t, &report);
    /* Cut before sent: the control thread must know the epoch before it can be acked. */
    capture_note(t, NOTE_EPOCH_CUT, order->generation, t->next_epoch, last);
    sender_post_epoch(t->sender, order->connection, order->term, epoch);
    t->next_epoch++;
    return !last;
}

/* Whether another epoch may be put in flight. */
static bool may_cut(struct capture_thread *t)
{
    uint64_t acked = atomic_load_explicit(&t->acked_epoch, memory_order_acquire);
    return staging_free_epochs(t->config.staging) >= 2 && pacing_may_cut(t->next_epoch, acked) &&
           disks_may_pause(t->config.disks);
}

void capture_epochs_run(struct capture_thread *t, const struct capture_order *order)
{
    bool last = order->mode == MODE_LAST_EPOCH;
    pacing_begin(&t->pacing, g_get_monotonic_time());
    disks_limit_logs(t->config.disks, plan_now(t).log_limit);
    if (order->first_epoch > t->next_epoch || !last)
        t->next_epoch = MAX(t->next_epoch, order->first_epoch);
    if (!last)
        atomic_store(&t->acked_epoch, t->next_epoch - 1);
    /* Output is held from here on: so must be what else the world could see. */
    while (!disks_order_done(t->config.disks) && capture_order_is_current(t, order))
        mailbox_wait(&t->wake, CAPTURE_IDLE_WAIT_MS);
    for (;;) {
        /* A full pipeline: the epoch grows until the sender gives room (I6). */
        while (!may_cut(t) && capture_order_is_current(t, order))
            mailbox_wait(&t->wake, CAPTURE_IDLE_WAIT_MS);
        if (!last && !until_cut(t, order))
            break;
        disk_sync_between_epochs(t->disk_sync, t->next_epoch);
        if (!run_epoch(t, order, last))
            break;
    }
    disks_limit_logs(t->config.disks, 0);
    while (capture_order_is_current(t, order))
        mailbox_wait(&t->wake, CAPTURE_IDLE_WAIT_MS);
}
