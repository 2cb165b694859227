/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Checks the guest's network on both hosts (network.h):
 *
 *   this host                                the peer
 *   NetworkRequest {taps, nonce} ----------> looks at its devices, listens on their bridges
 *                 <------------------------- Network {ports}
 *   frames on this host's bridges ~ ~ ~ ~ ~> hears them, or not
 *                 <------------------------- NetworkHeard, when all were heard; at the latest after 1.5 s
 *
 * The peer's answer is untrusted: its names are checked before they appear in a sentence.
 */
#include <errno.h>
#include <gio/gio.h>
#include <poll.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/stream.h"
#include "daemon/network/network.h"
#include "proto/framing.h"

#define LISTEN_MS     1500
#define AGAIN_MS      50 /* between two frames */
#define ANSWER_MS     5000
#define FRAMES_LEN    65536
#define FRAMES_A_LOOK 32

/* ---- the peer's side ---- */

struct listener {
    int fd; /* < 0: none */
    uint32_t heard_len, want_len;
};

static void hear(struct listener *listener, const uint8_t *nonce, unsigned index, uint8_t *frame)
{
    for (int i = 0; i < FRAMES_A_LOOK; i++) {
        ssize_t len = recv(listener->fd, frame, FRAMES_LEN, MSG_DONTWAIT);
        if (len < 0)
            return;
        uint32_t want_len = 0, heard = network_probe_parse(frame, (size_t)len, nonce, index, &want_len);
        listener->heard_len = MAX(listener->heard_len, heard);
        if (heard)
            listener->want_len = want_len;
    }
}

/* Listens until every bridge has received its longest frame, for at most LISTEN_MS. */
static void listen_all(struct listener *listeners, size_t n, const uint8_t *nonce)
{
    g_autofree uint8_t *frame = g_malloc(FRAMES_LEN);
    gint64 until = g_get_monotonic_time() + LISTEN_MS * 1000;
    for (bool all = false; !all && g_get_monotonic_time() < until;) {
        struct pollfd fds[NETWORK_TAPS_MAX];
        all = true;
        for (size_t i = 0; i < n; i++) {
            bool waits = listeners[i].fd >= 0 &&
                         (listeners[i].heard_len == 0 || listeners[i].heard_len < listeners[i].want_len);
            fds[i] = (struct pollfd){.fd = waits ? listeners[i].fd : -1, .events = POLLIN};
            all &= !waits;
        }
        if (all || poll(fds, (nfds_t)n, (int)((until - g_get_monotonic_time()) / 1000) + 1) < 0)
            break;
        for (size_t i = 0; i < n; i++) {
            if (fds[i].revents)
                hear(&listeners[i], nonce, (unsigned)i, frame);
        }
    }
}

static bool open_listeners(const GPtrArray *ports, struct listener *listeners)
{
    bool all = true;
    for (guint i = 0; i < ports->len; i++) {
        const Understudy__NetworkPort *port = g_ptr_array_index(ports, i);
        bool is_bridge = strcmp(port->bridge_kind, "bridge") == 0;
        listeners[i] = (struct listener){.fd = is_bridge ? network_probe_open(port->bridge) : -1};
        all &= !is_bridge || listeners[i].fd >= 0;
    }
    return all;
}

static void answer_heard(struct stream *stream, struct listener *listeners, size_t n, const uint8_t *nonce)
{
    uint32_t heard[NETWORK_TAPS_MAX];
    listen_all(listeners, n, nonce);
    for (size_t i = 0; i < n; i++)
        heard[i] = listeners[i].heard_len;
    Understudy__NetworkHeard body = UNDERSTUDY__NETWORK_HEARD__INIT;
    body.frame_len = heard;
    body.n_frame_len = n;
    Understudy__Envelope envelope = UNDERSTUDY_ENVELOPE(NETWORK_HEARD, network_heard, &body);
    framing_write(stream, &envelope, ANSWER_MS, NULL);
}

