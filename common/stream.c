/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Plain streams, and what all kinds of stream have in common (stream.h). */
#include "common/stream.h"

#include <errno.h>
#include <glib.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

static int plain_handshake(struct stream *stream)
{
    (void)stream;
    return 1;
}

static ssize_t plain_result(struct stream *stream, ssize_t n, short wants)
{
    if (n >= 0)
        return n;
    stream->wants = wants;
    return errno == EINTR || errno == EWOULDBLOCK ? -EAGAIN : -errno;
}

static ssize_t plain_read(struct stream *stream, void *data, size_t len)
{
    return plain_result(stream, recv(stream->fd, data, len, MSG_DONTWAIT), POLLIN);
}

static ssize_t plain_write(struct stream *stream, const void *data, size_t len)
{
    return plain_result(stream, send(stream->fd, data, len, MSG_DONTWAIT | MSG_NOSIGNAL), POLLOUT);
}

static size_t plain_buffered(struct stream *stream)
{
    (void)stream;
    return 0;
}

static void plain_release(struct stream *stream)
{
    g_free(stream);
}

const struct stream_ops stream_plain = {
    .handshake = plain_handshake,
    .read = plain_read,
    .write = plain_write,
    .buffered = plain_buffered,
    .release = plain_release,
};

struct stream *stream_new_plain(int fd)
{
    struct stream *stream = g_new0(struct stream, 1);
    stream->ops = &stream_plain;
    stream->fd = fd;
    return stream;
}

void stream_close(struct stream *stream)
{
    if (!stream)
        return;
    int fd = stream->fd;
    stream->ops->release(stream);
    close(fd);
}

int stream_handshake(struct stream *stream)
{
    return stream->ops->handshake(stream);
}

ssize_t stream_read(struct stream *stream, void *data, size_t len)
{
    return stream->ops->read(stream, data, len);
}

ssize_t stream_write(struct stream *stream, const void *data, size_t len)
{
    return stream->ops->write(stream, data, len);
}

int stream_wait(struct stream *stream, short events, int timeout_ms)
{
    struct pollfd pfd = {.fd = stream->fd, .events = events ? events : stream->wants};
    if (events == POLLIN && stream->ops->buffered(stream) > 0)
        return 1;
    int n = poll(&pfd, 1, timeout_ms);
    if (n < 0)
        return errno == EINTR ? 0 : -errno;
    return n;
}

int stream_handshake_until(struct stream *stream, int64_t until_us)
{
    for (;;) {
        int status = stream_handshake(stream);
        gint64 left_us = until_us - g_get_monotonic_time();
        if (status > 0)
            return 0;
        if (status != -EAGAIN)
            return status;
        if (left_us <= 0)
            return -ETIMEDOUT;
        status = stream_wait(stream, 0, (int)(left_us / 1000) + 1);
        if (status < 0)
            return status;
    }
}
