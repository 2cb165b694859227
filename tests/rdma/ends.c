/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See ends.h. */
#include "tests/rdma/ends.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
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

bool seal_ends;

struct endpoint *make_endpoint(struct staging *staging, unsigned stall_ms, const char *address, uint16_t port,
                               uint8_t token)
{
    GError *error = NULL;
    struct endpoint_rdma_config config = {
        .staging = staging, .stall_ms = stall_ms, .listen_address = address, .listen_port = port};
    memset(config.token, token, sizeof config.token);
    config.sealed = seal_ends;
    memset(config.secret, token, sizeof config.secret);
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

int connect_ends(struct ends *ends, const char *address, uint16_t port, struct transport *made[2])
{
    struct accepting accepting = {.endpoint = ends->endpoint[1]};
    char service[8];
    char *why = NULL;
    pthread_t thread;
    snprintf(service, sizeof service, "%u", port);
    assert_int_equal(pthread_create(&thread, NULL, accept_one, &accepting), 0);
    int status =
        ends->endpoint[0]->ops->dial(ends->endpoint[0], address, service, PATIENT_MS, &made[0], &why);
    pthread_join(thread, NULL);
    if (status < 0)
        print_message("dial: %s\n", why);
    free(why);
    made[1] = accepting.transport;
    if (status < 0 || accepting.status < 0)
        return status < 0 ? status : accepting.status;
    struct seal_keys keys[2];
    keys_of_ends(keys);
    for (unsigned i = 0; seal_ends && i < 2; i++)
        assert_int_equal(made[i]->ops->seal(made[i], &keys[i]), 0);
    return 0;
}

void open_pair_at(struct transport_pair *made, unsigned stall_ms, uint32_t from_pages, uint32_t to_pages,
                  const char *listen, const char *dial)
{
    struct ends *ends = calloc(1, sizeof *ends);
    assert_non_null(ends);
    uint16_t port = ends->port = new_port();
    made->user = ends;
    made->staging[0] = new_staging(from_pages);
    made->staging[1] = new_staging(to_pages);
    ends->endpoint[0] = make_endpoint(made->staging[0], stall_ms, NULL, 0, 7);
    ends->endpoint[1] = make_endpoint(made->staging[1], stall_ms, listen, port, 7);
    assert_int_equal(connect_ends(ends, dial, port, made->ends), 0);
}

void open_rdma_pair(struct transport_pair *made, unsigned stall_ms, uint32_t from_pages, uint32_t to_pages)
{
    open_pair_at(made, stall_ms, from_pages, to_pages, listen_address(), dial_address());
}

void close_rdma_pair(struct transport_pair *made)
{
    struct ends *ends = made->user;
    for (int i = 0; i < 2; i++) {
        if (made->ends[i])
            made->ends[i]->ops->free(made->ends[i]);
        endpoint_free(ends->endpoint[i]);
        staging_close(made->staging[i]);
    }
    free(ends);
}

const struct transport_pairs rdma_pairs = {.open = open_rdma_pair, .close = close_rdma_pair, .shutdowns = 20};

void exchange_one(struct transport_pair *made, uint64_t number)
{
    struct transport_received out;
    struct blocked acks = {.transport = made->ends[0]};
    struct blocked sending = {.transport = made->ends[0], .staging = made->staging[0]};
    struct transport_message ack = {.type = MESSAGE_ACK, .epoch = number};
    pthread_t listening, feeding;
    sending.epoch = stage(made->staging[0], number, CAPACITY);
    assert_int_equal(pthread_create(&listening, NULL, block, &acks), 0);
    assert_int_equal(pthread_create(&feeding, NULL, block, &sending), 0);
    assert_int_equal(made->ends[1]->ops->receive(made->ends[1], made->staging[1], &out), 0);
    assert_non_null(out.epoch);
    assert_int_equal(out.epoch->epoch, number);
    pthread_join(feeding, NULL);
    assert_int_equal(sending.status, 0);
    staging_free(made->staging[1], out.epoch);
    assert_int_equal(made->ends[1]->ops->send_message(made->ends[1], &ack), 0);
    pthread_join(listening, NULL);
    assert_int_equal(acks.status, 0);
    staging_free(made->staging[0], sending.epoch);
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