bool network_serve(struct stream *stream, const Understudy__NetworkRequest *request)
{
    bool probe = request->nonce.len == NETWORK_NONCE_LEN;
    if (request->n_taps > NETWORK_TAPS_MAX || (request->nonce.len > 0 && !probe))
        return false;
    g_autoptr(GPtrArray) ports = network_look(request->taps, request->n_taps, NULL);
    if (!ports)
        return false;
    struct listener listeners[NETWORK_TAPS_MAX];
    Understudy__Network body = UNDERSTUDY__NETWORK__INIT;
    body.tun = network_has_tun();
    body.ports = (Understudy__NetworkPort **)ports->pdata;
    body.n_ports = ports->len;
    body.listens = probe && open_listeners(ports, listeners);
    Understudy__Envelope envelope = UNDERSTUDY_ENVELOPE(NETWORK, network, &body);
    bool told = framing_write(stream, &envelope, ANSWER_MS, NULL);
    if (told && body.listens)
        answer_heard(stream, listeners, ports->len, request->nonce.data);
    for (guint i = 0; probe && i < ports->len; i++) {
        if (listeners[i].fd >= 0)
            close(listeners[i].fd);
    }
    return true;
}

/* ---- this host's side ---- */

static bool is_sane(const Understudy__Network *network, size_t n)
{
    bool sane = network->n_ports == n;
    for (size_t i = 0; sane && i < n; i++) {
        const Understudy__NetworkPort *port = network->ports[i];
        sane = (!port->bridge[0] || network_name_is_fit(port->bridge)) &&
               (port->bridge_address.len == 0 || port->bridge_address.len == 6);
    }
    return sane;
}

/* Asks the peer for its devices. Free the answer with free_unpacked. NULL and error. */
static Understudy__Envelope *ask(struct stream *stream, Understudy__NetworkTap *const *taps, size_t n,
                                 const uint8_t *nonce, const char *peer, GError **error)
{
    Understudy__NetworkRequest body = UNDERSTUDY__NETWORK_REQUEST__INIT;
    body.taps = (Understudy__NetworkTap **)taps;
    body.n_taps = n;
    body.nonce.data = (uint8_t *)nonce;
    body.nonce.len = nonce ? NETWORK_NONCE_LEN : 0;
    Understudy__Envelope request = UNDERSTUDY_ENVELOPE(NETWORK_REQUEST, network_request, &body);
    Understudy__Envelope *answer = framing_call(stream, &request, ANSWER_MS, error);
    if (answer && answer->body_case == UNDERSTUDY__ENVELOPE__BODY_NETWORK && is_sane(answer->network, n))
        return answer;
    if (answer) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                    "it does not report its network: install one version of understudy on both hosts");
        understudy__envelope__free_unpacked(answer, NULL);
    }
    g_prefix_error(error, "the peer %s: ", peer);
    return NULL;
}

/* Sends test frames until the peer answers. Returns its answer, or NULL. */
static Understudy__Envelope *send_frames(struct stream *stream, const GPtrArray *here,
                                         const Understudy__Network *there, const int *sockets,
                                         const uint8_t *nonce)
{
    gint64 until = g_get_monotonic_time() + (LISTEN_MS + ANSWER_MS) * 1000;
    int came;
    do {
        for (guint i = 0; i < here->len; i++) {
            const Understudy__NetworkPort *port = g_ptr_array_index(here, i);
            if (sockets[i] >= 0)
                network_probe_send(sockets[i], port, there->ports[i], nonce, i, network_frame_len(port));
        }
    } while ((came = stream_wait(stream, POLLIN, AGAIN_MS)) == 0 && g_get_monotonic_time() < until);
    return came > 0 ? framing_read(stream, ANSWER_MS, NULL) : NULL;
}

