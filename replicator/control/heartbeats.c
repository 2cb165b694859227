/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Signs of life: one datagram each interval and path, and the session is told of every good one that comes.
 * Any message on the link counts as well. Reading has a higher priority than the session's timer: after this
 * process itself was kept from running, the packets that waited in the socket are seen before anybody
 * concludes that the peer is silent.
 *
 * A beat also asks the peer what it is, or answers: then it is sent at once, and by the link as well.
 *
 * Paths are networks that join the hosts: the one of the peer's own address, and those that the user named. A
 * peer that is heard by any of them lives; so a network that fails is not taken for a host that died. Path
 * 0's port is the kernel's choice; the others have the same port at their own addresses.
 */
#include <errno.h>
#include <gio/gio.h>
#include <glib-unix.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/address.h"
#include "heartbeat/detector.h"
#include "heartbeat/packet.h"
#include "replicator/control/replicator.h"

_Static_assert(HEARTBEAT_STANDINGS == SESSION_NSTANDINGS, "numbers on the wire");

struct path {
    struct replicator *r;
    int fd, family;       /* that the socket can send to */
    int send_errno;       /* of the last packet; 0: it went out */
    uint64_t send_errors; /* packets that did not go out */
    guint readable;
    uint64_t peer_sequence; /* newest seen: older ones are replays */
    uint64_t peer_term;
    struct sockaddr_storage peer;
    socklen_t peer_len; /* 0: not known yet */
    gint64 heard_us;    /* by this path; at first, when it was opened */
};

struct heartbeats {
    struct path paths[1 + HEARTBEAT_PATHS_MAX];
    unsigned npaths;
    guint timer;
    struct own_timer own_timer; /* this side may have stood still itself */
    uint64_t sequence;          /* ours, the same on every path */
    uint64_t heard_sequence;    /* newest of the peer's, by any path */
};

static void hear(struct replicator *r, const struct heartbeat *beat, bool by_link)
{
    struct heartbeats *h = r->heartbeats;
    struct session_event event = {
        .type = SESSION_EVENT_HEARTBEAT,
        .term = beat->term,
        .peer_role = beat->role == WIRE_ROLE_PRIMARY ? SESSION_PRIMARY : SESSION_SECONDARY,
        .by_link = by_link,
    };
    /* One that was overtaken by a newer one is a sign of life, but what it says may not be so any more. */
    if (beat->sequence >= h->heard_sequence) {
        event.standing = (enum session_standing)beat->standing;
        event.query = beat->query;
        event.answer = beat->answer;
        event.deaf = beat->deaf;
        h->heard_sequence = beat->sequence;
    }
    replicator_heard(r, &event);
}

/*
 * A good packet also says where the peer is now: a secondary is not told the primary's port, and a peer that
 * was started again has a new one.
 */
static void take(struct path *path, const uint8_t *bytes, size_t len, const struct sockaddr_storage *from,
                 socklen_t from_len)
{
    struct replicator *r = path->r;
    struct heartbeat beat;
    if (heartbeat_decode(&beat, bytes, len, r->config.token) < 0)
        return;
    if (beat.sequence <= path->peer_sequence && beat.term <= path->peer_term)
        return;
    path->peer_sequence = beat.sequence;
    path->peer_term = MAX(path->peer_term, beat.term);
    path->heard_us = g_get_monotonic_time();
    memcpy(&path->peer, from, from_len);
    path->peer_len = from_len;
    hear(r, &beat, path == &r->heartbeats->paths[0]);
}

static gboolean on_readable(gint fd, GIOCondition condition, gpointer opaque)
{
    uint8_t bytes[HEARTBEAT_LEN + 8];
    (void)condition;
    for (int i = 0; i < 64; i++) {
        struct sockaddr_storage from;
        socklen_t from_len = sizeof from;
        ssize_t n = recvfrom(fd, bytes, sizeof bytes, MSG_DONTWAIT, (struct sockaddr *)&from, &from_len);
        if (n < 0)
            break;
        take(opaque, bytes, (size_t)n, &from, from_len);
    }
    return G_SOURCE_CONTINUE;
}

/* Delays a takeover by no more than the stall itself. */
static void notice_own_stall(struct replicator *r)
{
    uint64_t stalled_ms = own_timer_ran(&r->heartbeats->own_timer, replicator_now_ms());
    struct session_event event = {.type = SESSION_EVENT_STALLED, .stalled_ms = stalled_ms};
    if (!stalled_ms)
        return;
    if (stalled_ms > r->config.silence_ms / 2)
        g_warning("%s: this process did not run for %" G_GUINT64_FORMAT
                  " ms; a longer stall looks like death to the peer (see --silence-ms)",
                  r->config.vm_name, stalled_ms);
    replicator_event(r, &event);
}

/* A full socket, a refused port or a network that is down is a lost packet, which status tells of. */
static void send_by(struct path *path, const uint8_t *bytes)
{
    if (path->peer_len == 0)
        return;
    ssize_t n = sendto(path->fd, bytes, HEARTBEAT_LEN, MSG_DONTWAIT | MSG_NOSIGNAL,
                       (const struct sockaddr *)&path->peer, path->peer_len);
    path->send_errno = n < 0 ? errno : 0;
    path->send_errors += n < 0;
}

