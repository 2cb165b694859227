/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Turns decisions that depend on the disks into numbered orders, and carries them out when the disks answer.
 * disk_turns.h has the table of decisions and orders.
 */
#include "failover/session_parts.h"

static uint64_t next_order(struct disk_turns *turns)
{
    return ++turns->ordered;
}

/* Replaces the action by an order to the disks. The answer to an older order does not count any more. */
static void order(struct disk_turns *turns, int what, struct session_action *action,
                  enum session_action_type instead)
{
    turns->other = what;
    turns->other_order = next_order(turns);
    turns->term = action->term;
    turns->epoch = action->epoch;
    action->type = instead;
    action->order = turns->other_order;
}

/* Replaces release-all by an order to make writes durable, if a write may still be volatile. */
static void wait_until_durable(struct step *step, struct session_action *action)
{
    struct disk_turns *turns = &step->s->disk_turns;
    if (!turns->is_volatile)
        return;
    if (step->s->state == SESSION_ENDED) {
        action->type = SESSION_DO_RELEASE_LAST;
        return;
    }
    turns->durable_order = next_order(turns);
    action->type = SESSION_DO_DISKS_DURABLE;
    action->order = turns->durable_order;
}

void disk_turns_order(struct step *step)
{
    struct disk_turns *turns = &step->s->disk_turns;
    for (size_t i = 0; step->s->config.disks && i < step->out->n; i++) {
        struct session_action *action = &step->out->list[i];
        switch (action->type) {
        case SESSION_DO_HOLD_OUTPUT:
            turns->is_volatile = true;
            turns->durable_order = 0;
            break;
        case SESSION_DO_RELEASE_ALL:
            wait_until_durable(step, action);
            break;
        case SESSION_DO_SEND_HANDOVER:
            order(turns, DISK_TURN_HANDOVER, action, SESSION_DO_DISKS_GIVE_UP);
            break;
        case SESSION_DO_RESUME_GUEST:
            order(turns, DISK_TURN_RESUME, action, SESSION_DO_DISKS_WRITABLE);
            break;
        case SESSION_DO_PROMOTE:
            order(turns, DISK_TURN_PROMOTE, action, SESSION_DO_DISKS_TAKE_OVER);
            break;
        case SESSION_DO_DROP_OUTPUT:
        case SESSION_DO_FENCE_GUEST:
            turns->durable_order = turns->other_order = 0;
            break;
        default:
            break;
        }
    }
}

static void on_durable(struct step *step)
{
    struct disk_turns *turns = &step->s->disk_turns;
    bool mine = step->event->order == turns->durable_order || step->s->config.chaos_any_disk_answer;
    if (!turns->durable_order || !mine)
        return;
    turns->durable_order = 0;
    turns->is_volatile = false;
    step_act(step, SESSION_DO_RELEASE_ALL);
}

/* Whether the session still wants the decision that waited for the disks. */
static bool is_wanted(const struct session *s)
{
    if (s->config.chaos_late_disk_answer)
        return true;
    switch (s->disk_turns.other) {
    case DISK_TURN_HANDOVER:
        return s->state == SESSION_HANDING_OVER;
    case DISK_TURN_RESUME:
        return session_has_guest(s); /* not if another handover has begun: its last epoch pauses the guest */
    default:
        return s->state == SESSION_PROMOTING;
    }
}

bool disk_turns_answer(struct step *step)
{
    struct session *s = step->s;
    struct disk_turns *turns = &s->disk_turns;
    static const enum session_action_type waits[] = {[DISK_TURN_HANDOVER] = SESSION_DO_SEND_HANDOVER,
                                                     [DISK_TURN_RESUME] = SESSION_DO_RESUME_GUEST,
                                                     [DISK_TURN_PROMOTE] = SESSION_DO_PROMOTE};
    bool mine = step->event->order == turns->other_order || s->config.chaos_any_disk_answer;
    if (step->event->type == SESSION_EVENT_DISKS_DURABLE) {
        on_durable(step);
        return false;
    }
    if (!turns->other_order || !mine)
        return false;
    turns->other_order = 0;
    if (!is_wanted(s))
        return false;
    if (!step->event->ok)
        return turns->other == DISK_TURN_PROMOTE; /* else the guest stays as it is: paused */
    struct session_action *action = step_act(step, waits[turns->other]);
    action->term = turns->term;
    action->epoch = turns->epoch;
    return false;
}
