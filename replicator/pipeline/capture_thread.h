/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The capture thread: the only user of the hypervisor while the guest is being captured. It paces epochs,
 * runs pre-copy, and hands staged epochs to the sender. Orders come from the control thread and take effect
 * between two epochs; what happens is posted to the control thread with the generation of the order it
 * belongs to.
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

/* What status shows. One writer: the capture thread; counters are read relaxed. */
struct capture_figures {
    struct histogram *pause_us, *stop_us, *harvest_us, *save_us, *copy_wait_us, *resume_us;
    struct histogram *dirty_pages;
    _Atomic uint64_t epochs, expired, pages_sent, pages_early, sync_remaining_pages, sync_total_pages;
    _Atomic uint64_t sync_sent_pages; /* by the last synchronisation, its first epoch included */
};

/* NULL and errno: there are no descriptors, no memory or no threads left. */
struct capture_thread *capture_thread_new(const struct capture_thread_config *config);
/* Ends the thread; the hypervisor is free to use by the caller afterwards. */
void capture_thread_free(struct capture_thread *thread);
/* Must be set before the first order. sync outlives the thread. */
void capture_thread_set_sender(struct capture_thread *thread, struct sender *sender);
void capture_thread_set_disk_sync(struct capture_thread *thread, struct disk_sync *sync);

/* Orders; none waits. Each starts a new generation, except epochs and last_epoch, which go on with the
 * present one. */
void capture_thread_precopy(struct capture_thread *thread, struct connection *connection, uint64_t term);
/* The same, but the peer has kept its image: only what it may lack that holds at least this epoch. */
void capture_thread_resync(struct capture_thread *thread, struct connection *connection, uint64_t term,
                           uint64_t held_epoch);
void capture_thread_epochs(struct capture_thread *thread, uint64_t first_epoch);
void capture_thread_last_epoch(struct capture_thread *thread);
/*
 * Returns at once. When the thread has let go of connection, staging and epochs it posts
 * NOTE_CAPTURE_STOPPED with this order's generation: after at most one epoch or one step of the disks'
 * synchronisation, however long a disk takes for that. Until then it may still cut an epoch and send it by
 * the connection. Tracking goes on, for capture_thread_resync. A second stop before the first is answered is
 * answered once, with its own generation.
 */
void capture_thread_stop(struct capture_thread *thread);
/* A stop has not been answered for some time: an epoch that waits for the hypervisor is given up. */
void capture_thread_hasten(struct capture_thread *thread);
/* Tracking ends, too. That it has ended is not waited for, nor said. */
void capture_thread_forget(struct capture_thread *thread);
uint64_t capture_thread_generation(const struct capture_thread *thread);
/* The peer holds the epoch: one more may be put in flight. Control thread. */
void capture_thread_acked(struct capture_thread *thread, uint64_t epoch);
/* The sender gave staging room back, or anything else that the thread may wait for happened. Any thread. */
void capture_thread_room(void *thread);
/* A disk's log fills: the present epoch ends now. Any thread. */
void capture_thread_hurry(struct capture_thread *thread);

const struct capture_figures *capture_thread_figures(const struct capture_thread *thread);
/* The histograms begin anew; the counters go on. Any thread. */
void capture_thread_reset_figures(struct capture_thread *thread);

#endif
