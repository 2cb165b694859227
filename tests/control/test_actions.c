/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the session decides, carried out: each action calls these functions of the parts, with these
 * arguments, in this order, and no others. All parts are written down here.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "replicator/control/channel.h"
#include "replicator/control/replicator.h"
#include "replicator/control/term_file.h"
#include "tests/control/calls.h"
#include "tests/control/fake_core.h"

#define U(number) ((unsigned)(number))

static struct replicator r;
static struct fake_core core;
static const struct capture_stop_calls *stop_calls;
static struct wire_hello hello; /* of link_open */
static struct hv_block blocks[2];
static bool any_shared;
static arbiter_answer answer; /* of arbiter_ask */
static enum session_end_reason ended_with;
static char *last_word;

/* ---- what actions.c calls ---- */

bool disks_any_shared(const struct disks *disks)
{
    (void)disks;
    return any_shared;
}
void disks_limit_logs(struct disks *disks, uint64_t bytes)
{
    (void)disks;
    called("limit logs %u", U(bytes));
}
unsigned hypervisor_nblocks(const struct hypervisor *hv)
{
    (void)hv;
    return G_N_ELEMENTS(blocks);
}
const struct hv_block *hypervisor_block(const struct hypervisor *hv, unsigned i)
{
    (void)hv;
    return &blocks[i];
}
void link_open(struct link *link, const struct wire_hello *of)
{
    (void)link;
    hello = *of;
    called("link open");
}
void link_close(struct link *link, bool at_once)
{
    (void)link;
    called("link close%s", at_once ? " now" : "");
}
void sender_post_close(struct sender *sender, struct connection *connection)
{
    (void)sender;
    called("close after %u", U(connection->id));
}
void capture_thread_precopy(struct capture_thread *thread, struct connection *connection, uint64_t term)
{
    (void)thread;
    called("precopy %u %u", U(connection->id), U(term));
}
void capture_thread_resync(struct capture_thread *thread, struct connection *connection, uint64_t term,
                           uint64_t held_epoch)
{
    (void)thread;
    called("resync %u %u %u", U(connection->id), U(term), U(held_epoch));
}
void capture_thread_epochs(struct capture_thread *thread, uint64_t first_epoch)
{
    (void)thread;
    called("epochs %u", U(first_epoch));
}
void capture_thread_last_epoch(struct capture_thread *thread)
{
    (void)thread;
    called("last epoch");
}
void capture_thread_forget(struct capture_thread *thread)
{
    (void)thread;
    called("forget");
}
void capture_thread_acked(struct capture_thread *thread, uint64_t epoch)
{
    (void)thread;
    called("acked %u", U(epoch));
}
void capture_stop_init(struct capture_stop *stop, struct capture_thread *capture,
                       const struct capture_stop_calls *table, void *opaque)
{
    assert_ptr_equal(stop, &r.capture_stop);
    assert_ptr_equal(capture, r.capture);
    assert_ptr_equal(opaque, &r);
    stop_calls = table;
}
void capture_stop_order(struct capture_stop *stop)
{
    (void)stop;
    called("stop");
}
void capture_stop_connect(struct capture_stop *stop)
{
    (void)stop;
    called("connect");
}
void capture_stop_resume(struct capture_stop *stop)
{
    (void)stop;
    called("resume");
}
void capture_stop_cancel(struct capture_stop *stop, enum capture_stop_deferred what)
{
    (void)stop;
    called("cancel %s", what == DEFER_CONNECT ? "connect" : "resume");
}
void gate_hold(struct output_gate *gate)
{
    (void)gate;
    called("hold");
}
void gate_release(struct output_gate *gate, uint64_t epoch)
{
    (void)gate;
    called("release %u", U(epoch));
}
void gate_pass_all(struct output_gate *gate)
{
    (void)gate;
    called("pass all");
}
void gate_drop(struct output_gate *gate)
{
    (void)gate;
    called("drop");
}
void guest_disks_hold(struct guest_disks *of)
{
    assert_ptr_equal(of, &r.disks);
    called("disks hold");
}
void guest_disks_release(struct guest_disks *of, uint64_t epoch)
{
    assert_ptr_equal(of, &r.disks);
    called("disks release %u", U(epoch));
}
void guest_disks_release_last(struct guest_disks *of)
{
    assert_ptr_equal(of, &r.disks);
    called("disks release last");
}
void guest_disks_stop_logging(struct guest_disks *of)
{
    assert_ptr_equal(of, &r.disks);
    called("disks stop logging");
}
void guest_disks_make_durable(struct guest_disks *of, uint64_t order)
{
    assert_ptr_equal(of, &r.disks);
    called("disks durable %u", U(order));
}
void guest_disks_give_up(struct guest_disks *of, uint64_t order)
{
    assert_ptr_equal(of, &r.disks);
    called("disks give up %u", U(order));
}
void guest_disks_make_writable(struct guest_disks *of, uint64_t order)
{
    assert_ptr_equal(of, &r.disks);
    called("disks writable %u", U(order));
}
void guest_disks_take_over(struct guest_disks *of, uint64_t order)
{
    assert_ptr_equal(of, &r.disks);
    called("disks take over %u", U(order));
}
void guest_disks_fence(struct guest_disks *of)
{
    assert_ptr_equal(of, &r.disks);
    called("disks fence");
}
void guest_promote(struct replicator *of, uint64_t term, bool peer_takes_back)
{
    (void)of;
    called("guest promote %u%s", U(term), peer_takes_back ? " or the peer has it" : "");
}
void guest_resume(struct replicator *of)
{
    (void)of;
    called("guest resume");
}
void guest_fence(struct replicator *of)
{
    (void)of;
    called("guest fence");
}
void guest_quit(struct replicator *of)
{
    (void)of;
    called("guest quit");
}
void guest_power_down(struct replicator *of)
{
    (void)of;
    called("guest power down");
}
void split_alone(struct replicator *of)
{
    (void)of;
    called("alone");
}
void split_fenced(struct replicator *of)
{
    (void)of;
    called("split fenced");
}
void heartbeats_send_now(struct replicator *of, bool by_link)
{
    (void)of;
    called("beat%s", by_link ? " by link" : "");
}
void term_file_keep(struct term_file *file, uint64_t term)
{
    (void)file;
    called("keep term %u", U(term));
}
void input_log_acked(struct input_log *log, uint64_t epoch)
{
    (void)log;
    called("input acked %u", U(epoch));
}
void input_log_reset(struct input_log *log)
{
    (void)log;
    called("input reset");
}
void applier_post(struct applier *applier, struct staged_epoch *epoch, uint64_t term, uint64_t link)
{
    (void)applier;
    called("apply %u %u %u", U(epoch->epoch), U(term), U(link));
}
void applier_post_discard_image(struct applier *applier)
{
    (void)applier;
    called("discard image");
}
void applier_post_keep_image(struct applier *applier)
{
    (void)applier;
    called("keep image");
}
void arbiter_ask(struct arbiter *arbiter, uint64_t term, arbiter_answer of, void *opaque)
{
    (void)arbiter;
    assert_ptr_equal(opaque, &r);
    answer = of;
    called("ask %u", U(term));
}
void channel_ended(struct channel *channel, enum session_end_reason reason, const char *message)
{
    (void)channel;
    ended_with = reason;
    g_free(last_word);
    last_word = g_strdup(message);
    called("ended %u", U(reason));
}

