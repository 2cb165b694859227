/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Names and addresses of hosts. This is the only place where names are resolved. A name may have several
 * addresses, of both families, and not all of them may be reachable: a caller that connects tries all of
 * them.
 *
 * Resolving a name asks servers and may take seconds. A thread that others wait for (the replicator's
 * control thread) takes addresses only: the daemon gives it the one by which it has reached the peer.
 */
#ifndef UNDERSTUDY_COMMON_ADDRESS_H
#define UNDERSTUDY_COMMON_ADDRESS_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#define ADDRESSES_MAX 16u

struct address {
    struct sockaddr_storage storage;
    socklen_t len;
};

struct addresses {
    unsigned n;
    struct address list[ADDRESSES_MAX];
};

enum address_kind {
    ADDRESS_NAME,   /* a name or an address: may block */
    ADDRESS_DIGITS, /* an address: never blocks */
    ADDRESS_OWN,    /* to bind to: as ADDRESS_NAME; NULL is every address of this host, of both families */
};

/* Finds the addresses of a host. family: AF_UNSPEC, AF_INET, or AF_INET6, which gives IPv4 addresses in their
 * mapped form. 0, or -errno with a sentence. */
int addresses_resolve(struct addresses *out, const char *host, uint16_t port, enum address_kind kind,
                      int family, GError **error);
/* Parses a port number. 0: it is not one. */
uint16_t address_port_of(const char *port);
uint16_t address_port(const struct address *address);
/*
 * Writes an address in digits, without the port; an IPv4 address in mapped form as IPv4. GLib string, "" on
 * failure.
 */
char *address_text(const struct sockaddr *address, socklen_t len);
/* Returns the text of the address at the other end of a connected socket. GLib string. */
char *address_of_peer(int fd);

/*
 * Makes a datagram socket bound to host (NULL: every address, of both families where the kernel has both).
 * *port 0 takes any free port and returns its number; another number is shared with sockets at other
 * addresses. Returns the descriptor, or -errno and a sentence. *family: the family of addresses that the
 * socket can send to.
 */
int address_bind_datagram(const char *host, uint16_t *port, int *family, GError **error);

#endif
