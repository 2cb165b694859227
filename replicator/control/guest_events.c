/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the machine tells of the guest's life (it shut down, panicked, its watchdog barked), and the user's
 * buttons. What the user's line says must happen, happens here, since the hypervisor itself only pauses
 * (line.h). Whatever makes the guest stand still is in guest_state, which status shows; as long as there is
 * one, nothing but the user's resume or reset lets the guest go on, on whichever host it is by then.
 */
#include "proto/states.h"
#include "replicator/control/replicator.h"

G_GNUC_PRINTF(2, 3) static void tell(struct replicator *r, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    g_free(r->guest_event);
    r->guest_event = g_strdup_vprintf(format, args);
    va_end(args);
    g_message("%s: %s", r->config.vm_name, r->guest_event);
    sink_changed(&r->sink);
}

static bool stands_still(const struct replicator *r)
{
    return r->guest_state != UNDERSTUDY__GUEST_STATE__GUEST_STATE_RUNS;
}

static void lose(struct replicator *r, const char *reason)
{
    sink_error(&r->sink, "VM %s: this host's QEMU was told to quit (%s)", r->config.vm_name,
               reason ? reason : "no reason given");
    machine_kill(r->machine); /* unless it exits by itself; the session hears of either */
}

static void carry_out(struct replicator *r, enum run_verdict verdict, Understudy__GuestState state,
                      enum session_end_reason reason)
{
    const struct session_event event = {.type = SESSION_EVENT_GUEST_SHUTDOWN, .reason = reason};
    if (verdict == RUN_STANDS)
        r->guest_state = state;
    else if (verdict == RUN_ENDED)
        sink_event(&r->sink, &event);
}

static const char *in_words(enum run_verdict verdict)
{
    return verdict == RUN_STANDS  ? "and stands still, as its QEMU line says"
           : verdict == RUN_ENDED ? "and the VM ends, as its QEMU line says"
                                  : "and goes on, as its QEMU line says";
}

static void on_shutdown(struct replicator *r, enum run_event event, const char *reason)
{
    enum run_verdict verdict = run_verdict_of(&r->actions, event);
    if (verdict == RUN_LOST) {
        lose(r, reason);
        return;
    }
    tell(r, "the guest has shut down (%s) %s", reason ? reason : "no reason given", in_words(verdict));
    carry_out(r, verdict, UNDERSTUDY__GUEST_STATE__GUEST_STATE_SHUT_OFF, SESSION_END_GUEST_SHUTDOWN);
}

static void on_panicked(struct replicator *r)
{
    enum run_verdict verdict = run_verdict_of(&r->actions, RUN_EVENT_PANICKED);
    tell(r, "the guest's kernel has panicked %s", in_words(verdict));
    carry_out(r, verdict, UNDERSTUDY__GUEST_STATE__GUEST_STATE_PANICKED, SESSION_END_PANICKED);
}

static void on_watchdog(struct replicator *r, enum run_event event, const char *action)
{
    enum run_verdict verdict = run_verdict_of(&r->actions, event);
    if (verdict == RUN_GOES_ON)
        tell(r, "the guest's watchdog has run out (%s)", action ? action : "no action given");
    else
        tell(r, "the guest's watchdog has run out %s", in_words(verdict));
    carry_out(r, verdict, UNDERSTUDY__GUEST_STATE__GUEST_STATE_WATCHDOG, SESSION_END_GUEST_SHUTDOWN);
}

static bool is_heard(const struct replicator *r)
{
    return r->session.role == SESSION_PRIMARY && !r->quitting;
}

void guest_events_run(struct replicator *r, enum run_event event, const char *reason)
{
    if (!is_heard(r))
        return;
    switch (event) {
    case RUN_EVENT_SHUTDOWN:
    case RUN_EVENT_PANIC_END:
    case RUN_EVENT_QUIT:
        on_shutdown(r, event, reason);
        break;
    case RUN_EVENT_PANICKED:
        on_panicked(r);
        break;
    case RUN_EVENT_WATCHDOG:
    case RUN_EVENT_WATCHDOG_DONE:
        on_watchdog(r, event, reason);
        break;
    }
}

