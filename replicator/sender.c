/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * See sender.h. The sender is also staging's freeing side on the primary: an epoch's pages are given back
 * once the transport has taken them in full, so a slow link fills staging and slows the capture thread, not
 * memory.
 */
#include "replicator/sender.h"

#include "checkpoint/page_encoding.h"
#include "replicator/note.h"

struct sender {
    GThread *thread;
    struct mailbox box;
    struct staging *staging;
    struct mailbox *control;
    struct histogram *epoch_bytes;
    sender_room room;
    void *opaque;
};

static void send_epoch(struct sender *sender, struct note *note)
{
    struct transport *transport = note->connection ? note->connection->transport : NULL;
    struct staged_epoch *epoch = note->staged;
    uint64_t number = epoch->epoch;
    enum staged_kind kind = epoch->kind;
    uint64_t bytes = 0;
    int status = -ENOTCONN;

    if (transport) {
        struct transport_stats before, after;
        page_encoding_mark_zero(sender->staging, epoch);
        transport->ops->stats(transport, &before);
        status = transport->ops->send_epoch(transport, note->term, sender->staging, epoch);
        transport->ops->stats(transport, &after);
        bytes = after.bytes_sent - before.bytes_sent;
    }
    staging_free(sender->staging, epoch);
    sender->room(sender->opaque);
    if (status < 0) {
        if (note->connection)
            connection_shutdown(note->connection);
        return;
    }
    if (kind != STAGED_EPOCH)
        return;
    histogram_record(sender->epoch_bytes, bytes);
    struct note *sent = note_new(NOTE_EPOCH_SENT, NULL, 0);
    sent->link = note->connection->id;
    sent->epoch = number;
    sent->aux = (uint32_t)MIN(bytes, UINT32_MAX);
    mailbox_post(sender->control, &sent->letter);
}

static void send_message(struct note *note)
{
    struct transport *transport = note->connection->transport;
    struct transport_message message = {
        .type = (enum message_type)note->arg,
        .term = note->term,
        .epoch = note->epoch,
        .arg = note->aux,
        .len = note->len,
        .payload = note->payload,
    };
    if (transport->ops->send_message(transport, &message) < 0)
        connection_shutdown(note->connection);
}

static gpointer sender_run(gpointer opaque)
{
    struct sender *sender = opaque;
    for (;;) {
        struct note *note = note_take(&sender->box);
        if (!note) {
            mailbox_wait(&sender->box, -1);
            continue;
        }
        bool quit = note->letter.kind == NOTE_QUIT;
        if (note->letter.kind == NOTE_SEND_EPOCH)
            send_epoch(sender, note);
        else if (note->letter.kind == NOTE_SEND_MESSAGE)
            send_message(note);
        else if (note->letter.kind == NOTE_SEND_CLOSE)
            connection_shutdown(note->connection);
        connection_put(note->connection);
        g_free(note);
        if (quit)
            return NULL;
    }
}

struct sender *sender_new(struct staging *staging, struct mailbox *control, struct histogram *epoch_bytes,
                          sender_room room, void *opaque)
{
    struct sender *sender = g_new0(struct sender, 1);
    sender->staging = staging;
    sender->control = control;
    sender->epoch_bytes = epoch_bytes;
    sender->room = room;
    sender->opaque = opaque;
    if (mailbox_open(&sender->box) < 0) {
        g_free(sender);
        return NULL;
    }
    sender->thread = g_thread_new("sender", sender_run, sender);
    return sender;
}

void sender_free(struct sender *sender)
{
    if (!sender)
        return;
    mailbox_post(&sender->box, &note_new(NOTE_QUIT, NULL, 0)->letter);
    g_thread_join(sender->thread);
    mailbox_close(&sender->box);
    g_free(sender);
}

void sender_post_epoch(struct sender *sender, struct connection *connection, uint64_t term,
                       struct staged_epoch *epoch)
{
    struct note *note = note_new(NOTE_SEND_EPOCH, NULL, 0);
    note->connection = connection ? connection_get(connection) : NULL;
    note->term = term;
    note->staged = epoch;
    mailbox_post(&sender->box, &note->letter);
}

void sender_post_message(struct sender *sender, struct connection *connection,
                         const struct transport_message *message)
{
    struct note *note = note_new(NOTE_SEND_MESSAGE, message->payload, message->len);
    note->connection = connection_get(connection);
    note->arg = message->type;
    note->term = message->term;
    note->epoch = message->epoch;
    note->aux = message->arg;
    mailbox_post(&sender->box, &note->letter);
}

void sender_post_close(struct sender *sender, struct connection *connection)
{
    struct note *note = note_new(NOTE_SEND_CLOSE, NULL, 0);
    note->connection = connection_get(connection);
    mailbox_post(&sender->box, &note->letter);
}
