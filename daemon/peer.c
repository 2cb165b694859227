/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Calls to the peer's daemon: connect, one request, one answer. */
#include <gio/gio.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "common/address.h"
#include "common/stream.h"
#include "common/words.h"
#include "daemon/daemon.h"
#include "daemon/trust/door.h"
#include "proto/framing.h"
#include "proto/readable.h"
#include "replicator/transport/tcp.h"

#define CONNECT_MS   2000
#define HANDSHAKE_MS 5000

bool peer_split(const char *text, char **host, uint16_t *port)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(GSocketConnectable) address = g_network_address_parse(text, DEFAULT_PORT, &error);
    if (!address || !text[0])
        return false;
    *host = g_strdup(g_network_address_get_hostname(G_NETWORK_ADDRESS(address)));
    *port = g_network_address_get_port(G_NETWORK_ADDRESS(address));
    return true;
}

static const struct door *door;

void peer_use_door(const struct door *with)
{
    door = with;
}

int peer_connect_plain(const char *host, uint16_t port, GError **error)
{
    char service[8];
    int fd = -1;
    g_snprintf(service, sizeof service, "%u", port);
    if (transport_tcp_connect(host, service, CONNECT_MS, &fd, error) < 0) {
        g_prefix_error(error, "the peer's understudyd does not answer: is it running there? ");
        return -1;
    }
    return fd;
}

struct stream *peer_connect(const char *host, uint16_t port, GError **error)
{
    int fd = peer_connect_plain(host, port, error);
    if (fd < 0)
        return NULL;
    struct stream *stream =
        door->dial(door->opaque, fd, host, g_get_monotonic_time() + HANDSHAKE_MS * 1000, error);
    if (!stream)
        g_prefix_error(error, "the peer %s: ", host);
    return stream;
}

Understudy__Envelope *peer_ask(struct stream *stream, const char *host, const Understudy__Envelope *request,
                               unsigned timeout_ms, GError **error)
{
    if (!door->may_be_asked(door->opaque, stream, request->body_case, error))
        return NULL;
    GError *cause = NULL;
    Understudy__Envelope *answer = framing_call(stream, request, timeout_ms, &cause);
    if (answer) {
        envelope_make_readable(answer, WORDS_MAX);
        return answer;
    }
    /* If the other end refuses this host, the first read tells why (stream->why). */
    g_set_error(error, cause->domain, cause->code, "the peer %s: %s", host,
                stream->why ? stream->why : cause->message);
    g_error_free(cause);
    return NULL;
}

Understudy__Envelope *peer_call_at(const char *host, uint16_t port, const Understudy__Envelope *request,
                                   unsigned timeout_ms, struct peer_reached *reached, GError **error)
{
    struct stream *stream = peer_connect(host, port, error);
    if (!stream)
        return NULL;
    Understudy__Envelope *answer = peer_ask(stream, host, request, timeout_ms, error);
    if (answer && reached) {
        reached->address = address_of_peer(stream->fd);
        reached->has_key = stream->key != NULL;
        if (stream->key)
            memcpy(reached->key, stream->key, STREAM_KEY_LEN);
    }
    stream_close(stream);
    return answer;
}

Understudy__Envelope *peer_call(const char *host, uint16_t port, const Understudy__Envelope *request,
                                unsigned timeout_ms, GError **error)
{
    return peer_call_at(host, port, request, timeout_ms, NULL, error);
}

const uint8_t *peer_own_instance(void)
{
    static uint8_t instance[PEER_INSTANCE_LEN];
    static gsize once;
    if (g_once_init_enter(&once)) {
        if (getrandom(instance, sizeof instance, 0) != (ssize_t)sizeof instance)
            g_error("no random numbers"); /* cannot happen for 16 bytes once the kernel has booted */
        g_once_init_leave(&once, 1);
    }
    return instance;
}
