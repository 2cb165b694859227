/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Runs a program of the replicator (QEMU, nbdkit). The program gets descriptors of the replicator's at fixed
 * numbers, is watched by pidfd, is ended on request, and is ended by the kernel when the replicator dies. All
 * functions are called by one thread, which iterates its GLib context (thread-default) meanwhile: the child
 * ends with the thread that started it.
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
    int nice; /* of all its threads; 0: the replicator's own. Not changed where that is not allowed */
    /* Sets LISTEN_FDS and LISTEN_PID for the child: descriptor 3 is its socket (sd_listen_fds(3)). */
    bool socket_activated;
    /*
     * Blocks the signals that end every process when a host goes down (SIGTERM, SIGHUP), and Ctrl-C (SIGINT):
     * the guest that needs the child may be moving to the other host. When its parent is gone, it gets
     * SIGQUIT.
     */
    bool ends_with_parent_only;
    /*
     * Runs the child in an empty network namespace of its own, with no way in or out, where the names and
     * ports of this host are free. Without the right to make one, in a user namespace, too.
     */
    bool no_network;
};

/* Starts the program. What start points at stays the caller's. NULL and error: it could not be run. */
struct child_process *child_process_start(const struct child_start *start, child_process_exited exited,
                                          void *opaque, GError **error);
pid_t child_process_pid(const struct child_process *process);
/* Sends SIGKILL. The exited callback follows. */
void child_process_kill(struct child_process *process);
/* Kills and reaps without a callback if it still runs, then frees. */
void child_process_free(struct child_process *process);
/* Returns the last lines of the log file as one readable line, for an error. GLib string, never NULL. */
char *child_process_last_words(const char *log_path);

#endif
