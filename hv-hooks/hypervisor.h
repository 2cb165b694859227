/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The engine's interface to a hypervisor. One implementation: hv-hooks/qemu/hook_client.c, over hook_shm.h.
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

/* The memfds and eventfd that one QEMU process shares with the engine. Owned by their maker. */
struct hv_fds {
    int shm, devstate, ram, kick;
};

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

/* Timings of one checkpoint, CLOCK_MONOTONIC nanoseconds. pause_ns covers the rest. */
struct hv_checkpoint {
    uint64_t pause_began_ns, stop_ns, harvest_ns, save_ns, copy_wait_ns, resume_ns, pause_ns;
    uint64_t dirty_pages;
    const uint8_t *devstate; /* mapped; valid until the next checkpoint begins */
    size_t devstate_len;
    bool expired; /* the deadline won: nothing may be committed */
    bool was_running;
    bool blocks_changed;
};

/* Makes the memfds (sealed) and the eventfd for a guest with ram_len bytes of main RAM. 0 or -errno. */
int hv_fds_create(struct hv_fds *fds, const char *vm_name, uint64_t ram_len);
/* The same for a throw-away process that looks at another one's main RAM: ram is duplicated. */
int hv_fds_create_beside(struct hv_fds *fds, const char *vm_name, uint64_t ram_len, int ram);
void hv_fds_close(struct hv_fds *fds);
/* The value of UNDERSTUDY_HOOK for these fds. Returns a GLib-allocated string. */
char *hv_fds_environment(const struct hv_fds *fds);

/* Maps the memfds (which stay the caller's). pid may be 0 when not known yet. 0 or -errno. */
int hypervisor_open(struct hypervisor **out, const struct hv_fds *fds, uint64_t ram_len);
void hypervisor_close(struct hypervisor *hv);
/* 0, or -errno: its end could not be noticed. */
int hypervisor_set_pid(struct hypervisor *hv, pid_t pid);
pid_t hypervisor_pid(const struct hypervisor *hv);

/*
 * Waits for the hook's hello. -ENOEXEC: the hook refused (hypervisor_last_message says why). -ECANCELED: see
 * hypervisor_interrupt. After 0 the last message is empty, or says what the hook cannot do here (give back
 * the guest's lost time).
 */
int hypervisor_wait_ready(struct hypervisor *hv, unsigned timeout_ms);
const char *hypervisor_version(const struct hypervisor *hv);      /* for example "7.2.22" */
const char *hypervisor_last_message(const struct hypervisor *hv); /* the last error's sentence; never NULL */

/* Lists RAM blocks and fills the aux mirror. Blocks stay valid until the next list that succeeds, or close.
 */
int hypervisor_list_blocks(struct hypervisor *hv);
unsigned hypervisor_nblocks(const struct hypervisor *hv);
const struct hv_block *hypervisor_block(const struct hypervisor *hv, unsigned i);

int hypervisor_track_start(struct hypervisor *hv, enum hv_tracker tracker);
int hypervisor_track_stop(struct hypervisor *hv);
/* Moves the dirty log into the bitmaps while the guest runs. */
int hypervisor_harvest(struct hypervisor *hv);

/*
 * One checkpoint in three calls, on one thread:
 *   begin   asks, and returns once the guest is paused and harvested
 *   copied  says that every page is in staging; -ETIME if the deadline won (the guest runs again)
 *   finish  waits for the guest to run again and fills out (also after -ETIME; out->expired says which).
 *           -EBUSY: the guest stands still for an error of this host, which is not saved: ask again later
 * Between begin and copied no call may block, allocate or log.
 */
int hypervisor_checkpoint_begin(struct hypervisor *hv, unsigned deadline_us, bool stay_paused);
int hypervisor_checkpoint_copied(struct hypervisor *hv);
int hypervisor_checkpoint_finish(struct hypervisor *hv, struct hv_checkpoint *out);

int hypervisor_pause(struct hypervisor *hv);
int hypervisor_resume(struct hypervisor *hv);
/*
 * Standby: gives each block the used length it had in the epoch (nblocks of them) and copies the aux mirror
 * into the hypervisor's own blocks. Before the device state is loaded.
 */
int hypervisor_load_aux(struct hypervisor *hv, const uint64_t *used_len, unsigned nblocks);
/* Standby: makes main RAM holes again, which read as zero. */
int hypervisor_discard_ram(struct hypervisor *hv);
/*
 * Finds the next run of pages of main RAM that are not holes, at or after *first: 0 and *first, *npages
 * set; -ENXIO when there is none. Holes read as zero, and reading one would allocate it: pre-copy leaves
 * them out.
 */
int hypervisor_next_present(const struct hypervisor *hv, uint64_t *first, uint64_t *npages);
/*
 * Ends a checkpoint instead of copied, when the pages did not fit: the guest resumes at once, as after the
 * deadline.
 */
void hypervisor_checkpoint_abort(struct hypervisor *hv);
/*
 * Interrupts waits: while it is on, waits for the hypervisor end in -ECANCELED, those of other threads too.
 * The hypervisor still carries the request out; the next request waits for it. Any thread.
 */
void hypervisor_interrupt(struct hypervisor *hv, bool on);
/* Adds ns to the guest's virtual clock. */
int hypervisor_advance_clock(struct hypervisor *hv, uint64_t ns);

#endif
