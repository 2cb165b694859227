/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The monitor's client against a scripted monitor: a socket in this process that says whatever a test wants.
 */
#include <glib/gstdio.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "hv-hooks/qemu/qmp.h"

#define GREETING "{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n"

static struct {
    char *dir, *path;
    int listener, peer;
    struct qmp *qmp;
    unsigned closed, replies, events;
    int closed_code, reply_code;
    bool close_in_callback;
} t;

static int setup(void **state)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    (void)state;
    memset(&t, 0, sizeof t);
    t.dir = g_dir_make_tmp("understudy-qmp-XXXXXX", NULL);
    t.path = g_build_filename(t.dir, "qmp", NULL);
    g_strlcpy(address.sun_path, t.path, sizeof address.sun_path);
    t.peer = -1;
    t.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return bind(t.listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(t.listener, 1) < 0 ? -1
                                                                                                          : 0;
}

static int teardown(void **state)
{
    (void)state;
    qmp_close(t.qmp);
    if (t.peer >= 0)
        close(t.peer);
    close(t.listener);
    g_unlink(t.path);
    g_rmdir(t.dir);
    g_free(t.path);
    g_free(t.dir);
    return 0;
}

static void on_closed(struct qmp *qmp, const GError *error, void *opaque)
{
    (void)opaque;
    assert_true(error->domain == QMP_ERROR);
    t.closed++;
    t.closed_code = error->code;
    if (t.close_in_callback) {
        qmp_close(qmp);
        t.qmp = NULL;
    }
}

static void on_reply(struct qmp *qmp, json_t *value, const GError *error, void *opaque)
{
    (void)opaque;
    assert_true((value != NULL) != (error != NULL));
    t.replies++;
    t.reply_code = error ? error->code : -1;
    if (t.close_in_callback && !error) {
        qmp_close(qmp);
        t.qmp = NULL;
    }
}

static void on_event(struct qmp *qmp, const char *name, json_t *data, void *opaque)
{
    (void)data;
    (void)opaque;
    assert_string_equal(name, "STOP");
    t.events++;
    qmp_unlisten(qmp, 1); /* listeners may go while they are called */
}

static gboolean on_too_long(gpointer opaque)
{
    (void)opaque;
    fail_msg("nothing happened for five seconds");
    return G_SOURCE_REMOVE;
}

/* Iterates until *count reaches n. */
static void until(const unsigned *count, unsigned n)
{
    guint timer = g_timeout_add_seconds(5, on_too_long, NULL);
    while (*count < n)
        g_main_context_iteration(NULL, TRUE);
    g_source_remove(timer);
}

