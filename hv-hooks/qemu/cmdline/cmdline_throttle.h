/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Refuses limits on a disk's requests, which would have no effect under checkpoints. Pure. */
#ifndef UNDERSTUDY_HV_HOOKS_QEMU_CMDLINE_THROTTLE_H
#define UNDERSTUDY_HV_HOOKS_QEMU_CMDLINE_THROTTLE_H

#include <glib.h>
#include <stdbool.h>

/* Checks the keys of a -drive or of an -object throttle-group. False and error if they set a limit. */
bool cmdline_throttle_check(const char *option, const char *value, const GPtrArray *keys, GError **error);

#endif
