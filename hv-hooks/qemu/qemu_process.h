/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Starts QEMU as a child process, with the hook and the engine's memfds inside. Control thread only. */
#ifndef UNDERSTUDY_REPLICATOR_QEMU_PROCESS_H
#define UNDERSTUDY_REPLICATOR_QEMU_PROCESS_H

#include <glib.h>

#include "common/child_process.h"
#include "hv-hooks/hypervisor.h"

/* The numbers the engine's fds have inside QEMU. High, so that nothing of QEMU's start-up collides with them.
 */
enum { QEMU_FD_SHM = 60, QEMU_FD_DEVSTATE = 61, QEMU_FD_KICK = 62, QEMU_FD_RAM = 63 };

/*
 * Starts argv with hook_path preloaded and a niceness (see struct child_start). Output goes to log_path. fds
 * stay the caller's.
 * NULL and error set when the program could not be started.
 */
struct child_process *qemu_process_start(const char *const *argv, const char *hook_path,
                                         const struct hv_fds *fds, const char *log_path, int nice,
                                         child_process_exited exited, void *opaque, GError **error);

#endif
