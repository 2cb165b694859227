/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Compares each report of a replicator with the last one, and emits an event for each change. */
#include "daemon/vm_events.h"

#include <glib.h>
#include <string.h>

#include "daemon/events.h"
#include "proto/states.h"
#include "proto/term.h"

struct vm_events {
    char *vm;
    bool adopted, begun; /* begun: there was a status */
    Understudy__Role role;
    enum { PROTECTION_NONE, PROTECTION_TOLD, PROTECTION_LOST } protection;
    bool standby, asked, fenced, panicked;
    char *split, *guest_event; /* told last, or NULL */
    char **warnings;           /* NULL: none */
};

struct vm_events *vm_events_new(const char *vm, bool adopted)
{
    struct vm_events *events = g_new0(struct vm_events, 1);
    events->vm = g_strdup(vm);
    events->adopted = adopted;
    return events;
}

void vm_events_free(struct vm_events *events)
{
    if (!events)
        return;
    g_free(events->vm);
    g_free(events->split);
    g_free(events->guest_event);
    g_strfreev(events->warnings);
    g_free(events);
}

static char *term_text(uint64_t term)
{
    return g_strdup_printf("%" G_GUINT64_FORMAT ".%u", term_count(term), term_host(term));
}

static char *ms_text(double ms)
{
    return ms < 0 ? NULL : g_strdup_printf("%.3f", ms);
}

/* Returns whether text is not empty and differs from *kept, and stores it there. */
static bool is_new(char **kept, const char *text)
{
    if (g_strcmp0(*kept ? *kept : "", text) == 0)
        return false;
    g_free(*kept);
    *kept = g_strdup(text);
    return text[0] != 0;
}

/* ---- one matter each ---- */

/* Handles the first status: emits `started`, or `adopted` without events of what happened before this daemon.
 */
static void begin(struct vm_events *events, const Understudy__Status *s)
{
    const char *role = role_name(s->role), *state = state_name(s->state);
    events->begun = true;
    events->role = s->role;
    if (!events->adopted) {
        events_emit(EVENT_STARTED, events->vm, (const char *const[]){"role", role, NULL},
                    "VM %s was started here as %s", events->vm, role);
        return;
    }
    events_emit(EVENT_ADOPTED, events->vm, (const char *const[]){"role", role, "state", state, NULL},
                "VM %s was running when this daemon started: adopted (%s)", events->vm, state);
    events->protection = s->state == UNDERSTUDY__STATE__STATE_PROTECTED ? PROTECTION_TOLD : PROTECTION_LOST;
    events->standby = s->state == UNDERSTUDY__STATE__STATE_STANDBY;
    events->panicked = s->guest_state == UNDERSTUDY__GUEST_STATE__GUEST_STATE_PANICKED;
    is_new(&events->split, s->split);
    is_new(&events->guest_event, s->guest_event);
}

static void look_at_role(struct vm_events *events, const Understudy__Status *s)
{
    bool came = events->role == UNDERSTUDY__ROLE__ROLE_SECONDARY && s->role == UNDERSTUDY__ROLE__ROLE_PRIMARY;
    if (events->role == s->role || (s->role == UNDERSTUDY__ROLE__ROLE_PRIMARY && !s->guest_here))
        return; /* the guest is not here yet */
    events->role = s->role;
    if (!came)
        return;
    g_autofree char *term = term_text(s->term), *detect = ms_text(s->detect_ms),
                    *promote = ms_text(s->promote_ms);
    const char *const fields[] = {"peer", s->peer,      "term",  term, "detect_ms",
                                  detect, "promote_ms", promote, NULL};
    events->protection = PROTECTION_TOLD; /* the guest was protected until now */
    if (s->detect_ms < 0)
        events_emit(EVENT_MOVED_HERE, events->vm, fields, "VM %s was handed over by %s and goes on here",
                    events->vm, s->peer);
    else
        events_emit(EVENT_TAKEOVER, events->vm, fields, "VM %s was taken over from %s and goes on here",
                    events->vm, s->peer);
}

static void look_at_protection(struct vm_events *events, const Understudy__Status *s)
{
    g_autofree char *term = term_text(s->term);
    const char *state = state_name(s->state), *reason = s->last_error;
    if (s->state == UNDERSTUDY__STATE__STATE_PROTECTED) {
        if (events->protection != PROTECTION_TOLD)
            events_emit(EVENT_PROTECTED, events->vm,
                        (const char *const[]){"peer", s->peer, "term", term, NULL},
                        "VM %s is protected by %s", events->vm, s->peer);
        events->protection = PROTECTION_TOLD;
        events->asked = false;
    } else if (status_is_unprotected(s) && events->protection == PROTECTION_TOLD) {
        events_emit(
            EVENT_UNPROTECTED, events->vm, (const char *const[]){"state", state, "reason", reason, NULL},
            "VM %s is not protected any more (%s)%s%s", events->vm, state, reason[0] ? ": " : "", reason);
        events->protection = PROTECTION_LOST;
    }
}

static void look_at_standby(struct vm_events *events, const Understudy__Status *s)
{
    if (s->state == UNDERSTUDY__STATE__STATE_LISTENING || s->state == UNDERSTUDY__STATE__STATE_FOLLOWING)
        events->standby = false;
    if (s->state != UNDERSTUDY__STATE__STATE_STANDBY || events->standby)
        return;
    g_autofree char *term = term_text(s->term);
    events->standby = true;
    events_emit(EVENT_STANDBY, events->vm, (const char *const[]){"peer", s->peer, "term", term, NULL},
                "this host stands by for VM %s of %s", events->vm, s->peer);
}

