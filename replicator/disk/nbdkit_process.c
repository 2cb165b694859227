/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Builds nbdkit's argument list and starts it by child_process. The listening socket is passed as systemd
 * passes one (LISTEN_FDS), so nbdkit serves connections that were queued before it started. Its descriptors
 * have fixed numbers.
 */
#include "replicator/disk/nbdkit_process.h"

#include <errno.h>
#include <gio/gio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG 8 /* QEMU has one connection, a tool that looks has another */

/* Inside nbdkit: a socket of systemd's protocol is at 3. */
enum { NBDKIT_FD_LISTEN = 3, NBDKIT_FD_SHM = 4, NBDKIT_FD_IMAGE, NBDKIT_FD_MAP, NBDKIT_FD_ATTENTION };

int nbdkit_listen(const char *path, GError **error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = -1;
    if (g_strlcpy(address.sun_path, path, sizeof address.sun_path) >= sizeof address.sun_path)
        errno = ENAMETOOLONG;
    else
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0) {
        unlink(path);
        if (bind(fd, (const struct sockaddr *)&address, sizeof address) == 0 && listen(fd, BACKLOG) == 0)
            return fd;
    }
    int saved = errno;
    if (fd >= 0)
        close(fd);
    g_set_error(error, G_IO_ERROR, g_io_error_from_errno(saved), "no socket for a disk at %s: %s", path,
                g_strerror(saved));
    return -1;
}

static void add_number(GPtrArray *argv, const char *key, int value)
{
    g_ptr_array_add(argv, g_strdup_printf("%s=%d", key, value));
}

struct child_process *nbdkit_process_start(const struct nbdkit_start *start, child_process_exited exited,
                                           void *opaque, GError **error)
{
    g_autofree char *path = g_find_program_in_path("nbdkit");
    if (!path) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND,
                    "nbdkit was not found: install nbdkit, which serves the VM's disks");
        return NULL;
    }
    if (access(start->plugin, R_OK) < 0) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND, "the disk plugin %s cannot be read: %s",
                    start->plugin, g_strerror(errno));
        return NULL;
    }
    g_autoptr(GPtrArray) argv = g_ptr_array_new_with_free_func(g_free);
    g_ptr_array_add(argv, g_strdup("nbdkit"));
    g_ptr_array_add(argv, g_strdup("--foreground"));
    g_ptr_array_add(argv, g_strdup("--log=stderr"));
    g_ptr_array_add(argv, g_strdup(start->plugin));
    add_number(argv, "shm", NBDKIT_FD_SHM);
    add_number(argv, "image", NBDKIT_FD_IMAGE);
    add_number(argv, "map", NBDKIT_FD_MAP);
    add_number(argv, "attention", NBDKIT_FD_ATTENTION);
    add_number(argv, "parent", getpid());
    g_ptr_array_add(argv, g_strdup_printf("name=%s", start->disk));
    g_ptr_array_add(argv, NULL);
    const struct child_start child = {
        .argv = (const char *const *)argv->pdata,
        .path = path,
        .log_path = start->log_path,
        .fds = {{start->listen_fd, NBDKIT_FD_LISTEN},
                {start->shm_fd, NBDKIT_FD_SHM},
                {start->image_fd, NBDKIT_FD_IMAGE},
                {start->map_fd, NBDKIT_FD_MAP},
                {start->attention_fd, NBDKIT_FD_ATTENTION}},
        .nfds = 5,
        .nice = start->nice,
        .socket_activated = true,
        .ends_with_parent_only = true, /* by the plugin: nbdkit's --exit-with-parent is a SIGTERM */
    };
    return child_process_start(&child, exited, opaque, error);
}
