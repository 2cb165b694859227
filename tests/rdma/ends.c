/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See ends.h. */
#include "tests/rdma/ends.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *listen_address(void)
{
    return getenv("UNDERSTUDY_RDMA_LISTEN");
}

const char *dial_address(void)
{
    const char *address = getenv("UNDERSTUDY_RDMA_DIAL");
    return address ? address : listen_address();
}

uint16_t new_port(void)
{
    static uint16_t next;
    /* Two programs that follow each other do not meet in a port that still closes. */
    if (!next)
        next = (uint16_t)(17000 + getpid() % 100 * 100);
    return next++;
}

struct endpoint *make_endpoint(struct staging *staging, unsigned stall_ms, const char *address, uint16_t port,
                               uint8_t token)
{
    GError *error = NULL;
    struct endpoint_rdma_config config = {
        .staging = staging, .stall_ms = stall_ms, .listen_address = address, .listen_port = port};
    memset(config.token, token, sizeof config.token);
    struct endpoint *endpoint = endpoint_rdma_new(&config, &error);
    if (!endpoint)
        fail_msg("%s", error->message);
    return endpoint;
}

void *accept_one(void *opaque)
{
    struct accepting *accepting = opaque;
    struct pollfd pfd = {.fd = accepting->endpoint->ops->listen_fd(accepting->endpoint), .events = POLLIN};
    do
        accepting->status = poll(&pfd, 1, PATIENT_MS) > 0
                                ? accepting->endpoint->ops->accept(accepting->endpoint, &accepting->transport)
                                : -ETIMEDOUT;
    while (accepting->status == -EAGAIN);
    return NULL;
}

bool wire(const char *what)
{
    const char *command = getenv("UNDERSTUDY_RDMA_LINK");
    char line[512];
    if (!command)
        return false;
    snprintf(line, sizeof line, "%s %s", command, what);
    return system(line) == 0;
}
