/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The shared memory between nbdkit's plugin, which serves a disk to QEMU, and the replicator. One memfd a
 * disk, made and sealed by the replicator: struct disk_shm, then from DISK_SHM_RING_OFFSET on the log ring.
 *
 * While DISK_LOGGING is set, each change goes to the ring as a record (checkpoint/disk/disk_record.h) before
 * it completes. After QEMU has paused the guest no request is under way, so head, read in the pause, is
 * exactly where the epoch ends. The replicator copies what lies before it out, once the guest runs again, and
 * moves tail.
 *
 * While epochs are cut, writers wait (on room_seq) as soon as limit bytes are in the ring: a guest that
 * writes faster than the standby takes it is slowed down to that, and what it says meanwhile is not held for
 * long. Just before a pause, which waits for the writes under way, limit is lifted: for those the rest of the
 * ring is there.
 *
 * A ring that is full makes writers wait until the replicator has made room. In a pause a wait without end
 * would hold the guest: after DISK_ROOM_WAIT_MS, or at once for a record that could never fit, the plugin
 * gives up logging: it sets detached, before that write completes. An epoch whose boundary sees detached is
 * never sent; the dirty-block map still has what was written, and a new synchronisation follows.
 *
 * tail moves only to a head that was read with no write under way (in a pause). So whatever a killed nbdkit
 * has in the ring and not in the image lies behind tail: the one that follows writes [tail, head) to the
 * image again before it serves, and the image is what the ring says, whether or not QEMU repeats its
 * requests. For the same reason a write that the image refuses (EIO, ENOSPC) is followed by a record of what
 * the image then has there.
 *
 * Modes change only with no write under way: the replicator fills wanted_* and then raises wanted_seq (futex
 * wake); a thread of the plugin takes the whole disk as the range of a lock in which each write takes its
 * own, stores flags and active_map, then done_seq, and signals the eventfd `attention`. A plugin that starts
 * does the same before it serves anything, so an order outlives nbdkit. One order at a time: the next is
 * filled in once done_seq has reached wanted_seq. An order raises room_seq too, so that no writer who waits
 * at the limit, or for room in a log that is to end, keeps it waiting. In a pause nothing is under way
 * either: there the replicator may store active_map itself.
 *
 * Trust: the replicator takes nothing for granted that nbdkit writes here: positions are checked against its
 * own tail and the ring's length, records are decoded strictly.
 */
#ifndef UNDERSTUDY_REPLICATOR_DISK_LOG_H
#define UNDERSTUDY_REPLICATOR_DISK_LOG_H

#include <stdatomic.h>
#include <stdint.h>

#define DISK_SHM_MAGIC       0x31304b5349445355ull /* "USDISK01" */
#define DISK_SHM_VERSION     2u
#define DISK_SHM_RING_OFFSET 4096u
#define DISK_ROOM_WAIT_MS    2000
/*
 * With DISK_HELD there is no image to write to instead: after this time the write fails with ENOSPC, for
 * which QEMU stops the guest. Together with the wait at the limit before it, less than the time after which
 * a guest gives a disk up (30 s, SCSI and ATA in Linux).
 */
#define DISK_HELD_WAIT_MS 10000
/* Descriptors that nbdkit inherits; the plugin's parameters name them: shm=, image=, map=, attention=. */

enum disk_shm_flags {
    DISK_WRITABLE = 1u << 0, /* the guest runs here; otherwise writes are refused (EPERM) */
    DISK_LOGGING = 1u << 1,  /* changes go to the ring */
    DISK_DURABLE = 1u << 2,  /* a change is on the disk before it completes */
    /*
     * Shared disk: changes go to the ring only, and to the image once the replicator releases them. While
     * it is set, the ring's room ends at flushed as well as at tail. An order that clears it while
     * DISK_WRITABLE stays first writes all that is held; one that clears DISK_WRITABLE writes nothing any
     * more.
     */
    DISK_HELD = 1u << 3,
};

/* Why the plugin signalled. */
enum disk_attention {
    DISK_ATTENTION_MARK = 1u << 0,     /* the ring holds more than mark bytes: cut an epoch now */
    DISK_ATTENTION_DETACHED = 1u << 1, /* see above */
    DISK_ATTENTION_ERROR = 1u << 2,    /* the image failed: last_errno, last_error_offset */
    DISK_ATTENTION_DONE = 1u << 3,     /* done_seq moved */
    DISK_ATTENTION_FLUSHED = 1u << 4,  /* flushed moved */
};

struct disk_shm {
    /* Written by the replicator before nbdkit starts. */
    uint64_t magic;
    uint32_t version;
    uint32_t disk; /* number in records */
    uint64_t ring_len, export_len;
    uint64_t mark;   /* bytes in the ring that call for an epoch */
    uint32_t shared; /* 1: may be ordered DISK_HELD */
    uint32_t reserved[5];

    /* Replicator -> plugin. */
    _Alignas(64) _Atomic uint64_t tail; /* bytes ever taken out */
    _Atomic uint32_t room_seq;          /* futex: raised when tail or an order moved, or limit was lifted */
    _Atomic uint32_t wanted_seq;        /* futex */
    _Atomic uint32_t wanted_flags, wanted_map;
    _Atomic uint32_t release_seq; /* futex: raised when release moved */
    _Atomic uint64_t release;     /* DISK_HELD: what lies before may go to the image */
    _Atomic uint64_t limit;       /* bytes in the ring from which on writers wait; 0: none */

    /* Plugin -> replicator. */
    _Alignas(64) _Atomic uint64_t head; /* bytes ever put in; each record whole */
    _Atomic uint32_t flags;             /* in force */
    _Atomic uint32_t active_map;        /* 0 or 1: the bitmap that writes mark */
    _Atomic uint32_t done_seq;
    /* Cleared by an order that turns DISK_LOGGING on, not by one that leaves it on. */
    _Atomic uint32_t detached;
    /* Read the eventfd first, then take the bits (exchange with 0). */
    _Atomic uint32_t attention;
    _Atomic uint32_t last_errno;
    _Atomic uint64_t last_error_offset;
    /* head when DISK_LOGGING was last turned on: records before it are void. */
    _Atomic uint64_t logged_from;
    /* DISK_HELD: records before it are in the image. */
    _Atomic uint64_t flushed;
    /* Figures. */
    _Atomic uint64_t reads, read_bytes, writes, write_bytes, waits, wait_us;
};
_Static_assert(sizeof(struct disk_shm) <= DISK_SHM_RING_OFFSET, "the ring begins behind it");

#endif
