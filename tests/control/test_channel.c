/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The replicator's end of the socket to its daemon, which the test plays, over real sockets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <glib/gstdio.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/stream.h"
#include "proto/framing.h"
#include "replicator/control/channel.h"

#define PATIENCE_MS 10000
#define AWAIT_US    (PATIENCE_MS * 1000)

/* What the channel's owner was told. */
struct world {
    struct channel *channel;
    int daemon; /* the socket's other end */
    char *vm_dir;
    bool refuses; /* the order to start */
    unsigned nstarts, nfailed, nmoved, ndropped, nfailovers, nstops, npowers, nresets, nreports, nlost;
    bool forced;
    char *started_vm, *failure;
    uint32_t data_port;
    Understudy__PowerAction power;
};

static bool on_start(void *opaque, const Understudy__Start *start)
{
    struct world *world = opaque;
    world->nstarts++;
    g_free(world->started_vm);
    world->started_vm = g_strdup(start->protection->vm);
    return !world->refuses;
}

static void on_failed(void *opaque, const char *message)
{
    struct world *world = opaque;
    world->nfailed++;
    world->failure = g_strdup(message);
}

static void on_drop_peer(void *opaque, bool told)
{
    struct world *world = opaque;
    assert_true(told);
    world->ndropped++;
}

static void on_peer_moved(void *opaque, const Understudy__PeerMoved *moved)
{
    struct world *world = opaque;
    world->nmoved++;
    world->data_port = moved->data_port;
}

static void on_failover(void *opaque, bool force)
{
    struct world *world = opaque;
    world->nfailovers++;
    world->forced = force;
}

static void on_stop(void *opaque)
{
    struct world *world = opaque;
    world->nstops++;
}

static void on_power(void *opaque, Understudy__PowerAction action)
{
    struct world *world = opaque;
    world->npowers++;
    world->power = action;
}

static void on_reset_figures(void *opaque)
{
    struct world *world = opaque;
    world->nresets++;
}

static void on_report(void *opaque)
{
    struct world *world = opaque;
    Understudy__Status status = UNDERSTUDY__STATUS__INIT;
    status.vm = (char *)"vm";
    status.epochs = ++world->nreports;
    channel_status(world->channel, &status);
}

static void on_lost(void *opaque)
{
    struct world *world = opaque;
    world->nlost++;
}

static const struct channel_orders ORDERS = {.start = on_start,
                                             .failed = on_failed,
                                             .peer_moved = on_peer_moved,
                                             .drop_peer = on_drop_peer,
                                             .failover = on_failover,
                                             .stop = on_stop,
                                             .power = on_power,
                                             .reset_figures = on_reset_figures,
                                             .report = on_report,
                                             .lost = on_lost};

static int set_up(void **state)
{
    struct world *world = g_new0(struct world, 1);
    int fds[2];
    world->vm_dir = g_dir_make_tmp("understudy-channel-XXXXXX", NULL);
    assert_non_null(world->vm_dir);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    world->daemon = fds[0];
    world->channel = channel_new(fds[1], &ORDERS, world);
    *state = world;
    return 0;
}

static int tear_down(void **state)
{
    struct world *world = *state;
    channel_free(world->channel);
    if (world->daemon >= 0)
        close(world->daemon);
    int left = g_rmdir(world->vm_dir); /* the socket there went with the channel */
    g_free(world->vm_dir);
    g_free(world->started_vm);
    g_free(world->failure);
    g_free(world);
    return left;
}

static Understudy__Role role; /* of the next start */

static void send_start(int fd, const char *vm_dir)
{
    uint8_t secret[32] = {42};
    Understudy__Protection protection = UNDERSTUDY__PROTECTION__INIT;
    Understudy__Start start = UNDERSTUDY__START__INIT;
    protection.vm = (char *)"vm";
    protection.secret.data = secret;
    protection.secret.len = sizeof secret;
    start.role = role;
    start.protection = &protection;
    start.vm_dir = (char *)vm_dir;
    const Understudy__Envelope envelope = UNDERSTUDY_ENVELOPE(START, start, &start);
    assert_true(framing_write(STREAM_FD(fd), &envelope, PATIENCE_MS, NULL));
}

