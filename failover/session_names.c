/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The words for the session's states, events and actions (its endings: proto/end_reason.c): in logs,
 * `status`, docs/session.md and the simulation's traces.
 */
#include "failover/session.h"

static const char *name_of(const char *const *names, size_t n, size_t i)
{
    return i < n && names[i] ? names[i] : "unknown";
}
#define NAME_OF(names, i) name_of(names, sizeof(names) / sizeof *(names), (size_t)(i))

const char *session_role_name(enum session_role role)
{
    static const char *const names[] = {[SESSION_PRIMARY] = "primary", [SESSION_SECONDARY] = "secondary"};
    return NAME_OF(names, role);
}

const char *session_state_name(enum session_state state)
{
    static const char *const names[] = {
        [SESSION_CONNECTING] = "connecting",
        [SESSION_SYNCHRONISING] = "synchronising",
        [SESSION_ARMING] = "arming",
        [SESSION_PROTECTED] = "protected",
        [SESSION_PEER_LOST] = "peer-lost",
        [SESSION_HANDING_OVER] = "handing-over",
        [SESSION_HANDOVER_UNSURE] = "handover-unsure",
        [SESSION_LEAVING] = "leaving",
        [SESSION_LISTENING] = "listening",
        [SESSION_FOLLOWING] = "following",
        [SESSION_STANDBY] = "standby",
        [SESSION_ASKING] = "asking",
        [SESSION_PROMOTING] = "promoting",
        [SESSION_FENCED] = "fenced",
        [SESSION_ENDED] = "ended",
    };
    return NAME_OF(names, state);
}

const char *session_event_name(enum session_event_type type)
{
    static const char *const names[] = {
        "start",
        "tick",
        "link-up",
        "link-down",
        "heartbeat",
        "stalled",
        "synchronised",
        "epoch-cut",
        "epoch-sent",
        "epoch-received",
        "epoch-durable",
        "epoch-applied",
        "ack",
        "tried",
        "handover",
        "handover-done",
        "goodbye",
        "fenced",
        "grant",
        "term-kept",
        "disks-durable",
        "disks-ready",
        "promoted",
        "guest-shutdown",
        "hypervisor-died",
        "image-failed",
        "tracking-lost",
        "failover-planned",
        "failover-force",
        "stop",
        "leave",
    };
    return NAME_OF(names, type);
}

const char *session_action_name(enum session_action_type type)
{
    static const char *const names[] = {
        "connect",
        "disconnect",
        "start-precopy",
        "start-resync",
        "forget-image",
        "stop-capture",
        "hold-output",
        "start-epochs",
        "release",
        "release-all",
        "release-last",
        "drop-output",
        "send-ack",
        "apply",
        "discard-image",
        "keep-image",
        "ask-peer",
        "send-answer",
        "ask-grant",
        "promote",
        "keep-term",
        "disks-durable",
        "disks-give-up",
        "disks-writable",
        "disks-take-over",
        "last-epoch",
        "send-handover",
        "send-handover-done",
        "send-goodbye",
        "send-fenced",
        "resume-guest",
        "fence-guest",
        "quit-hypervisor",
        "power-down-guest",
        "end",
    };
    return NAME_OF(names, type);
}

const char *session_standing_name(enum session_standing standing)
{
    static const char *const names[] = {"unknown",    "runs-guest",   "goes-alone", "may-take-over",
                                        "has-let-go", "asks-arbiter", "takes-over"};
    return NAME_OF(names, standing);
}
