/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Files that a command line names from the folder where the user stood. Pure. */
#ifndef UNDERSTUDY_HV_HOOKS_QEMU_CMDLINE_PATHS_H
#define UNDERSTUDY_HV_HOOKS_QEMU_CMDLINE_PATHS_H

#include <glib.h>
#include <stdbool.h>

/* Whether the argument of this option (without its dashes) may name a file. */
bool cmdline_paths_has_files(const char *option);
/* The argument of such an option with its files named from cwd on. GLib string. */
char *cmdline_paths_absolute(const char *option, const char *value, const char *cwd);

#endif
