/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Copies of received frames, kept for each NIC. On the primary, frames from QEMU's mirror go to the sender,
 * up to a number of frames and bytes in each epoch. On the secondary they wait in a queue, oldest first,
 * until their epoch is acked. What comes to a full queue is dropped.
 */
#include "replicator/network/input_log.h"

#include <endian.h>
#include <errno.h>
#include <glib-unix.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "replicator/network/frame_stream.h"

#define MAX_NICS         16u
#define EPOCH_MAX_FRAMES 64u
#define EPOCH_MAX_BYTES  (64u << 10)
#define KEPT_MAX_BYTES   (256u << 10)

struct kept_frame {
    uint64_t epoch;
    size_t len;
    uint8_t bytes[];
};

struct log_nic {
    struct input_log *log;
    unsigned index;
    struct frame_stream stream;
    int inject_fd;
    guint source;
    uint64_t epoch; /* the caps below are for this one */
    uint32_t frames, bytes;
    GQueue kept; /* struct kept_frame, oldest first */
    size_t kept_bytes;
};

struct input_log {
    input_log_send send;
    void *opaque;
    bool active;
    unsigned nnics;
    struct log_nic *nics[MAX_NICS];
};

struct input_log *input_log_new(input_log_send send, void *opaque)
{
    struct input_log *log = g_new0(struct input_log, 1);
    log->send = send;
    log->opaque = opaque;
    return log;
}

static void forget(struct log_nic *nic)
{
    g_queue_clear_full(&nic->kept, g_free);
    nic->kept_bytes = 0;
}

void input_log_free(struct input_log *log)
{
    if (!log)
        return;
    for (unsigned i = 0; i < log->nnics; i++) {
        struct log_nic *nic = log->nics[i];
        g_clear_handle_id(&nic->source, g_source_remove);
        forget(nic);
        frame_stream_close(&nic->stream);
        close(nic->inject_fd);
        g_aligned_free(nic);
    }
    g_free(log);
}

static void on_frame(void *opaque, const uint8_t *frame, size_t len, uint64_t end)
{
    struct log_nic *nic = opaque;
    uint64_t epoch = frame_stream_epoch_at(&nic->stream, end);
    if (epoch != nic->epoch) {
        nic->epoch = epoch;
        nic->frames = nic->bytes = 0;
    }
    if (!nic->log->active || nic->frames >= EPOCH_MAX_FRAMES || nic->bytes + len > EPOCH_MAX_BYTES)
        return;
    nic->frames++;
    nic->bytes += (uint32_t)len;
    nic->log->send(nic->log->opaque, nic->index, epoch, frame, len);
}

static gboolean on_readable(gint fd, GIOCondition condition, gpointer opaque)
{
    struct log_nic *nic = opaque;
    (void)fd;
    (void)condition;
    if (frame_stream_read(&nic->stream, on_frame, nic) == 0)
        return G_SOURCE_CONTINUE;
    nic->source = 0;
    return G_SOURCE_REMOVE;
}

int input_log_add_nic(struct input_log *log, int mirror_fd, int inject_fd)
{
    if (log->nnics == MAX_NICS)
        return -E2BIG;
    struct log_nic *nic = g_aligned_alloc0(1, sizeof *nic, _Alignof(struct log_nic));
    nic->log = log;
    nic->index = log->nnics;
    nic->inject_fd = inject_fd;
    g_queue_init(&nic->kept);
    frame_stream_open(&nic->stream, mirror_fd);
    nic->source = g_unix_fd_add_full(G_PRIORITY_HIGH, mirror_fd, G_IO_IN | G_IO_HUP, on_readable, nic, NULL);
    log->nics[log->nnics++] = nic;
    return 0;
}

void input_log_set_active(struct input_log *log, bool active)
{
    log->active = active;
}

void input_log_boundary(struct input_log *log, uint64_t epoch)
{
    for (unsigned i = 0; i < log->nnics; i++)
        frame_stream_boundary(&log->nics[i]->stream, epoch);
}

void input_log_received(struct input_log *log, unsigned index, uint64_t epoch, const uint8_t *frame,
                        size_t len)
{
    uint32_t claimed;
    if (index >= log->nnics || len <= FRAME_HEAD_LEN || len > FRAME_HEAD_LEN + FRAME_MAX_LEN)
        return;
    memcpy(&claimed, frame, sizeof claimed);
    struct log_nic *nic = log->nics[index];
    if (be32toh(claimed) != len - FRAME_HEAD_LEN || nic->kept_bytes + len > KEPT_MAX_BYTES)
        return;
    struct kept_frame *kept = g_malloc(sizeof *kept + len);
    kept->epoch = epoch;
    kept->len = len;
    memcpy(kept->bytes, frame, len);
    g_queue_push_tail(&nic->kept, kept);
    nic->kept_bytes += len;
}

void input_log_acked(struct input_log *log, uint64_t epoch)
{
    for (unsigned i = 0; i < log->nnics; i++) {
        struct log_nic *nic = log->nics[i];
        struct kept_frame *oldest;
        while ((oldest = g_queue_peek_head(&nic->kept)) && oldest->epoch <= epoch) {
            nic->kept_bytes -= oldest->len;
            g_free(g_queue_pop_head(&nic->kept));
        }
    }
}

void input_log_reset(struct input_log *log)
{
    for (unsigned i = 0; i < log->nnics; i++)
        forget(log->nics[i]);
}

void input_log_inject(struct input_log *log)
{
    for (unsigned i = 0; i < log->nnics; i++) {
        struct log_nic *nic = log->nics[i];
        struct kept_frame *frame;
        while ((frame = g_queue_pop_head(&nic->kept))) {
            /* At most 256 KiB in all, into an empty socket: it fits, or the rest is a network's loss. */
            ssize_t sent = send(nic->inject_fd, frame->bytes, frame->len, MSG_DONTWAIT | MSG_NOSIGNAL);
            bool whole = sent == (ssize_t)frame->len;
            g_free(frame);
            if (!whole)
                break;
        }
        forget(nic);
    }
}
