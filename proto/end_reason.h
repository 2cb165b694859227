/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Why a VM ended on a host: the session's reasons, and those of which only a daemon knows. The numbers are
 * those of a GOODBYE (docs/wire-format.md), so a new reason goes to the end. The names are in Ended, in
 * events and in the answers to stop and shutdown. Pure; any thread.
 */
#ifndef UNDERSTUDY_PROTO_END_REASON_H
#define UNDERSTUDY_PROTO_END_REASON_H

#include <stdbool.h>

enum session_end_reason {
    SESSION_END_NONE, /* it has not ended; as a name from elsewhere: a reason that is not known here */
    SESSION_END_GUEST_SHUTDOWN,
    SESSION_END_STOPPED,     /* the user's stop */
    SESSION_END_HANDED_OVER, /* planned failover done: this was the old primary */
    SESSION_END_FENCED,
    SESSION_END_HYPERVISOR_DIED,
    SESSION_END_PROMOTE_FAILED,
    SESSION_END_ABANDONED,    /* a secondary to which no primary came */
    SESSION_END_IMAGE_FAILED, /* a secondary whose memory image or disks could not be written */
    SESSION_END_PANICKED,     /* the guest's kernel panicked, and the user's line ends the VM then */
    SESSION_END_LEFT,         /* its host goes down: the guest was left to the standby, as in a crash */
    SESSION_END_BUG,          /* a transition that transitions.c does not know: treated as a crash */
    SESSION_END_TRIAL_FAILED, /* a secondary whose QEMU does not load the guest's device state */
    SESSION_END_UNCONFIRMED,  /* a primary that was stopped, or whose guest ended, while its peer could take
                                 the guest over and did not answer */
    /* No session says these: its replicator is gone. */
    SESSION_END_REPLICATOR_DIED, /* its daemon saw it die */
    SESSION_END_UNATTENDED,      /* it ended while no daemon ran */
    SESSION_NEND_REASONS
};

/* "guest-shutdown". "unknown" for a number that has no name here. Literals, as below. */
const char *session_end_reason_name(enum session_end_reason reason);
/* The reason of that name, or SESSION_END_NONE. */
enum session_end_reason session_end_reason_from_name(const char *name);
/* What it means, for the administrator: "the guest shut down". */
const char *session_end_reason_words(enum session_end_reason reason);
/* Whether the VM failed on this host. Otherwise it ended in good order, or was fenced. */
bool session_end_reason_is_failure(enum session_end_reason reason);

#endif