/* ---- a primary of term 6 that has cut epoch 20, with connection 3 ---- */

static unsigned nfreed;

static void on_free(struct transport *transport)
{
    nfreed++;
    g_free(transport);
}

static const struct transport_ops ops = {.name = "tcp", .free = on_free};

static void send_in_order(void *opaque, const struct transport_message *message)
{
    called("send %u %u %u %u", U(message->type), U(message->term), U(message->epoch), message->arg);
    fake_send(opaque, message);
}

static int set_up(void **state)
{
    static const struct sink_core table = {.event = fake_event,
                                           .done = fake_done,
                                           .overflow = fake_overflow,
                                           .send = send_in_order,
                                           .changed = fake_changed,
                                           .give_up = fake_give_up};
    struct transport *transport = g_new0(struct transport, 1);
    (void)state;
    memset(&r, 0, sizeof r);
    memset(&hello, 0, sizeof hello);
    nfreed = 0;
    any_shared = false;
    answer = NULL;
    r.config.vm_name = (char *)"web";
    r.config.vm_dir = (char *)"/run/web";
    r.session.role = SESSION_PRIMARY;
    r.session.state = SESSION_PROTECTED;
    r.session.term = 6;
    r.session.cut_epoch = 20;
    transport->ops = &ops;
    r.connection = connection_new(transport, 3);
    r.loop = g_main_loop_new(NULL, FALSE);
    r.detect_ms = -1;
    blocks[0] =
        (struct hv_block){.idstr = "pc.ram", .max_len = 16 * HV_PAGE_LEN, .used_len = 8 * HV_PAGE_LEN};
    blocks[1] =
        (struct hv_block){.idstr = "vga.vram", .max_len = 4 * HV_PAGE_LEN, .used_len = 2 * HV_PAGE_LEN};
    memset(r.config.token, 0x5a, sizeof r.config.token);
    fake_core_open(&core, &r.sink);
    r.sink.core = &table;
    calls_begin();
    actions_open_capture_stop(&r);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    g_clear_pointer(&r.connection, connection_put);
    g_main_loop_unref(r.loop);
    g_clear_pointer(&last_word, g_free);
    sink_clear(&r.sink);
    calls_end();
    return 0;
}

