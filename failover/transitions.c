/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The table of the session's transitions. docs/session.md has a copy, made by scripts/session-table.sh. */
#include "failover/transitions.h"

#define PRIMARY   SESSION_PRIMARY
#define SECONDARY SESSION_SECONDARY

static const struct transition table[] = {
    {SESSION_CONNECTING, SESSION_CONNECTING, PRIMARY, "the link has to be made again, with another HELLO"},
    {SESSION_CONNECTING, SESSION_SYNCHRONISING, PRIMARY, "link up"},
    {SESSION_CONNECTING, SESSION_FENCED, PRIMARY, "a newer term is heard"},
    {SESSION_CONNECTING, SESSION_ENDED, PRIMARY,
     "the guest ended or was stopped; the hypervisor died; the host goes down"},
    {SESSION_SYNCHRONISING, SESSION_ARMING, PRIMARY, "synchronised: output is held from here on"},
    {SESSION_SYNCHRONISING, SESSION_CONNECTING, PRIMARY, "link down, goodbye or silence"},
    {SESSION_SYNCHRONISING, SESSION_LEAVING, PRIMARY, "the guest ended or was stopped"},
    {SESSION_SYNCHRONISING, SESSION_FENCED, PRIMARY, "a newer term is heard"},
    {SESSION_SYNCHRONISING, SESSION_ENDED, PRIMARY, "the hypervisor died; the host goes down"},
    {SESSION_ARMING, SESSION_PROTECTED, PRIMARY, "first ack by a standby that could take over"},
    {SESSION_ARMING, SESSION_PEER_LOST, PRIMARY, "link down, goodbye, silence, a late ack or a cut path"},
    {SESSION_ARMING, SESSION_LEAVING, PRIMARY, "the guest ended or was stopped"},
    {SESSION_ARMING, SESSION_FENCED, PRIMARY, "a newer term is heard"},
    {SESSION_ARMING, SESSION_ENDED, PRIMARY, "the hypervisor died; the host goes down"},
    {SESSION_PROTECTED, SESSION_HANDING_OVER, PRIMARY, "planned failover; the host goes down"},
    {SESSION_PROTECTED, SESSION_PEER_LOST, PRIMARY, "link down, goodbye, silence, a late ack or a cut path"},
    {SESSION_PROTECTED, SESSION_LEAVING, PRIMARY, "the guest ended or was stopped"},
    {SESSION_PROTECTED, SESSION_FENCED, PRIMARY, "a newer term is heard"},
    {SESSION_PROTECTED, SESSION_ENDED, PRIMARY, "the hypervisor died; the host goes down"},
    {SESSION_PEER_LOST, SESSION_CONNECTING, PRIMARY, "granted: the guest runs on alone"},
    {SESSION_PEER_LOST, SESSION_LEAVING, PRIMARY, "the guest ended or was stopped while the peer was asked"},
    {SESSION_PEER_LOST, SESSION_FENCED, PRIMARY, "denied, or a newer term is heard"},
    {SESSION_PEER_LOST, SESSION_ENDED, PRIMARY,
     "the guest ended or was stopped; the hypervisor died; the host goes down"},
    {SESSION_HANDING_OVER, SESSION_PROTECTED, PRIMARY, "given up in time: the guest goes on here"},
    {SESSION_HANDING_OVER, SESSION_PEER_LOST, PRIMARY, "the peer is lost before it was told to promote"},
    {SESSION_HANDING_OVER, SESSION_HANDOVER_UNSURE, PRIMARY, "the peer is lost after it was told to promote"},
    {SESSION_HANDING_OVER, SESSION_LEAVING, PRIMARY, "the guest ended or was stopped"},
    {SESSION_HANDING_OVER, SESSION_FENCED, PRIMARY, "a newer term is heard"},
    {SESSION_HANDING_OVER, SESSION_ENDED, PRIMARY,
     "the peer runs the guest; the hypervisor died; the host goes down"},
    {SESSION_HANDOVER_UNSURE, SESSION_CONNECTING, PRIMARY, "granted: the guest goes on here, alone"},
    {SESSION_HANDOVER_UNSURE, SESSION_LEAVING, PRIMARY, "the guest was stopped while the peer was asked"},
    {SESSION_HANDOVER_UNSURE, SESSION_FENCED, PRIMARY, "denied, or the peer says that this term is old"},
    {SESSION_HANDOVER_UNSURE, SESSION_ENDED, PRIMARY,
     "the peer runs the guest; the guest was stopped; the hypervisor died"},
    {SESSION_LEAVING, SESSION_FENCED, PRIMARY, "a newer term is heard: the peer has taken the guest over"},
    {SESSION_LEAVING, SESSION_ENDED, PRIMARY,
     "the peer's goodbye, half a second, or link down before anything was held"},
    {SESSION_FENCED, SESSION_ENDED, PRIMARY, "at once"},
    {SESSION_LISTENING, SESSION_FOLLOWING, SECONDARY, "link up"},
    {SESSION_LISTENING, SESSION_ENDED, SECONDARY,
     "no primary came; stopped; hypervisor or trial failed; the host goes down"},
    {SESSION_FOLLOWING, SESSION_FOLLOWING, SECONDARY, "another link"},
    {SESSION_FOLLOWING, SESSION_STANDBY, SECONDARY, "first epoch whole"},
    {SESSION_FOLLOWING, SESSION_LISTENING, SECONDARY,
     "link down, goodbye, silence, or its primary went on alone"},
    {SESSION_FOLLOWING, SESSION_ENDED, SECONDARY,
     "the guest ended; stopped; hypervisor, image or trial failed; the host goes down"},
    {SESSION_STANDBY, SESSION_FOLLOWING, SECONDARY, "another link"},
    {SESSION_STANDBY, SESSION_LISTENING, SECONDARY,
     "its primary went on alone: the image is not promoted any more"},
    {SESSION_STANDBY, SESSION_ASKING, SECONDARY, "silence, the primary's guest dead, forced, handover"},
    {SESSION_STANDBY, SESSION_ENDED, SECONDARY,
     "the guest ended; stopped; hypervisor, image or trial failed; the host goes down"},
    {SESSION_ASKING, SESSION_PROMOTING, SECONDARY, "granted"},
    {SESSION_ASKING, SESSION_LISTENING, SECONDARY, "denied"},
    {SESSION_ASKING, SESSION_ENDED, SECONDARY, "the hypervisor or the image failed"},
    {SESSION_PROMOTING, SESSION_CONNECTING, PRIMARY, "the guest runs here: this side is the primary"},
    {SESSION_PROMOTING, SESSION_ENDED, SECONDARY,
     "the guest could not be started; the hypervisor or the image failed"},
};

#define N (sizeof table / sizeof *table)
_Static_assert(N <= 64, "a set of transitions is a uint64_t");

const struct transition *transitions(size_t *n)
{
    *n = N;
    return table;
}

int transition_find(enum session_state from, enum session_state to, enum session_role role)
{
    for (size_t i = 0; i < N; i++)
        if (table[i].from == from && table[i].to == to && table[i].role == role)
            return (int)i;
    return -1;
}
