/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The state of this host's network devices, read from the kernel by rtnetlink (libnl) and sysfs: for each
 * tap device whether it exists, is up, its MTU and its bridge. Nothing is changed.
 */
#include <errno.h>
#include <fcntl.h>
#include <gio/gio.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <string.h>
#include <unistd.h>

#include <netlink/netlink.h>
#include <netlink/route/link.h>

#include "daemon/network/network.h"
#include "hv-hooks/line.h"

static void free_tap(gpointer opaque)
{
    Understudy__NetworkTap *tap = opaque;
    g_free(tap->id);
    g_free(tap->ifname);
    g_free(tap->bridge);
    g_free(tap);
}

GPtrArray *network_taps(const struct line *line)
{
    GPtrArray *taps = g_ptr_array_new_with_free_func(free_tap);
    for (guint i = 0; i < MIN(line->taps->len, NETWORK_TAPS_MAX); i++) {
        const struct line_tap *each = g_ptr_array_index(line->taps, i);
        Understudy__NetworkTap *tap = g_new(Understudy__NetworkTap, 1);
        understudy__network_tap__init(tap);
        tap->id = g_strdup(each->id);
        tap->ifname = g_strdup(each->ifname);
        tap->bridge = g_strdup(each->bridge);
        tap->scripted = each->scripted;
        g_ptr_array_add(taps, tap);
    }
    return taps;
}

static void free_port(gpointer opaque)
{
    Understudy__NetworkPort *port = opaque;
    g_free(port->bridge);
    g_free(port->bridge_kind);
    g_free(port->bridge_address.data);
    g_free(port);
}

static struct nl_sock *open_netlink(GError **error)
{
    struct nl_sock *sock = nl_socket_alloc();
    int status = sock ? nl_connect(sock, NETLINK_ROUTE) : -NLE_NOMEM;
    if (status == 0)
        return sock;
    nl_socket_free(sock);
    g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED, "the kernel does not list its network devices: %s",
                nl_geterror(-status));
    return NULL;
}

/* Finds a device by name, or by index if name is NULL. NULL: there is none. */
static struct rtnl_link *find_link(struct nl_sock *sock, int index, const char *name)
{
    struct rtnl_link *link = NULL;
    return rtnl_link_get_kernel(sock, index, name, &link) == 0 ? link : NULL;
}

static bool filters_vlans(const char *bridge)
{
    g_autofree char *path = g_strdup_printf("/sys/class/net/%s/bridge/vlan_filtering", bridge);
    g_autofree char *text = NULL;
    return g_file_get_contents(path, &text, NULL, NULL) && text[0] == '1';
}

static void fill_bridge(Understudy__NetworkPort *port, struct rtnl_link *bridge)
{
    const char *kind = rtnl_link_get_type(bridge);
    struct nl_addr *address = rtnl_link_get_addr(bridge);
    port->bridge = g_strdup(rtnl_link_get_name(bridge));
    port->bridge_kind = g_strdup(kind ? kind : "");
    port->bridge_up = rtnl_link_get_flags(bridge) & IFF_UP;
    port->bridge_mtu = rtnl_link_get_mtu(bridge);
    port->vlan_filtering = filters_vlans(port->bridge);
    if (address && nl_addr_get_len(address) == 6) {
        port->bridge_address.data = g_memdup2(nl_addr_get_binary_addr(address), 6);
        port->bridge_address.len = 6;
    }
}

static Understudy__NetworkPort *look_at(struct nl_sock *sock, const Understudy__NetworkTap *tap)
{
    Understudy__NetworkPort *port = g_new(Understudy__NetworkPort, 1);
    understudy__network_port__init(port);
    port->bridge = port->bridge_kind = NULL;
    struct rtnl_link *link = network_name_is_fit(tap->ifname) ? find_link(sock, 0, tap->ifname) : NULL;
    struct rtnl_link *bridge = NULL;
    if (link) {
        const char *kind = rtnl_link_get_type(link);
        int master = rtnl_link_get_master(link);
        port->present = true;
        port->is_tap = g_strcmp0(kind, "tun") == 0 && rtnl_link_get_arptype(link) == ARPHRD_ETHER;
        port->up = rtnl_link_get_flags(link) & IFF_UP;
        port->mtu = rtnl_link_get_mtu(link);
        bridge = master > 0 ? find_link(sock, master, NULL) : NULL;
    }
    if (!bridge && network_name_is_fit(tap->bridge))
        bridge = find_link(sock, 0, tap->bridge);
    if (bridge)
        fill_bridge(port, bridge);
    if (!port->bridge)
        port->bridge = g_strdup("");
    if (!port->bridge_kind)
        port->bridge_kind = g_strdup("");
    rtnl_link_put(link);
    rtnl_link_put(bridge);
    return port;
}

GPtrArray *network_look(Understudy__NetworkTap *const *taps, size_t n, GError **error)
{
    struct nl_sock *sock = open_netlink(error);
    if (!sock)
        return NULL;
    GPtrArray *ports = g_ptr_array_new_with_free_func(free_port);
    for (size_t i = 0; i < n; i++)
        g_ptr_array_add(ports, look_at(sock, taps[i]));
    nl_socket_free(sock);
    return ports;
}

bool network_has_tun(void)
{
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

char **network_bridged_taps(void)
{
    GPtrArray *names = g_ptr_array_new();
    struct nl_sock *sock = open_netlink(NULL);
    struct nl_cache *cache = NULL;
    if (sock && rtnl_link_alloc_cache(sock, AF_UNSPEC, &cache) == 0) {
        for (struct nl_object *each = nl_cache_get_first(cache); each; each = nl_cache_get_next(each)) {
            struct rtnl_link *link = (struct rtnl_link *)each;
            bool is_tap = g_strcmp0(rtnl_link_get_type(link), "tun") == 0 &&
                          rtnl_link_get_arptype(link) == ARPHRD_ETHER;
            if (is_tap && rtnl_link_get_master(link) > 0)
                g_ptr_array_add(names, g_strdup(rtnl_link_get_name(link)));
        }
        nl_cache_free(cache);
    }
    nl_socket_free(sock);
    g_ptr_array_add(names, NULL);
    return (char **)g_ptr_array_free(names, FALSE);
}
