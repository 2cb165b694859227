/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The replicator's end of the socket to its daemon: orders in, status out. When the daemon goes away the
 * replicator carries on, since protecting the VM does not need it; a later daemon may connect (adoption.h).
 * What the orders mean, and what status says, is the matter of a table of functions. Control thread.
 */
#ifndef UNDERSTUDY_REPLICATOR_CHANNEL_H
#define UNDERSTUDY_REPLICATOR_CHANNEL_H

#include <glib.h>
#include <stdbool.h>

#include "failover/session.h"
#include "proto/control.pb-c.h"

struct channel;

/* What the daemon says, checked for nothing but its form; what is pointed at stays the channel's. */
struct channel_orders {
    /* The first order. False: it cannot be followed; then no other one is passed on. */
    bool (*start)(void *opaque, const Understudy__Start *start);
    /* The channel cannot work: a sentence. */
    void (*failed)(void *opaque, const char *message);
    void (*peer_moved)(void *opaque, const Understudy__PeerMoved *moved);
    void (*drop_peer)(void *opaque, bool told);
    void (*failover)(void *opaque, bool force);
    void (*stop)(void *opaque);
    void (*power)(void *opaque, Understudy__PowerAction action);
    void (*reset_figures)(void *opaque);
    /* A status is wanted: call channel_status. */
    void (*report)(void *opaque);
    /* The daemon is gone. */
    void (*lost)(void *opaque);
};

/* Takes fd. orders outlives the channel. */
struct channel *channel_new(int fd, const struct channel_orders *orders, void *opaque);
void channel_free(struct channel *channel);
/* Status goes out soon; further calls until then change nothing. NULL is none. */
void channel_report_soon(struct channel *channel);
/* Sends this status, which stays the caller's. */
void channel_status(struct channel *channel, Understudy__Status *status);
/* The ports where this replicator listens; a later daemon is told them, too. */
void channel_listening(struct channel *channel, guint16 data_port, guint16 udp_port);
/* The last word. Waits, not for long, until it is out. */
void channel_ended(struct channel *channel, enum session_end_reason reason, const char *message);

#endif
