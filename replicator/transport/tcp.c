/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The TCP transport: one stream, vectored writes straight from staging, vectored reads straight into it. See
 * transport.h for the contract and proto/epoch_wire.h for the bytes. Where the connection is sealed, an epoch
 * is opened in staging, which is this process's own memory, before it is committed there.
 *
 * The socket does not block; every wait is a poll of at most stall_ms (tcp_stream.c), so a peer that stops in
 * the middle of anything costs -ETIMEDOUT.
 */
#include <errno.h>
#include <glib-unix.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "replicator/transport/tcp_internal.h"

#define CRC_PAGES    64u /* that are received together, and still in the cache for their checksum */
#define ROOM_POLL_US 200

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

/* Ring pages of the coming epoch. Checked against the ring when it was decoded. */
static uint32_t ring_pages(const struct wire_epoch *wire)
{
    return wire->ndata + (uint32_t)wire_epoch_disk_pages(wire);
}

/*
 * Opens an epoch with its slots, once the applier has returned enough pages: within stall_ms, or longer in a
 * synchronisation.
 */
static struct staged_epoch *begin_received(struct tcp *tcp, struct staging *staging,
                                           const struct wire_header *header, const struct wire_epoch *wire,
                                           int *status)
{
    uint64_t until =
        now_ns() + (uint64_t)tcp->stall_ms * epoch_stalls((enum staged_kind)wire->kind) * 1000000;
    uint32_t nslots = ring_pages(wire);
    while (staging_free_epochs(staging) == 0 || staging_free_pages(staging) < nslots) {
        if (atomic_load(&tcp->dead) || now_ns() > until) {
            *status = atomic_load(&tcp->dead) ? -ENOTCONN : -ETIMEDOUT;
            return NULL;
        }
        g_usleep(ROOM_POLL_US); /* back-pressure only: the stream stands still meanwhile, as it should */
    }
    struct staged_epoch *epoch = staging_begin(staging, header->epoch, (enum staged_kind)wire->kind);
    int64_t first = epoch ? staging_reserve(staging, epoch, nslots) : -EBUSY;
    if (first < 0) {
        if (epoch)
            staging_abort(staging, epoch);
        *status = (int)first;
        return NULL;
    }
    epoch->first_slot = (uint32_t)first;
    epoch->nblocks = wire->nblocks;
    memcpy(epoch->block_used_len, wire->used_len, sizeof epoch->block_used_len);
    return epoch;
}

/*
 * Receives page bytes straight into the ring: in pieces, so that they are opened, or the CRC is taken, while
 * they are in the cache. A piece that crosses the ring's end has two parts.
 */
static int receive_pages(struct tcp *tcp, const struct staging *staging, const struct staged_epoch *epoch,
                         uint32_t npages, uint32_t *crc)
{
    uint32_t capacity = staging_capacity_pages(staging), most = tcp->in ? SEGMENT_PAGES : CRC_PAGES;
    for (uint32_t done = 0, n; done < npages; done += n) {
        uint32_t slot = (uint32_t)(((uint64_t)epoch->first_slot + done) % capacity);
        n = MIN(npages - done, most);
        uint32_t before_wrap = MIN(n, capacity - slot);
        const struct iovec iov[2] = {
            {staging_slot(staging, slot), (size_t)before_wrap * WIRE_PAGE_LEN},
            {staging_slot(staging, 0), (size_t)(n - before_wrap) * WIRE_PAGE_LEN},
        };
        int status = tcp_stream_receive(tcp, iov, before_wrap < n ? 2 : 1, false);
        if (status < 0)
            return status;
        *crc = tcp_checksum(tcp->in, *crc, iov[0].iov_base, iov[0].iov_len);
        *crc = tcp_checksum(tcp->in, *crc, iov[1].iov_base, iov[1].iov_len);
    }
    return 0;
}

/* Everything after the epoch's fixed part.  */
static int receive_parts(struct tcp *tcp, const struct staging *staging, struct staged_epoch *epoch,
                         const struct wire_header *header, const struct wire_epoch *wire, uint32_t crc)
{
    uint8_t tail[WIRE_COMMIT_LEN];
    struct wire_commit commit;
    size_t index_len = (size_t)wire->npages * 8;
    bytes_make_room(&tcp->payload, index_len + wire->delta_len + 8);
    int status = tcp_stream_receive_part(tcp, tcp->payload.at, index_len);
    if (status == 0)
        status = tcp_stream_receive_part(tcp, tcp->payload.at + index_len, wire->delta_len);
    if (status == 0)
        status = epoch_take_index(staging, epoch, wire, tcp->payload.at, epoch->first_slot);
    if (status < 0)
        return status;
    crc = tcp_checksum(tcp->in, crc, tcp->payload.at, index_len + wire->delta_len);
    status = receive_pages(tcp, staging, epoch, ring_pages(wire), &crc);
    if (status == 0)
        status = tcp_stream_receive_part(tcp, tail, sizeof tail);
    if (status == 0)
        status = wire_commit_decode(&commit, tail);
    if (status == 0)
        status = epoch_check_commit(header, wire, &commit, crc);
    if (status == 0)
        status = epoch_take_devstate(&tcp->decoder, epoch, tcp->payload.at + index_len, wire->delta_len);
    return status;
}

