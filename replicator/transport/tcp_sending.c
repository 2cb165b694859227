/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a TCP connection sends. Plain pages go straight from staging, with a checksum. Pages of a sealed
 * connection go through a buffer, in records whose tags take the place of the checksum, which is 0.
 */
#include <errno.h>
#include <glib.h>

#include "replicator/transport/tcp_internal.h"

#define IOV_BATCH 512
#define RUN_MAX   (64u << 10)

static int send_message_sealed(struct tcp *tcp, const struct transport_message *message)
{
    uint8_t head[WIRE_HEADER_LEN];
    const struct wire_header header = {
        .type = (uint16_t)message->type, .term = message->term, .epoch = message->epoch};
    int status = message_encode_header(message, true, head);
    if (status == 0)
        status = tcp_stream_seal_header(tcp, &header, head);
    if (status == 0)
        status = tcp_stream_seal_part(tcp, message->payload, message->len);
    return status == 0 ? tcp_stream_flush(tcp, false) : status;
}

static int send_message_plain(struct tcp *tcp, const struct transport_message *message)
{
    uint8_t head[WIRE_HEADER_LEN];
    int status = message_encode_header(message, false, head);
    struct iovec iov[2] = {{.iov_base = head, .iov_len = sizeof head},
                           {.iov_base = (void *)message->payload, .iov_len = message->len}};
    return status == 0 ? tcp_stream_send(tcp, iov, message->len ? 2 : 1, false) : status;
}

int tcp_sending_message(struct transport *t, const struct transport_message *message)
{
    struct tcp *tcp = tcp_of(t);
    pthread_mutex_lock(&tcp->send_lock);
    int status = tcp->out ? send_message_sealed(tcp, message) : send_message_plain(tcp, message);
    pthread_mutex_unlock(&tcp->send_lock);
    return status;
}

/* Seals pages in wire order; neighbours in staging become one vector. */
static int seal_pages(struct tcp *tcp, const struct staging *staging, const struct staged_epoch *epoch)
{
    struct iovec iov[SEGMENT_PAGES];
    struct epoch_pages pages = {.epoch = epoch};
    uint32_t slot, npages = 0;
    int count = 0, status = 0;
    while (status == 0 && epoch_next_page(&pages, staging, &slot)) {
        uint8_t *page = staging_slot(staging, slot);
        struct iovec *last = count ? &iov[count - 1] : NULL;
        if (last && (uint8_t *)last->iov_base + last->iov_len == page)
            last->iov_len += WIRE_PAGE_LEN;
        else
            iov[count++] = (struct iovec){.iov_base = page, .iov_len = WIRE_PAGE_LEN};
        if (++npages == SEGMENT_PAGES) {
            status = tcp_stream_seal(tcp, iov, count);
            npages = 0;
            count = 0;
        }
    }
    return status == 0 && count ? tcp_stream_seal(tcp, iov, count) : status;
}

/* Sends pages in wire order; neighbours in staging become one vector. Continues crc over them. */
static int send_pages(struct tcp *tcp, const struct staging *staging, const struct staged_epoch *epoch,
                      uint32_t *crc)
{
    struct iovec iov[IOV_BATCH];
    struct epoch_pages pages = {.epoch = epoch};
    uint32_t slot;
    int count = 0;
    while (epoch_next_page(&pages, staging, &slot)) {
        uint8_t *page = staging_slot(staging, slot);
        *crc = crc32c(*crc, page, WIRE_PAGE_LEN);
        struct iovec *last = count ? &iov[count - 1] : NULL;
        if (last && (uint8_t *)last->iov_base + last->iov_len == page && last->iov_len < RUN_MAX) {
            last->iov_len += WIRE_PAGE_LEN;
            continue;
        }
        if (count == IOV_BATCH) {
            int status = tcp_stream_send(tcp, iov, count, true);
            if (status < 0)
                return status;
            count = 0;
        }
        iov[count++] = (struct iovec){.iov_base = page, .iov_len = WIRE_PAGE_LEN};
    }
    return tcp_stream_send(tcp, iov, count, true);
}