static void encode(struct replicator *r, uint8_t bytes[HEARTBEAT_LEN])
{
    struct session_beat says;
    session_beat(&r->session, replicator_now_ms(), &says);
    struct heartbeat beat = {
        .term = says.term,
        .sequence = ++r->heartbeats->sequence,
        .role = says.role == SESSION_PRIMARY ? WIRE_ROLE_PRIMARY : WIRE_ROLE_SECONDARY,
        .standing = says.standing,
        .query = says.query,
        .answer = says.answer,
        .deaf = says.deaf,
    };
    memcpy(beat.token, r->config.token, sizeof beat.token);
    heartbeat_encode(&beat, bytes);
}

static void send_by_all_paths(struct replicator *r, const uint8_t bytes[HEARTBEAT_LEN])
{
    struct heartbeats *h = r->heartbeats;
    for (unsigned i = 0; i < h->npaths; i++)
        send_by(&h->paths[i], bytes);
}

void heartbeats_send_now(struct replicator *r, bool by_link)
{
    uint8_t bytes[HEARTBEAT_LEN];
    encode(r, bytes);
    send_by_all_paths(r, bytes);
    const struct transport_message message = {
        .type = MESSAGE_BEAT, .term = r->session.term, .len = sizeof bytes, .payload = bytes};
    if (by_link && r->connection)
        sender_post_message(r->sender, r->connection, &message);
}

void heartbeats_message(struct replicator *r, const uint8_t *bytes, size_t len)
{
    struct heartbeat beat;
    if (heartbeat_decode(&beat, bytes, len, r->config.token) == 0)
        hear(r, &beat, true);
}

void heartbeats_look(struct replicator *r)
{
    for (unsigned i = 0; i < r->heartbeats->npaths; i++)
        on_readable(r->heartbeats->paths[i].fd, G_IO_IN, &r->heartbeats->paths[i]);
    notice_own_stall(r);
}

static gboolean on_interval(gpointer opaque)
{
    struct replicator *r = opaque;
    uint8_t bytes[HEARTBEAT_LEN];
    notice_own_stall(r);
    encode(r, bytes);
    send_by_all_paths(r, bytes);
    return G_SOURCE_CONTINUE;
}

static bool open_path(struct replicator *r, const char *address, uint16_t *port, GError **error)
{
    struct heartbeats *h = r->heartbeats;
    struct path *path = &h->paths[h->npaths];
    int family, fd = address_bind_datagram(address, port, &family, error);
    if (fd < 0)
        return false;
    *path = (struct path){.r = r, .fd = fd, .family = family, .heard_us = g_get_monotonic_time()};
    path->readable = g_unix_fd_add_full(G_PRIORITY_HIGH - 50, fd, G_IO_IN, on_readable, path, NULL);
    h->npaths++;
    return true;
}

bool heartbeats_start(struct replicator *r, uint16_t *port, GError **error)
{
    struct heartbeats *h = r->heartbeats = g_new0(struct heartbeats, 1);
    h->sequence = (uint64_t)g_get_real_time();
    own_timer_init(&h->own_timer, r->config.heartbeat_ms);
    *port = 0;
    bool ok = open_path(r, r->config.listen_address, port, error);
    for (unsigned i = 0; ok && i < r->config.nheartbeat_paths; i++)
        ok = open_path(r, r->config.heartbeat_paths[i].here, port, error);
    if (ok)
        h->timer = g_timeout_add_full(G_PRIORITY_HIGH - 20, r->config.heartbeat_ms, on_interval, r, NULL);
    return ok;
}

/* host: in digits. One that the socket cannot send to counts as a packet that did not go out. */
static void set_peer(struct path *path, const char *host, uint16_t port)
{
    struct addresses all;
    int status = addresses_resolve(&all, host, port, ADDRESS_DIGITS, path->family, NULL);
    path->peer_sequence = 0;
    path->peer_len = 0;
    if (status < 0) {
        path->send_errno = -status;
        path->send_errors++;
        return;
    }
    path->peer = all.list[0].storage;
    path->peer_len = all.list[0].len;
}

void heartbeats_set_peer(struct replicator *r, const char *host, uint16_t port)
{
    r->heartbeats->heard_sequence = 0;
    set_peer(&r->heartbeats->paths[0], host, port);
    for (unsigned i = 1; i < r->heartbeats->npaths; i++)
        set_peer(&r->heartbeats->paths[i], r->config.heartbeat_paths[i - 1].there, port);
}

unsigned heartbeats_count(const struct replicator *r)
{
    return r->heartbeats ? r->heartbeats->npaths : 0;
}

const char *heartbeats_silence(const struct replicator *r, unsigned i, uint64_t *silent_ms)
{
    *silent_ms = (uint64_t)(g_get_monotonic_time() - r->heartbeats->paths[i].heard_us) / 1000;
    if (i > 0)
        return r->config.heartbeat_paths[i - 1].there;
    return r->config.peer_host ? r->config.peer_host : "";
}

int heartbeats_send_error(const struct replicator *r, unsigned i, uint64_t *total)
{
    *total = r->heartbeats->paths[i].send_errors;
    return r->heartbeats->paths[i].send_errno;
}

void heartbeats_stop(struct replicator *r)
{
    struct heartbeats *h = g_steal_pointer(&r->heartbeats);
    if (!h)
        return;
    for (unsigned i = 0; i < h->npaths; i++) {
        g_source_remove(h->paths[i].readable);
        close(h->paths[i].fd);
    }
    g_clear_handle_id(&h->timer, g_source_remove);
    g_free(h);
}
