/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the other threads report: which of it reaches the session, and as what event; what is of an older
 * connection or capture; and what becomes of nonsense. The parts that a note concerns are written down here.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "replicator/control/replicator.h"
#include "replicator/note.h"
#include "tests/control/calls.h"
#include "tests/control/fake_core.h"

static struct replicator r;
static struct fake_core core;
static struct {
    int image_status, disks_status;
    bool disks_nonsense;
    uint64_t generation; /* of the capture */
    const char *failure; /* of the disks, or NULL */
} now;

/* ---- a connection ---- */

static unsigned nfreed;

static void on_room(struct transport *transport)
{
    (void)transport;
    called("room");
}

static void on_shutdown(struct transport *transport)
{
    (void)transport;
    called("shutdown");
}

static void on_free(struct transport *transport)
{
    nfreed++;
    g_free(transport);
}

static const struct transport_ops ops = {
    .name = "tcp", .room = on_room, .shutdown = on_shutdown, .free = on_free};

static struct connection *new_connection(uint64_t id)
{
    struct transport *transport = g_new0(struct transport, 1);
    transport->ops = &ops;
    return connection_new(transport, id);
}

/* ---- what notes.c calls ---- */

void input_log_received(struct input_log *log, unsigned nic, uint64_t epoch, const uint8_t *frame, size_t len)
{
    (void)log;
    called("frames %u %u %.*s", nic, (unsigned)epoch, (int)len, (const char *)frame);
}
bool guest_disks_message(struct guest_disks *of, struct connection *connection, const struct note *note)
{
    assert_ptr_equal(of, &r.disks);
    assert_ptr_equal(connection, r.connection);
    called("disk message %u", note->arg);
    return !now.disks_nonsense;
}
void paths_take(struct paths *paths, const uint8_t *bytes, size_t len)
{
    (void)paths;
    called("beat %.*s", (int)len, (const char *)bytes);
}
void disk_sync_connected(struct disk_sync *sync)
{
    (void)sync;
    called("sync connected");
}
void disk_answer_connected(struct disk_answer *answer, struct connection *connection, uint64_t term)
{
    (void)answer;
    called("answer connected %u %u", (unsigned)connection->id, (unsigned)term);
}
int image_check(const struct image *image, const struct staged_epoch *epoch)
{
    (void)image;
    (void)epoch;
    return now.image_status;
}
int disks_check(const struct disks *disks, const struct staging *staging, const struct staged_epoch *epoch)
{
    (void)disks;
    (void)staging;
    (void)epoch;
    return now.disks_status;
}
void applier_post(struct applier *applier, struct staged_epoch *epoch, uint64_t term, uint64_t link)
{
    (void)applier;
    called("apply %u %u %u", (unsigned)epoch->epoch, (unsigned)term, (unsigned)link);
}
void applier_post_discard(struct applier *applier, struct staged_epoch *epoch)
{
    (void)applier;
    called("discard %u", (unsigned)epoch->epoch);
}
void heartbeats_heard(struct replicator *of, const struct session_event *event)
{
    (void)of;
    called("heard %u %d %d", (unsigned)event->term, event->peer_role, event->by_link);
}
uint64_t capture_thread_generation(const struct capture_thread *thread)
{
    (void)thread;
    return now.generation;
}
void capture_stop_answered(struct capture_stop *stop, uint64_t generation)
{
    assert_ptr_equal(stop, &r.capture_stop);
    called("stopped %u", (unsigned)generation);
}
char *disks_failure(struct disks *disks)
{
    (void)disks;
    return g_strdup(now.failure);
}
void standby_trial_consider(struct replicator *of)
{
    (void)of;
    called("trial?");
}
void standby_trial_ended(struct replicator *of, const struct note *note)
{
    (void)of;
    called("tried %u", note->arg);
}
void guest_disks_standby_ended(struct guest_disks *of, int status)
{
    assert_ptr_equal(of, &r.disks);
    called("standby ended %d", status);
}

/* ---- a standby of term 6 with connection 3 ---- */

