/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * An RDMA connection that is lost in every way: the peer's process dies or stands still, packets are lost,
 * the wire goes dead, the device is taken out. Both directions end in bounded time, nothing half-arrived is
 * staged, and the next connection works. Environment: see test_transport_rdma.c, and
 *
 *   UNDERSTUDY_RDMA_LINK     a command that takes "down", "up", "loss", "clean", "gone a", "gone b" or
 * "back": the wire between the two, and the devices of the one that dials and the one that listens; or
 * nothing
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "replicator/transport/endpoint.h"
#include "tests/rdma/ends.h"
#include "tests/transport/common.h"

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
        execl("/proc/self/exe", "test_rdma_loss", "--receive", number, (char *)NULL);
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

/* A connection on which epochs go out and acks are waited for. */
struct traffic {
    struct blocked acks;
    struct stream streaming;
    pthread_t listening, sending;
};

static void start_traffic(struct traffic *t, struct transport *transport, struct staging *staging)
{
    t->acks = (struct blocked){.transport = transport};
    t->streaming = (struct stream){.transport = transport, .staging = staging};
    assert_int_equal(pthread_create(&t->listening, NULL, block, &t->acks), 0);
    assert_int_equal(pthread_create(&t->sending, NULL, stream, &t->streaming), 0);
}

/* The same, to a receiver that is a process of its own. */
struct other_process {
    pid_t pid;
    int told;
    struct staging *staging;
    struct endpoint *endpoint;
    struct transport *transport;
    struct traffic traffic;
};

/* Returns when some epochs have gone out. */
static void start_other_process(struct other_process *other, unsigned stall_ms)
{
    uint16_t port = new_port();
    char service[8], byte, *why = NULL;
    struct transport_stats stats;
    snprintf(service, sizeof service, "%u", port);
    other->pid = start_receiver(port, &other->told);
    assert_int_equal(read(other->told, &byte, 1), 1);
    other->staging = new_staging(CAPACITY);
    other->endpoint = make_endpoint(other->staging, stall_ms, NULL, 0, 7);
    other->transport = NULL;
    assert_int_equal(other->endpoint->ops->dial(other->endpoint, dial_address(), service, PATIENT_MS,
                                                &other->transport, &why),
                     0);
    start_traffic(&other->traffic, other->transport, other->staging);
    do
        other->transport->ops->stats(other->transport, &stats);
    while (stats.epochs_sent < 5 && other->traffic.streaming.status == 0);
}

static void kill_other_process(const struct other_process *other)
{
    int status;
    kill(other->pid, SIGKILL);
    waitpid(other->pid, &status, 0);
}

static void free_other_process(struct other_process *other)
{
    other->transport->ops->free(other->transport);
    endpoint_free(other->endpoint);
    staging_close(other->staging);
    close(other->told);
}

static void test_a_peer_killed_in_mid_stream_ends_both_directions_soon(void **state)
{
    struct other_process other;
    (void)state;
    start_other_process(&other, 3000);
    uint64_t began = now_ms();
    kill_other_process(&other);
    pthread_join(other.traffic.listening, NULL);
    pthread_join(other.traffic.sending, NULL);
    assert_true(other.traffic.acks.status < 0 && other.traffic.streaming.status < 0);
    assert_true(now_ms() - began < 30000);
    free_other_process(&other);
}

/* Its device goes on taking what is written; its process gives nothing back. */
static void test_a_peer_that_stands_still_ends_the_connection_in_bounded_time(void **state)
{
    struct other_process other;
    (void)state;
    start_other_process(&other, 1000);
    kill(other.pid, SIGSTOP);
    pthread_join(other.traffic.sending, NULL); /* or the test ends by its own time limit */
    assert_int_equal(other.traffic.streaming.status, -ETIMEDOUT);
    other.transport->ops->shutdown(other.transport);
    pthread_join(other.traffic.listening, NULL);
    assert_int_equal(other.traffic.acks.status, -ENOTCONN);
    kill_other_process(&other);
    free_other_process(&other);
}

static void wire_or_skip(const char *command)
{
    if (!wire(command)) {
        print_message("SKIPPED: UNDERSTUDY_RDMA_LINK is not set\n");
        skip();
    }
}

struct removal {
    const char *command;
    bool done;
};

static void *remove_device(void *opaque)
{
    struct removal *removal = opaque;
    removal->done = wire(removal->command);
    return NULL;
}

/* Epochs stream until a device is taken out, which ends both sides. The command goes on until nobody holds
 * the device any more. */
static void stream_until_removed(struct transport_pair *made, bool listener, struct removal *removal,
                                 pthread_t *removing)
{
    struct traffic traffic;
    struct drain draining = {.transport = made->ends[1], .staging = made->staging[1]};
    pthread_t taking;
    struct transport_stats stats;
    assert_int_equal(pthread_create(&taking, NULL, drain, &draining), 0);
    start_traffic(&traffic, made->ends[0], made->staging[0]);
    made->ends[1]->ops->stats(made->ends[1], &stats);
    uint64_t before = stats.epochs_received;
    do
        made->ends[1]->ops->stats(made->ends[1], &stats);
    while (stats.epochs_received < before + 5 && traffic.streaming.status == 0);
    assert_int_equal(pthread_create(removing, NULL, remove_device, removal), 0);
    pthread_join(traffic.sending, NULL);
    pthread_join(listener ? taking : traffic.listening, NULL);
    /* The other side, as the replicator's sender does, or heartbeats that stay away. */
    made->ends[!listener]->ops->shutdown(made->ends[!listener]);
    pthread_join(listener ? traffic.listening : taking, NULL);
    assert_true(draining.status < 0 && traffic.streaming.status < 0 && traffic.acks.status < 0);
    assert_empty(made->staging[1]);
    for (int i = 0; i < 2; i++) {
        made->ends[i]->ops->free(made->ends[i]);
        made->ends[i] = NULL;
    }
}

