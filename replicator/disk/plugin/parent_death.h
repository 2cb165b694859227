/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A disk's server ends with its replicator, and with nothing else. The replicator blocks SIGTERM in it
 * (ends_with_parent_only), which every process gets when a host goes down. nbdkit asks to be told of its
 * parent's death by that same signal (1.32 does so without --exit-with-parent too), so it is asked for anew
 * here, after nbdkit.
 */
#ifndef UNDERSTUDY_REPLICATOR_PARENT_DEATH_H
#define UNDERSTUDY_REPLICATOR_PARENT_DEATH_H

#include <signal.h>
#include <stdbool.h>
#include <sys/prctl.h>
#include <unistd.h>

/* nbdkit quits in good order on SIGQUIT. parent 0: nobody is waited for. False: it is gone already. */
static inline bool parent_death_await(int parent)
{
    if (parent == 0)
        return true;
    prctl(PR_SET_PDEATHSIG, SIGQUIT);
    return getppid() == parent;
}

#endif
