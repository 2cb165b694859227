/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See event_queue.h. */
#include "replicator/control/event_queue.h"

bool event_queue_post(struct event_queue *queue, const struct session_event *event,
                      struct staged_epoch *offered, event_handler handler, void *opaque)
{
    if (queue->n == EVENT_QUEUE_MAX)
        return false;
    queue->list[(queue->head + queue->n++) % EVENT_QUEUE_MAX] =
        (struct queued_event){.event = *event, .offered = offered};
    if (queue->runs)
        return true;
    queue->runs = true;
    while (queue->n > 0) {
        struct queued_event next = queue->list[queue->head];
        queue->head = (queue->head + 1) % EVENT_QUEUE_MAX;
        queue->n--;
        handler(opaque, &next.event, next.offered);
    }
    queue->runs = false;
    return true;
}
