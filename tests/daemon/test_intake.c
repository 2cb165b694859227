/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Who gets in at a socket of the daemon, and who does not; with real sockets, on the main loop. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <gio/gio.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/stream.h"
#include "daemon/intake.h"
#include "proto/answer.h"
#include "proto/framing.h"
#include "tests/daemon/entries.h"

#define NWAITING 4
#define NSERVED  2

static gint held; /* while it is 1, requests are being served and no answer leaves */
static gint nserving;

static void serve(struct stream *stream, const char *address, const Understudy__Envelope *request)
{
    Understudy__Answer body = UNDERSTUDY__ANSWER__INIT;
    g_atomic_int_inc(&nserving);
    while (g_atomic_int_get(&held))
        g_usleep(1000);
    body.ok = request->body_case == UNDERSTUDY__ENVELOPE__BODY_HOST_REQUEST;
    body.message = (char *)address;
    Understudy__Envelope envelope = UNDERSTUDY_ENVELOPE(ANSWER, answer, &body);
    framing_write(stream, &envelope, 5000, NULL);
    g_atomic_int_add(&nserving, -1);
}

static struct intake_rules rules;
static unsigned nthreads_before;
static struct intake *intake;
static struct sockaddr_in listens_at;

static void open_intake(unsigned request_ms)
{
    nthreads_before = entries_of("/proc/self/task");
    socklen_t len = sizeof listens_at;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    listens_at = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_int_equal(bind(fd, (struct sockaddr *)&listens_at, sizeof listens_at), 0);
    assert_int_equal(listen(fd, 128), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&listens_at, &len), 0);
    rules = (struct intake_rules){.what = "test",
                                  .max_waiting = NWAITING,
                                  .max_served = NSERVED,
                                  .request_ms = request_ms,
                                  .serve = serve};
    intake = intake_new(fd, &rules);
}

/* Its threads are gone too. */
static void close_intake(void)
{
    g_clear_pointer(&intake, intake_free);
    while (entries_of("/proc/self/task") > nthreads_before)
        g_usleep(1000);
}

/* What the main loop has to do now. */
static void settle(void)
{
    while (g_main_context_iteration(NULL, FALSE))
        ;
}

static int connect_from(const char *address)
{
    struct sockaddr_in from = {.sin_family = AF_INET};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    inet_pton(AF_INET, address, &from.sin_addr);
    assert_int_equal(bind(fd, (struct sockaddr *)&from, sizeof from), 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&listens_at, sizeof listens_at), 0);
    settle();
    return fd;
}

static void ask(int fd)
{
    Understudy__HostRequest host = UNDERSTUDY__HOST_REQUEST__INIT;
    Understudy__Envelope request = UNDERSTUDY_ENVELOPE(HOST_REQUEST, host_request, &host);
    assert_true(framing_write(STREAM_FD(fd), &request, 5000, NULL));
}

static bool readable(int fd)
{
    struct pollfd pfd = {.fd = fd, .events = POLLIN};
    return poll(&pfd, 1, 0) == 1;
}

/* Iterates the main loop until the other end says something, and closes. The answer, or NULL. */
static Understudy__Envelope *read_answer(int fd)
{
    while (!readable(fd)) {
        g_main_context_iteration(NULL, FALSE);
        g_usleep(1000);
    }
    Understudy__Envelope *answer = framing_read(STREAM_FD(fd), 5000, NULL);
    close(fd);
    return answer;
}

static void assert_answered(int fd, bool ok, const char *says)
{
    Understudy__Envelope *answer = read_answer(fd);
    assert_non_null(answer);
    assert_int_equal(answer->body_case, UNDERSTUDY__ENVELOPE__BODY_ANSWER);
    assert_int_equal(answer->answer->ok, ok);
    assert_non_null(strstr(answer->answer->message, says));
    understudy__envelope__free_unpacked(answer, NULL);
}

