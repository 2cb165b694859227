/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The TCP transport: one stream, vectored writes straight from staging, vectored reads straight into it. See
 * transport.h for the contract and proto/epoch_wire.h for the bytes.
 *
 * The socket does not block; every wait is a poll of at most stall_ms, so a peer that stops in the middle of
 * anything costs -ETIMEDOUT.
 */
#include "replicator/transport/transport.h"

#include <errno.h>
#include <glib-unix.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "proto/crc32c.h"
#include "proto/epoch_wire.h"
#include "replicator/transport/epoch_parts.h"
#include "replicator/transport/tcp.h"

#define IOV_BATCH    512
#define RUN_MAX      (64u << 10)
#define ROOM_POLL_US 200
#define IDLE_POLL_MS 3000

struct tcp {
    struct transport base;
    int fd;
    unsigned stall_ms;
    _Atomic bool dead;
    pthread_mutex_t send_lock; /* whole messages */
    struct epoch_encoder encoder;
    struct epoch_decoder decoder;
    struct bytes payload;
    _Atomic uint64_t bytes_sent, bytes_received, epochs_sent, epochs_received;
};

static struct tcp *tcp_of(const struct transport *t)
{
    return (struct tcp *)t;
}

/* Waits for the socket to be ready: 0, -ETIMEDOUT or -ENOTCONN. */
static int wait_ready(struct tcp *tcp, short events, unsigned timeout_ms)
{
    struct pollfd pfd = {.fd = tcp->fd, .events = events};
    int n;
    do
        n = poll(&pfd, 1, (int)timeout_ms);
    while (n < 0 && errno == EINTR);
    if (atomic_load(&tcp->dead))
        return -ENOTCONN;
    return n > 0 ? 0 : n == 0 ? -ETIMEDOUT : -errno;
}

/* Drops n bytes from the front of an iovec array. */
static void advance(struct iovec **iov, int *count, size_t n)
{
    while (*count > 0 && n >= (*iov)->iov_len) {
        n -= (*iov)->iov_len;
        (*iov)++;
        (*count)--;
    }
    if (*count > 0) {
        (*iov)->iov_base = (uint8_t *)(*iov)->iov_base + n;
        (*iov)->iov_len -= n;
    }
}

static int send_all(struct tcp *tcp, struct iovec *iov, int count, bool more)
{
    while (count > 0) {
        struct msghdr message = {.msg_iov = iov, .msg_iovlen = (size_t)count};
        ssize_t n = sendmsg(tcp->fd, &message, MSG_NOSIGNAL | (more ? MSG_MORE : 0));
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            int status = wait_ready(tcp, POLLOUT, tcp->stall_ms);
            if (status < 0)
                return status;
            continue;
        }
        if (n < 0)
            return -ENOTCONN;
        atomic_fetch_add_explicit(&tcp->bytes_sent, (uint64_t)n, memory_order_relaxed);
        advance(&iov, &count, (size_t)n);
    }
    return 0;
}

/*
 * Reads all bytes into the vectors. may_idle: the first byte may take any time (between messages the
 * heartbeats watch the peer).
 */
static int receive_all(struct tcp *tcp, struct iovec *iov, int count, bool may_idle)
{
    while (count > 0) {
        ssize_t n = readv(tcp->fd, iov, count);
        if (n == 0)
            return -ENOTCONN;
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            int status = wait_ready(tcp, POLLIN, may_idle ? IDLE_POLL_MS : tcp->stall_ms);
            if (status == -ETIMEDOUT && may_idle)
                continue;
            if (status < 0)
                return status;
            continue;
        }
        if (n < 0)
            return -ENOTCONN;
        may_idle = false;
        atomic_fetch_add_explicit(&tcp->bytes_received, (uint64_t)n, memory_order_relaxed);
        advance(&iov, &count, (size_t)n);
    }
    return 0;
}

static int receive_bytes(struct tcp *tcp, void *at, size_t len)
{
    struct iovec iov = {.iov_base = at, .iov_len = len};
    return len == 0 ? 0 : receive_all(tcp, &iov, 1, false);
}

static int tcp_send_message(struct transport *t, const struct transport_message *message)
{
    struct tcp *tcp = tcp_of(t);
    uint8_t head[WIRE_HEADER_LEN];
    int status = message_encode_header(message, head);
    if (status < 0)
        return status;
    struct iovec iov[2] = {{.iov_base = head, .iov_len = sizeof head},
                           {.iov_base = (void *)message->payload, .iov_len = message->len}};
    pthread_mutex_lock(&tcp->send_lock);
    status = send_all(tcp, iov, message->len ? 2 : 1, false);
    pthread_mutex_unlock(&tcp->send_lock);
    return status;
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
            int status = send_all(tcp, iov, count, true);
            if (status < 0)
                return status;
            count = 0;
        }
        iov[count++] = (struct iovec){.iov_base = page, .iov_len = WIRE_PAGE_LEN};
    }
    return send_all(tcp, iov, count, true);
}

