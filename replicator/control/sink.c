/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See sink.h. */
#include "replicator/control/sink.h"

#include <stdarg.h>
#include <string.h>

#include "common/words.h"

void sink_init(struct sink *sink, const struct sink_core *core, void *opaque)
{
    *sink = (struct sink){.core = core, .opaque = opaque};
}

void sink_clear(struct sink *sink)
{
    g_clear_pointer(&sink->error, g_free);
    for (unsigned i = 0; i < SINK_LOGGED; i++)
        g_clear_pointer(&sink->logged[i].words, g_free);
}

void sink_set_vm_name(struct sink *sink, const char *vm_name)
{
    sink->vm_name = vm_name;
}

void sink_epoch(struct sink *sink, const struct session_event *event, struct staged_epoch *offered)
{
    if (!event_queue_post(&sink->events, event, offered, sink->core->event, sink->opaque))
        sink->core->overflow(sink->opaque, event, offered);
    if (!event_queue_runs(&sink->events))
        sink->core->done(sink->opaque);
}

void sink_event(struct sink *sink, const struct session_event *event)
{
    sink_epoch(sink, event, NULL);
}

void sink_event_simple(struct sink *sink, enum session_event_type type)
{
    const struct session_event event = {.type = type};
    sink_epoch(sink, &event, NULL);
}

/* Notes that the words are logged now. False: they were, not long ago. */
static bool is_to_be_logged(struct sink *sink, const char *words)
{
    gint64 now = g_get_monotonic_time();
    unsigned i = 0;
    while (i < SINK_LOGGED - 1 && g_strcmp0(sink->logged[i].words, words) != 0)
        i++;
    struct sink_logged entry = sink->logged[i];
    if (g_strcmp0(entry.words, words) == 0 && now - entry.at_us < SINK_LOG_AGAIN_US)
        return false;
    g_free(entry.words);
    memmove(sink->logged + 1, sink->logged, i * sizeof *sink->logged);
    sink->logged[0] = (struct sink_logged){.words = g_strdup(words), .at_us = now};
    return true;
}

static void log_error(struct sink *sink, const char *words)
{
    if (is_to_be_logged(sink, words))
        g_warning("%s: %s", sink->vm_name, words);
}

G_GNUC_PRINTF(3, 0)
static void take_error(struct sink *sink, enum sink_cause cause, const char *format, va_list args)
{
    g_autofree char *words = g_strdup_vprintf(format, args);
    g_free(sink->error);
    sink->error = words_make_readable(words, WORDS_PATH_MAX);
    sink->cause = cause;
    log_error(sink, sink->error);
    sink->core->changed(sink->opaque);
}

void sink_error(struct sink *sink, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    take_error(sink, SINK_CAUSE_OTHER, format, args);
    va_end(args);
}

void sink_error_of(struct sink *sink, enum sink_cause cause, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    take_error(sink, cause, format, args);
    va_end(args);
}

void sink_detail_of(struct sink *sink, enum sink_cause cause, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    if (sink->error && sink->cause == cause) {
        g_autofree char *raw = g_strdup_vprintf(format, args);
        g_autofree char *words = words_make_readable(raw, WORDS_PATH_MAX);
        log_error(sink, words);
    } else {
        take_error(sink, cause, format, args);
    }
    va_end(args);
}

void sink_keep_error(struct sink *sink, const char *sentence)
{
    char *copy = g_strdup(sentence);
    g_free(sink->error);
    sink->error = copy;
    sink->cause = SINK_CAUSE_OTHER;
}

void sink_error_over(struct sink *sink, enum sink_cause cause)
{
    if (sink->cause != cause)
        return;
    g_clear_pointer(&sink->error, g_free);
    sink->cause = SINK_CAUSE_OTHER;
}

const char *sink_last_error(const struct sink *sink)
{
    return sink->error;
}

void sink_send_message(struct sink *sink, const struct transport_message *message)
{
    sink->core->send(sink->opaque, message);
}

void sink_send(struct sink *sink, enum message_type type, uint64_t term, uint64_t epoch, uint32_t arg)
{
    const struct transport_message message = {.type = type, .term = term, .epoch = epoch, .arg = arg};
    sink_send_message(sink, &message);
}

void sink_changed(struct sink *sink)
{
    sink->core->changed(sink->opaque);
}

void sink_give_up(struct sink *sink)
{
    sink->core->give_up(sink->opaque);
}
