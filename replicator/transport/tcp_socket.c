/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See transport_tcp.h: making the sockets; transport_tcp.c is what happens on them. */
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

static int finish_connect(int fd, unsigned timeout_ms)
{
    struct pollfd pfd = {.fd = fd, .events = POLLOUT};
    int error = 0;
    socklen_t len = sizeof error;
    int n = poll(&pfd, 1, (int)timeout_ms);
    if (n == 0)
        return -ETIMEDOUT;
    if (n < 0 || getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0)
        return -errno;
    return -error;
}

static int connect_one(const struct addrinfo *address, unsigned timeout_ms)
{
    int fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    int status = connect(fd, address->ai_addr, address->ai_addrlen) == 0 ? 0 : -errno;
    if (status == -EINPROGRESS)
        status = finish_connect(fd, timeout_ms);
    if (status < 0) {
        close(fd);
        return status;
    }
    return fd;
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
