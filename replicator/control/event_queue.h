/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Events on their way to the session, in order. Carrying out what an event decides may raise another one (a
 * grant that is given at once, a link that fails): that one waits here until the first is done, with all that
 * came with it, and is then handled by whoever is handling already. Bounded. One thread's.
 */
#ifndef UNDERSTUDY_REPLICATOR_EVENT_QUEUE_H
#define UNDERSTUDY_REPLICATOR_EVENT_QUEUE_H

#include <stdbool.h>

#include "failover/session.h"

struct staged_epoch;

#define EVENT_QUEUE_MAX 64

struct queued_event {
    struct session_event event;
    struct staged_epoch *offered; /* the epoch that came with it, or NULL */
};

struct event_queue {
    struct queued_event list[EVENT_QUEUE_MAX];
    unsigned head, n;
    bool runs; /* somebody handles events */
};

/* Takes over offered. */
typedef void (*event_handler)(void *opaque, const struct session_event *event, struct staged_epoch *offered);

/*
 * Handles the event and all that are posted meanwhile before it returns, or only queues it if a caller
 * further up is handling one. False: the queue is full, nothing was done, and offered is still the caller's.
 */
bool event_queue_post(struct event_queue *queue, const struct session_event *event,
                      struct staged_epoch *offered, event_handler handler, void *opaque);

static inline bool event_queue_runs(const struct event_queue *queue)
{
    return queue->runs;
}

#endif
