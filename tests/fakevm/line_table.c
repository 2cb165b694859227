/* SPDX-License-Identifier: GPL-2.0-or-later */
/* In place of hv-hooks/line_table.c: two hypervisors. */
#include "tests/fakevm/fake_line.h"

const struct line_ops *const line_hypervisors[] = {&line_ops_qemu, &line_ops_fakevm, NULL};
