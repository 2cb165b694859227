/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What goes to systemd's journal: a stand-in listens where it does, in a mount namespace of the test's own.
 * Skipped (77) where that is not allowed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <glib.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/log.h"

#define JOURNAL "/run/systemd/journal"

static int records, lines; /* the stand-in's sockets */

static int bind_at(const char *name, int type)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
    g_snprintf(address.sun_path, sizeof address.sun_path, "%s/%s", JOURNAL, name);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

/* Standard error is the journal's from here on. */
static int become_its_service(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = JOURNAL "/stdout"};
    int listener = bind_at("stdout", SOCK_STREAM), out = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(connect(out, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(dup2(out, STDERR_FILENO), STDERR_FILENO);
    close(out);
    return accept(listener, NULL, NULL);
}

static int set_up(void **state)
{
    (void)state;
    records = bind_at("socket", SOCK_DGRAM);
    lines = become_its_service();
    assert_true(lines >= 0);
    log_open("test_log_journal");
    return 0;
}

/* It has been sent before. */
static char *receive(int fd)
{
    static char bytes[8192];
    ssize_t n = recv(fd, bytes, sizeof bytes - 1, MSG_DONTWAIT);
    assert_true(n > 0);
    bytes[n] = 0;
    return bytes;
}

static void test_an_event_goes_with_its_fields(void **state)
{
    const GLogField fields[] = {{"MESSAGE", "VM web \033 is alone", -1},
                                {"PRIORITY", "4", -1},
                                {LOG_FIELD_EVENT, "unprotected", -1},
                                {"UNDERSTUDY_VM", "web", -1}};
    (void)state;
    g_log_structured_array(G_LOG_LEVEL_WARNING, fields, G_N_ELEMENTS(fields));
    const char *record = receive(records);
    static const char *const wanted[] = {"MESSAGE=VM web ? is alone\n", "PRIORITY=4\n",
                                         "UNDERSTUDY_EVENT=unprotected\n", "UNDERSTUDY_VM=web\n",
                                         "SYSLOG_IDENTIFIER=test_log_journal\n"};
    for (size_t i = 0; i < G_N_ELEMENTS(wanted); i++)
        if (!strstr(record, wanted[i]))
            fail_msg("no %sin the record: %s", wanted[i], record);
}

static void test_another_message_is_a_line_with_its_severity(void **state)
{
    (void)state;
    g_warning("something else");
    assert_string_equal(receive(lines), "<4>something else\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_event_goes_with_its_fields),
        cmocka_unit_test(test_another_message_is_a_line_with_its_severity),
    };
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("tmpfs", "/run", "tmpfs", 0, NULL) < 0 || g_mkdir_with_parents(JOURNAL, 0755) < 0)
        return 77;
    return cmocka_run_group_tests(tests, set_up, NULL);
}
