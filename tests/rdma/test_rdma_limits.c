/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Each limit that is too low for RDMA is told in a sentence that says what to do, before a guest depends on
 * it. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/resource.h>

#include <cmocka.h>

#include "replicator/transport/rdma/limits.h"

#define MIB 1048576ull

static struct ibv_device_attr a_good_device(void)
{
    return (struct ibv_device_attr){
        .max_mr_size = UINT64_MAX, .max_qp_wr = 16384, .max_cqe = 32768, .max_sge = 30, .max_mr = 65536};
}

static void assert_refused(const struct ibv_device_attr *attr, uint64_t lockable, int expected,
                           const char *word)
{
    g_autoptr(GError) error = NULL;
    assert_int_equal(rdma_limits_judge("mlx5_0", attr, lockable, 1024 * MIB, &error), expected);
    assert_non_null(error);
    assert_non_null(strstr(error->message, "RDMA device mlx5_0: "));
    if (!strstr(error->message, word))
        fail_msg("'%s' does not say '%s'", error->message, word);
}

static void test_a_good_device_is_taken(void **state)
{
    (void)state;
    struct ibv_device_attr attr = a_good_device();
    g_autoptr(GError) error = NULL;
    assert_int_equal(rdma_limits_judge("mlx5_0", &attr, UINT64_MAX, 1024 * MIB, &error), 0);
    assert_null(error);
}

static void test_locked_memory_must_do_for_staging_and_a_little_more(void **state)
{
    (void)state;
    struct ibv_device_attr attr = a_good_device();
    assert_refused(&attr, 8 * MIB, -ENOMEM, "LimitMEMLOCK=infinity");
    assert_refused(&attr, 1024 * MIB, -ENOMEM, "1028 MiB have to be locked");
    assert_int_equal(rdma_limits_judge("mlx5_0", &attr, 1028 * MIB, 1024 * MIB, NULL), 0);
}

static void test_each_limit_of_the_device_is_looked_at(void **state)
{
    (void)state;
    struct ibv_device_attr attr = a_good_device();
    attr.max_mr_size = 1024 * MIB - 1;
    assert_refused(&attr, UINT64_MAX, -ENOSPC, "give the guest less memory");
    attr = a_good_device();
    attr.max_qp_wr = 128;
    assert_refused(&attr, UINT64_MAX, -ENOSPC, "queues hold 128 requests");
    attr = a_good_device();
    attr.max_cqe = 255;
    assert_refused(&attr, UINT64_MAX, -ENOSPC, "queues hold 255 requests");
    attr = a_good_device();
    attr.max_sge = 1;
    assert_refused(&attr, UINT64_MAX, -ENOSPC, "1 pieces a request");
    attr = a_good_device();
    attr.max_mr = 8;
    assert_refused(&attr, UINT64_MAX, -ENOSPC, "8 memory regions");
}

static void test_small_packets_are_noted_and_usual_ones_are_not(void **state)
{
    (void)state;
    g_autofree char *small = rdma_limits_mtu_note("rxe0", IBV_MTU_512);
    assert_non_null(small);
    assert_non_null(strstr(small, "512 bytes a packet"));
    assert_non_null(strstr(small, "raise the MTU"));
    assert_null(rdma_limits_mtu_note("rxe0", IBV_MTU_1024));
    assert_null(rdma_limits_mtu_note("rxe0", IBV_MTU_4096));
}

/* Whoever has CAP_IPC_LOCK is not limited, whatever the limit says; others are. */
static void test_the_limit_of_this_process_is_what_the_kernel_will_count(void **state)
{
    (void)state;
    struct rlimit limit;
    uint64_t lockable = rdma_limits_lockable();
    assert_int_equal(getrlimit(RLIMIT_MEMLOCK, &limit), 0);
    assert_true(lockable == UINT64_MAX || lockable == limit.rlim_cur);
}

static void test_every_device_of_this_host_is_reported_once(void **state)
{
    (void)state;
    int n = 0;
    struct ibv_device **list = ibv_get_device_list(&n);
    g_auto(GStrv) faults = NULL;
    g_auto(GStrv) good = rdma_limits_report(&faults);
    assert_int_equal(g_strv_length(good) + g_strv_length(faults), list ? n : 0);
    if (list)
        ibv_free_device_list(list);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_good_device_is_taken),
        cmocka_unit_test(test_locked_memory_must_do_for_staging_and_a_little_more),
        cmocka_unit_test(test_each_limit_of_the_device_is_looked_at),
        cmocka_unit_test(test_small_packets_are_noted_and_usual_ones_are_not),
        cmocka_unit_test(test_the_limit_of_this_process_is_what_the_kernel_will_count),
        cmocka_unit_test(test_every_device_of_this_host_is_reported_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
