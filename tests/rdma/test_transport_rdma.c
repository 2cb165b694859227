/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The RDMA transport over a real device (soft-RoCE in tests/rdma/vm.sh, or one that UNDERSTUDY_RDMA_DEV
 * names): what every transport must do, and what only this one can get wrong. From the environment:
 *
 *   UNDERSTUDY_RDMA_LISTEN   the address to listen on
 *   UNDERSTUDY_RDMA_DIAL     the address to dial (default: the same)
 *   UNDERSTUDY_RDMA_LISTEN6  an IPv6 address of the device, or nothing
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "replicator/transport/endpoint.h"
#include "replicator/transport/rdma/limits.h"
#include "replicator/transport/rdma/rdma.h"
#include "replicator/transport/rdma/rdma_internal.h"
#include "tests/rdma/ends.h"
#include "tests/transport/common.h"

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

/* ---- limits ---- */

static void test_a_device_that_works_is_reported_fit(void **state)
{
    (void)state;
    g_auto(GStrv) faults = NULL;
    g_auto(GStrv) good = rdma_limits_report(&faults);
    assert_true(g_strv_length(good) > 0);
    assert_non_null(strstr(good[0], " active, "));
}

/* With this staging and little memory to lock: 0 if both the check and the endpoint say so. */
static int refused_for_the_limit(struct staging *staging)
{
    g_autoptr(GError) of_check = NULL, of_endpoint = NULL;
    struct endpoint_rdma_config config = {.staging = staging,
                                          .stall_ms = PATIENT_MS,
                                          .listen_address = listen_address(),
                                          .listen_port = new_port()};
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];
    struct rlimit low = {.rlim_cur = 8 << 20, .rlim_max = 8 << 20};
    if (setrlimit(RLIMIT_MEMLOCK, &low) < 0 || syscall(SYS_capget, &header, data) < 0)
        return 2;
    data[CAP_TO_INDEX(CAP_IPC_LOCK)].effective &= ~CAP_TO_MASK(CAP_IPC_LOCK);
    if (syscall(SYS_capset, &header, data) < 0)
        return 2;
    bool fits = endpoint_rdma_check(NULL, listen_address(), 1 << 30, &of_check);
    struct endpoint *endpoint = endpoint_rdma_new(&config, &of_endpoint);
    if (fits || endpoint)
        return 1;
    fprintf(stderr, "%s\n%s\n", of_check->message, of_endpoint->message);
    return strstr(of_check->message, "LimitMEMLOCK=infinity") &&
                   strstr(of_endpoint->message, "36 MiB have to be locked in memory and the limit is 8 MiB")
               ? 0
               : 1;
}

/* What the program does when it is started with little memory to lock. */
static int try_with_a_low_limit(void)
{
    struct staging *staging = new_staging(8192);
    int status = refused_for_the_limit(staging);
    staging_close(staging);
    return status;
}