static void judge_frames(Understudy__NetworkTap *const *taps, const GPtrArray *here,
                         const Understudy__Network *there, const int *sockets,
                         const Understudy__Envelope *heard, const char *peer,
                         struct network_findings *findings)
{
    bool told = heard && heard->body_case == UNDERSTUDY__ENVELOPE__BODY_NETWORK_HEARD &&
                heard->network_heard->n_frame_len == here->len;
    for (guint i = 0; i < here->len; i++) {
        const Understudy__NetworkPort *port = g_ptr_array_index(here, i);
        if (told && sockets[i] >= 0)
            network_judge_probe(taps[i], port, there->ports[i], heard->network_heard->frame_len[i],
                                network_frame_len(port), peer, findings);
        else if (port->bridge_up && there->ports[i]->bridge_up)
            g_ptr_array_add(findings->remarks,
                            g_strdup_printf("NIC %s: whether the bridges %s of this host and %s of %s are in "
                                            "one network could not be tried: %s",
                                            taps[i]->id, port->bridge, there->ports[i]->bridge, peer,
                                            !network_can_probe(port, there->ports[i])
                                                ? "one of them filters VLANs, or is no plain Linux bridge"
                                                : "raw sockets are not allowed"));
    }
}

static void probe_all(Understudy__NetworkTap *const *taps, const GPtrArray *here,
                      const Understudy__Network *there, struct stream *stream, const uint8_t *nonce,
                      const char *peer, struct network_findings *findings)
{
    int sockets[NETWORK_TAPS_MAX];
    for (guint i = 0; i < here->len; i++) {
        const Understudy__NetworkPort *port = g_ptr_array_index(here, i);
        bool can = there->listens && network_can_probe(port, there->ports[i]);
        sockets[i] = can ? network_probe_open(port->bridge) : -1;
    }
    Understudy__Envelope *heard = there->listens ? send_frames(stream, here, there, sockets, nonce) : NULL;
    judge_frames(taps, here, there, sockets, heard, peer, findings);
    if (heard)
        understudy__envelope__free_unpacked(heard, NULL);
    for (guint i = 0; i < here->len; i++) {
        if (sockets[i] >= 0)
            close(sockets[i]);
    }
}

static void judge_peer(Understudy__NetworkTap *const *taps, const GPtrArray *here,
                       const Understudy__Network *there, enum network_moment moment, const char *peer,
                       struct network_findings *findings)
{
    if (!there->tun)
        g_ptr_array_add(findings->faults,
                        g_strdup_printf("/dev/net/tun cannot be opened on %s, which tap "
                                        "devices need: load the module there (modprobe tun)",
                                        peer));
    for (guint i = 0; i < here->len; i++) {
        guint before = findings->faults->len;
        network_judge_host(taps[i], there->ports[i], moment, peer, findings);
        if (findings->faults->len == before)
            network_judge_pair(taps[i], g_ptr_array_index(here, i), there->ports[i], peer, findings);
    }
}

struct network_findings *network_check(Understudy__NetworkTap *const *taps, size_t n,
                                       enum network_moment moment, struct stream *stream, const char *peer,
                                       bool probe, GError **error)
{
    uint8_t nonce[NETWORK_NONCE_LEN];
    n = MIN(n, NETWORK_TAPS_MAX);
    if (probe && getrandom(nonce, sizeof nonce, 0) != sizeof nonce)
        probe = false;
    g_autoptr(GPtrArray) here = network_look(taps, n, error);
    if (!here)
        return NULL;
    struct network_findings *findings = network_findings_new();
    for (guint i = 0; i < here->len; i++)
        network_judge_host(taps[i], g_ptr_array_index(here, i), moment, NULL, findings);
    if (!stream)
        return findings;
    Understudy__Envelope *answer = ask(stream, taps, n, probe ? nonce : NULL, peer, error);
    if (!answer) {
        network_findings_free(findings);
        return NULL;
    }
    judge_peer(taps, here, answer->network, moment, peer, findings);
    if (probe)
        probe_all(taps, here, answer->network, stream, nonce, peer, findings);
    understudy__envelope__free_unpacked(answer, NULL);
    return findings;
}
