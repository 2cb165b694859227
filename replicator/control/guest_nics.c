/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The sockets between QEMU's filters and this process, four for each NIC
 * (hv-hooks/qemu/cmdline/cmdline_build.c).
 *
 * QEMU reads frames from the network as soon as its main loop runs, before anything here can be connected. A
 * redirector drops a frame while its socket has no other end. A mirror complains of each one ("filter mirror
 * send failed", net/filter-mirror.c of 7.2 to 10.0), so the mirrors begin switched off, and are switched on
 * once QEMU has accepted their connections. connect(2) succeeds before that: QEMU is asked until it says so.
 */
#include <errno.h>
#include <gio/gio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "replicator/control/replicator.h"

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

static int connect_nic_socket(struct replicator *r, const char *kind, unsigned nic)
{
    g_autofree char *name = g_strdup_printf("us-%s-%u", kind, nic);
    g_autofree char *path = g_build_filename(r->config.vm_dir, name, NULL);
    int fd = connect_unix(path);
    if (fd < 0)
        sink_error(&r->sink, "the socket %s of NIC %u cannot be reached: %s", path, nic, g_strerror(errno));
    return fd;
}

static void on_chardevs(struct qmp *qmp, json_t *value, const GError *error, void *opaque);

static void ask_for_chardevs(struct replicator *r)
{
    if (r->config.nnics > 0)
        qmp_execute(r->qmp, "query-chardev", NULL, -1, on_chardevs, r);
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
    const struct replicator *r = opaque;
    (void)qmp;
    (void)value;
    if (error && !r->qemu_gone && !r->quitting)
        g_warning(
            "%s: frames for the guest are not copied to the other host (QEMU says: %s): after a takeover "
            "clients send them again",
            r->config.vm_name, error->message);
}

static void on_chardevs(struct qmp *qmp, json_t *value, const GError *error, void *opaque)
{
    struct replicator *r = opaque;
    size_t i;
    json_t *chardev;
    bool all = true;
    if (error)
        return; /* the monitor is gone, and QEMU with it */
    json_array_foreach (value, i, chardev)
        all &= !is_mirror_without_other_end(chardev);
    if (!all && ++r->chardev_questions < MAX_QUESTIONS) {
        ask_for_chardevs(r);
        return;
    }
    for (unsigned nic = 0; nic < r->config.nnics; nic++) {
        g_autofree char *path = g_strdup_printf("/objects/us-mir-%u", nic);
        qmp_execute(qmp, "qom-set",
                    json_pack("{s:s, s:s, s:s}", "path", path, "property", "status", "value", "on"), -1,
                    on_switched_on, r);
    }
}

static bool connect_nic(struct replicator *r, unsigned nic)
{
    static const char *const kinds[] = {"out", "in", "mir", "inj"};
    int fds[G_N_ELEMENTS(kinds)];
    for (size_t i = 0; i < G_N_ELEMENTS(kinds); i++) {
        fds[i] = connect_nic_socket(r, kinds[i], nic);
        if (fds[i] >= 0)
            continue;
        while (i > 0)
            close(fds[--i]);
        return false;
    }
    size_t taken = 0;
    int status = gate_add_nic(r->gate, fds[0], fds[1]);
    if (status == 0) {
        taken = 2;
        status = input_log_add_nic(r->input_log, fds[2], fds[3]);
    }
    if (status == 0)
        return true;
    for (size_t i = taken; i < G_N_ELEMENTS(fds); i++)
        close(fds[i]);
    sink_error(&r->sink, "VM %s: network device %u cannot be protected: %s", r->config.vm_name, nic,
               status == -E2BIG ? "there are too many" : g_strerror(-status));
    return false;
}

bool guest_nics_connect(struct replicator *r)
{
    for (unsigned i = 0; i < r->config.nnics; i++) {
        if (!connect_nic(r, i))
            return false;
    }
    ask_for_chardevs(r);
    return true;
}
