/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Reads and writes length-prefixed messages, in two ways: a struct framing on a GLib main context, which
 * buffers what waits to be sent and ends the connection above a limit, and blocking calls with a deadline
 * for a thread that serves one connection. framing_parse, the decoder of both, is pure.
 */
#include "proto/framing.h"

#include <errno.h>
#include <gio/gio.h>
#include <glib-unix.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/stream.h"
#include "proto/wire_cost.h"

#define HEAD_LEN    4u
#define MAX_WAITING (4u << 20)

struct framing {
    int fd;
    guint readable, writable, failed;
    GByteArray *in, *out;
    framing_message message;
    framing_closed closed;
    void *opaque;
    bool dispatching; /* a callback may free it: its memory stays until dispatch is done */
    bool freed;
};

static void append(GByteArray *out, const Understudy__Envelope *message)
{
    gsize len = understudy__envelope__get_packed_size(message);
    guint at = out->len;
    guint32 head = GUINT32_TO_LE((guint32)len);
    g_byte_array_set_size(out, at + HEAD_LEN + (guint)len);
    memcpy(out->data + at, &head, HEAD_LEN);
    understudy__envelope__pack(message, out->data + at + HEAD_LEN);
}

gsize framing_cost_max(gsize len)
{
    return FRAMING_COST_BASE + FRAMING_COST_FACTOR * len;
}

gssize framing_parse_in(const guint8 *bytes, gsize len, Understudy__Envelope **out,
                        ProtobufCAllocator *memory)
{
    guint32 head;
    gsize cost;
    if (len < HEAD_LEN)
        return 0;
    memcpy(&head, bytes, HEAD_LEN);
    head = GUINT32_FROM_LE(head);
    if (head > FRAMING_MAX_LEN)
        return -EPROTO;
    if (len < HEAD_LEN + head)
        return 0;
    if (!wire_cost(&understudy__envelope__descriptor, bytes + HEAD_LEN, head, framing_cost_max(head), &cost))
        return -EPROTO;
    *out = understudy__envelope__unpack(memory, head, bytes + HEAD_LEN);
    return *out && (*out)->body_case != UNDERSTUDY__ENVELOPE__BODY__NOT_SET ? (gssize)(HEAD_LEN + head)
                                                                            : -EPROTO;
}

gssize framing_parse(const guint8 *bytes, gsize len, Understudy__Envelope **out)
{
    return framing_parse_in(bytes, len, out, NULL);
}

static gboolean report_closed(gpointer opaque)
{
    struct framing *framing = opaque;
    framing->failed = 0;
    framing->closed(framing, framing->opaque);
    return G_SOURCE_REMOVE;
}

/* Reports a failure to the owner from the main loop, never from inside its own call. */
static void fail(struct framing *framing)
{
    g_clear_handle_id(&framing->readable, g_source_remove);
    g_clear_handle_id(&framing->writable, g_source_remove);
    if (!framing->failed)
        framing->failed = g_idle_add(report_closed, framing);
}

static void release(struct framing *framing)
{
    g_byte_array_unref(framing->in);
    g_byte_array_unref(framing->out);
    g_free(framing);
}

enum dispatched { DISPATCH_GO_ON, DISPATCH_NONSENSE, DISPATCH_FREED };

/* Passes on whole messages. After DISPATCH_FREED (by the callback) the framing must not be touched. */
static enum dispatched dispatch(struct framing *framing)
{
    framing->dispatching = true;
    for (;;) {
        Understudy__Envelope *message = NULL;
        gssize used = framing_parse(framing->in->data, framing->in->len, &message);
        if (used > 0) {
            g_byte_array_remove_range(framing->in, 0, (guint)used);
            framing->message(framing, message, framing->opaque);
        }
        if (message)
            understudy__envelope__free_unpacked(message, NULL);
        if (framing->freed) {
            release(framing);
            return DISPATCH_FREED;
        }
        if (used <= 0) {
            framing->dispatching = false;
            return used == 0 ? DISPATCH_GO_ON : DISPATCH_NONSENSE;
        }
    }
}

