/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The log line of a peer's request that was refused, at most one in REFUSED_EVERY_US: a peer that asks
 * without end does not fill the log.
 */
#include "daemon/daemon.h"

#define REFUSED_EVERY_US (60 * G_USEC_PER_SEC)

void refused_log(const char *address, Understudy__Envelope__BodyCase request, const char *why)
{
    static GMutex mutex;
    static gint64 logged_us;
    static unsigned unlogged;
    const ProtobufCFieldDescriptor *field =
        protobuf_c_message_descriptor_get_field(&understudy__envelope__descriptor, (unsigned)request);
    gint64 now_us = g_get_monotonic_time();
    g_mutex_lock(&mutex);
    bool now = !logged_us || now_us - logged_us >= REFUSED_EVERY_US;
    unsigned before = unlogged;
    unlogged = now ? 0 : unlogged + 1;
    if (now)
        logged_us = now_us;
    g_mutex_unlock(&mutex);
    g_autofree char *more = before ? g_strdup_printf(" (and %u more before it)", before) : g_strdup("");
    if (now)
        g_warning("a request of %s (%s) was refused: %s%s", address, field ? field->name : "unknown", why,
                  more);
}
