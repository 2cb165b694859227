/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The shared memory between the hook (inside QEMU) and the engine (outside). This header is the whole
 * interface of the two: the hook includes nothing else of the project.
 *
 * The engine makes three memfds and seals them against shrinking and growing before QEMU starts, so that
 * neither side can make the other fault:
 *
 *   shm       struct hook_shm, then the dirty bitmaps, then the aux mirror (see below)
 *   devstate  the device state of the last checkpoint, from offset 0
 *   ram       the guest's main RAM (QEMU's memory-backend-file)
 *
 * and one eventfd, kick (engine -> hook). The fds are inherited by QEMU; HOOK_ENV names them:
 *   UNDERSTUDY_HOOK="shm=5,devstate=6,kick=7,ram=8"
 *
 * RAM blocks. The hook lists QEMU's migratable RAM blocks in blocks[]. Main RAM lives in the ram memfd. Every
 * other block ("aux": vga.vram, pc.bios, option ROMs, ACPI tables, pflash) is mirrored: at each harvest the
 * hook copies the block's dirty pages to the aux mirror, so that the engine sees main RAM and aux blocks
 * alike, as mapped bytes and a dirty bitmap.
 *
 * One request at a time:
 *
 *   engine: fill request_*, store request_seq = n (release), write kick
 *   hook:   runs the request on QEMU's main loop, big lock held; phase runs IDLE -> ... -> IDLE;
 *           at the end fills result, stores done_seq = n (release), futex-wakes done_seq
 *
 * HOOK_CHECKPOINT in full:
 *
 *   hook    pause guest, verdict = HOOK_WAITING, harvest into the bitmaps (OR), harvested_seq = n, futex wake
 *   engine  (sees harvested_seq) moves the bits out (atomic exchange), copies pages, then
 *           compare-and-swap verdict HOOK_WAITING -> HOOK_COPIED, futex wake
 *   hook    saves device state, waits for HOOK_COPIED until request_deadline_us after the guest stopped;
 *           too late: compare-and-swap HOOK_WAITING -> HOOK_EXPIRED (exactly one side wins)
 *   hook    resumes guest, fills result, done_seq = n
 *
 * A bit that the engine has not taken stays set: later harvests OR into it (invariant I3). The side that
 * loses the compare-and-swap does what the winner decided: after HOOK_EXPIRED the guest runs again, the epoch
 * is not closed, and nothing may be committed (I4).
 *
 * Trust: QEMU is untrusted. The engine reads each value here once and checks its bounds, and follows no
 * offset that it has not checked against the size of its own mapping.
 */
#ifndef UNDERSTUDY_HV_HOOKS_QEMU_HOOK_SHM_H
#define UNDERSTUDY_HV_HOOKS_QEMU_HOOK_SHM_H

#include <stdatomic.h>
#include <stdint.h>

#define HOOK_ENV          "UNDERSTUDY_HOOK"
#define HOOK_SHM_MAGIC    0x31304b4f4f485355ull /* "USHOOK01" */
#define HOOK_SHM_VERSION  1u
#define HOOK_MAX_BLOCKS   64u
#define HOOK_IDSTR_LEN    128u
#define HOOK_PAGE_LEN     4096u
#define HOOK_MESSAGE_LEN  256u
#define HOOK_DEVSTATE_MAX (64u << 20)  /* length of the devstate memfd; sparse */
#define HOOK_AUX_MAX      (256u << 20) /* room for the aux mirror; sparse */

enum hook_request {
    HOOK_NONE = 0,
    HOOK_LIST_BLOCKS = 1, /* fill blocks[] and copy every aux page to the mirror */
    HOOK_TRACK_START = 2, /* start the dirty log (request_tracker); every page counts as clean from here on */
    HOOK_TRACK_STOP = 3,
    HOOK_HARVEST = 4,    /* harvest while the guest runs */
    HOOK_CHECKPOINT = 5, /* pause, harvest, save, wait for COPIED, resume */
    HOOK_LOAD_AUX =
        6,          /* standby: copy the aux mirror back into QEMU's blocks (aux_present bitmap honoured) */
    HOOK_PAUSE = 7, /* pause the guest and leave it paused (planned failover's last step, fencing) */
    HOOK_RESUME = 8,
    HOOK_ADVANCE_CLOCK = 9, /* add request_clock_ns to the guest's virtual clock (time lost in a takeover) */
};

