/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The engine's interface to a hypervisor: the guest's memory and state. machine.h is the other half of the
 * seam: the process that has them. One implementation is linked: hv-hooks/qemu/hook_client.c, over
 * hook_shm.h; tests/fakevm/ has another one.
 *
 * A struct hypervisor is used by one thread at a time (the capture thread, once capturing has begun). Every
 * call is bounded in time: a hypervisor that does not answer costs -ETIMEDOUT, one that died -ENOTCONN, one
 * that sends nonsense -EPROTO.
 */
#ifndef UNDERSTUDY_HV_HOOKS_HYPERVISOR_H
#define UNDERSTUDY_HV_HOOKS_HYPERVISOR_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define HV_PAGE_LEN   4096u
#define HV_MAX_BLOCKS 64u

struct hypervisor;

enum hv_tracker { HV_TRACKER_QEMU_LOG = 0, HV_TRACKER_UFFD = 1 };

/* One block of guest RAM, main or aux, as the engine sees it: bytes and a dirty bitmap, both mapped. */
struct hv_block {
    char idstr[128];
    uint64_t max_len;  /* bytes, multiple of HV_PAGE_LEN */
    uint64_t used_len; /* bytes, <= max_len */
    uint8_t *bytes;    /* max_len bytes; read-write (the standby's image is written here) */
    _Atomic uint64_t
        *bitmap;        /* max_len / HV_PAGE_LEN bits; the hypervisor ORs, the engine exchanges with 0 */
    uint64_t host_addr; /* in the hypervisor's process, for PAGEMAP_SCAN */
    bool aux;
};

/* Result of one checkpoint. Times are CLOCK_MONOTONIC nanoseconds; pause_ns is the whole pause. */
struct hv_checkpoint {
    uint64_t pause_began_ns, stop_ns, harvest_ns, save_ns, copy_wait_ns, resume_ns, pause_ns;
    uint64_t dirty_pages;
    const uint8_t *devstate; /* mapped; valid until the next checkpoint begins */
    size_t devstate_len;
    bool expired; /* the deadline passed first: nothing may be committed */
    bool was_running;
    bool blocks_changed;
};

/* Returns the process; 0: not known yet. */
pid_t hypervisor_pid(const struct hypervisor *hv);

/* Returns the hypervisor's version, for example "7.2.22". */
const char *hypervisor_version(const struct hypervisor *hv);
/* Returns the sentence of the last error; never NULL. Valid until the next call. */
const char *hypervisor_last_message(const struct hypervisor *hv);

/* Lists the RAM blocks and fills the aux mirror. The blocks stay valid until the next list that succeeds, or
 * close. Returns 0 or -errno. */
int hypervisor_list_blocks(struct hypervisor *hv);
/* Returns the number of RAM blocks. */
unsigned hypervisor_nblocks(const struct hypervisor *hv);
/* Returns block i. */
const struct hv_block *hypervisor_block(const struct hypervisor *hv, unsigned i);

/* Starts tracking dirty pages: every page counts as clean from here on. Returns 0 or -errno. */
int hypervisor_track_start(struct hypervisor *hv, enum hv_tracker tracker);
/* Stops tracking. Returns 0 or -errno. */
int hypervisor_track_stop(struct hypervisor *hv);
/* Moves the dirty log into the bitmaps while the guest runs. Returns 0 or -errno. */
int hypervisor_harvest(struct hypervisor *hv);

/*
 * Take one checkpoint in three calls, on one thread. Each returns 0 or -errno.
 *   begin   asks for the checkpoint, and returns once the guest is paused and harvested
 *   copied  tells that every page is in staging; -ETIME: the deadline passed first, and the guest runs again
 *   finish  waits until the guest runs again and fills out, also after -ETIME (then out->expired is set).
 *           -EBUSY: the guest stands still because of an error of this host. Such a state is not saved: ask
 *           again later
 * Between begin and copied no call may block, allocate or log.
 */
int hypervisor_checkpoint_begin(struct hypervisor *hv, unsigned deadline_us, bool stay_paused);
int hypervisor_checkpoint_copied(struct hypervisor *hv);
int hypervisor_checkpoint_finish(struct hypervisor *hv, struct hv_checkpoint *out);

/* On the standby: returns main RAM to the kernel, so that it reads as zero. Returns 0 or -errno. */
int hypervisor_discard_ram(struct hypervisor *hv);
/*
 * Finds the next run of pages of main RAM that are not holes, at or after *first. Returns 0 with *first and
 * *npages set, or -ENXIO if there is none. Holes read as zero; pre-copy leaves them out, since reading a hole
 * would allocate it.
 */
int hypervisor_next_present(const struct hypervisor *hv, uint64_t *first, uint64_t *npages);
/*
 * Ends a checkpoint instead of hypervisor_checkpoint_copied, because the pages did not fit into staging: the
 * guest resumes at once, as after the deadline.
 */
void hypervisor_checkpoint_abort(struct hypervisor *hv);
/*
 * Interrupts waits: while it is on, every wait for the hypervisor, also on other threads, ends with
 * -ECANCELED. The hypervisor still carries the request out; the next request waits for that. Any thread.
 */
void hypervisor_interrupt(struct hypervisor *hv, bool on);
/* Adds ns nanoseconds to the guest's virtual clock. Returns 0 or -errno. */
int hypervisor_advance_clock(struct hypervisor *hv, uint64_t ns);

#endif
