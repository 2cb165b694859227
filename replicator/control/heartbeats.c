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
#include <netdb.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "heartbeat/packet.h"
#include "replicator/control/replicator.h"

_Static_assert(HEARTBEAT_STANDINGS == SESSION_NSTANDINGS, "numbers on the wire");

#define STALL_INTERVALS 2 /* intervals by which our own timer is late before it counts as a stall */

struct path {
    struct replicator *r;
    int fd;
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
    gint64 interval_us;      /* when the timer last ran */
    uint64_t sequence;       /* ours, the same on every path */
    uint64_t heard_sequence; /* newest of the peer's, by any path */
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

/*
 * A timer that comes late says that this process, or the whole machine, did not run. Time in which nobody
 * listened is no silence: without this, two replicators that wake from one stall take each other for dead. It
 * delays a takeover by no more than the stall itself.
 */
static void notice_own_stall(struct replicator *r)
{
    struct heartbeats *h = r->heartbeats;
    gint64 now = g_get_monotonic_time(), due = h->interval_us + (gint64)r->config.heartbeat_ms * 1000;
    if (h->interval_us && now - due > STALL_INTERVALS * (gint64)r->config.heartbeat_ms * 1000) {
        struct session_event event = {.type = SESSION_EVENT_STALLED,
                                      .stalled_ms = (uint64_t)(now - due) / 1000};
        if (now - due > (gint64)r->config.silence_ms * 1000 / 2)
            g_warning("%s: this process did not run for %" G_GINT64_FORMAT
                      " ms; a longer stall looks like death to the peer (see --silence-ms)",
                      r->config.vm_name, (now - due) / 1000);
        h->interval_us = now;
        replicator_event(r, &event);
    }
    h->interval_us = now;
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
    const struct heartbeats *h = r->heartbeats;
    for (unsigned i = 0; i < h->npaths; i++) {
        const struct path *path = &h->paths[i];
        /* A full socket, a refused port or a network that is down is a lost packet. */
        ssize_t ignored = path->peer_len == 0
                              ? 0
                              : sendto(path->fd, bytes, HEARTBEAT_LEN, MSG_DONTWAIT | MSG_NOSIGNAL,
                                       (const struct sockaddr *)&path->peer, path->peer_len);
        (void)ignored;
    }
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

/* *port 0: any that is free, which comes back. The other paths' sockets share its number with path 0's. */
static int bind_udp(const char *address, uint16_t *port, GError **error)
{
    struct addrinfo hints = {.ai_socktype = SOCK_DGRAM, .ai_flags = AI_PASSIVE}, *list = NULL;
    struct sockaddr_storage bound;
    socklen_t len = sizeof bound;
    char service[8];
    int share = 1;
    g_snprintf(service, sizeof service, "%u", *port);
    int resolved = getaddrinfo(address, service, &hints, &list);
    if (resolved != 0) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED, "%s: %s", address, gai_strerror(resolved));
        return -1;
    }
    int fd = socket(list->ai_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0 && *port != 0)
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &share, sizeof share);
    if (fd < 0 || bind(fd, list->ai_addr, list->ai_addrlen) < 0 ||
        getsockname(fd, (struct sockaddr *)&bound, &len) < 0) {
        g_set_error(error, G_IO_ERROR, g_io_error_from_errno(errno), "no UDP port for heartbeats at %s: %s",
                    address ? address : "any address", g_strerror(errno));
        if (fd >= 0)
            close(fd);
        fd = -1;
    }
    freeaddrinfo(list);
    if (fd < 0)
        return -1;
    /* Only now: a port that another VM's heartbeats have must not have been given to this one. */
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &share, sizeof share);
    *port = ntohs(bound.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&bound)->sin6_port
                                              : ((struct sockaddr_in *)&bound)->sin_port);
    return fd;
}

static bool open_path(struct replicator *r, const char *address, uint16_t *port, GError **error)
{
    struct heartbeats *h = r->heartbeats;
    struct path *path = &h->paths[h->npaths];
    int fd = bind_udp(address, port, error);
    if (fd < 0)
        return false;
    *path = (struct path){.r = r, .fd = fd, .heard_us = g_get_monotonic_time()};
    path->readable = g_unix_fd_add_full(G_PRIORITY_HIGH - 50, fd, G_IO_IN, on_readable, path, NULL);
    h->npaths++;
    return true;
}

bool heartbeats_start(struct replicator *r, uint16_t *port, GError **error)
{
    struct heartbeats *h = r->heartbeats = g_new0(struct heartbeats, 1);
    h->sequence = (uint64_t)g_get_real_time();
    *port = 0;
    bool ok = open_path(r, r->config.listen_address, port, error);
    for (unsigned i = 0; ok && i < r->config.nheartbeat_paths; i++)
        ok = open_path(r, r->config.heartbeat_paths[i].here, port, error);
    if (ok)
        h->timer = g_timeout_add_full(G_PRIORITY_HIGH - 20, r->config.heartbeat_ms, on_interval, r, NULL);
    return ok;
}

static void set_peer(struct path *path, const char *host, uint16_t port)
{
    struct addrinfo hints = {.ai_socktype = SOCK_DGRAM}, *list = NULL;
    char service[8];
    g_snprintf(service, sizeof service, "%u", port);
    if (getaddrinfo(host, service, &hints, &list) != 0)
        return;
    memcpy(&path->peer, list->ai_addr, list->ai_addrlen);
    path->peer_len = list->ai_addrlen;
    path->peer_sequence = 0;
    freeaddrinfo(list);
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
