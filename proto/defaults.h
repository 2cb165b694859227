/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Defaults of a RunRequest: the daemon fills in what is missing, and the CLI compares values with them. */
#ifndef UNDERSTUDY_PROTO_DEFAULTS_H
#define UNDERSTUDY_PROTO_DEFAULTS_H

#define DEFAULT_EPOCH_MS     20
#define DEFAULT_DEADLINE_MS  20
#define DEFAULT_SILENCE_MS   100
#define DEFAULT_HEARTBEAT_MS 10

#endif