/* In a process of its own: the kernel lets nobody use verbs whose capabilities have changed since. */
static void test_a_limit_that_is_too_low_is_told_before_anything_is_made(void **state)
{
    (void)state;
    int status = -1;
    pid_t pid = fork();
    if (pid == 0) {
        execl("/proc/self/exe", "test_transport_rdma", "--low-limit", (char *)NULL);
        _exit(127);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

/* The kernel gives this one a device, which has no route to it. With --transport auto that is a reason for
 * TCP. */
static void test_an_address_without_a_route_is_refused_before_anybody_dials(void **state)
{
    g_autoptr(GError) of_check = NULL, of_endpoint = NULL;
    struct staging *staging = new_staging(CAPACITY);
    struct endpoint_rdma_config config = {
        .staging = staging, .stall_ms = PATIENT_MS, .peer_host = "127.0.0.1"};
    (void)state;
    assert_false(endpoint_rdma_check("127.0.0.1", NULL, 1 << 20, &of_check));
    assert_null(endpoint_rdma_new(&config, &of_endpoint));
    assert_non_null(strstr(of_check->message, "no RDMA device of this host reaches 127.0.0.1"));
    assert_non_null(strstr(of_endpoint->message, "no RDMA device of this host reaches 127.0.0.1"));
    staging_close(staging);
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

/* Its last page is the ring's: what tells of it is a write of nothing. The next one begins at the ring's
 * first. */
static void test_epochs_that_end_with_the_ring_arrive_too(void **state)
{
    struct transport_pair made = {0};
    (void)state;
    open_rdma_pair(&made, PATIENT_MS, CAPACITY, 11); /* one page for what stands before ten */
    for (uint64_t number = 1; number <= 3; number++) {
        struct transport_received out;
        struct staged_epoch *epoch = staging_begin(made.staging[0], number, STAGED_PRECOPY);
        int64_t slot = staging_reserve(made.staging[0], epoch, 10);
        for (uint32_t i = 0; i < 10; i++) {
            epoch->pages[i] = (struct staged_page){.ref = page_ref_make(0, i, 0), .slot = (uint32_t)slot + i};
            memset(staging_slot(made.staging[0], (uint32_t)slot + i), (int)(number * 16 + i),
                   STAGING_PAGE_LEN);
        }
        epoch->npages = 10;
        epoch->nblocks = 1;
        epoch->block_used_len[0] = 10 * STAGING_PAGE_LEN;
        staging_commit(made.staging[0], epoch);
        struct blocked acks = {.transport = made.ends[0]};
        struct blocked sending = {.transport = made.ends[0], .staging = made.staging[0], .epoch = epoch};
        struct transport_message ack = {.type = MESSAGE_ACK, .epoch = number};
        pthread_t listening, feeding;
        assert_int_equal(pthread_create(&listening, NULL, block, &acks), 0);
        assert_int_equal(pthread_create(&feeding, NULL, block, &sending), 0);
        assert_int_equal(made.ends[1]->ops->receive(made.ends[1], made.staging[1], &out), 0);
        pthread_join(feeding, NULL);
        assert_int_equal(sending.status, 0);
        assert_same(made.staging[0], epoch, made.staging[1], out.epoch);
        staging_free(made.staging[1], out.epoch);
        assert_int_equal(made.ends[1]->ops->send_message(made.ends[1], &ack), 0);
        pthread_join(listening, NULL);
        staging_free(made.staging[0], epoch);
    }
    close_rdma_pair(&made);
}

/* ---- the end ---- */

struct ending {
    struct transport *transport;
    _Atomic int *ready;
    enum ibv_qp_state state; /* of the queue pair, as soon as shutdown has returned */
};

static void *end(void *opaque)
{
    struct ending *ending = opaque;
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_UNKNOWN};
    struct ibv_qp_init_attr init;
    (*ending->ready)++;
    while (*ending->ready < 2)
        ; /* closer together than a barrier wakes */
    ending->transport->ops->shutdown(ending->transport);
    ibv_query_qp(rdma_of(ending->transport)->id->qp, &attr, IBV_QP_STATE, &init);
    ending->state = attr.qp_state;
    return NULL;
}

/* Whoever shuts down may use the memory again: of two at once neither returns before it is so. */
static void test_nothing_leaves_once_a_shutdown_has_returned_to_anybody(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 50; round++) {
        struct transport_pair made = {0};
        struct ending ending[2];
        pthread_t threads[2];
        _Atomic int ready = 0;
        open_rdma_pair(&made, PATIENT_MS, CAPACITY, CAPACITY);
        for (int i = 0; i < 2; i++) {
            ending[i] = (struct ending){.transport = made.ends[0], .ready = &ready};
            assert_int_equal(pthread_create(&threads[i], NULL, end, &ending[i]), 0);
        }
        for (int i = 0; i < 2; i++)
            pthread_join(threads[i], NULL);
        for (int i = 0; i < 2; i++)
            assert_int_equal(ending[i].state, IBV_QPS_ERR);
        close_rdma_pair(&made);
    }
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

int main(int argc, char **argv)
{
    if (!listen_address()) {
        fprintf(stderr, "SKIPPED: UNDERSTUDY_RDMA_LISTEN does not name the address of an RDMA device\n");
        return 77;
    }
    if (argc == 2 && strcmp(argv[1], "--low-limit") == 0)
        return try_with_a_low_limit();
    if (argc == 2)
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        TRANSPORT_COMMON_TESTS(&rdma_pairs),
        cmocka_unit_test(test_a_connection_without_the_token_is_refused),
        cmocka_unit_test(test_a_hundred_reconnects_leave_nothing_behind),
        cmocka_unit_test(test_ipv6),
        cmocka_unit_test(test_a_device_that_works_is_reported_fit),
        cmocka_unit_test(test_a_limit_that_is_too_low_is_told_before_anything_is_made),
        cmocka_unit_test(test_an_address_without_a_route_is_refused_before_anybody_dials),
        cmocka_unit_test(test_two_epochs_and_more_are_under_way_at_once),
        cmocka_unit_test(test_a_ring_without_room_waits_and_goes_on_when_there_is_some),
        cmocka_unit_test(test_epochs_that_end_with_the_ring_arrive_too),
        cmocka_unit_test(test_nothing_leaves_once_a_shutdown_has_returned_to_anybody),
        cmocka_unit_test(test_a_connection_at_rest_uses_no_processor),
    };
    const struct CMUnitTest sealed[] = {
        cmocka_unit_test_prestate(test_random_epochs_arrive_identical, (void *)&rdma_pairs),
        cmocka_unit_test_prestate(test_messages_arrive_whole_at_any_length_and_longer_ones_are_not_sent,
                                  (void *)&rdma_pairs),
        cmocka_unit_test_prestate(test_messages_of_other_threads_never_fall_into_an_epoch,
                                  (void *)&rdma_pairs),
        cmocka_unit_test(test_a_connection_without_the_token_is_refused),
        cmocka_unit_test(test_two_epochs_and_more_are_under_way_at_once),
        cmocka_unit_test(test_a_ring_without_room_waits_and_goes_on_when_there_is_some),
        cmocka_unit_test(test_epochs_that_end_with_the_ring_arrive_too),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    seal_ends = true;
    return failed + cmocka_run_group_tests(sealed, NULL, NULL);
}
