/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Sends each event to the log, to the journal of events, and to the hooks. */
#include "daemon/events.h"

#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/words.h"
#include "daemon/hooks.h"
#include "daemon/journal.h"

#define FLUSH_MS 1000

static struct journal *journal; /* set before other threads are, cleared after them */
static struct hooks *hooks;

void events_open(const char *state_dir, const char *hooks_dir)
{
    journal = journal_open(state_dir);
    hooks = hooks_dir ? hooks_new(hooks_dir, HOOKS_LIMITS) : NULL;
}

void events_close(void)
{
    g_clear_pointer(&hooks, hooks_free);
    g_clear_pointer(&journal, journal_close);
}

static GLogLevelFlags level_of(unsigned severity)
{
    return severity <= SEVERITY_ERROR     ? G_LOG_LEVEL_CRITICAL
           : severity == SEVERITY_WARNING ? G_LOG_LEVEL_WARNING
           : severity == SEVERITY_NOTICE  ? G_LOG_LEVEL_MESSAGE
                                          : G_LOG_LEVEL_INFO;
}

/* Logs an event with its fields; the names of its own fields get a prefix and capitals (common/log.h). */
static void log_event(const Understudy__Event *event)
{
    char priority[2] = {(char)('0' + event->severity), 0};
    GLogField fields[5 + EVENT_FIELDS_MAX] = {{"MESSAGE", event->message, -1},
                                              {"PRIORITY", priority, -1},
                                              {LOG_FIELD_EVENT, event->name, -1},
                                              {"UNDERSTUDY_VM", event->vm, -1}};
    char *keys[EVENT_FIELDS_MAX];
    for (size_t i = 0; i < event->n_fields; i++) {
        g_autofree char *capitals = g_ascii_strup(event->fields[i]->key, -1);
        keys[i] = g_strconcat("UNDERSTUDY_", capitals, NULL);
        fields[4 + i] = (GLogField){keys[i], event->fields[i]->value, -1};
    }
    g_log_structured_array(level_of(event->severity), fields, 4 + event->n_fields);
    for (size_t i = 0; i < event->n_fields; i++)
        g_free(keys[i]);
}

static void call_hooks(const Understudy__Event *event)
{
    json_t *json = event_to_json(event);
    char *text = json_dumps(json, JSON_COMPACT);
    if (text)
        hooks_call(hooks, event->vm, event->name, text);
    free(text);
    json_decref(json);
}

static void add_fields(Understudy__Event *event, const char *const *pairs)
{
    event->fields = g_new0(Understudy__EventField *, EVENT_FIELDS_MAX);
    for (; pairs && pairs[0] && event->n_fields < EVENT_FIELDS_MAX; pairs += 2) {
        if (!pairs[1])
            continue;
        Understudy__EventField *field = g_new0(Understudy__EventField, 1);
        understudy__event_field__init(field);
        field->key = g_strdup(pairs[0]);
        field->value = words_make_readable(pairs[1], WORDS_MAX);
        event->fields[event->n_fields++] = field;
    }
}

void events_emit(enum event_type type, const char *vm, const char *const *fields, const char *format, ...)
{
    Understudy__Event *event = g_new0(Understudy__Event, 1);
    va_list args;
    va_start(args, format);
    g_autofree char *sentence = g_strdup_vprintf(format, args);
    va_end(args);
    understudy__event__init(event);
    event->at_us = (uint64_t)g_get_real_time();
    event->name = g_strdup(event_kinds[type].name);
    event->severity = event_kinds[type].severity;
    event->vm = g_strdup(vm ? vm : "");
    event->message = words_make_readable(sentence, WORDS_PATH_MAX);
    add_fields(event, fields);
    log_event(event);
    if (journal)
        journal_append(journal, event); /* sets its serial number */
    if (hooks)
        call_hooks(event);
    understudy__event__free_unpacked(event, NULL);
}

GPtrArray *events_read(const char *vm, uint64_t since_us)
{
    if (!journal)
        return g_ptr_array_new();
    journal_flush(journal, FLUSH_MS);
    return journal_read(journal, vm, since_us);
}
