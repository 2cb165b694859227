/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The input log: copies carry the right epoch, and what the peer sends is bounded and checked. */
#include <endian.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>
#include <glib.h>

#include "replicator/network/frame_stream.h"
#include "replicator/network/input_log.h"

struct fixture {
    struct input_log *log;
    int mirror, inject; /* QEMU's ends */
    unsigned copies;
    uint64_t last_epoch;
    size_t copied_bytes;
};

static void on_copy(void *opaque, unsigned nic, uint64_t epoch, const uint8_t *frame, size_t len)
{
    struct fixture *fixture = opaque;
    assert_int_equal(nic, 0);
    assert_true(len > FRAME_HEAD_LEN && frame != NULL);
    fixture->copies++;
    fixture->last_epoch = epoch;
    fixture->copied_bytes += len;
}

static void open_log(struct fixture *fixture)
{
    int mirror[2], inject[2];
    memset(fixture, 0, sizeof *fixture);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, mirror), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, inject), 0);
    assert_int_equal(fcntl(mirror[1], F_SETFL, O_NONBLOCK), 0);
    fixture->log = input_log_new(on_copy, fixture);
    fixture->mirror = mirror[0];
    fixture->inject = inject[0];
    assert_int_equal(input_log_add_nic(fixture->log, mirror[1], inject[1]), 0);
}

static void close_log(struct fixture *fixture)
{
    input_log_free(fixture->log);
    close(fixture->mirror);
    close(fixture->inject);
}

/* A frame of len bytes with its head before it, all of them mark. */
static size_t make_frame(uint8_t *at, uint32_t len, uint8_t mark)
{
    uint32_t head = htobe32(len);
    memcpy(at, &head, sizeof head);
    memset(at + FRAME_HEAD_LEN, mark, len);
    return FRAME_HEAD_LEN + len;
}

static void guest_receives(struct fixture *fixture, uint32_t len)
{
    static uint8_t bytes[FRAME_HEAD_LEN + 65536];
    size_t n = make_frame(bytes, len, 7);
    assert_int_equal(write(fixture->mirror, bytes, n), n);
    while (g_main_context_iteration(NULL, FALSE)) {
    }
}

/* What QEMU is given: the marks of the frames, in order. */
static size_t injected(struct fixture *fixture, uint8_t *marks, size_t capacity)
{
    static uint8_t bytes[1u << 20];
    size_t n = 0, at = 0;
    ssize_t len = recv(fixture->inject, bytes, sizeof bytes, MSG_DONTWAIT);
    while (len > 0 && at < (size_t)len) {
        uint32_t head;
        memcpy(&head, bytes + at, sizeof head);
        assert_true(n < capacity);
        marks[n++] = bytes[at + FRAME_HEAD_LEN];
        at += FRAME_HEAD_LEN + be32toh(head);
    }
    return n;
}

static void test_a_copy_belongs_to_the_epoch_in_which_the_guest_received_it(void **state)
{
    (void)state;
    struct fixture fixture;
    open_log(&fixture);
    guest_receives(&fixture, 60);
    assert_int_equal(fixture.copies, 0); /* not wanted yet */
    input_log_set_active(fixture.log, true);
    input_log_boundary(fixture.log, 4);
    guest_receives(&fixture, 60);
    assert_int_equal(fixture.last_epoch, 5);
    input_log_boundary(fixture.log, 5);
    guest_receives(&fixture, 60);
    assert_int_equal(fixture.last_epoch, 6);
    assert_int_equal(fixture.copies, 2);
    close_log(&fixture);
}

static void test_a_flood_costs_the_link_no_more_than_the_first_frames_of_each_epoch(void **state)
{
    (void)state;
    struct fixture fixture;
    open_log(&fixture);
    input_log_set_active(fixture.log, true);
    input_log_boundary(fixture.log, 1);
    for (unsigned i = 0; i < 1000; i++)
        guest_receives(&fixture, 60);
    assert_int_equal(fixture.copies, 64);
    input_log_boundary(fixture.log, 2);
    fixture.copied_bytes = 0;
    for (unsigned i = 0; i < 10; i++)
        guest_receives(&fixture, 20000);
    assert_true(fixture.copied_bytes > 0 && fixture.copied_bytes <= 64u << 10);
    close_log(&fixture);
}

static void test_only_frames_after_the_resumed_epoch_are_given_again_in_order(void **state)
{
    (void)state;
    struct fixture fixture;
    uint8_t frame[64], marks[16];
    open_log(&fixture);
    for (uint8_t epoch = 1; epoch <= 4; epoch++)
        input_log_received(fixture.log, 0, epoch, frame, make_frame(frame, 60, epoch));
    input_log_acked(fixture.log, 2);
    input_log_inject(fixture.log);
    assert_int_equal(injected(&fixture, marks, sizeof marks), 2);
    assert_int_equal(marks[0], 3);
    assert_int_equal(marks[1], 4);
    input_log_inject(fixture.log); /* once */
    assert_int_equal(injected(&fixture, marks, sizeof marks), 0);
    input_log_received(fixture.log, 0, 9, frame, make_frame(frame, 60, 9));
    input_log_reset(fixture.log);
    input_log_inject(fixture.log);
    assert_int_equal(injected(&fixture, marks, sizeof marks), 0);
    close_log(&fixture);
}

static void test_what_a_peer_sends_that_is_no_frame_is_thrown_away(void **state)
{
    (void)state;
    struct fixture fixture;
    uint8_t frame[128] = {0}, marks[4];
    open_log(&fixture);
    size_t len = make_frame(frame, 60, 1);
    for (size_t wrong = 0; wrong <= sizeof frame; wrong++) {
        if (wrong != len)
            input_log_received(fixture.log, 0, 1, frame, wrong);
    }
    input_log_received(fixture.log, 1, 1, frame, len); /* no such NIC */
    input_log_received(fixture.log, UINT32_MAX, 1, frame, len);
    input_log_inject(fixture.log);
    assert_int_equal(injected(&fixture, marks, sizeof marks), 0);
    close_log(&fixture);
}

static void test_a_peer_that_sends_without_end_fills_bounded_memory(void **state)
{
    (void)state;
    struct fixture fixture;
    static uint8_t frame[FRAME_HEAD_LEN + 1500], marks[1000];
    open_log(&fixture);
    size_t len = make_frame(frame, 1500, 1);
    for (unsigned i = 0; i < 10000; i++)
        input_log_received(fixture.log, 0, 1, frame, len);
    input_log_inject(fixture.log);
    size_t n = injected(&fixture, marks, sizeof marks);
    assert_true(n > 0 && n * len <= 256u << 10);
    close_log(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_copy_belongs_to_the_epoch_in_which_the_guest_received_it),
        cmocka_unit_test(test_a_flood_costs_the_link_no_more_than_the_first_frames_of_each_epoch),
        cmocka_unit_test(test_only_frames_after_the_resumed_epoch_are_given_again_in_order),
        cmocka_unit_test(test_what_a_peer_sends_that_is_no_frame_is_thrown_away),
        cmocka_unit_test(test_a_peer_that_sends_without_end_fills_bounded_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