static int set_up(void **state)
{
    (void)state;
    memset(&r, 0, sizeof r);
    memset(&now, 0, sizeof now);
    nfreed = 0;
    now.generation = 5;
    r.config.vm_name = (char *)"web";
    r.config.state_dir = (char *)"/var/lib/web";
    r.session.role = SESSION_SECONDARY;
    r.session.state = SESSION_FOLLOWING;
    r.session.term = 6;
    r.connection = new_connection(3);
    fake_core_open(&core, &r.sink);
    calls_begin();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    g_clear_pointer(&r.connection, connection_put);
    g_clear_pointer(&r.transport_why, g_free);
    sink_clear(&r.sink);
    calls_end();
    return 0;
}

/* A note of connection 3, of capture 5, of term 6 and epoch 9. */
static struct note *note_of(enum note_kind kind, const char *payload)
{
    struct note *note = note_new(kind, payload, strlen(payload));
    note->link = 3;
    note->generation = 5;
    note->term = 6;
    note->epoch = 9;
    return note;
}

static void take(enum note_kind kind)
{
    notes_take(&r, note_of(kind, ""));
}

static void take_message(enum message_type type, uint32_t aux, const char *payload)
{
    struct note *note = note_of(NOTE_MESSAGE, payload);
    note->arg = type;
    note->aux = aux;
    notes_take(&r, note);
}

static void assert_no_event(void)
{
    assert_int_equal(core.nevents, 0);
}

/* The one event since the last call. */
static const struct session_event *assert_event(enum session_event_type type)
{
    assert_int_equal(core.nevents, 1);
    core.nevents = 0;
    assert_int_equal(core.events[0].type, type);
    return &core.events[0];
}

/* ---- messages ---- */

static void test_each_message_is_an_event_of_its_own(void **state)
{
    static const struct {
        enum message_type message;
        enum session_event_type event;
    } pairs[] = {
        {MESSAGE_ACK, SESSION_EVENT_ACK},
        {MESSAGE_HANDOVER, SESSION_EVENT_HANDOVER},
        {MESSAGE_HANDOVER_DONE, SESSION_EVENT_HANDOVER_DONE},
        {MESSAGE_GOODBYE, SESSION_EVENT_GOODBYE},
        {MESSAGE_FENCED, SESSION_EVENT_FENCED},
        {MESSAGE_KEEPALIVE, SESSION_EVENT_HEARTBEAT},
    };
    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(pairs); i++) {
        take_message(pairs[i].message, 0, "");
        const struct session_event *event = assert_event(pairs[i].event);
        assert_int_equal(event->term, 6);
        assert_int_equal(event->epoch, 9);
        assert_int_equal(event->peer_role, SESSION_PRIMARY);
        assert_true(event->by_link);
    }
    r.session.role = SESSION_PRIMARY;
    take_message(MESSAGE_KEEPALIVE, 0, "");
    assert_int_equal(assert_event(SESSION_EVENT_HEARTBEAT)->peer_role, SESSION_SECONDARY);
    assert_calls("");
}

static void test_an_ack_says_whether_the_standby_is_untried(void **state)
{
    (void)state;
    r.session.role = SESSION_PRIMARY;
    take_message(MESSAGE_ACK, ACK_UNTRIED, "");
    assert_true(assert_event(SESSION_EVENT_ACK)->untried);
    assert_true(r.peer_untried);
    take_message(MESSAGE_ACK, 0, "");
    assert_false(assert_event(SESSION_EVENT_ACK)->untried);
    assert_false(r.peer_untried);
    take_message(MESSAGE_ACK, ~ACK_UNTRIED, ""); /* bits of a later version */
    assert_false(assert_event(SESSION_EVENT_ACK)->untried);
    assert_false(r.peer_untried);
}