static void carry_out_with(const struct session_action *action, bool said_something,
                           struct staged_epoch **offered)
{
    action_carry_out(&r, action, said_something, offered);
}

/* The action of term 6, epoch 9 and order 77. */
static void carry_out(enum session_action_type type)
{
    const struct session_action action = {.type = type, .term = 6, .epoch = 9, .order = 77};
    struct staged_epoch *offered = NULL;
    carry_out_with(&action, false, &offered);
}

/* What each of them calls. Those that depend on more are below, too. */
static const char *const expected[SESSION_NACTIONS] = {
    [SESSION_DO_CONNECT] = "connect; ",
    [SESSION_DO_DISCONNECT] = "cancel connect; link close now; ",
    [SESSION_DO_START_PRECOPY] = "precopy 3 6; ",
    [SESSION_DO_START_RESYNC] = "resync 3 6 9; ",
    [SESSION_DO_FORGET_IMAGE] = "forget; ",
    [SESSION_DO_STOP_CAPTURE] = "stop; limit logs 0; ",
    [SESSION_DO_HOLD_OUTPUT] = "hold; disks hold; ",
    [SESSION_DO_START_EPOCHS] = "epochs 21; ",
    [SESSION_DO_RELEASE] = "release 9; disks release 9; acked 9; ",
    [SESSION_DO_RELEASE_ALL] = "alone; pass all; ",
    [SESSION_DO_RELEASE_LAST] = "disks release last; ",
    [SESSION_DO_DROP_OUTPUT] = "cancel resume; disks fence; drop; ",
    [SESSION_DO_SEND_ACK] = "send 3 6 9 0; ",
    [SESSION_DO_APPLY] = "input acked 9; ",
    [SESSION_DO_DISCARD_IMAGE] = "input reset; discard image; ",
    [SESSION_DO_KEEP_IMAGE] = "input reset; keep image; ",
    [SESSION_DO_ASK_PEER] = "beat by link; ",
    [SESSION_DO_SEND_ANSWER] = "beat by link; ",
    [SESSION_DO_ASK_GRANT] = "ask 6; ",
    [SESSION_DO_PROMOTE] = "guest promote 6; ",
    [SESSION_DO_KEEP_TERM] = "hold; keep term 6; ",
    [SESSION_DO_DISKS_DURABLE] = "alone; disks durable 77; ",
    [SESSION_DO_DISKS_GIVE_UP] = "disks give up 77; ",
    [SESSION_DO_DISKS_WRITABLE] = "disks writable 77; ",
    [SESSION_DO_DISKS_TAKE_OVER] = "disks take over 77; ",
    [SESSION_DO_LAST_EPOCH] = "last epoch; ",
    [SESSION_DO_SEND_HANDOVER] = "send 6 6 9 0; ",
    [SESSION_DO_SEND_HANDOVER_DONE] = "send 7 6 9 0; ",
    [SESSION_DO_SEND_GOODBYE] = "send 8 6 9 0; ",
    [SESSION_DO_SEND_FENCED] = "send 9 6 0 0; ",
    [SESSION_DO_RESUME_GUEST] = "resume; ",
    [SESSION_DO_FENCE_GUEST] = "cancel resume; disks fence; guest fence; ",
    [SESSION_DO_QUIT_HYPERVISOR] = "guest quit; ",
    [SESSION_DO_POWER_DOWN_GUEST] = "guest power down; ",
    [SESSION_DO_END] = "ended 0; ",
};

static void test_each_action_calls_its_parts_and_no_others(void **state)
{
    for (unsigned i = 0; i < SESSION_NACTIONS; i++) {
        assert_non_null(expected[i]);
        carry_out((enum session_action_type)i);
        if (strcmp(calls->str, expected[i]) != 0)
            print_error("action %s\n", session_action_name((enum session_action_type)i));
        assert_calls(expected[i]);
        tear_down(state);
        set_up(state);
    }
}

