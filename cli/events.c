/* SPDX-License-Identifier: GPL-2.0-or-later */
/* understudy events: prints what happened on this host, from the record that its daemon keeps. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "proto/events.h"
#include "proto/framing.h"

#define EVENTS_MS 10000

/* Parses a duration ("10m") into seconds. 0: it is not one. */
static uint64_t ago_s(const char *text)
{
    static const struct {
        char unit;
        uint64_t seconds;
    } units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}};
    size_t len = strlen(text);
    guint64 n = 0;
    g_autofree char *number = g_strndup(text, len ? len - 1 : 0);
    for (size_t i = 0; len && i < G_N_ELEMENTS(units); i++)
        if (text[len - 1] == units[i].unit && g_ascii_string_to_unsigned(number, 10, 1, 100000, &n, NULL))
            return n * units[i].seconds;
    return 0;
}

/* Parses a local time in ISO 8601: a day, or a time with or without seconds. NULL: it is not one. */
static GDateTime *time_of(const char *text)
{
    size_t len = strlen(text);
    const char *rest = len == strlen("2026-02-28")         ? "T00:00:00"
                       : len == strlen("2026-02-28T09:30") ? ":00"
                                                           : "";
    g_autofree char *whole = g_strconcat(text, rest, NULL);
    g_autoptr(GTimeZone) here = g_time_zone_new_local();
    return g_date_time_new_from_iso8601(whole, here);
}

/* Reads the value of --since, NULL: all events. False after a message. */
static bool read_since(const char *text, uint64_t *since_us)
{
    if (!text)
        return true;
    uint64_t now_us = (uint64_t)g_get_real_time(), seconds = ago_s(text);
    g_autoptr(GDateTime) time = seconds ? NULL : time_of(text);
    gint64 at_s = time ? g_date_time_to_unix(time) : 0;
    if (!seconds && at_s <= 0) {
        cli_wrong("--since %s: give 30s, 10m, 2h or 3d, or a time like 2026-02-28T09:30", text);
        return false;
    }
    uint64_t ago_us = seconds * G_USEC_PER_SEC;
    if (!seconds)
        *since_us = (uint64_t)at_s * G_USEC_PER_SEC;
    else
        *since_us = ago_us < now_us ? now_us - ago_us : 0; /* 0: all events; nothing is older than 1970 */
    return true;
}

static void print_text(const Understudy__Event *event)
{
    g_autoptr(GDateTime) at = g_date_time_new_from_unix_local((gint64)(event->at_us / G_USEC_PER_SEC));
    g_autofree char *time = at ? g_date_time_format(at, "%F %T") : g_strdup("?");
    printf("%s  %-8s %-16s %s\n", time, severity_name(event->severity), event->name, event->message);
}

static void print_json(const Understudy__Event *event)
{
    json_t *json = event_to_json(event);
    char *text = json_dumps(json, JSON_COMPACT);
    printf("%s\n", text ? text : "{}");
    free(text);
    json_decref(json);
}

struct printed {
    bool as_json;
    size_t n;
};

static bool on_answer(const Understudy__Envelope *answer, bool *more, void *opaque)
{
    struct printed *printed = opaque;
    if (answer->body_case != UNDERSTUDY__ENVELOPE__BODY_EVENT_LIST)
        return false;
    const Understudy__EventList *list = answer->event_list;
    for (size_t i = 0; i < list->n_events; i++) {
        if (printed->as_json)
            print_json(list->events[i]);
        else
            print_text(list->events[i]);
    }
    printed->n += list->n_events;
    *more = list->more;
    return true;
}

int cmd_events(int argc, char **argv)
{
    gboolean as_json = FALSE;
    g_autofree char *since = NULL;
    const GOptionEntry entries[] = {
        {"since", 's', 0, G_OPTION_ARG_STRING, &since, "Those since then: 30s, 10m, 2h, 3d, or a time",
         "WHEN"},
        {"json", 'j', 0, G_OPTION_ARG_NONE, &as_json, "Print one JSON object per line", NULL},
        {NULL, 0, 0, 0, NULL, NULL, NULL},
    };
    if (!cli_parse(entries, 0, 1, &argc, &argv))
        return EXIT_USAGE;
    Understudy__EventsRequest events = UNDERSTUDY__EVENTS_REQUEST__INIT;
    if (!read_since(since, &events.since_us))
        return EXIT_USAGE;
    if (argc == 2)
        events.vm = argv[1];
    Understudy__Envelope request = UNDERSTUDY_ENVELOPE(EVENTS_REQUEST, events_request, &events);
    struct printed printed = {.as_json = as_json};
    if (!cli_call_each(&request, EVENTS_MS, on_answer, &printed))
        return EXIT_FAILED;
    if (printed.n == 0 && !as_json)
        printf("no events%s%s\n", argc == 2 ? " of VM " : "", argc == 2 ? argv[1] : "");
    return EXIT_OK;
}
