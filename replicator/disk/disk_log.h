/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The shared memory between nbdkit's plugin, which serves a disk to QEMU, and the replicator. The replicator
 * makes and seals one memfd per disk: struct disk_shm, then from DISK_SHM_RING_OFFSET on the log ring.
 *
 * While DISK_LOGGING is set, each change goes to the ring as a record (checkpoint/disk/disk_record.h) before
 * it completes. After QEMU has paused the guest no request is under way, so head, read in the pause, is
 * exactly where the epoch ends. Once the guest runs again, the replicator copies the records before that
 * position and moves tail.
 *
 * While epochs are cut, writers wait (on room_seq) as soon as the ring holds limit bytes. So a guest that
 * writes faster than the standby can take is slowed down, and its network output is not held for long. A
 * pause waits for the writes under way, so limit is lifted just before the pause: these writes may use the
 * rest of the ring.
 *
 * If the ring is full, writers wait until the replicator has made room. In a pause an endless wait would hold
 * the guest. So after DISK_ROOM_WAIT_MS, or at once for a record that could never fit, the plugin gives up
 * logging: it sets detached before that write completes. An epoch whose boundary sees detached is never sent.
 * The dirty-block map still has what was written, and a new synchronisation follows.
 *
 * tail moves only to a head that was read with no write under way (in a pause). So every record whose change
 * a killed nbdkit may not have made in the image is in [tail, head). The nbdkit that is started next writes
 * these records to the image again before it serves. Then the image is equal to the log, whether or not QEMU
 * repeats its requests. For the same reason, after a write that the image refuses (EIO, ENOSPC), the plugin
 * appends a record of what the image then has there.
 *
 * Modes change only with no write under way. The replicator fills wanted_* and then raises wanted_seq (futex
 * wake). A thread of the plugin locks the whole disk (each write locks its own range), stores flags and
 * active_map, then done_seq, and signals the eventfd `attention`. A plugin that starts does the same before
 * it serves anything, so an order survives nbdkit. There is one order at a time: the next one is filled in
 * once done_seq has reached wanted_seq. An order raises room_seq too, so that a writer that waits at the
 * limit, or for room in a log that is to end, does not delay the order. In a pause no write is under way
 * either, so there the replicator may store active_map itself.
 *
 * Trust: the replicator checks everything that nbdkit writes here: positions against its own tail and the
 * ring's length; records are decoded strictly.
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
 * With DISK_HELD, a change cannot be written to the image without the log. So after this time the write fails
 * with ENOSPC, and QEMU stops the guest. Together with the wait at the limit before it, this is less than the
 * time after which a guest gives a disk up (30 s, SCSI and ATA in Linux).
 */
#define DISK_HELD_WAIT_MS 10000
/* Descriptors that nbdkit inherits; the plugin's parameters name them: shm=, image=, map=, attention=. */

enum disk_shm_flags {
    DISK_WRITABLE = 1u << 0, /* the guest runs here; otherwise writes are refused (EPERM) */
    DISK_LOGGING = 1u << 1,  /* changes go to the ring */
    DISK_DURABLE = 1u << 2,  /* a change is on stable storage before it completes */
    /*
     * Shared disk: changes go only to the ring, and to the image once the replicator releases them. While
     * this flag is set, the ring's room ends at flushed as well as at tail. An order that clears it and
     * leaves DISK_WRITABLE set first writes all held changes. After an order that clears DISK_WRITABLE,
     * nothing is written any more.
     */
    DISK_HELD = 1u << 3,
};

/* Why the plugin signalled. */
enum disk_attention {
    DISK_ATTENTION_MARK = 1u << 0,     /* the ring holds more than mark bytes: cut an epoch now */
    DISK_ATTENTION_DETACHED = 1u << 1, /* logging was given up */
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
    uint64_t mark;   /* above so many bytes in the ring, an epoch is cut at once */
    uint32_t shared; /* 1: may be ordered DISK_HELD */
    uint32_t reserved[5];

    /* Replicator -> plugin. */
    _Alignas(64) _Atomic uint64_t tail; /* bytes ever taken out of the ring */
    _Atomic uint32_t room_seq;          /* futex: raised when tail or an order moved, or limit was lifted */
    _Atomic uint32_t wanted_seq;        /* futex */
    _Atomic uint32_t wanted_flags, wanted_map;
    _Atomic uint32_t release_seq; /* futex: raised when release moved */
    _Atomic uint64_t release;     /* DISK_HELD: records before this position may go to the image */
    _Atomic uint64_t limit;       /* writers wait when the ring holds so many bytes; 0: no limit */

    /* Plugin -> replicator. */
    _Alignas(64) _Atomic uint64_t head; /* bytes ever put into the ring, in whole records */
    _Atomic uint32_t flags;             /* in force */
    _Atomic uint32_t active_map;        /* 0 or 1: the bitmap that writes mark */
    _Atomic uint32_t done_seq;
    /* Cleared by an order that turns DISK_LOGGING on, not by one that leaves it on. */
    _Atomic uint32_t detached;
    /* Read the eventfd first, then take the bits (exchange with 0). */
    _Atomic uint32_t attention;
    _Atomic uint32_t last_errno;
    _Atomic uint64_t last_error_offset;
    /* head when DISK_LOGGING was last turned on: records before it do not count. */
    _Atomic uint64_t logged_from;
    /* DISK_HELD: records before this position are in the image. */
    _Atomic uint64_t flushed;
    /* Figures. */
    _Atomic uint64_t reads, read_bytes, writes, write_bytes, waits, wait_us;
};
_Static_assert(sizeof(struct disk_shm) <= DISK_SHM_RING_OFFSET, "the ring begins behind it");

#endif
