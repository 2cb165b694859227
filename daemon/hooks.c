/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Runs the administrator's hooks: the queue, the processes, their time limits and their output. */
#include "daemon/hooks.h"

#include <errno.h>
#include <fcntl.h>
#include <glib-unix.h>
#include <glib.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/words.h"

#define LINES_MAX      50 /* of one call's output that are logged */
#define COMPLAIN_US    (10 * G_USEC_PER_SEC)
#define READS_MAX      64 /* of output after the hook has ended: a child that still writes cannot block us */
#define OUTPUT_MAX_LEN WORDS_MAX

struct call {
    struct hooks *hooks;
    char *path, *name; /* of the program */
    char *vm, *event, *json;
    /* While it runs. */
    pid_t pid;
    int pidfd, output;
    guint ended, readable, timeout;
    GString *line; /* of its output, not whole yet */
    unsigned nlines;
};

struct hooks {
    char *dir;
    struct hooks_limits limits;
    GQueue waiting; /* struct call */
    GSList *running;
    unsigned nrunning;
    gint64 complained_us;
    unsigned dropped;
};

static void start_some(struct hooks *hooks);

static void free_call(struct call *call)
{
    g_clear_handle_id(&call->ended, g_source_remove);
    g_clear_handle_id(&call->readable, g_source_remove);
    g_clear_handle_id(&call->timeout, g_source_remove);
    if (call->pidfd >= 0)
        close(call->pidfd);
    if (call->output >= 0)
        close(call->output);
    if (call->line)
        g_string_free(call->line, TRUE);
    g_free(call->path);
    g_free(call->name);
    g_free(call->vm);
    g_free(call->event);
    g_free(call->json);
    g_free(call);
}

/* ---- output ---- */

static void log_line(struct call *call)
{
    g_autofree char *text = words_make_readable_len(call->line->str, call->line->len, OUTPUT_MAX_LEN);
    g_string_truncate(call->line, 0);
    call->nlines++;
    if (call->nlines <= LINES_MAX && text[0])
        g_message("hook %s (%s %s): %s", call->name, call->vm, call->event, text);
    else if (call->nlines == LINES_MAX + 1)
        g_message("hook %s (%s %s) prints more than is logged", call->name, call->vm, call->event);
}

static void take_output(struct call *call, const char *bytes, gssize n)
{
    for (gssize i = 0; i < n; i++) {
        if (bytes[i] == '\n')
            log_line(call);
        else if (call->line->len < 2 * OUTPUT_MAX_LEN) /* what is beyond is cut off anyway */
            g_string_append_c(call->line, bytes[i]);
    }
}

/* Reads and logs output. Returns whether there may be more. */
static bool read_output(struct call *call)
{
    char bytes[4096];
    gssize n = read(call->output, bytes, sizeof bytes);
    if (n > 0)
        take_output(call, bytes, n);
    return n > 0 || (n < 0 && errno == EINTR);
}

static gboolean on_output(gint fd, GIOCondition condition, gpointer opaque)
{
    struct call *call = opaque;
    (void)fd;
    (void)condition;
    if (read_output(call) || errno == EAGAIN)
        return G_SOURCE_CONTINUE;
    call->readable = 0;
    return G_SOURCE_REMOVE;
}

/* ---- the end ---- */

static void tell_status(const struct call *call, int status)
{
    if (WIFSIGNALED(status))
        g_warning("hook %s (%s %s) was ended by signal %d", call->name, call->vm, call->event,
                  WTERMSIG(status));
    else if (WEXITSTATUS(status) != 0)
        g_warning("hook %s (%s %s) ended with status %d", call->name, call->vm, call->event,
                  WEXITSTATUS(status));
}

/* Kills the hook's process group. Called once, before the leader is reaped, so the number cannot be reused.
 */
static void kill_group(const struct call *call)
{
    kill(-call->pid, SIGKILL);
}

static gboolean on_ended(gint fd, GIOCondition condition, gpointer opaque)
{
    struct call *call = opaque;
    struct hooks *hooks = call->hooks;
    int status = 0;
    (void)fd;
    (void)condition;
    call->ended = 0;
    kill_group(call); /* ends the processes that the hook has left */
    waitpid(call->pid, &status, 0);
    for (int i = 0; i < READS_MAX && read_output(call); i++)
        continue;
    if (call->line->len > 0)
        log_line(call);
    tell_status(call, status);
    hooks->running = g_slist_remove(hooks->running, call);
    hooks->nrunning--;
    free_call(call);
    start_some(hooks);
    return G_SOURCE_REMOVE;
}

