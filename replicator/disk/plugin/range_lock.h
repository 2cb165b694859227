/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Locks ranges of a disk: only one holder may have any byte of [offset, offset + len). Others wait, first
 * come first served, so that a request for the whole disk is not starved by a stream of small ones. Any
 * thread.
 */
#ifndef UNDERSTUDY_REPLICATOR_RANGE_LOCK_H
#define UNDERSTUDY_REPLICATOR_RANGE_LOCK_H

#include <pthread.h>
#include <stdint.h>

#define RANGE_WHOLE UINT64_MAX /* as len, with offset 0: everything */

/* One holder, on its own stack. */
struct range {
    uint64_t begin, end;
    struct range *earlier, *later;
};

struct range_lock {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    struct range *first, *last; /* holders and those who wait, in the order they came */
    unsigned waiting;
};

void range_lock_init(struct range_lock *lock);
void range_lock_destroy(struct range_lock *lock);
/*
 * Takes the range, after all earlier holders and waiters of any of its bytes. The lock uses *range until
 * range_release.
 */
void range_acquire(struct range_lock *lock, struct range *range, uint64_t offset, uint64_t len);
void range_release(struct range_lock *lock, struct range *range);

#endif
