/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The writable disks of one VM on one host: image, dirty-block map, log ring and nbdkit of each.
 * docs/disks.md has the whole story; replicator/disk/disk_log.h the shared memory.
 *
 *   open      replay the journal, open and lock images, map maps, start one nbdkit a disk
 *   order     another mode for all: writable, logging, durable; or the two bitmaps swapped
 *   boundary  in the pause: here the epoch ends
 *   collect   after it: what was logged until then, into the epoch's disk section
 *   apply     standby: an epoch's writes to journal and images; a batch's straight to the images
 *
 * nbdkit may die at any time: it is started again, QEMU connects again and repeats what was not answered.
 * Orders given meanwhile hold for the new one.
 *
 * Threads: named at each function. "Control" is GLib's default context; "capture" and "applier" are the
 * replicator's.
 */
#ifndef UNDERSTUDY_REPLICATOR_DISKS_H
#define UNDERSTUDY_REPLICATOR_DISKS_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "checkpoint/disk/disk_image.h"
#include "checkpoint/disk/disk_map.h"
#include "checkpoint/disk/disk_record.h"
#include "checkpoint/staging.h"

#define DISKS_RING_LEN (256u << 20) /* of one disk; address space, touched as used */

struct disks;

struct disk_config {
    char *id, *path;
    uint64_t export_len; /* 0: the image's own length */
    bool shared;
};

struct disks_config {
    const char *vm_name, *vm_dir, *state_dir, *plugin;
    const struct disk_config *list;
    unsigned n;
    int nice;     /* of nbdkit: see struct child_start */
    bool standby; /* the guest does not run here: writes through nbdkit are refused */
    /*
     * Control thread: something changed (an order was carried out, a ring filled): check it. urgent: cut an
     * epoch now.
     */
    void (*changed)(void *opaque, bool urgent);
    /* Control thread: the log has a gap. Nothing may be sent until a new synchronisation. */
    void (*detached)(void *opaque, const char *why);
    /*
     * Control thread: more of a shared disk's held writes are in its image. Call disks_newly_flushed for
     * all disks.
     */
    void (*flushed)(void *opaque);
    /* Control thread: a message for status, or NULL to clear the previous one. */
    void (*fault_changed)(void *opaque, const char *message);
    void *opaque;
};

/* NULL and a sentence. Control thread. */
struct disks *disks_open(const struct disks_config *config, GError **error);
/* Ends nbdkit, syncs, closes the maps cleanly. QEMU is gone. Control thread. NULL is none. */
void disks_close(struct disks *disks);

unsigned disks_count(const struct disks *disks); /* NULL: 0. Any thread. */
const char *disks_id(const struct disks *disks, unsigned disk);
struct disk_image *disks_image(const struct disks *disks, unsigned disk);
struct disk_map *disks_map(const struct disks *disks, unsigned disk);
bool disks_is_shared(const struct disks *disks, unsigned disk);
/* The most staging pages that an epoch's disk section may take. */
uint64_t disks_max_section_pages(unsigned ndisks);

/* ---- modes ---- */

/* Sets and clears flags (enum disk_shm_flags) of all disks; flip swaps the bitmaps. Any thread. */
void disks_order(struct disks *disks, uint32_t set, uint32_t clear, bool flip);
/* Whether every nbdkit has carried the last order out. NULL: true. Any thread. */
bool disks_order_done(const struct disks *disks);
/* Lets writes be in memory alone, and holds a shared disk's back: output is held from here on. */
void disks_hold(struct disks *disks);
/*
 * Stops logging and makes writes durable again: there are no more epochs. A shared disk's held writes stay
 * held: whether they may go to the image is not decided yet.
 */
void disks_stop_logging(struct disks *disks);
/*
 * Writes everything, also what was held back, and makes writes durable: the guest runs here and nowhere
 * else.
 */
void disks_write_through(struct disks *disks);
bool disks_any_shared(const struct disks *disks); /* NULL: false */
/*
 * Lets a shared disk's writes up to the epoch's end go to the image: the peer holds the epoch. Control
 * thread.
 */
void disks_release(struct disks *disks, uint64_t epoch);
/*
 * Returns the newest epoch whose writes are all in this shared disk's image, if it grew since the last
 * call; else 0. Control thread.
 */
uint64_t disks_newly_flushed(struct disks *disks, unsigned disk);
/*
 * Refuses all writes. Once the order is done, nothing is written any more, and the other host may have the
 * images.
 */
void disks_give_up_writing(struct disks *disks);
/*
 * Releases the locks of shared disks. After disks_give_up_writing. disks_lock_shared takes them before
 * disks_order lets the guest write again.
 */
