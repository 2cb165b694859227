/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Makes connected and listening sockets; tcp.c moves bytes on them. A connect tries all addresses of a
 * name, and starts a new socket every tenth of a second, so that a network that returns is noticed at once.
 */
#include <errno.h>
#include <gio/gio.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/address.h"
#include "replicator/transport/tcp.h"

#define TRIES        5u
#define TRY_EVERY_MS 100

/* The result of a connect() that was under way. */
static int finish_connect(int fd)
{
    int error = 0;
    socklen_t len = sizeof error;
    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0 ? -errno : -error;
}

/* 0, -EINPROGRESS, or what is wrong. *fd: the caller's, or -1. */
static int begin_connect(const struct address *address, int *fd)
{
    *fd = socket(address->storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (*fd < 0)
        return -errno;
    return connect(*fd, (const struct sockaddr *)&address->storage, address->len) == 0 ? 0 : -errno;
}

/* Returns the first try that has connected; *winner is its descriptor, taken out of tries. */
static int take_ready(struct pollfd *tries, unsigned n, int *winner)
{
    for (unsigned i = 0; i < n; i++) {
        if (!tries[i].revents)
            continue;
        int status = finish_connect(tries[i].fd);
        if (status == 0) {
            *winner = tries[i].fd;
            tries[i].fd = -1;
        }
        return status;
    }
    return -EINPROGRESS;
}

/*
 * Connects to one address. The kernel repeats a lost SYN after a second, which is long for a guest without
 * protection. So another socket tries every tenth of a second, and the first that connects is taken.
 */
static int connect_one(const struct address *address, unsigned timeout_ms)
{
    struct pollfd tries[TRIES];
    unsigned n = 0;
    int winner = -1, status = -EINPROGRESS;
    gint64 now = g_get_monotonic_time(), until = now + (gint64)timeout_ms * 1000, next = now;
    while (status == -EINPROGRESS && now < until) {
        if (n < TRIES && now >= next) {
            tries[n].events = POLLOUT;
            status = begin_connect(address, &tries[n].fd);
            if (status == 0)
                winner = tries[n].fd;
            else
                n += tries[n].fd >= 0;
            next = now + TRY_EVERY_MS * 1000;
            if (status != -EINPROGRESS)
                break;
        }
        gint64 wait = (n < TRIES ? MIN(next, until) : until) - now;
        if (poll(tries, n, (int)(wait / 1000 + 1)) > 0)
            status = take_ready(tries, n, &winner);
        now = g_get_monotonic_time();
    }
    for (unsigned i = 0; i < n; i++)
        if (tries[i].fd >= 0)
            close(tries[i].fd);
    return status == 0 ? winner : status == -EINPROGRESS ? -ETIMEDOUT : status;
}

int transport_tcp_connect(const char *host, const char *port, unsigned timeout_ms, int *fd, GError **error)
{
    struct addresses all;
    int status = addresses_resolve(&all, host, address_port_of(port), ADDRESS_NAME, AF_UNSPEC, error);
    if (status < 0)
        return status;
    status = -EHOSTUNREACH;
    for (unsigned i = 0; i < all.n && status < 0; i++)
        status = connect_one(&all.list[i], timeout_ms);
    if (status < 0) {
        g_set_error(error, G_IO_ERROR, g_io_error_from_errno(-status), "%s port %s cannot be reached: %s",
                    host, port, g_strerror(-status));
        return status;
    }
    *fd = status;
    return 0;
}

static int listen_one(const struct address *address)
{
    int one = 1, no = 0;
    int fd = socket(address->storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (address->storage.ss_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof no);
    if (bind(fd, (const struct sockaddr *)&address->storage, address->len) < 0 || listen(fd, 8) < 0) {
        int status = -errno;
        close(fd);
        return status;
    }
    return fd;
}

/* Listens on the first of the addresses that can be bound. */
static int listen_any(const struct addresses *all)
{
    int fd = -EADDRNOTAVAIL;
    for (unsigned i = 0; i < all->n && fd < 0; i++)
        fd = listen_one(&all->list[i]);
    return fd;
}

int transport_tcp_listen(const char *address, uint16_t *port, GError **error)
{
    struct addresses all;
    struct address bound = {.len = sizeof bound.storage};
    int fd = -EADDRNOTAVAIL;
    /* The IPv6 wildcard takes both families; where the kernel has no IPv6 there is the other one. */
    if (!address && addresses_resolve(&all, NULL, *port, ADDRESS_OWN, AF_INET6, NULL) == 0)
        fd = listen_any(&all);
    if (fd < 0 && fd != -EADDRINUSE) {
        int status = addresses_resolve(&all, address, *port, ADDRESS_OWN, AF_UNSPEC, error);
        if (status < 0)
            return status;
        fd = listen_any(&all);
    }
    if (fd < 0) {
        g_set_error(error, G_IO_ERROR, g_io_error_from_errno(-fd), "cannot listen on %s port %u: %s",
                    address ? address : "*", *port, g_strerror(-fd));
        return fd;
    }
    getsockname(fd, (struct sockaddr *)&bound.storage, &bound.len);
    *port = address_port(&bound);
    return fd;
}
