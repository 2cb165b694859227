/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The table of events, and an event as a JSON object. */
#include "proto/events.h"

#include <glib.h>
#include <string.h>

#include "common/words.h"
#include "proto/figures.h"

const struct event_kind event_kinds[EVENTS_N] = {
    [EVENT_STARTED] = {"started", SEVERITY_NOTICE, "a VM's guest, or its standby, was started here (role)"},
    [EVENT_ADOPTED] = {"adopted", SEVERITY_NOTICE,
                       "a VM was running when the daemon started: the daemon did not see what happened to it "
                       "before (role, state)"},
    [EVENT_PROTECTED] = {"protected", SEVERITY_NOTICE,
                         "the guest runs here, and goes on at the other host if this host dies (peer, term)"},
    [EVENT_UNPROTECTED] = {"unprotected", SEVERITY_WARNING,
                           "the guest runs here, and is lost if this host dies now (state, reason)"},
    [EVENT_STANDBY] = {"standby", SEVERITY_NOTICE, "this host stands by with a whole image (peer, term)"},
    [EVENT_STANDBY_ASKED] = {"standby-asked", SEVERITY_INFO,
                             "the guest runs here alone, and the other host is asked for a standby: once a "
                             "second from now on, which is not reported again (peer)"},
    [EVENT_STANDBY_REFUSED] = {"standby-refused", SEVERITY_WARNING,
                               "the other host has no standby for the guest, or does not answer; reported "
                               "again when the reason changes (peer, reason)"},
    [EVENT_TAKEOVER] = {"takeover", SEVERITY_WARNING,
                        "the other host was lost, or a takeover was ordered: the guest goes on here (peer, "
                        "term, detect_ms, promote_ms)"},
    [EVENT_MOVED_HERE] =
        {"moved-here", SEVERITY_NOTICE,
         "the other host handed the guest over, and the guest goes on here (peer, term, promote_ms)"},
    [EVENT_FENCED] = {"fenced", SEVERITY_WARNING,
                      "the other host runs the guest in a newer term: the guest was stopped here (term)"},
    [EVENT_SPLIT] = {"split", SEVERITY_CRITICAL,
                     "both hosts have run the guest: which one stopped, and what it had sent meanwhile"},
    [EVENT_GUEST] = {"guest", SEVERITY_NOTICE,
                     "QEMU reported something of the guest: it shut down, was reset, its watchdog expired"},
    [EVENT_GUEST_PANICKED] = {"guest-panicked", SEVERITY_ERROR, "the guest's kernel has panicked"},
    [EVENT_WARNING] = {"warning", SEVERITY_WARNING, "something is wrong, although the standby can take over"},
    [EVENT_WARNING_CLEARED] = {"warning-cleared", SEVERITY_NOTICE,
                               "a fault that a warning reported no longer exists"},
    [EVENT_ENDED] = {"ended", SEVERITY_NOTICE, "the VM ended here normally (role, term, reason)"},
    [EVENT_FAILED] = {"failed", SEVERITY_ERROR,
                      "the VM ended here because something failed (role, term, reason)"},
    [EVENT_DRAINED] = {"drained", SEVERITY_NOTICE,
                       "this host is drained: it gives its VMs away and stands by for none"},
    [EVENT_UNDRAINED] = {"undrained", SEVERITY_NOTICE, "this host is no longer drained"},
    [EVENT_LOST] = {"events-lost", SEVERITY_WARNING,
                    "events could not be kept: there was no room, or there were too many at once (n)"},
};

static const char *const severities[] = {"emergency", "alert",  "critical", "error",
                                         "warning",   "notice", "info",     "debug"};

const char *severity_name(unsigned severity)
{
    return severity < G_N_ELEMENTS(severities) ? severities[severity] : severities[SEVERITY_NOTICE];
}

static unsigned severity_from_name(const char *name)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(severities); i++)
        if (strcmp(severities[i], name) == 0)
            return i;
    return SEVERITY_NOTICE;
}

static char *time_text(uint64_t at_us)
{
    g_autoptr(GDateTime) whole = g_date_time_new_from_unix_local((gint64)(at_us / G_USEC_PER_SEC));
    if (!whole)
        return g_strdup("?");
    g_autofree char *seconds = g_date_time_format(whole, "%FT%T"), *zone = g_date_time_format(whole, "%:z");
    return g_strdup_printf("%s.%03u%s", seconds, (unsigned)(at_us / 1000 % 1000), zone);
}

json_t *event_to_json(const Understudy__Event *event)
{
    g_autofree char *time = time_text(event->at_us);
    json_t *fields = json_object();
    for (size_t i = 0; i < event->n_fields; i++)
        json_object_set_new(fields, event->fields[i]->key, json_string(event->fields[i]->value));
    return json_pack("{s:i, s:I, s:s, s:I, s:s, s:s, s:s, s:s, s:o}", "version", FIGURES_JSON_VERSION,
                     "serial", (json_int_t)event->serial, "time", time, "time_us", (json_int_t)event->at_us,
                     "event", event->name, "severity", severity_name(event->severity), "vm", event->vm,
                     "message", event->message, "fields", fields);
}

/* Returns the member's text, safe to print. GLib string, which protobuf-c frees by free(3), as g_free does.
 */
static char *words_of(const json_t *object, const char *key, size_t max)
{
    return words_make_readable(json_string_value(json_object_get(object, key)), max);
}

static void read_fields(Understudy__Event *event, json_t *fields)
{
    const char *key;
    json_t *value;
    event->fields = g_new0(Understudy__EventField *, EVENT_FIELDS_MAX);
    json_object_foreach (fields, key, value) {
        if (!json_is_string(value) || event->n_fields == EVENT_FIELDS_MAX)
            continue;
        Understudy__EventField *field = g_new0(Understudy__EventField, 1);
        understudy__event_field__init(field);
        field->key = words_make_readable(key, WORDS_MAX);
        field->value = words_make_readable(json_string_value(value), WORDS_MAX);
        event->fields[event->n_fields++] = field;
    }
}

Understudy__Event *event_from_json(const char *line, size_t len)
{
    json_t *object = json_loadb(line, len, 0, NULL);
    json_int_t at_us = json_integer_value(json_object_get(object, "time_us"));
    json_int_t serial = json_integer_value(json_object_get(object, "serial"));
    Understudy__Event *event = NULL;
    if (json_is_string(json_object_get(object, "event")) && at_us > 0 && serial > 0) {
        event = g_new0(Understudy__Event, 1);
        understudy__event__init(event);
        event->serial = (uint64_t)serial;
        event->at_us = (uint64_t)at_us;
        event->name = words_of(object, "event", WORDS_MAX);
        event->vm = words_of(object, "vm", WORDS_MAX);
        event->message = words_of(object, "message", WORDS_PATH_MAX);
        g_autofree char *severity = words_of(object, "severity", WORDS_MAX);
        event->severity = severity_from_name(severity);
        read_fields(event, json_object_get(object, "fields"));
    }
    json_decref(object);
    return event;
}
