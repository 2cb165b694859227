/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * An endpoint makes transports: it dials a peer, or accepts one. There is one for TCP and, if the host has
 * a device, one for RDMA; both listen on the same port number. The link thread uses it. Its maker frees it,
 * after the link and before staging.
 */
#ifndef UNDERSTUDY_REPLICATOR_ENDPOINT_H
#define UNDERSTUDY_REPLICATOR_ENDPOINT_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "checkpoint/staging.h"
#include "proto/epoch_wire.h"
#include "proto/seal_keys.h"
#include "replicator/transport/transport.h"

struct endpoint;

struct endpoint_ops {
    const char *name; /* of its transports: "tcp", "rdma" */
    /*
     * Returns a descriptor that is readable when accept has something to do, or -1: it does not listen now.
     */
    int (*listen_fd)(struct endpoint *endpoint);
    /* Accepts a connection that the descriptor announced. 0 and *out, or -errno (-EAGAIN: none). Bounded. */
    int (*accept)(struct endpoint *endpoint, struct transport **out);
    /*
     * Sets another secret of the VM, for connections to come, where links are sealed. NULL: this endpoint
     * needs none. Any thread.
     */
    void (*set_secret)(struct endpoint *endpoint, const uint8_t secret[SEAL_SECRET_LEN]);
    /* Connects within timeout_ms. 0 and *out, or -errno and *why (a sentence, the caller's). */
    int (*dial)(struct endpoint *endpoint, const char *host, const char *port, unsigned timeout_ms,
                struct transport **out, char **why);
    void (*free)(struct endpoint *endpoint);
};

struct endpoint {
    const struct endpoint_ops *ops;
};

static inline void endpoint_free(struct endpoint *endpoint)
{
    if (endpoint)
        endpoint->ops->free(endpoint);
}

/* listen_fd: a listening socket, owned from here on, or -1. stall_ms: see transport_tcp_new. */
struct endpoint *endpoint_tcp_new(int listen_fd, unsigned stall_ms);

struct endpoint_rdma_config {
    struct staging *staging; /* it, or a ring like it, is registered for as long as the endpoint lives */
    uint8_t token[WIRE_TOKEN_LEN]; /* where links are not sealed */
    bool sealed;
    uint8_t secret[SEAL_SECRET_LEN]; /* the VM's, where they are; the caller wipes it */
    unsigned stall_ms;
    const char *listen_address; /* NULL: every address */
    uint16_t listen_port;       /* 0: dials only */
    const char *peer_host;      /* the device that reaches it is looked for, and checked, now. Or NULL */
};
/*
 * Makes an RDMA endpoint. NULL and error: a sentence that says what is missing or what limit to raise.
 * Blocks for up to two seconds where the peer's address has to be resolved.
 */
struct endpoint *endpoint_rdma_new(const struct endpoint_rdma_config *config, GError **error);
/*
 * Checks that this host has a device that reaches the peer (peer_host; or NULL: one with listen_address, or
 * any), and that it can take staging_len bytes. Before a guest is started. Blocks like endpoint_rdma_new.
 */
bool endpoint_rdma_check(const char *peer_host, const char *listen_address, size_t staging_len,
                         GError **error);

#endif
