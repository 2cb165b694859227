/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The replicator's end of the socket to its daemon: orders in, status out. Control thread. */
#ifndef UNDERSTUDY_REPLICATOR_CHANNEL_H
#define UNDERSTUDY_REPLICATOR_CHANNEL_H

#include <glib.h>

#include "failover/session.h"

struct replicator;
struct channel;

struct channel *channel_new(struct replicator *r, int fd);
/* Another daemon takes over fd's other end and gives the orders from here on; it is told what runs here. */
void channel_attach(struct channel *channel, int fd);
void channel_free(struct channel *channel);
/* A status goes out soon; further calls until then change nothing. */
void channel_report_soon(struct channel *channel);
void channel_listening(struct channel *channel, guint16 data_port, guint16 udp_port);
/* The last word. Waits, not for long, until it is out. */
void channel_ended(struct channel *channel, enum session_end_reason reason, const char *message);

#endif
