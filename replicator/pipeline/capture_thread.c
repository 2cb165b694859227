/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * See capture_thread.h. The control thread's order is one small struct under a mutex that the capture thread
 * looks at between two epochs, never inside one. Everything the capture thread says carries the order's
 * generation, so that what a cancelled order still had to say is recognised and dropped.
 *
 * A stop is an order like the others. The control thread does not wait for it, since the thread may be inside
 * a read of a disk that hangs; the thread says when it has let go.
 *
 * The thread has no real-time priority, though that would save some 70 us of each pause: in bursts of work it
 * kept the control thread from giving signs of life, and the other host took over from a living one.
 *
 * When an epoch is cut and how early its pages are copied is checkpoint/pacing.h's. This thread waits and
 * does it.
 */
#include "replicator/pipeline/capture_thread.h"

#include <errno.h>
#include <string.h>
#include <sys/prctl.h>

#include "checkpoint/capture.h"
#include "checkpoint/pacing.h"
#include "checkpoint/precopy.h"
#include "replicator/network/frame_stream.h"
#include "replicator/note.h"

#define IDLE_WAIT_MS 1000

_Static_assert(PACING_MAX_UNACKED < FRAME_STREAM_EPOCHS, "the gate remembers every epoch in flight");

enum capture_mode { MODE_IDLE, MODE_FORGET, MODE_PRECOPY, MODE_EPOCHS, MODE_LAST_EPOCH, MODE_QUIT };

struct capture_order {
    enum capture_mode mode;
    uint64_t generation, term, first_epoch;
    bool resync;
    uint64_t held_epoch; /* resync: the peer holds this one at least */
    struct connection *connection;
};

struct capture_thread {
    struct capture_thread_config config;
    struct capture_figures figures;
    struct sender *sender;
    struct disk_sync *disk_sync;
    struct capture *capture;
    GThread *thread;
    struct mailbox wake; /* only its wake-ups are used */

    GMutex mutex;
    struct capture_order order; /* guarded */
    uint64_t stop_asked;        /* guarded: the newest stop's generation */
    uint64_t stop_taken;        /* guarded: the newest stop's that the thread has seen */

    /* The thread's own. */
    bool tracking, syncing_disks;
    bool first_epoch_due;       /* of this synchronisation: it has not been cut yet */
    uint64_t next_epoch, batch; /* batch: number of the last one */
    struct pacing pacing;

    const struct capture_order *serving; /* the order being carried out */

    _Atomic uint64_t acked_epoch; /* control thread writes */
    _Atomic bool hurry;           /* any thread sets, the capture thread takes */
};

static struct capture_order order_locked(struct capture_thread *t)
{
    struct capture_order order = t->order;
    if (order.connection)
        connection_get(order.connection);
    return order;
}

/*
 * The thread begins with the newest order; what it may have been torn from is over. *stop: one that came
 * since the last order and has not been answered, its generation; else 0. It may be this order or one that
 * this order has replaced.
 */
static struct capture_order take_order(struct capture_thread *t, uint64_t *stop)
{
    g_mutex_lock(&t->mutex);
    struct capture_order order = order_locked(t);
    *stop = t->stop_asked > t->stop_taken ? t->stop_asked : 0;
    t->stop_taken = t->stop_asked;
    hypervisor_interrupt(t->config.hv, false);
    g_mutex_unlock(&t->mutex);
    return order;
}

static bool still(struct capture_thread *t, const struct capture_order *order)
{
    g_mutex_lock(&t->mutex);
    bool same = t->order.generation == order->generation && t->order.mode == order->mode;
    g_mutex_unlock(&t->mutex);
    return same;
}

static void tell(struct capture_thread *t, enum note_kind kind, uint64_t generation, uint64_t epoch,
                 bool last)
{
    struct note *note = note_new(kind, NULL, 0);
    note->arg = last;
    note->generation = generation;
    note->epoch = epoch;
    mailbox_post(t->config.control, &note->letter);
}

static void tell_failure(struct capture_thread *t, uint64_t generation, int status, const char *what)
{
    const char *why = hypervisor_last_message(t->config.hv);
    g_autofree char *text = g_strdup_printf("%s: %s", what, why[0] ? why : g_strerror(-status));
    struct note *note = note_new(NOTE_CAPTURE_FAILED, text, strlen(text));
    note->generation = generation;
    note->status = status;
    mailbox_post(t->config.control, &note->letter);
}

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
    mailbox_wait(&t->wake, IDLE_WAIT_MS);
    return still(t, t->serving);
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

