/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The error domain of refused command lines. At the bottom of this folder: it calls none of the others. */
#include "hv-hooks/qemu/cmdline/cmdline_refusal.h"

GQuark cmdline_error_quark(void)
{
    return g_quark_from_static_string("understudy-cmdline-error");
}
