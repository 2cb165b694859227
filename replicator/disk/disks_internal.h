/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * struct disks, for its own files only:
 *
 *   disk_set.c       the members of the set, the images' locks and sync, why a write failed
 *   disk_server.c    nbdkit: start, restart, its reports
 *   disks.c          open and close; calls all the others
 *   disks_mode.c     orders, and making everything durable
 *   disks_epoch.c    primary: boundary and collecting
 *   disks_standby.c  standby: journal, images, the marker of a synchronisation
 */
#ifndef UNDERSTUDY_REPLICATOR_DISKS_INTERNAL_H
#define UNDERSTUDY_REPLICATOR_DISKS_INTERNAL_H

#include "checkpoint/disk/disk_journal.h"
#include "common/child_process.h"
#include "replicator/disk/disk_log.h"
#include "replicator/disk/disks.h"

/* More than epochs can be in flight. */
#define DISKS_EPOCHS 64u

struct disk {
    struct disks *disks;
    unsigned number;
    char *id;
    bool shared;
    struct disk_image *image;
    struct disk_map *map;

    int shm_fd, attention_fd, listen_fd;
    char *socket_path;
    struct disk_shm *shm;
    uint8_t *ring;
    uint64_t ring_len;

    /* Control thread. */
    struct child_process *nbdkit;
    guint attention_watch, restart;
    gint64 started_us;
    unsigned quick_ends; /* in a row */
    char *fault;         /* what status says is wrong, or NULL */
    bool fault_passes;   /* the fault can end by itself: it is cleared some time after its last report */
    guint fault_timer;

    /* Guarded by disks->mutex: the last order. */
    uint32_t wanted_flags, wanted_map, wanted_seq;

    uint64_t unsynced; /* applier thread: bytes written since writing out was last begun */

    /* Capture thread. */
    uint64_t cut;   /* head at the last boundary */
    uint64_t taken; /* position up to which records are collected; tail follows in steps */
    bool cut_detached;
    unsigned epochs_kept; /* since tail was moved */
    /* Shared: where each epoch ended, by its number. Capture thread writes, control reads what was acked. */
    _Atomic uint64_t ends[DISKS_EPOCHS];

    /* Shared; control thread. */
    uint64_t released_epoch, flushed_epoch;

    _Atomic bool server_runs;                     /* control thread writes */
    _Atomic uint64_t candidate_bytes, sent_bytes; /* capture thread writes; of the last synchronisation */
};

struct disks {
    struct disks_config config; /* strings are owned */
    struct disk disk[DISK_MAX];
    uint64_t len[DISK_MAX]; /* exported bytes */
    uint64_t log_limit;     /* capture thread: the last limit that was not 0 */
    unsigned n;
    struct disk_journal *journal;
    GQueue held;         /* applier thread: struct held_epoch*, withheld from shared images */
    size_t held_bytes;   /* applier thread: of them all */
    GThreadPool *syncer; /* one thread, since a sync may take long */
    GMutex mutex;
    GCond synced;
    char *failure;       /* guarded */
    uint64_t syncs_done; /* guarded */
    int sync_status;     /* guarded; of the last one */
    /*
     * An epoch has been applied only partially, so the journal must keep it. Written by the thread that
     * applies, read by closing.
     */
    _Atomic bool torn;
    bool closing;
    /* Control thread: a server has carried an order out, or has ended. */
    void (*on_server_changed)(struct disks *disks);

    /* make_durable: control thread. */
    bool making_durable;
    uint64_t syncs_begun, syncs_heard_of; /* counts */
    uint64_t durable_request, synced_request;
    disks_done done;
    void *done_opaque;
};

/* ---- disk_set.c: any thread ---- */

/* Returns the path of a file in the state folder (g_free). */
char *disks_state_path(const struct disks *disks, const char *name);
/* Sets the sentence that disks_failure returns. */
void disks_keep_failure(struct disks *disks, const char *why);
/* Sets that sentence from a failed operation (`doing`) on the disk's image. */
void disks_keep_image_failure(const struct disk *disk, const char *doing, int status);
/* Sets that sentence from a file (`name`) of the state folder that could not be written. */
void disks_keep_file_failure(struct disks *disks, const char *what, const char *name, int status);

/* Sets error from what was done, its object and -errno. Always returns false. */
bool disks_open_failed(GError **error, int status, const char *what, const char *name);

/* ---- disk_server.c: control thread ---- */

/* Makes the socket that QEMU connects to, and the eventfd that nbdkit signals. False and error. */
bool disk_server_open(struct disk *disk, GError **error);
/* Starts nbdkit, and starts it again whenever it ends. False and error. */
bool disk_server_start(struct disk *disk, GError **error);
/* Ends nbdkit and closes the socket. Also for a server that was opened only partially. */
void disk_server_close(struct disk *disk);

/* ---- the others ---- */

/*
 * Notes that a server has carried out an order, or has ended. Once every server has, begins the sync that
 * disks_make_durable waits for. Control thread.
 */
void disks_mode_server_changed(struct disks *disks);
/* Starts the thread that syncs. False and error if no thread can be made. Closing waits until its sync is
 * done. */
bool disks_mode_open(struct disks *disks, GError **error);
void disks_mode_close(struct disks *disks);
/* Replays the journal and empties it, before anything else uses the images. False and error. */
bool disks_standby_open(struct disks *disks, GError **error);

#endif
