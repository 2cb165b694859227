/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Limits on a disk's requests, which do not survive checkpoints. Pure. */
#ifndef UNDERSTUDY_HV_HOOKS_QEMU_CMDLINE_THROTTLE_H
#define UNDERSTUDY_HV_HOOKS_QEMU_CMDLINE_THROTTLE_H

#include <glib.h>
#include <stdbool.h>

/* False and error if the keys of this -drive, or of this -object throttle-group, set a limit. */
bool cmdline_throttle_check(const char *option, const char *value, const GPtrArray *keys, GError **error);

#endif
