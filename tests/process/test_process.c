/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The programs that the replicator runs: real nbdkit with a stub of our plugin, asked by qemu-io. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <gio/gio.h>
#include <glib/gstdio.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "replicator/disk/nbdkit_process.h"

#define IMAGE_LEN 65536

static const char *plugin_path;

struct fixture {
    char *dir, *socket, *log;
    struct nbdkit_start start;
    struct child_process *process;
    bool exited;
    int status;
};

static int memfd_of(char fill)
{
    char bytes[IMAGE_LEN];
    memset(bytes, fill, sizeof bytes);
    int fd = memfd_create("test", MFD_CLOEXEC);
    assert_int_equal(write(fd, bytes, sizeof bytes), sizeof bytes);
    return fd;
}

static int set_up(void **state)
{
    struct fixture *f = g_new0(struct fixture, 1);
    f->dir = g_dir_make_tmp("us-process-XXXXXX", NULL);
    f->socket = g_build_filename(f->dir, "us-disk-0", NULL);
    f->log = g_build_filename(f->dir, "log", NULL);
    f->start = (struct nbdkit_start){
        .plugin = plugin_path,
        .disk = "web",
        .log_path = f->log,
        .listen_fd = nbdkit_listen(f->socket, NULL),
        .shm_fd = memfd_of('s'),
        .image_fd = memfd_of('i'),
        .map_fd = memfd_of('m'),
        .attention_fd = memfd_of('a'),
    };
    *state = f;
    return f->start.listen_fd < 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    g_autofree char *wrapper = g_build_filename(f->dir, "nbdkit", NULL);
    child_process_free(f->process);
    const int fds[] = {f->start.listen_fd, f->start.shm_fd, f->start.image_fd, f->start.map_fd,
                       f->start.attention_fd};
    for (size_t i = 0; i < G_N_ELEMENTS(fds); i++)
        close(fds[i]);
    g_unlink(f->socket);
    g_unlink(f->log);
    g_unlink(wrapper);
    g_rmdir(f->dir);
    g_free(f->dir);
    g_free(f->socket);
    g_free(f->log);
    g_free(f);
    return 0;
}

static void on_exit_of(struct child_process *process, int status, void *opaque)
{
    struct fixture *f = opaque;
    (void)process;
    f->exited = true;
    f->status = status;
}

static void start(struct fixture *f)
{
    g_autoptr(GError) error = NULL;
    f->exited = false;
    f->process = nbdkit_process_start(&f->start, on_exit_of, f, &error);
    if (!f->process)
        fail_msg("%s", error->message);
}

static void await_exit(struct fixture *f)
{
    while (!f->exited)
        g_main_context_iteration(NULL, TRUE);
    g_clear_pointer(&f->process, child_process_free);
}

/* qemu-io, reading the whole image and comparing it with what the image descriptor has. */
static GSubprocess *begin_reading(const struct fixture *f)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *uri = g_strdup_printf("nbd+unix:///?socket=%s", f->socket);
    GSubprocess *reader =
        g_subprocess_new(G_SUBPROCESS_FLAGS_STDOUT_SILENCE | G_SUBPROCESS_FLAGS_STDERR_SILENCE, &error,
                         "qemu-io", "-r", "-f", "raw", "-c", "read -P 0x69 0 65536", uri, NULL);
    if (!reader)
        fail_msg("%s", error->message);
    return reader;
}

static bool read_well(GSubprocess *reader)
{
    g_subprocess_wait(reader, NULL, NULL);
    bool well = g_subprocess_get_if_exited(reader) && g_subprocess_get_exit_status(reader) == 0;
    g_object_unref(reader);
    return well;
}

/* Whether pid has left; it is waited for. */
static void await_end_of(pid_t pid)
{
    struct pollfd watch = {.fd = (int)syscall(SYS_pidfd_open, pid, 0), .events = POLLIN};
    if (watch.fd < 0)
        return; /* gone already */
    assert_int_equal(poll(&watch, 1, 30000), 1);
    close(watch.fd);
}

static void test_client_that_comes_before_nbdkit_is_served(void **state)
{
    struct fixture *f = *state;
    GSubprocess *reader = begin_reading(f);
    start(f);
    assert_true(read_well(reader));
}

/* "/autogroup-N nice M" of nbdkit's session; NULL where the kernel does not schedule sessions as groups. */
static char *group_of(const struct fixture *f)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/autogroup", (int)child_process_pid(f->process));
    char *group = NULL;
    g_file_get_contents(path, &group, NULL, NULL);
    return group;
}

