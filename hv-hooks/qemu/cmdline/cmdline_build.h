/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the two lines share that cmdline_build.c and cmdline_trial.c make: theirs alone. */
#ifndef UNDERSTUDY_HV_HOOKS_QEMU_CMDLINE_BUILD_H
#define UNDERSTUDY_HV_HOOKS_QEMU_CMDLINE_BUILD_H

#include "hv-hooks/qemu/cmdline/cmdline.h"

/* Adds an option and its argument, formatted. */
G_GNUC_PRINTF(3, 4) void cmdline_add(GPtrArray *out, const char *option, const char *format, ...);
/* Guest memory from ram_fd; written there, or to private copies of its pages. */
void cmdline_add_memory(GPtrArray *out, const struct cmdline *cmdline, int ram_fd, bool private_copy);
/* What makes QEMU pause where it would end. */
void cmdline_add_actions(GPtrArray *out, const struct cmdline *cmdline);
/* The monitor at a socket, and how device state is loaded; incoming: it waits for one. */
void cmdline_add_monitor(GPtrArray *out, const char *vm_dir, const char *socket);
void cmdline_add_migration(GPtrArray *out, bool incoming);

#endif
