/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The RDMA transport over a real device (soft-RoCE in tests/rdma/vm.sh, or one that UNDERSTUDY_RDMA_DEV
 * names): what every transport must do, and what only this one can get wrong. From the environment:
 *
 *   UNDERSTUDY_RDMA_LISTEN   the address to listen on
 *   UNDERSTUDY_RDMA_DIAL     the address to dial (default: the same)
 *   UNDERSTUDY_RDMA_LISTEN6  an IPv6 address of the device, or nothing
 *   UNDERSTUDY_RDMA_LINK     a command that takes "down", "up", "loss", "clean", "gone" or "back": the wire
 * between the two, and the device of the one that listens; or nothing
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "proto/rdma_wire.h"
#include "replicator/endpoint.h"
#include "replicator/transport_rdma.h"
#include "tests/rdma/ends.h"
#include "tests/transport/common.h"

struct ends {
    struct endpoint *endpoint[2]; /* dials, listens */
    uint16_t port;
};

/* Both ends on addresses given; statuses are the caller's to judge. */
static int connect_ends(struct ends *ends, const char *address, uint16_t port, struct transport *made[2])
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
    return status < 0 ? status : accepting.status;
}

static void open_pair_at(struct transport_pair *made, unsigned stall_ms, uint32_t from_pages,
                         uint32_t to_pages, const char *listen, const char *dial)
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

static void open_rdma_pair(struct transport_pair *made, unsigned stall_ms, uint32_t from_pages,
                           uint32_t to_pages)
{
    open_pair_at(made, stall_ms, from_pages, to_pages, listen_address(), dial_address());
}

static void close_rdma_pair(struct transport_pair *made)
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

static const struct transport_pairs rdma_pairs = {
    .open = open_rdma_pair, .close = close_rdma_pair, .shutdowns = 20};

/* ---- connections ---- */

static void test_a_connection_without_the_token_is_refused(void **state)
{
    struct staging *staging[2] = {new_staging(CAPACITY), new_staging(CAPACITY)};
    uint16_t port = new_port();
    struct ends ends = {.endpoint = {make_endpoint(staging[0], PATIENT_MS, NULL, 0, 7),
                                     make_endpoint(staging[1], PATIENT_MS, listen_address(), port, 8)}};
    struct transport *made[2] = {NULL, NULL};
    (void)state;
    assert_int_equal(connect_ends(&ends, dial_address(), port, made), -ECONNREFUSED);
    assert_null(made[0]);
    assert_null(made[1]);
    for (int i = 0; i < 2; i++) {
        endpoint_free(ends.endpoint[i]);
        staging_close(staging[i]);
    }
}

static void exchange_one(struct transport_pair *made, uint64_t number)
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