void disks_unlock_shared(struct disks *disks);
int disks_lock_shared(struct disks *disks);

/* The bitmap that is not written to at present, once the order that swapped them is done. */
unsigned disks_frozen(const struct disks *disks, unsigned disk);

typedef void (*disks_done)(void *opaque);
/*
 * Makes everything that was written durable, and later writes before they complete; then calls done. An
 * earlier call that is not done yet is forgotten. Control thread.
 */
void disks_make_durable(struct disks *disks, disks_done done, void *opaque);
/* Calls fdatasync for all images, on this thread. 0 or -errno. Any thread. */
int disks_sync(struct disks *disks);
/* The same on a thread of its own, which is waited for no longer than that: -ETIMEDOUT. Control thread. */
int disks_sync_within(struct disks *disks, unsigned timeout_ms);
/* Forgets a make_durable under way. */
void disks_cancel_durable(struct disks *disks);

/* ---- the path of an epoch: capture thread ---- */

/*
 * Whether a pause may begin: a shared disk's ring, which only acks empty, must have room for the writes that
 * the pause waits for.
 */
bool disks_may_pause(const struct disks *disks);
/*
 * From how many bytes in a disk's log on writers wait: while epochs follow each other. 0: they do not: just
 * before each pause, which waits for them; any thread may say that. NULL: nothing.
 */
void disks_limit_logs(struct disks *disks, uint64_t bytes);
/*
 * Ends the epoch here, in the pause, guest stopped and requests drained, and sets the last limit but 0
 * again. Loads and stores of words only.
 */
void disks_boundary(struct disks *disks, uint64_t epoch);
/* Drops the records that were logged and not collected. While no plugin logs. */
void disks_drop_log(struct disks *disks);
typedef bool (*disks_wait_room)(void *opaque);
/*
 * Appends what was logged up to the boundary to the open epoch. wait is called while staging has no room, and
 * returns false to give up. 0; -ECANCELED; -EIO: the log is not whole (detached, or nonsense): the epoch must
 * not be sent.
 */
int disks_collect(struct disks *disks, struct staging *staging, struct staged_epoch *epoch,
                  disks_wait_room wait, void *opaque);

/* ---- standby: applier thread ---- */

/*
 * Checks that the disk section's records are well-formed and lie within the disks. 0 or -EPROTO. Any
 * thread.
 */
int disks_check(const struct disks *disks, const struct staging *staging, const struct staged_epoch *epoch);
/* Appends the epoch's writes to the journal; durable: on stable storage on return. Once for each epoch. */
int disks_journal(struct disks *disks, const struct staging *staging, const struct staged_epoch *epoch,
                  uint64_t term, bool durable);
/* Writes a journalled epoch, or a batch of the first synchronisation, to the images. */
int disks_apply(struct disks *disks, const struct staging *staging, const struct staged_epoch *epoch);
/* Drops the kept writes of a shared disk up to this epoch: its image has them all. */
void disks_flushed(struct disks *disks, unsigned disk, uint64_t epoch);
/* Drops all kept writes of shared disks: a new synchronisation begins. */
void disks_forget_held(struct disks *disks);
/* Marks the images as overwritten and at no whole epoch, until disks_whole. Survives a restart. */
int disks_begin_synchronisation(struct disks *disks);
/* Marks the images as whole again, and the maps' candidates as done. */
int disks_whole(struct disks *disks);
/*
 * Empties the journal before the guest runs here: its entries must never be replayed over the guest's
 * writes. sync: the images are made durable first, as an ack has promised. 0 or -errno.
 */
int disks_end_standby(struct disks *disks, bool sync);

/* Returns a sentence (g_free) that says why the last write to the images failed, or NULL. Any thread. */
char *disks_failure(struct disks *disks);

/* ---- what a synchronisation did: capture thread ---- */
/* It begins with so many bytes that the maps say may differ. */
void disks_count_candidates(struct disks *disks, unsigned disk, uint64_t len);
void disks_count_sent(struct disks *disks, unsigned disk, uint64_t len);

/* ---- status: control thread ---- */
struct disk_figures {
    const char *id, *path;
    uint64_t len, log_bytes, dirty_bytes; /* dirty: the hosts' images may differ in so much */
    uint64_t candidate_bytes, sent_bytes; /* of the last synchronisation: what the maps had, what was sent */
    bool server_runs;
    const char *fault; /* or NULL */
};
/* Clears the fault of a full disk when the guest goes on, unless it is reported again. Control thread. */
void disks_guest_goes_on(struct disks *disks);
void disks_figures(const struct disks *disks, unsigned disk, struct disk_figures *out);

#endif
