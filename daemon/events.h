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

/* Before this, and after events_close, events are logged only. hooks_dir: NULL for no hooks. */
void events_open(const char *state_dir, const char *hooks_dir);
void events_close(void);

/*
 * vm: NULL for the host. fields: keys (lower-case letters, digits and "_") and their values by turns, NULL at
 * the end; a value that is NULL is left out. format: a sentence.
 */
G_GNUC_PRINTF(4, 5)
void events_emit(enum event_type type, const char *vm, const char *const *fields, const char *format, ...);

/* Any thread: those that are kept, as journal_read; after what was told before is written, if that is soon.
 */
GPtrArray *events_read(const char *vm, uint64_t since_us);

#endif
