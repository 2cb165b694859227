/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The sockets of QEMU's filters, with real ones that the test plays QEMU's end of: which is which, what is
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
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "hv-hooks/qemu/nics.h"
#include "tests/control/calls.h"

#define NICS  2
#define KINDS 4

static const char *const kinds[KINDS] = {"out", "in", "mir", "inj"};

/* ---- the monitor ---- */

static struct {
    qmp_reply reply; /* of the newest command */
    unsigned nquestions, ntrouble;
} now;
static struct nics_mirrors mirrors;

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
    assert_ptr_equal(opaque, &mirrors);
    now.nquestions += g_str_equal(name, "query-chardev");
    if (now.nquestions < 10 || arguments)
        called("%s%s%s", name, text ? " " : "", text ? text : "");
    now.reply = reply;
}

static void on_trouble(void *opaque, const char *what)
{
    assert_ptr_equal(opaque, &now);
    assert_non_null(strstr(what, "no such object"));
    now.ntrouble++;
}

/* ---- two NICs, and their QEMU's sockets ---- */

static char *dir;
static int listeners[NICS][KINDS];

static int listen_at(unsigned nic, unsigned kind)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    g_snprintf(address.sun_path, sizeof address.sun_path, "%s/us-%s-%u", dir, kinds[kind], nic);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(fd, 4), 0);
    return fd;
}

static int set_up(void **state)
{
    (void)state;
    memset(&now, 0, sizeof now);
    mirrors = (struct nics_mirrors){.n = NICS, .trouble = on_trouble, .opaque = &now};
    dir = g_dir_make_tmp("understudy-nics-XXXXXX", NULL);
    assert_non_null(dir);
    for (unsigned nic = 0; nic < NICS; nic++)
        for (unsigned kind = 0; kind < KINDS; kind++)
            listeners[nic][kind] = listen_at(nic, kind);
    calls_begin();
    return 0;
}

static void remove_socket(unsigned nic, unsigned kind)
{
    g_autofree char *path = g_strdup_printf("%s/us-%s-%u", dir, kinds[kind], nic);
    g_unlink(path);
}

static int tear_down(void **state)
{
    (void)state;
    for (unsigned nic = 0; nic < NICS; nic++) {
        for (unsigned kind = 0; kind < KINDS; kind++) {
            close(listeners[nic][kind]);
            remove_socket(nic, kind);
        }
    }
    int left = g_rmdir(dir);
    g_free(dir);
    calls_end();
    return left;
}

static int qemu_accepts(unsigned nic, unsigned kind)
{
    int fd = accept4(listeners[nic][kind], NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    assert_true(fd >= 0);
    return fd;
}

/* Whether this process's end of this socket is closed. */
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

static void test_each_socket_is_the_one_of_its_kind(void **state)
{
    (void)state;
    for (unsigned nic = 0; nic < NICS; nic++) {
        struct machine_nic sockets;
        assert_true(nics_connect(dir, nic, &sockets, NULL));
        const int fds[KINDS] = {sockets.out, sockets.in, sockets.mirror, sockets.inject};
        for (unsigned kind = 0; kind < KINDS; kind++) {
            assert_other_end_is(fds[kind], nic, kind);
            close(fds[kind]);
        }
    }
    assert_calls(""); /* the mirrors stay off until all are connected */
}

/* They are read on the control thread, and QEMU's child processes have nothing to do with them. */
static void test_no_socket_blocks_or_is_inherited(void **state)
{
    struct machine_nic sockets;
    (void)state;
    assert_true(nics_connect(dir, 0, &sockets, NULL));
    const int fds[KINDS] = {sockets.out, sockets.in, sockets.mirror, sockets.inject};
    for (unsigned kind = 0; kind < KINDS; kind++) {
        assert_true(fcntl(fds[kind], F_GETFL) & O_NONBLOCK);
        assert_true(fcntl(fds[kind], F_GETFD) & FD_CLOEXEC);
        close(fds[kind]);
    }
}

static void test_a_socket_that_is_not_there_is_named_and_the_others_are_closed(void **state)
{
    g_autoptr(GError) error = NULL;
    struct machine_nic sockets;
    (void)state;
    remove_socket(0, 2);
    assert_false(nics_connect(dir, 0, &sockets, &error));
    assert_non_null(strstr(error->message, "us-mir-0"));
    assert_non_null(strstr(error->message, "NIC 0"));
    assert_non_null(strstr(error->message, g_strerror(ENOENT)));
    assert_true(is_closed(0, 0));
    assert_true(is_closed(0, 1));
}

/* The reason is the path, whatever the last system call had to say. */
static void test_a_path_that_is_too_long_is_the_reason_that_is_told(void **state)
{
    g_autoptr(GError) error = NULL;
    struct machine_nic sockets;
    char longer[200];
    (void)state;
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = 0;
    errno = EAGAIN;
    assert_false(nics_connect(longer, 0, &sockets, &error));
    assert_non_null(strstr(error->message, g_strerror(ENAMETOOLONG)));
}

/* ---- mirrors ---- */

/* QEMU answers the newest question. */
static void answer(const char *value)
{
    json_t *json = json_loads(value, 0, NULL);
    assert_non_null(json);
    now.reply(NULL, json, NULL, &mirrors);
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

static void test_a_vm_without_nics_asks_nothing(void **state)
{
    (void)state;
    mirrors.n = 0;
    nics_mirrors_switch_on(&mirrors);
    assert_calls("");
}

static void test_mirrors_are_switched_on_once_qemu_has_accepted_all_of_them(void **state)
{
    (void)state;
    nics_mirrors_switch_on(&mirrors);
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
    nics_mirrors_switch_on(&mirrors);
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
    nics_mirrors_switch_on(&mirrors);
    assert_calls("query-chardev; ");
    now.reply(NULL, NULL, error, &mirrors);
    assert_calls("");
    assert_int_equal(now.ntrouble, 0);
}

static void test_a_mirror_that_stays_off_is_trouble(void **state)
{
    g_autoptr(GError) error = g_error_new_literal(g_quark_from_static_string("test"), 1, "no such object");
    (void)state;
    nics_mirrors_switch_on(&mirrors);
    answer(CONNECTED);
    now.reply(NULL, NULL, NULL, &mirrors);
    assert_int_equal(now.ntrouble, 0);
    now.reply(NULL, NULL, error, &mirrors);
    assert_int_equal(now.ntrouble, 1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_each_socket_is_the_one_of_its_kind),
        TEST(test_no_socket_blocks_or_is_inherited),
        TEST(test_a_socket_that_is_not_there_is_named_and_the_others_are_closed),
        TEST(test_a_path_that_is_too_long_is_the_reason_that_is_told),
        TEST(test_a_vm_without_nics_asks_nothing),
        TEST(test_mirrors_are_switched_on_once_qemu_has_accepted_all_of_them),
        TEST(test_qemu_is_not_asked_for_ever),
        TEST(test_a_monitor_that_is_gone_is_asked_nothing_more),
        TEST(test_a_mirror_that_stays_off_is_trouble),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