static gboolean on_timeout(gpointer opaque)
{
    struct call *call = opaque;
    call->timeout = 0;
    g_warning("hook %s (%s %s) runs for more than %u s and is killed", call->name, call->vm, call->event,
              (call->hooks->limits.time_ms + 999) / 1000);
    kill_group(call); /* on_ended follows */
    return G_SOURCE_REMOVE;
}

/* ---- the beginning ---- */

/* Makes the standard input: a file in memory, so that writing never waits for the hook. -1 and errno. */
static int input_of(const char *json)
{
    size_t len = strlen(json);
    int fd = memfd_create("event", MFD_CLOEXEC);
    if (fd >= 0 &&
        (write(fd, json, len) != (ssize_t)len || write(fd, "\n", 1) != 1 || lseek(fd, 0, SEEK_SET) != 0)) {
        close(fd);
        fd = -1;
    }
    return fd;
}

/* Runs the hook in the child. Only async-signal-safe calls are allowed here. */
G_NORETURN static void child_run(const char *path, char *const *argv, char *const *environment, int input,
                                 int output)
{
    sigset_t none;
    sigemptyset(&none);
    setpgid(0, 0);
    signal(SIGPIPE, SIG_DFL);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (dup2(input, 0) == 0 && dup2(output, 1) == 1 && dup2(output, 2) == 2 && chdir("/") == 0) {
        close_range(3, ~0u, 0);
        execve(path, argv, environment);
    }
    static const char words[] = "it cannot be run\n";
    ssize_t ignored = write(2, words, sizeof words - 1);
    (void)ignored;
    _exit(127);
}

/* Returns the daemon's environment without what systemd sets for the daemon alone. GLib strv. */
static char **environment_of_hooks(void)
{
    char **environment = g_get_environ();
    static const char *const not_theirs[] = {"NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC",
                                             "LISTEN_FDS",    "LISTEN_PID",   "LISTEN_FDNAMES"};
    for (size_t i = 0; i < G_N_ELEMENTS(not_theirs); i++)
        environment = g_environ_unsetenv(environment, not_theirs[i]);
    return environment;
}

/* Starts the process. False: errno says why. */
static bool spawn(struct call *call)
{
    int pipe_fds[2] = {-1, -1}, input = input_of(call->json);
    char *argv[] = {call->path, call->vm, call->event, NULL};
    g_auto(GStrv) environment = environment_of_hooks();
    if (input < 0 || pipe2(pipe_fds, O_CLOEXEC) < 0) {
        int saved = errno;
        if (input >= 0)
            close(input);
        errno = saved;
        return false;
    }
    pid_t pid = fork();
    if (pid == 0)
        child_run(call->path, argv, environment, input, pipe_fds[1]);
    int saved = errno;
    close(input);
    close(pipe_fds[1]);
    call->pid = pid;
    call->output = pipe_fds[0];
    if (pid > 0) {
        setpgid(pid, pid); /* the child does it, too: either may be first */
        g_unix_set_fd_nonblocking(call->output, TRUE, NULL);
        call->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
        saved = errno;
    }
    if (pid > 0 && call->pidfd < 0) { /* its end could not be noticed */
        kill_group(call);
        waitpid(pid, NULL, 0);
    }
    errno = saved;
    return pid > 0 && call->pidfd >= 0;
}

/* Starts the call. False: it could not be started, and the call has been freed. */
static bool start(struct hooks *hooks, struct call *call)
{
    call->line = g_string_new(NULL);
    if (!spawn(call)) {
        g_warning("hook %s (%s %s) could not be started: %s", call->name, call->vm, call->event,
                  g_strerror(errno));
        free_call(call);
        return false;
    }
    call->ended = g_unix_fd_add(call->pidfd, G_IO_IN, on_ended, call);
    /* Low priority, so that a hook that prints endlessly does not delay the rest of the main loop. */
    call->readable = g_unix_fd_add_full(G_PRIORITY_LOW, call->output, G_IO_IN, on_output, call, NULL);
    call->timeout = g_timeout_add(hooks->limits.time_ms, on_timeout, call);
    hooks->running = g_slist_prepend(hooks->running, call);
    hooks->nrunning++;
    return true;
}

static bool is_running(const struct hooks *hooks, const char *path)
{
    for (GSList *at = hooks->running; at; at = at->next)
        if (strcmp(((struct call *)at->data)->path, path) == 0)
            return true;
    return false;
}

/* Starts waiting calls, in order, whose program is not running, up to the limit of hooks at once. */
static void start_some(struct hooks *hooks)
{
    for (GList *at = hooks->waiting.head, *next; at && hooks->nrunning < hooks->limits.at_once; at = next) {
        struct call *call = at->data;
        next = at->next;
        if (is_running(hooks, call->path))
            continue;
        g_queue_delete_link(&hooks->waiting, at);
        start(hooks, call);
    }
}

