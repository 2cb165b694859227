/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Planted faults of nbdkit's plugin, for the tests that show that the tests would notice. In the variant
 * built with UNDERSTUDY_CHAOS only; otherwise nothing.
 *
 *   UNDERSTUDY_DISK_FAULT=NAME       commits that fault (see where disk_chaos_has is asked)
 *   UNDERSTUDY_DISK_DIE=STEP:COUNT   is killed the COUNT-th time that a change has come to that step
 */
#ifndef UNDERSTUDY_REPLICATOR_DISK_CHAOS_H
#define UNDERSTUDY_REPLICATOR_DISK_CHAOS_H

#include <stdbool.h>

#ifdef UNDERSTUDY_CHAOS
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static inline bool disk_chaos_has(const char *fault)
{
    const char *wanted = getenv("UNDERSTUDY_DISK_FAULT");
    return wanted && strcmp(wanted, fault) == 0;
}

static inline void disk_chaos_step(const char *step)
{
    static _Atomic unsigned long count;
    const char *wanted = getenv("UNDERSTUDY_DISK_DIE");
    size_t len = strlen(step);
    if (wanted && strncmp(wanted, step, len) == 0 && wanted[len] == ':' &&
        atomic_fetch_add(&count, 1) + 1 == strtoul(wanted + len + 1, NULL, 10))
        raise(SIGKILL);
}
#else
static inline bool disk_chaos_has(const char *fault)
{
    (void)fault;
    return false;
}

static inline void disk_chaos_step(const char *step)
{
    (void)step;
}
#endif

#endif
