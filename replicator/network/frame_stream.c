/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How a boundary is found without a lock. The offset at a boundary is what was read plus what the socket
 * still holds (SIOCINQ). A read moves bytes from the one to the other, so both are read together under a
 * sequence count, as readers of a seqlock do: the reading thread makes the count odd for the length of one
 * recv that cannot block.
 */
#include "replicator/network/frame_stream.h"

#include <endian.h>
#include <errno.h>
#include <glib.h>
#include <linux/sockios.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define BUFFER_LEN (FRAME_HEAD_LEN + FRAME_MAX_LEN + FRAME_STREAM_READ_LEN)

void frame_stream_open(struct frame_stream *stream, int fd)
{
    memset(stream, 0, sizeof *stream);
    stream->fd = fd;
    stream->buffer = g_malloc(BUFFER_LEN);
}

void frame_stream_close(struct frame_stream *stream)
{
    if (stream->buffer)
        close(stream->fd);
    g_free(stream->buffer);
    stream->buffer = NULL;
}

static ssize_t take_bytes(struct frame_stream *stream)
{
    atomic_fetch_add_explicit(&stream->reading, 1, memory_order_acq_rel);
    ssize_t n = recv(stream->fd, stream->buffer + stream->used, FRAME_STREAM_READ_LEN, MSG_DONTWAIT);
    if (n > 0)
        atomic_fetch_add_explicit(&stream->total, (uint64_t)n, memory_order_relaxed);
    atomic_fetch_add_explicit(&stream->reading, 1, memory_order_release);
    if (n > 0)
        stream->used += (size_t)n;
    return n;
}

static int parse(struct frame_stream *stream, frame_taken taken, void *opaque)
{
    size_t at = 0;
    while (stream->used - at >= FRAME_HEAD_LEN) {
        uint32_t len;
        memcpy(&len, stream->buffer + at, sizeof len);
        len = be32toh(len);
        if (len == 0 || len > FRAME_MAX_LEN)
            return -EPROTO;
        if (stream->used - at < FRAME_HEAD_LEN + len)
            break;
        at += FRAME_HEAD_LEN + len;
        taken(opaque, stream->buffer + at - len - FRAME_HEAD_LEN, FRAME_HEAD_LEN + len, stream->parsed + at);
    }
    memmove(stream->buffer, stream->buffer + at, stream->used - at);
    stream->used -= at;
    stream->parsed += at;
    return 0;
}

int frame_stream_read(struct frame_stream *stream, frame_taken taken, void *opaque)
{
    /* Bounded, so that one busy NIC cannot keep the control thread. */
    for (int round = 0; round < 8; round++) {
        ssize_t n = take_bytes(stream);
        if (n < 0)
            return errno == EAGAIN || errno == EINTR ? 0 : -ENOTCONN;
        if (n == 0)
            return -ENOTCONN;
        int status = parse(stream, taken, opaque);
        if (status < 0)
            return status;
    }
    return 0;
}

static uint64_t written_so_far(struct frame_stream *stream)
{
    for (unsigned tries = 0;; tries++) {
        uint32_t before = atomic_load_explicit(&stream->reading, memory_order_acquire);
        uint64_t total = atomic_load_explicit(&stream->total, memory_order_relaxed);
        int unread = 0;
        if (ioctl(stream->fd, SIOCINQ, &unread) < 0)
            unread = 0;
        atomic_thread_fence(memory_order_acquire);
        if (!(before & 1) && atomic_load_explicit(&stream->reading, memory_order_relaxed) == before)
            return total + (uint64_t)unread;
        if (tries > 100)
            sched_yield(); /* the reader lost its processor in the middle of a recv */
    }
}

void frame_stream_boundary(struct frame_stream *stream, uint64_t epoch)
{
    uint64_t offset = written_so_far(stream);
    unsigned slot = epoch % FRAME_STREAM_EPOCHS;
    /* Clears the epoch first: the new offset must not be taken for that of the epoch that was here. */
    atomic_store_explicit(&stream->boundaries[slot].epoch, 0, memory_order_relaxed);
    atomic_store_explicit(&stream->boundaries[slot].offset, offset, memory_order_release);
    atomic_store_explicit(&stream->boundaries[slot].epoch, epoch, memory_order_release);
    atomic_store_explicit(&stream->newest_epoch, epoch, memory_order_release);
}

uint64_t frame_stream_end_of(const struct frame_stream *stream, uint64_t epoch)
{
    unsigned slot = epoch % FRAME_STREAM_EPOCHS;
    if (atomic_load_explicit(&stream->boundaries[slot].epoch, memory_order_acquire) != epoch)
        return 0;
    /* Acquire, against the release above: a reader of a newer offset also sees that the epoch is gone. */
    uint64_t offset = atomic_load_explicit(&stream->boundaries[slot].offset, memory_order_acquire);
    return atomic_load_explicit(&stream->boundaries[slot].epoch, memory_order_relaxed) == epoch ? offset : 0;
}

uint64_t frame_stream_epoch_at(const struct frame_stream *stream, uint64_t end)
{
    uint64_t newest = atomic_load_explicit(&stream->newest_epoch, memory_order_acquire);
    return end <= frame_stream_end_of(stream, newest) ? newest : newest + 1;
}