/* A disconnect after one of these waits until it is out. */
static void test_actions_that_send_a_message_are_known_as_such(void **state)
{
    (void)state;
    for (unsigned i = 0; i < SESSION_NACTIONS; i++) {
        enum session_action_type type = (enum session_action_type)i;
        bool sends = g_str_has_prefix(expected[i], "send ") && type != SESSION_DO_SEND_ACK;
        assert_int_equal(action_sends_message(type), sends || type == SESSION_DO_SEND_ANSWER);
    }
}

static void disconnect(bool said_something)
{
    const struct session_action action = {.type = SESSION_DO_DISCONNECT};
    struct staged_epoch *offered = NULL;
    carry_out_with(&action, said_something, &offered);
    assert_null(r.connection);
}

static void test_a_disconnect_lets_the_last_message_go_out(void **state)
{
    (void)state;
    disconnect(true);
    assert_calls("cancel connect; link close; close after 3; ");
    assert_int_equal(nfreed, 1);
}

/* What was said went by the heartbeats' paths. The link may have made a connection that is not known here. */
static void test_a_disconnect_without_a_connection_waits_for_nothing(void **state)
{
    (void)state;
    disconnect(false);
    assert_calls("cancel connect; link close now; ");
    disconnect(true);
    assert_calls("cancel connect; link close now; ");
}

static void test_an_end_says_why_and_is_the_last(void **state)
{
    const struct session_action action = {.type = SESSION_DO_END, .reason = SESSION_END_STOPPED};
    struct staged_epoch *offered = NULL;
    (void)state;
    sink_error(&r.sink, "the last sentence");
    carry_out_with(&action, false, &offered);
    assert_true(r.ended);
    assert_int_equal(ended_with, SESSION_END_STOPPED);
    assert_string_equal(last_word, "the last sentence");
    assert_int_equal(r.exit_status, 0);
    carry_out_with(&action, false, &offered);
    assert_calls("ended 2; ");
}

static gboolean end_now(gpointer opaque)
{
    (void)opaque;
    carry_out(SESSION_DO_END);
    return G_SOURCE_REMOVE;
}

static gboolean not_quit(gpointer opaque)
{
    *(bool *)opaque = true;
    g_main_loop_quit(r.loop);
    return G_SOURCE_REMOVE;
}

static void test_an_end_ends_the_process(void **state)
{
    bool goes_on = false;
    (void)state;
    g_idle_add(end_now, NULL);
    guint later = g_idle_add_full(G_PRIORITY_LOW, not_quit, &goes_on, NULL);
    g_main_loop_run(r.loop);
    assert_false(goes_on);
    g_source_remove(later);
}

static void test_a_bug_says_what_the_session_was_about_to_do(void **state)
{
    const struct session_action action = {.type = SESSION_DO_END, .reason = SESSION_END_BUG};
    struct staged_epoch *offered = NULL;
    (void)state;
    r.session.bug_from = SESSION_STANDBY;
    r.session.bug_to = SESSION_LEAVING;
    carry_out_with(&action, false, &offered);
    assert_non_null(strstr(last_word, "its session was standby and would have become leaving"));
    assert_non_null(strstr(last_word, "journalctl -u understudyd"));
}

static void test_messages_have_their_arguments(void **state)
{
    struct session_action action = {
        .type = SESSION_DO_SEND_ACK, .term = 6, .epoch = 9, .untried = true, .reason = SESSION_END_STOPPED};
    struct staged_epoch *offered = NULL;
    (void)state;
    carry_out_with(&action, false, &offered);
    assert_calls("send 3 6 9 1; ");
    action.type = SESSION_DO_SEND_GOODBYE;
    carry_out_with(&action, false, &offered);
    assert_calls("send 8 6 9 2; ");
}

static void test_an_epoch_that_came_with_the_event_is_applied(void **state)
{
    struct session_action action = {.type = SESSION_DO_APPLY, .term = 6, .epoch = 9};
    struct staged_epoch staged = {.epoch = 9}, *offered = &staged;
    (void)state;
    carry_out_with(&action, false, &offered);
    assert_null(offered);
    assert_calls("input acked 9; apply 9 6 3; ");
    offered = &staged;
    g_clear_pointer(&r.connection, connection_put);
    carry_out_with(&action, false, &offered);
    assert_calls("input acked 9; apply 9 6 0; ");
    offered = &staged;
    action.epoch = 8; /* not the one that came */
    carry_out_with(&action, false, &offered);
    assert_ptr_equal(offered, &staged);
    assert_calls("input acked 8; ");
}

