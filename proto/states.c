/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The names of states and roles, and their meanings. */
#include "proto/states.h"

#include <glib.h>
#include <string.h>

static const char *const states[] = {
    [UNDERSTUDY__STATE__STATE_UNKNOWN] = "unknown",
    [UNDERSTUDY__STATE__STATE_STARTING] = "starting",
    [UNDERSTUDY__STATE__STATE_CONNECTING] = "connecting",
    [UNDERSTUDY__STATE__STATE_SYNCHRONISING] = "synchronising",
    [UNDERSTUDY__STATE__STATE_ARMING] = "arming",
    [UNDERSTUDY__STATE__STATE_PROTECTED] = "protected",
    [UNDERSTUDY__STATE__STATE_PEER_LOST] = "peer-lost",
    [UNDERSTUDY__STATE__STATE_HANDING_OVER] = "handing-over",
    [UNDERSTUDY__STATE__STATE_HANDOVER_UNSURE] = "handover-unsure",
    [UNDERSTUDY__STATE__STATE_LEAVING] = "leaving",
    [UNDERSTUDY__STATE__STATE_LISTENING] = "listening",
    [UNDERSTUDY__STATE__STATE_FOLLOWING] = "following",
    [UNDERSTUDY__STATE__STATE_STANDBY] = "standby",
    [UNDERSTUDY__STATE__STATE_ASKING] = "asking",
    [UNDERSTUDY__STATE__STATE_PROMOTING] = "promoting",
    [UNDERSTUDY__STATE__STATE_FENCED] = "fenced",
    [UNDERSTUDY__STATE__STATE_ENDED] = "ended",
    [UNDERSTUDY__STATE__STATE_FAILED] = "failed",
    [UNDERSTUDY__STATE__STATE_HYPERVISOR_DIED] = "hypervisor-died",
    [UNDERSTUDY__STATE__STATE_IMAGE_FAILED] = "image-failed",
    [UNDERSTUDY__STATE__STATE_PROMOTE_FAILED] = "promote-failed",
    [UNDERSTUDY__STATE__STATE_TRIAL_FAILED] = "trial-failed",
};

static const char *const disk_states[] = {
    [UNDERSTUDY__DISK_STATE__DISK_STATE_UNKNOWN] = "unknown",
    [UNDERSTUDY__DISK_STATE__DISK_STATE_SYNCHRONISING] = "synchronising",
    [UNDERSTUDY__DISK_STATE__DISK_STATE_PROTECTED] = "protected",
    [UNDERSTUDY__DISK_STATE__DISK_STATE_UNPROTECTED] = "unprotected",
    [UNDERSTUDY__DISK_STATE__DISK_STATE_FAILED] = "failed",
};

static const char *const guest_states[] = {
    [UNDERSTUDY__GUEST_STATE__GUEST_STATE_RUNS] = "",
    [UNDERSTUDY__GUEST_STATE__GUEST_STATE_PAUSED] = "paused",
    [UNDERSTUDY__GUEST_STATE__GUEST_STATE_PANICKED] = "panicked",
    [UNDERSTUDY__GUEST_STATE__GUEST_STATE_SHUT_OFF] = "shut-off",
    [UNDERSTUDY__GUEST_STATE__GUEST_STATE_WATCHDOG] = "watchdog",
};

static const char *const roles[] = {
    [UNDERSTUDY__ROLE__ROLE_NONE] = "none",
    [UNDERSTUDY__ROLE__ROLE_PRIMARY] = "primary",
    [UNDERSTUDY__ROLE__ROLE_SECONDARY] = "secondary",
};

/* Returns a number's name. A message may have any number. */
static const char *name_of(const char *const *names, size_t n, int value)
{
    return value >= 0 && (size_t)value < n && names[value] ? names[value] : "unknown";
}
#define NAME_OF(names, value) name_of(names, G_N_ELEMENTS(names), (int)(value))

static unsigned value_of(const char *const *names, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (names[i] && strcmp(names[i], name) == 0)
            return (unsigned)i;
    return 0;
}
#define VALUE_OF(names, name) value_of(names, G_N_ELEMENTS(names), name)

const char *state_name(Understudy__State state)
{
    return NAME_OF(states, state);
}

const char *disk_state_name(Understudy__DiskState state)
{
    return NAME_OF(disk_states, state);
}

const char *guest_state_name(Understudy__GuestState state)
{
    return NAME_OF(guest_states, state);
}

const char *role_name(Understudy__Role role)
{
    return NAME_OF(roles, role);
}

Understudy__State state_from_name(const char *name)
{
    return (Understudy__State)VALUE_OF(states, name);
}

Understudy__State state_of_end(enum session_end_reason reason)
{
    switch (reason) {
    case SESSION_END_FENCED:
        return UNDERSTUDY__STATE__STATE_FENCED;
    case SESSION_END_HYPERVISOR_DIED:
        return UNDERSTUDY__STATE__STATE_HYPERVISOR_DIED;
    case SESSION_END_PROMOTE_FAILED:
        return UNDERSTUDY__STATE__STATE_PROMOTE_FAILED;
    case SESSION_END_IMAGE_FAILED:
        return UNDERSTUDY__STATE__STATE_IMAGE_FAILED;
    case SESSION_END_TRIAL_FAILED:
        return UNDERSTUDY__STATE__STATE_TRIAL_FAILED;
    default:
        return session_end_reason_is_failure(reason) ? UNDERSTUDY__STATE__STATE_FAILED
                                                     : UNDERSTUDY__STATE__STATE_ENDED;
    }
}

bool status_is_unprotected(const Understudy__Status *status)
{
    switch (status->state) {
    case UNDERSTUDY__STATE__STATE_CONNECTING:
    case UNDERSTUDY__STATE__STATE_SYNCHRONISING:
    case UNDERSTUDY__STATE__STATE_ARMING:
    case UNDERSTUDY__STATE__STATE_PEER_LOST:
        return status->role == UNDERSTUDY__ROLE__ROLE_PRIMARY;
    default:
        return false;
    }
}

bool status_is_safe(const Understudy__Status *status)
{
    switch (status->state) {
    case UNDERSTUDY__STATE__STATE_PROTECTED:
    case UNDERSTUDY__STATE__STATE_HANDING_OVER:
    case UNDERSTUDY__STATE__STATE_HANDOVER_UNSURE:
    case UNDERSTUDY__STATE__STATE_STANDBY:
        return !status->untried;
    default:
        return false;
    }
}

void status_read_names(Understudy__Status *status)
{
    if (status->state == UNDERSTUDY__STATE__STATE_UNKNOWN)
        status->state = state_from_name(status->state_name);
    if (status->guest_state == UNDERSTUDY__GUEST_STATE__GUEST_STATE_RUNS)
        status->guest_state = (Understudy__GuestState)VALUE_OF(guest_states, status->guest_state_name);
    for (size_t i = 0; i < status->n_disks; i++)
        if (status->disks[i]->state == UNDERSTUDY__DISK_STATE__DISK_STATE_UNKNOWN)
            status->disks[i]->state =
                (Understudy__DiskState)VALUE_OF(disk_states, status->disks[i]->state_name);
}
