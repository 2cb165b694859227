/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Signs of life: one datagram each interval, and the session is told of every good one that comes. Any
 * message on the link counts as well. Reading has a higher priority than the session's timer: after this
 * process itself was kept from running, the packets that waited in the socket are seen before anybody
 * concludes that the peer is silent.
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
#include "replicator/replicator.h"

#define STALL_INTERVALS 2 /* intervals by which our own timer is late before it counts as a stall */

struct heartbeats {
    int fd;
    guint readable, timer;
    gint64 interval_us;     /* when the timer last ran */
    uint64_t sequence;      /* ours */
    uint64_t peer_sequence; /* newest seen: older ones are replays */
    uint64_t peer_term;
    struct sockaddr_storage peer;
    socklen_t peer_len;
};

/*
 * A good packet also says where the peer is now: a secondary is not told the primary's port, and a peer that
 * was started again has a new one.
 */
static void take(struct replicator *r, const uint8_t *bytes, size_t len, const struct sockaddr_storage *from,
                 socklen_t from_len)
{
    struct heartbeats *h = r->heartbeats;
    struct heartbeat beat;
    if (heartbeat_decode(&beat, bytes, len, r->config.token) < 0)
        return;
    if (beat.sequence <= h->peer_sequence && beat.term <= h->peer_term)
        return;
    h->peer_sequence = beat.sequence;
    h->peer_term = MAX(h->peer_term, beat.term);
    memcpy(&h->peer, from, from_len);
    h->peer_len = from_len;
    /* A secondary that promoted is a primary of a newer term: the session decides what that means. */
    replicator_heard(r, beat.term, beat.role == WIRE_ROLE_PRIMARY ? SESSION_PRIMARY : SESSION_SECONDARY);
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
        session_excuse_silence(&r->session, (uint64_t)(now - due) / 1000, replicator_now_ms());
        if (now - due > (gint64)r->config.silence_ms * 1000 / 2)
            g_warning("%s: this process did not run for %" G_GINT64_FORMAT
                      " ms; a longer stall looks like death to the peer (see --silence-ms)",
                      r->config.vm_name, (now - due) / 1000);
    }
    h->interval_us = now;
}

static gboolean on_interval(gpointer opaque)
{
    struct replicator *r = opaque;
    struct heartbeats *h = r->heartbeats;
    notice_own_stall(r);
    uint8_t bytes[HEARTBEAT_LEN];
    struct heartbeat beat = {
        .term = r->session.term,
        .sequence = ++h->sequence,
        .role = r->session.role == SESSION_PRIMARY ? WIRE_ROLE_PRIMARY : WIRE_ROLE_SECONDARY,
    };
    if (h->peer_len == 0)
        return G_SOURCE_CONTINUE;
    memcpy(beat.token, r->config.token, sizeof beat.token);
    heartbeat_encode(&beat, bytes);
    /* A full socket or a refused port is a lost packet. */
    ssize_t ignored = sendto(h->fd, bytes, sizeof bytes, MSG_DONTWAIT | MSG_NOSIGNAL,
                             (struct sockaddr *)&h->peer, h->peer_len);
    (void)ignored;
    return G_SOURCE_CONTINUE;
}

static int bind_udp(const char *address, uint16_t *port, GError **error)
{
    struct addrinfo hints = {.ai_socktype = SOCK_DGRAM, .ai_flags = AI_PASSIVE}, *list = NULL;
    struct sockaddr_storage bound;
    socklen_t len = sizeof bound;
    int resolved = getaddrinfo(address, "0", &hints, &list);
    if (resolved != 0) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED, "%s: %s", address, gai_strerror(resolved));
        return -1;
    }
    int fd = socket(list->ai_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || bind(fd, list->ai_addr, list->ai_addrlen) < 0 ||
        getsockname(fd, (struct sockaddr *)&bound, &len) < 0) {
        g_set_error(error, G_IO_ERROR, g_io_error_from_errno(errno), "no UDP port for heartbeats: %s",
                    g_strerror(errno));
        if (fd >= 0)
            close(fd);
        fd = -1;
    }
    freeaddrinfo(list);
    if (fd >= 0)
        *port = ntohs(bound.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&bound)->sin6_port
                                                  : ((struct sockaddr_in *)&bound)->sin_port);
    return fd;
}

bool heartbeats_start(struct replicator *r, uint16_t *port, GError **error)
{
    int fd = bind_udp(r->config.listen_address, port, error);
    if (fd < 0)
        return false;
    struct heartbeats *h = g_new0(struct heartbeats, 1);
    h->fd = fd;
    h->sequence = (uint64_t)g_get_real_time();
    r->heartbeats = h;
    h->readable = g_unix_fd_add_full(G_PRIORITY_HIGH - 50, fd, G_IO_IN, on_readable, r, NULL);
    h->timer = g_timeout_add_full(G_PRIORITY_HIGH - 20, r->config.heartbeat_ms, on_interval, r, NULL);
    return true;
}

void heartbeats_set_peer(struct replicator *r, const char *host, uint16_t port)
{
    struct addrinfo hints = {.ai_socktype = SOCK_DGRAM}, *list = NULL;
    char service[8];
    g_snprintf(service, sizeof service, "%u", port);
    if (getaddrinfo(host, service, &hints, &list) != 0)
        return;
    memcpy(&r->heartbeats->peer, list->ai_addr, list->ai_addrlen);
    r->heartbeats->peer_len = list->ai_addrlen;
    r->heartbeats->peer_sequence = 0;
    freeaddrinfo(list);
}

void heartbeats_stop(struct replicator *r)
{
    struct heartbeats *h = g_steal_pointer(&r->heartbeats);
    if (!h)
        return;
    g_source_remove(h->readable);
    g_source_remove(h->timer);
    close(h->fd);
    g_free(h);
}