static void test_a_goodbye_amid_a_handover_is_an_error_with_the_reason(void **state)
{
    (void)state;
    r.session.role = SESSION_PRIMARY;
    r.session.state = SESSION_PROTECTED;
    take_message(MESSAGE_GOODBYE, SESSION_END_STOPPED, "");
    assert_int_equal(assert_event(SESSION_EVENT_GOODBYE)->reason, SESSION_END_STOPPED);
    assert_null(sink_last_error(&r.sink));
    r.session.state = SESSION_HANDING_OVER;
    take_message(MESSAGE_GOODBYE, SESSION_END_PROMOTE_FAILED, "");
    assert_int_equal(assert_event(SESSION_EVENT_GOODBYE)->reason, SESSION_END_PROMOTE_FAILED);
    assert_non_null(strstr(sink_last_error(&r.sink), "promote-failed"));
    take_message(MESSAGE_GOODBYE, 4000, ""); /* a number that no version has */
    assert_event(SESSION_EVENT_GOODBYE);
    assert_non_null(strstr(sink_last_error(&r.sink), "(unknown)"));
}

static void test_frames_are_kept_where_the_guest_may_come(void **state)
{
    (void)state;
    take_message(MESSAGE_FRAMES, 1, "frame");
    assert_event(SESSION_EVENT_HEARTBEAT);
    assert_calls("frames 1 9 frame; ");
    r.session.role = SESSION_PRIMARY;
    take_message(MESSAGE_FRAMES, 1, "frame");
    assert_event(SESSION_EVENT_HEARTBEAT);
    assert_calls("");
}

static void test_a_beat_by_the_link_goes_the_way_of_the_others(void **state)
{
    (void)state;
    take_message(MESSAGE_BEAT, 0, "packet");
    assert_calls("beat packet; ");
    assert_no_event(); /* the paths say what was heard */
}

static void test_messages_about_disks_are_the_disks(void **state)
{
    static const enum message_type types[] = {
        MESSAGE_APPLIED,           MESSAGE_DISK_BITS,   MESSAGE_DISK_STATE,  MESSAGE_DISK_PAIR,
        MESSAGE_DISK_HASH_REQUEST, MESSAGE_DISK_HASHES, MESSAGE_DISK_FLUSHED};
    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(types); i++) {
        g_autofree char *expected = g_strdup_printf("disk message %d; ", types[i]);
        take_message(types[i], 0, "");
        assert_event(SESSION_EVENT_HEARTBEAT);
        assert_calls(expected);
    }
    assert_null(sink_last_error(&r.sink));
}

static void test_nonsense_about_disks_ends_the_connection(void **state)
{
    (void)state;
    now.disks_nonsense = true;
    take_message(MESSAGE_DISK_BITS, 0, "");
    assert_calls("disk message 11; shutdown; ");
    assert_non_null(strstr(sink_last_error(&r.sink), "nonsense"));
}

/* ---- the link ---- */

static void test_a_link_that_comes_up_is_the_connection_and_an_event(void **state)
{
    struct note *note = note_of(NOTE_LINK_UP, "");
    (void)state;
    note->connection = new_connection(4);
    note->connection->said = (struct wire_images){.origin = {1, 2}, .next = {3, 4}};
    note->connection->heard = (struct wire_images){.origin = {5, 6}, .next = {7, 8}};
    note->arg = WIRE_ROLE_PRIMARY;
    r.peer_untried = true;
    notes_take(&r, note);
    assert_int_equal(r.connection->id, 4);
    assert_int_equal(nfreed, 1); /* the one before */
    assert_false(r.peer_untried);
    assert_string_equal(r.transport, "tcp");
    const struct session_event *event = assert_event(SESSION_EVENT_LINK_UP);
    assert_int_equal(event->term, 6);
    assert_int_equal(event->peer_role, SESSION_PRIMARY);
    assert_int_equal(event->said.origin.run, 1);
    assert_int_equal(event->said.origin.number, 2);
    assert_int_equal(event->said.next.run, 3);
    assert_int_equal(event->said.next.number, 4);
    assert_int_equal(event->heard.origin.run, 5);
    assert_int_equal(event->heard.origin.number, 6);
    assert_int_equal(event->heard.next.run, 7);
    assert_int_equal(event->heard.next.number, 8);
    assert_calls("sync connected; answer connected 4 6; ");
}

static void link_up(uint32_t role, const char *why_not_rdma)
{
    struct note *note = note_of(NOTE_LINK_UP, why_not_rdma);
    note->connection = new_connection(4);
    note->arg = role;
    notes_take(&r, note);
}

