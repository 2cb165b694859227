/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The sockets, timer and packets of paths.h. Each path has a socket of its own, which the main loop watches.
 * The timer sends one packet by every path and notices when this process itself did not run. A packet counts
 * only if its tag is right, or its token, and if its sequence number is in the window (window.h), so that a
 * replay is dropped. Without tags it also counts if its term is the newest. The sender's
 * address becomes the peer's, since a peer that was restarted has a new port.
 */
#include "heartbeat/paths.h"

#include <errno.h>
#include <glib-unix.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/address.h"
#include "heartbeat/detector.h"
#include "heartbeat/window.h"

#define PACKETS_A_ROUND 64 /* of one path: then others have their turn */

struct path {
    struct paths *paths;
    int fd, family;       /* that the socket can send to */
    int send_errno;       /* of the last packet; 0: it went out */
    uint64_t send_errors; /* packets that did not go out */
    guint readable;
    uint64_t peer_sequence; /* newest seen: older ones are replays */
    struct sockaddr_storage peer;
    socklen_t peer_len; /* 0: not known yet */
    gint64 heard_us;    /* by this path; at first, when it was opened */
};

struct paths {
    struct paths_config config; /* listen_address is the caller's, and gone */
    struct paths_observer observer;
    struct path list[1 + HEARTBEAT_PATHS_MAX];
    unsigned n;
    uint16_t port;
    struct seal_tagger *taggers[2]; /* of each host's packets; NULL: packets have no tag */
    unsigned host;                  /* this side's */
    uint64_t link_sequence;         /* newest of the peer's that came by the link */
    guint timer;
    struct own_timer own_timer; /* this side may have stood still itself */
    uint64_t sequence;          /* ours, the same on every path */
    uint64_t heard_sequence;    /* newest of the peer's, by any path */
    uint64_t heard_term;
    bool dropped; /* the peer was: nothing is taken */
};

static void hear(struct paths *paths, struct heartbeat *beat, bool by_link)
{
    /* One that was overtaken by a newer one is a sign of life, but what it says may not be so any more. */
    if (beat->sequence < paths->heard_sequence) {
        beat->standing = 0;
        beat->query = beat->answer = 0;
        beat->deaf = false;
    } else {
        paths->heard_sequence = beat->sequence;
    }
    paths->observer.heard(paths->observer.opaque, beat, by_link);
}

static struct seal_tagger *ours(const struct paths *paths)
{
    return paths->taggers[paths->host];
}

static struct seal_tagger *theirs(const struct paths *paths)
{
    return paths->taggers[!paths->host];
}

static int decode(struct paths *paths, struct heartbeat *beat, const uint8_t *bytes, size_t len,
                  uint32_t path)
{
    if (paths->dropped)
        return -EACCES;
    return theirs(paths) ? heartbeat_decode_tagged(beat, bytes, len, theirs(paths), path)
                         : heartbeat_decode(beat, bytes, len, paths->config.token);
}

/*
 * Whoever reads the network can make a packet without a tag; that a new term counts whatever its number is
 * for a peer that was started again by a host whose clock is behind. With tags such a peer has a secret of
 * its own.
 */
static bool is_new(const struct paths *paths, const struct heartbeat *beat, uint64_t newest_here)
{
    return window_takes(paths->heard_sequence, newest_here, beat->sequence) ||
           (!theirs(paths) && beat->term > paths->heard_term);
}

/*
 * A good packet also says where the peer is now: a secondary is not told the primary's port, and a peer that
 * was started again has a new one.
 */
static void take_packet(struct path *path, const uint8_t *bytes, size_t len,
                        const struct sockaddr_storage *from, socklen_t from_len)
{
    struct paths *paths = path->paths;
    struct heartbeat beat;
    if (decode(paths, &beat, bytes, len, (uint32_t)(path - paths->list)) < 0)
        return;
    if (!is_new(paths, &beat, path->peer_sequence))
        return;
    path->peer_sequence = beat.sequence;
    paths->heard_term = MAX(paths->heard_term, beat.term);
    path->heard_us = g_get_monotonic_time();
    memcpy(&path->peer, from, from_len);
    path->peer_len = from_len;
    hear(paths, &beat, path == &paths->list[0]);
}

