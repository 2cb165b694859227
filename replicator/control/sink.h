/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the parts of a replicator tell its core. Parts post, they do not call: a part gets a sink, and knows
 * neither the session nor who listens. What listens is a table of the core's functions, so a test of a part
 * brings a table of its own.
 *
 *   events    go to the session one after the other. An event that is posted while another one is handled
 *             waits until that one is done (event_queue.h); any other is handled before the post returns, so
 *             that posting delays no decision.
 *   errors    a sentence for status: the newest one, kept here with its cause
 *   changed   status is to go out soon
 *   messages  to the peer, if there is one
 *   give up   the VM could not be started at all
 *
 * Control thread.
 */
#ifndef UNDERSTUDY_REPLICATOR_SINK_H
#define UNDERSTUDY_REPLICATOR_SINK_H

#include <glib.h>
#include <stdbool.h>

#include "failover/session.h"
#include "replicator/control/event_queue.h"
#include "replicator/transport/transport.h"

struct sink;

/* What an error is about: it is over when its cause is. */
enum sink_cause { SINK_CAUSE_OTHER, SINK_CAUSE_DISK, SINK_CAUSE_TERM };

/* The core. Called by the posts below, with sink_init's opaque. */
struct sink_core {
    /* One event; never called inside itself. Takes over offered (or NULL). */
    event_handler event;
    /* The event, and all that were posted meanwhile, are handled. */
    void (*done)(void *opaque);
    /* The event came amid too many others and is lost. Takes over offered (or NULL). */
    event_handler overflow;
    void (*send)(void *opaque, const struct transport_message *message);
    void (*changed)(void *opaque);
    void (*give_up)(void *opaque);
};

/* A sentence that comes again and again, as a full disk's does every second, is logged once a minute. */
#define SINK_LOGGED       4u
#define SINK_LOG_AGAIN_US 60000000

struct sink_logged {
    char *words; /* or NULL */
    gint64 at_us;
};

struct sink {
    const struct sink_core *core;
    void *opaque;
    const char *vm_name; /* for the log; NULL: not known yet */
    struct event_queue events;
    char *error; /* or NULL */
    enum sink_cause cause;
    struct sink_logged logged[SINK_LOGGED]; /* the newest first */
};

/* core outlives the sink. */
void sink_init(struct sink *sink, const struct sink_core *core, void *opaque);
void sink_clear(struct sink *sink);
/* Names the VM in log lines from now on. Not copied. */
void sink_set_vm_name(struct sink *sink, const char *vm_name);

void sink_event(struct sink *sink, const struct session_event *event);
void sink_event_simple(struct sink *sink, enum session_event_type type);
/* The epoch comes with the event, and is the sink's from here on. */
void sink_epoch(struct sink *sink, const struct session_event *event, struct staged_epoch *offered);

/* The sentence for status from now on; logged unless it was within a minute, and made readable
 * (common/words.h). */
G_GNUC_PRINTF(2, 3) void sink_error(struct sink *sink, const char *format, ...);
/* The same; sink_error_over of that cause takes it back. */
G_GNUC_PRINTF(3, 4) void sink_error_of(struct sink *sink, enum sink_cause cause, const char *format, ...);
/* The same, but an error of that cause that is there already says more, and stays: only logged then. */
G_GNUC_PRINTF(3, 4) void sink_detail_of(struct sink *sink, enum sink_cause cause, const char *format, ...);
/* The same for a sentence of our own that has been logged already. Copied. */
void sink_keep_error(struct sink *sink, const char *sentence);
/* Forgets the present error if it is of this cause. */
void sink_error_over(struct sink *sink, enum sink_cause cause);
/* The present error, or NULL. The sink's, until the next call. */
const char *sink_last_error(const struct sink *sink);

/* A message to the peer; the payload is copied. Lost if there is no peer. */
void sink_send_message(struct sink *sink, const struct transport_message *message);
/* The same without payload. */
void sink_send(struct sink *sink, enum message_type type, uint64_t term, uint64_t epoch, uint32_t arg);
void sink_changed(struct sink *sink);
/* The process ends, with the present error as its last word. */
void sink_give_up(struct sink *sink);

#endif
