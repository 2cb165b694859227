/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Connects the guest's NICs with the output gate and the input log. Control thread. */
#ifndef UNDERSTUDY_REPLICATOR_GUEST_NICS_H
#define UNDERSTUDY_REPLICATOR_GUEST_NICS_H

#include <stdbool.h>

#include "hv-hooks/machine.h"
#include "replicator/control/sink.h"
#include "replicator/network/input_log.h"
#include "replicator/network/output_gate.h"

struct guest_nics {
    const char *vm_name;
    unsigned n;
    struct machine *machine; /* ready */
    struct output_gate *gate;
    struct input_log *input_log;
    struct sink *sink;
};

/*
 * Connects each NIC's sockets, and lets the machine mirror frames when all are connected. The sockets belong
 * to the gate and the input log then. False: sink_last_error says why.
 */
bool guest_nics_connect(const struct guest_nics *nics);

#endif
