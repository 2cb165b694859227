/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Starts programs with fork and exec. Between the two only async-signal-safe calls are made: the replicator
 * has threads by the time it starts a program, and the child must not wait for a lock that one of them
 * held.
 *
 * The descriptors move to their numbers in two steps: first to numbers above all of those, so that none is
 * overwritten before its turn, then by dup2, which leaves them without close-on-exec. All other descriptors
 * have it. The child gets a session of its own, so that a Ctrl-C at the daemon's terminal does not reach
 * guests.
 *
 * The kernel kills the child when the thread that started it ends (prctl(2), PR_SET_PDEATHSIG). That is the
 * control thread, which ends with the process. So no guest outlives the replicator that releases its
 * output, whatever killed the replicator, and whether or not a daemon is there. The setting survives exec,
 * but not a change of user or a program that gains rights; QEMU options that do this are refused.
 */
#include "common/child_process.h"

#include <errno.h>
#include <fcntl.h>
#include <gio/gio.h>
#include <glib-unix.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/log.h"
#include "common/priority.h"
#include "common/words.h"

#define LAST_WORDS_LEN 400
#define LOG_MAX        (1u << 20) /* of what the program prints: run folders are in memory */
#define LOG_LOOK_MS    200
#define OUT_OF_THE_WAY 128 /* above every number that a child is given */
#define LISTEN_PID     "LISTEN_PID="

struct child_process {
    pid_t pid;
    int pidfd;
    GSource *watch, *log_watch;
    char *log_path;
    child_process_exited exited;
    void *opaque;
};

/* What the child needs, all prepared before fork. */
struct child_plan {
    const struct child_start *start;
    char *const *environment;
    char *listen_pid; /* where its digits go within environment, or NULL */
    int null_fd;
    int log_fd;
    int error_pipe;
    pid_t parent;
    char uid_map[32], gid_map[32]; /* of a user namespace: this user is root there */
};

G_NORETURN static void child_fail(int error_pipe)
{
    int error = errno;
    ssize_t ignored = write(error_pipe, &error, sizeof error);
    (void)ignored;
    _exit(127);
}

/* Duplicates fd to a number above all those that the child is given. Returns it, or -1 and errno. */
static int move_away(int fd)
{
    int moved = fcntl(fd, F_DUPFD_CLOEXEC, OUT_OF_THE_WAY);
    if (moved < 0 && errno == EINVAL)
        errno = EMFILE; /* the limit of open files is below that number */
    return moved;
}

/*
 * Writes this process's pid in digits, without leading zeroes: nbdkit would read an octal number. snprintf is
 * not async-signal-safe.
 */
static void write_own_pid(char *text)
{
    unsigned pid = (unsigned)getpid(), ndigits = 1;
    for (unsigned rest = pid; rest >= 10; rest /= 10)
        ndigits++;
    text[ndigits] = 0;
    for (; ndigits > 0; ndigits--, pid /= 10)
        text[ndigits - 1] = (char)('0' + pid % 10);
}

static bool write_map(const char *path, const char *map)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    ssize_t len = (ssize_t)strlen(map);
    bool ok = fd >= 0 && write(fd, map, (size_t)len) == len;
    if (fd >= 0)
        close(fd);
    return ok;
}

static bool leave_network(const struct child_plan *plan)
{
    if (unshare(CLONE_NEWNET) == 0)
        return true;
    return errno == EPERM && unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0 &&
           write_map("/proc/self/setgroups", "deny") && write_map("/proc/self/uid_map", plan->uid_map) &&
           write_map("/proc/self/gid_map", plan->gid_map);
}

G_NORETURN static void child_run(const struct child_plan *plan)
{
    const struct child_start *start = plan->start;
    int moved[CHILD_MAX_FDS];
    sigset_t blocked;
    sigemptyset(&blocked);
    if (start->ends_with_parent_only) {
        sigaddset(&blocked, SIGTERM);
        sigaddset(&blocked, SIGHUP);
        sigaddset(&blocked, SIGINT);
    }
    sigprocmask(SIG_SETMASK, &blocked, NULL);
    signal(SIGPIPE, SIG_DFL);
    setsid();
    if (start->no_network && !leave_network(plan))
        child_fail(plan->error_pipe);
    /* If the parent died before prctl, its signal never comes, and getppid returns another process. */
    if (prctl(PR_SET_PDEATHSIG, start->ends_with_parent_only ? SIGQUIT : SIGKILL) < 0 ||
        getppid() != plan->parent)
        child_fail(plan->error_pipe);
    /* The error pipe, too, must not have a number that is overwritten below. */
    int report = move_away(plan->error_pipe);
    if (report < 0)
        child_fail(plan->error_pipe);
    for (unsigned i = 0; i < start->nfds; i++) {
        moved[i] = move_away(start->fds[i].here);
        if (moved[i] < 0)
            child_fail(report);
    }
    if (dup2(plan->null_fd, 0) < 0 || dup2(plan->log_fd, 1) < 0 || dup2(plan->log_fd, 2) < 0)
        child_fail(report);
    for (unsigned i = 0; i < start->nfds; i++) {
        if (dup2(moved[i], start->fds[i].there) < 0)
            child_fail(report);
    }
    if (plan->listen_pid)
        write_own_pid(plan->listen_pid);
    execve(start->path, (char *const *)start->argv, plan->environment);
    child_fail(report);
}

