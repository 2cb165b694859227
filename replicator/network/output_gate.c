/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Each NIC has a byte ring with the frames as they came (length included, so that releasing is a plain
 * write), and a ring of frame ends. Frames leave in order, up to the NIC's release offset. Modes and epochs
 * change only that offset:
 *
 *   pass   the offset is infinite
 *   hold   gate_release moves it to the epoch's boundary
 *   drop   nothing is stored any more
 */
#include "replicator/network/output_gate.h"

#include <errno.h>
#include <glib-unix.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "replicator/network/frame_stream.h"

#define FRAMES_MAX 16384u

enum gate_mode { GATE_PASS, GATE_HOLD, GATE_DROP };

struct held_frame {
    uint64_t end; /* stream offset */
    gint64 since_us;
    uint32_t len;
};

struct gate_nic {
    struct output_gate *gate;
    struct frame_stream stream;
    int in_fd;
    guint read_source, write_source;
    uint64_t release_to; /* stream offset */
    uint8_t *ring;
    uint64_t head, tail; /* bytes put and taken, ever */
    struct held_frame *frames;
    uint32_t frame_head, frame_tail;
    uint32_t partly_written; /* bytes of the oldest frame that are out already */
    bool cut;                /* dropped in mid-frame: whatever followed would be read as its rest */
};

struct output_gate {
    enum gate_mode mode;
    uint32_t hold_len;
    unsigned nnics;
    struct gate_nic *nics[GATE_MAX_NICS];
    struct gate_stats stats;
    struct histogram *hold_us;
};

struct output_gate *gate_new(uint32_t hold_len)
{
    struct output_gate *gate = g_new0(struct output_gate, 1);
    gate->hold_len = hold_len;
    gate->hold_us = histogram_new();
    return gate;
}

static void close_nic(struct gate_nic *nic)
{
    g_clear_handle_id(&nic->read_source, g_source_remove);
    g_clear_handle_id(&nic->write_source, g_source_remove);
    frame_stream_close(&nic->stream);
    close(nic->in_fd);
    g_free(nic->ring);
    g_free(nic->frames);
    g_aligned_free(nic);
}

void gate_free(struct output_gate *gate)
{
    if (!gate)
        return;
    for (unsigned i = 0; i < gate->nnics; i++)
        close_nic(gate->nics[i]);
    histogram_free(gate->hold_us);
    g_free(gate);
}

static void store(struct gate_nic *nic, const uint8_t *bytes, uint32_t len)
{
    uint32_t capacity = nic->gate->hold_len, at = (uint32_t)(nic->head % capacity);
    uint32_t first = MIN(len, capacity - at);
    memcpy(nic->ring + at, bytes, first);
    memcpy(nic->ring, bytes + first, len - first);
    nic->head += len;
}

static void on_frame(void *opaque, const uint8_t *frame, size_t len, uint64_t end)
{
    struct gate_nic *nic = opaque;
    struct output_gate *gate = nic->gate;
    bool full =
        nic->head - nic->tail + len > gate->hold_len || nic->frame_head - nic->frame_tail == FRAMES_MAX;
    if (gate->mode == GATE_DROP || nic->cut || full) {
        gate->stats.frames_dropped++;
        return;
    }
    store(nic, frame, (uint32_t)len);
    nic->frames[nic->frame_head++ % FRAMES_MAX] =
        (struct held_frame){.end = end, .since_us = g_get_monotonic_time(), .len = (uint32_t)len};
}

