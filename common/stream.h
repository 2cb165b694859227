/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A connection as the framing sees it: bytes in, bytes out, and an end. A plain stream is a socket; a TLS
 * stream (daemon/trust/tls.h) adds a handshake and encryption. Code above cannot tell one from the other.
 *
 * No function here blocks, except stream_wait. A stream belongs to one thread at a time.
 */
#ifndef UNDERSTUDY_COMMON_STREAM_H
#define UNDERSTUDY_COMMON_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define STREAM_KEY_LEN 32u

struct stream;

struct stream_ops {
    /* 1: done. -EAGAIN: wait for stream->wants. Another -errno: the stream is of no use. */
    int (*handshake)(struct stream *stream);
    ssize_t (*read)(struct stream *stream, void *data, size_t len);
    ssize_t (*write)(struct stream *stream, const void *data, size_t len);
    /* Bytes that can be read although the socket is empty. */
    size_t (*buffered)(struct stream *stream);
    /* Ends the stream in order and frees it, without closing stream->fd. */
    void (*release)(struct stream *stream);
};

struct stream {
    const struct stream_ops *ops;
    int fd;
    short wants;        /* POLLIN or POLLOUT: what the last call that returned -EAGAIN waits for */
    const uint8_t *key; /* the other end's public key (STREAM_KEY_LEN bytes); NULL: it has shown none */
    const char *why;    /* after a failure: a part of a sentence for the user, or NULL; the stream's */
};

extern const struct stream_ops stream_plain;
/* A plain stream on a socket of the caller's, for the length of one expression or block. */
#define STREAM_FD(socket_fd) (&(struct stream){.ops = &stream_plain, .fd = (socket_fd)})

/* Makes a plain stream, which takes over fd. Free with stream_close. */
struct stream *stream_new_plain(int fd);
/* Ends the stream in order, closes its socket, and frees it. NULL is allowed. */
void stream_close(struct stream *stream);

/* Takes the handshake one step on. 1: done; -EAGAIN; another -errno. */
int stream_handshake(struct stream *stream);
/* Does the whole handshake, until the monotonic time until_us (g_get_monotonic_time). Blocks. 0 or -errno. */
int stream_handshake_until(struct stream *stream, int64_t until_us);
/* Reads up to len bytes. 0: the other end has ended the stream in order. -EAGAIN; another -errno, also for a
 * stream that was cut. */
ssize_t stream_read(struct stream *stream, void *data, size_t len);
/* Writes up to len bytes. After -EAGAIN the next call must begin with the same bytes. */
ssize_t stream_write(struct stream *stream, const void *data, size_t len);
/* Waits until the stream can go on with what returned -EAGAIN, or, if `events` is POLLIN or POLLOUT, until it
 * can be read or written. 1; 0: not within timeout_ms; -errno. */
int stream_wait(struct stream *stream, short events, int timeout_ms);

#endif
