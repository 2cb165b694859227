/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The table of reasons for which a VM ends. */
#include "proto/end_reason.h"

#include <stddef.h>
#include <string.h>

static const struct {
    const char *name, *words;
    bool is_failure;
} reasons[] = {
    [SESSION_END_NONE] = {"none", "for a reason that this version of understudy does not know", false},
    [SESSION_END_GUEST_SHUTDOWN] = {"guest-shutdown", "the guest shut down", false},
    [SESSION_END_STOPPED] = {"stopped", "stopped by 'understudy stop'", false},
    [SESSION_END_HANDED_OVER] = {"handed-over", "handed over to the other host", false},
    [SESSION_END_FENCED] = {"fenced", "stopped here because the other host runs the guest", false},
    [SESSION_END_HYPERVISOR_DIED] = {"hypervisor-died", "QEMU ended by itself or could not be used any more",
                                     true},
    [SESSION_END_PROMOTE_FAILED] = {"promote-failed", "the takeover failed", true},
    [SESSION_END_ABANDONED] = {"abandoned", "no primary came to this standby", false},
    [SESSION_END_IMAGE_FAILED] = {"image-failed", "this standby's image of the VM could not be written",
                                  true},
    [SESSION_END_PANICKED] = {"guest-panicked", "the guest's kernel panicked", false},
    [SESSION_END_LEFT] = {"left", "its host, or its QEMU, was told to go down", false},
    [SESSION_END_BUG] = {"bug",
                         "understudy found an error in its own state and stopped the VM here; the log of "
                         "understudyd on this host has the details",
                         true},
    [SESSION_END_TRIAL_FAILED] = {"trial-failed", "this host's QEMU cannot take the VM over", true},
    [SESSION_END_UNCONFIRMED] = {"unconfirmed",
                                 "ended here; the other host, which could take it over, did "
                                 "not answer",
                                 false},
    [SESSION_END_REPLICATOR_DIED] = {"replicator-died", "its replicator died, and its QEMU was stopped",
                                     true},
    [SESSION_END_UNATTENDED] = {"unattended", "it ended while no understudyd ran here", false},
};
_Static_assert(sizeof reasons / sizeof *reasons == SESSION_NEND_REASONS, "a reason has its row");

/* A message may bring any number. */
static bool is_known(enum session_end_reason reason)
{
    return (size_t)reason < SESSION_NEND_REASONS;
}

const char *session_end_reason_name(enum session_end_reason reason)
{
    return is_known(reason) ? reasons[reason].name : "unknown";
}

enum session_end_reason session_end_reason_from_name(const char *name)
{
    for (size_t i = 0; i < SESSION_NEND_REASONS; i++)
        if (strcmp(reasons[i].name, name) == 0)
            return (enum session_end_reason)i;
    return SESSION_END_NONE;
}

const char *session_end_reason_words(enum session_end_reason reason)
{
    return reasons[is_known(reason) ? reason : SESSION_END_NONE].words;
}

bool session_end_reason_is_failure(enum session_end_reason reason)
{
    return is_known(reason) && reasons[reason].is_failure;
}
