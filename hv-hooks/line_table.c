/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Whose command lines understudy reads: a hypervisor more is a line more. A file of its own, so that a test
 * can link another table in its place. */
#include "hv-hooks/line_ops.h"

const struct line_ops *const line_hypervisors[] = {&line_ops_qemu, NULL};
