/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See hide.h. A process that is not dumpable leaves no core, whatever RLIMIT_CORE says. exec ends that. */
#include "common/hide.h"

#include <sys/prctl.h>

void process_hide(void)
{
    prctl(PR_SET_DUMPABLE, 0);
}
