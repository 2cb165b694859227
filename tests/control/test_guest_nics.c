/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The sockets of a guest's NICs, with real ones that the test plays QEMU's end of: which goes where, what is
 * closed when one of them fails, and when the mirrors are switched on. The monitor is written down here.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "replicator/control/replicator.h"
#include "tests/control/calls.h"
#include "tests/control/fake_core.h"
#include "tests/control/warnings.h"

#define NICS  2
#define KINDS 4

static const char *const kinds[KINDS] = {"out", "in", "mir", "inj"};

/* ---- what guest_nics.c calls ---- */

static struct {
    int gate_status, log_status;
    int fds[NICS][KINDS]; /* what was taken, in the order of kinds */
    unsigned ngate, nlog;
    qmp_reply reply; /* of the newest command */
    unsigned nquestions;
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
    if (now.log_status == 0) {
        now.fds[now.nlog][2] = mirror_fd;
        now.fds[now.nlog++][3] = inject_fd;
    }
    return now.log_status;
}

void qmp_execute(struct qmp *qmp, const char *name, json_t *arguments, int fd, qmp_reply reply, void *opaque)
{
    (void)qmp;
    (void)fd;
    g_autofree char *text = NULL;
    if (arguments) {
        char *dump = json_dumps(arguments, JSON_COMPACT | JSON_SORT_KEYS);
        text = g_strdup(dump);
        free(dump);
        json_decref(arguments);
    }
    assert_non_null(opaque);
    now.nquestions += g_str_equal(name, "query-chardev");
    if (now.nquestions < 10 || arguments)
        called("%s%s%s", name, text ? " " : "", text ? text : "");
    now.reply = reply;
}

/* ---- a VM with two NICs, and its QEMU's sockets ---- */

static struct replicator r;
static struct fake_core core;
static int listeners[NICS][KINDS];

static int listen_at(unsigned nic, unsigned kind)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    g_snprintf(address.sun_path, sizeof address.sun_path, "%s/us-%s-%u", r.config.vm_dir, kinds[kind], nic);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(fd, 4), 0);
    return fd;
}

static int set_up(void **state)
{
    (void)state;
    memset(&r, 0, sizeof r);
    memset(&now, 0, sizeof now);
    nwarnings = 0;
    r.config.vm_name = (char *)"vm";
    r.config.vm_dir = g_dir_make_tmp("understudy-nics-XXXXXX", NULL);
    r.config.nnics = NICS;
    assert_non_null(r.config.vm_dir);
    for (unsigned nic = 0; nic < NICS; nic++)
        for (unsigned kind = 0; kind < KINDS; kind++)
            listeners[nic][kind] = listen_at(nic, kind);
    fake_core_open(&core, &r.sink);
    calls_begin();
    return 0;
}

static void remove_socket(unsigned nic, unsigned kind)
{
    g_autofree char *path = g_strdup_printf("%s/us-%s-%u", r.config.vm_dir, kinds[kind], nic);
    g_unlink(path);
}

static int tear_down(void **state)
{
    (void)state;
    for (unsigned nic = 0; nic < NICS; nic++) {
        for (unsigned kind = 0; kind < KINDS; kind++) {
            close(listeners[nic][kind]);
            remove_socket(nic, kind);
            if (now.fds[nic][kind])
                close(now.fds[nic][kind]);
        }
    }
    int left = g_rmdir(r.config.vm_dir);
    g_free(r.config.vm_dir);
    sink_clear(&r.sink);
    calls_end();
    return left;
}

