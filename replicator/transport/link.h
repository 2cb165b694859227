/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The link thread: makes the connection to the peer's replicator (a primary dials, a secondary accepts),
 * exchanges HELLO, and then receives until the connection ends. What happens is posted to the control thread:
 * LINK_UP, LINK_REFUSED, MESSAGE, EPOCH_RECEIVED, LINK_DOWN, each with the connection's id.
 */
#ifndef UNDERSTUDY_REPLICATOR_LINK_H
#define UNDERSTUDY_REPLICATOR_LINK_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "checkpoint/staging.h"
#include "common/mailbox.h"
#include "proto/epoch_wire.h"
#include "replicator/transport/endpoint.h"
#include "replicator/transport/introduction.h"

struct link;

#define LINK_MAX_ENDPOINTS 2u
/* Time limit of a new connection's HELLO, in each direction. */
#define LINK_HELLO_MS 2000u
/* Most connections without HELLO; when one more comes, the oldest is closed. */
#define LINK_MAX_PENDING 8u
/*
 * endpoints: in the order in which they are to be tried; they must outlive the link and all its connections.
 * NULL and error: there is no descriptor or no thread left.
 */
struct link *link_new(struct mailbox *control, struct staging *staging, struct endpoint *const *endpoints,
                      unsigned nendpoints, GError **error);
/* Ends the thread and drops any connection. */
void link_free(struct link *link);
/*
 * Sets the peer's address for dialling. Control thread. An attempt at another address is given up, also one
 * that waits for HELLO; a connection that is up stays.
 */
void link_set_peer(struct link *link, const char *host, const char *port);
/*
 * Sets how connections are protected, before the first link_open; copied. An attempt with another secret is
 * given up where this side dials; a connection that is up stays. Without it links are not sealed. Control
 * thread.
 */
void link_set_security(struct link *link, const struct link_security *security);
/*
 * Starts trying for one connection, introduced by hello (copied). Keeps trying until it is up or link_close.
 * After LINK_DOWN nothing more is tried until the next link_open. Control thread.
 */
void link_open(struct link *link, const struct wire_hello *hello);
/*
 * Stops trying. now: also shuts the present connection down at once, with all that waits to be sent;
 * otherwise the sender does it when all is sent (sender_post_close). Control thread.
 */
void link_close(struct link *link, bool now);

#endif
