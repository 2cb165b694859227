/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the daemon's orders mean: each goes to the part that it concerns, or to the session as an event. */
#include "replicator/control/channel.h"
#include "replicator/control/replicator.h"
#include "replicator/control/start_order.h"

static bool on_start(void *opaque, const Understudy__Start *start)
{
    struct replicator *r = opaque;
    g_autoptr(GError) error = NULL;
    bool is_first = !r->config.vm_name;
    if (!start_order_take(start, &r->config, &r->actions, &error)) {
        sink_error(&r->sink, "%s", error->message);
        if (is_first) /* otherwise a guest runs here, and goes on */
            sink_give_up(&r->sink);
        return false;
    }
    sink_set_vm_name(&r->sink, r->config.vm_name);
    parts_configured(r);
    return true;
}

static void on_failed(void *opaque, const char *message)
{
    struct replicator *r = opaque;
    sink_error(&r->sink, "%s", message);
    sink_give_up(&r->sink);
}

/* A new standby has a secret of its own, if its daemon sends one. */
static void take_new_peer(struct replicator *r, const Understudy__PeerMoved *moved)
{
    if (moved->secret.len > 0)
        parts_new_secret(r, moved->secret.data);
    parts_peer_moved(r, moved->host, (uint16_t)moved->data_port, (uint16_t)moved->udp_port);
}

static void on_peer_moved(void *opaque, const Understudy__PeerMoved *moved)
{
    struct replicator *r = opaque;
    if (moved->data_port > UINT16_MAX || moved->udp_port > UINT16_MAX)
        sink_error(&r->sink, "VM %s: the daemon named a port of the other host that is none",
                   r->config.vm_name);
    else if (moved->secret.len > 0 && moved->secret.len != SEAL_SECRET_LEN)
        sink_error(&r->sink, "VM %s: the daemon sent a secret that is none", r->config.vm_name);
    else
        take_new_peer(r, moved);
}

static void on_failover(void *opaque, bool force)
{
    struct replicator *r = opaque;
    if (r->session_begun)
        sink_event_simple(&r->sink, force ? SESSION_EVENT_FAILOVER_FORCE : SESSION_EVENT_FAILOVER_PLANNED);
}

static void on_stop(void *opaque)
{
    struct replicator *r = opaque;
    if (r->session_begun)
        sink_event_simple(&r->sink, SESSION_EVENT_STOP);
    else
        sink_give_up(&r->sink);
}

/* On a standby this is the primary's host, and there is nothing to stand by for. */
static void on_drop_peer(void *opaque, bool told)
{
    struct replicator *r = opaque;
    if (r->config.role == SESSION_SECONDARY && !(r->session_begun && r->session.role == SESSION_PRIMARY))
        on_stop(r);
    else
        drop_peer_begin(r, told);
}

static void on_power(void *opaque, Understudy__PowerAction action)
{
    guest_button(opaque, action);
}

static void on_reset_figures(void *opaque)
{
    const struct replicator *r = opaque;
    if (r->capture)
        capture_thread_reset_figures(r->capture);
    if (r->epoch_bytes)
        histogram_reset_soon(r->epoch_bytes);
    if (r->gate)
        gate_reset_hold(r->gate);
}

static void on_report(void *opaque)
{
    status_report(opaque);
}

/* Without a guest there is nothing to go on with. */
static void on_lost(void *opaque)
{
    const struct replicator *r = opaque;
    if (!r->hv)
        g_main_loop_quit(r->loop);
}

void daemon_orders_open(struct replicator *r, int fd)
{
    static const struct channel_orders orders = {
        .start = on_start,
        .failed = on_failed,
        .peer_moved = on_peer_moved,
        .drop_peer = on_drop_peer,
        .failover = on_failover,
        .stop = on_stop,
        .power = on_power,
        .reset_figures = on_reset_figures,
        .report = on_report,
        .lost = on_lost,
    };
    r->rates.last_us = g_get_monotonic_time();
    r->channel = channel_new(fd, &orders, r);
}