/* A guest whose processors come first would wait for its disks' server otherwise. */
static void test_every_thread_of_nbdkit_has_the_niceness_asked_for(void **state)
{
    struct fixture *f = *state;
    unsigned nthreads = 0;
    f->start.nice = 5;
    start(f);
    GSubprocess *reader = begin_reading(f);
    assert_true(read_well(reader));
    g_autofree char *tasks = g_strdup_printf("/proc/%d/task", (int)child_process_pid(f->process));
    GDir *dir = g_dir_open(tasks, 0, NULL);
    assert_non_null(dir);
    for (const char *name; (name = g_dir_read_name(dir));) {
        errno = 0;
        int nice = getpriority(PRIO_PROCESS, (id_t)atoi(name));
        if (errno == ESRCH)
            continue; /* of the reader's connection, which ends meanwhile */
        assert_int_equal(nice, 5);
        nthreads++;
    }
    g_dir_close(dir);
    assert_true(nthreads > 0);
    /* Where sessions are scheduled as groups, its own counts. */
    g_autofree char *group = group_of(f);
    if (group)
        assert_non_null(strstr(group, " nice 5"));
}

/* As a replicator that has its own niceness by now does. */
static void test_nbdkit_of_one_that_is_nice_itself_has_its_group_too(void **state)
{
    struct fixture *f = *state;
    if (getpriority(PRIO_PROCESS, 0) != 0 || !g_file_test("/proc/self/autogroup", G_FILE_TEST_EXISTS)) {
        print_message(
            "SKIPPED: this kernel does not group processes by session, or this test is nice itself\n");
        return;
    }
    assert_int_equal(setpriority(PRIO_PROCESS, 0, 5), 0);
    f->start.nice = 5;
    start(f);
    setpriority(PRIO_PROCESS, 0, 0); /* where it may: no other test minds */
    g_autofree char *group = group_of(f);
    assert_non_null(group);
    assert_non_null(strstr(group, " nice 5"));
}

static void test_nbdkit_that_was_killed_is_followed_by_another_on_the_same_socket(void **state)
{
    struct fixture *f = *state;
    start(f);
    assert_true(read_well(begin_reading(f)));
    child_process_kill(f->process);
    await_exit(f);
    assert_true(WIFSIGNALED(f->status));
    assert_int_equal(WTERMSIG(f->status), SIGKILL);
    GSubprocess *reader = begin_reading(f);
    start(f);
    assert_true(read_well(reader));
}

static void test_nbdkit_ends_with_the_process_that_started_it(void **state)
{
    struct fixture *f = *state;
    g_autofree char *command =
        g_strdup_printf("qemu-io -r -f raw -c quit 'nbd+unix:///?socket=%s'", f->socket);
    int report[2];
    assert_int_equal(pipe2(report, O_CLOEXEC), 0);
    pid_t parent = fork();
    if (parent == 0) {
        struct child_process *process = nbdkit_process_start(&f->start, on_exit_of, f, NULL);
        pid_t pid = process ? child_process_pid(process) : 0;
        /* Once it serves it has asked for the death signal. GLib's own thread did not come over the fork. */
        bool served = process && system(command) == 0;
        ssize_t ignored = write(report[1], &pid, served ? sizeof pid : 0);
        (void)ignored;
        _exit(0); /* no clean-up, as if it were killed */
    }
    pid_t nbdkit = 0;
    close(report[1]);
    assert_int_equal(read(report[0], &nbdkit, sizeof nbdkit), sizeof nbdkit);
    close(report[0]);
    waitpid(parent, NULL, 0);
    await_end_of(nbdkit);
}

/* Whatever the program does for it: nbdkit asks for its end by itself, QEMU and a shell do not. */
static void test_any_program_ends_with_the_process_that_started_it(void **state)
{
    struct fixture *f = *state;
    static const char *const argv[] = {"sleep", "600", NULL};
    const struct child_start start = {.argv = argv, .path = "/bin/sleep", .log_path = f->log};
    int report[2];
    assert_int_equal(pipe2(report, O_CLOEXEC), 0);
    pid_t parent = fork();
    if (parent == 0) {
        struct child_process *process = child_process_start(&start, on_exit_of, f, NULL);
        pid_t pid = process ? child_process_pid(process) : 0;
        ssize_t ignored = write(report[1], &pid, sizeof pid);
        (void)ignored;
        pause();
        _exit(1);
    }
    pid_t child = 0;
    close(report[1]);
    assert_int_equal(read(report[0], &child, sizeof child), sizeof child);
    close(report[0]);
    assert_true(child > 1);
    struct pollfd watch = {.fd = (int)syscall(SYS_pidfd_open, child, 0), .events = POLLIN};
    assert_true(watch.fd >= 0);
    assert_int_equal(kill(parent, SIGKILL), 0);
    waitpid(parent, NULL, 0);
    int ended = poll(&watch, 1, 10000);
    syscall(SYS_pidfd_send_signal, watch.fd, SIGKILL, NULL, 0);
    close(watch.fd);
    assert_int_equal(ended, 1);
}