static void test_only_who_follows_tells_its_maps(void **state)
{
    (void)state;
    r.session.role = SESSION_PRIMARY;
    r.session.state = SESSION_SYNCHRONISING;
    link_up(WIRE_ROLE_SECONDARY, "");
    assert_int_equal(assert_event(SESSION_EVENT_LINK_UP)->peer_role, SESSION_SECONDARY);
    assert_calls("sync connected; ");
}

static void close_it(struct fake_core *of, unsigned n)
{
    (void)of;
    (void)n;
    g_clear_pointer(&r.connection, connection_put);
}

static void test_a_link_that_the_session_refuses_is_told_nothing(void **state)
{
    (void)state;
    core.on_event = close_it;
    link_up(WIRE_ROLE_PRIMARY, "");
    assert_calls("sync connected; ");
    assert_int_equal(nfreed, 2);
}

static void test_why_the_link_is_not_rdma_is_kept(void **state)
{
    (void)state;
    link_up(WIRE_ROLE_PRIMARY, "no device");
    assert_string_equal(r.transport_why, "no device");
    link_up(WIRE_ROLE_PRIMARY, "");
    assert_string_equal(r.transport_why, "no device");
    link_up(WIRE_ROLE_PRIMARY, "no memory");
    assert_string_equal(r.transport_why, "no memory");
}

/* What went wrong with the last link is over with a new one. A full disk is not. */
static void test_a_new_link_ends_no_error_whose_cause_goes_on(void **state)
{
    (void)state;
    sink_error(&r.sink, "the link broke");
    link_up(WIRE_ROLE_PRIMARY, "");
    assert_null(sink_last_error(&r.sink));
    sink_error_of(&r.sink, SINK_CAUSE_DISK, "disk vda is full");
    link_up(WIRE_ROLE_PRIMARY, "");
    assert_string_equal(sink_last_error(&r.sink), "disk vda is full");
    sink_error_of(&r.sink, SINK_CAUSE_TERM, "no term");
    link_up(WIRE_ROLE_PRIMARY, "");
    assert_string_equal(sink_last_error(&r.sink), "no term");
}

static void test_a_link_that_ends_is_an_event_and_no_connection(void **state)
{
    (void)state;
    take(NOTE_LINK_DOWN);
    assert_null(r.connection);
    assert_int_equal(nfreed, 1);
    assert_event(SESSION_EVENT_LINK_DOWN);
}

static void test_a_refused_link_is_an_error_and_no_event(void **state)
{
    (void)state;
    notes_take(&r, note_of(NOTE_LINK_REFUSED, "another VM's token"));
    assert_string_equal(sink_last_error(&r.sink), "another VM's token");
    assert_no_event();
}

static void test_an_epoch_that_is_sent_is_an_event_of_this_term(void **state)
{
    (void)state;
    take(NOTE_EPOCH_SENT);
    const struct session_event *event = assert_event(SESSION_EVENT_EPOCH_SENT);
    assert_int_equal(event->term, 6);
    assert_int_equal(event->epoch, 9);
}

static void test_what_an_older_connection_brings_is_dropped(void **state)
{
    static const enum note_kind kinds[] = {NOTE_MESSAGE, NOTE_EPOCH_SENT, NOTE_LINK_DOWN, NOTE_EPOCH_RECEIVED,
                                           NOTE_EPOCH_JOURNALLED};
    struct staged_epoch staged = {.epoch = 9};
    (void)state;
    for (unsigned round = 0; round < 2; round++) {
        for (size_t i = 0; i < G_N_ELEMENTS(kinds); i++) {
            struct note *note = note_of(kinds[i], "");
            note->link = round == 0 ? 2 : 0;
            if (kinds[i] == NOTE_EPOCH_RECEIVED)
                note->staged = &staged;
            notes_take(&r, note);
        }
        assert_calls("discard 9; ");
        assert_no_event();
        g_clear_pointer(&r.connection, connection_put); /* then: there is none at all */
    }
}