static void test_a_request_is_served_and_the_address_is_told(void **state)
{
    (void)state;
    open_intake(60000);
    int fd = connect_from("127.0.0.3");
    ask(fd);
    assert_answered(fd, true, "127.0.0.3");
    close_intake();
}

static void test_silent_connections_have_no_thread_and_keep_nobody_out(void **state)
{
    int silent[3 * NWAITING];
    (void)state;
    open_intake(60000);
    unsigned before = entries_of("/proc/self/task");
    for (size_t i = 0; i < G_N_ELEMENTS(silent); i++)
        silent[i] = connect_from("127.0.0.1");
    assert_int_equal(entries_of("/proc/self/task"), before);
    int fd = connect_from("127.0.0.1");
    ask(fd);
    assert_answered(fd, true, "");
    /* The oldest went, the youngest wait on. */
    assert_true(readable(silent[0]));
    assert_false(readable(silent[G_N_ELEMENTS(silent) - 1]));
    for (size_t i = 0; i < G_N_ELEMENTS(silent); i++)
        close(silent[i]);
    close_intake();
}

static void test_a_crowd_from_one_address_pushes_out_its_own(void **state)
{
    int crowd[3 * NWAITING];
    (void)state;
    open_intake(60000);
    int other = connect_from("127.0.0.2");
    for (size_t i = 0; i < G_N_ELEMENTS(crowd); i++)
        crowd[i] = connect_from("127.0.0.1");
    assert_false(readable(other));
    ask(other);
    assert_answered(other, true, "127.0.0.2");
    for (size_t i = 0; i < G_N_ELEMENTS(crowd); i++)
        close(crowd[i]);
    close_intake();
}

/* A byte now and then does not put the end off. */
static void test_a_slow_request_ends(void **state)
{
    (void)state;
    open_intake(200);
    int fd = connect_from("127.0.0.1");
    guint8 length[4] = {64};
    assert_int_equal(send(fd, length, sizeof length, 0), sizeof length);
    while (!readable(fd)) {
        (void)!send(fd, "", 1, MSG_NOSIGNAL);
        g_main_context_iteration(NULL, FALSE);
        g_usleep(20000);
    }
    guint8 byte;
    assert_true(recv(fd, &byte, 1, 0) <= 0);
    close(fd);
    close_intake();
}

static void test_nonsense_ends_the_connection(void **state)
{
    (void)state;
    open_intake(60000);
    int fd = connect_from("127.0.0.1");
    assert_int_equal(send(fd, "SSH-2.0-OpenSSH_9\r\n", 19, 0), 19);
    assert_null(read_answer(fd));
    close_intake();
}

static void test_too_many_requests_at_a_time_are_told_so(void **state)
{
    int busy[NSERVED];
    (void)state;
    open_intake(60000);
    g_atomic_int_set(&held, 1);
    for (size_t i = 0; i < NSERVED; i++) {
        busy[i] = connect_from("127.0.0.1");
        ask(busy[i]);
    }
    while (g_atomic_int_get(&nserving) < NSERVED) {
        settle();
        g_usleep(1000);
    }
    int fd = connect_from("127.0.0.1");
    ask(fd);
    assert_answered(fd, false, "try again");
    g_atomic_int_set(&held, 0);
    for (size_t i = 0; i < NSERVED; i++)
        assert_answered(busy[i], true, "127.0.0.1");
    close_intake();
}

static bool admit_nobody(int fd)
{
    return fd < 0;
}

static void test_who_may_not_is_not_let_in(void **state)
{
    (void)state;
    open_intake(60000);
    rules.admit = admit_nobody;
    int fd = connect_from("127.0.0.1");
    assert_null(read_answer(fd));
    close_intake();
}

/* ---- with a handshake: one byte, 'k' of a known host, 's' of a stranger ---- */

#define NKNOWN 3

static const uint8_t some_key[STREAM_KEY_LEN];
static unsigned nstreams, nstrangers;

