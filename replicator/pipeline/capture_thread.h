/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The capture thread: the only user of the hypervisor while the guest is being captured. It paces epochs,
 * runs pre-copy, and passes staged epochs to the sender. Orders come from the control thread and take effect
 * between two epochs. The thread posts what happens to the control thread, with the generation of the order
 * to which it belongs.
 *
 * All functions are the control thread's, except those that say otherwise.
 */
#ifndef UNDERSTUDY_REPLICATOR_CAPTURE_THREAD_H
#define UNDERSTUDY_REPLICATOR_CAPTURE_THREAD_H

#include <stdint.h>

#include "checkpoint/staging.h"
#include "common/histogram.h"
#include "common/mailbox.h"
#include "hv-hooks/hypervisor.h"
#include "replicator/disk/disk_sync.h"
#include "replicator/disk/disks.h"
#include "replicator/network/input_log.h"
#include "replicator/network/output_gate.h"
#include "replicator/transport/connection.h"
#include "replicator/transport/sender.h"

struct capture_thread;

struct capture_thread_config {
    struct hypervisor *hv;
    struct staging *staging;
    struct output_gate *gate;
    struct input_log *input_log;
    struct disks *disks; /* or NULL */
    struct mailbox *control;
    unsigned epoch_ms;
    unsigned deadline_ms;
    enum hv_tracker tracker;
};

/* Figures for status. One writer, the capture thread; counters are read relaxed. */
struct capture_figures {
    struct histogram *pause_us, *stop_us, *harvest_us, *save_us, *copy_wait_us, *resume_us;
    struct histogram *dirty_pages;
    _Atomic uint64_t epochs, expired, pages_sent, pages_early, sync_remaining_pages, sync_total_pages;
    _Atomic uint64_t sync_sent_pages; /* by the last synchronisation, its first epoch included */
};

/* Starts the thread. The parts in config stay the caller's and outlive it. NULL and errno: there are no
 * descriptors, no memory or no threads left. */
struct capture_thread *capture_thread_new(const struct capture_thread_config *config);
/* Ends the thread and frees it. Afterwards the caller may use the hypervisor. */
void capture_thread_free(struct capture_thread *thread);
/* These two must be set before the first order. Both parts outlive the thread. */
void capture_thread_set_sender(struct capture_thread *thread, struct sender *sender);
void capture_thread_set_disk_sync(struct capture_thread *thread, struct disk_sync *sync);

/* ---- orders: none waits. Each starts a new generation, except epochs and last_epoch ---- */
/* Starts a first synchronisation over the connection. */
void capture_thread_precopy(struct capture_thread *thread, struct connection *connection, uint64_t term);
/* Starts a synchronisation with a peer that has kept its image: sends only what a peer that holds at least
 * held_epoch may lack. */
void capture_thread_resync(struct capture_thread *thread, struct connection *connection, uint64_t term,
                           uint64_t held_epoch);
/* Cuts epochs from now on, the first with this number. */
void capture_thread_epochs(struct capture_thread *thread, uint64_t first_epoch);
/* Cuts one last epoch and leaves the guest paused. */
void capture_thread_last_epoch(struct capture_thread *thread);
/*
 * Stops cutting epochs. When the thread has released connection, staging and epochs, it posts
 * NOTE_CAPTURE_STOPPED with this order's generation. That happens after at most one epoch or one step of the
 * disks' synchronisation, which may take as long as a disk takes. Until then the thread may still cut an
 * epoch and send it by the connection. Tracking goes on, for capture_thread_resync. If a second stop comes
 * before the first is answered, there is one answer, with the generation of the second.
 */
void capture_thread_stop(struct capture_thread *thread);
/* Gives up an epoch that waits for the hypervisor, because a stop has not been answered for some time. */
void capture_thread_hasten(struct capture_thread *thread);
/* Stops tracking too. There is no answer to this order. */
void capture_thread_forget(struct capture_thread *thread);
/* Returns the present generation. */
uint64_t capture_thread_generation(const struct capture_thread *thread);
/* Notes that the peer holds the epoch, so that one more may be put in flight. */
void capture_thread_acked(struct capture_thread *thread, uint64_t epoch);
/* Wakes the thread, because the sender has freed staging, or something else that it may wait for has
 * happened. Any thread. */
void capture_thread_room(void *thread);
/* Ends the present epoch now, because a disk's log is filling up. Any thread. */
void capture_thread_hurry(struct capture_thread *thread);

/* Returns the figures, which stay the thread's. Any thread. */
const struct capture_figures *capture_thread_figures(const struct capture_thread *thread);
/* Resets the histograms, not the counters. Any thread. */
void capture_thread_reset_figures(struct capture_thread *thread);

#endif