static void send_power(int fd, Understudy__PowerAction action)
{
    Understudy__Power power = UNDERSTUDY__POWER__INIT;
    power.action = action;
    const Understudy__Envelope envelope = UNDERSTUDY_ENVELOPE(POWER, power, &power);
    assert_true(framing_write(STREAM_FD(fd), &envelope, PATIENCE_MS, NULL));
}

static void await(const unsigned *counter, unsigned n)
{
    gint64 until = g_get_monotonic_time() + AWAIT_US;
    while (*counter < n && g_get_monotonic_time() < until)
        g_main_context_iteration(NULL, FALSE);
    assert_int_equal(*counter, n);
}

/* The next message that the daemon gets. */
static Understudy__Envelope *receive(int fd)
{
    gint64 until = g_get_monotonic_time() + AWAIT_US;
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    while (poll(&poll_fd, 1, 0) == 0 && g_get_monotonic_time() < until)
        g_main_context_iteration(NULL, FALSE);
    Understudy__Envelope *message = framing_read(STREAM_FD(fd), PATIENCE_MS, NULL);
    assert_non_null(message);
    return message;
}

static void release(Understudy__Envelope *message)
{
    understudy__envelope__free_unpacked(message, NULL);
}

static int connect_later_daemon(const struct world *world)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    g_snprintf(address.sun_path, sizeof address.sun_path, "%s/us-replicator", world->vm_dir);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

static void test_each_order_goes_to_its_own_function(void **state)
{
    struct world *world = *state;
    Understudy__PeerMoved moved = UNDERSTUDY__PEER_MOVED__INIT;
    Understudy__DropPeer drop = UNDERSTUDY__DROP_PEER__INIT;
    Understudy__Failover failover = UNDERSTUDY__FAILOVER__INIT;
    Understudy__Stop stop = UNDERSTUDY__STOP__INIT;
    Understudy__ResetFigures reset = UNDERSTUDY__RESET_FIGURES__INIT;
    moved.host = (char *)"192.0.2.1";
    moved.data_port = 77;
    failover.force = true;
    drop.told = true;
    const Understudy__Envelope messages[] = {
        UNDERSTUDY_ENVELOPE(PEER_MOVED, peer_moved, &moved), UNDERSTUDY_ENVELOPE(DROP_PEER, drop_peer, &drop),
        UNDERSTUDY_ENVELOPE(FAILOVER, failover, &failover),
        UNDERSTUDY_ENVELOPE(RESET_FIGURES, reset_figures, &reset), UNDERSTUDY_ENVELOPE(STOP, stop, &stop)};
    send_start(world->daemon, world->vm_dir);
    for (size_t i = 0; i < G_N_ELEMENTS(messages); i++)
        assert_true(framing_write(STREAM_FD(world->daemon), &messages[i], PATIENCE_MS, NULL));
    send_power(world->daemon, UNDERSTUDY__POWER_ACTION__POWER_PAUSE);
    await(&world->npowers, 1);
    assert_int_equal(world->nstarts, 1);
    assert_string_equal(world->started_vm, "vm");
    assert_int_equal(world->nmoved, 1);
    assert_int_equal(world->data_port, 77);
    assert_int_equal(world->ndropped, 1);
    assert_int_equal(world->nfailovers, 1);
    assert_true(world->forced);
    assert_int_equal(world->nresets, 1);
    assert_int_equal(world->nstops, 1);
    assert_int_equal(world->power, UNDERSTUDY__POWER_ACTION__POWER_PAUSE);
    assert_int_equal(world->nfailed, 0);
}

static void test_orders_before_the_start_are_passed_over(void **state)
{
    struct world *world = *state;
    send_power(world->daemon, UNDERSTUDY__POWER_ACTION__POWER_PAUSE);
    send_start(world->daemon, world->vm_dir);
    send_power(world->daemon, UNDERSTUDY__POWER_ACTION__POWER_RESUME);
    await(&world->npowers, 1);
    assert_int_equal(world->power, UNDERSTUDY__POWER_ACTION__POWER_RESUME);
}

static void test_orders_after_a_start_that_cannot_be_followed_are_passed_over(void **state)
{
    struct world *world = *state;
    world->refuses = true;
    send_start(world->daemon, world->vm_dir);
    send_power(world->daemon, UNDERSTUDY__POWER_ACTION__POWER_PAUSE);
    send_start(world->daemon, world->vm_dir); /* what came before it has been handled, too */
    await(&world->nstarts, 2);
    assert_int_equal(world->npowers, 0);
}

