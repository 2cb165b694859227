/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Planted faults of nbdkit's plugin, for tests that show that other tests would notice them. They exist only
 * in the variant that is built with UNDERSTUDY_CHAOS.
 *
 *   UNDERSTUDY_DISK_FAULT=NAME       makes that fault (see the calls of disk_chaos_has)
 *   UNDERSTUDY_DISK_DIE=STEP:COUNT   kills nbdkit when a change reaches that step for the COUNT-th time
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
