/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Capture: turns a running guest into staged epochs. The heart of the engine; one thread, the capture thread.
 *
 * An epoch is opened by its first early pass or by capture_epoch. Early passes copy dirty pages while the
 * guest runs; a page dirtied again goes to the same slot again. capture_epoch pauses the guest, copies what
 * is left and closes the epoch.
 *
 * Why copying a page that the guest is writing is right: its dirty bit was cleared before the copy began, so
 * a write that the copy missed or tore sets the bit again, and the page is copied again, at the latest in the
 * pause.
 *
 * I3: a bit leaves the dirty map only after its page is in a slot. If the checkpoint expires or staging is
 * full, the epoch stays open and is tried again; nothing is lost and nothing is committed. If the link
 * breaks, capture_resume puts the bits of what the peer may lack back.
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
    /* Called in the pause, guest stopped, before any page is copied: fix where the epoch's output ends. */
    void (*at_boundary)(void *opaque, uint64_t epoch);
    /*
     * Called for each epoch that will be closed, guest running again: puts the disk section behind the pages.
     * Negative: the epoch must not be sent, and cannot be tried again: start over with capture_start. NULL:
     * no disks.
     */
    int (*add_disk_section)(void *opaque, struct staged_epoch *epoch);
    void *opaque;
    /* Planted faults, for tests that must find them. */
    bool chaos_forget_redirtied; /* a page dirtied again during the epoch is not copied again (I3) */
    bool chaos_close_when_full;  /* an epoch that did not fit into staging is closed all the same (I6) */
    bool chaos_forget_unacked;   /* what was staged and is not held by the peer is not dirty again (I3) */
};

struct capture_report {
    struct hv_checkpoint checkpoint;
    uint32_t pages;          /* distinct pages of the epoch */
    uint32_t pages_in_pause; /* copied while the guest stood still */
    uint32_t pages_early;    /* copied before, repeats included */
};

int capture_open(struct capture **out, const struct capture_config *config);
void capture_close(struct capture *capture);

/* Starts tracking and marks every present page dirty. Any open epoch is dropped. */
int capture_start(struct capture *capture);
/*
 * Goes on after a link broke and returned, while tracking went on. Dirty is then what the peer may lack:
 * every page staged since held_epoch was closed, whether it was sent, dropped or neither, and every page
 * that was dirtied and not staged. held_epoch is the newest epoch that the peer is known to hold, of any
 * synchronisation since capture_start; 0: none. A peer that holds a newer epoch gets some pages again. Any
 * open epoch is dropped. -ESTALE: this is not known any more, start over with capture_start.
 */
int capture_resume(struct capture *capture, uint64_t held_epoch);
/*
 * Drops the open epoch: its staging is free again. Its pages are dirty again only with capture_resume. Asks
 * nothing of the hypervisor.
 */
void capture_drop(struct capture *capture);
/* Drops the open epoch too, and ends tracking. */
int capture_stop(struct capture *capture);

/* Pages known dirty and not yet staged. */
uint64_t capture_dirty(const struct capture *capture);
/* Moves newly dirtied pages into the map, guest running. */
int capture_harvest(struct capture *capture);
/*
 * Pre-copy: stages up to max_pages dirty pages as one batch. NULL and *status: 0 nothing dirty, -EAGAIN no
 * room.
 */
struct staged_epoch *capture_batch(struct capture *capture, uint64_t number, uint32_t max_pages, int *status);

/* One early pass for epoch number. Pages copied, or -errno as capture_epoch. */
int64_t capture_early_pass(struct capture *capture, uint64_t number);
/*
 * Pauses, copies, resumes, closes the epoch. 0 and *out; -EAGAIN: no room in staging, -ETIME: the deadline
 * won; both leave the epoch open, to be tried again. -ENOBUFS: the epoch alone is larger than staging,
 * waiting will not help: start over with capture_start. Others: the hypervisor failed, or what
 * add_disk_section returned.
 */
int capture_epoch(struct capture *capture, uint64_t number, bool stay_paused, struct staged_epoch **out,
                  struct capture_report *report);

#endif
