/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Encodes and decodes the parts of messages and epochs that are the same on every transport: header, page
 * index, device state delta, commit record (proto/epoch_wire.h has the bytes). The device state is sent as a
 * delta against the last one sent on this connection. Both ends keep that last one; the receiver replaces it
 * only when an epoch has come whole.
 *
 * Not thread-safe: an encoder belongs to the connection's sending side, a decoder to its receiving side.
 */
#ifndef UNDERSTUDY_REPLICATOR_EPOCH_PARTS_H
#define UNDERSTUDY_REPLICATOR_EPOCH_PARTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "checkpoint/staging.h"
#include "proto/epoch_wire.h"
#include "replicator/transport/transport.h"

#define EPOCH_MAX_DELTA (24u << 20)

/*
 * How many times stall_ms a peer may take nothing. In a synchronisation many times: it writes to its disks
 * what it got, and storage may stand still for long; nobody waits for output then, and heartbeats watch the
 * host.
 */
static inline unsigned epoch_stalls(enum staged_kind kind)
{
    return kind == STAGED_EPOCH ? 1 : 12;
}

/* A buffer that grows as needed and is kept, so that nothing is allocated once it has its usual size. */
struct bytes {
    uint8_t *at;
    size_t len, capacity;
};
void bytes_make_room(struct bytes *bytes, size_t len);
void bytes_free(struct bytes *bytes);

struct epoch_encoder {
    struct bytes index; /* page_refs in wire order */
    struct bytes delta; /* device state */
    struct bytes last_sent;
};

/*
 * Fills *wire, the index and the delta for this epoch, and counts it as sent: a connection that then fails
 * to send it must end. 0 or -errno.
 */
int epoch_encode(struct epoch_encoder *encoder, const struct staged_epoch *epoch, struct wire_epoch *wire);
void epoch_encoder_clear(struct epoch_encoder *encoder);

/*
 * Encodes the header of a small message. sealed: without a checksum, since a tag takes its place. 0, or
 * -EMSGSIZE if the payload is longer than the limit.
 */
int message_encode_header(const struct transport_message *message, bool sealed, uint8_t out[WIRE_HEADER_LEN]);

/*
 * Walks the ring pages that are sent, in wire order: pages with bytes, then the disk section. Begin with
 * {.epoch = e}.
 */
struct epoch_pages {
    const struct staged_epoch *epoch;
    uint32_t next;
    uint64_t next_disk;
};
/* False at the end. */
bool epoch_next_page(struct epoch_pages *pages, const struct staging *staging, uint32_t *slot);

struct epoch_decoder {
    struct bytes last_received;
};

/*
 * Fills pages[] from the index, and the place of the disk section. The pages that carry bytes, and after them
 * the disk section, have consecutive ring pages from first_slot on. Returns 0, or -EPROTO if the index
 * contradicts wire->ndata.
 */
int epoch_take_index(const struct staging *staging, struct staged_epoch *epoch, const struct wire_epoch *wire,
                     const uint8_t *index, uint32_t first_slot);
/* Returns 0 if the commit record is of this epoch and its checksum is crc, else -EPROTO. */
int epoch_check_commit(const struct wire_header *header, const struct wire_epoch *wire,
                       const struct wire_commit *commit, uint32_t crc);
/* Applies the delta and fills epoch->devstate. Called last, when nothing else can fail. 0 or -EPROTO. */
int epoch_take_devstate(struct epoch_decoder *decoder, struct staged_epoch *epoch, const uint8_t *delta,
                        size_t len);
void epoch_decoder_clear(struct epoch_decoder *decoder);

#endif
