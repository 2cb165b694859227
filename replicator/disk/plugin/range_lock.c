/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A list of ranges in order of arrival. It is as long as nbdkit has threads at work, a few tens at most, so
 * walking it costs less than a tree would.
 */
#include "replicator/disk/plugin/range_lock.h"

#include <stdbool.h>

void range_lock_init(struct range_lock *lock)
{
    *lock = (struct range_lock){0};
    pthread_mutex_init(&lock->mutex, NULL);
    pthread_cond_init(&lock->changed, NULL);
}

void range_lock_destroy(struct range_lock *lock)
{
    pthread_cond_destroy(&lock->changed);
    pthread_mutex_destroy(&lock->mutex);
}

static bool is_blocked(const struct range *range)
{
    for (const struct range *other = range->earlier; other; other = other->earlier) {
        if (other->begin < range->end && range->begin < other->end)
            return true;
    }
    return false;
}

void range_acquire(struct range_lock *lock, struct range *range, uint64_t offset, uint64_t len)
{
    range->begin = offset;
    range->end = len > UINT64_MAX - offset ? UINT64_MAX : offset + len;
    range->later = NULL;
    pthread_mutex_lock(&lock->mutex);
    range->earlier = lock->last;
    if (lock->last)
        lock->last->later = range;
    else
        lock->first = range;
    lock->last = range;
    while (is_blocked(range)) {
        lock->waiting++;
        pthread_cond_wait(&lock->changed, &lock->mutex);
        lock->waiting--;
    }
    pthread_mutex_unlock(&lock->mutex);
}

void range_release(struct range_lock *lock, struct range *range)
{
    pthread_mutex_lock(&lock->mutex);
    if (range->earlier)
        range->earlier->later = range->later;
    else
        lock->first = range->later;
    if (range->later)
        range->later->earlier = range->earlier;
    else
        lock->last = range->earlier;
    if (lock->waiting)
        pthread_cond_broadcast(&lock->changed);
    pthread_mutex_unlock(&lock->mutex);
}
