/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Control messages on a stream socket: 4-byte little-endian length, then an Envelope. One struct framing per
 * socket; it belongs to the thread that iterates its GLib context (the default one). What comes in is
 * untrusted: too long, not an Envelope, or an Envelope that would take more memory than its length allows
 * (framing_cost_max) ends the connection. Nothing of such a message is unpacked.
 */
#ifndef UNDERSTUDY_PROTO_FRAMING_H
#define UNDERSTUDY_PROTO_FRAMING_H

#include <glib.h>

#include "proto/control.pb-c.h"

#define FRAMING_MAX_LEN (1u << 20)
/*
 * The memory that a message may take, for each byte of it and for any. A message of 1 MiB takes 33 MiB at
 * most; without a limit, one of empty VMs takes 247. The dearest that are sent are lists of VMs of which
 * little is known: 8 for each byte, 10 as wire_cost() counts. A message of a few fields costs more for each
 * byte, and little in all.
 */
#define FRAMING_COST_FACTOR 32u
#define FRAMING_COST_BASE   (256u << 10)

struct framing;

/* A message came (borrowed). The callback may free the framing. */
typedef void (*framing_message)(struct framing *framing, const Understudy__Envelope *message, void *opaque);
/* The connection ended, by whatever cause; called once, and the callback should free the framing. */
typedef void (*framing_closed)(struct framing *framing, void *opaque);

/* Takes over fd. */
struct framing *framing_new(int fd, framing_message message, framing_closed closed, void *opaque);
void framing_free(struct framing *framing);
int framing_fd(const struct framing *framing);
/* Queues a message; sent as the socket takes it. At most 4 MiB wait: more ends the connection. */
void framing_send(struct framing *framing, const Understudy__Envelope *message);
/* Sends what waits, for at most timeout_ms: before an exit. */
void framing_flush(struct framing *framing, unsigned timeout_ms);

/* Blocking, for the CLI: one request, one answer (free with understudy__envelope__free_unpacked). */
Understudy__Envelope *framing_call(int fd, const Understudy__Envelope *request, unsigned timeout_ms,
                                   GError **error);

/*
 * Blocking, for a thread that serves one connection: the next message (what follows it stays in the
 * socket), or NULL (error NULL: the peer closed in good order). timeout_ms bounds the
 * whole.
 */
Understudy__Envelope *framing_read(int fd, unsigned timeout_ms, GError **error);
/* A message that is longer than its reader would take is not sent: FALSE and error. */
gboolean framing_write(int fd, const Understudy__Envelope *message, unsigned timeout_ms, GError **error);

/* The pure part: the envelope at the beginning of bytes. 0 more bytes needed, <0 nonsense, else bytes used.
 */
gssize framing_parse(const guint8 *bytes, gsize len, Understudy__Envelope **out);
/* The same with another heap; NULL: malloc's. */
gssize framing_parse_in(const guint8 *bytes, gsize len, Understudy__Envelope **out,
                        ProtobufCAllocator *memory);
/* What a message of len bytes may take of it. */
gsize framing_cost_max(gsize len);

#define UNDERSTUDY_ENVELOPE(which, field, value)                                                             \
    {                                                                                                        \
        PROTOBUF_C_MESSAGE_INIT(&understudy__envelope__descriptor),                                          \
            .body_case = UNDERSTUDY__ENVELOPE__BODY_##which,                                                 \
        {                                                                                                    \
            .field = (value)                                                                                 \
        }                                                                                                    \
    }

#endif
