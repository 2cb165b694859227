/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Starts QEMU as a child process (child_process.h), with the hook and the engine's memfds inside. */
#ifndef UNDERSTUDY_REPLICATOR_QEMU_PROCESS_H
#define UNDERSTUDY_REPLICATOR_QEMU_PROCESS_H

#include <glib.h>

#include "common/child_process.h"
#include "hv-hooks/qemu/hook_client.h"

/* The numbers the engine's fds have inside QEMU. High, so that nothing of QEMU's start-up collides with them.
 */
enum { QEMU_FD_SHM = 60, QEMU_FD_DEVSTATE = 61, QEMU_FD_KICK = 62, QEMU_FD_RAM = 63 };

struct qemu_start {
    const char *const *argv; /* NULL-terminated */
    const char *hook_path;
    const struct hv_fds *fds; /* stay the caller's */
    const char *log_path;     /* output goes there */
    int nice;                 /* see struct child_start */
    /* For a trial: no network, and signals that would end it are not passed on to this process. */
    bool throw_away;
};

/* Starts QEMU with the hook preloaded. NULL and error set when the program could not be started. */
struct child_process *qemu_process_start(const struct qemu_start *start, child_process_exited exited,
                                         void *opaque, GError **error);

#endif