static void test_a_folder_where_no_later_daemon_could_look_is_a_failure(void **state)
{
    struct world *world = *state;
    g_autofree char *nowhere = g_build_filename(world->vm_dir, "nowhere", NULL);
    send_start(world->daemon, nowhere);
    await(&world->nfailed, 1);
    assert_int_equal(world->nstarts, 0);
    assert_non_null(strstr(world->failure, nowhere));
}

static void test_status_goes_out_now_and_then(void **state)
{
    struct world *world = *state;
    for (unsigned i = 1; i <= 2; i++) {
        Understudy__Envelope *message = receive(world->daemon);
        assert_int_equal(message->body_case, UNDERSTUDY__ENVELOPE__BODY_STATUS);
        assert_int_equal(message->status->epochs, i);
        release(message);
    }
}

/* When the main loop has something to do next. */
static int next_due_ms(void)
{
    GMainContext *context = g_main_context_default();
    GPollFD fds[16];
    gint priority, timeout_ms = -1;
    assert_true(g_main_context_acquire(context));
    g_main_context_prepare(context, &priority);
    int n = g_main_context_query(context, priority, &timeout_ms, fds, G_N_ELEMENTS(fds));
    assert_true(n <= (int)G_N_ELEMENTS(fds));
    for (int i = 0; i < n; i++)
        fds[i].revents = 0;
    g_main_context_check(context, priority, fds, n);
    g_main_context_release(context);
    return timeout_ms;
}

static void test_a_change_is_reported_soon(void **state)
{
    struct world *world = *state;
    await(&world->nreports, 1); /* the regular one: the next is far away */
    channel_report_soon(world->channel);
    assert_in_range(next_due_ms(), 0, 5);
    while (world->nreports < 2)
        g_main_context_iteration(NULL, TRUE);
    channel_report_soon(NULL);
}

static void test_changes_at_once_are_one_report(void **state)
{
    struct world *world = *state;
    gint64 began_us = g_get_monotonic_time(), took_us;
    for (unsigned i = 0; i < 20; i++)
        channel_report_soon(world->channel);
    do { /* each of them would have been out by then */
        g_main_context_iteration(NULL, FALSE);
        took_us = g_get_monotonic_time() - began_us;
    } while (world->nreports == 0 || took_us < 50000);
    /* The regular ones come every 250 ms. */
    assert_true(world->nreports <= 2 + (unsigned)(took_us / 250000));
}

static void test_a_later_daemon_is_told_what_runs_here_and_gives_the_orders(void **state)
{
    struct world *world = *state;
    uint8_t key[32] = {5, 6};
    Understudy__PeerMoved moved = UNDERSTUDY__PEER_MOVED__INIT;
    const Understudy__Envelope order = UNDERSTUDY_ENVELOPE(PEER_MOVED, peer_moved, &moved);
    send_start(world->daemon, world->vm_dir);
    await(&world->nstarts, 1);
    channel_listening(world->channel, 11, 12);
    Understudy__Envelope *message = receive(world->daemon);
    while (message->body_case != UNDERSTUDY__ENVELOPE__BODY_LISTENING) {
        release(message);
        message = receive(world->daemon);
    }
    assert_int_equal(message->listening->data_port, 11);
    assert_int_equal(message->listening->udp_port, 12);
    release(message);
    moved.peer_key.data = key;
    moved.peer_key.len = sizeof key;
    assert_true(framing_write(STREAM_FD(world->daemon), &order, PATIENCE_MS, NULL));
    await(&world->nmoved, 1);
    close(world->daemon);
    world->daemon = -1;
    await(&world->nlost, 1);
    unsigned reports = world->nreports;
    world->daemon = connect_later_daemon(world);
    message = receive(world->daemon);
    assert_int_equal(message->body_case, UNDERSTUDY__ENVELOPE__BODY_ADOPTED);
    assert_string_equal(message->adopted->start->protection->vm, "vm");
    assert_string_equal(message->adopted->start->vm_dir, world->vm_dir);
    assert_int_equal(message->adopted->start->peer_key.len, sizeof key);
    assert_memory_equal(message->adopted->start->peer_key.data, key, sizeof key);
    assert_int_equal(message->adopted->listening->data_port, 11);
    assert_int_equal(message->adopted->listening->udp_port, 12);
    release(message);
    message = framing_read(STREAM_FD(world->daemon), PATIENCE_MS,
                           NULL); /* and at once, in the same round, how it is */
    assert_non_null(message);
    assert_int_equal(message->body_case, UNDERSTUDY__ENVELOPE__BODY_STATUS);
    assert_int_equal(message->status->epochs, reports + 1);
    release(message);
    send_power(world->daemon, UNDERSTUDY__POWER_ACTION__POWER_RESET);
    await(&world->npowers, 1);
    assert_int_equal(world->power, UNDERSTUDY__POWER_ACTION__POWER_RESET);
}