static void test_a_new_image_begins_with_no_pages(void **state)
{
    (void)state;
    r.sync_done_pages = 5;
    carry_out(SESSION_DO_DISCARD_IMAGE);
    assert_int_equal(r.sync_done_pages, 0);
    r.sync_done_pages = 5;
    carry_out(SESSION_DO_KEEP_IMAGE);
    assert_int_equal(r.sync_done_pages, 0);
}

static void test_a_synchronisation_counts_its_pages_and_its_time(void **state)
{
    (void)state;
    r.sync_done_pages = 5;
    r.sync_difference = true;
    carry_out(SESSION_DO_START_PRECOPY);
    assert_int_equal(r.sync_done_pages, 0);
    assert_int_equal(r.sync_total_pages, 10); /* what is used, of both blocks */
    assert_false(r.sync_difference);
    assert_in_range(r.sync_began_us, 1, g_get_monotonic_time());
    r.sync_began_us = 0;
    carry_out(SESSION_DO_START_RESYNC);
    assert_true(r.sync_difference);
    assert_in_range(r.sync_began_us, 1, g_get_monotonic_time());
}

static void test_output_that_is_held_is_not_alone(void **state)
{
    (void)state;
    r.alone_us = 7;
    carry_out(SESSION_DO_HOLD_OUTPUT);
    assert_int_equal(r.alone_us, 0);
}

/* The other host may not have had a beat of ours yet, and tells of the split too. */
static void test_a_guest_that_is_fenced_for_a_newer_term_is_told_of(void **state)
{
    (void)state;
    r.session.end_reason = SESSION_END_FENCED;
    carry_out(SESSION_DO_FENCE_GUEST);
    assert_calls("cancel resume; split fenced; beat by link; disks fence; guest fence; ");
}

/* ---- the grant ---- */

static void test_a_grant_is_asked_for_with_the_time_of_the_first_question(void **state)
{
    (void)state;
    r.session.role = SESSION_SECONDARY;
    r.session.detector.peer.heard_ms = replicator_now_ms() - 250;
    carry_out(SESSION_DO_ASK_GRANT);
    assert_in_range(r.silent_ms, 250, 10000);
    gint64 first = r.asked_us;
    assert_in_range(first, 1, g_get_monotonic_time());
    r.session.detector.peer.heard_ms = 0;
    carry_out(SESSION_DO_ASK_GRANT); /* it takes its time to answer */
    assert_int_equal(r.asked_us, first);
    assert_calls("ask 6; ask 6; ");
    uint64_t silent_ms = r.silent_ms;
    answer(true, 8, &r);
    assert_int_equal(core.nevents, 1);
    assert_int_equal(core.events[0].type, SESSION_EVENT_GRANT);
    assert_int_equal(core.events[0].term, 8);
    assert_true(core.events[0].ok);
    assert_int_equal(r.asked_us, 0);
    assert_in_range(r.granted_us, first, g_get_monotonic_time());
    assert_int_equal((uint64_t)r.detect_ms, silent_ms);
}

static void test_a_planned_takeover_says_that_the_peer_has_the_guest(void **state)
{
    (void)state;
    r.session.handed_over = r.session.link_up = true;
    carry_out(SESSION_DO_PROMOTE);
    r.session.link_up = false; /* the old primary is lost after all */
    carry_out(SESSION_DO_PROMOTE);
    assert_calls("guest promote 6 or the peer has it; guest promote 6; ");
}

static void test_what_was_not_lost_was_not_detected(void **state)
{
    (void)state;
    carry_out(SESSION_DO_ASK_GRANT);
    answer(true, 8, &r); /* a primary that runs alone */
    assert_true(r.detect_ms < 0);
    r.session.role = SESSION_SECONDARY;
    answer(false, 8, &r);
    assert_false(core.events[1].ok);
    assert_true(r.detect_ms < 0);
    r.session.handed_over = true;
    answer(true, 8, &r);
    assert_true(r.detect_ms < 0);
    r.session.handed_over = false;
    answer(true, 8, &r);
    assert_true(r.detect_ms >= 0);
}

/* ---- HELLO, and what waits for the capture's stop ---- */

