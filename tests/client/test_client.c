/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Every test of failover believes the test client, so here it is shown servers that misbehave on purpose: an
 * answer left out, given twice, given in the wrong order, a connection reset. It has to say so, by its
 * figures and by its exit status.
 *
 * The server is this process, on a loopback port of the kernel's choice; the client is the real program, as a
 * child.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <jansson.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define REQUESTS_PER_RUN 40
#define PATIENCE_MS      20000

extern char **environ;

/* What the server writes for its n-th request (from 0), NULL: resets the connection. */
typedef const char *(*answer_fn)(unsigned n, char *text, size_t size);

struct verdict {
    int status;
    json_t *json;
};

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static int listen_loopback(char *port, size_t size)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(fd, 4), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &len), 0);
    snprintf(port, size, "%u", ntohs(address.sin_port));
    return fd;
}

static void reset(int fd)
{
    struct linger hard = {.l_onoff = 1, .l_linger = 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    close(fd);
}

/* Serves the client's two connections until it has ended, or was told to after REQUESTS_PER_RUN answers. */
static void serve(int listen_fd, answer_fn answer, pid_t client)
{
    uint64_t until = now_ms() + PATIENCE_MS;
    int fds[2] = {-1, -1};
    unsigned asked = 0;
    for (int i = 0; i < 2; i++) {
        fds[i] = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);
        assert_true(fds[i] >= 0);
    }
    while ((fds[0] >= 0 || fds[1] >= 0) && now_ms() < until) {
        struct pollfd ready[2] = {{.fd = fds[0], .events = POLLIN}, {.fd = fds[1], .events = POLLIN}};
        poll(ready, 2, 100);
        for (int i = 0; i < 2; i++) {
            char request[64], text[128];
            const char *reply = "1000\n";
            if (fds[i] < 0 || !ready[i].revents)
                continue;
            ssize_t n = read(fds[i], request, sizeof request);
            if (n <= 0) {
                close(fds[i]);
                fds[i] = -1;
                continue;
            }
            if (strncmp(request, "next", 4) == 0)
                reply = answer(asked++, text, sizeof text);
            if (!reply) {
                reset(fds[i]);
                fds[i] = -1;
            } else if (send(fds[i], reply, strlen(reply), MSG_NOSIGNAL) < 0) {
                assert_true(errno == EPIPE || errno == ECONNRESET);
            }
            if (asked == REQUESTS_PER_RUN)
                kill(client, SIGTERM);
        }
    }
    assert_true(now_ms() < until);
}

static struct verdict play(answer_fn answer)
{
    char port[16], output[4096];
    size_t used = 0;
    ssize_t n;
    int out[2], status;
    pid_t pid;
    int listen_fd = listen_loopback(port, sizeof port);
    char *argv[] = {(char *)CLIENT_PROGRAM, (char *)"127.0.0.1", port, (char *)"0", NULL};
    posix_spawn_file_actions_t actions;
    assert_int_equal(pipe(out), 0);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, out[1], STDOUT_FILENO);
    posix_spawn_file_actions_addclose(&actions, out[0]);
    assert_int_equal(posix_spawn(&pid, CLIENT_PROGRAM, &actions, NULL, argv, environ), 0);
    posix_spawn_file_actions_destroy(&actions);
    close(out[1]);
    serve(listen_fd, answer, pid);
    close(listen_fd);
    while (used < sizeof output && (n = read(out[0], output + used, sizeof output - used)) > 0)
        used += (size_t)n;
    close(out[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    struct verdict verdict = {.status = WEXITSTATUS(status), .json = json_loadb(output, used, 0, NULL)};
    assert_non_null(verdict.json);
    return verdict;
}

static void expect(answer_fn answer, int status, int lost, int out_of_order, int resets)
{
    struct verdict verdict = play(answer);
    assert_int_equal(json_integer_value(json_object_get(verdict.json, "answers_lost")), lost);
    assert_int_equal(json_integer_value(json_object_get(verdict.json, "answers_out_of_order")), out_of_order);
    assert_int_equal(json_integer_value(json_object_get(verdict.json, "tcp_resets")), resets);
    assert_int_equal(verdict.status, status);
    json_decref(verdict.json);
}

static const char *number(char *text, size_t size, unsigned value)
{
    snprintf(text, size, "%u\n", value);
    return text;
}

static const char *in_sequence(unsigned n, char *text, size_t size)
{
    return number(text, size, 7 + n);
}

static const char *one_left_out(unsigned n, char *text, size_t size)
{
    return number(text, size, 7 + n + (n >= 5));
}

static const char *one_said_again(unsigned n, char *text, size_t size)
{
    return number(text, size, 7 + n - (n >= 5));
}

static const char *gone_back(unsigned n, char *text, size_t size)
{
    return number(text, size, n >= 5 ? n - 4 : 100 + n);
}

static const char *twice_at_once(unsigned n, char *text, size_t size)
{
    snprintf(text, size, n == 5 ? "%u\n%u\n" : "%u\n", 7 + n, 7 + n);
    return text;
}

static const char *not_a_number(unsigned n, char *text, size_t size)
{
    return n == 5 ? "what?\n" : number(text, size, 7 + n);
}

static const char *forgotten_in_the_middle(unsigned n, char *text, size_t size)
{
    return n == 5 ? "forgotten\n" : number(text, size, 7 + n);
}

static const char *reset_in_the_middle(unsigned n, char *text, size_t size)
{
    return n == 5 ? NULL : number(text, size, 7 + n);
}

static void test_answers_in_sequence_are_fine(void **state)
{
    (void)state;
    expect(in_sequence, 0, 0, 0, 0);
}

static void test_a_missing_answer_is_lost(void **state)
{
    (void)state;
    expect(one_left_out, 1, 1, 0, 0);
}

static void test_a_repeated_answer_is_out_of_order(void **state)
{
    (void)state;
    expect(one_said_again, 1, 0, 1, 0);
}

static void test_a_counter_that_went_back_is_out_of_order(void **state)
{
    (void)state;
    expect(gone_back, 1, 0, 1, 0);
}

static void test_an_answer_nobody_asked_for_is_out_of_order(void **state)
{
    (void)state;
    expect(twice_at_once, 1, 0, 1, 0);
}

static void test_an_answer_that_is_no_number_is_out_of_order(void **state)
{
    struct verdict verdict = play(not_a_number);
    (void)state;
    assert_int_equal(verdict.status, 1);
    assert_int_equal(json_integer_value(json_object_get(verdict.json, "answers_out_of_order")), 1);
    json_decref(verdict.json);
}

static void test_an_answer_that_the_guest_forgot_is_lost(void **state)
{
    (void)state;
    expect(forgotten_in_the_middle, 1, 1, 0, 0);
}

static void test_a_reset_is_counted(void **state)
{
    (void)state;
    expect(reset_in_the_middle, 1, 0, 0, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers_in_sequence_are_fine),
        cmocka_unit_test(test_a_missing_answer_is_lost),
        cmocka_unit_test(test_a_repeated_answer_is_out_of_order),
        cmocka_unit_test(test_a_counter_that_went_back_is_out_of_order),
        cmocka_unit_test(test_an_answer_nobody_asked_for_is_out_of_order),
        cmocka_unit_test(test_an_answer_that_is_no_number_is_out_of_order),
        cmocka_unit_test(test_an_answer_that_the_guest_forgot_is_lost),
        cmocka_unit_test(test_a_reset_is_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
