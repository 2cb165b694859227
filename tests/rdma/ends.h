/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Endpoints on a real RDMA device, for the tests of this folder. Addresses come from the environment: see
 * test_transport_rdma.c. */
#ifndef UNDERSTUDY_TESTS_RDMA_ENDS_H
#define UNDERSTUDY_TESTS_RDMA_ENDS_H

#include <stdint.h>

#include "replicator/endpoint.h"
#include "tests/transport/common.h"

/* NULL: no device was named. */
const char *listen_address(void);
const char *dial_address(void);
/* A port nobody of this process has used. */
uint16_t new_port(void);

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

/* Runs UNDERSTUDY_RDMA_LINK with this word ("down", "up", "loss", "clean", "gone", "back"). False where it is
 * not set, or fails. */
bool wire(const char *what);

#endif
