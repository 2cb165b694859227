/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Whose program a command line begins with. Pure. */
#ifndef UNDERSTUDY_HV_HOOKS_PROGRAM_H
#define UNDERSTUDY_HV_HOOKS_PROGRAM_H

#include <stdbool.h>

/* Whether the base name of program (NULL: "") matches one of the patterns ('*', '?'), which NULL ends. */
bool program_is_one_of(const char *program, const char *const *patterns);

#endif
