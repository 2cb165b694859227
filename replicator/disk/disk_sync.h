/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * First synchronisation of the disks, and keeping their dirty-block maps short afterwards: the primary's
 * side.
 *
 * What may differ is in the two hosts' maps, if they are of one pair; otherwise everything may, and a new
 * pair begins. Passes: the plugins swap bitmaps (no write under way at that moment), the frozen one is worked
 * off while the guest marks the other. Of many chunks the standby's hashes are asked for first, and those
 * that match are done. The rest goes out in batches; a chunk's bit is cleared when the standby says that the
 * batch is in its image. So what is left after a broken link is exactly what is still set. When little is
 * left, bitmaps are swapped and logging begins at the same moment: once that last pass is confirmed, the
 * standby lacks nothing but what the log has.
 *
 * Under protection the bitmaps are swapped about once a second; when the standby has applied an epoch that
 * was cut after that, the frozen one is cleared.
 *
 * Threads: the capture thread's, except where it says control.
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
    DISK_SYNC_WORKED,  /* *batch may be set: send it; call again */
    DISK_SYNC_WAITING, /* for the peer, the plugins or room; the thread is woken */
    DISK_SYNC_READY,   /* little is left: call disk_sync_finish when memory is nearly done too */
    DISK_SYNC_DONE,    /* only the log has more */
};

/* disks may be NULL: then it is always done. wake: the capture thread's, any thread may call it. NULL: no
 * memory. */
struct disk_sync *disk_sync_new(struct disks *disks, struct staging *staging, void (*wake)(void *opaque),
                                void *opaque);
void disk_sync_free(struct disk_sync *sync);

/*
 * A new connection. The plugins have the order not to log. resync: the standby was in step with this side
 * until a moment ago, so what its maps say does differ, and is sent without being compared.
 */
void disk_sync_begin(struct disk_sync *sync, struct sender *sender, struct connection *connection,
                     uint64_t term, bool resync);
/* The capture is over: lets go of the connection. */
void disk_sync_end(struct disk_sync *sync);
/* One step. number: for a batch made now. *status: -errno where the image cannot be read (the step then is
 * WAITING). */
enum disk_sync_progress disk_sync_step(struct disk_sync *sync, uint64_t number, struct staged_epoch **batch,
                                       int *status);
/* After READY: the last pass. Steps follow until DONE. */
void disk_sync_finish(struct disk_sync *sync);
/* Between two epochs: next is the number of the one to be cut next. */
void disk_sync_between_epochs(struct disk_sync *sync, uint64_t next);

/* A new link: what the standby of an older one said is forgotten. Before disk_sync_begin. Control thread. */
void disk_sync_connected(struct disk_sync *sync);
/* What the standby says: MESSAGE_DISK_*, MESSAGE_APPLIED. False: nonsense. Control thread. */
bool disk_sync_message(struct disk_sync *sync, const struct transport_message *message);

#endif
