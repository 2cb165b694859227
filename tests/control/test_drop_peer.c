/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A standby whose host is not trusted any more: when its link ends, and when its heartbeats do. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "replicator/control/replicator.h"
#include "tests/control/calls.h"

#define SOMETHING ((void *)&something)

static int something;
static struct replicator r;
static gint64 now_us;

gint64 __wrap_g_get_monotonic_time(void);
gint64 __wrap_g_get_monotonic_time(void)
{
    return now_us;
}

static void on_shutdown(struct transport *transport)
{
    (void)transport;
    called("cut");
}

static const struct transport_ops ops = {.name = "tcp", .shutdown = on_shutdown};
static struct transport transport = {.ops = &ops};
static struct connection connection = {.transport = &transport};

void link_set_peer(struct link *link, const char *host, const char *port)
{
    assert_ptr_equal(link, r.link);
    assert_null(host);
    assert_null(port);
    called("nobody to dial");
}

void paths_drop_peer(struct paths *paths)
{
    assert_ptr_equal(paths, r.paths);
    called("deaf");
}

static int set_up(void **state)
{
    (void)state;
    memset(&r, 0, sizeof r);
    now_us = 1000;
    r.config.peer_host = g_strdup("192.0.2.7");
    r.config.peer_data_port = r.config.peer_udp_port = 7;
    r.link = SOMETHING;
    r.paths = SOMETHING;
    r.connection = &connection;
    r.session.role = SESSION_PRIMARY;
    r.session.state = SESSION_PROTECTED;
    calls_begin();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    drop_peer_end(&r);
    g_free(r.config.peer_host);
    calls_end();
    return 0;
}

/* The timer has fired once, that many ms later. */
static void later(unsigned ms)
{
    now_us += ms * 1000;
    g_main_context_iteration(NULL, TRUE);
}

static void test_the_link_of_one_that_could_not_be_told_ends_at_once(void **state)
{
    (void)state;
    drop_peer_begin(&r, false);
    assert_calls("nobody to dial; cut; ");
    assert_null(r.config.peer_host);
    assert_int_equal(r.config.peer_data_port, 0);
    assert_int_equal(r.config.peer_udp_port, 0);
    /* The session asks by heartbeats whether it lets go of its image. */
    r.connection = NULL;
    r.session.state = SESSION_PEER_LOST;
    later(20);
    assert_calls("");
    r.session.state = SESSION_CONNECTING;
    later(20);
    assert_calls("deaf; ");
    assert_int_equal(r.drop.source, 0);
}

static void test_one_that_was_told_has_a_second_to_say_goodbye(void **state)
{
    (void)state;
    drop_peer_begin(&r, true);
    assert_calls("nobody to dial; ");
    later(999);
    assert_calls("");
    later(1);
    assert_calls("cut; ");
}

static void test_one_that_has_said_goodbye_is_not_heard_any_more(void **state)
{
    (void)state;
    drop_peer_begin(&r, true);
    r.connection = NULL;
    r.session.state = SESSION_CONNECTING;
    later(20);
    assert_calls("nobody to dial; deaf; ");
}

/* With --on-peer-loss=hold the guest never goes on alone. */
static void test_it_is_not_heard_for_longer_than_five_seconds(void **state)
{
    (void)state;
    drop_peer_begin(&r, false);
    r.connection = NULL;
    r.session.state = SESSION_PEER_LOST;
    later(4999);
    assert_calls("nobody to dial; cut; ");
    later(1);
    assert_calls("deaf; ");
    assert_int_equal(r.drop.source, 0);
}

static void test_a_guest_that_runs_alone_hears_it_no_more_at_once(void **state)
{
    (void)state;
    r.connection = NULL;
    r.session.state = SESSION_CONNECTING;
    drop_peer_begin(&r, false);
    assert_calls("nobody to dial; deaf; ");
    assert_int_equal(r.drop.source, 0);
}

static void test_before_there_is_a_link_the_address_alone_is_forgotten(void **state)
{
    (void)state;
    r.link = NULL;
    drop_peer_begin(&r, false);
    assert_calls("");
    assert_null(r.config.peer_host);
}

static void test_another_standby_ends_it(void **state)
{
    (void)state;
    drop_peer_begin(&r, true);
    drop_peer_end(&r);
    assert_int_equal(r.drop.source, 0);
    assert_false(g_main_context_pending(NULL));
    assert_calls("nobody to dial; ");
}

int main(void)
{
#define TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_the_link_of_one_that_could_not_be_told_ends_at_once),
        TEST(test_one_that_was_told_has_a_second_to_say_goodbye),
        TEST(test_one_that_has_said_goodbye_is_not_heard_any_more),
        TEST(test_it_is_not_heard_for_longer_than_five_seconds),
        TEST(test_a_guest_that_runs_alone_hears_it_no_more_at_once),
        TEST(test_before_there_is_a_link_the_address_alone_is_forgotten),
        TEST(test_another_standby_ends_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
