/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The sender thread: everything that goes to the peer, in the order it was posted. A failed send shuts the
 * connection down; the link thread then reports it. Posting never blocks.
 */
#ifndef UNDERSTUDY_REPLICATOR_SENDER_H
#define UNDERSTUDY_REPLICATOR_SENDER_H

#include "checkpoint/staging.h"
#include "common/histogram.h"
#include "common/mailbox.h"
#include "replicator/transport/connection.h"

struct sender;

/* Called on the sender thread each time an epoch's staging pages were returned. */
typedef void (*sender_room)(void *opaque);

/* NULL and errno: there are no descriptors or no threads left. */
struct sender *sender_new(struct staging *staging, struct mailbox *control, struct histogram *epoch_bytes,
                          sender_room room, void *opaque);
/* Sends what was posted, then ends the thread. */
void sender_free(struct sender *sender);
/* Sends and then frees the staged epoch (also when the connection is dead or NULL). */
void sender_post_epoch(struct sender *sender, struct connection *connection, uint64_t term,
                       struct staged_epoch *epoch);
/*
 * Posts a message; copies the payload. When too much waits already, copies of frames are dropped, and for
 * anything else the connection is shut down.
 */
void sender_post_message(struct sender *sender, struct connection *connection,
                         const struct transport_message *message);
/* Shuts the connection down once everything posted before is sent. */
void sender_post_close(struct sender *sender, struct connection *connection);

#endif
