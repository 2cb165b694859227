/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Sockets for the TCP transport. IPv4 and IPv6. Any thread. */
#ifndef UNDERSTUDY_REPLICATOR_TRANSPORT_TCP_H
#define UNDERSTUDY_REPLICATOR_TRANSPORT_TCP_H

#include <glib.h>
#include <stdint.h>

/* Connects within timeout_ms. 0 and *fd, or -errno (and error, where given). */
int transport_tcp_connect(const char *host, const char *port, unsigned timeout_ms, int *fd, GError **error);
/*
 * A listening socket on address (NULL: every address). *port 0 asks for any free port and tells which. The
 * fd, or -errno with error set.
 */
int transport_tcp_listen(const char *address, uint16_t *port, GError **error);

#endif
