/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a RunRequest that leaves it out gets: the daemon fills it in, and the CLI checks what it is given
 * beside it. */
#ifndef UNDERSTUDY_PROTO_DEFAULTS_H
#define UNDERSTUDY_PROTO_DEFAULTS_H

#define DEFAULT_EPOCH_MS     20
#define DEFAULT_DEADLINE_MS  20
#define DEFAULT_SILENCE_MS   100
#define DEFAULT_HEARTBEAT_MS 10

#endif
