/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See program.h. */
#include "hv-hooks/program.h"

#include <glib.h>

bool program_is_one_of(const char *program, const char *const *patterns)
{
    g_autofree char *base = program ? g_path_get_basename(program) : g_strdup("");
    for (; *patterns; patterns++) {
        if (g_pattern_match_simple(*patterns, base))
            return true;
    }
    return false;
}
