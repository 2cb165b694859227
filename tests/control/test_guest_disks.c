/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The session's orders to the disks: when each is answered, and what the administrator hears of a disk that
 * refuses. The disks themselves are a few variables here.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "replicator/control/guest_disks.h"
#include "replicator/disk/disk_log.h"
#include "replicator/note.h"
#include "tests/control/fake_core.h"

/* ---- the disks, and what else guest_disks.c calls ---- */

static struct {
    struct disks_config config; /* of disks_open: its callbacks are the test's */
    bool order_done, any_shared, sync_fails;
    int lock_status;
    uint32_t set, clear; /* of the last order */
    uint64_t flushed[2]; /* by disk: newest epoch, until it was asked for */
    uint64_t released;
    disks_done durable; /* is called when they are */
    void *durable_opaque;
    unsigned norders, nunlocked, nlocked, ngiven_up, ncancelled, nwrite_through, nheld, nstopped, ngoes_on;
    unsigned nresumed, ncut, npassed, nended_standby, nhurried, nroom;
    bool synced_at_end;
} now;

struct disks *disks_open(const struct disks_config *config, GError **error)
{
    (void)error;
    now.config = *config;
    return (struct disks *)&now;
}
unsigned disks_count(const struct disks *disks)
{
    return disks ? 2 : 0;
}
uint64_t disks_newly_flushed(struct disks *disks, unsigned disk)
{
    uint64_t epoch = now.flushed[disk];
    (void)disks;
    now.flushed[disk] = 0;
    return epoch;
}
void disks_order(struct disks *disks, uint32_t set, uint32_t clear, bool flip)
{
    (void)disks;
    (void)flip;
    now.norders++;
    now.set = set;
    now.clear = clear;
}
bool disks_order_done(const struct disks *disks)
{
    (void)disks;
    return now.order_done;
}
void disks_make_durable(struct disks *disks, disks_done done, void *opaque)
{
    (void)disks;
    now.durable = done;
    now.durable_opaque = opaque;
}
void disks_cancel_durable(struct disks *disks)
{
    (void)disks;
    now.ncancelled++;
}
void disks_hold(struct disks *disks)
{
    (void)disks;
    now.nheld++;
}
void disks_stop_logging(struct disks *disks)
{
    (void)disks;
    now.nstopped++;
}
void disks_write_through(struct disks *disks)
{
    (void)disks;
    now.nwrite_through++;
}
int disks_sync_within(struct disks *disks, unsigned timeout_ms)
{
    (void)disks;
    (void)timeout_ms;
    return now.sync_fails ? -EIO : 0;
}
void disks_release(struct disks *disks, uint64_t epoch)
{
    (void)disks;
    now.released = epoch;
}
bool disks_any_shared(const struct disks *disks)
{
    (void)disks;
    return now.any_shared;
}
void disks_give_up_writing(struct disks *disks)
{
    (void)disks;
    now.ngiven_up++;
}
void disks_unlock_shared(struct disks *disks)
{
    (void)disks;
    now.nunlocked++;
}
int disks_lock_shared(struct disks *disks)
{
    (void)disks;
    now.nlocked++;
    return now.lock_status;
}
char *disks_failure(struct disks *disks)
{
    (void)disks;
    return g_strdup("no space");
}
void disks_guest_goes_on(struct disks *disks)
{
    (void)disks;
    now.ngoes_on++;
}
bool disk_sync_message(struct disk_sync *sync, const struct transport_message *message)
{
    (void)sync;
    return message->arg == 1;
}
bool disk_answer_message(struct disk_answer *answer, struct connection *connection,
                         const struct transport_message *message)
{
    (void)answer;
    (void)connection;
    return message->arg == 2;
}
void capture_thread_hurry(struct capture_thread *thread)
{
    (void)thread;
    now.nhurried++;
}
void capture_thread_room(void *thread)
{
    (void)thread;
    now.nroom++;
}
void gate_pass_all(struct output_gate *gate)
{
    (void)gate;
    now.npassed++;
}
void applier_post_end_standby(struct applier *applier, bool sync_disks)
{
    (void)applier;
    now.nended_standby++;
    now.synced_at_end = sync_disks;
}
void disks_close(struct disks *disks)
{
    (void)disks;
}

/* ---- a primary with two disks ---- */

static struct session session;
static struct sink sink;
static struct guest_disks gd;
static struct fake_core core;

static void on_resume(void *opaque)
{
    assert_ptr_equal(opaque, &core);
    now.nresumed++;
}

