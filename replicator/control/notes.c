/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the other threads report becomes events for the session. Notes of an older connection or an older
 * capture are dropped at this door, so the session never sees them.
 */
#include <errno.h>

#include "replicator/control/capture_stop.h"
#include "replicator/control/replicator.h"
#include "replicator/note.h"

static void on_message(struct replicator *r, const struct note *note)
{
    struct session_event event = {
        .term = note->term,
        .epoch = note->epoch,
        .peer_role = r->session.role == SESSION_PRIMARY ? SESSION_SECONDARY : SESSION_PRIMARY,
        .by_link = true,
    };
    switch ((enum message_type)note->arg) {
    case MESSAGE_ACK:
        event.type = SESSION_EVENT_ACK;
        event.untried = r->peer_untried = note->aux & ACK_UNTRIED;
        break;
    case MESSAGE_HANDOVER:
        event.type = SESSION_EVENT_HANDOVER;
        break;
    case MESSAGE_HANDOVER_DONE:
        event.type = SESSION_EVENT_HANDOVER_DONE;
        break;
    case MESSAGE_GOODBYE:
        event.type = SESSION_EVENT_GOODBYE;
        event.reason = (enum session_end_reason)note->aux;
        if (r->session.state == SESSION_HANDING_OVER)
            sink_error(&r->sink,
                       "the other host could not take VM %s over (%s): its understudyd has logged why",
                       r->config.vm_name, session_end_reason_name(event.reason));
        break;
    case MESSAGE_FENCED:
        event.type = SESSION_EVENT_FENCED;
        break;
    case MESSAGE_FRAMES:
        if (r->session.role == SESSION_SECONDARY)
            input_log_received(r->input_log, note->aux, note->epoch, note->payload, note->len);
        event.type = SESSION_EVENT_HEARTBEAT;
        break;
    case MESSAGE_APPLIED:
    case MESSAGE_DISK_BITS:
    case MESSAGE_DISK_STATE:
    case MESSAGE_DISK_PAIR:
    case MESSAGE_DISK_HASH_REQUEST:
    case MESSAGE_DISK_HASHES:
    case MESSAGE_DISK_FLUSHED:
        if (!guest_disks_message(&r->disks, r->connection, note)) {
            sink_error(&r->sink, "the peer sent nonsense about the disks: are both hosts of one version?");
            connection_shutdown(r->connection);
        }
        event.type = SESSION_EVENT_HEARTBEAT;
        break;
    case MESSAGE_BEAT:
        paths_take(r->paths, note->payload, note->len);
        return;
    default:
        event.type = SESSION_EVENT_HEARTBEAT;
        break;
    }
    sink_event(&r->sink, &event);
}

static struct session_hello images_of(const struct wire_images *images)
{
    return (struct session_hello){.origin = {images->origin.run, images->origin.number},
                                  .next = {images->next.run, images->next.number}};
}

static void on_link_up(struct replicator *r, struct note *note)
{
    struct session_event event = {.type = SESSION_EVENT_LINK_UP,
                                  .term = note->term,
                                  .peer_role =
                                      note->arg == WIRE_ROLE_PRIMARY ? SESSION_PRIMARY : SESSION_SECONDARY};
    g_clear_pointer(&r->connection, connection_put);
    r->connection = g_steal_pointer(&note->connection);
    event.said = images_of(&r->connection->said);
    event.heard = images_of(&r->connection->heard);
    sink_error_over(&r->sink, SINK_CAUSE_OTHER); /* a disk's, or the term's, has an end of its own */
    r->peer_untried = false;
    r->transport = r->connection->transport->ops->name;
    if (note->len) {
        g_free(r->transport_why);
        r->transport_why = g_strdup((const char *)note->payload);
    }
    disk_sync_connected(r->disk_sync);
    sink_event(&r->sink, &event);
    if (r->connection && r->session.state == SESSION_FOLLOWING)
        disk_answer_connected(r->disk_answer, r->connection, r->session.term);
}

static void on_epoch_received(struct replicator *r, struct note *note)
{
    struct staged_epoch *staged = g_steal_pointer(&note->staged);
    if (image_check(r->image, staged) < 0 || disks_check(r->disks.set, r->staging, staged) < 0) {
        applier_post_discard(r->applier, staged);
        sink_error(
            &r->sink,
            "the peer sent pages or disk blocks that this VM does not have: are both hosts of one version?");
        connection_shutdown(r->connection);
        return;
    }
    if (staged->kind == STAGED_PRECOPY) {
        r->sync_done_pages += staged->npages;
        if (r->session.state == SESSION_FOLLOWING && note->term == r->session.term)
            applier_post(r->applier, staged, note->term, note->link);
        else
            applier_post_discard(r->applier, staged);
        struct session_event beat = {.type = SESSION_EVENT_HEARTBEAT,
                                     .term = note->term,
                                     .peer_role = SESSION_PRIMARY,
                                     .by_link = true};
        heartbeats_heard(r, &beat);
        return;
    }
    struct session_event event = {
        .type = SESSION_EVENT_EPOCH_RECEIVED, .term = note->term, .epoch = note->epoch};
    sink_epoch(&r->sink, &event, staged);
}

