/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the administrator is told when both hosts ran the guest: what each side let out alone, and which one
 * was stopped. Nothing is decided here: the session fences the older term.
 */
#include "proto/term.h"
#include "replicator/control/replicator.h"

static uint64_t frames_out(const struct replicator *r)
{
    struct gate_stats stats = {0};
    if (r->gate)
        gate_get_stats(r->gate, &stats);
    return stats.frames_released;
}

static void remember(struct replicator *r, char *text)
{
    g_free(r->split);
    r->split = text;
    g_warning("%s", text);
}

void split_alone(struct replicator *r)
{
    /* It may have waited for the disks, and a new standby may be on its way meanwhile. */
    if (!session_has_guest(&r->session) || r->session.held || r->alone_us)
        return;
    r->alone_us = g_get_monotonic_time();
    r->alone_epoch = r->session.acked_epoch;
    r->alone_frames = frames_out(r);
}

void split_fenced(struct replicator *r)
{
    const char *vm = r->config.vm_name;
    bool alone = r->alone_us && r->session.held == false;
    g_autofree char *term =
        g_strdup_printf("%" G_GUINT64_FORMAT ".%u", term_count(r->session.term), term_host(r->session.term));
    if (!alone)
        remember(r, g_strdup_printf("VM %s was stopped here (term %s): the other host has taken it over in a "
                                    "newer term. Nothing that the other host does not know was let out here",
                                    vm, term));
    else
        remember(r,
                 g_strdup_printf(
                     "VM %s ran on both hosts, which had lost each other. It was stopped here (term %s): the "
                     "other host has the newer term and goes on. For %.1f s this host had run it alone, from "
                     "epoch %" G_GUINT64_FORMAT " on, and had let out %" G_GUINT64_FORMAT
                     " frames: the other host knows nothing of what they told clients",
                     vm, term, (double)(g_get_monotonic_time() - r->alone_us) / 1e6, r->alone_epoch,
                     frames_out(r) - r->alone_frames));
    sink_keep_error(&r->sink, r->split);
}

void split_heard(struct replicator *r, const struct session_event *event)
{
    /* One that was merely taken over from has an older counter, and let nothing out. */
    bool both = r->session.role == SESSION_PRIMARY && event->peer_role == SESSION_PRIMARY &&
                event->term < r->session.term && term_count(event->term) == term_count(r->session.term);
    if (!both || r->split)
        return;
    remember(
        r, g_strdup_printf(
               "VM %s ran on both hosts, which had lost each other. It goes on here (term %" G_GUINT64_FORMAT
               ".%u) and is stopped on the other host (term %" G_GUINT64_FORMAT
               ".%u), whose status says what it had let out",
               r->config.vm_name, term_count(r->session.term), term_host(r->session.term),
               term_count(event->term), term_host(event->term)));
}
