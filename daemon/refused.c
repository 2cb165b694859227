/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Logs a peer's request that was refused, at most once a minute, so that a peer that asks without limit does
 * not fill the log.
 */
#include "common/log.h"
#include "daemon/daemon.h"

void refused_log(const char *address, Understudy__Envelope__BodyCase request, const char *why)
{
    static GMutex mutex;
    static struct log_seldom logged;
    const ProtobufCFieldDescriptor *field =
        protobuf_c_message_descriptor_get_field(&understudy__envelope__descriptor, (unsigned)request);
    g_mutex_lock(&mutex);
    g_autofree char *before = log_seldom(&logged);
    g_mutex_unlock(&mutex);
    if (before)
        g_warning("a request of %s (%s) was refused: %s%s", address, field ? field->name : "unknown", why,
                  before);
}