/* Notes that belong to one connection. */
static void on_link_note(struct replicator *r, struct note *note)
{
    if (!r->connection || note->link != r->connection->id) {
        if (note->staged)
            applier_post_discard(r->applier, note->staged);
        return;
    }
    if (note->letter.kind == NOTE_MESSAGE) {
        on_message(r, note);
    } else if (note->letter.kind == NOTE_EPOCH_RECEIVED) {
        on_epoch_received(r, note);
    } else if (note->letter.kind == NOTE_EPOCH_SENT) {
        struct session_event event = {
            .type = SESSION_EVENT_EPOCH_SENT, .term = r->session.term, .epoch = note->epoch};
        sink_event(&r->sink, &event);
    } else {
        g_clear_pointer(&r->connection, connection_put);
        g_info("%s: link down: %s", r->config.vm_name, g_strerror(-note->status));
        if (note->status == -EBADMSG)
            sink_error(&r->sink,
                       "something between the hosts changes or repeats what they send: the link was "
                       "closed and is made again");
        sink_event_simple(&r->sink, SESSION_EVENT_LINK_DOWN);
    }
}

/* Notes that belong to one run of the capture thread. */
static void on_capture_note(struct replicator *r, const struct note *note)
{
    if (note->generation != capture_thread_generation(r->capture))
        return;
    struct session_event event = {.term = r->session.term, .epoch = note->epoch};
    if (note->letter.kind == NOTE_SYNCHRONISED) {
        event.type = SESSION_EVENT_SYNCHRONISED;
    } else if (note->letter.kind == NOTE_EPOCH_CUT) {
        event.type = SESSION_EVENT_EPOCH_CUT;
        event.ok = note->arg; /* the last epoch: the guest stays paused */
    } else {
        sink_error(&r->sink, "%s", (const char *)note->payload);
        sink_event_simple(&r->sink, SESSION_EVENT_TRACKING_LOST);
        if (r->connection)
            connection_shutdown(r->connection);
        return;
    }
    sink_event(&r->sink, &event);
}

/* The peer may be waiting for room in our staging. */
static void tell_room(struct replicator *r)
{
    if (r->connection)
        r->connection->transport->ops->room(r->connection->transport);
}

/* What could not be written leaves no whole epoch here: this standby is worth nothing any more. */
static void on_image_failed(struct replicator *r, int status)
{
    g_autofree char *why = r->disks.set ? disks_failure(r->disks.set) : NULL;
    sink_error(&r->sink, "VM %s cannot stand by here: %s", r->config.vm_name,
               why ? why : g_strerror(-status));
    sink_event_simple(&r->sink, SESSION_EVENT_IMAGE_FAILED);
}

static void on_applied(struct replicator *r, const struct note *note)
{
    bool is_batch = note->letter.kind == NOTE_BATCH_APPLIED;
    tell_room(r);
    if (note->status < 0) {
        on_image_failed(r, note->status);
        return;
    }
    if (r->disks.set && r->connection && r->connection->id == note->link)
        sink_send(&r->sink, MESSAGE_APPLIED, note->term, note->epoch, is_batch);
    if (is_batch)
        return;
    struct session_event event = {
        .type = SESSION_EVENT_EPOCH_APPLIED, .term = r->session.term, .epoch = note->epoch};
    sink_event(&r->sink, &event);
    standby_trial_consider(r);
}

static void on_term_note(struct replicator *r, const struct note *note)
{
    if (note->letter.kind == NOTE_TERM_FAILED) {
        sink_error_of(&r->sink, SINK_CAUSE_TERM,
                      "VM %s: the new term could not be written to %s: %s. What the guest sends waits; it is "
                      "tried again every second",
                      r->config.vm_name, r->config.state_dir, g_strerror(-note->status));
        return;
    }
    sink_error_over(&r->sink, SINK_CAUSE_TERM);
    const struct session_event event = {.type = SESSION_EVENT_TERM_KEPT, .term = note->term};
    sink_event(&r->sink, &event);
}

void notes_take(struct replicator *r, struct note *note)
{
    switch ((enum note_kind)note->letter.kind) {
    case NOTE_LINK_UP:
        on_link_up(r, note);
        break;
    case NOTE_LINK_REFUSED:
        sink_error(&r->sink, "%s", (const char *)note->payload);
        break;
    case NOTE_LINK_DOWN:
    case NOTE_MESSAGE:
    case NOTE_EPOCH_RECEIVED:
    case NOTE_EPOCH_SENT:
        on_link_note(r, note);
        break;
    case NOTE_SYNCHRONISED:
    case NOTE_EPOCH_CUT:
    case NOTE_CAPTURE_FAILED:
        on_capture_note(r, note);
        break;
    case NOTE_CAPTURE_STOPPED:
        capture_stop_answered(&r->capture_stop, note->generation);
        break;
    case NOTE_STAGING_ROOM:
        tell_room(r);
        break;
    case NOTE_BATCH_APPLIED:
    case NOTE_EPOCH_APPLIED:
        on_applied(r, note);
        break;
    case NOTE_EPOCH_JOURNALLED:
        if (r->connection && r->connection->id == note->link) {
            struct session_event event = {
                .type = SESSION_EVENT_EPOCH_DURABLE, .term = note->term, .epoch = note->epoch};
            sink_event(&r->sink, &event);
        }
        break;
    case NOTE_TERM_KEPT:
    case NOTE_TERM_FAILED:
        on_term_note(r, note);
        break;
    case NOTE_TRIED:
        standby_trial_ended(r, note);
        break;
    case NOTE_STANDBY_ENDED:
        guest_disks_standby_ended(&r->disks, note->status);
        break;
    default:
        break;
    }
    connection_put(note->connection);
    g_free(note);
}
