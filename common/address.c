/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Resolving by getaddrinfo, and sockets bound to what it returns. Order of addresses is getaddrinfo's (RFC
 * 6724); all of them are kept, up to a fixed number, so that a caller can try each. ADDRESS_DIGITS never
 * asks a name server (AI_NUMERICHOST).
 */
#include "common/address.h"

#include <errno.h>
#include <gio/gio.h>
#include <netdb.h>
#include <netinet/in.h>
#include <string.h>
#include <unistd.h>

#include "common/refusal.h"

static int flags_of(enum address_kind kind, int family)
{
    int flags = family == AF_INET6 ? AI_V4MAPPED : 0;
    if (kind == ADDRESS_DIGITS)
        flags |= AI_NUMERICHOST;
    return flags | (kind == ADDRESS_OWN ? AI_PASSIVE : 0) | AI_NUMERICSERV;
}

int addresses_resolve(struct addresses *out, const char *host, uint16_t port, enum address_kind kind,
                      int family, GError **error)
{
    /* One type of socket, so that getaddrinfo lists each address once. The type itself does not matter. */
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_family = family}, *list = NULL;
    char service[8];
    memset(out, 0, sizeof *out);
    if (!host && kind != ADDRESS_OWN) {
        refuse(error, "no host is named");
        return -EDESTADDRREQ;
    }
    hints.ai_flags = flags_of(kind, family);
    g_snprintf(service, sizeof service, "%u", port);
    int status = getaddrinfo(host, service, &hints, &list);
    if (status != 0) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_HOST_NOT_FOUND, "host %s is not known: %s",
                    host ? host : "*", gai_strerror(status));
        return status == EAI_ADDRFAMILY || status == EAI_FAMILY ? -EAFNOSUPPORT : -EHOSTUNREACH;
    }
    for (const struct addrinfo *one = list; one && out->n < ADDRESSES_MAX; one = one->ai_next) {
        struct address *address = &out->list[out->n++];
        address->len = one->ai_addrlen;
        memcpy(&address->storage, one->ai_addr, one->ai_addrlen);
    }
    freeaddrinfo(list);
    return 0;
}

uint16_t address_port_of(const char *port)
{
    guint64 number = 0;
    return g_ascii_string_to_unsigned(port, 10, 1, UINT16_MAX, &number, NULL) ? (uint16_t)number : 0;
}

uint16_t address_port(const struct address *address)
{
    const struct sockaddr_storage *storage = &address->storage;
    return ntohs(storage->ss_family == AF_INET6 ? ((const struct sockaddr_in6 *)storage)->sin6_port
                                                : ((const struct sockaddr_in *)storage)->sin_port);
}

char *address_text(const struct sockaddr *address, socklen_t len)
{
    static const char mapped[] = "::ffff:";
    char text[NI_MAXHOST];
    bool is_inet = address->sa_family == AF_INET || address->sa_family == AF_INET6;
    if (!is_inet || getnameinfo(address, len, text, sizeof text, NULL, 0, NI_NUMERICHOST) != 0)
        return g_strdup("");
    bool is_mapped = address->sa_family == AF_INET6 &&
                     IN6_IS_ADDR_V4MAPPED(&((const struct sockaddr_in6 *)address)->sin6_addr) &&
                     g_str_has_prefix(text, mapped);
    return g_strdup(is_mapped ? text + strlen(mapped) : text);
}

char *address_of_peer(int fd)
{
    struct sockaddr_storage address;
    socklen_t len = sizeof address;
    if (getpeername(fd, (struct sockaddr *)&address, &len) < 0)
        return g_strdup("");
    return address_text((struct sockaddr *)&address, len);
}

/*
 * Binds one datagram socket. Returns the descriptor or -errno. shares: sockets at other addresses may have
 * the port, too, so SO_REUSEADDR is set before the bind. Otherwise it is set only after the bind, so that the
 * kernel never chooses a port that another VM has.
 */
static int bind_one(const struct address *address, bool shares)
{
    int yes = 1, no = 0;
    int fd = socket(address->storage.ss_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    if (shares)
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (address->storage.ss_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof no);
    if (bind(fd, (const struct sockaddr *)&address->storage, address->len) < 0) {
        int status = -errno;
        close(fd);
        return status;
    }
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    return fd;
}

int address_bind_datagram(const char *host, uint16_t *port, int *family, GError **error)
{
    struct addresses all;
    struct address bound = {.len = sizeof bound.storage};
    /* Tries the IPv6 wildcard first, which takes both families. A host without IPv6 gets the IPv4 one. */
    int fd = host ? -EADDRNOTAVAIL : addresses_resolve(&all, NULL, *port, ADDRESS_OWN, AF_INET6, NULL);
    for (unsigned i = 0; !host && i < all.n && (i == 0 || fd < 0); i++)
        fd = bind_one(&all.list[i], *port != 0);
    if (fd < 0) {
        int status = addresses_resolve(&all, host, *port, ADDRESS_OWN, AF_UNSPEC, error);
        if (status < 0)
            return status;
        for (unsigned i = 0; i < all.n && fd < 0; i++)
            fd = bind_one(&all.list[i], *port != 0);
    }
    if (fd < 0) {
        g_set_error(error, G_IO_ERROR, g_io_error_from_errno(-fd), "no UDP port for heartbeats at %s: %s",
                    host ? host : "any address", g_strerror(-fd));
        return fd;
    }
    getsockname(fd, (struct sockaddr *)&bound.storage, &bound.len);
    *port = address_port(&bound);
    *family = bound.storage.ss_family;
    return fd;
}
