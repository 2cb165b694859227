/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The primary's side of the disks' first synchronisation. Under protection it also clears bits of the
 * dirty-block maps, so that a later synchronisation is short.
 *
 * If the two hosts' maps are of one pair, only chunks that are set in one of them may differ. Otherwise all
 * chunks may, and both maps get a new pair id. In each pass the plugins swap the bitmaps with no write under
 * way; the chunks of the frozen bitmap are sent while the guest's writes mark the other one. If many chunks
 * may differ, the first pass asks for the standby's hashes, and chunks that match are done. The rest is sent
 * in batches. A chunk's bit is cleared when the standby says that the batch is in its image. So after a
 * broken link, the set bits are exactly the missing chunks. When little is left, the bitmaps are swapped and
 * logging begins at the same moment. Once that last pass is confirmed, the standby lacks only what the log
 * has.
 *
 * Under protection the bitmaps are swapped about once a second. When the standby has applied an epoch that
 * was cut after the swap, the frozen bitmap is cleared.
 *
 * All functions are the capture thread's, except those marked as the control thread's.
 */
#ifndef UNDERSTUDY_REPLICATOR_DISK_SYNC_H
#define UNDERSTUDY_REPLICATOR_DISK_SYNC_H

#include <stdint.h>

#include "replicator/disk/disks.h"
#include "replicator/transport/connection.h"
#include "replicator/transport/sender.h"
#include "replicator/transport/transport.h"

struct disk_sync;

enum disk_sync_progress {
    DISK_SYNC_WORKED,  /* if *batch is set, send it; then call again */
    DISK_SYNC_WAITING, /* waits for the peer, the plugins or room; wake is called then */
    DISK_SYNC_READY,   /* little is left: call disk_sync_finish when memory is nearly done too */
    DISK_SYNC_DONE,    /* the standby lacks only what the log has */
};

/* Makes a synchronisation. disks may be NULL: then it is always done. wake wakes the capture thread; it is
 * called on any thread. NULL: there is no memory. */
struct disk_sync *disk_sync_new(struct disks *disks, struct staging *staging, void (*wake)(void *opaque),
                                void *opaque);
void disk_sync_free(struct disk_sync *sync);

/*
 * Begins a synchronisation over a new connection. The plugins must have the order not to log. resync: the
 * standby was protected until a moment ago, so the chunks in the maps really differ and are sent without
 * comparing them.
 */
void disk_sync_begin(struct disk_sync *sync, struct sender *sender, struct connection *connection,
                     uint64_t term, bool resync);
/* Ends the synchronisation and releases the connection. */
void disk_sync_end(struct disk_sync *sync);
/* Makes one step. number: the number of a batch that is made now. *status: -errno if the image cannot be
 * read; then the step returns DISK_SYNC_WAITING. */
enum disk_sync_progress disk_sync_step(struct disk_sync *sync, uint64_t number, struct staged_epoch **batch,
                                       int *status);
/* Begins the last pass, after DISK_SYNC_READY. Steps follow until DISK_SYNC_DONE. */
void disk_sync_finish(struct disk_sync *sync);
/* Does the work under protection, between two epochs. next: the number of the epoch that is cut next. */
void disk_sync_between_epochs(struct disk_sync *sync, uint64_t next);

/* Forgets what the standby of an older link said. To be called for a new link, before disk_sync_begin.
 * Control thread. */
void disk_sync_connected(struct disk_sync *sync);
/* Takes a message of the standby: MESSAGE_DISK_* or MESSAGE_APPLIED. False: it is invalid. Control thread. */
bool disk_sync_message(struct disk_sync *sync, const struct transport_message *message);

#endif
