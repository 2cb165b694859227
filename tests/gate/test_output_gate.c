/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The output gate between two socket pairs that stand for QEMU. Every frame says which epoch it was sent in,
 * so that invariant I1 (no frame leaves before its epoch is released) is checked on the frames themselves.
 * The last tests take a boundary at the wrong moment on purpose: the checks must notice.
 */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>
#include <glib.h>

#include "replicator/network/frame_stream.h"
#include "replicator/network/output_gate.h"

#define HOLD_LEN (8u << 20)

struct frame {
    uint32_t head; /* big-endian: what follows */
    uint32_t sequence;
    uint64_t epoch;
    uint8_t padding[100];
} __attribute__((packed));
#define FRAME_LEN sizeof(struct frame)

/* One NIC as QEMU has it. */
struct nic {
    struct output_gate *gate;
    int out, in; /* QEMU's ends */
    uint32_t sent, received;
    struct frame partial; /* a frame may come in pieces */
    size_t have;
};

static void pair(int fds[2])
{
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
}

static void open_nic(struct nic *nic, struct output_gate *gate)
{
    int out[2], in[2];
    memset(nic, 0, sizeof *nic);
    pair(out);
    pair(in);
    nic->gate = gate;
    nic->out = out[0];
    nic->in = in[0];
    assert_int_equal(fcntl(out[1], F_SETFL, O_NONBLOCK), 0);
    assert_int_equal(gate_add_nic(gate, out[1], in[1]), 0);
}

static void open_gate(struct nic *nic, uint32_t hold_len)
{
    struct output_gate *gate = gate_new(hold_len);
    assert_non_null(gate);
    open_nic(nic, gate);
}

static void close_gate(struct nic *nic)
{
    gate_free(nic->gate);
    close(nic->out);
    close(nic->in);
}

static void send_frame(struct nic *nic, uint64_t epoch)
{
    struct frame frame = {
        .head = htobe32(FRAME_LEN - FRAME_HEAD_LEN), .sequence = nic->sent++, .epoch = epoch};
    assert_int_equal(write(nic->out, &frame, sizeof frame), sizeof frame);
}

/* Lets the gate do all that it can do now. */
static void settle(void)
{
    while (g_main_context_iteration(NULL, FALSE)) {
    }
}

/* The next whole frame that left the gate. */
static bool take_frame(struct nic *nic, struct frame *out)
{
    ssize_t n = recv(nic->in, (uint8_t *)&nic->partial + nic->have, FRAME_LEN - nic->have, MSG_DONTWAIT);
    if (n <= 0)
        return false;
    nic->have += (size_t)n;
    if (nic->have < FRAME_LEN)
        return false;
    nic->have = 0;
    *out = nic->partial;
    assert_int_equal(be32toh(out->head), FRAME_LEN - FRAME_HEAD_LEN);
    return true;
}

/* Takes what came out, in order and without a gap; how many, and how many were too early. */
static unsigned take_all(struct nic *nic, uint64_t released, unsigned *early)
{
    struct frame frame;
    unsigned n = 0;
    settle();
    while (take_frame(nic, &frame)) {
        assert_int_equal(frame.sequence, nic->received++);
        if (frame.epoch > released && early)
            ++*early;
        n++;
        settle();
    }
    return n;
}

static void assert_comes_out(struct nic *nic, unsigned n)
{
    assert_int_equal(take_all(nic, UINT64_MAX, NULL), n);
}

/* ---- modes ---- */

static void test_frames_pass_until_told_to_hold(void **state)
{
    (void)state;
    struct nic nic;
    open_gate(&nic, HOLD_LEN);
    send_frame(&nic, 0);
    assert_comes_out(&nic, 1);
    gate_hold(nic.gate);
    send_frame(&nic, 1);
    assert_comes_out(&nic, 0);
    gate_pass_all(nic.gate);
    assert_comes_out(&nic, 1);
    send_frame(&nic, 1);
    assert_comes_out(&nic, 1);
    close_gate(&nic);
}

