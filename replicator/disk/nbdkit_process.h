/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbdkit with our plugin: serves one disk of the VM to its QEMU over a Unix socket.
 *
 * The replicator makes the listening socket and nbdkit inherits it (socket activation), so that QEMU can
 * connect from the moment the socket is there: it waits in the queue until nbdkit, or the one started after
 * it, answers. Nobody ever waits for nbdkit to be ready.
 *
 * nbdkit ends when the replicator does. Starting it again after it ended is the caller's business, with the
 * same socket and descriptors. Control thread only.
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

/* The socket that QEMU connects to: listening, close-on-exec; a stale one at path goes. -1 and error. */
int nbdkit_listen(const char *path, GError **error);
/*
 * Starts it; exited is called once when it has ended. NULL and error: it could not be run (not installed, no
 * plugin). A plugin that does not like what it is given ends at once and says why in the log.
 */
struct child_process *nbdkit_process_start(const struct nbdkit_start *start, child_process_exited exited,
                                           void *opaque, GError **error);

#endif