static int greet(struct stream *stream)
{
    char byte;
    ssize_t n = recv(stream->fd, &byte, 1, MSG_DONTWAIT);
    if (n < 0) {
        stream->wants = POLLIN;
        return -EAGAIN;
    }
    stream->why = "it said something else";
    if (n == 0 || (byte != 'k' && byte != 's'))
        return n == 0 ? -EPIPE : -EPROTO;
    stream->key = byte == 'k' ? some_key : NULL;
    return 1;
}

static ssize_t read_plain(struct stream *stream, void *data, size_t len)
{
    return stream_read(STREAM_FD(stream->fd), data, len);
}

static ssize_t write_plain(struct stream *stream, const void *data, size_t len)
{
    return stream_write(STREAM_FD(stream->fd), data, len);
}

static void release(struct stream *stream)
{
    nstreams--;
    g_free(stream);
}

static struct stream *open_stream(int fd)
{
    static const struct stream_ops ops = {
        .handshake = greet, .read = read_plain, .write = write_plain, .release = release};
    struct stream *stream = g_new0(struct stream, 1);
    stream->ops = &ops;
    stream->fd = fd;
    nstreams++;
    return stream;
}

static bool is_known(const struct stream *stream)
{
    return stream->key != NULL;
}

static void serve_stranger(struct stream *stream, const char *address, const Understudy__Envelope *request)
{
    assert_string_equal(address, "127.0.0.1");
    assert_int_equal(request->body_case, UNDERSTUDY__ENVELOPE__BODY_HOST_REQUEST);
    nstrangers++;
    answer_write(stream, false, "stranger", 0);
}

static void open_with_handshake(unsigned handshake_ms, unsigned request_ms)
{
    open_intake(request_ms);
    rules.max_known = NKNOWN;
    rules.handshake_ms = handshake_ms;
    rules.open = open_stream;
    rules.knows = is_known;
    rules.serve_stranger = serve_stranger;
    nstreams = nstrangers = 0;
}

static int connect_as(const char *address, char who)
{
    int fd = connect_from(address);
    assert_int_equal(send(fd, &who, 1, 0), 1);
    settle();
    return fd;
}

static void assert_all_gone(void)
{
    close_intake();
    assert_int_equal(nstreams, 0);
}

static void test_a_known_host_is_served_after_its_handshake(void **state)
{
    (void)state;
    open_with_handshake(60000, 60000);
    int fd = connect_as("127.0.0.1", 'k');
    assert_false(readable(fd));
    ask(fd);
    assert_answered(fd, true, "127.0.0.1");
    assert_int_equal(nstrangers, 0);
    assert_all_gone();
}

static void test_a_handshake_and_a_request_in_one_packet_are_both_taken(void **state)
{
    const guint8 bytes[] = {'k', 2, 0, 0, 0, 0x62, 0}; /* Envelope{host_request: {}} */
    (void)state;
    open_with_handshake(60000, 60000);
    int fd = connect_from("127.0.0.1");
    assert_int_equal(send(fd, bytes, sizeof bytes, 0), sizeof bytes);
    assert_answered(fd, true, "127.0.0.1");
    assert_all_gone();
}

static void test_a_crowd_without_a_handshake_does_not_push_known_hosts_out(void **state)
{
    int crowd[5 * NWAITING], known[NKNOWN];
    (void)state;
    open_with_handshake(60000, 60000);
    for (size_t i = 0; i < NKNOWN; i++)
        known[i] = connect_as("127.0.0.1", 'k'); /* the crowd's own address */
    for (size_t i = 0; i < G_N_ELEMENTS(crowd); i++)
        crowd[i] = connect_as("127.0.0.1", i % 2 ? 's' : ' ');
    assert_true(nstreams <= NWAITING + NKNOWN);
    for (size_t i = 0; i < NKNOWN; i++) {
        assert_false(readable(known[i]));
        ask(known[i]);
        assert_answered(known[i], true, "127.0.0.1");
    }
    for (size_t i = 0; i < G_N_ELEMENTS(crowd); i++)
        close(crowd[i]);
    assert_all_gone();
}

