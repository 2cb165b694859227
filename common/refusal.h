/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Refuses a request: sets a sentence for the user, and returns false. */
#ifndef UNDERSTUDY_COMMON_REFUSAL_H
#define UNDERSTUDY_COMMON_REFUSAL_H

#include <glib.h>
#include <stdbool.h>

/* Sets error (G_IO_ERROR_FAILED) to the sentence. Always false, so that a caller can return it. Any thread.
 */
G_GNUC_PRINTF(2, 3) bool refuse(GError **error, const char *format, ...);

#endif
