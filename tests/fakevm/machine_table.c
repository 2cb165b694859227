/* SPDX-License-Identifier: GPL-2.0-or-later */
/* In place of hv-hooks/machine_table.c: every machine is a fake one. */
#include "tests/fakevm/fake_machine.h"

const struct machine_ops *const machine_hypervisors[] = {&machine_ops_fakevm, NULL};