static gboolean on_readable(gint fd, GIOCondition condition, gpointer opaque)
{
    uint8_t bytes[HEARTBEAT_LEN + 8];
    (void)condition;
    for (int i = 0; i < PACKETS_A_ROUND; i++) {
        struct sockaddr_storage from;
        socklen_t from_len = sizeof from;
        ssize_t n = recvfrom(fd, bytes, sizeof bytes, MSG_DONTWAIT, (struct sockaddr *)&from, &from_len);
        if (n < 0)
            break;
        take_packet(opaque, bytes, (size_t)n, &from, from_len);
    }
    return G_SOURCE_CONTINUE;
}

static void notice_own_stall(struct paths *paths)
{
    uint64_t stalled_ms = own_timer_ran(&paths->own_timer, (uint64_t)(g_get_monotonic_time() / 1000));
    if (stalled_ms)
        paths->observer.stalled(paths->observer.opaque, stalled_ms);
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

static void encode(struct paths *paths, const struct heartbeat *beat, uint32_t path,
                   uint8_t out[HEARTBEAT_LEN])
{
    if (ours(paths))
        heartbeat_encode_tagged(beat, ours(paths), path, out);
    else
        heartbeat_encode(beat, out);
}

void paths_send_now(struct paths *paths, uint8_t bytes[HEARTBEAT_LEN])
{
    uint8_t packet[HEARTBEAT_LEN];
    struct heartbeat beat = {.sequence = ++paths->sequence};
    memcpy(beat.token, paths->config.token, sizeof beat.token);
    paths->observer.say(paths->observer.opaque, &beat);
    for (unsigned i = 0; i < paths->n; i++) {
        encode(paths, &beat, i, packet);
        send_by(&paths->list[i], packet);
    }
    if (bytes)
        encode(paths, &beat, HEARTBEAT_LINK, bytes);
}

void paths_take(struct paths *paths, const uint8_t *bytes, size_t len)
{
    struct heartbeat beat;
    if (decode(paths, &beat, bytes, len, HEARTBEAT_LINK) < 0)
        return;
    /* The link keeps the order, and may be slow: what comes by it is never too old. */
    if (theirs(paths) &&
        !window_takes(MIN(paths->heard_sequence, beat.sequence), paths->link_sequence, beat.sequence))
        return;
    paths->link_sequence = beat.sequence;
    hear(paths, &beat, true);
}

void paths_look(struct paths *paths)
{
    for (unsigned i = 0; i < paths->n; i++)
        on_readable(paths->list[i].fd, G_IO_IN, &paths->list[i]);
    notice_own_stall(paths);
}

static gboolean on_interval(gpointer opaque)
{
    struct paths *paths = opaque;
    notice_own_stall(paths);
    paths_send_now(paths, NULL);
    return G_SOURCE_CONTINUE;
}

static bool open_path(struct paths *paths, const char *address, GError **error)
{
    struct path *path = &paths->list[paths->n];
    int family, fd = address_bind_datagram(address, &paths->port, &family, error);
    if (fd < 0)
        return false;
    *path = (struct path){.paths = paths, .fd = fd, .family = family, .heard_us = g_get_monotonic_time()};
    path->readable = g_unix_fd_add_full(PATHS_PRIORITY, fd, G_IO_IN, on_readable, path, NULL);
    paths->n++;
    return true;
}

static void drop_taggers(struct paths *paths)
{
    for (unsigned host = 0; host < 2; host++)
        g_clear_pointer(&paths->taggers[host], seal_tagger_free);
}

static bool make_taggers(struct paths *paths, const uint8_t secret[SEAL_SECRET_LEN])
{
    drop_taggers(paths);
    for (unsigned host = 0; host < 2; host++)
        paths->taggers[host] = heartbeat_tagger_new(secret, host);
    return paths->taggers[0] && paths->taggers[1];
}

struct paths *paths_new(const struct paths_config *config, const struct paths_observer *observer,
                        GError **error)
{
    struct paths *paths = g_new0(struct paths, 1);
    paths->config = *config;
    paths->observer = *observer;
    paths->sequence = (uint64_t)g_get_real_time();
    own_timer_init(&paths->own_timer, config->interval_ms);
    paths->host = config->host & 1;
    bool ok = !config->tagged || make_taggers(paths, config->secret);
    seal_wipe(paths->config.secret, sizeof paths->config.secret);
    if (!ok)
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED, "keys for heartbeats cannot be made");
    ok = ok && open_path(paths, config->listen_address, error);
    for (unsigned i = 0; ok && i < config->nothers; i++)
        ok = open_path(paths, config->others[i].here, error);
    if (!ok) {
        paths_free(paths);
        return NULL;
    }
    paths->timer = g_timeout_add_full(G_PRIORITY_HIGH - 20, config->interval_ms, on_interval, paths, NULL);
    return paths;
}