/* What is sent around an epoch's pages. */
struct around {
    struct wire_epoch wire;
    struct wire_header header;
    uint8_t head[WIRE_HEADER_LEN], fixed[WIRE_EPOCH_LEN], tail[WIRE_COMMIT_LEN];
};

static void encode_commit(struct around *around, uint32_t crc)
{
    const struct wire_commit commit = {.crc = crc,
                                       .term = around->header.term,
                                       .epoch = around->header.epoch,
                                       .npages = around->wire.npages,
                                       .ndata = around->wire.ndata};
    wire_commit_encode(&commit, around->tail);
}

static int send_epoch_sealed(struct tcp *tcp, struct around *around, const struct staging *staging,
                             const struct staged_epoch *epoch)
{
    int status = tcp_stream_seal_header(tcp, &around->header, around->head);
    encode_commit(around, 0);
    if (status == 0)
        status = tcp_stream_seal_part(tcp, around->fixed, sizeof around->fixed);
    if (status == 0)
        status = tcp_stream_seal_part(tcp, tcp->encoder.index.at, tcp->encoder.index.len);
    if (status == 0)
        status = tcp_stream_seal_part(tcp, tcp->encoder.delta.at, around->wire.delta_len);
    if (status == 0)
        status = seal_pages(tcp, staging, epoch);
    if (status == 0)
        status = tcp_stream_seal_part(tcp, around->tail, sizeof around->tail);
    return status == 0 ? tcp_stream_flush(tcp, false) : status;
}

static int send_epoch_plain(struct tcp *tcp, struct around *around, const struct staging *staging,
                            const struct staged_epoch *epoch)
{
    const struct epoch_encoder *encoder = &tcp->encoder;
    uint32_t crc = crc32c(0, around->fixed, sizeof around->fixed);
    crc = crc32c(crc, encoder->index.at, encoder->index.len);
    crc = crc32c(crc, encoder->delta.at, around->wire.delta_len);
    struct iovec front[4] = {{around->head, sizeof around->head},
                             {around->fixed, sizeof around->fixed},
                             {encoder->index.at, encoder->index.len},
                             {encoder->delta.at, around->wire.delta_len}};
    int status = tcp_stream_send(tcp, front, 4, true);
    if (status == 0)
        status = send_pages(tcp, staging, epoch, &crc);
    if (status < 0)
        return status;
    encode_commit(around, crc);
    struct iovec back = {around->tail, sizeof around->tail};
    return tcp_stream_send(tcp, &back, 1, false);
}

static int send_epoch_locked(struct tcp *tcp, uint64_t term, const struct staging *staging,
                             const struct staged_epoch *epoch)
{
    struct around around;
    int status = epoch_encode(&tcp->encoder, epoch, &around.wire);
    if (status < 0)
        return status;
    around.header = (struct wire_header){
        .type = MESSAGE_EPOCH,
        .term = term,
        .epoch = epoch->epoch,
        .payload_len = wire_epoch_payload_len(&around.wire),
    };
    tcp->stalls = epoch_stalls(epoch->kind);
    wire_header_encode(&around.header, around.head);
    wire_epoch_encode(&around.wire, around.fixed);
    status = tcp->out ? send_epoch_sealed(tcp, &around, staging, epoch)
                      : send_epoch_plain(tcp, &around, staging, epoch);
    if (status == 0)
        atomic_fetch_add_explicit(&tcp->epochs_sent, 1, memory_order_relaxed);
    return status;
}

int tcp_sending_epoch(struct transport *t, uint64_t term, const struct staging *staging,
                      const struct staged_epoch *epoch)
{
    struct tcp *tcp = tcp_of(t);
    pthread_mutex_lock(&tcp->send_lock);
    int status = send_epoch_locked(tcp, term, staging, epoch);
    pthread_mutex_unlock(&tcp->send_lock);
    return status;
}
