/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What each of the daemon's orders does. The channel is the table of functions that it was given. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "replicator/control/channel.h"
#include "replicator/control/replicator.h"
#include "replicator/control/start_order.h"
#include "tests/control/calls.h"
#include "tests/control/fake_core.h"

static const struct channel_orders *orders;
static bool refuses;

/* ---- what daemon_orders.c calls ---- */

struct channel *channel_new(int fd, const struct channel_orders *table, void *opaque)
{
    orders = table;
    called("channel %d", fd);
    return opaque; /* any pointer will do */
}

bool start_order_take(const Understudy__Start *start, struct replicator_config *config,
                      struct run_actions *actions, GError **error)
{
    (void)start;
    if (refuses || config->vm_name) {
        g_set_error_literal(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT, "not understood");
        return false;
    }
    config->vm_name = (char *)"web";
    actions->panic_pauses = true;
    return true;
}

void parts_configured(struct replicator *r)
{
    called("configured %s", r->sink.vm_name);
}

void parts_peer_moved(struct replicator *r, const char *host, uint16_t data_port, uint16_t udp_port)
{
    (void)r;
    called("moved %s %u %u", host, data_port, udp_port);
}

void parts_new_secret(struct replicator *r, const uint8_t secret[SEAL_SECRET_LEN])
{
    (void)r;
    called("secret %u", secret[SEAL_SECRET_LEN - 1]);
}

void drop_peer_begin(struct replicator *r, bool told)
{
    (void)r;
    called("drop%s", told ? ", told" : "");
}

void guest_button(struct replicator *r, Understudy__PowerAction action)
{
    (void)r;
    called("button %d", action);
}

void capture_thread_reset_figures(struct capture_thread *thread)
{
    (void)thread;
    called("capture");
}

void histogram_reset_soon(struct histogram *histogram)
{
    (void)histogram;
    called("histogram");
}

void gate_reset_hold(struct output_gate *gate)
{
    (void)gate;
    called("gate");
}

void status_report(struct replicator *r)
{
    (void)r;
    called("status");
}

/* ---- a replicator whose daemon has just started it ---- */

static struct replicator r;
static struct fake_core core;

static int set_up(void **state)
{
    (void)state;
    memset(&r, 0, sizeof r);
    refuses = false;
    r.loop = g_main_loop_new(NULL, FALSE);
    fake_core_open(&core, &r.sink);
    sink_set_vm_name(&r.sink, NULL);
    calls_begin();
    daemon_orders_open(&r, 7);
    assert_calls("channel 7; ");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    g_main_loop_unref(r.loop);
    sink_clear(&r.sink);
    calls_end();
    return 0;
}

static bool start(void)
{
    const Understudy__Start message = UNDERSTUDY__START__INIT;
    return orders->start(&r, &message);
}

static void assert_posted(enum session_event_type type)
{
    assert_int_equal(core.nevents, 1);
    assert_int_equal(core.events[0].type, type);
    core.nevents = 0;
}

static void test_the_channel_is_there_and_rates_count_from_then_on(void **state)
{
    (void)state;
    assert_ptr_equal(r.channel, &r);
    assert_true(r.rates.last_us > 0);
    assert_true(r.rates.last_us <= g_get_monotonic_time());
}

static void test_the_order_to_start_makes_the_parts(void **state)
{
    (void)state;
    assert_true(start());
    assert_calls("configured web; ");
    assert_true(r.actions.panic_pauses);
    assert_int_equal(core.ngiven_up, 0);
}

static void test_an_order_that_is_refused_ends_the_process_with_its_sentence(void **state)
{
    (void)state;
    refuses = true;
    assert_false(start());
    assert_string_equal(sink_last_error(&r.sink), "not understood");
    assert_int_equal(core.ngiven_up, 1);
    assert_calls("");
}

/* A guest runs: no word of the daemon's is worth its life, but those that end it. */
static void test_a_second_order_to_start_leaves_the_guest_alone(void **state)
{
    (void)state;
    assert_true(start());
    assert_calls("configured web; ");
    assert_false(start());
    assert_string_equal(sink_last_error(&r.sink), "not understood");
    assert_int_equal(core.ngiven_up, 0);
    assert_calls("");
}

static void test_a_standby_of_a_host_that_is_not_trusted_ends_and_a_guest_goes_on(void **state)
{
    (void)state;
    r.session_begun = true;
    r.config.role = r.session.role = SESSION_PRIMARY;
    orders->drop_peer(&r, true);
    assert_calls("drop, told; ");
    r.config.role = SESSION_SECONDARY; /* it took the guest over */
    orders->drop_peer(&r, false);
    assert_calls("drop; ");
    assert_int_equal(core.nevents, 0);
    r.session.role = SESSION_SECONDARY;
    orders->drop_peer(&r, true);
    assert_calls("");
    assert_posted(SESSION_EVENT_STOP);
    r.session_begun = false;
    orders->drop_peer(&r, true);
    assert_int_equal(core.ngiven_up, 1);
}

static void test_a_channel_that_cannot_work_ends_the_process(void **state)
{
    (void)state;
    orders->failed(&r, "no folder");
    assert_string_equal(sink_last_error(&r.sink), "no folder");
    assert_int_equal(core.ngiven_up, 1);
}

