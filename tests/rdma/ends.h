/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Endpoints on a real RDMA device, for the tests of this folder. Addresses come from the environment: see
 * test_transport_rdma.c. */
#ifndef UNDERSTUDY_TESTS_RDMA_ENDS_H
#define UNDERSTUDY_TESTS_RDMA_ENDS_H

#include <stdbool.h>
#include <stdint.h>

#include "replicator/transport/endpoint.h"
#include "tests/transport/common.h"

/* NULL: no device was named. */
const char *listen_address(void);
const char *dial_address(void);
/* A port nobody of this process has used. */
uint16_t new_port(void);

/* Whether endpoints and transports that are made from now on are sealed. */
extern bool seal_ends;
/* address NULL: it dials only. token: every byte of it. Fails the test where it cannot be made. */
struct endpoint *make_endpoint(struct staging *staging, unsigned stall_ms, const char *address, uint16_t port,
                               uint8_t token);

/* Accepts one connection: on a thread of its own. */
struct accepting {
    struct endpoint *endpoint;
    struct transport *transport;
    int status;
};
void *accept_one(void *opaque);

/* What a pair is made of: its user is one of these. */
struct ends {
    struct endpoint *endpoint[2]; /* dials, listens */
    uint16_t port;
};

/* Connects both. The transports are the caller's, statuses the caller's to judge. */
int connect_ends(struct ends *ends, const char *address, uint16_t port, struct transport *made[2]);
void open_pair_at(struct transport_pair *made, unsigned stall_ms, uint32_t from_pages, uint32_t to_pages,
                  const char *listen, const char *dial);
void open_rdma_pair(struct transport_pair *made, unsigned stall_ms, uint32_t from_pages, uint32_t to_pages);
void close_rdma_pair(struct transport_pair *made);
extern const struct transport_pairs rdma_pairs;
/* An epoch goes over and an ack comes back. */
void exchange_one(struct transport_pair *made, uint64_t number);

/* Runs UNDERSTUDY_RDMA_LINK with this word ("down", "up", "loss", "clean", "gone a", "gone b", "back"). False
 * where it is not set, or fails. */
bool wire(const char *what);

#endif
