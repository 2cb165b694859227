/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Calls to the peer's daemon: connect, one request, one answer. */
#include <gio/gio.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "common/address.h"
#include "common/words.h"
#include "daemon/daemon.h"
#include "proto/framing.h"
#include "proto/readable.h"
#include "replicator/transport/tcp.h"

#define CONNECT_MS 2000

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

int peer_connect(const char *host, uint16_t port, GError **error)
{
    char service[8];
    int fd = -1;
    g_snprintf(service, sizeof service, "%u", port);
    if (transport_tcp_connect(host, service, CONNECT_MS, &fd, error) < 0)
        g_prefix_error(error, "the peer's understudyd does not answer: is it running there? ");
    return fd;
}

Understudy__Envelope *peer_call_at(const char *host, uint16_t port, const Understudy__Envelope *request,
                                   unsigned timeout_ms, char **address, GError **error)
{
    int fd = peer_connect(host, port, error);
    if (fd < 0)
        return NULL;
    Understudy__Envelope *answer = framing_call(fd, request, timeout_ms, error);
    if (!answer)
        g_prefix_error(error, "the peer %s: ", host);
    else
        envelope_make_readable(answer, WORDS_MAX);
    if (answer && address)
        *address = address_of_peer(fd);
    close(fd);
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
