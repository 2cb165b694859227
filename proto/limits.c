/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The table of limits for a VM's options, and the check of one option's value. */
#include "proto/limits.h"

#include <gio/gio.h>

const struct limit limits[LIMITS_N] = {
    [LIMIT_EPOCH_MS] = {"--epoch-ms", 1, 1000, 20},
    [LIMIT_DEADLINE_MS] = {"--deadline-ms", 1, 1000, 20},
    [LIMIT_SILENCE_MS] = {"--silence-ms", 10, 60000, 100},
    [LIMIT_HEARTBEAT_MS] = {"--heartbeat-ms", 1, 10000, 10},
};

G_GNUC_PRINTF(2, 3) static gboolean refuse(GError **error, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    g_autofree char *text = g_strdup_vprintf(format, args);
    va_end(args);
    g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT, "%s", text);
    return FALSE;
}

static gboolean number_holds(const struct limit *limit, unsigned value, GError **error)
{
    if (value >= limit->least && value <= limit->most)
        return TRUE;
    return refuse(error, "%s %u: give a number from %u to %u", limit->option, value, limit->least,
                  limit->most);
}

/* Checks that word is one of words ("one|other"). An empty word was not given. */
static gboolean word_holds(const char *option, const char *word, const char *words, GError **error)
{
    g_auto(GStrv) list = g_strsplit(words, "|", -1);
    if (!word[0] || g_strv_contains((const char *const *)list, word))
        return TRUE;
    g_autofree char *choice = g_strjoinv(", ", list);
    return refuse(error, "%s %s: give one of %s", option, word, choice);
}

/* Checks that a number in a message is a value of the enum `choices`. */
static gboolean choice_holds(const char *option, const ProtobufCEnumDescriptor *choices, int value,
                             GError **error)
{
    if (protobuf_c_enum_descriptor_get_value(choices, value))
        return TRUE;
    return refuse(error, "%s: this version of understudy does not know the choice %d", option, value);
}

static gboolean count_holds(const char *what, size_t n, unsigned most, GError **error)
{
    return n <= most || refuse(error, "the VM has %zu %s, and %u are the limit", n, what, most);
}

gboolean limits_hold(const Understudy__Protection *p, GError **error)
{
    if (!number_holds(&limits[LIMIT_EPOCH_MS], p->epoch_ms, error) ||
        !number_holds(&limits[LIMIT_DEADLINE_MS], p->deadline_ms, error) ||
        !number_holds(&limits[LIMIT_SILENCE_MS], p->silence_ms, error) ||
        !number_holds(&limits[LIMIT_HEARTBEAT_MS], p->heartbeat_ms, error))
        return FALSE;
    if (p->silence_ms < LIMIT_BEATS * p->heartbeat_ms)
        return refuse(error, "--silence-ms %u: give three heartbeats (--heartbeat-ms %u) or more",
                      p->silence_ms, p->heartbeat_ms);
    return word_holds("--tracker", p->tracker, "auto|qemu-log|uffd", error) &&
           word_holds("--transport", p->transport, "auto|rdma|tcp", error) &&
           choice_holds("--on-peer-loss", &understudy__peer_loss__descriptor, (int)p->on_peer_loss, error) &&
           choice_holds("--durability", &understudy__durability__descriptor, (int)p->durability, error) &&
           count_holds("network devices", p->nnics, LIMIT_NICS, error) &&
           count_holds("heartbeat paths", p->n_heartbeat_paths, LIMIT_HEARTBEAT_PATHS, error);
}