/* ---- epochs that come ---- */

static void receive(struct staged_epoch *staged, uint64_t term)
{
    struct note *note = note_of(NOTE_EPOCH_RECEIVED, "");
    note->staged = staged;
    note->term = term;
    notes_take(&r, note);
}

static void test_a_whole_epoch_comes_with_its_event(void **state)
{
    struct staged_epoch staged = {.epoch = 9, .kind = STAGED_EPOCH};
    (void)state;
    receive(&staged, 7);
    const struct session_event *event = assert_event(SESSION_EVENT_EPOCH_RECEIVED);
    assert_int_equal(event->term, 7);
    assert_int_equal(event->epoch, 9);
    assert_ptr_equal(core.offered[0], &staged);
    assert_int_equal(r.sync_done_pages, 0);
    assert_calls("");
}

static void test_a_batch_is_applied_at_once_and_is_a_sign_of_life(void **state)
{
    struct staged_epoch staged = {.epoch = 2, .kind = STAGED_PRECOPY, .npages = 100};
    (void)state;
    receive(&staged, 6);
    receive(&staged, 6);
    assert_calls("apply 2 6 3; heard 6 0 1; apply 2 6 3; heard 6 0 1; ");
    assert_int_equal(r.sync_done_pages, 200);
    assert_no_event();
}

static void test_a_batch_that_nobody_follows_is_thrown_away(void **state)
{
    struct staged_epoch staged = {.epoch = 2, .kind = STAGED_PRECOPY};
    (void)state;
    receive(&staged, 7); /* of another term */
    assert_calls("discard 2; heard 7 0 1; ");
    r.session.state = SESSION_STANDBY;
    receive(&staged, 6); /* the image is whole */
    assert_calls("discard 2; heard 6 0 1; ");
}

static void test_an_epoch_with_pages_or_blocks_that_the_vm_lacks_ends_the_connection(void **state)
{
    struct staged_epoch staged = {.epoch = 9, .kind = STAGED_EPOCH};
    (void)state;
    now.image_status = -EPROTO;
    receive(&staged, 6);
    assert_calls("discard 9; shutdown; ");
    assert_non_null(strstr(sink_last_error(&r.sink), "does not have"));
    now.image_status = 0;
    now.disks_status = -EPROTO;
    staged.kind = STAGED_PRECOPY;
    receive(&staged, 6);
    assert_calls("discard 9; shutdown; ");
    assert_int_equal(r.sync_done_pages, 0);
    assert_no_event();
}

/* ---- the capture ---- */

static void test_what_the_capture_reports_is_an_event_of_this_term(void **state)
{
    struct note *note = note_of(NOTE_EPOCH_CUT, "");
    (void)state;
    take(NOTE_SYNCHRONISED);
    assert_int_equal(assert_event(SESSION_EVENT_SYNCHRONISED)->term, 6);
    take(NOTE_EPOCH_CUT);
    const struct session_event *event = assert_event(SESSION_EVENT_EPOCH_CUT);
    assert_int_equal(event->term, 6);
    assert_int_equal(event->epoch, 9);
    assert_false(event->ok);
    note->arg = 1;
    notes_take(&r, note);
    assert_true(assert_event(SESSION_EVENT_EPOCH_CUT)->ok); /* the last one */
}

static void test_a_capture_that_fails_loses_track_and_the_connection(void **state)
{
    (void)state;
    notes_take(&r, note_of(NOTE_CAPTURE_FAILED, "QEMU stands still"));
    assert_string_equal(sink_last_error(&r.sink), "QEMU stands still");
    assert_event(SESSION_EVENT_TRACKING_LOST);
    assert_calls("shutdown; ");
    core.on_event = close_it; /* the session closes it for this */
    notes_take(&r, note_of(NOTE_CAPTURE_FAILED, "QEMU stands still"));
    assert_calls("");
}

static void test_what_an_older_capture_reports_is_dropped(void **state)
{
    (void)state;
    now.generation = 6;
    take(NOTE_SYNCHRONISED);
    take(NOTE_EPOCH_CUT);
    notes_take(&r, note_of(NOTE_CAPTURE_FAILED, "QEMU stands still"));
    assert_no_event();
    assert_null(sink_last_error(&r.sink));
    assert_calls("");
}

