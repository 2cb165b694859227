/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See capture_stop.h. */
#include "replicator/control/capture_stop.h"

#define PATIENCE_MS 20 /* then a hypervisor that does not answer is waited for no more */
#define LATE_MS     1000

void capture_stop_init(struct capture_stop *stop, struct capture_thread *capture,
                       const struct capture_stop_calls *calls, void *opaque)
{
    *stop = (struct capture_stop){.capture = capture, .calls = calls, .opaque = opaque};
}

static gboolean on_late(gpointer opaque)
{
    struct capture_stop *stop = opaque;
    stop->timer = 0;
    stop->calls->late(stop->opaque);
    return G_SOURCE_REMOVE;
}

/* A hypervisor that stands still need not be waited for; a disk's read cannot be given up. */
static gboolean on_patience_over(gpointer opaque)
{
    struct capture_stop *stop = opaque;
    capture_thread_hasten(stop->capture);
    stop->timer = g_timeout_add(LATE_MS, on_late, stop);
    return G_SOURCE_REMOVE;
}

void capture_stop_order(struct capture_stop *stop)
{
    capture_thread_stop(stop->capture);
    stop->generation = capture_thread_generation(stop->capture);
    if (!stop->pending)
        stop->ordered_us = g_get_monotonic_time();
    stop->pending = true;
    g_clear_handle_id(&stop->timer, g_source_remove);
    stop->timer = g_timeout_add_full(G_PRIORITY_HIGH, PATIENCE_MS, on_patience_over, stop, NULL);
}

void capture_stop_connect(struct capture_stop *stop)
{
    if (stop->pending)
        stop->deferred |= DEFER_CONNECT;
    else
        stop->calls->connect(stop->opaque);
}

void capture_stop_resume(struct capture_stop *stop)
{
    if (stop->pending)
        stop->deferred |= DEFER_RESUME;
    else
        stop->calls->resume(stop->opaque);
}

void capture_stop_cancel(struct capture_stop *stop, enum capture_stop_deferred what)
{
    stop->deferred &= ~(unsigned)what;
}

void capture_stop_answered(struct capture_stop *stop, uint64_t generation)
{
    unsigned deferred = stop->deferred;
    if (!stop->pending || generation < stop->generation)
        return;
    capture_stop_clear(stop);
    stop->calls->over(stop->opaque, g_get_monotonic_time() - stop->ordered_us);
    if (deferred & DEFER_RESUME)
        stop->calls->resume(stop->opaque);
    if (deferred & DEFER_CONNECT)
        stop->calls->connect(stop->opaque);
}

void capture_stop_clear(struct capture_stop *stop)
{
    stop->pending = false;
    stop->deferred = 0;
    g_clear_handle_id(&stop->timer, g_source_remove);
}
