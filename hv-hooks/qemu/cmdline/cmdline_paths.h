/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Makes relative names of files in a command line absolute. Pure. */
#ifndef UNDERSTUDY_HV_HOOKS_QEMU_CMDLINE_PATHS_H
#define UNDERSTUDY_HV_HOOKS_QEMU_CMDLINE_PATHS_H

#include <glib.h>
#include <stdbool.h>

/* Returns whether the argument of this option (without its dashes) may name a file. */
bool cmdline_paths_has_files(const char *option);
/* Returns the argument of such an option, in which relative names of files begin with cwd. GLib string. */
char *cmdline_paths_absolute(const char *option, const char *value, const char *cwd);

#endif
