/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The names and meanings of the states of VMs, disks and guests in control.proto. The names are stable, since
 * scripts read them in `status` (understudy(1)). Pure; any thread.
 */
#ifndef UNDERSTUDY_PROTO_STATES_H
#define UNDERSTUDY_PROTO_STATES_H

#include <stdbool.h>

#include "proto/control.pb-c.h"
#include "proto/end_reason.h"

/* Returns the name of a VM's state, for example "peer-lost"; "unknown" for a number without a name. All names
 * are literals. */
const char *state_name(Understudy__State state);
/* Returns the name of a disk's state. */
const char *disk_state_name(Understudy__DiskState state);
/* Returns the name of a guest's state; "" if the guest runs. */
const char *guest_state_name(Understudy__GuestState state);
/* Returns "primary", "secondary" or "none". */
const char *role_name(Understudy__Role role);

/* Returns the state of that name, or STATE_UNKNOWN. */
Understudy__State state_from_name(const char *name);
/* What a VM is called that ended for this reason: by its failure, FENCED, or ENDED. */
Understudy__State state_of_end(enum session_end_reason reason);

/* Returns whether the guest runs here and would be lost if this host died now. */
bool status_is_unprotected(const Understudy__Status *status);
/* Returns whether the guest would go on if its host died, as far as this host knows. */
bool status_is_safe(const Understudy__Status *status);

/* Sets the enums of a status from its names, since old replicators send only names. */
void status_read_names(Understudy__Status *status);

#endif
