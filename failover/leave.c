/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A host that goes down cleanly: init sends SIGTERM to every process, and SIGKILL some seconds later. A guest
 * that survives the plug being pulled must survive that too, so LEAVE is never the user's stop:
 *
 *   protected                  a planned failover; not done in time, the guest here is killed and the standby
 *                              takes over as in a crash. Its goodbye says that the hypervisor is dead
 *   on the way to protection   it is waited for, as long as a planned failover may take
 *   nobody could take it       the guest itself is asked to shut down; it may take its time, then it is ended
 *
 * Output that no standby holds is dropped where a standby may go on (I1); a guest that nobody else has is
 * ended with all that it has sent.
 */
#include "failover/session_parts.h"

/* Leaves the guest to the standby. The guest here is killed before the peer can read the goodbye. */
static void leave_to_standby(struct step *step)
{
    step_act(step, SESSION_DO_STOP_CAPTURE);
    step_act(step, SESSION_DO_DROP_OUTPUT);
    step_act(step, SESSION_DO_FENCE_GUEST);
    step_say_goodbye(step, SESSION_END_HYPERVISOR_DIED);
    step_end(step, SESSION_END_LEFT);
}

/* Ends a guest that no other host has, with all its output released. */
static void end_alone(struct step *step)
{
    step_act(step, SESSION_DO_STOP_CAPTURE);
    step_act(step, SESSION_DO_RELEASE_ALL);
    if (step->s->link_up)
        step_say_goodbye(step, SESSION_END_STOPPED); /* the peer has no whole image to run the guest from */
    step_act(step, SESSION_DO_QUIT_HYPERVISOR);
    step_end(step, SESSION_END_LEFT);
}

/* Asks the guest to shut down, and sets the time at which it is ended if it has not. */
static void power_down(struct step *step)
{
    struct session *s = step->s;
    s->powering_down = true;
    s->leave_due_ms = step->now_ms + s->config.power_down_timeout_ms;
    step_act(step, SESSION_DO_POWER_DOWN_GUEST);
}

/* Whether the peer was told to promote: then the peer or the arbiter decides who runs the guest. */
static bool is_with_the_peer(const struct session *s)
{
    return (s->state == SESSION_HANDING_OVER && s->handover_sent) || s->state == SESSION_HANDOVER_UNSURE;
}

static void on_overdue(struct step *step)
{
    struct session *s = step->s;
    if (is_with_the_peer(s))
        s->leave_due_ms = step->now_ms + s->config.leave_timeout_ms;
    else if (s->state == SESSION_PROTECTED || s->state == SESSION_HANDING_OVER)
        leave_to_standby(step);
    else if (!s->powering_down)
        power_down(step);
    else if (s->held)
        leave_to_standby(step);
    else
        end_alone(step);
}

bool leave_handle(struct step *step)
{
    struct session *s = step->s;
    if (step->event->type == SESSION_EVENT_LEAVE) {
        s->leaving = true; /* leave_go_on() takes the next step */
        return true;
    }
    if (step->event->type != SESSION_EVENT_TICK || s->leave_due_ms == 0 || step->now_ms < s->leave_due_ms)
        return false;
    on_overdue(step);
    return true;
}

/* Whether no other host has the guest, and no query or request for a term is under way. */
static bool is_alone(const struct session *s)
{
    return s->state == SESSION_CONNECTING ||
           (s->state == SESSION_PEER_LOST && !s->loss_query && !s->asked_term);
}

void leave_go_on(struct step *step)
{
    struct session *s = step->s;
    if (!s->leaving || s->role != SESSION_PRIMARY)
        return;
    if (s->state == SESSION_ENDED || s->state == SESSION_LEAVING) {
        s->leave_due_ms = 0;
        return;
    }
    if (!s->leave_due_ms)
        s->leave_due_ms = step->now_ms + s->config.leave_timeout_ms;
    if (s->state == SESSION_PROTECTED)
        handover_begin(step);
    else if (is_alone(s) && !s->powering_down)
        power_down(step);
}