/* Its own order decides whether it is the newest (capture_stop.h). */
static void test_a_capture_that_has_stopped_answers_its_order(void **state)
{
    (void)state;
    now.generation = 6;
    take(NOTE_CAPTURE_STOPPED);
    assert_calls("stopped 5; ");
}

/* ---- the applier ---- */

static void test_an_applied_epoch_makes_room_and_is_told(void **state)
{
    struct note *note = note_of(NOTE_EPOCH_APPLIED, "");
    (void)state;
    r.disks.set = (struct disks *)&r;
    note->term = 5; /* of the epoch: what the peer knows it by */
    notes_take(&r, note);
    const struct session_event *event = assert_event(SESSION_EVENT_EPOCH_APPLIED);
    assert_int_equal(event->term, 6);
    assert_int_equal(event->epoch, 9);
    assert_calls("room; trial?; ");
    assert_int_equal(core.nmessages, 1);
    assert_int_equal(core.messages[0].type, MESSAGE_APPLIED);
    assert_int_equal(core.messages[0].term, 5);
    assert_int_equal(core.messages[0].epoch, 9);
    assert_int_equal(core.messages[0].arg, 0);
}

static void test_an_applied_batch_is_told_to_the_peer_alone(void **state)
{
    (void)state;
    r.disks.set = (struct disks *)&r;
    take(NOTE_BATCH_APPLIED);
    assert_no_event();
    assert_calls("room; ");
    assert_int_equal(core.nmessages, 1);
    assert_int_equal(core.messages[0].arg, 1);
}

static void test_the_peer_is_told_of_its_own_epochs_and_of_disks_alone(void **state)
{
    struct note *note = note_of(NOTE_EPOCH_APPLIED, "");
    (void)state;
    take(NOTE_EPOCH_APPLIED); /* the VM has no disks */
    r.disks.set = (struct disks *)&r;
    note->link = 2; /* it came by an older connection */
    notes_take(&r, note);
    assert_int_equal(core.nmessages, 0);
    assert_int_equal(core.nevents, 2);
}

static void test_an_image_that_cannot_be_written_is_worth_nothing(void **state)
{
    struct note *note = note_of(NOTE_EPOCH_APPLIED, "");
    (void)state;
    note->status = -ENOSPC;
    notes_take(&r, note);
    assert_event(SESSION_EVENT_IMAGE_FAILED);
    assert_calls("room; ");
    assert_non_null(strstr(sink_last_error(&r.sink), g_strerror(ENOSPC)));
    note = note_of(NOTE_BATCH_APPLIED, "");
    note->status = -EIO;
    r.disks.set = (struct disks *)&r;
    now.failure = "disk vda: byte 512";
    notes_take(&r, note);
    assert_event(SESSION_EVENT_IMAGE_FAILED);
    assert_non_null(strstr(sink_last_error(&r.sink), "disk vda: byte 512"));
    assert_int_equal(core.nmessages, 0);
    now.failure = NULL;
    note = note_of(NOTE_BATCH_APPLIED, "");
    note->status = -EIO;
    notes_take(&r, note);
    assert_non_null(strstr(sink_last_error(&r.sink), g_strerror(EIO)));
}

static void test_a_journalled_epoch_is_durable(void **state)
{
    struct note *note = note_of(NOTE_EPOCH_JOURNALLED, "");
    (void)state;
    note->term = 5;
    notes_take(&r, note);
    const struct session_event *event = assert_event(SESSION_EVENT_EPOCH_DURABLE);
    assert_int_equal(event->term, 5);
    assert_int_equal(event->epoch, 9);
}

static void test_room_is_told_where_there_is_a_peer(void **state)
{
    (void)state;
    take(NOTE_STAGING_ROOM);
    assert_calls("room; ");
    g_clear_pointer(&r.connection, connection_put);
    take(NOTE_STAGING_ROOM);
    assert_calls("");
    assert_no_event();
}

