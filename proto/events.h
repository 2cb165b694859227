/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The table of events that a host reports about itself and its VMs. Their names are stable (understudy(1)),
 * as the figures' names are. Each event is a line of the daemon's log, an entry of its journal, and a call of
 * the administrator's hooks. A new event is a row in events.c, and a call of events_emit (daemon/events.h).
 *
 * This header also has the JSON object of an event: a line of the journal's file, a hook's standard input, a
 * line of `understudy events --json`. Any thread.
 */
#ifndef UNDERSTUDY_PROTO_EVENTS_H
#define UNDERSTUDY_PROTO_EVENTS_H

#include <jansson.h>
#include <stddef.h>

#include "proto/control.pb-c.h"

enum event_type {
    EVENT_STARTED,
    EVENT_ADOPTED,
    EVENT_PROTECTED,
    EVENT_UNPROTECTED,
    EVENT_STANDBY,
    EVENT_STANDBY_ASKED,
    EVENT_STANDBY_REFUSED,
    EVENT_TAKEOVER,
    EVENT_MOVED_HERE,
    EVENT_FENCED,
    EVENT_SPLIT,
    EVENT_GUEST,
    EVENT_GUEST_PANICKED,
    EVENT_WARNING,
    EVENT_WARNING_CLEARED,
    EVENT_ENDED,
    EVENT_FAILED,
    EVENT_DRAINED,
    EVENT_UNDRAINED,
    EVENT_LOST,
    EVENTS_N
};

/* Severities, as numbers of syslog. */
enum { SEVERITY_CRITICAL = 2, SEVERITY_ERROR, SEVERITY_WARNING, SEVERITY_NOTICE, SEVERITY_INFO };

struct event_kind {
    const char *name;
    unsigned severity;
    const char *help; /* for understudy(1): what happened (names of the fields) */
};

extern const struct event_kind event_kinds[EVENTS_N];

/* Returns the name of a severity, for example "warning"; "notice" for an unknown number. */
const char *severity_name(unsigned severity);

#define EVENT_FIELDS_MAX 16

/*
 * Returns an event as a JSON object; json_decref it:
 * {"version": 1, "serial": 7, "time": "2026-02-28T09:30:00.123+01:00", "time_us": ..., "event": "protected",
 *  "severity": "notice", "vm": "web", "message": "...", "fields": {...}}
 */
json_t *event_to_json(const Understudy__Event *event);
/* Reads an event from a line of JSON, which is untrusted. NULL: it is not an event. Free with
 * understudy__event__free_unpacked. */
Understudy__Event *event_from_json(const char *line, size_t len);

#endif