static gboolean on_log_look(gpointer opaque)
{
    const struct child_process *process = opaque;
    log_file_bound(process->log_path, LOG_MAX);
    return G_SOURCE_CONTINUE;
}

static void drop(GSource **source)
{
    if (*source)
        g_source_destroy(*source);
    g_clear_pointer(source, g_source_unref);
}

static GSource *attach(GSource *source, GSourceFunc func, struct child_process *process)
{
    g_source_set_callback(source, func, process, NULL);
    g_source_attach(source, g_main_context_get_thread_default());
    return source;
}

static gboolean on_exit_readable(gint fd, GIOCondition condition, gpointer opaque)
{
    struct child_process *process = opaque;
    int status = 0;
    (void)fd;
    (void)condition;
    drop(&process->watch);
    drop(&process->log_watch);
    waitpid(process->pid, &status, 0);
    close(process->pidfd);
    process->pidfd = -1;
    process->exited(process, status, process->opaque);
    return G_SOURCE_REMOVE;
}

/* Forks and carries out the plan. Returns the child's pid, or -errno of the first failure before exec. */
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

/* Builds the child's environment, with space for its pid where it needs that. GLib strv. */
static char **child_environment(const struct child_start *start, char **listen_pid)
{
    char **environment = start->environment ? g_strdupv(start->environment) : g_get_environ();
    if (!start->socket_activated)
        return environment;
    environment = g_environ_setenv(environment, "LISTEN_FDS", "1", TRUE);
    environment = g_environ_setenv(environment, "LISTEN_PID", "0000000000", TRUE);
    for (char **each = environment; *each; each++) {
        if (g_str_has_prefix(*each, LISTEN_PID))
            *listen_pid = *each + strlen(LISTEN_PID);
    }
    return environment;
}

struct child_process *child_process_start(const struct child_start *start, child_process_exited exited,
                                          void *opaque, GError **error)
{
    char *listen_pid = NULL;
    g_auto(GStrv) environment = child_environment(start, &listen_pid);
    struct child_plan plan = {
        .start = start,
        .environment = environment,
        .listen_pid = listen_pid,
        .null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC),
        .log_fd = open(start->log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600),
        .parent = getpid(),
    };
    g_snprintf(plan.uid_map, sizeof plan.uid_map, "0 %u 1", (unsigned)geteuid());
    g_snprintf(plan.gid_map, sizeof plan.gid_map, "0 %u 1", (unsigned)getegid());
    pid_t pid = plan.null_fd < 0 || plan.log_fd < 0 ? -errno : spawn(&plan);
    if (plan.null_fd >= 0)
        close(plan.null_fd);
    if (plan.log_fd >= 0)
        close(plan.log_fd);
    if (pid < 0) {
        g_set_error(error, G_IO_ERROR, g_io_error_from_errno(-pid), "%s could not be started: %s",
                    start->argv[0], g_strerror(-pid));
        return NULL;
    }
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (pidfd < 0) {
        int saved = errno;
        kill(pid, SIGKILL); /* not reaped yet, so the pid is still the child's */
        waitpid(pid, NULL, 0);
        g_set_error(error, G_IO_ERROR, g_io_error_from_errno(saved), "%s could not be watched: %s",
                    start->argv[0], g_strerror(saved));
        return NULL;
    }
    /* The child runs its program by now: it has its own session, and few threads have been started yet. */
    priority_set_nice(pid, start->nice);
    struct child_process *process = g_new0(struct child_process, 1);
    process->pid = pid;
    process->pidfd = pidfd;
    process->exited = exited;
    process->opaque = opaque;
    process->log_path = g_strdup(start->log_path);
    process->log_watch = attach(g_timeout_source_new(LOG_LOOK_MS), on_log_look, process);
    process->watch =
        attach(g_unix_fd_source_new(process->pidfd, G_IO_IN), G_SOURCE_FUNC(on_exit_readable), process);
    return process;
}

pid_t child_process_pid(const struct child_process *process)
{
    return process->pid;
}

void child_process_kill(struct child_process *process)
{
    if (process->pidfd >= 0)
        syscall(SYS_pidfd_send_signal, process->pidfd, SIGKILL, NULL, 0);
}

void child_process_free(struct child_process *process)
{
    if (!process)
        return;
    drop(&process->watch);
    drop(&process->log_watch);
    g_free(process->log_path);
    if (process->pidfd >= 0) {
        child_process_kill(process);
        waitpid(process->pid, NULL, 0);
        close(process->pidfd);
    }
    g_free(process);
}

char *child_process_last_words(const char *log_path)
{
    g_autofree char *text = NULL;
    gsize len = 0;
    if (!g_file_get_contents(log_path, &text, &len, NULL) || len == 0)
        return g_strdup("it printed nothing");
    const char *tail = len > LAST_WORDS_LEN ? text + len - LAST_WORDS_LEN : text;
    /* Starts at the beginning of a line, if there is one. */
    const char *line = tail != text ? strchr(tail, '\n') : NULL;
    if (line && line[1])
        tail = line + 1;
    return words_make_readable_len(tail, (size_t)(text + len - tail), LAST_WORDS_LEN * 3);
}