/* ---- the rest ---- */

static void test_a_term_that_cannot_be_kept_is_an_error_until_it_is(void **state)
{
    struct note *note = note_of(NOTE_TERM_FAILED, "");
    (void)state;
    note->status = -EROFS;
    notes_take(&r, note);
    assert_no_event();
    assert_non_null(strstr(sink_last_error(&r.sink), "/var/lib/web"));
    assert_non_null(strstr(sink_last_error(&r.sink), g_strerror(EROFS)));
    take(NOTE_TERM_KEPT);
    assert_null(sink_last_error(&r.sink));
    assert_int_equal(assert_event(SESSION_EVENT_TERM_KEPT)->term, 6);
    sink_error(&r.sink, "something else");
    take(NOTE_TERM_KEPT);
    assert_non_null(sink_last_error(&r.sink));
}

static void test_other_notes_go_to_their_parts(void **state)
{
    struct note *note = note_of(NOTE_TRIED, "");
    (void)state;
    note->arg = 1;
    notes_take(&r, note);
    note = note_of(NOTE_STANDBY_ENDED, "");
    note->status = -EIO;
    notes_take(&r, note);
    g_autofree char *expected = g_strdup_printf("tried 1; standby ended %d; ", -EIO);
    assert_calls(expected);
    take(NOTE_QUIT); /* none of control's */
    assert_calls("");
    assert_no_event();
}

/* Whatever the kind, the note's reference goes with it. */
static void test_a_note_gives_its_connection_back(void **state)
{
    struct note *note = note_of(NOTE_QUIT, "");
    (void)state;
    note->connection = new_connection(8);
    notes_take(&r, note);
    assert_int_equal(nfreed, 1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_each_message_is_an_event_of_its_own),
        TEST(test_an_ack_says_whether_the_standby_is_untried),
        TEST(test_a_goodbye_amid_a_handover_is_an_error_with_the_reason),
        TEST(test_frames_are_kept_where_the_guest_may_come),
        TEST(test_a_beat_by_the_link_goes_the_way_of_the_others),
        TEST(test_messages_about_disks_are_the_disks),
        TEST(test_nonsense_about_disks_ends_the_connection),
        TEST(test_a_link_that_comes_up_is_the_connection_and_an_event),
        TEST(test_only_who_follows_tells_its_maps),
        TEST(test_a_link_that_the_session_refuses_is_told_nothing),
        TEST(test_why_the_link_is_not_rdma_is_kept),
        TEST(test_a_new_link_ends_no_error_whose_cause_goes_on),
        TEST(test_a_link_that_ends_is_an_event_and_no_connection),
        TEST(test_a_refused_link_is_an_error_and_no_event),
        TEST(test_an_epoch_that_is_sent_is_an_event_of_this_term),
        TEST(test_what_an_older_connection_brings_is_dropped),
        TEST(test_a_whole_epoch_comes_with_its_event),
        TEST(test_a_batch_is_applied_at_once_and_is_a_sign_of_life),
        TEST(test_a_batch_that_nobody_follows_is_thrown_away),
        TEST(test_an_epoch_with_pages_or_blocks_that_the_vm_lacks_ends_the_connection),
        TEST(test_what_the_capture_reports_is_an_event_of_this_term),
        TEST(test_a_capture_that_fails_loses_track_and_the_connection),
        TEST(test_what_an_older_capture_reports_is_dropped),
        TEST(test_a_capture_that_has_stopped_answers_its_order),
        TEST(test_an_applied_epoch_makes_room_and_is_told),
        TEST(test_an_applied_batch_is_told_to_the_peer_alone),
        TEST(test_the_peer_is_told_of_its_own_epochs_and_of_disks_alone),
        TEST(test_an_image_that_cannot_be_written_is_worth_nothing),
        TEST(test_a_journalled_epoch_is_durable),
        TEST(test_room_is_told_where_there_is_a_peer),
        TEST(test_a_term_that_cannot_be_kept_is_an_error_until_it_is),
        TEST(test_other_notes_go_to_their_parts),
        TEST(test_a_note_gives_its_connection_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