static void on_cut_link(void *opaque)
{
    assert_ptr_equal(opaque, &core);
    now.ncut++;
}

static int set_up(void **state)
{
    const struct disks_config config = {.vm_name = "vm", .n = 2};
    (void)state;
    memset(&now, 0, sizeof now);
    session = (struct session){.role = SESSION_PRIMARY, .state = SESSION_PROTECTED, .term = 4};
    gd = (struct guest_disks){.vm_name = "vm",
                              .session = &session,
                              .sink = &sink,
                              .resume = on_resume,
                              .cut_link = on_cut_link,
                              .opaque = &core};
    fake_core_open(&core, &sink);
    assert_true(guest_disks_open(&gd, &config, NULL));
    assert_non_null(gd.set);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    g_clear_handle_id(&gd.io_retry, g_source_remove);
    sink_clear(&sink);
    return 0;
}

/* The disks say that something has changed. */
static void carried_out(void)
{
    now.order_done = true;
    now.config.changed(now.config.opaque, false);
}

static void assert_answered(uint64_t order, bool ok)
{
    assert_int_equal(core.nevents, 1);
    assert_int_equal(core.events[0].type, SESSION_EVENT_DISKS_READY);
    assert_int_equal(core.events[0].order, order);
    assert_int_equal(core.events[0].ok, ok);
}

static void test_a_vm_without_disks_opens_none(void **state)
{
    const struct disks_config config = {.vm_name = "vm"};
    struct guest_disks none = {0};
    (void)state;
    assert_true(guest_disks_open(&none, &config, NULL));
    assert_null(none.set);
}

static void test_writable_is_answered_when_every_server_has_done_it(void **state)
{
    (void)state;
    guest_disks_make_writable(&gd, 7);
    assert_int_equal(now.set, DISK_WRITABLE);
    assert_int_equal(now.clear, 0);
    assert_int_equal(core.nevents, 0);
    now.config.changed(now.config.opaque, false); /* something else: a ring fills */
    assert_int_equal(core.nevents, 0);
    carried_out();
    assert_answered(7, true);
    carried_out();
    assert_int_equal(core.nevents, 1); /* once */
}

static void test_an_order_that_is_done_already_is_answered_at_once(void **state)
{
    (void)state;
    now.order_done = true;
    guest_disks_make_writable(&gd, 7);
    assert_answered(7, true);
}

static void test_a_shared_disk_that_another_host_has_locked_stays_unwritten(void **state)
{
    (void)state;
    now.any_shared = now.order_done = true;
    now.lock_status = -EAGAIN;
    guest_disks_make_writable(&gd, 7);
    assert_answered(7, false);
    assert_int_equal(now.norders, 0);
    assert_non_null(strstr(sink_last_error(&sink), "locked by another host"));
}

/* The other host may have the shared disks only when nothing can be written to them here. */
static void test_shared_disks_are_unlocked_after_the_last_write_and_before_the_answer(void **state)
{
    (void)state;
    now.any_shared = true;
    guest_disks_give_up(&gd, 8);
    assert_int_equal(now.ngiven_up, 1);
    assert_int_equal(now.nunlocked, 0);
    assert_int_equal(core.nevents, 0);
    carried_out();
    assert_int_equal(now.nunlocked, 1);
    assert_answered(8, true);
}

static void test_disks_of_its_own_need_not_be_given_up(void **state)
{
    (void)state;
    now.order_done = true;
    guest_disks_give_up(&gd, 8);
    assert_int_equal(now.ngiven_up, 0);
    assert_int_equal(now.nunlocked, 0);
    assert_answered(8, true);
}

static void test_a_fence_leaves_the_order_before_it_unanswered(void **state)
{
    (void)state;
    guest_disks_make_writable(&gd, 7);
    guest_disks_fence(&gd);
    assert_int_equal(now.ngiven_up, 1);
    assert_int_equal(now.ncancelled, 1);
    carried_out();
    assert_int_equal(core.nevents, 0);
}

static void test_durable_names_the_newest_order(void **state)
{
    (void)state;
    guest_disks_make_durable(&gd, 3);
    guest_disks_make_durable(&gd, 5);
    assert_int_equal(core.nevents, 0);
    now.durable(now.durable_opaque);
    assert_int_equal(core.nevents, 1);
    assert_int_equal(core.events[0].type, SESSION_EVENT_DISKS_DURABLE);
    assert_int_equal(core.events[0].order, 5);
}

