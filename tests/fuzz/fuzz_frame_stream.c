/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * libFuzzer target: QEMU's frame socket. The input is the stream, written in pieces whose length is its first
 * byte. Frames must come in order, without gap or overlap, and exactly as written, up to the first nonsense.
 * A boundary is fixed after each piece, before it is read or after it, and must be where the writer is.
 */
#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "replicator/network/frame_stream.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct expected {
    const uint8_t *stream;
    size_t written, taken;
};

static void on_frame(void *opaque, const uint8_t *frame, size_t len, uint64_t end)
{
    struct expected *expected = opaque;
    uint32_t head;
    assert(len > FRAME_HEAD_LEN && len <= FRAME_HEAD_LEN + FRAME_MAX_LEN);
    memcpy(&head, frame, sizeof head);
    assert(be32toh(head) == len - FRAME_HEAD_LEN);
    assert(end == expected->taken + len && end <= expected->written);
    assert(memcmp(frame, expected->stream + expected->taken, len) == 0);
    expected->taken = end;
}

/* Puts one piece through. False once the stream is found to be nonsense. */
static int put(struct frame_stream *stream, int fd, struct expected *expected, size_t len, uint64_t epoch)
{
    ssize_t n = write(fd, expected->stream + expected->written, len);
    assert(n == (ssize_t)len);
    expected->written += len;
    if (epoch % 2)
        frame_stream_boundary(stream, epoch);
    int status = frame_stream_read(stream, on_frame, expected);
    if (epoch % 2 == 0)
        frame_stream_boundary(stream, epoch);
    assert(frame_stream_end_of(stream, epoch) == expected->written);
    assert(frame_stream_epoch_at(stream, expected->written) == epoch);
    assert(frame_stream_epoch_at(stream, expected->written + 1) == epoch + 1);
    assert(status == 0 || status == -EPROTO);
    return status == 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    _Alignas(64) struct frame_stream stream;
    int fds[2];
    if (size < 2)
        return 0;
    size_t piece = (size_t)data[0] + 1;
    struct expected expected = {.stream = data + 1};
    int made = socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds);
    assert(made == 0);
    frame_stream_open(&stream, fds[0]);
    for (uint64_t epoch = 1; expected.written < size - 1; epoch++) {
        size_t left = size - 1 - expected.written;
        if (!put(&stream, fds[1], &expected, left < piece ? left : piece, epoch))
            break;
    }
    close(fds[1]);
    frame_stream_close(&stream);
    return 0;
}
