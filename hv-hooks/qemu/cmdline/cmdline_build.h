/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Options that the command lines of cmdline_build.c and cmdline_trial.c have in common. Only for these two.
 */
#ifndef UNDERSTUDY_HV_HOOKS_QEMU_CMDLINE_BUILD_H
#define UNDERSTUDY_HV_HOOKS_QEMU_CMDLINE_BUILD_H

#include "hv-hooks/qemu/cmdline/cmdline.h"

/* Adds an option and its argument, formatted. */
G_GNUC_PRINTF(3, 4) void cmdline_add(GPtrArray *out, const char *option, const char *format, ...);
/* Adds guest memory from ram_fd. private_copy: QEMU writes to private copies of its pages. */
void cmdline_add_memory(GPtrArray *out, const struct cmdline *cmdline, int ram_fd, bool private_copy);
/* Adds the options that make QEMU pause where it would end. */
void cmdline_add_actions(GPtrArray *out, const struct cmdline *cmdline);
/* Adds a QMP monitor at the socket vm_dir/socket. */
void cmdline_add_monitor(GPtrArray *out, const char *vm_dir, const char *socket);
/* Adds the settings for loading device state. incoming: QEMU waits for a device state. */
void cmdline_add_migration(GPtrArray *out, bool incoming);

#endif
