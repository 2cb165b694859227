/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLS 1.3 as a stream (common/stream.h). Both ends show a raw public key (RFC 7250), so nobody parses a
 * certificate: a key is 44 bytes, of which 12 are fixed. One suite of each kind is on: X25519, Ed25519, and
 * AES-GCM or ChaCha20. No tickets, no resumption, no early data, no renegotiation.
 *
 * A callback decides whether the other end's key is accepted, at the end of the handshake and before any byte
 * of the application. A stream that ends without close_notify was cut: its reader gets -ECONNABORTED, never
 * an end.
 */
#ifndef UNDERSTUDY_DAEMON_TRUST_TLS_H
#define UNDERSTUDY_DAEMON_TRUST_TLS_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/stream.h"
#include "daemon/trust/key.h"

enum tls_side { TLS_ACCEPTS, TLS_CALLS };

struct tls_owner {
    /* Returns NULL if this key is accepted, or why it is not (GLib string). The stream's thread. */
    char *(*refuses)(const uint8_t *key, void *opaque);
    /* The handshake is done; the stream ends. Each may be NULL. The stream's thread. */
    void (*opened)(struct stream *stream, void *opaque);
    void (*closing)(struct stream *stream, void *opaque);
    void *opaque;
};

/* Makes the stream, and takes over fd, which becomes non-blocking. key and owner (copied) must outlive it. */
struct stream *tls_stream_new(int fd, enum tls_side side, const struct host_key *key,
                              const struct tls_owner *owner);
/* Derives `len` bytes that only the two ends of this connection know. After the handshake. */
bool tls_stream_exporter(struct stream *stream, const char *label, uint8_t *out, size_t len);

#endif
