/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Reports what happens on this host. Each event (proto/events.h) becomes a line of the log with its severity
 * (and with its fields, if systemd's journal takes the log), an entry of the journal of events, and a call of
 * the administrator's hooks. Main thread, unless a function says otherwise.
 */
#ifndef UNDERSTUDY_DAEMON_EVENTS_H
#define UNDERSTUDY_DAEMON_EVENTS_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "proto/control.pb-c.h"
#include "proto/events.h"

/* Opens the journal of events in state_dir, and begins to call hooks. hooks_dir NULL: no hooks. Before this
 * call, and after events_close, events are only logged. */
void events_open(const char *state_dir, const char *hooks_dir);
/* Writes what waits, kills running hooks, and frees both. */
void events_close(void);

/*
 * Reports an event. vm: NULL for an event of the host. fields: pairs of a key (lower-case letters, digits and
 * "_") and a value, then NULL; a pair whose value is NULL is left out. format: a sentence.
 */
G_GNUC_PRINTF(4, 5)
void events_emit(enum event_type type, const char *vm, const char *const *fields, const char *format, ...);

/* Returns the kept events, as journal_read does. First waits a short time until the events before are
 * written. Any thread. */
GPtrArray *events_read(const char *vm, uint64_t since_us);

#endif