static void let_go(struct capture_thread *t)
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
        tell_failure(t, t->serving->generation, status,
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
    tell_failure(t, t->serving->generation, status, what);
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
    while (still(t, order)) {
        enum precopy_progress progress = precopy_step(&precopy);
        if (progress == PRECOPY_FINISHED || progress == PRECOPY_FAILED)
            return progress;
        if (progress == PRECOPY_WAITING)
            mailbox_wait(&t->wake, IDLE_WAIT_MS);
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
        let_go(t);
    t->syncing_disks = t->first_epoch_due = true;
    atomic_store_explicit(&t->figures.sync_sent_pages, 0, memory_order_relaxed);
    disk_sync_begin(t->disk_sync, t->sender, order->connection, order->term, order->resync);
    int status = start_tracking(t, order);
    if (status < 0) {
        tell_failure(t, order->generation, status, "dirty tracking could not be started");
    } else {
        t->tracking = true;
        atomic_store_explicit(&t->figures.sync_total_pages, capture_dirty(t->capture), memory_order_relaxed);
        if (synchronise(t, order) == PRECOPY_FINISHED)
            tell(t, NOTE_SYNCHRONISED, order->generation, 0, false);
    }
    /* Until the next order: the control thread answers with epochs, or stops. */
    while (still(t, order))
        mailbox_wait(&t->wake, IDLE_WAIT_MS);
}

/* ---- epochs ---- */

static void record(struct capture_thread *t, const struct capture_report *report)
{
    const struct hv_checkpoint *c = &report->checkpoint;
    histogram_record(t->figures.pause_us, c->pause_ns / 1000);
    histogram_record(t->figures.stop_us, c->stop_ns / 1000);
    histogram_record(t->figures.harvest_us, c->harvest_ns / 1000);
    histogram_record(t->figures.save_us, c->save_ns / 1000);
    histogram_record(t->figures.copy_wait_us, c->copy_wait_ns / 1000);
    histogram_record(t->figures.resume_us, c->resume_ns / 1000);
    histogram_record(t->figures.dirty_pages, report->pages);
    atomic_fetch_add_explicit(&t->figures.epochs, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&t->figures.pages_sent, report->pages, memory_order_relaxed);
    if (t->first_epoch_due)
        atomic_fetch_add_explicit(&t->figures.sync_sent_pages, report->pages, memory_order_relaxed);
    t->first_epoch_due = false;
    atomic_fetch_add_explicit(&t->figures.pages_early, report->pages_early, memory_order_relaxed);
}

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
        if (!still(t, order))
            return false;
        if (atomic_load_explicit(&t->hurry, memory_order_acquire))
            break;
        if (due_us - now < 1000) {
            g_usleep((gulong)(due_us - now)); /* finer than poll's milliseconds; nothing else to await */
            break;
        }
        mailbox_wait(&t->wake, (int)((due_us - now) / 1000));
    }
    return still(t, order);
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
    return still(t, order);
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
        return still(t, order);
    }
    if (status < 0) {
        tell_failure(t, order->generation, status,
                     status == -ESTALE    ? "the guest's RAM layout changed"
                     : status == -ENOBUFS ? "the guest writes more in one epoch than staging holds"
                     : status == -EIO     ? "the log of a disk is not whole"
                                          : "a checkpoint failed");
        return false;
    }
    record(t, &report);
    /* Cut before sent: the control thread must know the epoch before it can be acked. */
    tell(t, NOTE_EPOCH_CUT, order->generation, t->next_epoch, last);
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

static void run_epochs(struct capture_thread *t, const struct capture_order *order)
{
    bool last = order->mode == MODE_LAST_EPOCH;
    pacing_begin(&t->pacing, g_get_monotonic_time());
    disks_limit_logs(t->config.disks, plan_now(t).log_limit);
    if (order->first_epoch > t->next_epoch || !last)
        t->next_epoch = MAX(t->next_epoch, order->first_epoch);
    if (!last)
        atomic_store(&t->acked_epoch, t->next_epoch - 1);
    /* Output is held from here on: so must be what else the world could see. */
    while (!disks_order_done(t->config.disks) && still(t, order))
        mailbox_wait(&t->wake, IDLE_WAIT_MS);
    for (;;) {
        /* A full pipeline: the epoch grows until the sender gives room (I6). */
        while (!may_cut(t) && still(t, order))
            mailbox_wait(&t->wake, IDLE_WAIT_MS);
        if (!last && !until_cut(t, order))
            break;
        disk_sync_between_epochs(t->disk_sync, t->next_epoch);
        if (!run_epoch(t, order, last))
            break;
    }
    disks_limit_logs(t->config.disks, 0);
    while (still(t, order))
        mailbox_wait(&t->wake, IDLE_WAIT_MS);
}

static void run_idle(struct capture_thread *t, const struct capture_order *order)
{
    /* Takes as long as the hypervisor likes, with nobody waiting. */
    if (order->mode == MODE_FORGET)
        let_go(t);
    while (still(t, order))
        mailbox_wait(&t->wake, IDLE_WAIT_MS);
}

