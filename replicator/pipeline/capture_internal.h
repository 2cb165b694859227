/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * struct capture_thread, for its own files only:
 *
 *   capture_orders.c   orders, and the thread's notes; calls none of the others
 *   capture_figures.c  figures for status; calls none of the others
 *   capture_epochs.c   cuts epoch after epoch
 *   capture_thread.c   start and end of the thread, the first synchronisation; calls all the others
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
    uint64_t held_epoch; /* resync: the peer holds at least this epoch */
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
    bool first_epoch_due;       /* the first epoch of this synchronisation has not been cut yet */
    uint64_t next_epoch, batch; /* batch: number of the last one */
    struct pacing pacing;

    const struct capture_order *serving; /* the order being carried out */

    _Atomic uint64_t acked_epoch; /* control thread writes */
    _Atomic bool hurry;           /* any thread sets, the capture thread takes */
};

/* ---- capture_orders.c: the capture thread's side ---- */

/*
 * Takes the newest order, which the thread carries out next, and ends an interruption of hypervisor calls.
 * *stop: the generation of a stop that came since the last order and has not been answered, else 0. The stop
 * may be this order, or one that this order has replaced.
 */
struct capture_order capture_order_take(struct capture_thread *t, uint64_t *stop);
/* Returns whether this is still the newest order. */
bool capture_order_is_current(struct capture_thread *t, const struct capture_order *order);
/* Replaces the order and wakes the thread. Takes over the reference of order.connection. Control thread. */
void capture_order_give(struct capture_thread *t, struct capture_order order);
/* Posts a note to the control thread. last: the epoch was the last one. */
void capture_note(struct capture_thread *t, enum note_kind kind, uint64_t generation, uint64_t epoch,
                  bool last);
/* Posts that the order failed: what could not be done, with the hypervisor's message or that of -errno. */
void capture_note_failure(struct capture_thread *t, uint64_t generation, int status, const char *what);

/* ---- capture_figures.c ---- */

void capture_figures_open(struct capture_figures *figures);
void capture_figures_close(const struct capture_figures *figures);
/* Adds an epoch that was cut to the figures. Capture thread. */
void capture_figures_record(struct capture_thread *t, const struct capture_report *report);

/* ---- capture_epochs.c: capture thread ---- */

/* Carries out MODE_EPOCHS or MODE_LAST_EPOCH, until the next order. */
void capture_epochs_run(struct capture_thread *t, const struct capture_order *order);

#endif