static gboolean on_readable(gint fd, GIOCondition condition, gpointer opaque)
{
    struct framing *framing = opaque;
    guint8 bytes[16384];
    (void)condition;
    gssize n = recv(fd, bytes, sizeof bytes, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return G_SOURCE_CONTINUE;
    enum dispatched result = DISPATCH_NONSENSE;
    if (n > 0) {
        g_byte_array_append(framing->in, bytes, (guint)n);
        result = dispatch(framing);
    }
    if (result == DISPATCH_GO_ON)
        return G_SOURCE_CONTINUE;
    if (result == DISPATCH_NONSENSE) {
        framing->readable = 0;
        fail(framing);
    }
    return G_SOURCE_REMOVE;
}

static gboolean on_writable(gint fd, GIOCondition condition, gpointer opaque)
{
    struct framing *framing = opaque;
    (void)condition;
    gssize n = send(fd, framing->out->data, framing->out->len, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN && errno != EINTR) {
        framing->writable = 0;
        fail(framing);
        return G_SOURCE_REMOVE;
    }
    if (n > 0)
        g_byte_array_remove_range(framing->out, 0, (guint)n);
    if (framing->out->len > 0)
        return G_SOURCE_CONTINUE;
    framing->writable = 0;
    return G_SOURCE_REMOVE;
}

struct framing *framing_new(int fd, framing_message message, framing_closed closed, void *opaque)
{
    struct framing *framing = g_new0(struct framing, 1);
    framing->fd = fd;
    framing->message = message;
    framing->closed = closed;
    framing->opaque = opaque;
    framing->in = g_byte_array_new();
    framing->out = g_byte_array_new();
    framing->readable = g_unix_fd_add(fd, G_IO_IN | G_IO_HUP, on_readable, framing);
    return framing;
}

void framing_free(struct framing *framing)
{
    if (!framing)
        return;
    g_clear_handle_id(&framing->readable, g_source_remove);
    g_clear_handle_id(&framing->writable, g_source_remove);
    g_clear_handle_id(&framing->failed, g_source_remove);
    close(framing->fd);
    if (framing->dispatching)
        framing->freed = true;
    else
        release(framing);
}

int framing_fd(const struct framing *framing)
{
    return framing->fd;
}

void framing_send(struct framing *framing, const Understudy__Envelope *message)
{
    if (framing->failed)
        return;
    append(framing->out, message);
    if (framing->out->len > MAX_WAITING)
        fail(framing);
    else if (!framing->writable)
        framing->writable = g_unix_fd_add(framing->fd, G_IO_OUT, on_writable, framing);
}

static bool send_blocking(struct stream *stream, GByteArray *out, gint64 until_us)
{
    while (out->len > 0) {
        gssize n = stream_write(stream, out->data, out->len);
        if (n > 0)
            g_byte_array_remove_range(out, 0, (guint)n);
        if (n < 0 && n != -EAGAIN)
            return false;
        gint64 left = until_us - g_get_monotonic_time();
        if (n < 0 && (left <= 0 || stream_wait(stream, 0, (int)(left / 1000) + 1) <= 0))
            return false;
    }
    return true;
}

void framing_flush(struct framing *framing, unsigned timeout_ms)
{
    if (!framing->failed)
        send_blocking(STREAM_FD(framing->fd), framing->out,
                      g_get_monotonic_time() + (gint64)timeout_ms * 1000);
}

/* The messages that carry QEMU's command line are the only ones that grow with what a user writes. */
static bool has_command_line(const Understudy__Envelope *message)
{
    return message->body_case == UNDERSTUDY__ENVELOPE__BODY_RUN_REQUEST ||
           message->body_case == UNDERSTUDY__ENVELOPE__BODY_PAIR_REQUEST ||
           message->body_case == UNDERSTUDY__ENVELOPE__BODY_PREPARE_STANDBY ||
           message->body_case == UNDERSTUDY__ENVELOPE__BODY_START;
}

gboolean framing_fits(const Understudy__Envelope *message, GError **error)
{
    gsize len = understudy__envelope__get_packed_size(message);
    if (len <= FRAMING_MAX_LEN)
        return TRUE;
    g_set_error(error, G_IO_ERROR, G_IO_ERROR_MESSAGE_TOO_LARGE,
                "%s has %" G_GSIZE_FORMAT " bytes, and %u are the limit%s",
                has_command_line(message) ? "the request with QEMU's command line" : "the message", len,
                FRAMING_MAX_LEN,
                has_command_line(message) ? ": shorten the command line, which is in it more than once on "
                                            "its way to QEMU"
                                          : "");
    return FALSE;
}

gboolean framing_write(struct stream *stream, const Understudy__Envelope *message, unsigned timeout_ms,
                       GError **error)
{
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    if (!framing_fits(message, error))
        return FALSE;
    append(bytes, message);
    if (send_blocking(stream, bytes, g_get_monotonic_time() + (gint64)timeout_ms * 1000))
        return TRUE;
    g_set_error(error, G_IO_ERROR, G_IO_ERROR_CONNECTION_CLOSED, "the other side closed the connection");
    return FALSE;
}

/* Bytes that the message at the beginning of what has come still lacks, so that the next one stays in the
 * socket. */
static gsize missing(const GByteArray *bytes)
{
    guint32 len = 0;
    if (bytes->len < sizeof len)
        return sizeof len - bytes->len;
    memcpy(&len, bytes->data, sizeof len);
    return sizeof len + (gsize)GUINT32_FROM_LE(len) - bytes->len;
}

/* Reads more bytes into the array: 1, 0 at the end, -1 with error. */
static int read_more(struct stream *stream, GByteArray *bytes, gint64 until, unsigned timeout_ms,
                     GError **error)
{
    guint8 chunk[16384];
    gssize n;
    while ((n = stream_read(stream, chunk, MIN(sizeof chunk, missing(bytes)))) == -EAGAIN) {
        gint64 left = until - g_get_monotonic_time();
        if (left <= 0 || stream_wait(stream, 0, (int)(left / 1000) + 1) <= 0) {
            g_set_error(error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT, "no answer within %u ms", timeout_ms);
            return -1;
        }
    }
    if (n < 0) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_CONNECTION_CLOSED, "the connection broke: %s",
                    g_strerror((int)-n));
        return -1;
    }
    g_byte_array_append(bytes, chunk, (guint)n);
    return n > 0;
}

