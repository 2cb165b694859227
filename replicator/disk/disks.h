/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The writable disks of one VM on one host: image, dirty-block map, log ring and nbdkit of each.
 * docs/disks.md describes how disks work, replicator/disk/disk_log.h the shared memory.
 *
 *   open      replays the journal, opens and locks the images, maps the dirty-block maps, starts one nbdkit
 * per disk order     changes the mode of all disks (writable, logging, durable), or swaps the two bitmaps
 *   boundary  in the pause: marks the end of the epoch
 *   collect   after the pause: copies what was logged until then into the epoch's disk section
 *   apply     on the standby: writes an epoch to journal and images, or a batch directly to the images
 *
 * nbdkit may be killed at any time: it is started again, and QEMU reconnects and repeats the unanswered
 * requests. Orders that were given meanwhile hold for the new nbdkit.
 *
 * Threads: named at each function. "Control" is the thread of GLib's default context; "capture" and "applier"
 * are threads of the replicator.
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
    uint64_t export_len; /* length of the disk in bytes; 0: the image's own length */
    bool shared;
};

struct disks_config {
    const char *vm_name, *vm_dir, *state_dir, *plugin;
    const struct disk_config *list;
    unsigned n;
    int nice;     /* of nbdkit: see struct child_start */
    bool standby; /* the guest does not run here: writes through nbdkit are refused */
    /*
     * Called when something changed (an order was carried out, a ring filled). urgent: cut an epoch now.
     * Control thread, as all calls here.
     */
    void (*changed)(void *opaque, bool urgent);
    /* Called when the log has a gap: nothing may be sent until a new synchronisation. */
    void (*detached)(void *opaque, const char *why);
    /*
     * Called when more of a shared disk's held writes are in its image: call disks_newly_flushed for all
     * disks.
     */
    void (*flushed)(void *opaque);
    /* Called with a message for status, or with NULL to clear the previous one. */
    void (*fault_changed)(void *opaque, const char *message);
    void *opaque;
};

/* Opens the disks and starts their servers. Copies config's strings. NULL and a sentence. Control thread. */
struct disks *disks_open(const struct disks_config *config, GError **error);
/* Ends nbdkit, syncs the images, closes the maps cleanly, and frees all. QEMU must have ended. NULL is
 * allowed. Control thread. */
void disks_close(struct disks *disks);

/* The next five may be called by any thread. What they return stays the disks'. */
unsigned disks_count(const struct disks *disks); /* NULL: 0 */
const char *disks_id(const struct disks *disks, unsigned disk);
struct disk_image *disks_image(const struct disks *disks, unsigned disk);
struct disk_map *disks_map(const struct disks *disks, unsigned disk);
bool disks_is_shared(const struct disks *disks, unsigned disk);
/* Returns the most staging pages that an epoch's disk section may take. */
uint64_t disks_max_section_pages(unsigned ndisks);

/* ---- modes ---- */

/* Sets and clears flags (enum disk_shm_flags) of all disks; flip swaps the bitmaps. Any thread. */
void disks_order(struct disks *disks, uint32_t set, uint32_t clear, bool flip);
/* Returns whether every nbdkit has carried out the last order. NULL: true. Any thread. */
bool disks_order_done(const struct disks *disks);
/* Enters protection, when output begins to be held: writes may stay in the page cache, and a shared disk's
 * writes are held back. */
void disks_hold(struct disks *disks);
/*
 * Stops logging and makes writes durable again, because no more epochs are cut. A shared disk's held writes
 * stay held, since it is not decided yet whether they may go to the image.
 */
void disks_stop_logging(struct disks *disks);
/*
 * Writes everything to the images, also what was held back, and makes writes durable. Only if the guest runs
 * on no other host.
 */
void disks_write_through(struct disks *disks);
/* Returns whether any disk is shared. NULL: false. */
bool disks_any_shared(const struct disks *disks);
/*
 * Lets a shared disk's writes up to the epoch's end go to the image, because the peer holds the epoch.
 * Control thread.
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
 * Releases the locks of shared disks, after disks_give_up_writing.
 */
void disks_unlock_shared(struct disks *disks);
/* Takes these locks, before disks_order lets the guest write again. Returns 0 or -errno. */
int disks_lock_shared(struct disks *disks);

/* Returns the index of the bitmap that writes do not mark, once the order that swapped the two is done. */
unsigned disks_frozen(const struct disks *disks, unsigned disk);

typedef void (*disks_done)(void *opaque);
/*
 * Makes durable what was written, and makes later writes durable before they complete; then calls done.
 * Replaces an earlier call that is not done yet. Control thread.
 */
void disks_make_durable(struct disks *disks, disks_done done, void *opaque);
/* Calls fdatasync for all images, on the calling thread. Returns 0 or -errno. Any thread. */
int disks_sync(struct disks *disks);
/* Does the same on another thread, and waits for it for at most timeout_ms: then -ETIMEDOUT. Control thread.
 */
int disks_sync_within(struct disks *disks, unsigned timeout_ms);
/* Cancels a disks_make_durable under way: done is not called. */
void disks_cancel_durable(struct disks *disks);

/* ---- the path of an epoch: capture thread ---- */

/*
 * Returns whether a pause may begin: a shared disk's ring, which only acks empty, must have room for the
 * writes that the pause waits for.
 */
bool disks_may_pause(const struct disks *disks);
/*
 * Sets the limit of each disk's log in bytes, at which writers wait, while epochs are cut. 0 lifts the limit,
 * which is necessary before each pause, since a pause waits for writers; any thread may do that. disks NULL:
 * does nothing.
 */
void disks_limit_logs(struct disks *disks, uint64_t bytes);
/*
 * Marks the end of the epoch, in the pause, with the guest stopped and its requests drained, and sets the
 * last limit that was not 0 again. Only loads and stores of words.
 */
void disks_boundary(struct disks *disks, uint64_t epoch);
/* Drops the records that were logged and not collected. To be called while no plugin logs. */
void disks_drop_log(struct disks *disks);
typedef bool (*disks_wait_room)(void *opaque);
/*
 * Appends what was logged up to the boundary to the open epoch. Calls wait while staging has no room; wait
 * returns false to give up. Returns 0; -ECANCELED: wait gave up; -EIO: the log has a gap or is invalid, and
 * the epoch must not be sent.
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
/* Notes how many bytes may differ according to the maps, when the synchronisation begins. */
void disks_count_candidates(struct disks *disks, unsigned disk, uint64_t len);
/* Adds to the bytes that the synchronisation has sent. */
void disks_count_sent(struct disks *disks, unsigned disk, uint64_t len);

/* ---- status: control thread ---- */
struct disk_figures {
    const char *id, *path;
    uint64_t len, log_bytes, dirty_bytes; /* dirty_bytes: in which the hosts' images may differ */
    uint64_t candidate_bytes, sent_bytes; /* of the last synchronisation: set in the maps; sent */
    bool server_runs;
    const char *fault; /* or NULL */
};
/* Clears the fault of a full disk when the guest goes on, unless it is reported again. Control thread. */
void disks_guest_goes_on(struct disks *disks);
/* Fills out with one disk's figures; the strings stay the disks'. */
void disks_figures(const struct disks *disks, unsigned disk, struct disk_figures *out);

#endif
