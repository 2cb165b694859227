/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the daemon is told of the session: its state as the protocol has it. Pure. */
#ifndef UNDERSTUDY_REPLICATOR_SESSION_STATE_H
#define UNDERSTUDY_REPLICATOR_SESSION_STATE_H

#include "failover/session.h"
#include "proto/control.pb-c.h"

Understudy__State state_of_session(enum session_state state);

#endif
