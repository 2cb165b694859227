/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Limits of a VM's options, in one table for the command, the daemons of both hosts and the replicator. Each
 * of them refuses a value outside the limits, and names the option, the value and the limits. Pure; any
 * thread.
 */
#ifndef UNDERSTUDY_PROTO_LIMITS_H
#define UNDERSTUDY_PROTO_LIMITS_H

#include <glib.h>

#include "proto/control.pb-c.h"

struct limit {
    const char *option; /* "--epoch-ms" */
    unsigned least, most;
    unsigned usual; /* the default */
};

enum { LIMIT_EPOCH_MS, LIMIT_DEADLINE_MS, LIMIT_SILENCE_MS, LIMIT_HEARTBEAT_MS, LIMITS_N };
extern const struct limit limits[LIMITS_N];

#define LIMIT_BEATS           3u /* least heartbeats per silence: with fewer, a lost packet or two would be silence */
#define LIMIT_NICS            16u
#define LIMIT_HEARTBEAT_PATHS 3u
#define LIMIT_NICE_MIN        (-20)
#define LIMIT_NICE_MAX        19

/* Checks all options of a VM. FALSE with a sentence for the user. Defaults must have been filled in before.
 */
gboolean limits_hold(const Understudy__Protection *protection, GError **error);

#endif
