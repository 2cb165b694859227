/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The sender thread, which is also staging's freeing side on the primary: an epoch's pages are returned
 * once the transport has taken them in full. So a slow link fills staging and slows the capture thread, and
 * memory stays bounded.
 */
#include "replicator/transport/sender.h"

#include <errno.h>
#include <poll.h>

#include "checkpoint/page_encoding.h"
#include "replicator/note.h"

#define STALL_US (5 * G_USEC_PER_SEC) /* without progress */
/* Messages that wait to be sent. Epochs come on top, and are bounded by staging. */
#define MAX_MESSAGES 4096u
#define MAX_COPIES   1024u /* of them copies of frames, which come as fast as anybody sends to the guest */

struct sender {
    GThread *thread;
    struct mailbox box;
    struct staging *staging;
    struct mailbox *control;
    struct histogram *epoch_bytes;
    sender_room room;
    void *opaque;
    /*
     * Epochs that the transport was given and still reads. All on one connection; there is room for all
     * that staging holds.
     */
    struct note *under_way[STAGING_EPOCHS];
    uint64_t first, next; /* counts */
    uint64_t done_before; /* epochs that this connection had sent before first */
    gint64 progress_us;   /* when one was done last, or the only one was handed over */
};

static void free_epoch(struct sender *sender, struct note *note)
{
    staging_free(sender->staging, note->staged);
    sender->room(sender->opaque);
    connection_put(note->connection);
    g_free(note);
}

/*
 * Shuts the connection of the epochs under way down, so that the transport reads none of them any more, and
 * frees them.
 */
static void drop_under_way(struct sender *sender)
{
    if (sender->first == sender->next)
        return;
    connection_shutdown(sender->under_way[sender->first % STAGING_EPOCHS]->connection);
    while (sender->first < sender->next)
        free_epoch(sender, sender->under_way[sender->first++ % STAGING_EPOCHS]);
}

/*
 * Frees the epochs that the transport has finished. Shuts the connection down and drops all if there is no
 * progress for too long: a peer, or a device, has stopped.
 */
static void reap(struct sender *sender)
{
    if (sender->first == sender->next)
        return;
    struct transport *transport = sender->under_way[sender->first % STAGING_EPOCHS]->connection->transport;
    int64_t done = transport->ops->epochs_done(transport);
    if (done < 0) {
        drop_under_way(sender);
        return;
    }
    while (sender->first < sender->next && sender->done_before < (uint64_t)done) {
        free_epoch(sender, sender->under_way[sender->first++ % STAGING_EPOCHS]);
        sender->done_before++;
        sender->progress_us = g_get_monotonic_time();
    }
    if (g_get_monotonic_time() - sender->progress_us > STALL_US)
        drop_under_way(sender);
}

/* Sleeps until there is a letter, or an epoch to free. */
static void wait_for_work(struct sender *sender)
{
    struct transport *transport =
        sender->first < sender->next
            ? sender->under_way[sender->first % STAGING_EPOCHS]->connection->transport
            : NULL;
    struct pollfd fds[] = {{.fd = sender->box.event_fd, .events = POLLIN},
                           {.fd = transport ? transport->ops->done_fd(transport) : -1, .events = POLLIN}};
    int timeout_ms =
        transport ? (int)MAX((sender->progress_us + STALL_US - g_get_monotonic_time()) / 1000 + 1, 0) : -1;
    if (poll(fds, G_N_ELEMENTS(fds), timeout_ms) > 0 && fds[0].revents)
        mailbox_clear_wake(&sender->box);
}

/* Drops epochs under way that are on another connection. */
static void make_way(struct sender *sender, const struct connection *connection)
{
    reap(sender);
    if (sender->first < sender->next &&
        sender->under_way[sender->first % STAGING_EPOCHS]->connection != connection)
        drop_under_way(sender); /* of a connection that is gone */
}

/* Sends the note's epoch. Takes the note. */
static void send_epoch(struct sender *sender, struct note *note)
{
    struct connection *connection = note->connection;
    struct transport *transport = connection ? connection->transport : NULL;
    struct staged_epoch *epoch = note->staged;
    struct transport_stats before, after;

    make_way(sender, connection);
    if (!transport) {
        free_epoch(sender, note);
        return;
    }
    page_encoding_mark_zero(sender->staging, epoch);
    transport->ops->stats(transport, &before);
    int status = transport->ops->send_epoch(transport, note->term, sender->staging, epoch);
    transport->ops->stats(transport, &after);
    if (sender->first == sender->next) {
        sender->done_before = before.epochs_sent;
        sender->progress_us = g_get_monotonic_time();
    }
    sender->under_way[sender->next++ % STAGING_EPOCHS] = note;
    if (status < 0) {
        drop_under_way(sender);
        return;
    }
    if (epoch->kind == STAGED_EPOCH) {
        uint64_t bytes = after.bytes_sent - before.bytes_sent;
        histogram_record(sender->epoch_bytes, bytes);
        struct note *sent = note_new(NOTE_EPOCH_SENT, NULL, 0);
        sent->link = connection->id;
        sent->epoch = epoch->epoch;
        sent->aux = (uint32_t)MIN(bytes, UINT32_MAX);
        mailbox_post(sender->control, &sent->letter);
    }
    reap(sender);
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
    else if (message.type == MESSAGE_GOODBYE || message.type == MESSAGE_HANDOVER_DONE ||
             message.type == MESSAGE_FENCED)
        transport->ops->flush(transport); /* the end may follow at once */
}

static gpointer sender_run(gpointer opaque)
{
    struct sender *sender = opaque;
    for (bool quit = false; !quit;) {
        struct note *note = note_take(&sender->box);
        if (!note) {
            reap(sender);
            wait_for_work(sender);
            continue;
        }
        quit = note->letter.kind == NOTE_QUIT;
        if (note->letter.kind == NOTE_SEND_EPOCH) {
            send_epoch(sender, note);
            continue;
        }
        if (note->letter.kind == NOTE_SEND_MESSAGE) {
            send_message(note);
        } else if (note->letter.kind == NOTE_SEND_CLOSE) {
            note->connection->transport->ops->flush(note->connection->transport);
            connection_shutdown(note->connection);
        }
        connection_put(note->connection);
        g_free(note);
    }
    drop_under_way(sender);
    return NULL;
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
    int status = mailbox_open(&sender->box);
    if (status == 0 && !(sender->thread = g_thread_try_new("sender", sender_run, sender, NULL)))
        status = -EAGAIN;
    if (status == 0)
        return sender;
    mailbox_close(&sender->box);
    g_free(sender);
    errno = -status;
    return NULL;
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
    bool copy = message->type == MESSAGE_FRAMES;
    if (mailbox_try_post(&sender->box, &note->letter, copy ? MAX_COPIES : MAX_MESSAGES))
        return;
    /*
     * A dropped copy of a frame is harmless: its sender sends it again. Anything else counts: a peer that
     * lets so much wait does not read.
     */
    if (!copy)
        connection_shutdown(connection);
    connection_put(note->connection);
    g_free(note);
}

void sender_post_close(struct sender *sender, struct connection *connection)
{
    struct note *note = note_new(NOTE_SEND_CLOSE, NULL, 0);
    note->connection = connection_get(connection);
    mailbox_post(&sender->box, &note->letter);
}
