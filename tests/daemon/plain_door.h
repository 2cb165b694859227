/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A door without TLS, for tests of what is behind it: every peer is trusted, with the usual roles. */
#ifndef UNDERSTUDY_TESTS_DAEMON_PLAIN_DOOR_H
#define UNDERSTUDY_TESTS_DAEMON_PLAIN_DOOR_H

#include "common/stream.h"
#include "daemon/trust/door.h"

extern const struct door plain_door;
/* The key that every peer has here, behind and before the door. */
extern const uint8_t plain_door_key[STREAM_KEY_LEN];

#endif
