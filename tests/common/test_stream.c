/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Plain streams: what they return when there is nothing, an end, and when the other end is gone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/stream.h"

static struct stream *stream;
static int other;

static int set_up(void **state)
{
    int fds[2];
    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    stream = stream_new_plain(fds[0]);
    other = fds[1];
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    int fd = stream ? stream->fd : -1;
    stream_close(stream);
    assert_true(fd < 0 || fcntl(fd, F_GETFD) < 0); /* closed */
    if (other >= 0)
        close(other);
    return 0;
}

static void test_bytes_pass_and_nothing_is_again(void **state)
{
    char bytes[8];
    (void)state;
    assert_int_equal(stream_handshake(stream), 1);
    assert_null(stream->key);
    assert_int_equal(stream_read(stream, bytes, sizeof bytes), -EAGAIN);
    assert_int_equal(stream->wants, POLLIN);
    assert_int_equal(send(other, "abc", 3, 0), 3);
    assert_int_equal(stream_read(stream, bytes, sizeof bytes), 3);
    assert_memory_equal(bytes, "abc", 3);
    assert_int_equal(stream_write(stream, "xyz", 3), 3);
    assert_int_equal(recv(other, bytes, sizeof bytes, 0), 3);
    assert_memory_equal(bytes, "xyz", 3);
}

static void test_an_end_is_zero_and_a_gone_reader_an_error_without_a_signal(void **state)
{
    char byte;
    (void)state;
    close(other);
    other = -1;
    assert_int_equal(stream_read(stream, &byte, 1), 0);
    assert_int_equal(stream_write(stream, "x", 1), -EPIPE);
}

static void test_a_full_socket_wants_to_be_written_later(void **state)
{
    static char bytes[65536];
    ssize_t n;
    (void)state;
    while ((n = stream_write(stream, bytes, sizeof bytes)) > 0)
        continue;
    assert_int_equal(n, -EAGAIN);
    assert_int_equal(stream->wants, POLLOUT);
    assert_int_equal(stream_wait(stream, 0, 0), 0);
    while (recv(other, bytes, sizeof bytes, MSG_DONTWAIT) > 0)
        continue;
    assert_int_equal(stream_wait(stream, 0, 1000), 1);
    assert_true(stream_write(stream, bytes, 1) == 1);
}

static void test_waiting_ends_by_what_comes_or_by_the_time(void **state)
{
    (void)state;
    assert_int_equal(stream_wait(stream, POLLIN, 1), 0);
    assert_int_equal(stream_wait(stream, POLLOUT, 1), 1);
    assert_int_equal(send(other, "a", 1, 0), 1);
    assert_int_equal(stream_wait(stream, POLLIN, 10000), 1);
}

/* A handshake that never ends, and one that goes on by itself. */
static int nsteps;

static int slow_handshake(struct stream *slow)
{
    slow->wants = POLLOUT;
    return ++nsteps < 3 ? -EAGAIN : 1;
}

static int silent_handshake(struct stream *silent)
{
    silent->wants = POLLIN;
    return -EAGAIN;
}

static int broken_handshake(struct stream *broken)
{
    (void)broken;
    return -EPROTO;
}

static void test_a_handshake_is_done_or_given_up(void **state)
{
    struct stream_ops ops = {.handshake = slow_handshake};
    struct stream one = {.ops = &ops, .fd = stream->fd};
    gint64 now_us = g_get_monotonic_time();
    (void)state;
    assert_int_equal(stream_handshake_until(&one, now_us + 10 * G_USEC_PER_SEC), 0);
    assert_int_equal(nsteps, 3);
    ops.handshake = broken_handshake;
    assert_int_equal(stream_handshake_until(&one, now_us + 10 * G_USEC_PER_SEC), -EPROTO);
    ops.handshake = silent_handshake;
    now_us = g_get_monotonic_time();
    assert_int_equal(stream_handshake_until(&one, now_us + 20000), -ETIMEDOUT);
    assert_true(g_get_monotonic_time() >= now_us + 20000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_bytes_pass_and_nothing_is_again, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_an_end_is_zero_and_a_gone_reader_an_error_without_a_signal,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_full_socket_wants_to_be_written_later, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_waiting_ends_by_what_comes_or_by_the_time, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_handshake_is_done_or_given_up, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