static void test_frames_of_an_epoch_leave_with_its_release_and_not_a_frame_more(void **state)
{
    (void)state;
    struct nic nic;
    struct gate_stats stats;
    open_gate(&nic, HOLD_LEN);
    gate_hold(nic.gate);
    for (uint64_t epoch = 1; epoch <= 3; epoch++) {
        for (unsigned i = 0; i < 2 * epoch; i++)
            send_frame(&nic, epoch);
        if (epoch == 2)
            settle(); /* the gate may have read the frames by the time of the boundary, or not */
        gate_boundary(nic.gate, epoch);
    }
    assert_comes_out(&nic, 0);
    gate_get_stats(nic.gate, &stats);
    assert_int_equal(stats.bytes_held, 12 * FRAME_LEN);
    gate_release(nic.gate, 1);
    assert_comes_out(&nic, 2);
    gate_release(nic.gate, 1);
    assert_comes_out(&nic, 0);
    gate_release(nic.gate, 3); /* and so the second with it */
    assert_comes_out(&nic, 10);
    gate_release(nic.gate, 2); /* late: nothing goes back */
    send_frame(&nic, 4);
    assert_comes_out(&nic, 0);
    gate_get_stats(nic.gate, &stats);
    assert_int_equal(stats.frames_released, 12);
    assert_int_equal(stats.frames_dropped, 0);
    assert_int_equal(stats.bytes_held, FRAME_LEN);
    close_gate(&nic);
}

static void test_releasing_an_epoch_that_was_never_cut_releases_nothing(void **state)
{
    (void)state;
    struct nic nic;
    open_gate(&nic, HOLD_LEN);
    gate_hold(nic.gate);
    send_frame(&nic, 1);
    gate_boundary(nic.gate, 1);
    send_frame(&nic, 2);
    settle();
    gate_release(nic.gate, 2);
    gate_release(nic.gate, 1 + FRAME_STREAM_EPOCHS); /* the slot of 1, but not its boundary */
    assert_comes_out(&nic, 0);
    gate_release(nic.gate, 1);
    assert_comes_out(&nic, 1);
    close_gate(&nic);
}

/* The release is what counts: frames that the gate has not even read yet go with it when they come. */
static void test_a_release_before_the_gate_has_read_the_frames_lets_them_out(void **state)
{
    (void)state;
    struct nic nic;
    open_gate(&nic, HOLD_LEN);
    gate_hold(nic.gate);
    send_frame(&nic, 1);
    gate_boundary(nic.gate, 1);
    gate_release(nic.gate, 1);
    send_frame(&nic, 2);
    assert_comes_out(&nic, 1);
    close_gate(&nic);
}

static void test_a_frame_cut_by_the_boundary_belongs_to_the_later_epoch(void **state)
{
    (void)state;
    struct nic nic;
    open_gate(&nic, HOLD_LEN);
    gate_hold(nic.gate);
    struct frame frame = {.head = htobe32(FRAME_LEN - FRAME_HEAD_LEN), .sequence = 0, .epoch = 2};
    for (size_t at = 0; at < FRAME_LEN; at++) {
        assert_int_equal(write(nic.out, (uint8_t *)&frame + at, 1), 1);
        if (at % 3 == 0)
            settle();
        if (at == FRAME_LEN - 2)
            gate_boundary(nic.gate, 1);
    }
    gate_boundary(nic.gate, 2);
    settle();
    gate_release(nic.gate, 1);
    assert_comes_out(&nic, 0);
    gate_release(nic.gate, 2);
    assert_comes_out(&nic, 1);
    close_gate(&nic);
}

static void test_dropping_throws_away_what_is_held_and_what_follows(void **state)
{
    (void)state;
    struct nic nic;
    struct gate_stats stats;
    open_gate(&nic, HOLD_LEN);
    gate_hold(nic.gate);
    send_frame(&nic, 1);
    gate_boundary(nic.gate, 1);
    settle();
    gate_drop(nic.gate);
    send_frame(&nic, 2);
    settle();
    gate_release(nic.gate, 1);
    assert_comes_out(&nic, 0);
    gate_get_stats(nic.gate, &stats);
    assert_int_equal(stats.frames_dropped, 2);
    assert_int_equal(stats.frames_released, 0);
    assert_int_equal(stats.bytes_held, 0);
    close_gate(&nic);
}