/* Writes part of the oldest frame's rest. False when the socket is full or gone. */
static bool write_some(struct gate_nic *nic, uint32_t len)
{
    uint32_t capacity = nic->gate->hold_len, at = (uint32_t)(nic->tail % capacity);
    uint32_t n = MIN(len - nic->partly_written, capacity - at);
    ssize_t written = send(nic->in_fd, nic->ring + at, n, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (written <= 0)
        return false;
    nic->tail += (uint64_t)written;
    nic->partly_written += (uint32_t)written;
    return true;
}

static gboolean on_writable(gint fd, GIOCondition condition, gpointer opaque);

static void flush(struct gate_nic *nic)
{
    struct output_gate *gate = nic->gate;
    gint64 now = g_get_monotonic_time();
    while (nic->frame_tail != nic->frame_head) {
        const struct held_frame *frame = &nic->frames[nic->frame_tail % FRAMES_MAX];
        if (frame->end > nic->release_to)
            return;
        while (nic->partly_written < frame->len) {
            if (write_some(nic, frame->len))
                continue;
            if (!nic->write_source)
                nic->write_source = g_unix_fd_add(nic->in_fd, G_IO_OUT, on_writable, nic);
            return;
        }
        nic->partly_written = 0;
        nic->frame_tail++;
        gate->stats.frames_released++;
        gate->stats.bytes_released += frame->len;
        histogram_record(gate->hold_us, (uint64_t)MAX(now - frame->since_us, 0));
    }
}

static gboolean on_writable(gint fd, GIOCondition condition, gpointer opaque)
{
    struct gate_nic *nic = opaque;
    (void)fd;
    nic->write_source = 0;
    if (!(condition & (G_IO_ERR | G_IO_HUP)))
        flush(nic);
    return G_SOURCE_REMOVE;
}

static gboolean on_readable(gint fd, GIOCondition condition, gpointer opaque)
{
    struct gate_nic *nic = opaque;
    (void)fd;
    (void)condition;
    int status = frame_stream_read(&nic->stream, on_frame, nic);
    flush(nic);
    if (status == 0)
        return G_SOURCE_CONTINUE;
    if (status == -EPROTO)
        g_warning("QEMU sent something that is not a frame; this NIC's output is cut off");
    nic->read_source = 0;
    return G_SOURCE_REMOVE;
}

int gate_add_nic(struct output_gate *gate, int out_fd, int in_fd)
{
    if (gate->nnics == GATE_MAX_NICS)
        return -E2BIG;
    uint8_t *ring = g_try_malloc(gate->hold_len);
    if (!ring)
        return -ENOMEM;
    struct gate_nic *nic = g_aligned_alloc0(1, sizeof *nic, _Alignof(struct gate_nic));
    nic->gate = gate;
    nic->in_fd = in_fd;
    nic->release_to = gate->mode == GATE_PASS ? UINT64_MAX : 0;
    nic->ring = ring;
    nic->frames = g_new0(struct held_frame, FRAMES_MAX);
    frame_stream_open(&nic->stream, out_fd);
    nic->read_source =
        g_unix_fd_add_full(G_PRIORITY_HIGH, out_fd, G_IO_IN | G_IO_HUP, on_readable, nic, NULL);
    gate->nics[gate->nnics++] = nic;
    return 0;
}

void gate_pass_all(struct output_gate *gate)
{
    gate->mode = GATE_PASS;
    for (unsigned i = 0; i < gate->nnics; i++) {
        gate->nics[i]->release_to = UINT64_MAX;
        flush(gate->nics[i]);
    }
}

void gate_hold(struct output_gate *gate)
{
    if (gate->mode == GATE_HOLD)
        return;
    gate->mode = GATE_HOLD;
    for (unsigned i = 0; i < gate->nnics; i++)
        gate->nics[i]->release_to = gate->nics[i]->stream.parsed; /* what was let out already */
}

void gate_drop(struct output_gate *gate)
{
    gate->mode = GATE_DROP;
    for (unsigned i = 0; i < gate->nnics; i++) {
        struct gate_nic *nic = gate->nics[i];
        gate->stats.frames_dropped += nic->frame_head - nic->frame_tail;
        nic->frame_tail = nic->frame_head;
        nic->tail = nic->head;
        nic->cut |= nic->partly_written > 0;
        nic->partly_written = 0;
        nic->release_to = 0;
    }
}

void gate_release(struct output_gate *gate, uint64_t epoch)
{
    if (gate->mode != GATE_HOLD)
        return;
    for (unsigned i = 0; i < gate->nnics; i++) {
        struct gate_nic *nic = gate->nics[i];
        uint64_t end = frame_stream_end_of(&nic->stream, epoch);
        if (end > nic->release_to)
            nic->release_to = end;
        flush(nic);
    }
}

void gate_boundary(struct output_gate *gate, uint64_t epoch)
{
    for (unsigned i = 0; i < gate->nnics; i++)
        frame_stream_boundary(&gate->nics[i]->stream, epoch);
}

void gate_get_stats(const struct output_gate *gate, struct gate_stats *out)
{
    *out = gate->stats;
    out->bytes_held = 0;
    for (unsigned i = 0; i < gate->nnics; i++)
        out->bytes_held += gate->nics[i]->head - gate->nics[i]->tail;
}

void gate_reset_hold(struct output_gate *gate)
{
    histogram_reset_soon(gate->hold_us);
}

const struct histogram *gate_hold_us(const struct output_gate *gate)
{
    return gate->hold_us;
}