Understudy__Envelope *framing_read(struct stream *stream, unsigned timeout_ms, GError **error)
{
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    gint64 until = g_get_monotonic_time() + (gint64)timeout_ms * 1000;
    for (;;) {
        Understudy__Envelope *message = NULL;
        gssize used = framing_parse(bytes->data, bytes->len, &message);
        if (used > 0)
            return message;
        if (message)
            understudy__envelope__free_unpacked(message, NULL);
        if (used < 0) {
            g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA, "what came was not understood");
            return NULL;
        }
        int more = read_more(stream, bytes, until, timeout_ms, error);
        if (more == 0 && bytes->len > 0)
            g_set_error(error, G_IO_ERROR, G_IO_ERROR_CONNECTION_CLOSED,
                        "the connection broke in the middle");
        if (more <= 0)
            return NULL;
    }
}

Understudy__Envelope *framing_call(struct stream *stream, const Understudy__Envelope *request,
                                   unsigned timeout_ms, GError **error)
{
    if (!framing_write(stream, request, timeout_ms, error))
        return NULL;
    GError *cause = NULL;
    Understudy__Envelope *answer = framing_read(stream, timeout_ms, &cause);
    if (!answer && !cause)
        g_set_error(&cause, G_IO_ERROR, G_IO_ERROR_CONNECTION_CLOSED, "the daemon closed the connection");
    if (cause)
        g_propagate_error(error, cause);
    return answer;
}