static void test_a_full_hold_drops_the_newest_frames_and_keeps_the_oldest(void **state)
{
    (void)state;
    struct nic nic;
    struct gate_stats stats;
    open_gate(&nic, 10 * FRAME_LEN + 50);
    gate_hold(nic.gate);
    for (unsigned round = 1; round <= 5; round++) { /* again and again: the ring wraps inside frames */
        nic.sent = nic.received;
        for (unsigned i = 0; i < 15; i++)
            send_frame(&nic, round);
        settle();
        gate_boundary(nic.gate, round);
        gate_get_stats(nic.gate, &stats);
        assert_int_equal(stats.bytes_held, 10 * FRAME_LEN);
        assert_int_equal(stats.frames_dropped, 5 * round);
        gate_release(nic.gate, round);
        assert_comes_out(&nic, 10); /* in sequence from the oldest: take_all looks */
    }
    close_gate(&nic);
}

static void test_a_qemu_that_does_not_read_gets_every_frame_whole_later(void **state)
{
    (void)state;
    struct nic nic;
    open_gate(&nic, HOLD_LEN);
    gate_hold(nic.gate);
    enum { N = 5000 }; /* more than its socket takes */
    for (unsigned i = 0; i < N; i++) {
        send_frame(&nic, 1);
        if (i % 64 == 0)
            settle();
    }
    gate_boundary(nic.gate, 1);
    settle();
    gate_release(nic.gate, 1);
    settle();
    struct gate_stats stats;
    gate_get_stats(nic.gate, &stats);
    assert_true(stats.frames_released < N);
    unsigned n = 0, more;
    while ((more = take_all(&nic, 1, NULL)) > 0)
        n += more;
    assert_int_equal(n, N);
    close_gate(&nic);
}

static void test_each_nic_has_its_own_boundary(void **state)
{
    (void)state;
    struct nic a, b;
    open_gate(&a, HOLD_LEN);
    open_nic(&b, a.gate);
    gate_hold(a.gate);
    send_frame(&a, 1);
    gate_boundary(a.gate, 1);
    send_frame(&a, 2);
    send_frame(&b, 2);
    gate_boundary(a.gate, 2);
    gate_release(a.gate, 1);
    assert_comes_out(&a, 1);
    assert_comes_out(&b, 0);
    gate_release(a.gate, 2);
    assert_comes_out(&a, 1);
    assert_comes_out(&b, 1);
    close(b.out);
    close(b.in);
    close_gate(&a);
}

static void test_bytes_that_are_no_frames_cut_the_nic_off(void **state)
{
    (void)state;
    static const uint32_t heads[] = {0, FRAME_MAX_LEN + 1, UINT32_MAX};
    for (size_t i = 0; i < G_N_ELEMENTS(heads); i++) {
        struct nic nic;
        open_gate(&nic, HOLD_LEN);
        uint32_t head = htobe32(heads[i]);
        send_frame(&nic, 1);
        assert_int_equal(write(nic.out, &head, sizeof head), sizeof head);
        assert_comes_out(&nic, 1);
        send_frame(&nic, 1);
        assert_comes_out(&nic, 0);
        close_gate(&nic);
    }
}

static void test_more_nics_than_there_may_be_are_refused(void **state)
{
    (void)state;
    struct nic nics[GATE_MAX_NICS];
    open_gate(&nics[0], 4096);
    for (unsigned i = 1; i < GATE_MAX_NICS; i++)
        open_nic(&nics[i], nics[0].gate);
    int spare[2];
    pair(spare);
    assert_int_equal(gate_add_nic(nics[0].gate, spare[0], spare[1]), -E2BIG);
    close(spare[0]);
    close(spare[1]);
    for (unsigned i = 1; i < GATE_MAX_NICS; i++) {
        close(nics[i].out);
        close(nics[i].in);
    }
    close_gate(&nics[0]);
}

/* ---- a guest that runs meanwhile ---- */

#define EPOCHS  1000u
#define MAX_LAG 32u /* well below FRAME_STREAM_EPOCHS, as the staging ring sees to in earnest */

enum fault { FAULT_NONE, FAULT_LATE_BOUNDARY, FAULT_EARLY_BOUNDARY };

struct guest {
    struct nic *nic;
    enum fault fault;
    _Atomic uint64_t cut, released;
};

