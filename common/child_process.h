/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A program that the replicator runs (QEMU, nbdkit): started with descriptors of the replicator's at fixed
 * numbers, watched by pidfd, ended on request, and ended by the kernel when the replicator dies. One
 * thread's, which iterates its GLib context (thread-default) meanwhile: the child ends with the thread that
 * started it.
 */
#ifndef UNDERSTUDY_REPLICATOR_CHILD_PROCESS_H
#define UNDERSTUDY_REPLICATOR_CHILD_PROCESS_H

#include <glib.h>
#include <stdbool.h>
#include <sys/types.h>

#define CHILD_MAX_FDS 8

struct child_process;

/* Called once, when the process is gone. status is waitpid's. */
typedef void (*child_process_exited)(struct child_process *process, int status, void *opaque);

struct child_fd {
    int here, there; /* the descriptor, and its number in the child: above 2 */
};

struct child_start {
    const char *const *argv; /* NULL-terminated */
    const char *path;        /* of the program */
    char **environment;      /* NULL: the replicator's own */
    const char *log_path;    /* its output is appended here, and the file kept below 1 MiB */
    struct child_fd fds[CHILD_MAX_FDS];
    unsigned nfds;
    int nice; /* of all its threads; 0: as the replicator's own. Left as it is where that is not allowed */
    /* The child's environment names it as the one for which descriptor 3 was opened (sd_listen_fds(3)). */
    bool socket_activated;
    /*
     * Not ended by what ends every process when a host goes down (SIGTERM, SIGHUP), nor by Ctrl-C: the guest
     * that needs it may be on its way to the other host. When its parent is gone it gets SIGQUIT.
     */
    bool ends_with_parent_only;
    /*
     * In a network namespace of its own, which is empty: it reaches nobody, nobody reaches it, and the names
     * and ports of this host are free there. Without the right to make one, in a user namespace too.
     */
    bool no_network;
};

/* Starts it. What start points at stays the caller's. NULL and error: the program could not be run. */
struct child_process *child_process_start(const struct child_start *start, child_process_exited exited,
                                          void *opaque, GError **error);
pid_t child_process_pid(const struct child_process *process);
/* SIGKILL. The exited callback follows. */
void child_process_kill(struct child_process *process);
/* Kills and reaps without a callback if it still runs, then frees. */
void child_process_free(struct child_process *process);
/* The last lines of the log file, for an error message: one readable line, GLib-allocated, never NULL. */
char *child_process_last_words(const char *log_path);

#endif
