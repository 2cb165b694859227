/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Checks the guest's network on both hosts. After a takeover, clients reach the guest only if its tap device
 * on the other host exists, is up, and leads to the same network as here. QEMU does not check that: if the
 * device is missing, a QEMU that runs as root makes one that leads nowhere.
 *
 *   links.c   the network devices of this host, from the kernel by rtnetlink (libnl-3)
 *   judge.c   what is wrong with them, in sentences; pure
 *   probe.c   test frames from this host's bridge to the other host's: raw frames of an ethertype for local
 *             experiments, recognised by a random number
 *   check.c   a whole check: the devices of both hosts, the test frames, the judgement; and the peer's side
 *
 * Any thread but the main one, since these functions wait for the peer and the kernel, for a few seconds.
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
struct stream;

/* ---- links.c ---- */
/* Returns the tap devices of a command line, as an array that owns its NetworkTap *. */
GPtrArray *network_taps(const struct line *line);
/* Returns what this host has of each tap, as an array that owns its NetworkPort *. NULL and error if the
 * kernel does not answer. */
GPtrArray *network_look(Understudy__NetworkTap *const *taps, size_t n, GError **error);
/* Returns whether /dev/net/tun can be opened. */
bool network_has_tun(void);
/* Returns the names of this host's tap devices that are in a bridge. GLib strv. */
char **network_bridged_taps(void);

/* ---- judge.c ---- */
enum network_moment {
    NETWORK_BEFORE_START, /* what a script makes when QEMU starts may be missing */
    NETWORK_RUNNING,
};
struct network_findings {
    GPtrArray *own;     /* char *: this host's own faults */
    GPtrArray *faults;  /* char *: why clients could not reach the guest on the other host */
    GPtrArray *remarks; /* char *: what is in order, and what could not be checked */
};
struct network_findings *network_findings_new(void);
void network_findings_free(struct network_findings *findings);
/* Judges one host's device alone, and adds to findings. peer: the name of the other host; NULL: this host. */
void network_judge_host(const Understudy__NetworkTap *tap, const Understudy__NetworkPort *port,
                        enum network_moment moment, const char *peer, struct network_findings *findings);
/* Compares the devices of both hosts, each of which is in order by itself. */
void network_judge_pair(const Understudy__NetworkTap *tap, const Understudy__NetworkPort *here,
                        const Understudy__NetworkPort *there, const char *peer,
                        struct network_findings *findings);
/* Judges the test frames: heard_len is the longest that arrived (0: none), want_len the longest that was
 * sent. */
void network_judge_probe(const Understudy__NetworkTap *tap, const Understudy__NetworkPort *here,
                         const Understudy__NetworkPort *there, uint32_t heard_len, uint32_t want_len,
                         const char *peer, struct network_findings *findings);
/* Returns whether the name may be that of a network interface, and so may appear in a sentence. */
bool network_name_is_fit(const char *name);

/* ---- probe.c ---- */
/* Returns whether test frames between these two make sense: both are in a Linux bridge that is up and does
 * not filter VLANs. */
bool network_can_probe(const Understudy__NetworkPort *here, const Understudy__NetworkPort *there);
/* Returns the length of the longest frame that a guest on this port sends. */
uint32_t network_frame_len(const Understudy__NetworkPort *port);
/* Opens a raw socket on the bridge. Returns the fd or -errno. */
int network_probe_open(const char *bridge);
/* Sends a short frame and one of len bytes to the other bridge's address. */
void network_probe_send(int fd, const Understudy__NetworkPort *here, const Understudy__NetworkPort *there,
                        const uint8_t *nonce, unsigned index, uint32_t len);
/* Returns the length of the frame if it is one of this probe (nonce) with that index, else 0. *want_len:
 * length of the longest that was sent. Pure. */
uint32_t network_probe_parse(const uint8_t *frame, size_t len, const uint8_t *nonce, unsigned index,
                             uint32_t *want_len);
/* Writes a test frame of len bytes. Pure. */
void network_probe_fill(uint8_t *frame, uint32_t len, const uint8_t *to, const uint8_t *from,
                        const uint8_t *nonce, unsigned index, uint32_t want_len);

/* ---- check.c ---- */
/*
 * Checks these taps on both hosts. stream: a connection to the peer's daemon, or NULL to look at this host
 * only. Returns the findings (network_findings_free); NULL and error if the peer or the kernel does not
 * answer.
 */
struct network_findings *network_check(Understudy__NetworkTap *const *taps, size_t n,
                                       enum network_moment moment, struct stream *stream, const char *peer,
                                       bool probe, GError **error);
/* Answers such a request on the stream, on the peer's side. False: the request is invalid, and nothing was
 * answered.
 */
bool network_serve(struct stream *stream, const Understudy__NetworkRequest *request);

#endif
