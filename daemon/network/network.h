/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The guest's network on both hosts. A guest that is taken over is heard only if its tap device on the other
 * host is there, is up, and leads to the network that it leads to here. Nothing in QEMU checks that: where
 * the device is missing, a QEMU that runs as root makes one that leads nowhere.
 *
 *   links.c   what a host has of the devices: asks the kernel by rtnetlink (libnl-3)
 *   judge.c   what is wrong with that, in sentences; pure
 *   probe.c   whether a frame sent on this host's bridge arrives at the other's: raw frames of an ethertype
 *             for local experiments, known by a random number
 *   check.c   a whole check: facts of both hosts, the probe, and the judgement; and the peer's side of it
 *
 * Any thread but the main one: the peer and the kernel are waited for, for a few seconds at most.
 */
#ifndef UNDERSTUDY_DAEMON_NETWORK_NETWORK_H
#define UNDERSTUDY_DAEMON_NETWORK_NETWORK_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "proto/control.pb-c.h"

#define NETWORK_TAPS_MAX  16u
#define NETWORK_NONCE_LEN 16u

struct line;

/* ---- links.c ---- */
/* The tap devices of a command line, as messages. Array of NetworkTap *, freed with the array. */
GPtrArray *network_taps(const struct line *line);
/* What this host has of each tap. Array of NetworkPort *, freed with the array. NULL and error: the kernel
 * does not say. */
GPtrArray *network_look(Understudy__NetworkTap *const *taps, size_t n, GError **error);
bool network_has_tun(void);
/* The names of the tap devices on this host that are in a bridge. GLib strv. */
char **network_bridged_taps(void);

/* ---- judge.c ---- */
enum network_moment {
    NETWORK_BEFORE_START, /* what a script will do when QEMU starts is not asked for yet */
    NETWORK_RUNNING,
};
struct network_findings {
    GPtrArray *own;     /* char *: this host's own faults */
    GPtrArray *faults;  /* char *: why the guest would not be heard, or not in full, on the other host */
    GPtrArray *remarks; /* char *: what is well, and what could not be looked at */
};
struct network_findings *network_findings_new(void);
void network_findings_free(struct network_findings *findings);
/* One host's part alone. peer: the other host, as a sentence calls it; NULL: this host. */
void network_judge_host(const Understudy__NetworkTap *tap, const Understudy__NetworkPort *port,
                        enum network_moment moment, const char *peer, struct network_findings *findings);
/* Both parts, each of which is well by itself. */
void network_judge_pair(const Understudy__NetworkTap *tap, const Understudy__NetworkPort *here,
                        const Understudy__NetworkPort *there, const char *peer,
                        struct network_findings *findings);
/* What the other host heard of the frames that were sent; want_len: the longest. */
void network_judge_probe(const Understudy__NetworkTap *tap, const Understudy__NetworkPort *here,
                         const Understudy__NetworkPort *there, uint32_t heard_len, uint32_t want_len,
                         const char *peer, struct network_findings *findings);
/* A name, as the kernel takes it for an interface, of which a sentence may speak. */
bool network_name_is_fit(const char *name);

/* ---- probe.c ---- */
/* Whether frames between these two say anything: both are in a plain bridge that is up. */
bool network_can_probe(const Understudy__NetworkPort *here, const Understudy__NetworkPort *there);
/* The length of the longest frame that a guest on this port sends. */
uint32_t network_frame_len(const Understudy__NetworkPort *port);
/* A raw socket on the bridge, or -errno. */
int network_probe_open(const char *bridge);
/* Sends a short frame and one of len bytes to the other bridge's address. */
void network_probe_send(int fd, const Understudy__NetworkPort *here, const Understudy__NetworkPort *there,
                        const uint8_t *nonce, unsigned index, uint32_t len);
/* The length of a frame of this probe with that index, or 0; *want_len: of the longest that was sent. Pure.
 */
uint32_t network_probe_parse(const uint8_t *frame, size_t len, const uint8_t *nonce, unsigned index,
                             uint32_t *want_len);
/* Fills frame (len bytes of room). Pure. */
void network_probe_fill(uint8_t *frame, uint32_t len, const uint8_t *to, const uint8_t *from,
                        const uint8_t *nonce, unsigned index, uint32_t want_len);

/* ---- check.c ---- */
/*
 * Both hosts' parts of these taps. fd: a connection to the peer's daemon, or -1 to look at this host only.
 * NULL and error: the peer, or the kernel, does not answer.
 */
struct network_findings *network_check(Understudy__NetworkTap *const *taps, size_t n,
                                       enum network_moment moment, int fd, const char *peer, bool probe,
                                       GError **error);
/* The peer's side: answers on fd. False: the request is nonsense, nothing was answered. */
bool network_serve(int fd, const Understudy__NetworkRequest *request);

#endif
