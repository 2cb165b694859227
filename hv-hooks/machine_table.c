/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Whose machines the replicator starts: a hypervisor more is a line more. A file of its own, so that a test
 * can link another table in its place. */
#include "hv-hooks/machine_ops.h"

const struct machine_ops *const machine_hypervisors[] = {&machine_ops_qemu, NULL};