static int receive_epoch(struct tcp *tcp, struct staging *staging, const struct wire_header *header,
                         struct transport_received *out)
{
    uint8_t fixed[WIRE_EPOCH_LEN];
    struct wire_epoch wire;
    if (!staging || header->payload_len < sizeof fixed)
        return -EPROTO;
    int status = tcp_stream_receive_part(tcp, fixed, sizeof fixed);
    if (status == 0)
        status = wire_epoch_decode(&wire, fixed, header->payload_len, staging_capacity_pages(staging),
                                   EPOCH_MAX_DELTA);
    if (status < 0)
        return status;
    struct staged_epoch *epoch = begin_received(tcp, staging, header, &wire, &status);
    if (!epoch)
        return status;
    status = receive_parts(tcp, staging, epoch, header, &wire, tcp_checksum(tcp->in, 0, fixed, sizeof fixed));
    if (status < 0) {
        staging_abort(staging, epoch);
        return status;
    }
    epoch->received_ns = now_ns();
    staging_commit(staging, epoch);
    out->epoch = epoch;
    atomic_fetch_add_explicit(&tcp->epochs_received, 1, memory_order_relaxed);
    return 0;
}

static int tcp_receive(struct transport *t, struct staging *staging, struct transport_received *out)
{
    struct tcp *tcp = tcp_of(t);
    uint8_t head[WIRE_HEADER_LEN];
    struct wire_header header;
    const struct iovec iov = {head, sizeof head};
    memset(out, 0, sizeof *out);
    tcp->in_label = (struct seal_label){0};
    int status = tcp_stream_receive(tcp, &iov, 1, true);
    if (status == 0)
        status = wire_header_decode(&header, head);
    if (status < 0)
        return status;
    tcp->in_label = tcp_stream_label(&header);
    out->message = (struct transport_message){.type = (enum message_type)header.type,
                                              .arg = header.arg,
                                              .term = header.term,
                                              .epoch = header.epoch};
    if (header.type == MESSAGE_EPOCH)
        return receive_epoch(tcp, staging, &header, out);
    if (header.payload_len > transport_payload_max(t))
        return -EPROTO;
    bytes_make_room(&tcp->payload, header.payload_len + 1);
    status = tcp_stream_receive_part(tcp, tcp->payload.at, header.payload_len);
    if (status < 0)
        return status;
    if (tcp_checksum(tcp->in, 0, tcp->payload.at, header.payload_len) != header.payload_crc)
        return -EPROTO;
    out->message.payload = tcp->payload.at;
    out->message.len = header.payload_len;
    return 0;
}

/* All epochs that send_epoch has returned from are in the socket. */
static int64_t tcp_epochs_done(struct transport *t)
{
    return (int64_t)atomic_load_explicit(&tcp_of(t)->epochs_sent, memory_order_relaxed);
}

static int tcp_done_fd(struct transport *t)
{
    (void)t;
    return -1;
}

/* The kernel sends what is in the socket before it says that there is no more. */
static void tcp_flush(struct transport *t)
{
    (void)t;
}

/* Nothing to do: the stream itself waits while there is no room. */
static void tcp_room(struct transport *t)
{
    (void)t;
}

static int tcp_seal(struct transport *t, const struct seal_keys *keys)
{
    struct tcp *tcp = tcp_of(t);
    if (tcp->out || tcp->in)
        return -EALREADY;
    tcp->out = seal_new(keys->cipher, keys->out, &keys->limits);
    tcp->in = tcp->out ? seal_new(keys->cipher, keys->in, &keys->limits) : NULL;
    int status = tcp->in ? 0 : -errno;
    tcp->sealed = g_malloc(SEALED_LEN);
    return status;
}

static void tcp_shutdown(struct transport *t)
{
    struct tcp *tcp = tcp_of(t);
    atomic_store(&tcp->dead, true);
    shutdown(tcp->fd, SHUT_RDWR);
}

static void tcp_free(struct transport *t)
{
    struct tcp *tcp = tcp_of(t);
    close(tcp->fd);
    epoch_encoder_clear(&tcp->encoder);
    epoch_decoder_clear(&tcp->decoder);
    bytes_free(&tcp->payload);
    seal_free(tcp->out);
    seal_free(tcp->in);
    g_free(tcp->sealed);
    pthread_mutex_destroy(&tcp->send_lock);
    g_free(tcp);
}

static void tcp_stats(const struct transport *t, struct transport_stats *out)
{
    const struct tcp *tcp = tcp_of(t);
    out->bytes_sent = atomic_load_explicit(&tcp->bytes_sent, memory_order_relaxed);
    out->bytes_received = atomic_load_explicit(&tcp->bytes_received, memory_order_relaxed);
    out->epochs_sent = atomic_load_explicit(&tcp->epochs_sent, memory_order_relaxed);
    out->epochs_received = atomic_load_explicit(&tcp->epochs_received, memory_order_relaxed);
}

static const struct transport_ops tcp_ops = {
    .name = "tcp",
    .seal = tcp_seal,
    .send_epoch = tcp_sending_epoch,
    .epochs_done = tcp_epochs_done,
    .done_fd = tcp_done_fd,
    .flush = tcp_flush,
    .send_message = tcp_sending_message,
    .receive = tcp_receive,
    .room = tcp_room,
    .shutdown = tcp_shutdown,
    .free = tcp_free,
    .stats = tcp_stats,
};

struct transport *transport_tcp_new(int fd, unsigned stall_ms)
{
    struct tcp *tcp = g_new0(struct tcp, 1);
    int one = 1;
    tcp->base.ops = &tcp_ops;
    tcp->fd = fd;
    tcp->stall_ms = stall_ms;
    pthread_mutex_init(&tcp->send_lock, NULL);
    g_unix_set_fd_nonblocking(fd, TRUE, NULL);
    /* Fails on the socket pairs of tests, where it does not matter. */
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return &tcp->base;
}
