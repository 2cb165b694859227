/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Signs of life by UDP: one datagram each interval and path. The observer is told of every good one that
 * comes.
 *
 * Paths are networks that join the hosts: the one of the peer's own address (path 0), and those that the user
 * named. A peer that is heard by any of them lives; so a network that fails is not taken for a host that
 * died. Path 0's port is the kernel's choice; the others have the same port at their own addresses.
 *
 * Reading has a higher priority (PATHS_PRIORITY) than any timer that judges the peer may have
 * (G_PRIORITY_HIGH): after this process itself was kept from running, the packets that waited in the sockets
 * are seen before anybody concludes that the peer is silent. paths_look does the same on demand.
 *
 * All functions and callbacks belong to the thread that runs GLib's default main context.
 */
#ifndef UNDERSTUDY_HEARTBEAT_PATHS_H
#define UNDERSTUDY_HEARTBEAT_PATHS_H

#include <gio/gio.h>
#include <stdbool.h>
#include <stdint.h>

#include "heartbeat/packet.h"

/* Of the sockets among the main loop's sources. */
#define PATHS_PRIORITY (G_PRIORITY_HIGH - 50)

struct paths;

/* Another network that joins the hosts: this one's address there and the other's, in digits. */
struct heartbeat_path {
    char *here, *there;
};

struct paths_config {
    const char *listen_address;          /* of path 0. NULL: every address */
    const struct heartbeat_path *others; /* paths 1 and up; stay the caller's, and outlive the paths */
    unsigned nothers;                    /* at most HEARTBEAT_PATHS_MAX */
    uint8_t token[HEARTBEAT_TOKEN_LEN];
    unsigned interval_ms;
};

/* None of these may call paths_free. */
struct paths_observer {
    /*
     * A good beat came; by_link: by path 0's network. Untrusted beyond its token. What a beat says that a
     * newer one has overtaken may not be so any more: standing, query, answer and deaf are zero then.
     */
    void (*heard)(void *opaque, const struct heartbeat *beat, bool by_link);
    /* This process did not run for so long, until now. What came meanwhile was heard before, if paths_look or
     * the main loop noticed it. */
    void (*stalled)(void *opaque, uint64_t stalled_ms);
    /* Fills in what this side says of itself now: all but token and sequence, which are set already. */
    void (*say)(void *opaque, struct heartbeat *beat);
    void *opaque;
};

/* Opens the sockets and begins to send. Copies config and observer. NULL and error: a socket could not be
 * opened. */
struct paths *paths_new(const struct paths_config *config, const struct paths_observer *observer,
                        GError **error);
/* NULL is none. */
void paths_free(struct paths *paths);

/* The port of all sockets here. */
uint16_t paths_port(const struct paths *paths);
/* Sends to this peer from now on: host in digits for path 0, the others' own addresses. A peer that is new
 * begins its sequence numbers anew. */
void paths_set_peer(struct paths *paths, const char *host, uint16_t port);
/* Sends a beat by every path now, because it asks, answers or tells a new term. bytes gets the packet, for
 * the caller to send by a way of its own; NULL: no copy is wanted. */
void paths_send_now(struct paths *paths, uint8_t bytes[HEARTBEAT_LEN]);
/* A beat that came by the link instead of a socket. Untrusted. */
void paths_take(struct paths *paths, const uint8_t *bytes, size_t len);
/* Reads what waits in the sockets and notices a stall of this process: before anybody counts as silent. */
void paths_look(struct paths *paths);

/* ---- status ---- */
unsigned paths_count(const struct paths *paths); /* NULL: 0 */
/* For how long nothing has come by path i; at first, since it was opened. */
uint64_t paths_silent_ms(const struct paths *paths, unsigned i);
/* The errno of the last packet that was sent by path i, 0 if it went out, and how many did not. */
int paths_send_error(const struct paths *paths, unsigned i, uint64_t *total);

#endif
