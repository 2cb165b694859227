/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One of QEMU's frame sockets: a stream of frames, each with a 4-byte big-endian length before it
 * (net/filter-mirror.c). The control thread reads it; the capture thread may, at any moment and without a
 * lock, fix a boundary: the stream offset up to which QEMU has written. While the guest stands still that is
 * the exact end of what it has sent.
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
    _Atomic uint64_t total; /* bytes taken out of the socket, ever */
    /* Capture thread writes; slot epoch % FRAME_STREAM_EPOCHS. */
    _Alignas(64) struct {
        _Atomic uint64_t epoch, offset;
    } boundaries[FRAME_STREAM_EPOCHS];
    _Atomic uint64_t newest_epoch;
    /* Control thread only: a frame may arrive in pieces. */
    uint8_t *buffer;
    size_t used;
    uint64_t parsed; /* stream offset of buffer[0] */
};

/* Calls for each whole frame, head included; end is its end offset in the stream. */
typedef void (*frame_taken)(void *opaque, const uint8_t *frame, size_t len, uint64_t end);

/* Takes over fd, which must not block. */
void frame_stream_open(struct frame_stream *stream, int fd);
void frame_stream_close(struct frame_stream *stream);
/* Control thread: reads what is there. 0, -ENOTCONN (QEMU closed it) or -EPROTO (not frames). */
int frame_stream_read(struct frame_stream *stream, frame_taken taken, void *opaque);
/* Capture thread, guest paused: everything written so far belongs to epochs <= epoch. One system call. */
void frame_stream_boundary(struct frame_stream *stream, uint64_t epoch);
/* Control thread, once the epoch is known to be cut: its boundary, or 0 if there is none. */
uint64_t frame_stream_end_of(const struct frame_stream *stream, uint64_t epoch);
/* Control thread: the epoch that a frame ending at end belongs to, or a later one. */
uint64_t frame_stream_epoch_at(const struct frame_stream *stream, uint64_t end);

#endif