/* What init sends to every process when the host goes down: the guest may still be on its way to the other
 * host. */
static void test_nbdkit_goes_on_serving_after_the_signals_of_a_shutdown(void **state)
{
    struct fixture *f = *state;
    start(f);
    assert_true(read_well(begin_reading(f)));
    kill(child_process_pid(f->process), SIGTERM);
    kill(child_process_pid(f->process), SIGHUP);
    assert_true(read_well(begin_reading(f)));
    assert_true(read_well(begin_reading(f)));
    assert_false(f->exited);
    assert_int_equal(waitpid(child_process_pid(f->process), NULL, WNOHANG), 0);
}

/* Another nbdkit is found first, which adds an argument. Returns the PATH before, a GLib string. */
static char *put_before_nbdkit(struct fixture *f, const char *argument)
{
    g_autofree char *nbdkit = g_find_program_in_path("nbdkit");
    g_autofree char *file = g_build_filename(f->dir, "nbdkit", NULL);
    g_autofree char *script = g_strdup_printf("#!/bin/sh\nexec %s \"$@\" %s\n", nbdkit, argument);
    g_autofree char *path = g_strconcat(f->dir, ":", g_getenv("PATH"), NULL);
    char *before = g_strdup(g_getenv("PATH"));
    assert_true(g_file_set_contents(file, script, -1, NULL));
    assert_int_equal(g_chmod(file, 0700), 0);
    g_setenv("PATH", path, TRUE);
    return before;
}

static void test_plugin_that_refuses_its_parameters_says_why(void **state)
{
    struct fixture *f = *state;
    g_autofree char *old_path = put_before_nbdkit(f, "nonsense=1");
    start(f);
    g_setenv("PATH", old_path, TRUE);
    await_exit(f);
    assert_true(WIFEXITED(f->status) && WEXITSTATUS(f->status) != 0);
    g_autofree char *words = child_process_last_words(f->log);
    assert_non_null(strstr(words, "nonsense is not known"));
}

static void test_missing_plugin_is_named(void **state)
{
    struct fixture *f = *state;
    g_autoptr(GError) error = NULL;
    f->start.plugin = "/nowhere/plugin.so";
    assert_null(nbdkit_process_start(&f->start, on_exit_of, f, &error));
    assert_non_null(strstr(error->message, "/nowhere/plugin.so"));
}

static void test_path_too_long_for_a_socket_is_refused(void **state)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *path = g_strnfill(200, 'x');
    (void)state;
    assert_int_equal(nbdkit_listen(path, &error), -1);
    assert_non_null(error);
}

/* Each descriptor goes where another one of them, or the pipe, is at that moment. */
static void test_descriptors_that_trade_places_arrive_whole(void **state)
{
    struct fixture *f = *state;
    static const char *const argv[] = {"sh", "-c",
                                       "cd /proc/self/fd && head -c1 60 && head -c1 61 && head -c1 3", NULL};
    int first = fcntl(memfd_of('1'), F_DUPFD_CLOEXEC, 60);
    int second = fcntl(memfd_of('2'), F_DUPFD_CLOEXEC, 61);
    int third = memfd_of('3');
    const int all[] = {first, second, third};
    for (size_t i = 0; i < G_N_ELEMENTS(all); i++)
        assert_int_equal(lseek(all[i], 0, SEEK_SET), 0);
    assert_true(first == 60 && second == 61);
    const struct child_start start = {.argv = argv,
                                      .path = "/bin/sh",
                                      .log_path = f->log,
                                      .fds = {{first, 61}, {second, 60}, {third, 3}},
                                      .nfds = 3};
    f->process = child_process_start(&start, on_exit_of, f, NULL);
    assert_non_null(f->process);
    await_exit(f);
    g_autofree char *words = child_process_last_words(f->log);
    assert_string_equal(words, "213");
    for (size_t i = 0; i < G_N_ELEMENTS(all); i++)
        close(all[i]);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_client_that_comes_before_nbdkit_is_served, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_every_thread_of_nbdkit_has_the_niceness_asked_for, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_nbdkit_of_one_that_is_nice_itself_has_its_group_too, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_nbdkit_that_was_killed_is_followed_by_another_on_the_same_socket,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_nbdkit_ends_with_the_process_that_started_it, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_any_program_ends_with_the_process_that_started_it, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_nbdkit_goes_on_serving_after_the_signals_of_a_shutdown, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_plugin_that_refuses_its_parameters_says_why, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_missing_plugin_is_named, set_up, tear_down),
        cmocka_unit_test(test_path_too_long_for_a_socket_is_refused),
        cmocka_unit_test_setup_teardown(test_descriptors_that_trade_places_arrive_whole, set_up, tear_down),
    };
    if (argc != 2)
        return 2;
    plugin_path = argv[1];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
