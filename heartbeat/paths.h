/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sends and receives heartbeats by UDP: one datagram per interval and path. The observer is called for every
 * valid datagram that comes.
 *
 * Paths are networks that join the hosts: the network of the peer's own address (path 0), and those that the
 * user named. A peer that is heard by any path lives, so a network that fails is not mistaken for a host that
 * died. The kernel chooses path 0's port; the other paths use the same port at their own addresses.
 *
 * The sockets have a higher priority (PATHS_PRIORITY) in the main loop than any timer that declares the peer
 * silent may have (G_PRIORITY_HIGH). So after this process itself did not run for a while, the packets that
 * waited in the sockets are read before the peer can count as silent. paths_look reads them on demand.
 *
 * All functions and callbacks belong to the thread that runs GLib's default main context.
 */
#ifndef UNDERSTUDY_HEARTBEAT_PATHS_H
#define UNDERSTUDY_HEARTBEAT_PATHS_H

#include <gio/gio.h>
#include <stdbool.h>
#include <stdint.h>

#include "heartbeat/packet.h"

/* Priority of the sockets in the main loop. */
#define PATHS_PRIORITY (G_PRIORITY_HIGH - 50)

struct paths;

/* Another network that joins the hosts: the numeric addresses of this host and of the other one. */
struct heartbeat_path {
    char *here, *there;
};

struct paths_config {
    const char *listen_address;          /* of path 0. NULL: all addresses */
    const struct heartbeat_path *others; /* paths 1 and up; the caller's, must outlive the paths */
    unsigned nothers;                    /* at most HEARTBEAT_PATHS_MAX */
    uint8_t token[HEARTBEAT_TOKEN_LEN];  /* of packets without a tag */
    bool tagged;
    uint8_t secret[SEAL_SECRET_LEN]; /* the VM's, for the tags; wiped in the copy once the keys are made */
    unsigned host;                   /* this side's, of the two (term_host) */
    unsigned interval_ms;
};

/* None of these may call paths_free. */
struct paths_observer {
    /*
     * Called for a valid heartbeat; by_link: it came by path 0's network. Only its token or tag has been
     * checked, and that it is no replay. If a newer heartbeat has overtaken it, what it says may be out of
     * date: then standing, query, answer and deaf are zero.
     */
    void (*heard)(void *opaque, const struct heartbeat *beat, bool by_link);
    /* Called when this process did not run for stalled_ms, until now. What came meanwhile was passed to
     * `heard` before, if paths_look or the main loop noticed the stall. */
    void (*stalled)(void *opaque, uint64_t stalled_ms);
    /* Fills in what this side says of itself now: all fields but token and sequence, which are set already.
     */
    void (*say)(void *opaque, struct heartbeat *beat);
    void *opaque;
};

/* Opens the sockets and starts the timer. Copies config and observer. Returns NULL and sets error if a socket
 * could not be opened. */
struct paths *paths_new(const struct paths_config *config, const struct paths_observer *observer,
                        GError **error);
/* Closes the sockets and frees the paths. NULL is allowed. */
void paths_free(struct paths *paths);

/* Returns the UDP port of all sockets of this side. */
uint16_t paths_port(const struct paths *paths);
/* Sets the peer to which heartbeats are sent: host (a numeric address) for path 0, the configured addresses
 * for the other paths, port for all. Forgets the sequence numbers of the peer before. */
void paths_set_peer(struct paths *paths, const char *host, uint16_t port);
/* Takes and sends nothing from here on, until the next paths_set_peer. */
void paths_drop_peer(struct paths *paths);
/* Sets another secret for the tags, and forgets the peer's sequence numbers. Nothing if packets have no tag.
 */
void paths_set_secret(struct paths *paths, const uint8_t secret[SEAL_SECRET_LEN]);
/* Sets which of the two hosts this side is (term_host). The observer may call it in say. */
void paths_set_host(struct paths *paths, unsigned host);
/* Sends a heartbeat by every path now, because it carries a query, an answer or a new term. bytes gets a copy
 * of the packet, which the caller can send by the link; NULL: no copy is wanted. */
void paths_send_now(struct paths *paths, uint8_t bytes[HEARTBEAT_LEN]);
/* Takes a heartbeat that came by the link instead of a socket. The bytes are untrusted. */
void paths_take(struct paths *paths, const uint8_t *bytes, size_t len);
/* Reads what waits in the sockets and notices a stall of this process. Call it before the peer is declared
 * silent. */
void paths_look(struct paths *paths);

/* ---- status ---- */
/* Returns the number of paths; 0 for NULL. */
unsigned paths_count(const struct paths *paths);
/* Returns for how long, in ms, nothing has come by path i since the last packet, or since it was opened. */
uint64_t paths_silent_ms(const struct paths *paths, unsigned i);
/* Returns the errno of the last packet that was sent by path i, 0 if it was sent; *total: packets that could
 * not be sent. */
int paths_send_error(const struct paths *paths, unsigned i, uint64_t *total);

#endif
