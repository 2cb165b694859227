/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sends test frames between the bridges of the two hosts, and recognises them (network.h). A test frame has:
 * destination, source, ethertype 0x88B5 (IEEE 802, local experiments), "understudy-probe", the nonce, the
 * tap's number, the length of the longest frame that is sent, zeros. It leaves by the bridge's own port, as a
 * frame of the host itself would, and its destination is the other bridge's own MAC address. So the network
 * carries it like any other frame, and no third host receives it.
 *
 * If a bridge filters VLANs, the host's own port may be in another VLAN than the guest's; Open vSwitch has no
 * port of its own that is visible. Test frames would prove nothing there, so none is sent.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <netinet/if_ether.h>
#include <netpacket/packet.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/network/network.h"

#define ETHERTYPE_LOCAL 0x88B5
#define SHORT_LEN       64u
#define LONGEST_LEN     65535u

struct probe_head {
    uint8_t to[6], from[6];
    uint16_t ethertype;
    char magic[16];
    uint8_t nonce[NETWORK_NONCE_LEN];
    uint16_t index;
    uint16_t want_len;
} __attribute__((packed));
_Static_assert(sizeof(struct probe_head) <= SHORT_LEN, "the short frame holds the head");

static const char magic[16] = "understudy-probe";

static bool is_plain_bridge(const Understudy__NetworkPort *port)
{
    return strcmp(port->bridge_kind, "bridge") == 0 && port->bridge_up && !port->vlan_filtering &&
           port->bridge_address.len == 6;
}

bool network_can_probe(const Understudy__NetworkPort *here, const Understudy__NetworkPort *there)
{
    return is_plain_bridge(here) && is_plain_bridge(there);
}

uint32_t network_frame_len(const Understudy__NetworkPort *port)
{
    uint32_t mtu = port->mtu ? MIN(port->mtu, port->bridge_mtu) : port->bridge_mtu;
    return CLAMP(mtu + (uint32_t)ETHER_HDR_LEN, SHORT_LEN, LONGEST_LEN);
}

int network_probe_open(const char *bridge)
{
    struct sockaddr_ll address = {.sll_family = AF_PACKET, .sll_protocol = htons(ETHERTYPE_LOCAL)};
    address.sll_ifindex = (int)if_nametoindex(bridge);
    if (address.sll_ifindex == 0)
        return -ENODEV;
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0) {
        int status = -errno;
        close(fd);
        return status;
    }
    return fd;
}

void network_probe_fill(uint8_t *frame, uint32_t len, const uint8_t *to, const uint8_t *from,
                        const uint8_t *nonce, unsigned index, uint32_t want_len)
{
    struct probe_head head = {.ethertype = htons(ETHERTYPE_LOCAL),
                              .index = htons((uint16_t)index),
                              .want_len = htons((uint16_t)want_len)};
    memcpy(head.to, to, sizeof head.to);
    memcpy(head.from, from, sizeof head.from);
    memcpy(head.magic, magic, sizeof head.magic);
    memcpy(head.nonce, nonce, sizeof head.nonce);
    memset(frame, 0, len);
    memcpy(frame, &head, sizeof head);
}

uint32_t network_probe_parse(const uint8_t *frame, size_t len, const uint8_t *nonce, unsigned index,
                             uint32_t *want_len)
{
    struct probe_head head;
    if (len < SHORT_LEN || len > LONGEST_LEN)
        return 0;
    memcpy(&head, frame, sizeof head);
    if (head.ethertype != htons(ETHERTYPE_LOCAL) || memcmp(head.magic, magic, sizeof magic) != 0 ||
        memcmp(head.nonce, nonce, sizeof head.nonce) != 0 || ntohs(head.index) != index)
        return 0;
    *want_len = ntohs(head.want_len);
    return (uint32_t)len;
}

void network_probe_send(int fd, const Understudy__NetworkPort *here, const Understudy__NetworkPort *there,
                        const uint8_t *nonce, unsigned index, uint32_t len)
{
    g_autofree uint8_t *frame = g_malloc(len);
    const uint32_t lens[] = {SHORT_LEN, len};
    for (size_t i = 0; i < G_N_ELEMENTS(lens); i++) {
        network_probe_fill(frame, lens[i], there->bridge_address.data, here->bridge_address.data, nonce,
                           index, len);
        /* Ignores errors: the other side notices a frame that was lost, or too long for the bridge. */
        ssize_t ignored = send(fd, frame, lens[i], MSG_DONTWAIT);
        (void)ignored;
    }
}
