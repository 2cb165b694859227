/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See guest_nics.h. */
#include <errno.h>
#include <glib.h>
#include <unistd.h>

#include "replicator/control/guest_nics.h"

static bool connect_nic(const struct guest_nics *nics, unsigned nic)
{
    g_autoptr(GError) error = NULL;
    struct machine_nic sockets;
    if (!machine_connect_nic(nics->machine, nic, &sockets, &error)) {
        sink_error(nics->sink, "%s", error->message);
        return false;
    }
    const int fds[] = {sockets.out, sockets.in, sockets.mirror, sockets.inject};
    size_t taken = 0;
    int status = gate_add_nic(nics->gate, sockets.out, sockets.in);
    if (status == 0) {
        taken = 2;
        status = input_log_add_nic(nics->input_log, sockets.mirror, sockets.inject);
    }
    if (status == 0)
        return true;
    for (size_t i = taken; i < G_N_ELEMENTS(fds); i++)
        close(fds[i]);
    sink_error(nics->sink, "VM %s: network device %u cannot be protected: %s", nics->vm_name, nic,
               status == -E2BIG ? "there are too many" : g_strerror(-status));
    return false;
}

bool guest_nics_connect(const struct guest_nics *nics)
{
    for (unsigned i = 0; i < nics->n; i++) {
        if (!connect_nic(nics, i))
            return false;
    }
    machine_mirror_frames(nics->machine);
    return true;
}