static void tell_later_daemon(struct world *world, bool is_standby)
{
    role = is_standby ? UNDERSTUDY__ROLE__ROLE_SECONDARY : UNDERSTUDY__ROLE__ROLE_PRIMARY;
    send_start(world->daemon, world->vm_dir);
    await(&world->nstarts, 1);
    close(world->daemon);
    world->daemon = connect_later_daemon(world);
    Understudy__Envelope *message = receive(world->daemon);
    assert_int_equal(message->body_case, UNDERSTUDY__ENVELOPE__BODY_ADOPTED);
    assert_int_equal(message->adopted->start->role, role);
    assert_int_equal(message->adopted->start->protection->secret.len, is_standby ? 32 : 0);
    assert_string_equal(message->adopted->start->protection->vm, "vm");
    release(message);
    role = UNDERSTUDY__ROLE__ROLE_NONE;
}

/* It may be asked for again, and then its daemon names its secret. */
static void test_a_later_daemon_is_told_the_secret_of_a_standby(void **state)
{
    tell_later_daemon(*state, true);
}

static void test_a_later_daemon_is_not_told_the_secret_of_a_primary(void **state)
{
    tell_later_daemon(*state, false);
}

static void test_nothing_is_reported_while_no_daemon_is_there(void **state)
{
    struct world *world = *state;
    close(world->daemon);
    world->daemon = -1;
    await(&world->nlost, 1);
    unsigned reports = world->nreports;
    channel_report_soon(world->channel);
    channel_ended(world->channel, SESSION_END_STOPPED, NULL);
    gint64 until = g_get_monotonic_time() + 300000; /* a regular report would be due */
    while (g_get_monotonic_time() < until)
        g_main_context_iteration(NULL, TRUE);
    assert_int_equal(world->nreports, reports);
}

static void test_the_last_word_follows_a_last_status_and_is_out_when_it_returns(void **state)
{
    struct world *world = *state;
    channel_ended(world->channel, SESSION_END_FENCED, "the other host has it");
    Understudy__Envelope *message =
        framing_read(STREAM_FD(world->daemon), PATIENCE_MS, NULL); /* no main loop runs */
    assert_non_null(message);
    assert_int_equal(message->body_case, UNDERSTUDY__ENVELOPE__BODY_STATUS);
    release(message);
    message = framing_read(STREAM_FD(world->daemon), PATIENCE_MS, NULL);
    assert_non_null(message);
    assert_int_equal(message->body_case, UNDERSTUDY__ENVELOPE__BODY_ENDED);
    assert_string_equal(message->ended->reason, session_end_reason_name(SESSION_END_FENCED));
    assert_string_equal(message->ended->message, "the other host has it");
    release(message);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_each_order_goes_to_its_own_function, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_orders_before_the_start_are_passed_over, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_orders_after_a_start_that_cannot_be_followed_are_passed_over,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_folder_where_no_later_daemon_could_look_is_a_failure, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_status_goes_out_now_and_then, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_change_is_reported_soon, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_changes_at_once_are_one_report, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_later_daemon_is_told_what_runs_here_and_gives_the_orders,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_later_daemon_is_told_the_secret_of_a_standby, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_a_later_daemon_is_not_told_the_secret_of_a_primary, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_nothing_is_reported_while_no_daemon_is_there, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_the_last_word_follows_a_last_status_and_is_out_when_it_returns,
                                        set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
