/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See channel.h. Status goes out four times a second and when something has changed. */
#include "replicator/control/channel.h"

#include <gio/gio.h>
#include <string.h>

#include "proto/framing.h"
#include "replicator/control/adoption.h"

#define REPORT_MS      250
#define REPORT_SOON_MS 5
#define LAST_WORD_MS   500

struct channel {
    const struct channel_orders *orders;
    void *opaque;
    struct framing *framing; /* NULL: the daemon is gone */
    struct adoption *adoption;
    guint8 *start; /* the order, packed: what a later daemon is told */
    size_t start_len;
    bool started; /* the order is followed */
    guint16 data_port, udp_port;
    guint regular, soon;
};

static void report(struct channel *channel)
{
    if (channel->framing)
        channel->orders->report(channel->opaque);
}

void channel_status(struct channel *channel, Understudy__Status *status)
{
    Understudy__Envelope envelope = UNDERSTUDY_ENVELOPE(STATUS, status, status);
    if (channel->framing)
        framing_send(channel->framing, &envelope);
}

static gboolean on_regular(gpointer opaque)
{
    report(opaque);
    return G_SOURCE_CONTINUE;
}

static gboolean on_soon(gpointer opaque)
{
    struct channel *channel = opaque;
    channel->soon = 0;
    report(channel);
    return G_SOURCE_REMOVE;
}

void channel_report_soon(struct channel *channel)
{
    if (channel && !channel->soon)
        channel->soon = g_timeout_add(REPORT_SOON_MS, on_soon, channel);
}

static void on_closed(struct framing *framing, void *opaque)
{
    struct channel *channel = opaque;
    framing_free(framing);
    channel->framing = NULL;
    channel->orders->lost(channel->opaque);
}

static void attach(void *opaque, int fd);

static void forget_start(struct channel *channel)
{
    if (channel->start)
        explicit_bzero(channel->start, channel->start_len);
    g_clear_pointer(&channel->start, g_free);
}

/* Without the secret on a primary, whose next standby gets another one; a standby may be asked for its own.
 */
static void pack_start(struct channel *channel, const Understudy__Start *start)
{
    Understudy__Start kept = *start;
    Understudy__Protection protection = UNDERSTUDY__PROTECTION__INIT;
    if (start->protection && start->role == UNDERSTUDY__ROLE__ROLE_PRIMARY) {
        protection = *start->protection;
        protection.secret = (ProtobufCBinaryData){0};
        kept.protection = &protection;
    }
    forget_start(channel);
    channel->start_len = understudy__start__get_packed_size(&kept);
    channel->start = g_malloc(channel->start_len);
    understudy__start__pack(&kept, channel->start);
}

/* For a daemon that comes later. */
static bool remember_start(struct channel *channel, const Understudy__Start *start, GError **error)
{
    pack_start(channel, start);
    channel->adoption = adoption_new(start->vm_dir, attach, channel, error);
    return channel->adoption != NULL;
}

/* A later daemon has to know whose the new standby is. */
static void remember_peer(struct channel *channel, const Understudy__PeerMoved *moved)
{
    Understudy__Start *start = understudy__start__unpack(NULL, channel->start_len, channel->start);
    ProtobufCBinaryData before = start->peer_key;
    start->peer_key = moved->peer_key;
    pack_start(channel, start);
    start->peer_key = before;
    understudy__start__free_unpacked(start, NULL);
}

static void on_start(struct channel *channel, const Understudy__Start *start)
{
    g_autoptr(GError) error = NULL;
    if (channel->start || remember_start(channel, start, &error))
        channel->started |= channel->orders->start(channel->opaque, start);
    else
        channel->orders->failed(channel->opaque, error->message);
}