static void say(const char *text)
{
    assert_int_equal(send(t.peer, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

/* Reads one line of the client's. GLib-allocated. */
static char *hear(void)
{
    GString *line = g_string_new(NULL);
    gint64 until_us = g_get_monotonic_time() + 5000000;
    while (!strchr(line->str, '\n')) {
        char c;
        ssize_t n = recv(t.peer, &c, 1, MSG_DONTWAIT);
        if (n == 1)
            g_string_append_c(line, c);
        else
            g_main_context_iteration(NULL, FALSE);
        if (g_get_monotonic_time() > until_us)
            fail_msg("the client said nothing");
    }
    return g_string_free(line, FALSE);
}

static void connect_peer(void)
{
    t.qmp = qmp_open(t.path, 1000, NULL, on_closed, NULL);
    g_main_context_iteration(NULL, TRUE);
    t.peer = accept(t.listener, NULL, NULL);
    assert_true(t.peer >= 0);
}

static void negotiate(void)
{
    connect_peer();
    say(GREETING);
    g_autofree char *line = hear();
    assert_non_null(strstr(line, "qmp_capabilities"));
    say("{\"return\": {}, \"id\": 1}\r\n");
    while (!qmp_is_ready(t.qmp))
        g_main_context_iteration(NULL, TRUE);
}

static void test_command_given_before_the_greeting_is_answered(void **state)
{
    (void)state;
    connect_peer();
    qmp_execute(t.qmp, "query-status", NULL, -1, on_reply, NULL);
    say(GREETING);
    g_autofree char *capabilities = hear();
    qmp_execute(t.qmp, "stop", NULL, -1, on_reply, NULL); /* and one while they are negotiated */
    json_auto_t *first = json_loads(capabilities, 0, NULL);
    g_autofree char *answer = g_strdup_printf("{\"return\": {}, \"id\": %d}\n",
                                              (int)json_integer_value(json_object_get(first, "id")));
    say(answer);
    for (int i = 0; i < 2; i++) {
        g_autofree char *line = hear();
        json_auto_t *command = json_loads(line, 0, NULL);
        assert_string_equal(json_string_value(json_object_get(command, "execute")),
                            i ? "stop" : "query-status");
        g_autofree char *reply = g_strdup_printf("{\"return\": {}, \"id\": %d}\n",
                                                 (int)json_integer_value(json_object_get(command, "id")));
        say(reply);
    }
    until(&t.replies, 2);
}

static void test_refused_command_gives_qemus_words(void **state)
{
    (void)state;
    negotiate();
    qmp_execute(t.qmp, "nonsense", NULL, -1, on_reply, NULL);
    g_autofree char *line = hear();
    say("{\"error\": {\"class\": \"GenericError\", \"desc\": \"no\"}, \"id\": 2}\n");
    until(&t.replies, 1);
    assert_int_equal(t.reply_code, QMP_ERROR_COMMAND);
    assert_int_equal(t.closed, 0);
}

static void test_event_reaches_the_listener(void **state)
{
    (void)state;
    negotiate();
    assert_int_equal(qmp_listen(t.qmp, on_event, NULL), 1);
    say("{\"event\": \"STOP\", \"timestamp\": {}}\n{\"event\": \"STOP\"}\n");
    until(&t.events, 1);
    while (g_main_context_iteration(NULL, FALSE))
        continue;
    assert_int_equal(t.events, 1);
}

/* Whatever the peer says, the connection must end with this code and the command must fail. */
static void expect_closed(int code)
{
    until(&t.closed, 1);
    assert_int_equal(t.closed_code, code);
    assert_int_equal(t.replies, 1);
}

static void test_answer_to_another_question_closes(void **state)
{
    (void)state;
    negotiate();
    qmp_execute(t.qmp, "stop", NULL, -1, on_reply, NULL);
    say("{\"return\": {}, \"id\": 77}\n");
    expect_closed(QMP_ERROR_PROTOCOL);
}

static void test_garbage_closes(void **state)
{
    (void)state;
    negotiate();
    qmp_execute(t.qmp, "stop", NULL, -1, on_reply, NULL);
    say("GET / HTTP/1.0\r\n");
    expect_closed(QMP_ERROR_PROTOCOL);
}

static void test_wrong_greeting_closes(void **state)
{
    (void)state;
    connect_peer();
    qmp_execute(t.qmp, "stop", NULL, -1, on_reply, NULL);
    say("{\"hello\": 1}\n");
    expect_closed(QMP_ERROR_PROTOCOL);
}

static void test_end_of_file_fails_what_is_outstanding(void **state)
{
    (void)state;
    negotiate();
    qmp_execute(t.qmp, "stop", NULL, -1, on_reply, NULL);
    g_autofree char *line = hear();
    close(t.peer);
    t.peer = -1;
    t.close_in_callback = true;
    expect_closed(QMP_ERROR_CLOSED);
}

static void test_closing_inside_a_reply_is_safe(void **state)
{
    (void)state;
    negotiate();
    t.close_in_callback = true;
    qmp_execute(t.qmp, "stop", NULL, -1, on_reply, NULL);
    qmp_execute(t.qmp, "cont", NULL, -1, on_reply, NULL);
    g_autofree char *line = hear();
    say("{\"return\": {}, \"id\": 2}\n{\"return\": {}, \"id\": 3}\n");
    until(&t.replies, 2);
    assert_int_equal(t.reply_code, QMP_ERROR_CLOSED); /* the second one's */
    assert_int_equal(t.closed, 0);
}

static void test_endless_line_closes(void **state)
{
    (void)state;
    negotiate();
    qmp_execute(t.qmp, "stop", NULL, -1, on_reply, NULL);
    char chunk[8192];
    memset(chunk, ' ', sizeof chunk);
    for (unsigned sent = 0; !t.closed;) {
        assert_true(sent < 2 * QMP_LINE_MAX);
        ssize_t n = send(t.peer, chunk, sizeof chunk, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n > 0)
            sent += (unsigned)n;
        g_main_context_iteration(NULL, FALSE);
    }
    expect_closed(QMP_ERROR_PROTOCOL);
}

static void test_missing_socket_is_reported_after_the_deadline(void **state)
{
    (void)state;
    g_autofree char *path = g_strdup_printf("%s/nothing", t.dir);
    gint64 began = g_get_monotonic_time();
    t.qmp = qmp_open(path, 50, NULL, on_closed, NULL);
    until(&t.closed, 1);
    assert_int_equal(t.closed_code, QMP_ERROR_CONNECT);
    assert_true(g_get_monotonic_time() - began >= 50000);
}

static void test_descriptor_goes_along(void **state)
{
    int pipe_fds[2];
    char line[512], control[CMSG_SPACE(sizeof(int))];
    struct iovec part = {.iov_base = line, .iov_len = sizeof line};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    (void)state;
    negotiate();
    assert_int_equal(pipe(pipe_fds), 0);
    qmp_execute(t.qmp, "getfd", json_pack("{s:s}", "fdname", "x"), pipe_fds[1], on_reply, NULL);
    close(pipe_fds[1]);
    assert_true(recvmsg(t.peer, &message, 0) > 0);
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    assert_true(header && header->cmsg_type == SCM_RIGHTS);
    int received;
    memcpy(&received, CMSG_DATA(header), sizeof received);
    assert_int_equal(write(received, "y", 1), 1);
    assert_int_equal(read(pipe_fds[0], line, 1), 1);
    close(received);
    close(pipe_fds[0]);
}

static void test_waiting_for_an_answer_ends_at_the_timeout(void **state)
{
    (void)state;
    g_autoptr(GError) error = NULL;
    negotiate();
    assert_null(qmp_execute_wait(t.qmp, "stop", NULL, -1, 30, &error));
    assert_true(g_error_matches(error, QMP_ERROR, QMP_ERROR_TIMEOUT));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_command_given_before_the_greeting_is_answered),
        TEST(test_refused_command_gives_qemus_words),
        TEST(test_event_reaches_the_listener),
        TEST(test_answer_to_another_question_closes),
        TEST(test_garbage_closes),
        TEST(test_wrong_greeting_closes),
        TEST(test_end_of_file_fails_what_is_outstanding),
        TEST(test_closing_inside_a_reply_is_safe),
        TEST(test_endless_line_closes),
        TEST(test_missing_socket_is_reported_after_the_deadline),
        TEST(test_descriptor_goes_along),
        TEST(test_waiting_for_an_answer_ends_at_the_timeout),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
