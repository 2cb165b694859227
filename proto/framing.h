/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sends and receives control messages on a stream socket: a 4-byte little-endian length, then an Envelope.
 * There is one struct framing per socket; it belongs to the thread that runs GLib's default main context.
 * Incoming bytes are untrusted: a message that is too long, that is not an Envelope, or that would take more
 * memory than its length allows (framing_cost_max) ends the connection. Nothing of such a message is
 * unpacked.
 */
#ifndef UNDERSTUDY_PROTO_FRAMING_H
#define UNDERSTUDY_PROTO_FRAMING_H

#include <glib.h>

#include "proto/control.pb-c.h"

#define FRAMING_MAX_LEN (1u << 20)
/*
 * Limit of the memory that a message may take: FRAMING_COST_FACTOR bytes for each of its own, plus
 * FRAMING_COST_BASE. So a message of 1 MiB takes at most 33 MiB; without a limit, a list of empty VMs takes
 * 247 MiB. The most expensive messages that are sent are lists of VMs of which little is known: 8 bytes for
 * each, 10 as wire_cost() counts. A message of a few fields takes more for each of its bytes, but little in
 * total.
 */
#define FRAMING_COST_FACTOR 32u
#define FRAMING_COST_BASE   (256u << 10)

struct framing;
struct stream;

/* Called with each message, which is borrowed. The callback may free the framing. */
typedef void (*framing_message)(struct framing *framing, const Understudy__Envelope *message, void *opaque);
/* Called once when the connection has ended, for any reason. The callback should free the framing. */
typedef void (*framing_closed)(struct framing *framing, void *opaque);

/* Makes a framing, which takes over fd. */
struct framing *framing_new(int fd, framing_message message, framing_closed closed, void *opaque);
/* Closes the socket; drops what was not sent. NULL is allowed. */
void framing_free(struct framing *framing);
/* Returns the socket, which stays the framing's. */
int framing_fd(const struct framing *framing);
/* Queues a message, which is sent as the socket takes it. At most 4 MiB wait; more ends the connection. */
void framing_send(struct framing *framing, const Understudy__Envelope *message);
/* Sends what waits, for at most timeout_ms. Call it before an exit. */
void framing_flush(struct framing *framing, unsigned timeout_ms);

/* Sends a request on the stream and waits for the answer (free with understudy__envelope__free_unpacked), for
 * at most timeout_ms. NULL and error. Blocks; for the CLI. */
Understudy__Envelope *framing_call(struct stream *stream, const Understudy__Envelope *request,
                                   unsigned timeout_ms, GError **error);

/*
 * Reads the next message from the stream; what follows it stays there. NULL and error; NULL without an error:
 * the peer closed the connection between two messages. timeout_ms limits the whole call. Blocks; for a thread
 * that serves one connection.
 */
Understudy__Envelope *framing_read(struct stream *stream, unsigned timeout_ms, GError **error);
/* Whether a reader would accept the message. FALSE and an error with the limit and what to shorten. Any
 * thread. */
gboolean framing_fits(const Understudy__Envelope *message, GError **error);
/* Writes a message to the stream, for at most timeout_ms. FALSE and error; a message that is longer than a
 * reader accepts is not sent. Blocks. */
gboolean framing_write(struct stream *stream, const Understudy__Envelope *message, unsigned timeout_ms,
                       GError **error);

/* Parses the envelope at the beginning of bytes. Returns the bytes used; 0: more bytes are needed; below 0:
 * the bytes are invalid. Pure. */
gssize framing_parse(const guint8 *bytes, gsize len, Understudy__Envelope **out);
/* Does the same with another allocator; NULL: malloc. */
gssize framing_parse_in(const guint8 *bytes, gsize len, Understudy__Envelope **out,
                        ProtobufCAllocator *memory);
/* Returns the memory that a message of len bytes may take. */
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
