/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the session hears of the peer's beats, and says in this side's (heartbeat/paths.h). Any message on the
 * link counts as a sign of life as well. A beat also asks the peer what it is, or answers: then it is sent at
 * once, and by the link as well.
 */
#include "proto/term.h"
#include "replicator/control/replicator.h"

_Static_assert(HEARTBEAT_STANDINGS == SESSION_NSTANDINGS, "numbers on the wire");

void heartbeats_heard(struct replicator *r, const struct session_event *event)
{
    split_heard(r, event);
    sink_event(&r->sink, event);
}

static void on_heard(void *opaque, const struct heartbeat *beat, bool by_link)
{
    const struct session_event event = {
        .type = SESSION_EVENT_HEARTBEAT,
        .term = beat->term,
        .peer_role = beat->role == WIRE_ROLE_PRIMARY ? SESSION_PRIMARY : SESSION_SECONDARY,
        .by_link = by_link,
        .standing = (enum session_standing)beat->standing,
        .query = beat->query,
        .answer = beat->answer,
        .deaf = beat->deaf,
    };
    heartbeats_heard(opaque, &event);
}

/* Delays a takeover by no more than the stall itself. */
static void on_stalled(void *opaque, uint64_t stalled_ms)
{
    struct replicator *r = opaque;
    const struct session_event event = {.type = SESSION_EVENT_STALLED, .stalled_ms = stalled_ms};
    if (stalled_ms > r->config.silence_ms / 2)
        g_warning("%s: this process did not run for %" G_GUINT64_FORMAT
                  " ms; a longer stall looks like death to the peer (see --silence-ms)",
                  r->config.vm_name, stalled_ms);
    sink_event(&r->sink, &event);
}

static void say(void *opaque, struct heartbeat *beat)
{
    const struct replicator *r = opaque;
    struct session_beat says;
    if (r->session_begun) /* a standby may learn from its primary which host it is */
        paths_set_host(r->paths, r->session.host);
    session_beat(&r->session, replicator_now_ms(), &says);
    beat->term = says.term;
    beat->role = says.role == SESSION_PRIMARY ? WIRE_ROLE_PRIMARY : WIRE_ROLE_SECONDARY;
    beat->standing = says.standing;
    beat->query = says.query;
    beat->answer = says.answer;
    beat->deaf = says.deaf;
}

bool heartbeats_start(struct replicator *r, GError **error)
{
    const struct paths_observer observer = {
        .heard = on_heard, .stalled = on_stalled, .say = say, .opaque = r};
    struct paths_config config = {
        .listen_address = r->config.listen_address,
        .others = r->config.heartbeat_paths,
        .nothers = r->config.nheartbeat_paths,
        .interval_ms = r->config.heartbeat_ms,
        .tagged = r->config.sealed,
        .host = r->config.role == SESSION_PRIMARY ? term_host(r->config.term) : !term_host(r->config.term),
    };
    memcpy(config.token, r->config.token, sizeof config.token);
    memcpy(config.secret, r->config.secret, sizeof config.secret);
    r->paths = paths_new(&config, &observer, error);
    seal_wipe(config.secret, sizeof config.secret);
    return r->paths != NULL;
}

void heartbeats_send_now(struct replicator *r, bool by_link)
{
    uint8_t bytes[HEARTBEAT_LEN];
    paths_send_now(r->paths, bytes);
    const struct transport_message message = {
        .type = MESSAGE_BEAT, .term = r->session.term, .len = sizeof bytes, .payload = bytes};
    if (by_link)
        sink_send_message(&r->sink, &message);
}
