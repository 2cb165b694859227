/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See session_state.h. The compiler complains of a state of the session that is not here. */
#include "replicator/control/session_state.h"

Understudy__State state_of_session(enum session_state state)
{
    switch (state) {
    case SESSION_CONNECTING:
        return UNDERSTUDY__STATE__STATE_CONNECTING;
    case SESSION_SYNCHRONISING:
        return UNDERSTUDY__STATE__STATE_SYNCHRONISING;
    case SESSION_ARMING:
        return UNDERSTUDY__STATE__STATE_ARMING;
    case SESSION_PROTECTED:
        return UNDERSTUDY__STATE__STATE_PROTECTED;
    case SESSION_PEER_LOST:
        return UNDERSTUDY__STATE__STATE_PEER_LOST;
    case SESSION_HANDING_OVER:
        return UNDERSTUDY__STATE__STATE_HANDING_OVER;
    case SESSION_HANDOVER_UNSURE:
        return UNDERSTUDY__STATE__STATE_HANDOVER_UNSURE;
    case SESSION_LEAVING:
        return UNDERSTUDY__STATE__STATE_LEAVING;
    case SESSION_LISTENING:
        return UNDERSTUDY__STATE__STATE_LISTENING;
    case SESSION_FOLLOWING:
        return UNDERSTUDY__STATE__STATE_FOLLOWING;
    case SESSION_STANDBY:
        return UNDERSTUDY__STATE__STATE_STANDBY;
    case SESSION_ASKING:
        return UNDERSTUDY__STATE__STATE_ASKING;
    case SESSION_PROMOTING:
        return UNDERSTUDY__STATE__STATE_PROMOTING;
    case SESSION_FENCED:
        return UNDERSTUDY__STATE__STATE_FENCED;
    case SESSION_ENDED:
        return UNDERSTUDY__STATE__STATE_ENDED;
    case SESSION_NSTATES:
        break;
    }
    return UNDERSTUDY__STATE__STATE_UNKNOWN;
}
