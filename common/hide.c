/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Hides a process by clearing its "dumpable" attribute (prctl(2)). Such a process leaves no core file,
 * whatever RLIMIT_CORE says. execve(2) sets the attribute again.
 */
#include "common/hide.h"

#include <sys/prctl.h>

void process_hide(void)
{
    prctl(PR_SET_DUMPABLE, 0);
}
