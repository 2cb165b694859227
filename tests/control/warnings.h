/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Counts what is logged as a warning, instead of writing it. */
#ifndef UNDERSTUDY_TESTS_CONTROL_WARNINGS_H
#define UNDERSTUDY_TESTS_CONTROL_WARNINGS_H

#include <glib.h>

static unsigned nwarnings;

/* For g_log_set_writer_func. */
static inline GLogWriterOutput count_warnings(GLogLevelFlags level, const GLogField *fields, gsize n,
                                              gpointer opaque)
{
    (void)fields;
    (void)n;
    (void)opaque;
    nwarnings += (level & G_LOG_LEVEL_WARNING) != 0;
    return G_LOG_WRITER_HANDLED;
}

#endif
