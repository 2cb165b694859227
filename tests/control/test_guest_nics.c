/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The sockets of a guest's NICs, on a machine that does not exist: which goes where, what is closed when one
 * of them is not taken, and when frames are mirrored.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "replicator/control/guest_nics.h"
#include "tests/control/fake_core.h"
#include "tests/fakevm/fake_machine.h"

#define NICS  2
#define KINDS 4

/* ---- what guest_nics.c calls ---- */

static struct {
    int gate_status, log_status;
    const char *second_fault; /* of the second NIC, or NULL */
    int fds[NICS][KINDS];     /* what was taken: out, in, mirror, inject */
    unsigned ngate, nlog;
} now;

int gate_add_nic(struct output_gate *gate, int out_fd, int in_fd)
{
    (void)gate;
    if (now.gate_status == 0) {
        now.fds[now.ngate][0] = out_fd;
        now.fds[now.ngate++][1] = in_fd;
    }
    return now.gate_status;
}

int input_log_add_nic(struct input_log *log, int mirror_fd, int inject_fd)
{
    (void)log;
    fake_machine_faults.connect_nic = now.second_fault;
    if (now.log_status == 0) {
        now.fds[now.nlog][2] = mirror_fd;
        now.fds[now.nlog++][3] = inject_fd;
    }
    return now.log_status;
}

/* ---- a VM with two NICs ---- */

static struct sink sink;
static struct guest_nics nics;
static struct fake_core core;
static struct fake_machine machine;

static int set_up(void **state)
{
    (void)state;
    memset(&now, 0, sizeof now);
    fake_machine_faults = (struct fake_machine_faults){0};
    machine =
        (struct fake_machine){.base = {.ops = &machine_ops_fakevm}, .config = {.nnics = NICS}, .ready = true};
    nics = (struct guest_nics){.vm_name = "vm", .n = NICS, .machine = &machine.base, .sink = &sink};
    fake_core_open(&core, &sink);
    return 0;
}

/* The machine's end of a socket. */
static int end_of(unsigned nic, unsigned kind)
{
    const struct machine_nic *ends = &machine.ends[nic];
    const int fds[KINDS] = {ends->out, ends->in, ends->mirror, ends->inject};
    assert_true(nic < machine.nnics);
    return fds[kind];
}

static int tear_down(void **state)
{
    (void)state;
    for (unsigned nic = 0; nic < NICS; nic++) {
        for (unsigned kind = 0; kind < KINDS; kind++) {
            if (nic < machine.nnics)
                close(end_of(nic, kind));
            if (now.fds[nic][kind])
                close(now.fds[nic][kind]);
        }
    }
    sink_clear(&sink);
    return 0;
}

/* Whether the replicator's end of this socket is closed. */
static bool is_closed(unsigned nic, unsigned kind)
{
    char byte;
    return recv(end_of(nic, kind), &byte, 1, 0) == 0;
}

static void assert_other_end_is(int fd, unsigned nic, unsigned kind)
{
    char sent = (char)('a' + nic * KINDS + kind), heard = 0;
    assert_int_equal(send(end_of(nic, kind), &sent, 1, 0), 1);
    assert_int_equal(recv(fd, &heard, 1, 0), 1);
    assert_int_equal(heard, sent);
}

static void test_each_socket_goes_where_it_belongs(void **state)
{
    (void)state;
    assert_true(guest_nics_connect(&nics));
    assert_int_equal(now.ngate, NICS);
    assert_int_equal(now.nlog, NICS);
    for (unsigned nic = 0; nic < NICS; nic++)
        for (unsigned kind = 0; kind < KINDS; kind++)
            assert_other_end_is(now.fds[nic][kind], nic, kind);
    assert_true(machine.mirrors);
    assert_null(sink_last_error(&sink));
}

static void test_a_vm_without_nics_connects_none(void **state)
{
    (void)state;
    nics.n = machine.config.nnics = 0;
    assert_true(guest_nics_connect(&nics));
    assert_int_equal(now.ngate, 0);
    assert_int_equal(machine.nnics, 0);
}

static void test_a_nic_that_is_not_there_is_an_error_in_the_machines_words(void **state)
{
    (void)state;
    fake_machine_faults.connect_nic = "the socket of NIC 0 cannot be reached";
    assert_false(guest_nics_connect(&nics));
    assert_string_equal(sink_last_error(&sink), "the socket of NIC 0 cannot be reached");
    assert_int_equal(now.ngate, 0);
    assert_false(machine.mirrors);
}

static void test_the_second_nics_fault_is_the_vms(void **state)
{
    (void)state;
    now.second_fault = "the socket of NIC 1 cannot be reached";
    assert_false(guest_nics_connect(&nics));
    assert_non_null(strstr(sink_last_error(&sink), "NIC 1"));
    assert_int_equal(now.ngate, 1); /* the first one's sockets are the gate's, and the log's */
    assert_int_equal(now.nlog, 1);
    assert_false(machine.mirrors);
}

static void test_too_many_nics_are_an_error_and_nothing_stays_open(void **state)
{
    (void)state;
    now.gate_status = -E2BIG;
    assert_false(guest_nics_connect(&nics));
    assert_non_null(strstr(sink_last_error(&sink), "network device 0"));
    assert_non_null(strstr(sink_last_error(&sink), "too many"));
    for (unsigned kind = 0; kind < KINDS; kind++)
        assert_true(is_closed(0, kind));
}

static void test_what_the_gate_has_taken_is_closed_by_nobody_else(void **state)
{
    (void)state;
    now.log_status = -ENOMEM;
    assert_false(guest_nics_connect(&nics));
    assert_non_null(strstr(sink_last_error(&sink), g_strerror(ENOMEM)));
    assert_false(is_closed(0, 0));
    assert_false(is_closed(0, 1));
    assert_true(is_closed(0, 2));
    assert_true(is_closed(0, 3));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_each_socket_goes_where_it_belongs),
        TEST(test_a_vm_without_nics_connects_none),
        TEST(test_a_nic_that_is_not_there_is_an_error_in_the_machines_words),
        TEST(test_the_second_nics_fault_is_the_vms),
        TEST(test_too_many_nics_are_an_error_and_nothing_stays_open),
        TEST(test_what_the_gate_has_taken_is_closed_by_nobody_else),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
