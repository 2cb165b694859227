/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The standby's side of the disks' first synchronisation. It sends the standby's dirty-block maps, and hashes
 * the chunks that the primary asks for. A separate thread computes the hashes, since that may read the whole
 * image. All functions are the control thread's.
 */
#ifndef UNDERSTUDY_REPLICATOR_DISK_ANSWER_H
#define UNDERSTUDY_REPLICATOR_DISK_ANSWER_H

#include "replicator/disk/disks.h"
#include "replicator/pipeline/applier.h"
#include "replicator/transport/connection.h"
#include "replicator/transport/sender.h"

struct disk_answer;

/* Starts the hashing thread. disks may be NULL: then nothing is ever sent. NULL and error: there is no thread
 * left. */
struct disk_answer *disk_answer_new(struct disks *disks, struct sender *sender, struct applier *applier,
                                    GError **error);
/* Waits for the hash that is being computed, ends the thread and frees the answer. */
void disk_answer_free(struct disk_answer *answer);
/* Sends all maps to a primary that has connected. */
void disk_answer_connected(struct disk_answer *answer, struct connection *connection, uint64_t term);
/* Takes a MESSAGE_DISK_PAIR, MESSAGE_DISK_HASH_REQUEST or MESSAGE_DISK_FLUSHED. False: it is invalid. */
bool disk_answer_message(struct disk_answer *answer, struct connection *connection,
                         const struct transport_message *message);

#endif
