/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The states of VMs, disks and guests in control.proto: their names, which are part of what `status` promises
 * to scripts (understudy(1)), and what they mean. Pure; any thread.
 */
#ifndef UNDERSTUDY_PROTO_STATES_H
#define UNDERSTUDY_PROTO_STATES_H

#include <stdbool.h>

#include "proto/control.pb-c.h"

/* "peer-lost". "unknown" for a number that has no name here. Literals. */
const char *state_name(Understudy__State state);
const char *disk_state_name(Understudy__DiskState state);
/* "": the guest runs. */
const char *guest_state_name(Understudy__GuestState state);
const char *role_name(Understudy__Role role);

/* The state of that name, or STATE_UNKNOWN. */
Understudy__State state_from_name(const char *name);

/* The guest runs here, and would not go on if this host died now. */
bool status_is_unprotected(const Understudy__Status *status);
/* As far as this host knows, the guest would go on if its host died. */
bool status_is_safe(const Understudy__Status *status);

/* A replicator from before there were enums sends names: sets the enums from them. */
void status_read_names(Understudy__Status *status);

#endif
