/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * First synchronisation of the disks: the standby's answers. It tells what its dirty-block maps say and
 * hashes the chunks that the primary asks for, on a thread of its own, since that reads the whole image.
 *
 * Control thread.
 */
#ifndef UNDERSTUDY_REPLICATOR_DISK_ANSWER_H
#define UNDERSTUDY_REPLICATOR_DISK_ANSWER_H

#include "replicator/disk/disks.h"
#include "replicator/pipeline/applier.h"
#include "replicator/transport/connection.h"
#include "replicator/transport/sender.h"

struct disk_answer;

/* disks may be NULL: then there is nothing to say. NULL and error: there is no thread left. */
struct disk_answer *disk_answer_new(struct disks *disks, struct sender *sender, struct applier *applier,
                                    GError **error);
/* Waits for the hash that is being computed. */
void disk_answer_free(struct disk_answer *answer);
/* A primary is there: tells it all maps. */
void disk_answer_connected(struct disk_answer *answer, struct connection *connection, uint64_t term);
/* MESSAGE_DISK_PAIR, MESSAGE_DISK_HASH_REQUEST, MESSAGE_DISK_FLUSHED. False: nonsense. */
bool disk_answer_message(struct disk_answer *answer, struct connection *connection,
                         const struct transport_message *message);

#endif
