/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * `understudy drain` as it waits: the test is the daemon, whose VM leaves after some looks. test_drain
 * UNDERSTUDY
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <glib.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/stream.h"
#include "proto/answer.h"
#include "proto/framing.h"

#define WAIT_MS 20000

static const char *command;
static char *dir;
static int listener;

static int set_up(void **state)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    (void)state;
    dir = g_dir_make_tmp("us-drain-XXXXXX", NULL);
    g_snprintf(address.sun_path, sizeof address.sun_path, "%s/control.sock", dir);
    listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return bind(listener, (struct sockaddr *)&address, sizeof address) == 0 && listen(listener, 4) == 0 ? 0
                                                                                                        : -1;
}

static int tear_down(void **state)
{
    g_autofree char *path = g_build_filename(dir, "control.sock", NULL);
    (void)state;
    close(listener);
    g_unlink(path);
    g_rmdir(dir);
    g_clear_pointer(&dir, g_free);
    return 0;
}

static void say_status(int fd, bool is_here)
{
    Understudy__Status vm = UNDERSTUDY__STATUS__INIT, *vms[] = {&vm};
    Understudy__StatusList list = UNDERSTUDY__STATUS_LIST__INIT;
    Understudy__Envelope envelope = UNDERSTUDY_ENVELOPE(STATUS_LIST, status_list, &list);
    vm.vm = (char *)"web";
    vm.role = UNDERSTUDY__ROLE__ROLE_PRIMARY;
    vm.state = UNDERSTUDY__STATE__STATE_CONNECTING;
    vm.guest_here = true;
    list.vms = vms;
    list.n_vms = is_here;
    assert_true(framing_write(STREAM_FD(fd), &envelope, WAIT_MS, NULL));
}

/* The exit code. nlooks: that find the VM still here; then it is gone. *ndrained: orders that came. */
static int drain(const char *timeout_s, unsigned nlooks, unsigned *ndrained)
{
    int status = -1;
    pid_t pid = fork();
    if (pid == 0) {
        execl(command, command, "--run-dir", dir, "drain", "--timeout-s", timeout_s, (char *)NULL);
        _exit(127);
    }
    for (unsigned n = 0; waitpid(pid, &status, WNOHANG) == 0;) {
        GPollFD ready = {.fd = listener, .events = G_IO_IN};
        if (g_poll(&ready, 1, 50) != 1)
            continue;
        int fd = accept(listener, NULL, NULL);
        Understudy__Envelope *request = framing_read(STREAM_FD(fd), WAIT_MS, NULL);
        assert_non_null(request);
        if (request->body_case == UNDERSTUDY__ENVELOPE__BODY_STATUS_REQUEST)
            say_status(fd, n++ < nlooks);
        else if (request->body_case == UNDERSTUDY__ENVELOPE__BODY_DRAIN_REQUEST &&
                 !request->drain_request->off)
            *ndrained += answer_write(STREAM_FD(fd), true, "", WAIT_MS);
        understudy__envelope__free_unpacked(request, NULL);
        close(fd);
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void test_a_host_is_drained_once_its_last_vm_has_left(void **state)
{
    unsigned ndrained = 0;
    (void)state;
    assert_int_equal(drain("60", 3, &ndrained), 0);
    assert_int_equal(ndrained, 1);
}

static void test_what_does_not_leave_in_time_is_a_failure(void **state)
{
    unsigned ndrained = 0;
    (void)state;
    assert_int_equal(drain("1", 1000, &ndrained), 1);
    assert_int_equal(ndrained, 1);
}

/* In microseconds it is more than 32 bits hold. */
static void test_an_hour_and_a_half_is_not_cut_short(void **state)
{
    unsigned ndrained = 0;
    (void)state;
    assert_int_equal(drain("4295", 6, &ndrained), 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_host_is_drained_once_its_last_vm_has_left, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_does_not_leave_in_time_is_a_failure, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_an_hour_and_a_half_is_not_cut_short, set_up, tear_down),
    };
    if (argc != 2)
        return 2;
    command = argv[1];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
