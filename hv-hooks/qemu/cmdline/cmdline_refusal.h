/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Refuses a command line: sets the function's argument `error` to a sentence, and is false. For the
 * cmdline*.c. */
#ifndef UNDERSTUDY_HV_HOOKS_QEMU_CMDLINE_REFUSAL_H
#define UNDERSTUDY_HV_HOOKS_QEMU_CMDLINE_REFUSAL_H

#include "hv-hooks/qemu/cmdline/cmdline.h"

#define UNSUPPORTED(...) (g_set_error(error, CMDLINE_ERROR, CMDLINE_ERROR_UNSUPPORTED, __VA_ARGS__), false)

#endif