/* A guest that stood still for good begins anew. */
void guest_events_reset(struct replicator *r)
{
    if (!is_heard(r) || !r->cont_after_reset)
        return;
    r->cont_after_reset = false;
    r->guest_state = UNDERSTUDY__GUEST_STATE__GUEST_STATE_RUNS;
    guest_resume(r);
    sink_changed(&r->sink);
}

void guest_events_taken_over(struct replicator *r, enum machine_state state)
{
    switch (state) {
    case MACHINE_PAUSED:
        r->guest_state = UNDERSTUDY__GUEST_STATE__GUEST_STATE_PAUSED;
        break;
    case MACHINE_PANICKED:
        on_panicked(r);
        break;
    case MACHINE_SHUT_OFF:
        carry_out(r, run_verdict_of(&r->actions, RUN_EVENT_SHUTDOWN),
                  UNDERSTUDY__GUEST_STATE__GUEST_STATE_SHUT_OFF, SESSION_END_GUEST_SHUTDOWN);
        break;
    case MACHINE_WATCHDOG:
        carry_out(r, run_verdict_of(&r->actions, RUN_EVENT_WATCHDOG),
                  UNDERSTUDY__GUEST_STATE__GUEST_STATE_WATCHDOG, SESSION_END_GUEST_SHUTDOWN);
        break;
    case MACHINE_RUNS:
    case MACHINE_DISK_ERROR: /* guest_disks.c has it tried again */
    case MACHINE_STANDS:
        break;
    }
}

/* ---- buttons ---- */

static bool has_the_guest(const struct replicator *r)
{
    return session_has_guest(&r->session) && r->hv_ready && !r->quitting && !r->qemu_gone;
}

static void on_refused(void *opaque, const char *why)
{
    struct replicator *r = opaque;
    if (!r->quitting)
        sink_error(&r->sink, "VM %s: QEMU refused the order: %s", r->config.vm_name, why);
}

static void resume(struct replicator *r)
{
    bool for_good = r->guest_state == UNDERSTUDY__GUEST_STATE__GUEST_STATE_PANICKED ||
                    r->guest_state == UNDERSTUDY__GUEST_STATE__GUEST_STATE_SHUT_OFF;
    if (for_good) {
        sink_error(&r->sink, "VM %s is %s and cannot be resumed: 'understudy reset %s' starts its guest anew",
                   r->config.vm_name, guest_state_name(r->guest_state), r->config.vm_name);
        return;
    }
    r->guest_state = UNDERSTUDY__GUEST_STATE__GUEST_STATE_RUNS;
    guest_resume(r);
}

void guest_button(struct replicator *r, Understudy__PowerAction action)
{
    if (!has_the_guest(r))
        return;
    switch (action) {
    case UNDERSTUDY__POWER_ACTION__POWER_SHUTDOWN:
        tell(r, "the guest was asked to shut down");
        machine_order(r->machine, MACHINE_POWER_DOWN, on_refused, r);
        break;
    case UNDERSTUDY__POWER_ACTION__POWER_RESET:
        r->cont_after_reset =
            stands_still(r) && r->guest_state != UNDERSTUDY__GUEST_STATE__GUEST_STATE_PAUSED;
        tell(r, "the guest was reset");
        machine_order(r->machine, MACHINE_RESET, on_refused, r);
        break;
    case UNDERSTUDY__POWER_ACTION__POWER_PAUSE:
        if (stands_still(r))
            break;
        r->guest_state = UNDERSTUDY__GUEST_STATE__GUEST_STATE_PAUSED;
        machine_order(r->machine, MACHINE_PAUSE, on_refused, r);
        break;
    case UNDERSTUDY__POWER_ACTION__POWER_RESUME:
        resume(r);
        break;
    default:
        break;
    }
    sink_changed(&r->sink);
}
