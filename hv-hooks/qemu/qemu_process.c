/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Starts QEMU with the hook in LD_PRELOAD. The hook learns by an environment variable which descriptors are
 * the shared memory, the device state's memfd and the eventfd.
 */
#include "hv-hooks/qemu/qemu_process.h"

#include <errno.h>
#include <gio/gio.h>
#include <string.h>
#include <unistd.h>

/* The environment for QEMU: ours, plus the hook. GLib strv. */
static char **qemu_environment(const struct qemu_start *start)
{
    struct hv_fds inside = {
        .shm = QEMU_FD_SHM, .devstate = QEMU_FD_DEVSTATE, .ram = QEMU_FD_RAM, .kick = QEMU_FD_KICK};
    g_autofree char *hook = hv_fds_environment(&inside);
    char **env = g_get_environ();
    const char *equals = strchr(hook, '=');
    g_autofree char *value = g_strdup_printf(
        "%s,replicator=%d", equals && g_str_has_prefix(hook, "UNDERSTUDY_HOOK=") ? equals + 1 : hook,
        start->throw_away ? -1 : getpid());
    env = g_environ_setenv(env, "UNDERSTUDY_HOOK", value, TRUE);
    env = g_environ_setenv(env, "LD_PRELOAD", start->hook_path, TRUE);
    return env;
}

struct child_process *qemu_process_start(const struct qemu_start *qemu, child_process_exited exited,
                                         void *opaque, GError **error)
{
    g_autofree char *path = g_find_program_in_path(qemu->argv[0]);
    if (!path) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND,
                    "%s was not found: install QEMU or give its full path", qemu->argv[0]);
        return NULL;
    }
    if (access(qemu->hook_path, R_OK) < 0) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND, "the hook %s cannot be read: %s",
                    qemu->hook_path, g_strerror(errno));
        return NULL;
    }
    g_auto(GStrv) environment = qemu_environment(qemu);
    const struct child_start start = {
        .argv = qemu->argv,
        .path = path,
        .environment = environment,
        .log_path = qemu->log_path,
        .fds = {{qemu->fds->shm, QEMU_FD_SHM},
                {qemu->fds->devstate, QEMU_FD_DEVSTATE},
                {qemu->fds->kick, QEMU_FD_KICK},
                {qemu->fds->ram, QEMU_FD_RAM}},
        .nfds = 4,
        .nice = qemu->nice,
        .no_network = qemu->throw_away,
    };
    return child_process_start(&start, exited, opaque, error);
}
