/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Start and end of the capture thread, and the first synchronisation (capture_thread.h; capture_internal.h
 * lists the other files).
 *
 * The thread has no real-time priority, although that would save about 70 us of each pause: in bursts of work
 * it kept the control thread from sending heartbeats, and the other host took over from a living one.
 */
#include <errno.h>
#include <sys/prctl.h>

#include "checkpoint/precopy.h"
#include "replicator/pipeline/capture_internal.h"

/* The pause waits for the writes under way: they may not wait in turn. */
static void before_pause(void *opaque)
{
    struct capture_thread *t = opaque;
    disks_limit_logs(t->config.disks, 0);
}

/* In the pause. */
static void at_boundary(void *opaque, uint64_t epoch)
{
    struct capture_thread *t = opaque;
    gate_boundary(t->config.gate, epoch);
    disks_boundary(t->config.disks, epoch);
    input_log_boundary(t->config.input_log, epoch);
}

/* The epoch is cut: it has to wait for room, however long, unless the order ends. */
static bool wait_for_room(void *opaque)
{
    struct capture_thread *t = opaque;
    mailbox_wait(&t->wake, CAPTURE_IDLE_WAIT_MS);
    return capture_order_is_current(t, t->serving);
}

static int add_disk_section(void *opaque, struct staged_epoch *epoch)
{
    struct capture_thread *t = opaque;
    return disks_collect(t->config.disks, t->config.staging, epoch, wait_for_room, t);
}

static void drop_work(struct capture_thread *t)
{
    if (t->syncing_disks)
        disk_sync_end(t->disk_sync);
    if (t->tracking)
        capture_drop(t->capture);
    t->syncing_disks = false;
}

static void end_tracking(struct capture_thread *t)
{
    drop_work(t);
    if (t->tracking)
        capture_stop(t->capture);
    t->tracking = false;
}

/* ---- first synchronisation ---- */

static uint64_t next_batch_number(void *opaque)
{
    return ((struct capture_thread *)opaque)->batch + 1;
}

static void send_batch(struct capture_thread *t, struct staged_epoch *batch)
{
    t->batch++;
    sender_post_epoch(t->sender, t->serving->connection, t->serving->term, batch);
}

static void send_memory(void *opaque, struct staged_epoch *batch, uint64_t left_pages)
{
    struct capture_thread *t = opaque;
    atomic_fetch_add_explicit(&t->figures.pages_sent, batch->npages, memory_order_relaxed);
    atomic_fetch_add_explicit(&t->figures.sync_sent_pages, batch->npages, memory_order_relaxed);
    atomic_store_explicit(&t->figures.sync_remaining_pages, left_pages, memory_order_relaxed);
    send_batch(t, batch);
}

static enum precopy_progress step_disks(void *opaque)
{
    struct capture_thread *t = opaque;
    struct staged_epoch *batch;
    int status;
    enum disk_sync_progress progress = disk_sync_step(t->disk_sync, t->batch + 1, &batch, &status);
    if (status < 0) {
        capture_note_failure(t, t->serving->generation, status,
                             status == -EINVAL ? "the hosts' images of a disk differ in length"
                                               : "a disk could not be synchronised");
        return PRECOPY_FAILED;
    }
    if (batch)
        send_batch(t, batch);
    switch (progress) {
    case DISK_SYNC_WORKED:
        return PRECOPY_WORKED;
    case DISK_SYNC_WAITING:
        return PRECOPY_WAITING;
    case DISK_SYNC_READY:
        return PRECOPY_READY;
    case DISK_SYNC_DONE:
        break;
    }
    return PRECOPY_FINISHED;
}

static void finish_disks(void *opaque)
{
    disk_sync_finish(((struct capture_thread *)opaque)->disk_sync);
}

static void memory_failed(void *opaque, int status, const char *what)
{
    struct capture_thread *t = opaque;
    capture_note_failure(t, t->serving->generation, status, what);
}

static const struct precopy_calls precopy_calls = {
    .next_number = next_batch_number,
    .send = send_memory,
    .step_disks = step_disks,
    .finish_disks = finish_disks,
    .failed = memory_failed,
};

/* WAITING: the order ended first. */
static enum precopy_progress synchronise(struct capture_thread *t, const struct capture_order *order)
{
    struct precopy precopy;
    t->serving = order;
    precopy_begin(&precopy, t->capture, &precopy_calls, t);
    while (capture_order_is_current(t, order)) {
        enum precopy_progress progress = precopy_step(&precopy);
        if (progress == PRECOPY_FINISHED || progress == PRECOPY_FAILED)
            return progress;
        if (progress == PRECOPY_WAITING)
            mailbox_wait(&t->wake, CAPTURE_IDLE_WAIT_MS);
    }
    return PRECOPY_WAITING;
}

