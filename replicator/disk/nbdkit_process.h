/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Starts nbdkit with understudy's plugin, which serves one disk of the VM to its QEMU over a Unix socket.
 *
 * The replicator makes the listening socket and nbdkit inherits it (socket activation). So QEMU can connect
 * as soon as the socket exists: its connection waits in the queue until this nbdkit, or the next one,
 * answers. No code waits until nbdkit is ready.
 *
 * nbdkit ends when the replicator does. After nbdkit has ended, the caller may start it again with the same
 * socket and descriptors. Control thread only.
 */
#ifndef UNDERSTUDY_REPLICATOR_NBDKIT_PROCESS_H
#define UNDERSTUDY_REPLICATOR_NBDKIT_PROCESS_H

#include <glib.h>

#include "common/child_process.h"

struct nbdkit_start {
    const char *plugin;   /* file */
    const char *disk;     /* its id, for messages */
    const char *log_path; /* output is appended */
    int nice;             /* see struct child_start */
    int listen_fd;        /* nbdkit_listen */
    /* replicator/disk/disk_log.h; all stay the caller's. */
    int shm_fd, image_fd, map_fd, attention_fd;
};

/* Makes the listening socket (close-on-exec) that QEMU connects to; removes an old one at path. Returns the
 * fd, or -1 and error. */
int nbdkit_listen(const char *path, GError **error);
/*
 * Starts nbdkit; exited is called once when it has ended. NULL and error: it could not be run (not installed,
 * no plugin). A plugin that refuses its parameters ends at once and logs why.
 */
struct child_process *nbdkit_process_start(const struct nbdkit_start *start, child_process_exited exited,
                                           void *opaque, GError **error);

#endif