static void test_a_peer_that_moved_is_told_to_the_parts(void **state)
{
    Understudy__PeerMoved moved = UNDERSTUDY__PEER_MOVED__INIT;
    (void)state;
    moved.host = (char *)"192.0.2.9";
    moved.data_port = UINT16_MAX;
    moved.udp_port = 4712;
    orders->peer_moved(&r, &moved);
    assert_calls("moved 192.0.2.9 65535 4712; ");
    assert_null(sink_last_error(&r.sink));
}

static void test_a_peer_at_a_port_that_is_none_has_not_moved(void **state)
{
    Understudy__PeerMoved moved = UNDERSTUDY__PEER_MOVED__INIT;
    (void)state;
    moved.host = (char *)"192.0.2.9";
    moved.data_port = UINT16_MAX + 1;
    orders->peer_moved(&r, &moved);
    moved.data_port = 1;
    moved.udp_port = UINT16_MAX + 1;
    orders->peer_moved(&r, &moved);
    assert_calls("");
    assert_non_null(sink_last_error(&r.sink));
}

static void test_a_new_standby_has_a_secret_of_its_own_before_it_is_dialled(void **state)
{
    uint8_t secret[SEAL_SECRET_LEN];
    Understudy__PeerMoved moved = UNDERSTUDY__PEER_MOVED__INIT;
    (void)state;
    memset(secret, 0x21, sizeof secret);
    moved.host = (char *)"192.0.2.9";
    moved.data_port = 1;
    moved.secret.data = secret;
    moved.secret.len = sizeof secret;
    orders->peer_moved(&r, &moved);
    assert_calls("secret 33; moved 192.0.2.9 1 0; ");
    moved.secret.len--;
    orders->peer_moved(&r, &moved);
    assert_calls("");
    assert_non_null(sink_last_error(&r.sink));
}

static void test_failover_is_an_event_once_there_is_a_session(void **state)
{
    (void)state;
    orders->failover(&r, true);
    r.hv_ready = true; /* and the session could not be begun */
    orders->failover(&r, true);
    assert_int_equal(core.nevents, 0);
    r.session_begun = true;
    orders->failover(&r, true);
    assert_posted(SESSION_EVENT_FAILOVER_FORCE);
    orders->failover(&r, false);
    assert_posted(SESSION_EVENT_FAILOVER_PLANNED);
}

static void test_stop_is_an_event_once_there_is_a_session_and_ends_the_process_before(void **state)
{
    (void)state;
    orders->stop(&r);
    assert_int_equal(core.nevents, 0);
    assert_int_equal(core.ngiven_up, 1);
    r.session_begun = true;
    orders->stop(&r);
    assert_posted(SESSION_EVENT_STOP);
    assert_int_equal(core.ngiven_up, 1);
}

static void test_a_button_is_pressed(void **state)
{
    (void)state;
    orders->power(&r, UNDERSTUDY__POWER_ACTION__POWER_RESUME);
    assert_calls("button 3; ");
}

static void test_figures_begin_anew_where_there_are_any(void **state)
{
    (void)state;
    orders->reset_figures(&r);
    assert_calls("");
    r.capture = (struct capture_thread *)&r;
    r.epoch_bytes = (struct histogram *)&r;
    r.gate = (struct output_gate *)&r;
    orders->reset_figures(&r);
    assert_calls("capture; histogram; gate; ");
}

static void test_a_report_is_made_when_it_is_wanted(void **state)
{
    (void)state;
    orders->report(&r);
    assert_calls("status; ");
}

static gboolean lose(gpointer opaque)
{
    (void)opaque;
    orders->lost(&r);
    return G_SOURCE_REMOVE;
}

static gboolean quit(gpointer opaque)
{
    *(bool *)opaque = true;
    g_main_loop_quit(r.loop);
    return G_SOURCE_REMOVE;
}

/* Whether the process goes on when the daemon is lost. */
static bool goes_on(void)
{
    bool asked = false;
    g_idle_add_full(G_PRIORITY_HIGH, lose, NULL, NULL);
    guint later = g_idle_add_full(G_PRIORITY_LOW, quit, &asked, NULL);
    g_main_loop_run(r.loop);
    if (!asked)
        g_source_remove(later);
    return asked;
}

static void test_a_guest_outlives_the_daemon_and_without_one_the_process_ends(void **state)
{
    (void)state;
    assert_false(goes_on());
    r.hv = (struct hypervisor *)&r;
    assert_true(goes_on());
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_the_channel_is_there_and_rates_count_from_then_on),
        TEST(test_the_order_to_start_makes_the_parts),
        TEST(test_an_order_that_is_refused_ends_the_process_with_its_sentence),
        TEST(test_a_second_order_to_start_leaves_the_guest_alone),
        TEST(test_a_standby_of_a_host_that_is_not_trusted_ends_and_a_guest_goes_on),
        TEST(test_a_channel_that_cannot_work_ends_the_process),
        TEST(test_a_peer_that_moved_is_told_to_the_parts),
        TEST(test_a_peer_at_a_port_that_is_none_has_not_moved),
        TEST(test_a_new_standby_has_a_secret_of_its_own_before_it_is_dialled),
        TEST(test_failover_is_an_event_once_there_is_a_session),
        TEST(test_stop_is_an_event_once_there_is_a_session_and_ends_the_process_before),
        TEST(test_a_button_is_pressed),
        TEST(test_figures_begin_anew_where_there_are_any),
        TEST(test_a_report_is_made_when_it_is_wanted),
        TEST(test_a_guest_outlives_the_daemon_and_without_one_the_process_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
