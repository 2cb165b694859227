/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Connects the guest's NICs with the output gate and the input log. */
#include <errno.h>
#include <unistd.h>

#include "replicator/control/replicator.h"

static bool connect_nic(struct replicator *r, unsigned nic)
{
    g_autoptr(GError) error = NULL;
    struct machine_nic sockets;
    if (!machine_connect_nic(r->machine, nic, &sockets, &error)) {
        sink_error(&r->sink, "%s", error->message);
        return false;
    }
    const int fds[] = {sockets.out, sockets.in, sockets.mirror, sockets.inject};
    size_t taken = 0;
    int status = gate_add_nic(r->gate, sockets.out, sockets.in);
    if (status == 0) {
        taken = 2;
        status = input_log_add_nic(r->input_log, sockets.mirror, sockets.inject);
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
    machine_mirror_frames(r->machine);
    return true;
}