enum hook_tracker {
    HOOK_TRACKER_QEMU_LOG = 0, /* QEMU's own migration dirty log */
    HOOK_TRACKER_UFFD = 1,     /* userfaultfd async write-protect; the engine scans /proc/PID/pagemap */
};

enum hook_verdict { HOOK_IDLE = 0, HOOK_WAITING = 1, HOOK_COPIED = 2, HOOK_EXPIRED = 3 };

enum hook_block_flags {
    HOOK_BLOCK_IN_RAM_MEMFD = 1u << 0, /* bytes live in the ram memfd at data_off */
    HOOK_BLOCK_AUX = 1u << 1,          /* bytes are mirrored in shm at data_off */
};

/* Request flags (request_flags). */
enum hook_request_flags {
    HOOK_STAY_PAUSED =
        1u << 0, /* HOOK_CHECKPOINT: leave the guest paused if COPIED won (last epoch of a handover) */
};

/* One RAM block. Written by the hook while it lists blocks; used_len may change later (resizable ROM blobs).
 */
struct hook_block {
    char idstr[HOOK_IDSTR_LEN]; /* QEMU's migration name, NUL-terminated */
    _Atomic uint64_t used_len;  /* bytes */
    uint64_t max_len;           /* bytes, multiple of HOOK_PAGE_LEN */
    uint64_t data_off;          /* in the ram memfd or in shm, by flags */
    uint64_t bitmap_off;        /* in shm; max_len / HOOK_PAGE_LEN bits, rounded up to 64; bit set = dirty */
    uint64_t host_addr; /* address in QEMU's process: for PAGEMAP_SCAN only, never dereferenced outside */
    uint32_t flags;     /* enum hook_block_flags */
    uint32_t reserved;
};

/* What one request did. Times are nanoseconds of CLOCK_MONOTONIC. */
struct hook_result {
    int32_t status; /* 0 or negative errno; message says more */
    uint32_t verdict;
    uint64_t pause_began_ns;
    uint64_t stop_ns;      /* pausing the vCPUs and draining devices */
    uint64_t harvest_ns;   /* dirty log sync and snapshot */
    uint64_t save_ns;      /* device state */
    uint64_t copy_wait_ns; /* waiting for COPIED after the save */
    uint64_t resume_ns;
    uint64_t pause_ns; /* from the first to the last instruction of the pause */
    uint64_t dirty_pages;
    uint64_t devstate_len;   /* bytes in the devstate memfd */
    uint32_t was_running;    /* guest ran before the checkpoint */
    uint32_t blocks_changed; /* RAM block list differs from the one listed: the engine must list again and
                                resync */
    char message[HOOK_MESSAGE_LEN];
};

struct hook_shm {
    /* Set once by the engine before QEMU starts. */
    uint64_t magic;
    uint32_t version;
    uint32_t reserved0;
    uint64_t shm_len;     /* length of the shm memfd */
    uint64_t ram_len;     /* length of the ram memfd */
    uint64_t bitmaps_off; /* start and length of the bitmap area */
    uint64_t bitmaps_len;
    uint64_t aux_off; /* start and length of the aux mirror */
    uint64_t aux_len;

    /* Set once by the hook when it has started. 0 = not yet, 1 = ready, 2 = failed (hello_message says why).
     */
    _Alignas(64) _Atomic uint32_t hello;
    uint32_t qemu_pid;
    char qemu_version[64];
    char hello_message[HOOK_MESSAGE_LEN];

    /* Engine writes, hook reads. */
    _Alignas(64) _Atomic uint32_t request_seq;
    uint32_t request_kind; /* enum hook_request */
    uint32_t request_flags;
    uint32_t request_tracker;
    uint64_t request_deadline_us; /* longest that the engine may hold a guest that has stopped */
    uint64_t request_clock_ns;

    /* Hook writes, engine waits (futex). */
    _Alignas(64) _Atomic uint32_t harvested_seq;
    _Alignas(64) _Atomic uint32_t done_seq;
    /* Both write by compare-and-swap; the hook waits (futex). */
    _Alignas(64) _Atomic uint32_t verdict;

    _Alignas(64) struct hook_result result;
    uint32_t nblocks;
    uint32_t blocks_generation;
    struct hook_block blocks[HOOK_MAX_BLOCKS];
};

_Static_assert(sizeof(struct hook_block) == HOOK_IDSTR_LEN + 48, "shared-memory layout");
_Static_assert(sizeof(struct hook_shm) <= 4 * 4096, "struct hook_shm fits the area kept for it");
#define HOOK_SHM_HEADER_LEN (4u * 4096u)

#endif