/* Guest and capture thread in one: nothing is sent while the boundary is taken, as in the pause. */
static void *run_guest(void *opaque)
{
    struct guest *guest = opaque;
    unsigned seed = 1;
    for (uint64_t epoch = 1; epoch <= EPOCHS; epoch++) {
        while (epoch > atomic_load(&guest->released) + MAX_LAG)
            sched_yield();
        if (guest->fault == FAULT_EARLY_BOUNDARY)
            gate_boundary(guest->nic->gate, epoch);
        for (int n = rand_r(&seed) % 8; n >= 0; n--)
            send_frame(guest->nic, epoch);
        if (guest->fault == FAULT_LATE_BOUNDARY)
            send_frame(guest->nic, epoch + 1); /* the guest went on before the boundary was taken */
        if (guest->fault != FAULT_EARLY_BOUNDARY)
            gate_boundary(guest->nic->gate, epoch);
        atomic_store(&guest->cut, epoch);
    }
    return NULL;
}

struct verdict {
    unsigned early;       /* frames that came out before their epoch was released: I1 broken */
    unsigned left_behind; /* frames that did not come out with the last release */
};

static struct verdict run(enum fault fault)
{
    struct nic nic;
    struct verdict verdict = {0};
    pthread_t thread;
    unsigned seed = 2;
    open_gate(&nic, HOLD_LEN);
    gate_hold(nic.gate);
    struct guest guest = {.nic = &nic, .fault = fault};
    assert_int_equal(pthread_create(&thread, NULL, run_guest, &guest), 0);
    uint64_t released = 0;
    while (released < EPOCHS) {
        uint64_t cut = atomic_load(&guest.cut);
        take_all(&nic, released, &verdict.early);
        if (cut > released) {
            released += 1 + (unsigned)rand_r(&seed) % (unsigned)(cut - released);
            gate_release(nic.gate, released);
            atomic_store(&guest.released, released);
        }
    }
    pthread_join(thread, NULL);
    while (take_all(&nic, released, &verdict.early) > 0) {
    }
    verdict.left_behind = nic.sent - nic.received;
    struct gate_stats stats;
    gate_get_stats(nic.gate, &stats);
    assert_int_equal(stats.frames_dropped, 0);
    close_gate(&nic);
    return verdict;
}

static void test_no_frame_of_a_running_guest_leaves_before_its_epoch_is_released(void **state)
{
    (void)state;
    struct verdict verdict = run(FAULT_NONE);
    assert_int_equal(verdict.early, 0);
    assert_int_equal(verdict.left_behind, 0);
}

static void test_the_check_notices_a_boundary_taken_after_the_guest_went_on(void **state)
{
    (void)state;
    assert_true(run(FAULT_LATE_BOUNDARY).early > 0);
}

static void test_the_check_notices_a_boundary_taken_before_the_frames_are_written(void **state)
{
    (void)state;
    struct verdict verdict = run(FAULT_EARLY_BOUNDARY);
    assert_int_equal(verdict.early, 0); /* held too long, but never let out */
    assert_true(verdict.left_behind > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_frames_pass_until_told_to_hold),
        cmocka_unit_test(test_frames_of_an_epoch_leave_with_its_release_and_not_a_frame_more),
        cmocka_unit_test(test_releasing_an_epoch_that_was_never_cut_releases_nothing),
        cmocka_unit_test(test_a_release_before_the_gate_has_read_the_frames_lets_them_out),
        cmocka_unit_test(test_a_frame_cut_by_the_boundary_belongs_to_the_later_epoch),
        cmocka_unit_test(test_dropping_throws_away_what_is_held_and_what_follows),
        cmocka_unit_test(test_a_full_hold_drops_the_newest_frames_and_keeps_the_oldest),
        cmocka_unit_test(test_a_qemu_that_does_not_read_gets_every_frame_whole_later),
        cmocka_unit_test(test_each_nic_has_its_own_boundary),
        cmocka_unit_test(test_bytes_that_are_no_frames_cut_the_nic_off),
        cmocka_unit_test(test_more_nics_than_there_may_be_are_refused),
        cmocka_unit_test(test_no_frame_of_a_running_guest_leaves_before_its_epoch_is_released),
        cmocka_unit_test(test_the_check_notices_a_boundary_taken_after_the_guest_went_on),
        cmocka_unit_test(test_the_check_notices_a_boundary_taken_before_the_frames_are_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
