/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * See nics.h. QEMU reads frames from the network as soon as its main loop runs, before anything here can be
 * connected. A redirector drops a frame while its socket has no other end. A mirror complains of each one
 * ("filter mirror send failed", net/filter-mirror.c of 7.2 to 10.0), so the mirrors begin switched off, and
 * are switched on once QEMU has accepted their connections. connect(2) succeeds before that: QEMU is asked
 * until it says so.
 */
#include "hv-hooks/qemu/nics.h"

#include <errno.h>
#include <gio/gio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define NIC_SOCKET_BUFFER (4 << 20)
#define MAX_QUESTIONS     1000 /* QEMU accepts in the next round of its main loop, as it answers */

/* A connected, non-blocking socket, or -1 and errno. */
static int connect_unix(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (g_strlcpy(address.sun_path, path, sizeof address.sun_path) >= sizeof address.sun_path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) < 0) {
        int saved = errno;
        close(fd);
        errno = saved;
        return -1;
    }
    if (fd < 0)
        return -1;
    int len = NIC_SOCKET_BUFFER;
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &len, sizeof len);
    return fd;
}

static int connect_socket(const char *dir, const char *kind, unsigned nic, GError **error)
{
    g_autofree char *name = g_strdup_printf("us-%s-%u", kind, nic);
    g_autofree char *path = g_build_filename(dir, name, NULL);
    int fd = connect_unix(path);
    if (fd < 0)
        g_set_error(error, G_IO_ERROR, g_io_error_from_errno(errno),
                    "the socket %s of NIC %u cannot be reached: %s", path, nic, g_strerror(errno));
    return fd;
}

bool nics_connect(const char *dir, unsigned nic, struct machine_nic *out, GError **error)
{
    static const char *const kinds[] = {"out", "in", "mir", "inj"};
    int *const fds[G_N_ELEMENTS(kinds)] = {&out->out, &out->in, &out->mirror, &out->inject};
    for (size_t i = 0; i < G_N_ELEMENTS(kinds); i++) {
        *fds[i] = connect_socket(dir, kinds[i], nic, error);
        if (*fds[i] >= 0)
            continue;
        while (i > 0)
            close(*fds[--i]);
        return false;
    }
    return true;
}

static void on_chardevs(struct qmp *qmp, json_t *value, const GError *error, void *opaque);

void nics_mirrors_switch_on(struct nics_mirrors *mirrors)
{
    if (mirrors->n > 0)
        qmp_execute(mirrors->qmp, "query-chardev", NULL, -1, on_chardevs, mirrors);
}

static bool is_mirror_without_other_end(const json_t *chardev)
{
    const char *label = json_string_value(json_object_get(chardev, "label"));
    const char *filename = json_string_value(json_object_get(chardev, "filename"));
    return label && g_str_has_prefix(label, "us-c-mir-") &&
           (!filename || g_str_has_prefix(filename, "disconnected:"));
}

static void on_switched_on(struct qmp *qmp, json_t *value, const GError *error, void *opaque)
{
    const struct nics_mirrors *mirrors = opaque;
    (void)qmp;
    (void)value;
    if (!error)
        return;
    g_autofree char *what = g_strdup_printf(
        "frames for the guest are not copied to the other host (QEMU says: %s): after a takeover "
        "clients send them again",
        error->message);
    mirrors->trouble(mirrors->opaque, what);
}

static void on_chardevs(struct qmp *qmp, json_t *value, const GError *error, void *opaque)
{
    struct nics_mirrors *mirrors = opaque;
    size_t i;
    json_t *chardev;
    bool all = true;
    if (error)
        return; /* the monitor is gone, and QEMU with it */
    json_array_foreach (value, i, chardev)
        all &= !is_mirror_without_other_end(chardev);
    if (!all && ++mirrors->questions < MAX_QUESTIONS) {
        nics_mirrors_switch_on(mirrors);
        return;
    }
    for (unsigned nic = 0; nic < mirrors->n; nic++) {
        g_autofree char *path = g_strdup_printf("/objects/us-mir-%u", nic);
        qmp_execute(qmp, "qom-set",
                    json_pack("{s:s, s:s, s:s}", "path", path, "property", "status", "value", "on"), -1,
                    on_switched_on, mirrors);
    }
}
