/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Stopping the capture. The capture thread may be reading a disk that hangs, so nobody waits for it: signs of
 * life, the output gate and QEMU's monitor go on. What may not happen before the thread has let go is
 * remembered here, and done when it has:
 *
 *   connect  a new peer is not looked for: its synchronisation would meet what is left of the old one
 *   resume   a guest that the last epoch leaves paused is not woken: that epoch may still be about to pause
 * it over     writes to the disks are logged until then: an epoch that was cut meanwhile has all of them
 *
 * Control thread.
 */
#ifndef UNDERSTUDY_REPLICATOR_CAPTURE_STOP_H
#define UNDERSTUDY_REPLICATOR_CAPTURE_STOP_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "replicator/pipeline/capture_thread.h"

enum capture_stop_deferred { DEFER_CONNECT = 1, DEFER_RESUME = 2 };

struct capture_stop_calls {
    void (*late)(void *opaque); /* it has not been answered for a second: once */
    void (*over)(void *opaque, gint64 took_us);
    void (*connect)(void *opaque);
    void (*resume)(void *opaque);
};

struct capture_stop {
    struct capture_thread *capture;
    const struct capture_stop_calls *calls;
    void *opaque;
    bool pending;
    uint64_t generation; /* of the order that is to be answered */
    gint64 ordered_us;
    unsigned deferred; /* enum capture_stop_deferred, or-ed */
    guint timer;
};

/* calls outlive stop. */
void capture_stop_init(struct capture_stop *stop, struct capture_thread *capture,
                       const struct capture_stop_calls *calls, void *opaque);
/* Gives the order. What is deferred already stays so. */
void capture_stop_order(struct capture_stop *stop);
/* Calls connect or resume: now, or when the capture has stopped. */
void capture_stop_connect(struct capture_stop *stop);
void capture_stop_resume(struct capture_stop *stop);
/* What was deferred is not wanted any more. */
void capture_stop_cancel(struct capture_stop *stop, enum capture_stop_deferred what);
/* NOTE_CAPTURE_STOPPED came: over, resume, connect, in this order, if it answers the newest order. */
void capture_stop_answered(struct capture_stop *stop, uint64_t generation);
/* Nothing is called any more. */
void capture_stop_clear(struct capture_stop *stop);

#endif
