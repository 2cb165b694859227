/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See tcp.h: making the sockets; tcp.c is what happens on them. */
#include <errno.h>
#include <gio/gio.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

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
static int begin_connect(const struct addrinfo *address, int *fd)
{
    *fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (*fd < 0)
        return -errno;
    return connect(*fd, address->ai_addr, address->ai_addrlen) == 0 ? 0 : -errno;
}

/* Of the tries that are ready, the first; *winner is its descriptor, taken out. */
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
 * A network that returns is noticed by the next packet. The kernel repeats a lost one after a second, which
 * is long for a guest without protection: so another socket tries every tenth of a second, and the first that
 * is through is taken.
 */
static int connect_one(const struct addrinfo *address, unsigned timeout_ms)
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
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list = NULL;
    int resolved = getaddrinfo(host, port, &hints, &list);
    if (resolved != 0) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_HOST_NOT_FOUND, "host %s is not known: %s", host,
                    gai_strerror(resolved));
        return -EHOSTUNREACH;
    }
    int status = -EHOSTUNREACH;
    for (struct addrinfo *one = list; one && status < 0; one = one->ai_next)
        status = connect_one(one, timeout_ms);
    freeaddrinfo(list);
    if (status < 0) {
        g_set_error(error, G_IO_ERROR, g_io_error_from_errno(-status), "%s port %s cannot be reached: %s",
                    host, port, g_strerror(-status));
        return status;
    }
    *fd = status;
    return 0;
}

static int listen_one(const struct addrinfo *address)
{
    int one = 1;
    int fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, address->ai_addr, address->ai_addrlen) < 0 || listen(fd, 8) < 0) {
        int status = -errno;
        close(fd);
        return status;
    }
    return fd;
}

static uint16_t bound_port(int fd)
{
    struct sockaddr_storage address;
    socklen_t len = sizeof address;
    if (getsockname(fd, (struct sockaddr *)&address, &len) < 0)
        return 0;
    return address.ss_family == AF_INET6 ? ntohs(((struct sockaddr_in6 *)&address)->sin6_port)
                                         : ntohs(((struct sockaddr_in *)&address)->sin_port);
}

int transport_tcp_listen(const char *address, uint16_t *port, GError **error)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *list = NULL;
    char service[8];
    g_snprintf(service, sizeof service, "%u", *port);
    int resolved = getaddrinfo(address, service, &hints, &list);
    if (resolved != 0) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT, "%s is not an address of this host: %s",
                    address ? address : "*", gai_strerror(resolved));
        return -EADDRNOTAVAIL;
    }
    int fd = -EADDRNOTAVAIL;
    for (struct addrinfo *one = list; one && fd < 0; one = one->ai_next)
        fd = listen_one(one);
    freeaddrinfo(list);
    if (fd < 0) {
        g_set_error(error, G_IO_ERROR, g_io_error_from_errno(-fd), "cannot listen on %s port %u: %s",
                    address ? address : "*", *port, g_strerror(-fd));
        return fd;
    }
    *port = bound_port(fd);
    return fd;
}
