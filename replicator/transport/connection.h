/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A transport that the receiving thread and the sending thread share. It is reference-counted; the last
 * reference frees the transport. The id distinguishes connections: what comes from an older one is dropped.
 */
#ifndef UNDERSTUDY_REPLICATOR_CONNECTION_H
#define UNDERSTUDY_REPLICATOR_CONNECTION_H

#include <glib.h>
#include <stdatomic.h>
#include <stdint.h>

#include "proto/epoch_wire.h"
#include "replicator/transport/transport.h"

struct connection {
    struct transport *transport;
    uint64_t id;
    enum seal_cipher cipher; /* that it is sealed with, or none; written before LINK_UP */
    struct wire_images said,
        heard; /* origins in the HELLOs of this side and of the peer; written before LINK_UP */
    _Atomic unsigned references;
};

/* Makes a connection with one reference; takes over the transport. */
static inline struct connection *connection_new(struct transport *transport, uint64_t id)
{
    struct connection *connection = g_new0(struct connection, 1);
    connection->transport = transport;
    connection->id = id;
    atomic_init(&connection->references, 1);
    return connection;
}

/* Takes another reference. Any thread. */
static inline struct connection *connection_get(struct connection *connection)
{
    atomic_fetch_add_explicit(&connection->references, 1, memory_order_relaxed);
    return connection;
}

/* Drops a reference. Any thread. NULL is allowed. */
static inline void connection_put(struct connection *connection)
{
    if (!connection || atomic_fetch_sub_explicit(&connection->references, 1, memory_order_acq_rel) != 1)
        return;
    connection->transport->ops->free(connection->transport);
    g_free(connection);
}

/* Ends both directions; the receiving thread reports that. Any thread. */
static inline void connection_shutdown(struct connection *connection)
{
    connection->transport->ops->shutdown(connection->transport);
}

#endif
