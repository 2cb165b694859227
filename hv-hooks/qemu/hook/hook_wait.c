/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The clock, the futexes in shared memory and the planted faults, which all files of the hook use. This file
 * calls none of the others.
 */
#include <linux/futex.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "hv-hooks/qemu/hook/hook_internal.h"

uint64_t hook_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

long hook_futex_wait(_Atomic uint32_t *word, uint32_t value, uint64_t timeout_ns)
{
    struct timespec timeout = {.tv_sec = (time_t)(timeout_ns / 1000000000),
                               .tv_nsec = (long)(timeout_ns % 1000000000)};
    return syscall(SYS_futex, word, FUTEX_WAIT, value, &timeout, NULL, 0);
}

void hook_futex_wake(_Atomic uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

#ifdef UNDERSTUDY_CHAOS
bool hook_chaos(const char *fault)
{
    const char *planted = getenv("UNDERSTUDY_HOOK_CHAOS");
    return planted && strcmp(planted, fault) == 0;
}
#endif
