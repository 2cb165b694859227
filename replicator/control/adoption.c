/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See adoption.h. */
#include "replicator/control/adoption.h"

#include <errno.h>
#include <gio/gio.h>
#include <glib-unix.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

struct adoption {
    int fd;
    guint source;
    adoption_connected connected;
    void *opaque;
    char *path;
};

static gboolean on_connection(gint fd, GIOCondition condition, gpointer opaque)
{
    struct adoption *adoption = opaque;
    (void)condition;
    int accepted = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (accepted >= 0)
        adoption->connected(adoption->opaque, accepted);
    return G_SOURCE_CONTINUE;
}

struct adoption *adoption_new(const char *vm_dir, adoption_connected connected, void *opaque, GError **error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    g_autofree char *path = g_build_filename(vm_dir, "us-replicator", NULL);
    int fd = -1;
    if (g_strlcpy(address.sun_path, path, sizeof address.sun_path) >= sizeof address.sun_path)
        errno = ENAMETOOLONG;
    else
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0)
        g_unlink(path);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, 2) < 0) {
        g_set_error(error, G_IO_ERROR, g_io_error_from_errno(errno),
                    "no later understudyd could find this VM: %s: %s", path, g_strerror(errno));
        if (fd >= 0)
            close(fd);
        return NULL;
    }
    struct adoption *adoption = g_new0(struct adoption, 1);
    adoption->fd = fd;
    adoption->connected = connected;
    adoption->opaque = opaque;
    adoption->path = g_steal_pointer(&path);
    adoption->source = g_unix_fd_add(fd, G_IO_IN, on_connection, adoption);
    return adoption;
}

void adoption_free(struct adoption *adoption)
{
    if (!adoption)
        return;
    g_source_remove(adoption->source);
    close(adoption->fd);
    g_unlink(adoption->path);
    g_free(adoption->path);
    g_free(adoption);
}