static int qemu_accepts(unsigned nic, unsigned kind)
{
    int fd = accept4(listeners[nic][kind], NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    assert_true(fd >= 0);
    return fd;
}

/* Whether the replicator's end of this socket is closed. */
static bool is_closed(unsigned nic, unsigned kind)
{
    char byte;
    int fd = qemu_accepts(nic, kind);
    bool closed = recv(fd, &byte, 1, 0) == 0;
    close(fd);
    return closed;
}

static void assert_other_end_is(int fd, unsigned nic, unsigned kind)
{
    char sent = (char)('a' + nic * KINDS + kind), heard = 0;
    int qemu = qemu_accepts(nic, kind);
    assert_int_equal(send(qemu, &sent, 1, 0), 1);
    assert_int_equal(recv(fd, &heard, 1, 0), 1);
    assert_int_equal(heard, sent);
    close(qemu);
}

/* QEMU answers the newest question. */
static void answer(const char *value)
{
    json_t *json = json_loads(value, 0, NULL);
    assert_non_null(json);
    now.reply(NULL, json, NULL, &r);
    json_decref(json);
}

#define DISCONNECTED                                                                                         \
    "[{\"label\": \"us-c-mir-0\", \"filename\": \"disconnected:unix:us-mir-0\"}, "                           \
    "{\"label\": \"us-c-mir-1\", \"filename\": \"unix:us-mir-1\"}]"
#define CONNECTED                                                                                            \
    "[{\"label\": \"us-c-inj-0\", \"filename\": \"disconnected:unix:us-inj-0\"}, "                           \
    "{\"label\": \"us-c-mir-0\", \"filename\": \"unix:us-mir-0\"}, "                                         \
    "{\"label\": \"us-c-mir-1\", \"filename\": \"unix:us-mir-1\"}]"
#define SWITCHED_ON                                                                                          \
    "qom-set {\"path\":\"/objects/us-mir-0\",\"property\":\"status\",\"value\":\"on\"}; "                    \
    "qom-set {\"path\":\"/objects/us-mir-1\",\"property\":\"status\",\"value\":\"on\"}; "

static void test_each_socket_goes_where_it_belongs(void **state)
{
    (void)state;
    assert_true(guest_nics_connect(&r));
    assert_int_equal(now.ngate, NICS);
    assert_int_equal(now.nlog, NICS);
    for (unsigned nic = 0; nic < NICS; nic++)
        for (unsigned kind = 0; kind < KINDS; kind++)
            assert_other_end_is(now.fds[nic][kind], nic, kind);
    assert_calls("query-chardev; ");
    assert_null(sink_last_error(&r.sink));
}

/* They are read on the control thread, and QEMU's child processes have nothing to do with them. */
static void test_no_socket_blocks_or_is_inherited(void **state)
{
    (void)state;
    assert_true(guest_nics_connect(&r));
    for (unsigned kind = 0; kind < KINDS; kind++) {
        assert_true(fcntl(now.fds[0][kind], F_GETFL) & O_NONBLOCK);
        assert_true(fcntl(now.fds[0][kind], F_GETFD) & FD_CLOEXEC);
    }
}

static void test_a_vm_without_nics_asks_nothing(void **state)
{
    (void)state;
    r.config.nnics = 0;
    assert_true(guest_nics_connect(&r));
    assert_int_equal(now.ngate, 0);
    assert_calls("");
}

static void test_a_socket_that_is_not_there_is_named_and_the_others_are_closed(void **state)
{
    (void)state;
    remove_socket(0, 2);
    assert_false(guest_nics_connect(&r));
    assert_non_null(strstr(sink_last_error(&r.sink), "us-mir-0"));
    assert_non_null(strstr(sink_last_error(&r.sink), "NIC 0"));
    assert_non_null(strstr(sink_last_error(&r.sink), g_strerror(ENOENT)));
    assert_true(is_closed(0, 0));
    assert_true(is_closed(0, 1));
    assert_int_equal(now.ngate, 0);
    assert_calls("");
}

static void test_the_second_nics_fault_is_the_vms(void **state)
{
    (void)state;
    remove_socket(1, 0);
    assert_false(guest_nics_connect(&r));
    assert_non_null(strstr(sink_last_error(&r.sink), "NIC 1"));
    assert_int_equal(now.ngate, 1); /* the first one's sockets are the gate's, and the log's */
    assert_int_equal(now.nlog, 1);
    assert_calls("");
}

/* The reason is the path, whatever the last system call had to say. */
static void test_a_path_that_is_too_long_is_the_reason_that_is_told(void **state)
{
    char *dir = r.config.vm_dir, longer[200];
    (void)state;
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = 0;
    r.config.vm_dir = longer;
    errno = EAGAIN;
    assert_false(guest_nics_connect(&r));
    r.config.vm_dir = dir;
    assert_non_null(strstr(sink_last_error(&r.sink), g_strerror(ENAMETOOLONG)));
}

static void test_too_many_nics_are_an_error_and_nothing_stays_open(void **state)
{
    (void)state;
    now.gate_status = -E2BIG;
    assert_false(guest_nics_connect(&r));
    assert_non_null(strstr(sink_last_error(&r.sink), "network device 0"));
    assert_non_null(strstr(sink_last_error(&r.sink), "too many"));
    for (unsigned kind = 0; kind < KINDS; kind++)
        assert_true(is_closed(0, kind));
}

static void test_what_the_gate_has_taken_is_closed_by_nobody_else(void **state)
{
    (void)state;
    now.log_status = -ENOMEM;
    assert_false(guest_nics_connect(&r));
    assert_non_null(strstr(sink_last_error(&r.sink), g_strerror(ENOMEM)));
    assert_false(is_closed(0, 0));
    assert_false(is_closed(0, 1));
    assert_true(is_closed(0, 2));
    assert_true(is_closed(0, 3));
}

static void test_mirrors_are_switched_on_once_qemu_has_accepted_all_of_them(void **state)
{
    (void)state;
    assert_true(guest_nics_connect(&r));
    assert_calls("query-chardev; ");
    answer("[{\"label\": \"us-c-mir-0\"}]"); /* it does not say */
    assert_calls("query-chardev; ");
    answer(DISCONNECTED);
    assert_calls("query-chardev; ");
    answer(CONNECTED);
    assert_calls(SWITCHED_ON);
}

static void test_qemu_is_not_asked_for_ever(void **state)
{
    unsigned n = 0;
    (void)state;
    assert_true(guest_nics_connect(&r));
    for (; now.nquestions > n && n < 5000; n++) {
        g_string_truncate(calls, 0);
        answer(DISCONNECTED);
    }
    assert_int_equal(n, 1000);
    assert_calls(SWITCHED_ON); /* and QEMU complains of frames until the other end is there */
}

static void test_a_monitor_that_is_gone_is_asked_nothing_more(void **state)
{
    g_autoptr(GError) error = g_error_new_literal(g_quark_from_static_string("test"), 1, "closed");
    (void)state;
    assert_true(guest_nics_connect(&r));
    assert_calls("query-chardev; ");
    now.reply(NULL, NULL, error, &r);
    assert_calls("");
}

static void test_a_mirror_that_stays_off_is_a_warning_while_qemu_lives(void **state)
{
    g_autoptr(GError) error = g_error_new_literal(g_quark_from_static_string("test"), 1, "no such object");
    (void)state;
    assert_true(guest_nics_connect(&r));
    answer(CONNECTED);
    now.reply(NULL, NULL, NULL, &r);
    assert_int_equal(nwarnings, 0);
    r.qemu_gone = true;
    now.reply(NULL, NULL, error, &r);
    r.qemu_gone = false;
    r.quitting = true;
    now.reply(NULL, NULL, error, &r);
    assert_int_equal(nwarnings, 0);
    r.quitting = false;
    now.reply(NULL, NULL, error, &r);
    assert_int_equal(nwarnings, 1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_each_socket_goes_where_it_belongs),
        TEST(test_no_socket_blocks_or_is_inherited),
        TEST(test_a_vm_without_nics_asks_nothing),
        TEST(test_a_socket_that_is_not_there_is_named_and_the_others_are_closed),
        TEST(test_the_second_nics_fault_is_the_vms),
        TEST(test_a_path_that_is_too_long_is_the_reason_that_is_told),
        TEST(test_too_many_nics_are_an_error_and_nothing_stays_open),
        TEST(test_what_the_gate_has_taken_is_closed_by_nobody_else),
        TEST(test_mirrors_are_switched_on_once_qemu_has_accepted_all_of_them),
        TEST(test_qemu_is_not_asked_for_ever),
        TEST(test_a_monitor_that_is_gone_is_asked_nothing_more),
        TEST(test_a_mirror_that_stays_off_is_a_warning_while_qemu_lives),
    };
    g_log_set_writer_func(count_warnings, NULL, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