void paths_free(struct paths *paths)
{
    if (!paths)
        return;
    for (unsigned i = 0; i < paths->n; i++) {
        g_source_remove(paths->list[i].readable);
        close(paths->list[i].fd);
    }
    g_clear_handle_id(&paths->timer, g_source_remove);
    drop_taggers(paths);
    g_free(paths);
}

uint16_t paths_port(const struct paths *paths)
{
    return paths->port;
}

/* One that the socket cannot send to counts as a packet that did not go out. */
static void set_peer(struct path *path, const char *host, uint16_t port)
{
    struct addresses all;
    int status = addresses_resolve(&all, host, port, ADDRESS_DIGITS, path->family, NULL);
    path->peer_len = 0;
    if (status < 0) {
        path->send_errno = -status;
        path->send_errors++;
        return;
    }
    path->peer = all.list[0].storage;
    path->peer_len = all.list[0].len;
}

static void forget_sequences(struct paths *paths)
{
    paths->heard_sequence = 0;
    paths->link_sequence = 0;
    for (unsigned i = 0; i < paths->n; i++)
        paths->list[i].peer_sequence = 0;
}

/* HMAC by GnuTLS fails only where there is no memory, which ends the process (docs/architecture.md). */
void paths_set_secret(struct paths *paths, const uint8_t secret[SEAL_SECRET_LEN])
{
    if (!paths->config.tagged)
        return;
    if (!make_taggers(paths, secret))
        g_error("keys for heartbeats cannot be made");
    forget_sequences(paths);
}

void paths_set_host(struct paths *paths, unsigned host)
{
    paths->host = host & 1;
}

void paths_drop_peer(struct paths *paths)
{
    paths->dropped = true;
    for (unsigned i = 0; i < paths->n; i++)
        paths->list[i].peer_len = 0;
}

void paths_set_peer(struct paths *paths, const char *host, uint16_t port)
{
    paths->dropped = false;
    forget_sequences(paths);
    set_peer(&paths->list[0], host, port);
    for (unsigned i = 1; i < paths->n; i++)
        set_peer(&paths->list[i], paths->config.others[i - 1].there, port);
}

unsigned paths_count(const struct paths *paths)
{
    return paths ? paths->n : 0;
}

uint64_t paths_silent_ms(const struct paths *paths, unsigned i)
{
    return (uint64_t)(g_get_monotonic_time() - paths->list[i].heard_us) / 1000;
}

int paths_send_error(const struct paths *paths, unsigned i, uint64_t *total)
{
    *total = paths->list[i].send_errors;
    return paths->list[i].send_errno;
}
