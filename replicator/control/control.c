/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The control thread's core: the parts post events to the sink, each goes into the session, and what the
 * session decides is carried out (actions.c). An event that is posted meanwhile waits (sink.h). Between
 * events the session's timer runs.
 */
#include "replicator/control/channel.h"
#include "replicator/control/replicator.h"

static gboolean on_tick(gpointer opaque)
{
    struct replicator *r = opaque;
    r->tick_source = 0;
    paths_look(r->paths);
    if (r->ended)
        return G_SOURCE_REMOVE;
    sink_event_simple(&r->sink, SESSION_EVENT_TICK);
    return G_SOURCE_REMOVE;
}

static void arm_tick(struct replicator *r)
{
    uint64_t next = session_next_tick_ms(&r->session);
    uint64_t now = replicator_now_ms();
    g_clear_handle_id(&r->tick_source, g_source_remove);
    if (next == UINT64_MAX || r->ended)
        return;
    r->tick_source =
        g_timeout_add_full(G_PRIORITY_HIGH, next > now ? (guint)MIN(next - now, 10000) : 0, on_tick, r, NULL);
}

static void log_synchronised(const struct replicator *r)
{
    const struct capture_figures *figures = capture_thread_figures(r->capture);
    g_message("%s: the standby %s: %" G_GUINT64_FORMAT " pages in %.0f ms", r->config.vm_name,
              r->sync_difference ? "had kept its image and got what it lacked" : "got a new image",
              atomic_load_explicit(&figures->sync_sent_pages, memory_order_relaxed), r->sync_ms);
}

static void on_state_changed(struct replicator *r, enum session_state before, enum session_event_type cause)
{
    input_log_set_active(r->input_log,
                         r->session.state == SESSION_ARMING || r->session.state == SESSION_PROTECTED);
    r->since_us = g_get_monotonic_time();
    standby_trial_stop_unless_standing_by(r);
    g_message("%s: %s, was %s (%s)", r->config.vm_name, session_state_name(r->session.state),
              session_state_name(before), session_event_name(cause));
    sink_changed(&r->sink);
}

/* One event. offered: the epoch that came with it, or NULL. */
static void handle_one(void *opaque, const struct session_event *event, struct staged_epoch *offered)
{
    struct replicator *r = opaque;
    enum session_state before = r->session.state;
    uint64_t term = r->session.term;
    struct session_actions actions;
    bool said_something = false;
    session_handle(&r->session, event, replicator_now_ms(), &actions);
    /* The peer hears of a new term before anything is done about it, which may take a while. */
    if (r->session.term != term)
        heartbeats_send_now(r, false);
    for (size_t i = 0; i < actions.n && !r->ended; i++) {
        action_carry_out(r, &actions.list[i], said_something, &offered);
        said_something |= action_sends_message(actions.list[i].type);
    }
    if (offered)
        applier_post_discard(r->applier, offered);
    if (r->session.state == SESSION_PROTECTED && r->sync_began_us) {
        r->sync_ms = (double)(g_get_monotonic_time() - r->sync_began_us) / 1000;
        r->sync_began_us = 0;
        log_synchronised(r);
    }
    if (r->session.state != before)
        on_state_changed(r, before, event->type);
}

/* ---- what the parts post (sink.h) ---- */

static void on_handled(void *opaque)
{
    arm_tick(opaque);
}

static void on_overflow(void *opaque, const struct session_event *event, struct staged_epoch *offered)
{
    struct replicator *r = opaque;
    g_warning("%s: an event (%s) came amid too many others: the link is given up", r->config.vm_name,
              session_event_name(event->type));
    if (offered)
        applier_post_discard(r->applier, offered);
    if (r->connection)
        connection_shutdown(r->connection);
}

static void on_send(void *opaque, const struct transport_message *message)
{
    struct replicator *r = opaque;
    if (r->connection)
        sender_post_message(r->sender, r->connection, message);
}

static void on_changed(void *opaque)
{
    const struct replicator *r = opaque;
    channel_report_soon(r->channel);
}

static void on_give_up(void *opaque)
{
    struct replicator *r = opaque;
    if (r->ended)
        return;
    r->ended = true;
    r->exit_status = 1;
    channel_ended(r->channel, SESSION_END_HYPERVISOR_DIED, sink_last_error(&r->sink));
    g_main_loop_quit(r->loop);
}

void control_open(struct replicator *r)
{
    static const struct sink_core core = {
        .event = handle_one,
        .done = on_handled,
        .overflow = on_overflow,
        .send = on_send,
        .changed = on_changed,
        .give_up = on_give_up,
    };
    sink_init(&r->sink, &core, r);
}