static void test_known_hosts_have_a_limit_of_their_own(void **state)
{
    int known[NKNOWN + 1];
    (void)state;
    open_with_handshake(60000, 60000);
    int other = connect_as("127.0.0.2", 'k');
    for (size_t i = 0; i < G_N_ELEMENTS(known); i++)
        known[i] = connect_as("127.0.0.1", 'k');
    assert_true(readable(known[0])); /* closed: its address has the most */
    assert_false(readable(other));
    assert_int_equal(nstreams, NKNOWN);
    for (size_t i = 0; i < G_N_ELEMENTS(known); i++)
        close(known[i]);
    close(other);
    assert_all_gone();
}

static void test_a_handshake_has_its_own_time(void **state)
{
    (void)state;
    open_with_handshake(50, 60000);
    int silent = connect_from("127.0.0.1"), known = connect_as("127.0.0.1", 'k');
    gint64 until_us = g_get_monotonic_time() + 20 * G_USEC_PER_SEC;
    while (!readable(silent) && g_get_monotonic_time() < until_us) {
        g_main_context_iteration(NULL, FALSE);
        g_usleep(1000);
    }
    assert_true(readable(silent));
    for (int i = 0; i < 100; i++) { /* as long again */
        g_main_context_iteration(NULL, FALSE);
        g_usleep(1000);
    }
    assert_false(readable(known));
    close(silent);
    close(known);
    assert_all_gone();
}

static void test_a_stranger_gets_an_answer_and_no_thread(void **state)
{
    (void)state;
    open_with_handshake(60000, 60000);
    int fd = connect_as("127.0.0.1", 's');
    ask(fd);
    assert_answered(fd, false, "stranger");
    assert_int_equal(nstrangers, 1);
    assert_int_equal(nserving, 0);
    assert_int_equal(entries_of("/proc/self/task"), nthreads_before);
    assert_all_gone();
}

static void test_a_stranger_s_long_request_is_dropped_unread(void **state)
{
    guint8 bytes[INTAKE_STRANGER_LEN + 1] = {0, 0, 1, 0};
    (void)state;
    open_with_handshake(60000, 60000);
    int fd = connect_as("127.0.0.1", 's');
    assert_int_equal(send(fd, bytes, INTAKE_STRANGER_LEN, 0), INTAKE_STRANGER_LEN);
    settle();
    assert_false(readable(fd));
    assert_int_equal(send(fd, bytes, 1, 0), 1);
    assert_null(read_answer(fd));
    assert_int_equal(nstrangers, 0);
    assert_all_gone();
}

static void test_a_handshake_that_fails_ends_the_connection(void **state)
{
    (void)state;
    open_with_handshake(60000, 60000);
    assert_null(read_answer(connect_as("127.0.0.1", 'x')));
    assert_all_gone();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_known_host_is_served_after_its_handshake),
        cmocka_unit_test(test_a_handshake_and_a_request_in_one_packet_are_both_taken),
        cmocka_unit_test(test_a_crowd_without_a_handshake_does_not_push_known_hosts_out),
        cmocka_unit_test(test_known_hosts_have_a_limit_of_their_own),
        cmocka_unit_test(test_a_handshake_has_its_own_time),
        cmocka_unit_test(test_a_stranger_gets_an_answer_and_no_thread),
        cmocka_unit_test(test_a_stranger_s_long_request_is_dropped_unread),
        cmocka_unit_test(test_a_handshake_that_fails_ends_the_connection),
        cmocka_unit_test(test_a_request_is_served_and_the_address_is_told),
        cmocka_unit_test(test_silent_connections_have_no_thread_and_keep_nobody_out),
        cmocka_unit_test(test_a_crowd_from_one_address_pushes_out_its_own),
        cmocka_unit_test(test_a_slow_request_ends),
        cmocka_unit_test(test_nonsense_ends_the_connection),
        cmocka_unit_test(test_too_many_requests_at_a_time_are_told_so),
        cmocka_unit_test(test_who_may_not_is_not_let_in),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