/* The endpoint that listens hears of it, and lets go. */
static void let_go_of_listening_device(struct endpoint *endpoint)
{
    struct transport *nobody = NULL;
    while (endpoint->ops->listen_fd(endpoint) >= 0 && endpoint->ops->accept(endpoint, &nobody) == -EAGAIN)
        sched_yield();
    assert_null(nobody);
}

/* The endpoint that dials finds out when it dials again, as a replicator does until it succeeds. */
static void let_go_of_dialling_device(struct ends *ends, pthread_t removing)
{
    struct endpoint *endpoint = ends->endpoint[0];
    struct transport *nobody = NULL;
    char service[8], *why = NULL;
    snprintf(service, sizeof service, "%u", ends->port);
    do {
        assert_true(endpoint->ops->dial(endpoint, dial_address(), service, 1000, &nobody, &why) < 0);
        free(why);
    } while (pthread_tryjoin_np(removing, NULL) != 0);
}

/*
 * Each side's device is taken out while epochs stream, and put back; the other side's after it, whose removal
 * would never end if anybody of the first had kept a hold of it.
 */
static void test_a_device_that_is_removed_ends_both_sides_and_serves_again_when_it_is_back(void **state)
{
    struct transport_pair made = {0};
    (void)state;
    wire_or_skip("clean");
    open_rdma_pair(&made, 3000, CAPACITY, CAPACITY);
    struct ends *ends = made.user;
    for (int side = 1; side >= 0; side--) {
        struct removal removal = {.command = side ? "gone b" : "gone a"};
        pthread_t removing;
        stream_until_removed(&made, side == 1, &removal, &removing);
        if (side == 1) {
            let_go_of_listening_device(ends->endpoint[1]);
            pthread_join(removing, NULL);
        } else {
            let_go_of_dialling_device(ends, removing);
        }
        assert_true(removal.done);
        assert_true(wire("back"));
        /* The same endpoints, not new ones: a replicator lives on. It tries to listen once a second. */
        while (ends->endpoint[1]->ops->listen_fd(ends->endpoint[1]) < 0)
            usleep(50000);
        assert_int_equal(connect_ends(ends, dial_address(), ends->port, made.ends), 0);
        exchange_one(&made, 1);
    }
    close_rdma_pair(&made);
}

static void test_lost_packets_cost_time_and_nothing_else(void **state)
{
    (void)state;
    wire_or_skip("loss");
    void *pairs = (void *)&rdma_pairs;
    test_messages_of_other_threads_never_fall_into_an_epoch(&pairs);
    assert_true(wire("clean"));
}

static void test_a_wire_that_goes_dead_ends_the_connection_in_bounded_time(void **state)
{
    struct transport_pair made = {0};
    (void)state;
    wire_or_skip("clean");
    open_rdma_pair(&made, 3000, CAPACITY, CAPACITY);
    exchange_one(&made, 1);
    assert_true(wire("down"));
    struct traffic traffic;
    uint64_t began = now_ms();
    start_traffic(&traffic, made.ends[0], made.staging[0]);
    pthread_join(traffic.sending, NULL);
    assert_true(traffic.streaming.status < 0);
    made.ends[0]->ops->shutdown(made.ends[0]); /* as the sender of the replicator does */
    pthread_join(traffic.listening, NULL);
    assert_true(traffic.acks.status < 0);
    assert_true(now_ms() - began < 60000);
    assert_true(wire("up"));
    close_rdma_pair(&made);
    /* And the wire is good for the next connection. */
    open_rdma_pair(&made, PATIENT_MS, CAPACITY, CAPACITY);
    exchange_one(&made, 1);
    close_rdma_pair(&made);
}

/*
 * Nothing of ours waits for anything here: it is the device that reports a peer that does not acknowledge
 * (IBV_WC_RETRY_EXC_ERR). An epoch of which the wire takes nothing is found lost long before the transport's
 * own patience ends.
 */
static void test_a_peer_that_vanished_is_reported_by_the_device(void **state)
{
    struct transport_pair made = {0};
    (void)state;
    wire_or_skip("clean");
    open_rdma_pair(&made, 10 * 60 * 1000, CAPACITY, CAPACITY);
    exchange_one(&made, 1);
    assert_true(wire("down"));
    struct traffic traffic;
    start_traffic(&traffic, made.ends[0], made.staging[0]);
    pthread_join(traffic.sending, NULL); /* or the test ends by its own time limit */
    assert_int_equal(traffic.streaming.status, -ENOTCONN);
    made.ends[0]->ops->shutdown(made.ends[0]);
    pthread_join(traffic.listening, NULL);
    assert_true(traffic.acks.status < 0);
    assert_true(wire("up"));
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
        cmocka_unit_test(test_a_peer_that_stands_still_ends_the_connection_in_bounded_time),
        cmocka_unit_test(test_a_peer_killed_in_mid_stream_ends_both_directions_soon),
        cmocka_unit_test(test_lost_packets_cost_time_and_nothing_else),
        cmocka_unit_test(test_a_wire_that_goes_dead_ends_the_connection_in_bounded_time),
        cmocka_unit_test(test_a_peer_that_vanished_is_reported_by_the_device),
        cmocka_unit_test(test_a_device_that_is_removed_ends_both_sides_and_serves_again_when_it_is_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
