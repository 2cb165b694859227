/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Reads one of QEMU's frame sockets: a stream of frames, each with a 4-byte big-endian length before it
 * (net/filter-mirror.c). The control thread reads the stream. The capture thread may mark a boundary at any
 * time and without a lock: the stream offset up to which QEMU has written. While the guest stands still, this
 * is the exact end of what the guest has sent.
 */
#ifndef UNDERSTUDY_REPLICATOR_FRAME_STREAM_H
#define UNDERSTUDY_REPLICATOR_FRAME_STREAM_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define FRAME_HEAD_LEN        4u
#define FRAME_MAX_LEN         (256u << 10)
#define FRAME_STREAM_EPOCHS   64u /* boundaries kept; more unacked epochs than this are never in flight */
#define FRAME_STREAM_READ_LEN (256u << 10)

struct frame_stream {
    int fd;
    /* Control thread writes; odd while a read is under way. */
    _Alignas(64) _Atomic uint32_t reading;
    _Atomic uint64_t total; /* bytes ever read from the socket */
    /* Capture thread writes; slot epoch % FRAME_STREAM_EPOCHS. */
    _Alignas(64) struct {
        _Atomic uint64_t epoch, offset;
    } boundaries[FRAME_STREAM_EPOCHS];
    _Atomic uint64_t newest_epoch;
    /* Control thread only: the part of a frame that has come so far. */
    uint8_t *buffer;
    size_t used;
    uint64_t parsed; /* stream offset of buffer[0] */
};

/* Called with each whole frame, its length included; end is its end offset in the stream. */
typedef void (*frame_taken)(void *opaque, const uint8_t *frame, size_t len, uint64_t end);

/* Initialises the stream; takes over fd, which must be non-blocking. */
void frame_stream_open(struct frame_stream *stream, int fd);
/* Closes the socket and frees the buffer. */
void frame_stream_close(struct frame_stream *stream);
/* Reads what is there. Returns 0, -ENOTCONN (QEMU closed the socket) or -EPROTO (these are not frames).
 * Control thread. */
int frame_stream_read(struct frame_stream *stream, frame_taken taken, void *opaque);
/* Marks the end of the epoch: everything written so far belongs to it or to earlier epochs. One system call.
 * Capture thread, with the guest paused. */
void frame_stream_boundary(struct frame_stream *stream, uint64_t epoch);
/* Returns the boundary of an epoch that was cut, or 0 if there is none. Control thread. */
uint64_t frame_stream_end_of(const struct frame_stream *stream, uint64_t epoch);
/* Returns the epoch to which a frame that ends at `end` belongs, or a later epoch. Control thread. */
uint64_t frame_stream_epoch_at(const struct frame_stream *stream, uint64_t end);

#endif
