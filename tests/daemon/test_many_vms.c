/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The real daemon and the real command on a host with two hundred VMs that have much to say. Their
 * replicators are this program: the daemon finds them running and adopts them. test_many_vms UNDERSTUDYD
 * UNDERSTUDY
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <gio/gio.h>
#include <glib/gstdio.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/stream.h"
#include "proto/framing.h"
#include "proto/status_answer.h"

#define NVMS       200
#define NDISKS     4
#define TIMEOUT_MS 60000

static const char *daemon_program, *command;
static char *dir;
static pid_t daemon_pid;
static int listeners[NVMS], links[NVMS];

static char *name_of(int i)
{
    return g_strdup_printf("a-vm-with-a-long-name-%010d", i);
}

static int listen_at(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(g_strlcpy(address.sun_path, path, sizeof address.sun_path) < sizeof address.sun_path);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(fd, 1), 0);
    return fd;
}

static int set_up(void **state)
{
    (void)state;
    dir = g_dir_make_tmp("us-many-XXXXXX", NULL);
    for (int i = 0; i < NVMS; i++) {
        g_autofree char *name = name_of(i), *vm_dir = g_build_filename(dir, name, NULL),
                        *path = g_build_filename(vm_dir, "us-replicator", NULL);
        assert_int_equal(g_mkdir(vm_dir, 0700), 0);
        listeners[i] = listen_at(path);
        links[i] = -1;
    }
    daemon_pid = fork();
    if (daemon_pid == 0) {
        execl(daemon_program, daemon_program, "--run-dir", dir, "--state-dir", dir, "--listen", "127.0.0.1:0",
              "--hooks-dir", dir, "--etc-dir", dir, (char *)NULL);
        _exit(127);
    }
    return 0;
}

static int tear_down(void **state)
{
    const char *argv[] = {"rm", "-rf", dir, NULL};
    (void)state;
    kill(daemon_pid, SIGTERM);
    waitpid(daemon_pid, NULL, 0);
    for (int i = 0; i < NVMS; i++) {
        close(listeners[i]);
        if (links[i] >= 0)
            close(links[i]);
    }
    g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, NULL, NULL, NULL, NULL);
    g_clear_pointer(&dir, g_free);
    return 0;
}

static void say_adopted(int fd, const char *name)
{
    char *argv[] = {(char *)"qemu-system-x86_64", (char *)"-accel", (char *)"tcg", (char *)"-m",
                    (char *)"64"};
    Understudy__Protection protection = UNDERSTUDY__PROTECTION__INIT;
    Understudy__Start start = UNDERSTUDY__START__INIT;
    Understudy__Adopted adopted = UNDERSTUDY__ADOPTED__INIT;
    protection.vm = (char *)name;
    protection.qemu_argv = argv;
    protection.n_qemu_argv = G_N_ELEMENTS(argv);
    start.protection = &protection;
    start.peer_name = (char *)"peer";
    adopted.start = &start;
    Understudy__Envelope envelope = UNDERSTUDY_ENVELOPE(ADOPTED, adopted, &adopted);
    assert_true(framing_write(STREAM_FD(fd), &envelope, TIMEOUT_MS, NULL));
}

static void say_status(int fd)
{
    g_autofree char *text = g_strnfill(1000, 'x');
    Understudy__Status status = UNDERSTUDY__STATUS__INIT;
    Understudy__DiskStatus disks[NDISKS], *pointers[NDISKS];
    for (int i = 0; i < NDISKS; i++) {
        understudy__disk_status__init(&disks[i]);
        disks[i].path = disks[i].message = text;
        disks[i].id = (char *)"disk";
        pointers[i] = &disks[i];
    }
    status.role = UNDERSTUDY__ROLE__ROLE_PRIMARY;
    status.state = UNDERSTUDY__STATE__STATE_PROTECTED;
    status.guest_here = true;
    status.last_error = status.unprotected_why = text;
    status.disks = pointers;
    status.n_disks = NDISKS;
    Understudy__Envelope envelope = UNDERSTUDY_ENVELOPE(STATUS, status, &status);
    assert_true(framing_write(STREAM_FD(fd), &envelope, TIMEOUT_MS, NULL));
}

/* The command's output, or NULL if it failed. GLib string. */
static char *run_command(const char *option)
{
    const char *argv[] = {command, "--run-dir", dir, "status", option, NULL};
    char *output = NULL;
    int status = -1;
    assert_true(g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_STDERR_TO_DEV_NULL, NULL, NULL, &output, NULL,
                             &status, NULL));
    if (status == 0)
        return output;
    g_free(output);
    return NULL;
}

/* -1: the command failed. */
static int count_protected(void)
{
    g_autofree char *text = run_command("--json");
    json_t *document = text ? json_loads(text, 0, NULL) : NULL;
    if (!document)
        return -1;
    assert_int_equal(json_integer_value(json_object_get(document, "version")), 1);
    int n = 0;
    size_t i;
    json_t *vm;
    json_array_foreach (json_object_get(document, "vms"), i, vm) {
        n += json_is_true(json_object_get(vm, "protected")) &&
             strlen(json_string_value(json_object_get(vm, "last_error"))) == 1000 &&
             json_array_size(json_object_get(vm, "disks")) == NDISKS;
    }
    json_decref(document);
    return n;
}

static void test_a_host_with_two_hundred_vms_shows_all_of_them(void **state)
{
    (void)state;
    for (int i = 0; i < NVMS; i++) {
        g_autofree char *name = name_of(i);
        struct pollfd one = {.fd = listeners[i], .events = POLLIN};
        assert_int_equal(poll(&one, 1, TIMEOUT_MS), 1);
        links[i] = accept(listeners[i], NULL, NULL);
        assert_true(links[i] >= 0);
        say_adopted(links[i], name);
        say_status(links[i]);
    }
    /* The daemon has all of it as soon as it has read it. */
    gint64 until = g_get_monotonic_time() + TIMEOUT_MS * 1000;
    int n = 0;
    while ((n = count_protected()) >= 0 && n < NVMS && g_get_monotonic_time() < until)
        g_usleep(20000);
    assert_int_equal(n, NVMS);
    g_autofree char *table = run_command("--figures"), *check = run_command("--check");
    assert_non_null(table);
    assert_non_null(check);
    assert_true(strlen(table) > FRAMING_MAX_LEN);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_host_with_two_hundred_vms_shows_all_of_them, set_up,
                                        tear_down),
    };
    if (argc != 3)
        return 2;
    daemon_program = argv[1];
    command = argv[2];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