static void test_a_takeover_waits_for_the_journal_and_then_for_the_servers(void **state)
{
    (void)state;
    gd.durable_acks = true;
    guest_disks_take_over(&gd, 9);
    assert_int_equal(now.nended_standby, 1);
    assert_true(now.synced_at_end);
    assert_int_equal(now.norders, 0);
    guest_disks_standby_ended(&gd, 0);
    assert_int_equal(now.set, DISK_WRITABLE | DISK_DURABLE);
    assert_int_equal(now.clear, DISK_LOGGING);
    assert_int_equal(core.nevents, 0);
    carried_out();
    assert_answered(9, true);
}

static void test_a_journal_that_cannot_be_emptied_ends_the_takeover(void **state)
{
    (void)state;
    guest_disks_take_over(&gd, 9);
    guest_disks_standby_ended(&gd, -ENOSPC);
    assert_answered(9, false);
    assert_int_equal(now.norders, 0);
    assert_non_null(strstr(sink_last_error(&sink), "no space"));
}

static void test_the_last_output_leaves_only_if_what_was_written_is_durable(void **state)
{
    (void)state;
    now.order_done = now.sync_fails = true;
    guest_disks_release_last(&gd);
    assert_int_equal(now.nwrite_through, 1);
    assert_int_equal(now.npassed, 0);
    now.sync_fails = false;
    guest_disks_release_last(&gd);
    assert_int_equal(now.npassed, 1);
}

static void test_the_standby_is_told_what_a_shared_image_has(void **state)
{
    (void)state;
    now.flushed[1] = 33;
    now.config.flushed(now.config.opaque);
    assert_int_equal(core.nmessages, 1);
    assert_int_equal(core.messages[0].type, MESSAGE_DISK_FLUSHED);
    assert_int_equal(core.messages[0].term, 4);
    assert_int_equal(core.messages[0].epoch, 33);
    assert_int_equal(core.messages[0].arg, 1);
    now.config.flushed(now.config.opaque);
    assert_int_equal(core.nmessages, 1);
    session.role = SESSION_SECONDARY;
    now.flushed[0] = 34;
    now.config.flushed(now.config.opaque);
    assert_int_equal(core.nmessages, 1);
}

static void test_a_full_ring_hurries_the_epoch_and_anything_else_only_wakes_it(void **state)
{
    (void)state;
    now.config.changed(now.config.opaque, true); /* no capture yet */
    guest_disks_use(&gd, &(struct guest_disks_parts){.capture = (struct capture_thread *)&now});
    now.config.changed(now.config.opaque, true);
    assert_int_equal(now.nhurried, 1);
    now.config.changed(now.config.opaque, false);
    assert_int_equal(now.nhurried, 1);
    assert_int_equal(now.nroom, 1);
}

static void test_a_disks_fault_is_an_error_until_it_is_over(void **state)
{
    (void)state;
    now.config.fault_changed(now.config.opaque, "disk vda: its server died");
    assert_string_equal(sink_last_error(&sink), "disk vda: its server died");
    now.config.fault_changed(now.config.opaque, NULL);
    assert_null(sink_last_error(&sink));
    sink_error(&sink, "something else");
    now.config.fault_changed(now.config.opaque, NULL);
    assert_non_null(sink_last_error(&sink));
}

static void io_error(const char *disk, const char *reason, bool stops)
{
    const struct machine_disk_error error = {.disk = disk, .reason = reason, .stops = stops};
    guest_disks_io_error(&gd, &error);
}

static void await_resumed(unsigned n)
{
    gint64 until = g_get_monotonic_time() + 10 * G_USEC_PER_SEC;
    while (now.nresumed < n && g_get_monotonic_time() < until)
        g_main_context_iteration(NULL, FALSE);
    assert_int_equal(now.nresumed, n);
}

static void test_a_refused_request_is_told_and_tried_again_until_the_guest_goes_on(void **state)
{
    (void)state;
    io_error("vda", "No space", true);
    assert_non_null(strstr(sink_last_error(&sink), "vda failed: No space"));
    await_resumed(1);
    guest_disks_io_resumed(&gd);
    assert_int_equal(gd.io_retry, 0);
    assert_int_equal(now.ngoes_on, 1);
    assert_non_null(sink_last_error(&sink)); /* the disk's server says when that is over */
}

static void test_nothing_is_tried_again_when_the_parts_are_to_be_closed(void **state)
{
    (void)state;
    io_error("", "", true);
    assert_non_null(strstr(sink_last_error(&sink), "? failed: I/O error"));
    assert_int_not_equal(gd.io_retry, 0);
    guest_disks_use(&gd, &(struct guest_disks_parts){0});
    assert_int_equal(gd.io_retry, 0);
}

