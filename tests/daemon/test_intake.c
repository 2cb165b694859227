/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Who gets in at a socket of the daemon, and who does not; with real sockets, on the main loop. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <gio/gio.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/intake.h"
#include "proto/framing.h"
#include "tests/daemon/entries.h"

#define NWAITING 4
#define NSERVED  2

static gint held; /* while it is 1, requests are being served and no answer leaves */
static gint nserving;

static void serve(int fd, const char *address, const Understudy__Envelope *request)
{
    Understudy__Answer body = UNDERSTUDY__ANSWER__INIT;
    g_atomic_int_inc(&nserving);
    while (g_atomic_int_get(&held))
        g_usleep(1000);
    body.ok = request->body_case == UNDERSTUDY__ENVELOPE__BODY_HOST_REQUEST;
    body.message = (char *)address;
    Understudy__Envelope envelope = UNDERSTUDY_ENVELOPE(ANSWER, answer, &body);
    framing_write(fd, &envelope, 5000, NULL);
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
    assert_true(framing_write(fd, &request, 5000, NULL));
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
    Understudy__Envelope *answer = framing_read(fd, 5000, NULL);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
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
