/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A core that writes down what the parts post (replicator/control/sink.h): events in order, messages, and how
 * often the rest was called.
 */
#ifndef UNDERSTUDY_TESTS_CONTROL_FAKE_CORE_H
#define UNDERSTUDY_TESTS_CONTROL_FAKE_CORE_H

#include <glib.h>

#include "replicator/control/sink.h"

#define FAKE_MAX 128u

struct fake_core {
    struct sink *sink;
    struct session_event events[FAKE_MAX];
    struct staged_epoch *offered[FAKE_MAX];
    struct transport_message messages[FAKE_MAX]; /* their payloads are gone */
    unsigned nevents, nmessages, ndone, nlost, nchanged, ngiven_up;
    unsigned depth; /* of calls of event */
    bool was_nested;
    void (*on_event)(struct fake_core *core, unsigned n); /* what the n-th event brings about, or NULL */
};

static inline void fake_event(void *opaque, const struct session_event *event, struct staged_epoch *offered)
{
    struct fake_core *core = opaque;
    unsigned n = core->nevents++;
    g_assert(n < FAKE_MAX);
    core->events[n] = *event;
    core->offered[n] = offered;
    core->was_nested |= core->depth++ > 0;
    if (core->on_event)
        core->on_event(core, n);
    core->depth--;
}

static inline void fake_done(void *opaque)
{
    struct fake_core *core = opaque;
    core->ndone++;
}

static inline void fake_overflow(void *opaque, const struct session_event *event,
                                 struct staged_epoch *offered)
{
    struct fake_core *core = opaque;
    (void)event;
    (void)offered;
    core->nlost++;
}

static inline void fake_send(void *opaque, const struct transport_message *message)
{
    struct fake_core *core = opaque;
    g_assert(core->nmessages < FAKE_MAX);
    core->messages[core->nmessages] = *message;
    core->messages[core->nmessages++].payload = NULL;
}

static inline void fake_changed(void *opaque)
{
    struct fake_core *core = opaque;
    core->nchanged++;
}

static inline void fake_give_up(void *opaque)
{
    struct fake_core *core = opaque;
    core->ngiven_up++;
}

/* sink: the one that the parts under test post to. */
static inline void fake_core_open(struct fake_core *core, struct sink *sink)
{
    static const struct sink_core table = {.event = fake_event,
                                           .done = fake_done,
                                           .overflow = fake_overflow,
                                           .send = fake_send,
                                           .changed = fake_changed,
                                           .give_up = fake_give_up};
    *core = (struct fake_core){.sink = sink};
    sink_init(sink, &table, core);
    sink_set_vm_name(sink, "vm");
}

#endif
