/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The RDMA transport, over a reliable connection of rdma_cm. docs/rdma.md has the protocol.
 *
 * The secondary grants its whole staging ring; the primary writes an epoch's commit record, index, device
 * state and pages into the next free ring pages by RDMA WRITE, and the immediate of the last one commits.
 * Both sides count the pages and epochs in the ring: each message of the secondary says how many it has
 * returned.
 */
#ifndef UNDERSTUDY_REPLICATOR_TRANSPORT_RDMA_H
#define UNDERSTUDY_REPLICATOR_TRANSPORT_RDMA_H

#include <glib.h>
#include <rdma/rdma_cma.h>
#include <stdbool.h>

#include "checkpoint/staging.h"
#include "replicator/transport/transport.h"

/*
 * A device's protection domain with a ring registered in it: staging's, or where connections are sealed a
 * second one of the same length, so that the device, and through it the peer, never reaches staging
 * (sealed.h). Counted references; any thread. The anchor, an id bound to the device's address, keeps
 * librdmacm from closing the device.
 */
struct rdma_memory {
    struct rdma_cm_id *anchor;
    struct ibv_context *device;
    struct ibv_pd *pd;
    struct ibv_mr *ring_mr;
    uint8_t *ring;
    size_t ring_len;
    bool sealed; /* the ring is this memory's own */
    struct staging *staging;
    struct ibv_device_attr limits;
    bool removed;
    _Atomic unsigned references;
};

/*
 * Registers a ring for staging on the device that has this address. 0, or -errno with error set: a sentence
 * that says what limit to raise.
 */
int rdma_memory_new(const struct sockaddr *local, struct staging *staging, bool sealed,
                    struct rdma_memory **out, GError **error);
struct rdma_memory *rdma_memory_get(struct rdma_memory *memory);
void rdma_memory_put(struct rdma_memory *memory);
/*
 * Returns whether the device was removed: no request on it will succeed, and it waits to be released. The
 * thread that made the memory.
 */
bool rdma_memory_removed(struct rdma_memory *memory);

/*
 * Makes a transport on an id that is about to be connected or accepted: its queue pair, with receives
 * posted. The id must have an event channel of its own by the time the transport is used; both, and the
 * wait for ESTABLISHED, are the caller's until transport_rdma_up. Takes a reference of memory. NULL and
 * errno.
 */
struct transport *transport_rdma_new(struct rdma_memory *memory, struct rdma_cm_id *id, unsigned stall_ms);
/* Hands id and its event channel over to the transport, once it is connected. */
void transport_rdma_up(struct transport *t);
/* Counts the verbs objects of this process that are alive, for the test that nothing leaks. */
unsigned transport_rdma_objects(void);

#endif
