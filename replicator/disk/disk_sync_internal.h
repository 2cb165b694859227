/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * struct disk_sync, for its own files only:
 *
 *   disk_sync.c       the states
 *   disk_sync_pass.c  one pass: windows, hashes, batches
 *   disk_sync_peer.c  the standby's messages (control thread)
 *
 * The mutex guards what the control thread writes; it is never held for long.
 */
#ifndef UNDERSTUDY_REPLICATOR_DISK_SYNC_INTERNAL_H
#define UNDERSTUDY_REPLICATOR_DISK_SYNC_INTERNAL_H

#include "proto/disk_wire.h"
#include "replicator/disk/disk_sync.h"

#define WINDOW_CHUNKS   WIRE_MAX_HASHES
#define WINDOWS         2u
#define BATCH_CHUNKS    64u
#define MAX_OUTSTANDING 16u
#define RECORD_LEN      (DISK_RECORD_HEADER_LEN + DISK_CHUNK_LEN)

enum state { WAIT_STATE, SWAPPING, PASS, CONFIRMING, READY, DONE };
/* Under protection: the state of the bitmap that was swapped last, until it is cleared. */
enum steady { STEADY_REST, STEADY_SWAPPING, STEADY_COVERED };

struct window {
    unsigned disk;
    uint64_t first, cursor;
    uint32_t n;
    bool compare, arrived;
    uint8_t *hashes; /* the standby's; n of them */
};

struct sent_batch {
    uint64_t number;
    unsigned disk;
    uint32_t n;
    uint64_t chunks[BATCH_CHUNKS];
};

struct disk_sync {
    struct disks *disks;
    struct staging *staging;
    void (*wake)(void *opaque);
    void *wake_opaque;

    /* Capture thread. */
    struct sender *sender;
    struct connection *connection;
    uint64_t term;
    enum state state;
    bool last_pass, goes_nowhere; /* goes_nowhere: the guest writes as much as a pass sends */
    unsigned passes;
    uint64_t pass_chunks, pass_done; /* of this pass: chunks to do, and those that the standby has */
    uint32_t unlike;                 /* bit d: chunks that are set in disk d's maps really differ */
    bool compare[DISK_MAX];
    unsigned ask_disk; /* where the next window begins */
    uint64_t ask_chunk;
    unsigned nwindows;
    struct sent_batch outstanding[MAX_OUTSTANDING];
    uint64_t first_batch, next_batch; /* counts */
    uint8_t *buffer;                  /* of one batch */
    enum steady steady;
    gint64 swapped_us;
    uint64_t covering_epoch;

    GMutex mutex;
    /* Guarded. */
    struct window windows[WINDOWS];
    struct wire_disk_state theirs[DISK_MAX];
    uint32_t heard_of; /* bit d: disk d's state came */
    /* Bits of the standby's maps, until the capture thread has merged them into this host's maps, which may
     * wait for storage. The control thread adds to fresh_bits. taken_bits is the capture thread's, without
     * the mutex. */
    uint64_t *fresh_bits[DISK_MAX], *taken_bits[DISK_MAX];

    _Atomic uint64_t confirmed_batch, confirmed_epoch; /* control thread writes */
};

/* Words of a disk's bitmap that have bits of chunks. */
static inline size_t disk_sync_words(const struct disk_sync *sync, unsigned disk)
{
    return (size_t)((disk_map_nchunks(disks_map(sync->disks, disk)) + 63) / 64);
}

/* Returns the next chunk of [from, end) that is set in the frozen bitmap; end if there is none. */
uint64_t disk_sync_next_chunk(const struct disk_sync *sync, unsigned disk, uint64_t from, uint64_t end);
void disk_sync_clear_chunk(const struct disk_sync *sync, unsigned disk, uint64_t chunk);
void disk_sync_send(const struct disk_sync *sync, enum message_type type, unsigned disk, uint64_t number,
                    const void *payload, size_t len);

/*
 * Limits the log in the last pass, in which nothing is taken out of it: the guest may fill the same share of
 * the log as the pass has done of its chunks.
 */
void disk_sync_limit_log(const struct disk_sync *sync);
void disk_sync_begin_pass(struct disk_sync *sync);
/* Makes one step of a pass. False: nothing can be done now, or *status is the failure. *over: everything is
 * sent. */
bool disk_sync_do_pass(struct disk_sync *sync, uint64_t number, struct staged_epoch **batch, bool *over,
                       int *status);
/* Takes the standby's confirmations and clears the bits of the chunks that its images have. */
void disk_sync_take_confirmations(struct disk_sync *sync);

#endif