static void tell_fenced(struct vm_events *events, uint64_t of, const char *said)
{
    g_autofree char *term = term_text(of);
    if (!events->fenced)
        events_emit(EVENT_FENCED, events->vm, (const char *const[]){"term", term, NULL},
                    "VM %s ended here: stopped here because the other host runs the guest%s%s", events->vm,
                    said[0] ? ": " : "", said);
    events->fenced = true;
}

static void look_at_guest(struct vm_events *events, const Understudy__Status *s)
{
    bool panicked = s->guest_state == UNDERSTUDY__GUEST_STATE__GUEST_STATE_PANICKED;
    bool told = is_new(&events->guest_event, s->guest_event);
    if (panicked && !events->panicked)
        events_emit(EVENT_GUEST_PANICKED, events->vm, NULL, "VM %s: %s", events->vm,
                    s->guest_event[0] ? s->guest_event : "the guest's kernel has panicked");
    else if (told)
        events_emit(EVENT_GUEST, events->vm, NULL, "VM %s: %s", events->vm, s->guest_event);
    events->panicked = panicked;
}

static bool holds(char *const *list, size_t n, const char *text)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(list[i], text) == 0)
            return true;
    return false;
}

static void look_at_warnings(struct vm_events *events, const Understudy__Status *s)
{
    size_t nold = events->warnings ? g_strv_length(events->warnings) : 0;
    bool same = nold == s->n_warnings;
    for (size_t i = 0; i < s->n_warnings; i++) {
        if (holds(events->warnings, nold, s->warnings[i]))
            continue;
        same = false;
        events_emit(EVENT_WARNING, events->vm, NULL, "VM %s: %s", events->vm, s->warnings[i]);
    }
    for (size_t i = 0; i < nold; i++) {
        if (holds(s->warnings, s->n_warnings, events->warnings[i]))
            continue;
        same = false;
        events_emit(EVENT_WARNING_CLEARED, events->vm, NULL, "VM %s: this warning no longer applies: %s",
                    events->vm, events->warnings[i]);
    }
    if (same)
        return;
    g_strfreev(events->warnings);
    events->warnings = g_new0(char *, s->n_warnings + 1);
    for (size_t i = 0; i < s->n_warnings; i++)
        events->warnings[i] = g_strdup(s->warnings[i]);
}

/* ---- all ---- */

void vm_events_status(struct vm_events *events, const Understudy__Status *s)
{
    if (s->state == UNDERSTUDY__STATE__STATE_STARTING || s->state == UNDERSTUDY__STATE__STATE_UNKNOWN)
        return;
    if (!events->begun)
        begin(events, s);
    look_at_role(events, s);
    look_at_protection(events, s);
    look_at_standby(events, s);
    if (s->state == UNDERSTUDY__STATE__STATE_FENCED)
        tell_fenced(events, s->term, "");
    if (is_new(&events->split, s->split))
        events_emit(EVENT_SPLIT, events->vm, NULL, "VM %s: %s", events->vm, s->split);
    look_at_guest(events, s);
    look_at_warnings(events, s);
}

void vm_events_asked(struct vm_events *events, const char *peer)
{
    if (!events->asked)
        events_emit(EVENT_STANDBY_ASKED, events->vm, (const char *const[]){"peer", peer, NULL},
                    "VM %s has no standby: %s is asked for one", events->vm, peer);
    events->asked = true;
}

void vm_events_refused(struct vm_events *events, const char *peer, const char *why)
{
    events_emit(EVENT_STANDBY_REFUSED, events->vm, (const char *const[]){"peer", peer, "reason", why, NULL},
                "VM %s has no standby: %s", events->vm, why);
}

void vm_events_ended(struct vm_events *events, Understudy__Role role, uint64_t term,
                     enum session_end_reason reason, const char *said)
{
    g_autofree char *of = term_text(term);
    const char *name = session_end_reason_name(reason), *words = session_end_reason_words(reason);
    const char *const fields[] = {"role", role_name(role), "term", of, "reason", name, NULL};
    if (reason == SESSION_END_FENCED) {
        tell_fenced(events, term, said);
        return;
    }
    if (reason == SESSION_END_PANICKED && !events->panicked)
        events_emit(EVENT_GUEST_PANICKED, events->vm, NULL, "VM %s: the guest's kernel has panicked",
                    events->vm);
    if (session_end_reason_is_failure(reason))
        events_emit(EVENT_FAILED, events->vm, fields, "VM %s ended here: %s%s%s", events->vm, words,
                    said[0] ? ": " : "", said);
    else
        events_emit(EVENT_ENDED, events->vm, fields, "VM %s ended here: %s", events->vm, words);
}

void vm_events_lost(struct vm_events *events, Understudy__Role role, uint64_t term)
{
    g_autofree char *of = term_text(term);
    const char *name = session_end_reason_name(SESSION_END_REPLICATOR_DIED);
    events_emit(EVENT_FAILED, events->vm,
                (const char *const[]){"role", role_name(role), "term", of, "reason", name, NULL},
                "the replicator of VM %s died: its QEMU is stopped", events->vm);
}