static void test_hello_says_who_this_is_and_what_memory_it_has(void **state)
{
    (void)state;
    r.session.origin = (struct session_origin){.run = 71, .number = 72};
    r.session.origin_kept = true;
    struct session_hello images;
    session_hello(&r.session, &images);
    stop_calls->connect(&r);
    assert_calls("link open; ");
    assert_memory_equal(hello.token, r.config.token, sizeof hello.token);
    assert_int_equal(hello.term, 6);
    assert_int_equal(hello.role, WIRE_ROLE_PRIMARY);
    assert_int_equal(hello.nblocks, 2);
    assert_string_equal(hello.blocks[0].idstr, "pc.ram");
    assert_int_equal(hello.blocks[0].max_len, 16 * HV_PAGE_LEN);
    assert_string_equal(hello.blocks[1].idstr, "vga.vram");
    assert_int_equal(hello.blocks[1].max_len, 4 * HV_PAGE_LEN);
    assert_int_equal(images.origin.run, 71);
    assert_int_equal(hello.images.origin.run, 71);
    assert_int_equal(hello.images.origin.number, 72);
    assert_int_equal(hello.images.next.run, images.next.run);
    assert_int_equal(hello.images.next.number, images.next.number);
    r.session.role = SESSION_SECONDARY;
    stop_calls->connect(&r);
    assert_int_equal(hello.role, WIRE_ROLE_SECONDARY);
}

/* What was held back of it is forgotten or let go meanwhile. */
static void test_a_vm_with_a_shared_disk_has_no_image_to_bring_up_to_date(void **state)
{
    (void)state;
    r.session.origin = (struct session_origin){.run = 71, .number = 72};
    r.session.origin_kept = true;
    any_shared = true;
    stop_calls->connect(&r);
    assert_int_equal(hello.images.origin.run, 0);
    assert_int_equal(hello.images.origin.number, 0);
}

static void test_a_guest_goes_on_when_the_capture_has_stopped(void **state)
{
    (void)state;
    stop_calls->resume(&r);
    assert_calls("guest resume; ");
}

static void test_a_capture_that_does_not_stop_is_an_error_until_it_has(void **state)
{
    (void)state;
    stop_calls->late(&r);
    assert_non_null(strstr(sink_last_error(&r.sink), "/run/web"));
    r.config.state_dir = (char *)"/var/lib/web";
    stop_calls->late(&r);
    assert_non_null(strstr(sink_last_error(&r.sink), "/var/lib/web"));
    unsigned before = core.nchanged;
    stop_calls->over(&r, 2 * G_USEC_PER_SEC);
    assert_null(sink_last_error(&r.sink));
    assert_true(core.nchanged > before);
    assert_calls("disks stop logging; ");
}

static void test_a_capture_that_stops_soon_says_nothing(void **state)
{
    (void)state;
    sink_error_of(&r.sink, SINK_CAUSE_DISK, "disk vda is full");
    stop_calls->over(&r, 1000);
    assert_non_null(sink_last_error(&r.sink));
    assert_calls("disks stop logging; ");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_each_action_calls_its_parts_and_no_others),
        TEST(test_actions_that_send_a_message_are_known_as_such),
        TEST(test_a_disconnect_lets_the_last_message_go_out),
        TEST(test_a_disconnect_without_a_connection_waits_for_nothing),
        TEST(test_an_end_says_why_and_is_the_last),
        TEST(test_an_end_ends_the_process),
        TEST(test_a_bug_says_what_the_session_was_about_to_do),
        TEST(test_messages_have_their_arguments),
        TEST(test_an_epoch_that_came_with_the_event_is_applied),
        TEST(test_a_new_image_begins_with_no_pages),
        TEST(test_a_synchronisation_counts_its_pages_and_its_time),
        TEST(test_output_that_is_held_is_not_alone),
        TEST(test_a_guest_that_is_fenced_for_a_newer_term_is_told_of),
        TEST(test_a_grant_is_asked_for_with_the_time_of_the_first_question),
        TEST(test_a_planned_takeover_says_that_the_peer_has_the_guest),
        TEST(test_what_was_not_lost_was_not_detected),
        TEST(test_hello_says_who_this_is_and_what_memory_it_has),
        TEST(test_a_vm_with_a_shared_disk_has_no_image_to_bring_up_to_date),
        TEST(test_a_guest_goes_on_when_the_capture_has_stopped),
        TEST(test_a_capture_that_does_not_stop_is_an_error_until_it_has),
        TEST(test_a_capture_that_stops_soon_says_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
