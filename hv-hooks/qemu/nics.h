/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The sockets between QEMU's filters and this process, four for each NIC (cmdline/cmdline_build.c). One
 * thread's: the one that iterates the monitor's main context.
 */
#ifndef UNDERSTUDY_HV_HOOKS_QEMU_NICS_H
#define UNDERSTUDY_HV_HOOKS_QEMU_NICS_H

#include "hv-hooks/machine.h"
#include "hv-hooks/qemu/qmp.h"

/* machine_connect_nic. dir: the VM's folder. */
bool nics_connect(const char *dir, unsigned nic, struct machine_nic *out, GError **error);

/* The mirrors of a VM's NICs, which are off at first. The caller's, until the monitor is closed. */
struct nics_mirrors {
    struct qmp *qmp;
    unsigned n; /* NICs */
    /* One does not copy frames: a sentence, borrowed. Also called when the monitor closes meanwhile. */
    void (*trouble)(void *opaque, const char *what);
    void *opaque;
    unsigned questions; /* asked until QEMU had accepted the sockets */
};

/* Switches them on once QEMU has accepted their sockets, which are all connected. Returns at once. */
void nics_mirrors_switch_on(struct nics_mirrors *mirrors);

#endif
