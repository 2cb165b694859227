/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One sentence for the user as a GError, written by whatever refuses a request. */
#include "common/refusal.h"

#include <gio/gio.h>

bool refuse(GError **error, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    g_propagate_error(error, g_error_new_valist(G_IO_ERROR, G_IO_ERROR_FAILED, format, args));
    va_end(args);
    return false;
}