static void on_message(struct framing *framing, const Understudy__Envelope *message, void *opaque)
{
    struct channel *channel = opaque;
    const struct channel_orders *orders = channel->orders;
    (void)framing;
    if (message->body_case != UNDERSTUDY__ENVELOPE__BODY_START && !channel->started)
        return;
    switch (message->body_case) {
    case UNDERSTUDY__ENVELOPE__BODY_START:
        on_start(channel, message->start);
        break;
    case UNDERSTUDY__ENVELOPE__BODY_PEER_MOVED:
        remember_peer(channel, message->peer_moved);
        orders->peer_moved(channel->opaque, message->peer_moved);
        break;
    case UNDERSTUDY__ENVELOPE__BODY_DROP_PEER:
        orders->drop_peer(channel->opaque, message->drop_peer->told);
        break;
    case UNDERSTUDY__ENVELOPE__BODY_FAILOVER:
        orders->failover(channel->opaque, message->failover->force);
        break;
    case UNDERSTUDY__ENVELOPE__BODY_STOP:
        orders->stop(channel->opaque);
        break;
    case UNDERSTUDY__ENVELOPE__BODY_POWER:
        orders->power(channel->opaque, message->power->action);
        break;
    case UNDERSTUDY__ENVELOPE__BODY_RESET_FIGURES:
        orders->reset_figures(channel->opaque);
        channel_report_soon(channel);
        break;
    default:
        break;
    }
}

struct channel *channel_new(int fd, const struct channel_orders *orders, void *opaque)
{
    struct channel *channel = g_new0(struct channel, 1);
    channel->orders = orders;
    channel->opaque = opaque;
    channel->framing = framing_new(fd, on_message, on_closed, channel);
    channel->regular = g_timeout_add(REPORT_MS, on_regular, channel);
    return channel;
}

/* Another daemon takes over fd's other end and gives the orders from here on; it is told what runs here. */
static void attach(void *opaque, int fd)
{
    struct channel *channel = opaque;
    Understudy__Listening listening = UNDERSTUDY__LISTENING__INIT;
    Understudy__Adopted adopted = UNDERSTUDY__ADOPTED__INIT;
    framing_free(channel->framing);
    channel->framing = framing_new(fd, on_message, on_closed, channel);
    listening.data_port = channel->data_port;
    listening.udp_port = channel->udp_port;
    adopted.listening = &listening;
    adopted.start = understudy__start__unpack(NULL, channel->start_len, channel->start);
    Understudy__Envelope envelope = UNDERSTUDY_ENVELOPE(ADOPTED, adopted, &adopted);
    framing_send(channel->framing, &envelope);
    understudy__start__free_unpacked(adopted.start, NULL);
    report(channel);
}

void channel_free(struct channel *channel)
{
    if (!channel)
        return;
    adoption_free(channel->adoption);
    forget_start(channel);
    g_clear_handle_id(&channel->regular, g_source_remove);
    g_clear_handle_id(&channel->soon, g_source_remove);
    framing_free(channel->framing);
    g_free(channel);
}

void channel_listening(struct channel *channel, guint16 data_port, guint16 udp_port)
{
    Understudy__Listening listening = UNDERSTUDY__LISTENING__INIT;
    listening.data_port = channel->data_port = data_port;
    listening.udp_port = channel->udp_port = udp_port;
    Understudy__Envelope envelope = UNDERSTUDY_ENVELOPE(LISTENING, listening, &listening);
    if (channel->framing)
        framing_send(channel->framing, &envelope);
}

void channel_ended(struct channel *channel, enum session_end_reason reason, const char *message)
{
    Understudy__Ended ended = UNDERSTUDY__ENDED__INIT;
    ended.reason = (char *)session_end_reason_name(reason);
    ended.message = (char *)(message ? message : "");
    Understudy__Envelope envelope = UNDERSTUDY_ENVELOPE(ENDED, ended, &ended);
    report(channel);
    if (!channel->framing)
        return;
    framing_send(channel->framing, &envelope);
    framing_flush(channel->framing, LAST_WORD_MS);
}
