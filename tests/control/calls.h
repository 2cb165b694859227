/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a part under test calls, as text: each fake writes its call down, and the test compares all of them,
 * in order. One call is "name argument ...", and each has "; " behind it.
 */
#ifndef UNDERSTUDY_TESTS_CONTROL_CALLS_H
#define UNDERSTUDY_TESTS_CONTROL_CALLS_H

#include <glib.h>

static GString *calls;

static inline void calls_begin(void)
{
    calls = g_string_new(NULL);
}

static inline void calls_end(void)
{
    g_string_free(g_steal_pointer(&calls), TRUE);
}

G_GNUC_PRINTF(1, 2) static inline void called(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    g_string_append_vprintf(calls, format, args);
    va_end(args);
    g_string_append(calls, "; ");
}

/* The calls since the last assert_calls are these and no others. */
#define assert_calls(expected)                                                                               \
    do {                                                                                                     \
        assert_string_equal(calls->str, expected);                                                           \
        g_string_truncate(calls, 0);                                                                         \
    } while (0)

#endif
