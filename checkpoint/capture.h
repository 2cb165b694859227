/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Capture: turns a running guest into staged epochs. All functions are the capture thread's.
 *
 * An epoch is opened by its first early pass or by capture_epoch. Early passes copy dirty pages while the
 * guest runs; a page that is dirtied again is copied again into the same slot. capture_epoch pauses the
 * guest, copies the remaining dirty pages and closes the epoch.
 *
 * A page may be copied while the guest writes to it. Its dirty bit was cleared before the copy began, so a
 * write that the copy missed or tore sets the bit again, and the page is copied again, at the latest in the
 * pause.
 *
 * I3: a bit leaves the dirty map only after its page is in a slot. If the checkpoint expires or staging is
 * full, the epoch stays open and is tried again; nothing is lost and nothing is committed. If the link
 * breaks, capture_resume sets the bits of all pages that the peer may lack.
 */
#ifndef UNDERSTUDY_CHECKPOINT_CAPTURE_H
#define UNDERSTUDY_CHECKPOINT_CAPTURE_H

#include <stdbool.h>
#include <stdint.h>

#include "checkpoint/staging.h"
#include "hv-hooks/hypervisor.h"

struct capture;

struct capture_config {
    struct hypervisor *hv;
    struct staging *staging;
    enum hv_tracker tracker;
    unsigned deadline_us;
    int copiers; /* helper threads; negative: by the number of processors */
    /* Called just before the hypervisor is asked for a pause. NULL: nothing to do. */
    void (*before_pause)(void *opaque);
    /* Called in the pause, with the guest stopped, before any page is copied: marks where the epoch's output
     * ends. */
    void (*at_boundary)(void *opaque, uint64_t epoch);
    /*
     * Called for each epoch before it is closed, with the guest running again: puts the disk section behind
     * the pages. Returns 0, or a negative status: then the epoch must not be sent and cannot be tried again,
     * and the caller of capture_epoch starts over with capture_start. NULL: no disks.
     */
    int (*add_disk_section)(void *opaque, struct staged_epoch *epoch);
    void *opaque;
    /* Planted faults, for tests that must find them. */
    bool chaos_forget_redirtied; /* a page dirtied again during the epoch is not copied again (I3) */
    bool chaos_close_when_full;  /* an epoch that did not fit into staging is closed nevertheless (I6) */
    bool chaos_forget_unacked;   /* pages that were staged and that the peer lacks are not dirty again (I3) */
};

struct capture_report {
    struct hv_checkpoint checkpoint;
    uint32_t pages;          /* distinct pages of the epoch */
    uint32_t pages_in_pause; /* copied while the guest stood still */
    uint32_t pages_early;    /* copied before, repeats included */
};

/* Makes a capture and its helper threads. Copies config; hv and staging stay the caller's and outlive the
 * capture. Returns 0 or -errno. */
int capture_open(struct capture **out, const struct capture_config *config);
/* Ends the helper threads and frees the capture. NULL is allowed. */
void capture_close(struct capture *capture);

/* Starts tracking and marks every present page dirty. Drops an open epoch. Returns 0 or -errno. */
int capture_start(struct capture *capture);
/*
 * Continues after a link broke and returned, if tracking never stopped: marks every page dirty that the peer
 * may lack. These are the pages staged since held_epoch was closed (sent or not), and the pages that were
 * dirtied and not staged. held_epoch is the newest epoch that the peer is known to hold, of any
 * synchronisation since capture_start; 0: none. A peer that holds a newer epoch gets some pages again. Drops
 * an open epoch. Returns 0, or -ESTALE if the pages are no longer known: start over with capture_start.
 */
int capture_resume(struct capture *capture, uint64_t held_epoch);
/*
 * Drops the open epoch and frees its staging. Its pages become dirty again only with capture_resume. Does not
 * call the hypervisor.
 */
void capture_drop(struct capture *capture);
/* Drops the open epoch and stops tracking. Returns 0 or -errno. */
int capture_stop(struct capture *capture);

/* Returns the number of pages that are known to be dirty and not staged yet. */
uint64_t capture_dirty(const struct capture *capture);
/* Moves newly dirtied pages into the dirty map, while the guest runs. Returns 0 or -errno. */
int capture_harvest(struct capture *capture);
/*
 * Stages up to max_pages dirty pages as one pre-copy batch. Returns the batch, which the caller passes on.
 * NULL and *status 0: nothing is dirty; -EAGAIN: there is no room in staging.
 */
struct staged_epoch *capture_batch(struct capture *capture, uint64_t number, uint32_t max_pages, int *status);

/* Runs one early pass for epoch number. Returns the number of pages copied, or -errno as capture_epoch. */
int64_t capture_early_pass(struct capture *capture, uint64_t number);
/*
 * Pauses the guest, copies the dirty pages, resumes the guest (not with stay_paused) and closes the epoch.
 * Returns 0 with the epoch in *out. -EAGAIN: there is no room in staging; -ETIME: the deadline passed; both
 * leave the epoch open, to be tried again. -ENOBUFS: the epoch alone is larger than staging, so waiting does
 * not help: start over with capture_start. Others: the hypervisor failed, or add_disk_section returned the
 * status.
 */
int capture_epoch(struct capture *capture, uint64_t number, bool stay_paused, struct staged_epoch **out,
                  struct capture_report *report);

#endif
