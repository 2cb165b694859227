/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One QEMU process: started with the hook and the engine's memfds inside, watched by pidfd, ended on request.
 * Control thread only (GLib default context).
 */
#ifndef UNDERSTUDY_REPLICATOR_QEMU_PROCESS_H
#define UNDERSTUDY_REPLICATOR_QEMU_PROCESS_H

#include <glib.h>
#include <sys/types.h>

#include "hv-hooks/hypervisor.h"

/* The numbers the engine's fds have inside QEMU. High, so that nothing of QEMU's start-up collides with them.
 */
enum { QEMU_FD_SHM = 60, QEMU_FD_DEVSTATE = 61, QEMU_FD_KICK = 62, QEMU_FD_RAM = 63 };

struct qemu_process;

/* Called once, when the process is gone. status is waitpid's. */
typedef void (*qemu_process_exited)(struct qemu_process *process, int status, void *opaque);

/*
 * Starts argv with hook_path preloaded. Output goes to log_path. fds stay the caller's.
 * NULL and error set when the program could not be started.
 */
struct qemu_process *qemu_process_start(const char *const *argv, const char *hook_path,
                                        const struct hv_fds *fds, const char *log_path,
                                        qemu_process_exited exited, void *opaque, GError **error);
pid_t qemu_process_pid(const struct qemu_process *process);
/* SIGKILL. The exited callback follows. */
void qemu_process_kill(struct qemu_process *process);
/* Kills and reaps without a callback if it still runs, then frees. */
void qemu_process_free(struct qemu_process *process);
/* The last lines of the log file, for an error message: GLib-allocated, never NULL. */
char *qemu_process_last_words(const char *log_path);

#endif