static int send_epoch_locked(struct tcp *tcp, uint64_t term, const struct staging *staging,
                             const struct staged_epoch *epoch)
{
    uint8_t head[WIRE_HEADER_LEN], fixed[WIRE_EPOCH_LEN], tail[WIRE_COMMIT_LEN];
    struct wire_epoch wire;
    int status = epoch_encode(&tcp->encoder, epoch, &wire);
    if (status < 0)
        return status;
    struct wire_header header = {
        .type = MESSAGE_EPOCH,
        .term = term,
        .epoch = epoch->epoch,
        .payload_len = wire_epoch_payload_len(&wire),
    };
    wire_header_encode(&header, head);
    wire_epoch_encode(&wire, fixed);
    uint32_t crc = crc32c(0, fixed, sizeof fixed);
    crc = crc32c(crc, tcp->encoder.index.at, tcp->encoder.index.len);
    crc = crc32c(crc, tcp->encoder.delta.at, wire.delta_len);
    struct iovec front[4] = {{head, sizeof head},
                             {fixed, sizeof fixed},
                             {tcp->encoder.index.at, tcp->encoder.index.len},
                             {tcp->encoder.delta.at, wire.delta_len}};
    status = send_all(tcp, front, 4, true);
    if (status == 0)
        status = send_pages(tcp, staging, epoch, &crc);
    if (status < 0)
        return status;
    struct wire_commit commit = {
        .crc = crc, .term = term, .epoch = epoch->epoch, .npages = wire.npages, .ndata = wire.ndata};
    wire_commit_encode(&commit, tail);
    struct iovec back = {tail, sizeof tail};
    status = send_all(tcp, &back, 1, false);
    if (status == 0)
        atomic_fetch_add_explicit(&tcp->epochs_sent, 1, memory_order_relaxed);
    return status;
}

static int tcp_send_epoch(struct transport *t, uint64_t term, const struct staging *staging,
                          const struct staged_epoch *epoch)
{
    struct tcp *tcp = tcp_of(t);
    pthread_mutex_lock(&tcp->send_lock);
    int status = send_epoch_locked(tcp, term, staging, epoch);
    pthread_mutex_unlock(&tcp->send_lock);
    return status;
}

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

/* Opens an epoch with its slots, once the applier has returned enough pages. Bounded by stall_ms. */
static struct staged_epoch *begin_received(struct tcp *tcp, struct staging *staging,
                                           const struct wire_header *header, const struct wire_epoch *wire,
                                           int *status)
{
    uint64_t until = now_ns() + (uint64_t)tcp->stall_ms * 1000000;
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

/* Receives page bytes straight into the ring: at most two runs, since the slots are consecutive. */
static int receive_pages(struct tcp *tcp, const struct staging *staging, const struct staged_epoch *epoch,
                         uint32_t npages, uint32_t *crc)
{
    uint32_t capacity = staging_capacity_pages(staging);
    uint32_t before_wrap = MIN(npages, capacity - epoch->first_slot);
    uint32_t runs[2][2] = {{epoch->first_slot, before_wrap}, {0, npages - before_wrap}};
    for (int i = 0; i < 2; i++) {
        /* In pieces: the CRC is taken while the bytes are in the cache. */
        for (uint32_t done = 0; done < runs[i][1];) {
            uint32_t n = MIN(runs[i][1] - done, 64u);
            uint8_t *at = staging_slot(staging, runs[i][0] + done);
            int status = receive_bytes(tcp, at, (size_t)n * WIRE_PAGE_LEN);
            if (status < 0)
                return status;
            *crc = crc32c(*crc, at, (size_t)n * WIRE_PAGE_LEN);
            done += n;
        }
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
    int status = receive_bytes(tcp, tcp->payload.at, index_len + wire->delta_len);
    if (status == 0)
        status = epoch_take_index(staging, epoch, wire, tcp->payload.at, epoch->first_slot);
    if (status < 0)
        return status;
    crc = crc32c(crc, tcp->payload.at, index_len + wire->delta_len);
    status = receive_pages(tcp, staging, epoch, ring_pages(wire), &crc);
    if (status == 0)
        status = receive_bytes(tcp, tail, sizeof tail);
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
    int status = receive_bytes(tcp, fixed, sizeof fixed);
    if (status == 0)
        status = wire_epoch_decode(&wire, fixed, header->payload_len, staging_capacity_pages(staging),
                                   EPOCH_MAX_DELTA);
    if (status < 0)
        return status;
    struct staged_epoch *epoch = begin_received(tcp, staging, header, &wire, &status);
    if (!epoch)
        return status;
    status = receive_parts(tcp, staging, epoch, header, &wire, crc32c(0, fixed, sizeof fixed));
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
    struct iovec iov = {head, sizeof head};
    memset(out, 0, sizeof *out);
    int status = receive_all(tcp, &iov, 1, true);
    if (status == 0)
        status = wire_header_decode(&header, head);
    if (status < 0)
        return status;
    out->message = (struct transport_message){.type = (enum message_type)header.type,
                                              .arg = header.arg,
                                              .term = header.term,
                                              .epoch = header.epoch};
    if (header.type == MESSAGE_EPOCH)
        return receive_epoch(tcp, staging, &header, out);
    if (header.payload_len > TRANSPORT_MAX_PAYLOAD)
        return -EPROTO;
    bytes_make_room(&tcp->payload, header.payload_len + 1);
    status = receive_bytes(tcp, tcp->payload.at, header.payload_len);
    if (status < 0)
        return status;
    if (crc32c(0, tcp->payload.at, header.payload_len) != header.payload_crc)
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
    .send_epoch = tcp_send_epoch,
    .epochs_done = tcp_epochs_done,
    .done_fd = tcp_done_fd,
    .flush = tcp_flush,
    .send_message = tcp_send_message,
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
