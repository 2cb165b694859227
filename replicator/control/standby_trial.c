/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * When the trial of a standby whose QEMU is not the primary's (trial.h) is due, and what becomes of it: the
 * session and the administrator are told.
 */
#include "replicator/control/replicator.h"
#include "replicator/control/trial.h"
#include "replicator/note.h"

#define AGAIN_S 10 /* what it could not be begun for may pass: no memory, no thread */

static void say_of_trial(struct replicator *r, char *text)
{
    g_free(r->trial_text);
    r->trial_text = text;
    if (text)
        g_message("%s: %s", r->config.vm_name, text);
    sink_changed(&r->sink);
}

static void fail_trial(struct replicator *r, const char *why)
{
    const struct session_event event = {.type = SESSION_EVENT_TRIED};
    say_of_trial(r, NULL);
    sink_error(&r->sink,
               "QEMU %s of this host cannot take VM %s over, which runs in QEMU %s on the other host: on "
               "trial it did not load the state of the guest's devices (%s); install QEMU %s here, or "
               "another later one",
               r->config.qemu_version, r->config.vm_name, r->config.tried_for, why, r->config.tried_for);
    sink_event(&r->sink, &event);
}

static bool stands_by(const struct replicator *r)
{
    return r->session.state == SESSION_LISTENING || r->session.state == SESSION_FOLLOWING ||
           r->session.state == SESSION_STANDBY;
}

/* The trial could not begin. That says nothing about this QEMU, and another trial is due later. */
static void put_off(struct replicator *r, const char *why)
{
    r->trial_due_us = g_get_monotonic_time() + AGAIN_S * G_USEC_PER_SEC;
    say_of_trial(r, g_strdup_printf("QEMU %s could not be started on trial: %s; that is tried again in %d s",
                                    r->config.qemu_version, why, AGAIN_S));
}

/* With the first whole image; again if the last trial decided nothing. */
void standby_trial_consider(struct replicator *r)
{
    g_autoptr(GError) error = NULL;
    if (r->trial || r->ended || r->session.state != SESSION_STANDBY || !r->session.untried ||
        g_get_monotonic_time() < r->trial_due_us)
        return;
    const struct trial_config config = {
        .machine = r->machine,
        .argv = (const char *const *)r->config.trial_argv,
        .image = r->image,
        .applier = r->applier,
        .control = &r->box,
    };
    r->trial = trial_begin(&config, &error);
    if (r->trial) {
        say_of_trial(r, g_strdup_printf("QEMU %s is loading the state of the guest's devices on trial",
                                        r->config.qemu_version));
        return;
    }
    put_off(r, error->message);
}

void standby_trial_ended(struct replicator *r, const struct note *note)
{
    const struct session_event event = {.type = SESSION_EVENT_TRIED, .ok = true};
    g_clear_pointer(&r->trial, trial_end);
    if (note->arg == TRIAL_FAILED && stands_by(r)) {
        fail_trial(r, (const char *)note->payload);
    } else if (note->arg == TRIAL_NOT_BEGUN && stands_by(r)) {
        put_off(r, (const char *)note->payload);
    } else if (note->arg == TRIAL_LOADED) {
        say_of_trial(r, g_strdup_printf("QEMU %s loaded the state of the guest's devices on trial in %.0f ms "
                                        "(epoch %" G_GUINT64_FORMAT ")",
                                        r->config.qemu_version, (double)note->status / 1000, note->epoch));
        sink_event(&r->sink, &event);
    } else {
        say_of_trial(r, NULL);
    }
}

/* Who is about to take over, or has ended, waits for no trial. */
void standby_trial_stop_unless_standing_by(struct replicator *r)
{
    if (r->trial && !stands_by(r))
        trial_cancel(r->trial);
}
