/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The TCP endpoint: accepts on a listening socket and dials by name. It passes over connections that were
 * given up before they were accepted, so that the link thread does not wait for a HELLO from them.
 */
#include <errno.h>
#include <gio/gio.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "replicator/transport/endpoint.h"
#include "replicator/transport/tcp.h"

struct tcp_endpoint {
    struct endpoint base;
    int listen_fd;
    unsigned stall_ms;
};

static int tcp_listen_fd(struct endpoint *endpoint)
{
    return ((struct tcp_endpoint *)endpoint)->listen_fd;
}

/* Whether the peer gave the connection up before it was accepted. Its HELLO is still readable then. */
static bool has_hung_up(int fd)
{
    struct pollfd pfd = {.fd = fd, .events = POLLRDHUP};
    return poll(&pfd, 1, 0) > 0;
}

static int tcp_accept(struct endpoint *endpoint, struct transport **out)
{
    struct tcp_endpoint *tcp = (struct tcp_endpoint *)endpoint;
    int fd = accept4(tcp->listen_fd, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0)
        return -errno;
    if (has_hung_up(fd)) {
        close(fd);
        return -EAGAIN;
    }
    *out = transport_tcp_new(fd, tcp->stall_ms);
    return 0;
}

static int tcp_dial(struct endpoint *endpoint, const char *host, const char *port, unsigned timeout_ms,
                    struct transport **out, char **why)
{
    struct tcp_endpoint *tcp = (struct tcp_endpoint *)endpoint;
    g_autoptr(GError) error = NULL;
    int fd = -1;
    int status = transport_tcp_connect(host, port, timeout_ms, &fd, &error);
    if (status < 0) {
        *why = g_strdup(error->message);
        return status;
    }
    *out = transport_tcp_new(fd, tcp->stall_ms);
    return 0;
}

static void tcp_endpoint_free(struct endpoint *endpoint)
{
    struct tcp_endpoint *tcp = (struct tcp_endpoint *)endpoint;
    if (tcp->listen_fd >= 0)
        close(tcp->listen_fd);
    g_free(tcp);
}

static const struct endpoint_ops tcp_endpoint_ops = {
    .name = "tcp",
    .listen_fd = tcp_listen_fd,
    .accept = tcp_accept,
    .dial = tcp_dial,
    .free = tcp_endpoint_free,
};

struct endpoint *endpoint_tcp_new(int listen_fd, unsigned stall_ms)
{
    struct tcp_endpoint *tcp = g_new0(struct tcp_endpoint, 1);
    tcp->base.ops = &tcp_endpoint_ops;
    tcp->listen_fd = listen_fd;
    tcp->stall_ms = stall_ms;
    return &tcp->base;
}
