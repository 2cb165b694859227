/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Judges the tap devices of the two hosts (network.h): for each fault, a sentence that names the host and
 * says what to do. Pure. A tap device that no QEMU has open has no carrier, so only its administrative state
 * is checked.
 */
#include "daemon/network/network.h"

#include <stdarg.h>
#include <string.h>

struct network_findings *network_findings_new(void)
{
    struct network_findings *findings = g_new(struct network_findings, 1);
    findings->own = g_ptr_array_new_with_free_func(g_free);
    findings->faults = g_ptr_array_new_with_free_func(g_free);
    findings->remarks = g_ptr_array_new_with_free_func(g_free);
    return findings;
}

void network_findings_free(struct network_findings *findings)
{
    if (!findings)
        return;
    g_ptr_array_unref(findings->own);
    g_ptr_array_unref(findings->faults);
    g_ptr_array_unref(findings->remarks);
    g_free(findings);
}

bool network_name_is_fit(const char *name)
{
    size_t len = name ? strlen(name) : 0;
    for (size_t i = 0; i < len; i++) {
        if (!g_ascii_isgraph(name[i]) || name[i] == '/')
            return false;
    }
    return len > 0 && len < 16 && strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

G_GNUC_PRINTF(3, 4)
static void add(GPtrArray *list, const Understudy__NetworkTap *tap, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    g_autofree char *text = g_strdup_vprintf(format, args);
    va_end(args);
    g_ptr_array_add(list, g_strdup_printf("NIC %s: %s", tap->id, text));
}

/* Judges the bridge that the line names, into which a helper puts the tap when QEMU starts. */
static void judge_named_bridge(const Understudy__NetworkTap *tap, const Understudy__NetworkPort *port,
                               const char *host, GPtrArray *faults)
{
    if (!port->bridge[0])
        add(faults, tap, "the bridge %s does not exist on %s: make it there", tap->bridge, host);
    else if (!port->bridge_up)
        add(faults, tap, "the bridge %s is down on %s: ip link set %s up", port->bridge, host, port->bridge);
}

void network_judge_host(const Understudy__NetworkTap *tap, const Understudy__NetworkPort *port,
                        enum network_moment moment, const char *peer, struct network_findings *findings)
{
    GPtrArray *faults = peer ? findings->faults : findings->own;
    const char *host = peer ? peer : "this host";
    bool later = moment == NETWORK_BEFORE_START && tap->scripted;
    if (tap->bridge[0]) {
        judge_named_bridge(tap, port, host, faults);
    } else if (!tap->ifname[0]) {
        add(findings->remarks, tap, "QEMU chooses the name of the tap device, so it is not looked at on %s",
            host);
    } else if (!port->present && later) {
        add(findings->remarks, tap, "a script makes %s on %s when QEMU starts", tap->ifname, host);
    } else if (!port->present) {
        add(faults, tap,
            "the tap device %s does not exist on %s: make it there (ip tuntap add %s mode tap), put it into "
            "the bridge of the guest's network, and bring it up",
            tap->ifname, host, tap->ifname);
    } else if (!port->is_tap) {
        add(faults, tap,
            "%s is not a tap device on %s: give the NIC a tap device with the same name on both hosts",
            tap->ifname, host);
    } else if (!port->up && !later) {
        add(faults, tap, "%s is down on %s: ip link set %s up", tap->ifname, host, tap->ifname);
    } else if (port->bridge[0] && !port->bridge_up) {
        add(faults, tap, "%s is in the bridge %s on %s, which is down: ip link set %s up", tap->ifname,
            port->bridge, host, port->bridge);
    }
}

void network_judge_pair(const Understudy__NetworkTap *tap, const Understudy__NetworkPort *here,
                        const Understudy__NetworkPort *there, const char *peer,
                        struct network_findings *findings)
{
    if (!here->present || !there->present)
        return;
    if (here->bridge[0] && !there->bridge[0])
        add(findings->faults, tap,
            "%s is in the bridge %s on this host, but in none on %s: put it there into the bridge of the "
            "guest's network (ip link set %s master BRIDGE)",
            tap->ifname, here->bridge, peer, tap->ifname);
    else if (!here->bridge[0] && there->bridge[0])
        add(findings->faults, tap,
            "%s is in the bridge %s on %s, but in none on this host: put it into the bridge of the guest's "
            "network (ip link set %s master BRIDGE)",
            tap->ifname, there->bridge, peer, tap->ifname);
    if (there->mtu < here->mtu)
        add(findings->faults, tap,
            "%s has an MTU of %u on this host, but of %u on %s, where longer frames would be lost: ip link "
            "set %s mtu %u",
            tap->ifname, here->mtu, there->mtu, peer, tap->ifname, here->mtu);
}

void network_judge_probe(const Understudy__NetworkTap *tap, const Understudy__NetworkPort *here,
                         const Understudy__NetworkPort *there, uint32_t heard_len, uint32_t want_len,
                         const char *peer, struct network_findings *findings)
{
    if (heard_len == 0)
        add(findings->faults, tap,
            "a frame sent on the bridge %s of this host does not arrive at the bridge %s of %s: both must be "
            "in one network, so check their other ports, cables, VLANs and switches",
            here->bridge, there->bridge, peer);
    else if (heard_len < want_len)
        add(findings->faults, tap,
            "frames of %u bytes that are sent on the bridge %s of this host do not arrive at the bridge %s "
            "of "
            "%s, shorter ones do: check the MTU of the bridges' other ports",
            want_len, here->bridge, there->bridge, peer);
    else
        add(findings->remarks, tap, "frames of %u bytes pass from the bridge %s of this host to %s of %s",
            want_len, here->bridge, there->bridge, peer);
}