static void test_a_log_that_lacks_writes_ends_the_link(void **state)
{
    (void)state;
    now.config.detached(now.config.opaque, "disk vda: its log is full");
    assert_int_equal(now.ncut, 1);
    assert_string_equal(sink_last_error(&sink), "disk vda: its log is full");
}

/* Requests of one moment fail one after the other, and each is told by the disk's server and by the machine.
 */
static void test_that_the_guest_stands_still_is_not_hidden_by_what_its_disk_says(void **state)
{
    (void)state;
    now.config.fault_changed(now.config.opaque, "disk vda: failed at byte 1");
    io_error("vda", "No space", true);
    now.config.fault_changed(now.config.opaque, "disk vda: failed at byte 2");
    assert_non_null(strstr(sink_last_error(&sink), "the guest stands still"));
    now.config.fault_changed(now.config.opaque, NULL);
    assert_null(sink_last_error(&sink));
}

static void test_a_request_that_the_guest_was_told_of_is_not_tried_again(void **state)
{
    (void)state;
    io_error("vda", "", false);
    assert_int_equal(gd.io_retry, 0);
    sink_error_over(&sink, SINK_CAUSE_DISK);
    session.role = SESSION_SECONDARY;
    io_error("vda", "", true);
    assert_null(sink_last_error(&sink));
    assert_int_equal(gd.io_retry, 0);
}

static void test_what_the_other_hosts_disk_had_refused_is_tried_here_at_once(void **state)
{
    (void)state;
    guest_disks_retry(&gd);
    assert_int_equal(now.nresumed, 1);
    assert_non_null(sink_last_error(&sink));
    guest_disks_io_resumed(&gd);
    assert_null(sink_last_error(&sink)); /* this host's disk took it */
}

static bool take_message(enum message_type type, uint64_t term, uint32_t arg)
{
    struct note *note = note_new(NOTE_MESSAGE, NULL, 0);
    note->arg = type;
    note->term = term;
    note->aux = arg;
    bool ok = guest_disks_message(&gd, NULL, note);
    g_free(note);
    return ok;
}

static void test_messages_go_to_the_side_that_this_is_and_older_terms_are_nonsense(void **state)
{
    (void)state;
    assert_true(take_message(MESSAGE_DISK_BITS, 4, 1));
    assert_false(take_message(MESSAGE_DISK_BITS, 4, 2));
    assert_false(take_message(MESSAGE_DISK_BITS, 3, 1));
    assert_true(take_message(MESSAGE_APPLIED, 3, 1)); /* it may have been under way */
    session.role = SESSION_SECONDARY;
    assert_true(take_message(MESSAGE_DISK_HASH_REQUEST, 4, 2));
    gd.set = NULL;
    assert_false(take_message(MESSAGE_DISK_HASH_REQUEST, 4, 2));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_a_vm_without_disks_opens_none),
        TEST(test_writable_is_answered_when_every_server_has_done_it),
        TEST(test_an_order_that_is_done_already_is_answered_at_once),
        TEST(test_a_shared_disk_that_another_host_has_locked_stays_unwritten),
        TEST(test_shared_disks_are_unlocked_after_the_last_write_and_before_the_answer),
        TEST(test_disks_of_its_own_need_not_be_given_up),
        TEST(test_a_fence_leaves_the_order_before_it_unanswered),
        TEST(test_durable_names_the_newest_order),
        TEST(test_a_takeover_waits_for_the_journal_and_then_for_the_servers),
        TEST(test_a_journal_that_cannot_be_emptied_ends_the_takeover),
        TEST(test_the_last_output_leaves_only_if_what_was_written_is_durable),
        TEST(test_the_standby_is_told_what_a_shared_image_has),
        TEST(test_a_full_ring_hurries_the_epoch_and_anything_else_only_wakes_it),
        TEST(test_a_disks_fault_is_an_error_until_it_is_over),
        TEST(test_a_refused_request_is_told_and_tried_again_until_the_guest_goes_on),
        TEST(test_nothing_is_tried_again_when_the_parts_are_to_be_closed),
        TEST(test_a_log_that_lacks_writes_ends_the_link),
        TEST(test_that_the_guest_stands_still_is_not_hidden_by_what_its_disk_says),
        TEST(test_a_request_that_the_guest_was_told_of_is_not_tried_again),
        TEST(test_what_the_other_hosts_disk_had_refused_is_tried_here_at_once),
        TEST(test_messages_go_to_the_side_that_this_is_and_older_terms_are_nonsense),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
