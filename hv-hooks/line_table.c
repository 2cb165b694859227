/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The table of hypervisors whose command lines understudy reads: a new hypervisor is a new row. It has its
 * own file so that a test can link another table instead. */
#include "hv-hooks/line_ops.h"

const struct line_ops *const line_hypervisors[] = {&line_ops_qemu, NULL};
