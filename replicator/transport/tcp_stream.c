/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The bytes of a TCP connection. The socket does not block; every wait is a poll of at most stall_ms. Only a
 * peer that synchronises may take nothing for longer.
 *
 * A sealed connection carries the bytes of a plain one in records (proto/seal.h), each followed by its tag:
 * a header, then the message's parts in pieces of SEAL_SEGMENT_LEN. They are sealed into a buffer, since the
 * plain pages are needed for longer, and opened where they are to be. The label of a record is the type, term
 * and epoch of its header, and its place after the header.
 */
#include <errno.h>
#include <glib.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "replicator/transport/tcp_internal.h"

#define IDLE_POLL_MS     3000
#define PROBES_UNDER_WAY 1 /* one may have been sent just now */

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

/*
 * Whether the peer's kernel has all that was sent, or has answered of late: then it is the peer that takes
 * nothing. What is no TCP socket (in tests) cannot tell.
 */
static bool network_is_well(const struct tcp *tcp)
{
    struct tcp_info info = {0};
    socklen_t len = sizeof info;
    return getsockopt(tcp->fd, IPPROTO_TCP, TCP_INFO, &info, &len) < 0 ||
           (info.tcpi_unacked == 0 && info.tcpi_probes <= PROBES_UNDER_WAY) ||
           info.tcpi_last_ack_recv < tcp->stall_ms;
}

/* Waits until the peer has taken something: 0, -ETIMEDOUT or -ENOTCONN. */
static int wait_for_room(struct tcp *tcp)
{
    int status = wait_ready(tcp, POLLOUT, tcp->stall_ms);
    for (unsigned i = 1; i < tcp->stalls && status == -ETIMEDOUT && network_is_well(tcp); i++)
        status = wait_ready(tcp, POLLOUT, tcp->stall_ms);
    return status;
}

int tcp_stream_send(struct tcp *tcp, struct iovec *iov, int count, bool more)
{
    while (count > 0) {
        struct msghdr message = {.msg_iov = iov, .msg_iovlen = (size_t)count};
        ssize_t n = sendmsg(tcp->fd, &message, MSG_NOSIGNAL | (more ? MSG_MORE : 0));
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            int status = wait_for_room(tcp);
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

/* The label of the records after a header. */
struct seal_label tcp_stream_label(const struct wire_header *header)
{
    return (struct seal_label){
        .kind = header->type, .segment = 1, .term = header->term, .epoch = header->epoch};
}

int tcp_stream_flush(struct tcp *tcp, bool more)
{
    struct iovec iov = {tcp->sealed, tcp->sealed_len};
    tcp->sealed_len = 0;
    return iov.iov_len ? tcp_stream_send(tcp, &iov, 1, more) : 0;
}

/* Seals a record of at most SEAL_SEGMENT_LEN bytes. It is sent when the buffer is full, or with
 * tcp_stream_flush.
 */
int tcp_stream_seal(struct tcp *tcp, const struct iovec *iov, int count)
{
    size_t len = SEAL_TAG_LEN;
    for (int i = 0; i < count; i++)
        len += iov[i].iov_len;
    int status = len > SEALED_LEN - tcp->sealed_len ? tcp_stream_flush(tcp, true) : 0;
    if (status == 0)
        status = seal_close_to(tcp->out, &tcp->out_label, iov, count, tcp->sealed + tcp->sealed_len);
    if (status < 0)
        return status;
    tcp->out_label.segment++;
    tcp->sealed_len += len;
    return 0;
}

int tcp_stream_seal_part(struct tcp *tcp, const uint8_t *at, size_t len)
{
    int status = 0;
    for (size_t done = 0, n; status == 0 && done < len; done += n) {
        n = MIN(len - done, SEAL_SEGMENT_LEN);
        const struct iovec iov = {(void *)(at + done), n};
        status = tcp_stream_seal(tcp, &iov, 1);
    }
    return status;
}

/* Seals a header. The parts of its message are to follow. */
int tcp_stream_seal_header(struct tcp *tcp, const struct wire_header *header, const uint8_t *head)
{
    tcp->sealed_len = 0; /* of a message that could not be sent whole: the connection is over */
    tcp->out_label = (struct seal_label){0};
    int status = tcp_stream_seal_part(tcp, head, WIRE_HEADER_LEN);
    tcp->out_label = tcp_stream_label(header);
    return status;
}

/* Receives a part of a message and opens it, where it is sealed. It may lie in two pieces. */
int tcp_stream_receive(struct tcp *tcp, const struct iovec *pieces, int count, bool may_idle)
{
    uint8_t tag[SEAL_TAG_LEN];
    struct iovec iov[3];
    memcpy(iov, pieces, (size_t)count * sizeof *iov);
    iov[count] = (struct iovec){tag, sizeof tag};
    int status = receive_all(tcp, iov, tcp->in ? count + 1 : count, may_idle);
    if (status == 0 && tcp->in)
        status = seal_open(tcp->in, &tcp->in_label, pieces, count, tag);
    tcp->in_label.segment++;
    return status;
}

/* Receives a part of a message, in as many records as it takes. */
int tcp_stream_receive_part(struct tcp *tcp, uint8_t *at, size_t len)
{
    int status = 0;
    for (size_t done = 0, n; status == 0 && done < len; done += n) {
        n = tcp->in ? MIN(len - done, SEAL_SEGMENT_LEN) : len;
        const struct iovec iov = {at + done, n};
        status = tcp_stream_receive(tcp, &iov, 1, false);
    }
    return status;
}
