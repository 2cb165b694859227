/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Futexes that work between processes (FUTEX_PRIVATE_FLAG is not set): the replicator and nbdkit's plugin
 * wait for each other in shared memory (disk_log.h). Mailboxes use them, too. See futex(2).
 */
#ifndef UNDERSTUDY_REPLICATOR_DISK_FUTEX_H
#define UNDERSTUDY_REPLICATOR_DISK_FUTEX_H

#include <linux/futex.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Returns the time of CLOCK_MONOTONIC that many milliseconds from now. */
static inline struct timespec disk_futex_in_ms(unsigned milliseconds)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    at.tv_nsec += milliseconds % 1000 * 1000000l;
    at.tv_sec += milliseconds / 1000 + at.tv_nsec / 1000000000;
    at.tv_nsec %= 1000000000;
    return at;
}

/*
 * Waits while *word is seen, until the time (CLOCK_MONOTONIC; NULL: without limit). May return early: check
 * again.
 */
static inline void disk_futex_wait(_Atomic uint32_t *word, uint32_t seen, const struct timespec *until)
{
    syscall(SYS_futex, word, FUTEX_WAIT_BITSET, seen, until, NULL, FUTEX_BITSET_MATCH_ANY);
}

static inline void disk_futex_wake(_Atomic uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}

/* Adds one to *word and wakes all waiters, which then check their conditions again. */
static inline void disk_futex_raise(_Atomic uint32_t *word)
{
    atomic_fetch_add(word, 1);
    disk_futex_wake(word);
}

#endif
