/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Watches the ports of a switch for a guest's frames: the checker outside that sees each of them. Prints the
 * port whenever the guest begins to speak from another one. A frame that comes from the old port within
 * LATE_MS is one that was on its way (it belongs to an epoch that both hosts have). Frames from both ports
 * for longer than that are two guests, and each change of sides is a line.
 *
 *   port_watch MAC PORT PORT
 */
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define LATE_MS 1000

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static int open_port(const char *name)
{
    struct sockaddr_ll address = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL)};
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ETH_P_ALL));
    address.sll_ifindex = (int)if_nametoindex(name);
    if (fd < 0 || address.sll_ifindex == 0 || bind(fd, (struct sockaddr *)&address, sizeof address) < 0) {
        perror(name);
        return -1;
    }
    return fd;
}

/* Reads one frame; whether it is the guest's and came in by this port. */
static int is_from(int fd, const uint8_t *mac)
{
    uint8_t frame[64];
    struct sockaddr_ll from;
    socklen_t len = sizeof from;
    ssize_t n = recvfrom(fd, frame, sizeof frame, MSG_DONTWAIT, (struct sockaddr *)&from, &len);
    return n >= 12 && from.sll_pkttype != PACKET_OUTGOING && memcmp(frame + 6, mac, 6) == 0;
}

int main(int argc, char **argv)
{
    unsigned byte[6];
    uint8_t mac[6];
    struct pollfd ports[2];
    int speaker = -1;
    uint64_t since_ms = 0;
    if (argc != 4 || sscanf(argv[1], "%x:%x:%x:%x:%x:%x", &byte[0], &byte[1], &byte[2], &byte[3], &byte[4],
                            &byte[5]) != 6) {
        fprintf(stderr, "usage: port_watch MAC PORT PORT\n");
        return 2;
    }
    for (int i = 0; i < 6; i++)
        mac[i] = (uint8_t)byte[i];
    for (int i = 0; i < 2; i++) {
        ports[i] = (struct pollfd){.fd = open_port(argv[2 + i]), .events = POLLIN};
        if (ports[i].fd < 0)
            return 1;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    while (poll(ports, 2, -1) >= 0) {
        for (int i = 0; i < 2; i++) {
            if (!(ports[i].revents & POLLIN) || !is_from(ports[i].fd, mac) || i == speaker)
                continue;
            if (speaker >= 0 && now_ms() - since_ms < LATE_MS)
                continue;
            speaker = i;
            since_ms = now_ms();
            printf("%s\n", argv[2 + i]);
        }
    }
    return 1;
}
