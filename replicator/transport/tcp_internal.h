/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The inside of the TCP transport, only for these files:
 *
 *   tcp.c          life, what is received, and the table of functions
 *   tcp_sending.c  messages and epochs that are sent
 *   tcp_stream.c   bytes to and from the socket, sealed or not
 */
#ifndef UNDERSTUDY_REPLICATOR_TCP_INTERNAL_H
#define UNDERSTUDY_REPLICATOR_TCP_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "proto/crc32c.h"
#include "proto/epoch_wire.h"
#include "proto/seal.h"
#include "replicator/transport/epoch_parts.h"
#include "replicator/transport/transport.h"

#define SEGMENT_PAGES (SEAL_SEGMENT_LEN / WIRE_PAGE_LEN)
#define SEALED_LEN    (4 * (SEAL_SEGMENT_LEN + SEAL_TAG_LEN)) /* records that are sent together */

struct tcp {
    struct transport base;
    int fd;
    unsigned stall_ms;
    _Atomic bool dead;
    pthread_mutex_t send_lock; /* whole messages */
    unsigned stalls;           /* see epoch_stalls: of the last epoch or batch sent; under send_lock */
    struct epoch_encoder encoder;
    struct epoch_decoder decoder;
    struct bytes payload;
    /* NULL: not sealed. out belongs to who has send_lock, in to the receiving thread. */
    struct seal *out, *in;
    struct seal_label out_label, in_label; /* of the next record */
    uint8_t *sealed;                       /* records that wait to be sent; under send_lock */
    size_t sealed_len;
    _Atomic uint64_t bytes_sent, bytes_received, epochs_sent, epochs_received;
};

static inline struct tcp *tcp_of(const struct transport *t)
{
    return (struct tcp *)t;
}

/* Continues a checksum, which is 0 where tags take its place. */
static inline uint32_t tcp_checksum(bool sealed, uint32_t crc, const void *at, size_t len)
{
    return sealed ? 0 : crc32c(crc, at, len);
}

/* ---- tcp_stream.c ---- */

/* Sends plain bytes. Changes iov. send_lock is held. */
int tcp_stream_send(struct tcp *tcp, struct iovec *iov, int count, bool more);
/* Returns the label of the first record after a header. */
struct seal_label tcp_stream_label(const struct wire_header *header);
/* Seals a header. The parts of its message are to follow. */
int tcp_stream_seal_header(struct tcp *tcp, const struct wire_header *header, const uint8_t *head);
/*
 * Seals a record of at most SEAL_SEGMENT_LEN bytes. It is sent when the buffer is full, or with
 * tcp_stream_flush.
 */
int tcp_stream_seal(struct tcp *tcp, const struct iovec *iov, int count);
/* Seals a part of a message, in as many records as it takes. */
int tcp_stream_seal_part(struct tcp *tcp, const uint8_t *at, size_t len);
/* Sends the records that wait. */
int tcp_stream_flush(struct tcp *tcp, bool more);
/*
 * Receives a part of a message, in one record where it is sealed. It may lie in two pieces. may_idle: the
 * first byte may take any time (between messages the heartbeats watch the peer).
 */
int tcp_stream_receive(struct tcp *tcp, const struct iovec *pieces, int count, bool may_idle);
/* Receives a part of a message, in as many records as it takes. */
int tcp_stream_receive_part(struct tcp *tcp, uint8_t *at, size_t len);

/* ---- tcp_sending.c ---- */

/* See struct transport_ops. */
int tcp_sending_message(struct transport *t, const struct transport_message *message);
int tcp_sending_epoch(struct transport *t, uint64_t term, const struct staging *staging,
                      const struct staged_epoch *epoch);

#endif
