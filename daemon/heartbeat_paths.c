/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Parses --heartbeat-path: pairs of addresses on further networks, for heartbeats besides those to the peer's
 * own address. */
#include <gio/gio.h>
#include <netinet/in.h>

#include "common/address.h"
#include "daemon/daemon.h"
#include "heartbeat/packet.h"

static bool is_ipv6(const struct address *address)
{
    const struct sockaddr_in6 *ipv6 = (const struct sockaddr_in6 *)&address->storage;
    return address->storage.ss_family == AF_INET6 && !IN6_IS_ADDR_V4MAPPED(&ipv6->sin6_addr);
}

/* Returns the first address of that family, or NULL. */
static const struct address *find_family(const struct addresses *all, bool ipv6)
{
    for (unsigned i = 0; i < all->n; i++) {
        if (is_ipv6(&all->list[i]) == ipv6)
            return &all->list[i];
    }
    return NULL;
}

static void set_text(char **field, const struct address *address)
{
    g_free(*field);
    *field = address_text((const struct sockaddr *)&address->storage, address->len);
}

/* Replaces both names of the path by addresses of one family, since replicators do not resolve names. */
static bool in_digits(Understudy__HeartbeatPath *path, GError **error)
{
    struct addresses here, there;
    if (addresses_resolve(&here, path->here, 0, ADDRESS_NAME, AF_UNSPEC, error) < 0 ||
        addresses_resolve(&there, path->there, 0, ADDRESS_NAME, AF_UNSPEC, error) < 0)
        return false;
    /* Takes the first of this host's addresses whose family the peer has, too. */
    for (unsigned i = 0; i < here.n; i++) {
        const struct address *other = find_family(&there, is_ipv6(&here.list[i]));
        if (!other)
            continue;
        set_text(&path->here, &here.list[i]);
        set_text(&path->there, other);
        return true;
    }
    g_set_error(
        error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
        "--heartbeat-path %s=%s: the two sides must be in one network: one is an IPv4 address, the other "
        "an IPv6 address",
        path->here, path->there);
    return false;
}

static bool add_path(Understudy__Protection *protection, const char *word, GError **error)
{
    g_auto(GStrv) sides = g_strsplit(word, "=", -1);
    if (g_strv_length(sides) != 2 || !sides[0][0] || !sides[1][0]) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                    "--heartbeat-path %s: give this host's address on the other network, '=', and the peer's",
                    word);
        return false;
    }
    Understudy__HeartbeatPath *path = g_new(Understudy__HeartbeatPath, 1);
    understudy__heartbeat_path__init(path);
    path->here = g_steal_pointer(&sides[0]);
    path->there = g_steal_pointer(&sides[1]);
    protection->heartbeat_paths[protection->n_heartbeat_paths++] = path;
    return in_digits(path, error);
}

bool heartbeat_paths_describe(Understudy__Protection *protection, const Understudy__RunRequest *request,
                              GError **error)
{
    if (request->n_heartbeat_path > HEARTBEAT_PATHS_MAX) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                    "at most %d --heartbeat-path can be given, besides the way to --peer",
                    HEARTBEAT_PATHS_MAX);
        return false;
    }
    protection->heartbeat_paths = g_new0(Understudy__HeartbeatPath *, request->n_heartbeat_path + 1);
    for (size_t i = 0; i < request->n_heartbeat_path; i++) {
        if (!add_path(protection, request->heartbeat_path[i], error))
            return false;
    }
    return true;
}

void heartbeat_paths_clear(Understudy__Protection *protection)
{
    for (size_t i = 0; i < protection->n_heartbeat_paths; i++) {
        g_free(protection->heartbeat_paths[i]->here);
        g_free(protection->heartbeat_paths[i]->there);
        g_free(protection->heartbeat_paths[i]);
    }
    g_clear_pointer(&protection->heartbeat_paths, g_free);
    protection->n_heartbeat_paths = 0;
}

void heartbeat_paths_swap(Understudy__Protection *protection)
{
    for (size_t i = 0; i < protection->n_heartbeat_paths; i++) {
        Understudy__HeartbeatPath *path = protection->heartbeat_paths[i];
        char *here = path->here;
        path->here = path->there;
        path->there = here;
    }
}