static unsigned count_fds(void)
{
    unsigned n = 0;
    for (int fd = 0; fd < 1024; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

/* kB locked or pinned, as the kernel counts it. */
static unsigned long pinned_kb(void)
{
    char line[256];
    unsigned long kb = 0, locked = 0;
    FILE *file = fopen("/proc/self/status", "r");
    while (file && fgets(line, sizeof line, file)) {
        sscanf(line, "VmPin: %lu", &kb);
        sscanf(line, "VmLck: %lu", &locked);
    }
    if (file)
        fclose(file);
    return kb + locked;
}

static void test_a_hundred_reconnects_leave_nothing_behind(void **state)
{
    struct transport_pair made = {0};
    (void)state;
    uint16_t port = new_port();
    made.staging[0] = new_staging(CAPACITY);
    made.staging[1] = new_staging(CAPACITY);
    struct ends *ends = calloc(1, sizeof *ends);
    made.user = ends;
    ends->endpoint[0] = make_endpoint(made.staging[0], PATIENT_MS, NULL, 0, 7);
    ends->endpoint[1] = make_endpoint(made.staging[1], PATIENT_MS, listen_address(), port, 7);
    unsigned fds = 0, objects = 0;
    unsigned long pinned = 0;
    for (unsigned round = 0; round < 100; round++) {
        assert_int_equal(connect_ends(ends, dial_address(), port, made.ends), 0);
        exchange_one(&made, 1 + round % 3);
        for (int i = 0; i < 2; i++) {
            made.ends[i]->ops->free(made.ends[i]);
            made.ends[i] = NULL;
        }
        if (round == 0) { /* what is made once, on first use, is there now */
            fds = count_fds();
            objects = transport_rdma_objects();
            pinned = pinned_kb();
        }
    }
    assert_int_equal(count_fds(), fds);
    assert_int_equal(transport_rdma_objects(), objects);
    assert_int_equal(transport_rdma_objects(), 0);
    assert_int_equal(pinned_kb(), pinned);
    close_rdma_pair(&made);
}

static void test_ipv6(void **state)
{
    const char *address = getenv("UNDERSTUDY_RDMA_LISTEN6");
    struct transport_pair made = {0};
    (void)state;
    if (!address) {
        print_message("SKIPPED: UNDERSTUDY_RDMA_LISTEN6 names no IPv6 address\n");
        skip();
    }
    open_pair_at(&made, PATIENT_MS, CAPACITY, CAPACITY, address, address);
    exchange_one(&made, 1);
    close_rdma_pair(&made);
}

/* ---- epochs under way ---- */

static void test_two_epochs_and_more_are_under_way_at_once(void **state)
{
    struct transport_pair made = {0};
    struct staged_epoch *sent[3];
    struct transport_received out;
    struct blocked acks;
    pthread_t listening;
    (void)state;
    open_rdma_pair(&made, PATIENT_MS, 4 * CAPACITY, 4 * CAPACITY);
    acks = (struct blocked){.transport = made.ends[0]};
    assert_int_equal(pthread_create(&listening, NULL, block, &acks), 0);
    /* The grant comes with the first receive. */
    struct blocked first = {.transport = made.ends[1], .staging = made.staging[1]};
    pthread_t receiving;
    assert_int_equal(pthread_create(&receiving, NULL, block, &first), 0);
    for (unsigned i = 0; i < 3; i++) {
        sent[i] = stage(made.staging[0], i + 1, CAPACITY);
        assert_int_equal(made.ends[0]->ops->send_epoch(made.ends[0], TERM, made.staging[0], sent[i]), 0);
    }
    pthread_join(receiving, NULL); /* it has taken the first; nothing was given back or acked */
    for (unsigned i = 1; i < 3; i++) {
        assert_int_equal(made.ends[1]->ops->receive(made.ends[1], made.staging[1], &out), 0);
        assert_int_equal(out.epoch->epoch, i + 1);
        assert_same(made.staging[0], sent[i], made.staging[1], out.epoch);
    }
    made.ends[0]->ops->shutdown(made.ends[0]);
    pthread_join(listening, NULL);
    close_rdma_pair(&made);
}

static void test_a_ring_without_room_waits_and_goes_on_when_there_is_some(void **state)
{
    struct transport_pair made = {0};
    struct transport_received out;
    pthread_t listening, sending;
    (void)state;
    open_rdma_pair(&made, PATIENT_MS, 2 * LARGE, LARGE + 16);
    struct blocked acks = {.transport = made.ends[0]};
    assert_int_equal(pthread_create(&listening, NULL, block, &acks), 0);
    struct blocked send = {.transport = made.ends[0], .staging = made.staging[0]};
    send.epoch = stage_large(made.staging[0]);
    assert_int_equal(pthread_create(&sending, NULL, block, &send), 0);
    assert_int_equal(made.ends[1]->ops->receive(made.ends[1], made.staging[1], &out), 0);
    pthread_join(sending, NULL);
    struct staged_epoch *full = out.epoch;
    send.epoch = stage(made.staging[0], 2, CAPACITY);
    assert_true(send.epoch->npages > 20);
    assert_int_equal(pthread_create(&sending, NULL, block, &send), 0);
    usleep(50000); /* a sender that does not wait would be done; one that waits is not disturbed */
    struct transport_stats stats;
    made.ends[0]->ops->stats(made.ends[0], &stats);
    assert_int_equal(stats.epochs_sent, 1);
    staging_free(made.staging[1], full);
    made.ends[1]->ops->room(made.ends[1]);
    assert_int_equal(made.ends[1]->ops->receive(made.ends[1], made.staging[1], &out), 0);
    pthread_join(sending, NULL);
    assert_int_equal(send.status, 0);
    assert_same(made.staging[0], send.epoch, made.staging[1], out.epoch);
    made.ends[0]->ops->shutdown(made.ends[0]);
    pthread_join(listening, NULL);
    close_rdma_pair(&made);
}

/* ---- at rest ---- */

static uint64_t processor_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

/* A thread that polls would use all of a processor: the test tells that from hardly any, not one figure from
 * another. */
static void test_a_connection_at_rest_uses_no_processor(void **state)
{
    struct transport_pair made = {0};
    pthread_t threads[2];
    struct blocked resting[2];
    (void)state;
    open_rdma_pair(&made, PATIENT_MS, CAPACITY, CAPACITY);
    exchange_one(&made, 1); /* polling has just paid */
    for (int i = 0; i < 2; i++) {
        resting[i] = (struct blocked){.transport = made.ends[i]};
        assert_int_equal(pthread_create(&threads[i], NULL, block, &resting[i]), 0);
    }
    uint64_t began = processor_ns();
    usleep(1000000);
    assert_true(processor_ns() - began < 300000000);
    for (int i = 0; i < 2; i++)
        made.ends[i]->ops->shutdown(made.ends[i]);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    close_rdma_pair(&made);
}

/* ---- a peer that dies, a wire that fails ---- */

/* What the program does when it is started as the receiving side. */
static int receive_for_ever(uint16_t port)
{
    struct staging *staging = new_staging(LARGE + 16);
    struct accepting accepting = {.endpoint = make_endpoint(staging, PATIENT_MS, listen_address(), port, 7)};
    struct transport_received out;
    if (write(STDOUT_FILENO, "r", 1) != 1)
        return 1;
    accept_one(&accepting);
    while (accepting.transport &&
           accepting.transport->ops->receive(accepting.transport, staging, &out) == 0) {
        if (out.epoch)
            staging_free(staging, out.epoch);
        accepting.transport->ops->room(accepting.transport);
    }
    return 0;
}

/* The receiving side in a process of its own, not forked off: verbs belong to the process that opened them.
 */
static pid_t start_receiver(uint16_t port, int *told)
{
    int fds[2];
    char number[8];
    snprintf(number, sizeof number, "%u", port);
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(fds[1], STDOUT_FILENO);
        execl("/proc/self/exe", "test_transport_rdma", "--receive", number, (char *)NULL);
        _exit(127);
    }
    close(fds[1]);
    *told = fds[0];
    return pid;
}

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

struct stream {
    struct transport *transport;
    struct staging *staging;
    int status;
};

/* Epochs without end, until it fails. */
static void *stream(void *opaque)
{
    struct stream *s = opaque;
    for (uint64_t number = 1; s->status == 0; number++) {
        struct staged_epoch *epoch = stage(s->staging, number, CAPACITY);
        s->status = send_and_wait(s->transport, s->staging, epoch);
        staging_free(s->staging, epoch);
    }
    return NULL;
}

struct drain {
    struct transport *transport;
    struct staging *staging;
    int status;
};

/* Receives, and gives back, until it fails. */
static void *drain(void *opaque)
{
    struct drain *d = opaque;
    struct transport_received out;
    while ((d->status = d->transport->ops->receive(d->transport, d->staging, &out)) == 0) {
        if (out.epoch)
            staging_free(d->staging, out.epoch);
        d->transport->ops->room(d->transport);
    }
    return NULL;
}

static void test_a_peer_killed_in_mid_stream_ends_both_directions_soon(void **state)
{
    uint16_t port = new_port();
    char service[8], byte;
    char *why = NULL;
    int told, status;
    (void)state;
    snprintf(service, sizeof service, "%u", port);
    pid_t pid = start_receiver(port, &told);
    assert_int_equal(read(told, &byte, 1), 1);
    struct staging *staging = new_staging(CAPACITY);
    struct endpoint *endpoint = make_endpoint(staging, 3000, NULL, 0, 7);
    struct transport *transport = NULL;
    assert_int_equal(endpoint->ops->dial(endpoint, dial_address(), service, PATIENT_MS, &transport, &why), 0);
    struct blocked acks = {.transport = transport};
    struct stream streaming = {.transport = transport, .staging = staging};
    pthread_t listening, sending;
    assert_int_equal(pthread_create(&listening, NULL, block, &acks), 0);
    assert_int_equal(pthread_create(&sending, NULL, stream, &streaming), 0);
    struct transport_stats stats;
    do
        transport->ops->stats(transport, &stats);
    while (stats.epochs_sent < 5 && streaming.status == 0);
    uint64_t began = now_ms();
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    pthread_join(listening, NULL);
    pthread_join(sending, NULL);
    assert_true(acks.status < 0 && streaming.status < 0);
    assert_true(now_ms() - began < 30000);
    transport->ops->free(transport);
    endpoint_free(endpoint);
    staging_close(staging);
    close(told);
}

/* Its device goes on taking what is written; its process gives nothing back. */
static void test_a_peer_that_stands_still_ends_the_connection_in_bounded_time(void **state)
{
    uint16_t port = new_port();
    char service[8], byte;
    char *why = NULL;
    int told, status;
    (void)state;
    snprintf(service, sizeof service, "%u", port);
    pid_t pid = start_receiver(port, &told);
    assert_int_equal(read(told, &byte, 1), 1);
    struct staging *staging = new_staging(CAPACITY);
    struct endpoint *endpoint = make_endpoint(staging, 1000, NULL, 0, 7);
    struct transport *transport = NULL;
    assert_int_equal(endpoint->ops->dial(endpoint, dial_address(), service, PATIENT_MS, &transport, &why), 0);
    struct blocked acks = {.transport = transport};
    struct stream streaming = {.transport = transport, .staging = staging};
    pthread_t listening, sending;
    assert_int_equal(pthread_create(&listening, NULL, block, &acks), 0);
    assert_int_equal(pthread_create(&sending, NULL, stream, &streaming), 0);
    struct transport_stats stats;
    do
        transport->ops->stats(transport, &stats);
    while (stats.epochs_sent < 5 && streaming.status == 0);
    kill(pid, SIGSTOP);
    pthread_join(sending, NULL); /* or the test ends by its own time limit */
    assert_int_equal(streaming.status, -ETIMEDOUT);
    transport->ops->shutdown(transport);
    pthread_join(listening, NULL);
    assert_int_equal(acks.status, -ENOTCONN);
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    transport->ops->free(transport);
    endpoint_free(endpoint);
    staging_close(staging);
    close(told);
}

static void *remove_device(void *opaque)
{
    bool *removed = opaque;
    *removed = wire("gone");
    return NULL;
}

/* The device of the one that listens is taken out while epochs stream, and put back. */
static void test_a_device_that_is_removed_ends_both_sides_and_serves_again_when_it_is_back(void **state)
{
    struct transport_pair made = {0};
    (void)state;
    if (!wire("clean")) {
        print_message("SKIPPED: UNDERSTUDY_RDMA_LINK is not set\n");
        skip();
    }
    open_rdma_pair(&made, 3000, CAPACITY, CAPACITY);
    struct ends *ends = made.user;
    struct blocked acks = {.transport = made.ends[0]};
    struct stream streaming = {.transport = made.ends[0], .staging = made.staging[0]};
    struct drain draining = {.transport = made.ends[1], .staging = made.staging[1]};
    pthread_t listening, sending, taking, removing;
    bool removed = false;
    struct transport_stats stats;
    assert_int_equal(pthread_create(&listening, NULL, block, &acks), 0);
    assert_int_equal(pthread_create(&taking, NULL, drain, &draining), 0);
    assert_int_equal(pthread_create(&sending, NULL, stream, &streaming), 0);
    do
        made.ends[1]->ops->stats(made.ends[1], &stats);
    while (stats.epochs_received < 5 && streaming.status == 0);
    /* It returns when nobody holds the device any more. */
    assert_int_equal(pthread_create(&removing, NULL, remove_device, &removed), 0);
    pthread_join(taking, NULL);
    pthread_join(sending, NULL);
    made.ends[0]->ops->shutdown(made.ends[0]); /* as the sender of the replicator does */
    pthread_join(listening, NULL);
    assert_true(draining.status < 0 && streaming.status < 0 && acks.status < 0);
    assert_empty(made.staging[1]);
    for (int i = 0; i < 2; i++) {
        made.ends[i]->ops->free(made.ends[i]);
        made.ends[i] = NULL;
    }
    /* What the endpoint that listens is told of it. */
    struct transport *nobody = NULL;
    while (ends->endpoint[1]->ops->listen_fd(ends->endpoint[1]) >= 0 &&
           ends->endpoint[1]->ops->accept(ends->endpoint[1], &nobody) == -EAGAIN)
        sched_yield();
    assert_null(nobody);
    pthread_join(removing, NULL);
    assert_true(removed);
    assert_true(wire("back"));
    /* The same endpoints, not new ones: a replicator lives on. It tries to listen once a second. */
    while (ends->endpoint[1]->ops->listen_fd(ends->endpoint[1]) < 0)
        usleep(50000);
    assert_int_equal(connect_ends(ends, dial_address(), ends->port, made.ends), 0);
    exchange_one(&made, 1);
    close_rdma_pair(&made);
}

static void test_lost_packets_cost_time_and_nothing_else(void **state)
{
    struct transport_pair made = {0};
    (void)state;
    if (!wire("loss")) {
        print_message("SKIPPED: UNDERSTUDY_RDMA_LINK is not set\n");
        skip();
    }
    void *pairs = (void *)&rdma_pairs;
    test_messages_of_other_threads_never_fall_into_an_epoch(&pairs);
    assert_true(wire("clean"));
    (void)made;
}

static void test_a_wire_that_goes_dead_ends_the_connection_in_bounded_time(void **state)
{
    struct transport_pair made = {0};
    (void)state;
    if (!wire("clean")) {
        print_message("SKIPPED: UNDERSTUDY_RDMA_LINK is not set\n");
        skip();
    }
    open_rdma_pair(&made, 3000, CAPACITY, CAPACITY);
    exchange_one(&made, 1);
    assert_true(wire("down"));
    struct blocked acks = {.transport = made.ends[0]};
    struct stream streaming = {.transport = made.ends[0], .staging = made.staging[0]};
    pthread_t listening, sending;
    uint64_t began = now_ms();
    assert_int_equal(pthread_create(&listening, NULL, block, &acks), 0);
    assert_int_equal(pthread_create(&sending, NULL, stream, &streaming), 0);
    pthread_join(sending, NULL);
    assert_true(streaming.status < 0);
    made.ends[0]->ops->shutdown(made.ends[0]); /* as the sender of the replicator does */
    pthread_join(listening, NULL);
    assert_true(acks.status < 0);
    assert_true(now_ms() - began < 60000);
    assert_true(wire("up"));
    close_rdma_pair(&made);
    /* And the wire is good for the next connection. */
    open_rdma_pair(&made, PATIENT_MS, CAPACITY, CAPACITY);
    exchange_one(&made, 1);
    close_rdma_pair(&made);
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--receive") == 0)
        return receive_for_ever((uint16_t)atoi(argv[2]));
    if (!listen_address()) {
        fprintf(stderr, "SKIPPED: UNDERSTUDY_RDMA_LISTEN does not name the address of an RDMA device\n");
        return 77;
    }
    if (argc == 2)
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        TRANSPORT_COMMON_TESTS(&rdma_pairs),
        cmocka_unit_test(test_a_connection_without_the_token_is_refused),
        cmocka_unit_test(test_a_hundred_reconnects_leave_nothing_behind),
        cmocka_unit_test(test_ipv6),
        cmocka_unit_test(test_two_epochs_and_more_are_under_way_at_once),
        cmocka_unit_test(test_a_ring_without_room_waits_and_goes_on_when_there_is_some),
        cmocka_unit_test(test_a_connection_at_rest_uses_no_processor),
        cmocka_unit_test(test_a_peer_that_stands_still_ends_the_connection_in_bounded_time),
        cmocka_unit_test(test_a_peer_killed_in_mid_stream_ends_both_directions_soon),
        cmocka_unit_test(test_lost_packets_cost_time_and_nothing_else),
        cmocka_unit_test(test_a_wire_that_goes_dead_ends_the_connection_in_bounded_time),
        cmocka_unit_test(test_a_device_that_is_removed_ends_both_sides_and_serves_again_when_it_is_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