/* ---- the folder ---- */

static bool is_ours(const struct stat *status)
{
    return (status->st_uid == 0 || status->st_uid == geteuid()) && !(status->st_mode & (S_IWGRP | S_IWOTH));
}

/* Accepts names as run-parts(8) does, so that files that an editor or a package manager leaves are not
 * called. */
static bool is_hook(const char *dir, const char *name)
{
    struct stat status;
    g_autofree char *path = g_build_filename(dir, name, NULL);
    bool named =
        strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.") == strlen(name) &&
        name[0] != '.' && !strstr(name, ".dpkg-");
    if (!named || stat(path, &status) < 0 || !S_ISREG(status.st_mode) || access(path, X_OK) < 0)
        return false;
    if (!is_ours(&status))
        g_warning("hook %s is not called: others than root and this daemon's user may write to it", path);
    return is_ours(&status);
}

static gint by_name(gconstpointer a, gconstpointer b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Returns the names of the folder's hooks, sorted, as an array of char *. */
static GPtrArray *find_hooks(struct hooks *hooks)
{
    GPtrArray *names = g_ptr_array_new_with_free_func(g_free);
    struct stat status;
    GDir *dir = stat(hooks->dir, &status) == 0 ? g_dir_open(hooks->dir, 0, NULL) : NULL;
    const char *name;
    if (dir && !is_ours(&status)) {
        g_warning("no hook is called: others than root and this daemon's user may write to %s", hooks->dir);
        g_dir_close(dir);
        return names;
    }
    while (dir && (name = g_dir_read_name(dir)) && names->len <= hooks->limits.max_hooks)
        if (is_hook(hooks->dir, name))
            g_ptr_array_add(names, g_strdup(name));
    if (dir)
        g_dir_close(dir);
    g_ptr_array_sort(names, by_name);
    if (names->len > hooks->limits.max_hooks) {
        g_warning("%s has more than %u hooks: %s and others are not called", hooks->dir,
                  hooks->limits.max_hooks, (char *)g_ptr_array_index(names, hooks->limits.max_hooks));
        g_ptr_array_set_size(names, (gint)hooks->limits.max_hooks);
    }
    return names;
}

static void drop(struct hooks *hooks, const char *name, const char *vm, const char *event)
{
    gint64 now = g_get_monotonic_time();
    hooks->dropped++;
    if (hooks->complained_us && now - hooks->complained_us < COMPLAIN_US)
        return;
    g_warning("hook %s (%s %s) is not called: %u calls wait already (%u were dropped so far)", name, vm,
              event, hooks->limits.waiting, hooks->dropped);
    hooks->complained_us = now;
}

void hooks_call(struct hooks *hooks, const char *vm, const char *event, const char *json)
{
    g_autoptr(GPtrArray) names = find_hooks(hooks);
    const char *whose = vm && vm[0] ? vm : "-";
    for (guint i = 0; i < names->len; i++) {
        const char *name = g_ptr_array_index(names, i);
        if (hooks->waiting.length >= hooks->limits.waiting) {
            drop(hooks, name, whose, event);
            continue;
        }
        struct call *call = g_new0(struct call, 1);
        call->hooks = hooks;
        call->path = g_build_filename(hooks->dir, name, NULL);
        call->name = g_strdup(name);
        call->vm = g_strdup(whose);
        call->event = g_strdup(event);
        call->json = g_strdup(json);
        call->pidfd = call->output = -1;
        g_queue_push_tail(&hooks->waiting, call);
    }
    start_some(hooks);
}

bool hooks_are_idle(const struct hooks *hooks)
{
    return hooks->nrunning == 0 && hooks->waiting.length == 0;
}

struct hooks *hooks_new(const char *dir, struct hooks_limits limits)
{
    struct hooks *hooks = g_new0(struct hooks, 1);
    hooks->dir = g_strdup(dir);
    hooks->limits = limits;
    g_queue_init(&hooks->waiting);
    return hooks;
}

void hooks_free(struct hooks *hooks)
{
    if (!hooks)
        return;
    for (GSList *at = hooks->running; at; at = at->next) {
        struct call *call = at->data;
        kill_group(call);
        waitpid(call->pid, NULL, WNOHANG); /* not waited for: this process ends, too */
        free_call(call);
    }
    g_slist_free(hooks->running);
    for (struct call *call; (call = g_queue_pop_head(&hooks->waiting));)
        free_call(call);
    g_free(hooks->dir);
    g_free(hooks);
}
