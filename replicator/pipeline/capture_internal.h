/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The inside of struct capture_thread, for its own files only:
 *
 *   capture_orders.c   orders, and what the thread tells; calls none of the others
 *   capture_figures.c  what status shows; calls none of the others
 *   capture_epochs.c   epoch after epoch
 *   capture_thread.c   the thread's life, the first synchronisation; calls all the others
 */
#ifndef UNDERSTUDY_REPLICATOR_CAPTURE_INTERNAL_H
#define UNDERSTUDY_REPLICATOR_CAPTURE_INTERNAL_H

#include <glib.h>

#include "checkpoint/capture.h"
#include "checkpoint/pacing.h"
#include "replicator/note.h"
#include "replicator/pipeline/capture_thread.h"

#define CAPTURE_IDLE_WAIT_MS 1000

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

/* ---- capture_orders.c: the capture thread's side ---- */

/*
 * The thread begins with the newest order; what it may have been torn from is over. *stop: one that came
 * since the last order and has not been answered, its generation; else 0. It may be this order or one that
 * this order has replaced.
 */
struct capture_order capture_order_take(struct capture_thread *t, uint64_t *stop);
/* Whether this is still the newest order. */
bool capture_order_is_current(struct capture_thread *t, const struct capture_order *order);
/* Control thread: replaces the order and wakes the thread. Takes over order->connection's reference. */
void capture_order_give(struct capture_thread *t, struct capture_order order);
/* Tells the control thread what happened. */
void capture_note(struct capture_thread *t, enum note_kind kind, uint64_t generation, uint64_t epoch,
                  bool last);
/* Tells it that the order failed: what could not be done, and the hypervisor's words or -errno's. */
void capture_note_failure(struct capture_thread *t, uint64_t generation, int status, const char *what);

/* ---- capture_figures.c ---- */

void capture_figures_open(struct capture_figures *figures);
void capture_figures_close(const struct capture_figures *figures);
/* An epoch was cut. Capture thread. */
void capture_figures_record(struct capture_thread *t, const struct capture_report *report);

/* ---- capture_epochs.c: capture thread ---- */

/* Carries out MODE_EPOCHS or MODE_LAST_EPOCH, until the next order. */
void capture_epochs_run(struct capture_thread *t, const struct capture_order *order);

#endif