static gpointer capture_thread_run(gpointer opaque)
{
    struct capture_thread *t = opaque;
    /* Default slack is 50 us: too coarse for the end of an epoch. */
    prctl(PR_SET_TIMERSLACK, 1000, 0, 0, 0);
    for (;;) {
        uint64_t stop;
        struct capture_order order = take_order(t, &stop);
        if (stop) {
            drop_work(t);
            tell(t, NOTE_CAPTURE_STOPPED, stop, 0, false);
        }
        switch (order.mode) {
        case MODE_PRECOPY:
            run_precopy(t, &order);
            break;
        case MODE_EPOCHS:
        case MODE_LAST_EPOCH:
            run_epochs(t, &order);
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

#define FIGURES 7u
static void list_figures(const struct capture_thread *t, struct histogram *all[FIGURES])
{
    const struct capture_figures *f = &t->figures;
    struct histogram *const list[FIGURES] = {f->pause_us,     f->stop_us,   f->harvest_us, f->save_us,
                                             f->copy_wait_us, f->resume_us, f->dirty_pages};
    memcpy(all, list, sizeof list);
}

/* All but the thread. */
static void free_parts(struct capture_thread *t)
{
    struct histogram *all[FIGURES];
    capture_close(t->capture);
    mailbox_close(&t->wake);
    list_figures(t, all);
    for (size_t i = 0; i < FIGURES; i++)
        histogram_free(all[i]);
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
    struct histogram **all[] = {&t->figures.pause_us,   &t->figures.stop_us,      &t->figures.harvest_us,
                                &t->figures.save_us,    &t->figures.copy_wait_us, &t->figures.resume_us,
                                &t->figures.dirty_pages};
    t->config = *config;
    for (size_t i = 0; i < G_N_ELEMENTS(all); i++)
        *all[i] = histogram_new();
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

/* Replaces the order and wakes the thread. Takes over order->connection's reference. */
static void give_order(struct capture_thread *t, struct capture_order order)
{
    g_mutex_lock(&t->mutex);
    struct connection *old = t->order.connection;
    t->order = order;
    if (order.mode == MODE_IDLE)
        t->stop_asked = order.generation;
    g_mutex_unlock(&t->mutex);
    connection_put(old);
    mailbox_wake(&t->wake);
}

void capture_thread_free(struct capture_thread *t)
{
    if (!t)
        return;
    give_order(t, (struct capture_order){.mode = MODE_QUIT, .generation = t->order.generation + 1});
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

void capture_thread_hurry(struct capture_thread *t)
{
    atomic_store_explicit(&t->hurry, true, memory_order_release);
    mailbox_wake(&t->wake);
}

void capture_thread_precopy(struct capture_thread *t, struct connection *connection, uint64_t term)
{
    give_order(t, (struct capture_order){.mode = MODE_PRECOPY,
                                         .generation = t->order.generation + 1,
                                         .term = term,
                                         .connection = connection ? connection_get(connection) : NULL});
}

void capture_thread_resync(struct capture_thread *t, struct connection *connection, uint64_t term,
                           uint64_t held_epoch)
{
    give_order(t, (struct capture_order){.mode = MODE_PRECOPY,
                                         .generation = t->order.generation + 1,
                                         .term = term,
                                         .resync = true,
                                         .held_epoch = held_epoch,
                                         .connection = connection ? connection_get(connection) : NULL});
}

/* Goes on with the present connection and generation in another mode. */
static void change_mode(struct capture_thread *t, enum capture_mode mode, uint64_t first_epoch)
{
    g_mutex_lock(&t->mutex);
    struct capture_order order = order_locked(t);
    g_mutex_unlock(&t->mutex);
    order.mode = mode;
    order.first_epoch = first_epoch;
    give_order(t, order);
}

void capture_thread_epochs(struct capture_thread *t, uint64_t first_epoch)
{
    change_mode(t, MODE_EPOCHS, first_epoch);
}

void capture_thread_last_epoch(struct capture_thread *t)
{
    change_mode(t, MODE_LAST_EPOCH, 0);
}

void capture_thread_stop(struct capture_thread *t)
{
    give_order(t, (struct capture_order){.mode = MODE_IDLE, .generation = t->order.generation + 1});
}

void capture_thread_hasten(struct capture_thread *t)
{
    g_mutex_lock(&t->mutex);
    if (t->stop_asked > t->stop_taken)
        hypervisor_interrupt(t->config.hv, true);
    g_mutex_unlock(&t->mutex);
}

void capture_thread_forget(struct capture_thread *t)
{
    give_order(t, (struct capture_order){.mode = MODE_FORGET, .generation = t->order.generation + 1});
}

uint64_t capture_thread_generation(const struct capture_thread *t)
{
    return t->order.generation;
}

void capture_thread_room(void *thread)
{
    mailbox_wake(&((struct capture_thread *)thread)->wake);
}

void capture_thread_reset_figures(struct capture_thread *t)
{
    struct histogram *all[FIGURES];
    list_figures(t, all);
    for (size_t i = 0; i < FIGURES; i++)
        histogram_reset_soon(all[i]);
}

const struct capture_figures *capture_thread_figures(const struct capture_thread *t)
{
    return &t->figures;
}

void capture_thread_acked(struct capture_thread *t, uint64_t epoch)
{
    if (epoch > atomic_load_explicit(&t->acked_epoch, memory_order_relaxed))
        atomic_store_explicit(&t->acked_epoch, epoch, memory_order_release);
    mailbox_wake(&t->wake);
}