/* All that is present becomes dirty, or what the peer may lack. */
static int start_tracking(struct capture_thread *t, const struct capture_order *order)
{
    if (order->resync)
        return t->tracking ? capture_resume(t->capture, order->held_epoch) : -ESTALE;
    return capture_start(t->capture);
}

static void run_precopy(struct capture_thread *t, const struct capture_order *order)
{
    /* Before the disks begin: both end what they were synchronising. */
    if (order->resync)
        drop_work(t);
    else
        end_tracking(t);
    t->syncing_disks = t->first_epoch_due = true;
    atomic_store_explicit(&t->figures.sync_sent_pages, 0, memory_order_relaxed);
    disk_sync_begin(t->disk_sync, t->sender, order->connection, order->term, order->resync);
    int status = start_tracking(t, order);
    if (status < 0) {
        capture_note_failure(t, order->generation, status, "dirty tracking could not be started");
    } else {
        t->tracking = true;
        atomic_store_explicit(&t->figures.sync_total_pages, capture_dirty(t->capture), memory_order_relaxed);
        if (synchronise(t, order) == PRECOPY_FINISHED)
            capture_note(t, NOTE_SYNCHRONISED, order->generation, 0, false);
    }
    /* Until the next order: the control thread answers with epochs, or stops. */
    while (capture_order_is_current(t, order))
        mailbox_wait(&t->wake, CAPTURE_IDLE_WAIT_MS);
}

static void run_idle(struct capture_thread *t, const struct capture_order *order)
{
    /* Takes as long as the hypervisor likes, with nobody waiting. */
    if (order->mode == MODE_FORGET)
        end_tracking(t);
    while (capture_order_is_current(t, order))
        mailbox_wait(&t->wake, CAPTURE_IDLE_WAIT_MS);
}

static gpointer capture_thread_run(gpointer opaque)
{
    struct capture_thread *t = opaque;
    /* Default slack is 50 us: too coarse for the end of an epoch. */
    prctl(PR_SET_TIMERSLACK, 1000, 0, 0, 0);
    for (;;) {
        uint64_t stop;
        struct capture_order order = capture_order_take(t, &stop);
        if (stop) {
            drop_work(t);
            capture_note(t, NOTE_CAPTURE_STOPPED, stop, 0, false);
        }
        switch (order.mode) {
        case MODE_PRECOPY:
            run_precopy(t, &order);
            break;
        case MODE_EPOCHS:
        case MODE_LAST_EPOCH:
            capture_epochs_run(t, &order);
            break;
        case MODE_IDLE:
        case MODE_FORGET:
            run_idle(t, &order);
            break;
        case MODE_QUIT:
            drop_work(t); /* the hypervisor ends with this process */
            return NULL;
        }
        connection_put(order.connection);
    }
}

/* All but the thread. */
static void free_parts(struct capture_thread *t)
{
    capture_close(t->capture);
    mailbox_close(&t->wake);
    capture_figures_close(&t->figures);
    g_mutex_clear(&t->mutex);
    g_free(t);
}

struct capture_thread *capture_thread_new(const struct capture_thread_config *config)
{
    struct capture_thread *t = g_new0(struct capture_thread, 1);
    struct capture_config capture = {
        .hv = config->hv,
        .staging = config->staging,
        .tracker = config->tracker,
        .deadline_us = config->deadline_ms * 1000,
        .copiers = -1,
        .before_pause = before_pause,
        .at_boundary = at_boundary,
        .add_disk_section = config->disks ? add_disk_section : NULL,
        .opaque = t,
    };
    t->config = *config;
    capture_figures_open(&t->figures);
    g_mutex_init(&t->mutex);
    t->next_epoch = 1;
    pacing_init(&t->pacing, config->epoch_ms);
    int status = mailbox_open(&t->wake);
    if (status == 0)
        status = capture_open(&t->capture, &capture);
    if (status == 0 && !(t->thread = g_thread_try_new("capture", capture_thread_run, t, NULL)))
        status = -EAGAIN;
    if (status == 0)
        return t;
    free_parts(t);
    errno = -status;
    return NULL;
}

void capture_thread_free(struct capture_thread *t)
{
    if (!t)
        return;
    capture_order_give(t, (struct capture_order){.mode = MODE_QUIT, .generation = t->order.generation + 1});
    g_thread_join(t->thread);
    free_parts(t);
}

void capture_thread_set_sender(struct capture_thread *t, struct sender *sender)
{
    t->sender = sender;
}

void capture_thread_set_disk_sync(struct capture_thread *t, struct disk_sync *sync)
{
    t->disk_sync = sync;
}
