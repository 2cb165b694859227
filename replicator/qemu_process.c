/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * See qemu_process.h. Between fork and exec only async-signal-safe calls are made: the replicator has threads
 * by the time it starts a second QEMU, and the child must not wait for a lock one of them held.
 *
 * The fds move to fixed numbers in the child (dup2 clears close-on-exec). QEMU gets a session of its own, so
 * that a Ctrl-C at the daemon's terminal does not reach guests.
 */
#include "replicator/qemu_process.h"

#include <errno.h>
#include <fcntl.h>
#include <gio/gio.h>
#include <glib-unix.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define LAST_WORDS_LEN 400

struct qemu_process {
    pid_t pid;
    int pidfd;
    guint watch;
    qemu_process_exited exited;
    void *opaque;
};

/* What the child needs, all prepared before fork. */
struct child_plan {
    char *const *argv;
    char *const *envp;
    char *path;
    int from[4];
    int to[4];
    int null_fd;
    int log_fd;
    int error_pipe;
};

G_NORETURN static void child_fail(const struct child_plan *plan)
{
    int error = errno;
    ssize_t ignored = write(plan->error_pipe, &error, sizeof error);
    (void)ignored;
    _exit(127);
}

G_NORETURN static void child_run(const struct child_plan *plan)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    setsid();
    if (dup2(plan->null_fd, 0) < 0 || dup2(plan->log_fd, 1) < 0 || dup2(plan->log_fd, 2) < 0)
        child_fail(plan);
    for (int i = 0; i < 4; i++) {
        if (dup2(plan->from[i], plan->to[i]) < 0)
            child_fail(plan);
    }
    execve(plan->path, plan->argv, plan->envp);
    child_fail(plan);
}

static gboolean on_exit_readable(gint fd, GIOCondition condition, gpointer opaque)
{
    struct qemu_process *process = opaque;
    int status = 0;
    (void)fd;
    (void)condition;
    process->watch = 0;
    waitpid(process->pid, &status, 0);
    close(process->pidfd);
    process->pidfd = -1;
    process->exited(process, status, process->opaque);
    return G_SOURCE_REMOVE;
}

/* The environment for QEMU: ours, plus the hook. GLib strv. */
static char **child_environment(const char *hook_path)
{
    struct hv_fds inside = {
        .shm = QEMU_FD_SHM, .devstate = QEMU_FD_DEVSTATE, .ram = QEMU_FD_RAM, .kick = QEMU_FD_KICK};
    g_autofree char *hook = hv_fds_environment(&inside);
    char **env = g_get_environ();
    const char *equals = strchr(hook, '=');
    env = g_environ_setenv(env, "UNDERSTUDY_HOOK",
                           equals && g_str_has_prefix(hook, "UNDERSTUDY_HOOK=") ? equals + 1 : hook, TRUE);
    env = g_environ_setenv(env, "LD_PRELOAD", hook_path, TRUE);
    return env;
}

/* Forks and runs the plan. The child's pid, or -errno of whatever failed on the way to exec. */
static pid_t spawn(struct child_plan *plan)
{
    int report[2];
    if (pipe2(report, O_CLOEXEC) < 0)
        return -errno;
    plan->error_pipe = report[1];
    pid_t pid = fork();
    if (pid == 0)
        child_run(plan);
    int result = pid < 0 ? -errno : 0;
    close(report[1]);
    if (pid > 0) {
        int error = 0;
        if (read(report[0], &error, sizeof error) == (ssize_t)sizeof error) {
            waitpid(pid, NULL, 0);
            result = -error;
        }
    }
    close(report[0]);
    return result < 0 ? result : pid;
}

struct qemu_process *qemu_process_start(const char *const *argv, const char *hook_path,
                                        const struct hv_fds *fds, const char *log_path,
                                        qemu_process_exited exited, void *opaque, GError **error)
{
    g_autofree char *path = g_find_program_in_path(argv[0]);
    if (!path) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND,
                    "%s was not found: install QEMU or give its full path", argv[0]);
        return NULL;
    }
    if (access(hook_path, R_OK) < 0) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND, "the hook %s cannot be read: %s", hook_path,
                    g_strerror(errno));
        return NULL;
    }
    g_auto(GStrv) env = child_environment(hook_path);
    struct child_plan plan = {
        .argv = (char *const *)argv,
        .envp = env,
        .path = path,
        .from = {fds->shm, fds->devstate, fds->kick, fds->ram},
        .to = {QEMU_FD_SHM, QEMU_FD_DEVSTATE, QEMU_FD_KICK, QEMU_FD_RAM},
        .null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC),
        .log_fd = open(log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600),
    };
    pid_t pid = plan.null_fd < 0 || plan.log_fd < 0 ? -errno : spawn(&plan);
    if (plan.null_fd >= 0)
        close(plan.null_fd);
    if (plan.log_fd >= 0)
        close(plan.log_fd);
    if (pid < 0) {
        g_set_error(error, G_IO_ERROR, g_io_error_from_errno(-pid), "%s could not be started: %s", argv[0],
                    g_strerror(-pid));
        return NULL;
    }
    struct qemu_process *process = g_new0(struct qemu_process, 1);
    process->pid = pid;
    process->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    process->exited = exited;
    process->opaque = opaque;
    process->watch = g_unix_fd_add(process->pidfd, G_IO_IN, on_exit_readable, process);
    return process;
}

pid_t qemu_process_pid(const struct qemu_process *process)
{
    return process->pid;
}

void qemu_process_kill(struct qemu_process *process)
{
    if (process->pidfd >= 0)
        syscall(SYS_pidfd_send_signal, process->pidfd, SIGKILL, NULL, 0);
}

void qemu_process_free(struct qemu_process *process)
{
    if (!process)
        return;
    if (process->watch)
        g_source_remove(process->watch);
    if (process->pidfd >= 0) {
        qemu_process_kill(process);
        waitpid(process->pid, NULL, 0);
        close(process->pidfd);
    }
    g_free(process);
}

char *qemu_process_last_words(const char *log_path)
{
    g_autofree char *text = NULL;
    gsize len = 0;
    if (!g_file_get_contents(log_path, &text, &len, NULL) || len == 0)
        return g_strdup("it printed nothing");
    const char *tail = len > LAST_WORDS_LEN ? text + len - LAST_WORDS_LEN : text;
    char *words = g_utf8_make_valid(tail, -1);
    g_strdelimit(words, "\r\n", ' ');
    return g_strstrip(words);
}
