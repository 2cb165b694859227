/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The daemon's order to start: what is made of each of its fields, and which orders are refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "proto/limits.h"
#include "replicator/control/start_order.h"

/* ---- an order that is in order ---- */

struct order {
    Understudy__Start start;
    Understudy__Protection protection;
    Understudy__Disk disks[DISK_MAX + 1], *disk_list[DISK_MAX + 1];
    Understudy__HeartbeatPath paths[LIMIT_HEARTBEAT_PATHS + 1], *path_list[LIMIT_HEARTBEAT_PATHS + 1];
    char *argv[3], *trial_argv[2], *line[4];
    uint8_t token[WIRE_TOKEN_LEN], secret[SEAL_SECRET_LEN];
};

static struct order order;
static struct replicator_config config;
static struct run_actions actions;

static void fill_order(void)
{
    Understudy__Protection *p = &order.protection;
    understudy__start__init(&order.start);
    understudy__protection__init(p);
    order.start.protection = p;
    order.argv[0] = (char *)"qemu";
    order.argv[1] = (char *)"-S";
    order.start.argv = order.argv;
    order.start.n_argv = 2;
    order.start.vm_dir = (char *)"/run/vm";
    order.start.hook = (char *)"/lib/hook.so";
    order.start.state_dir = (char *)"/var/lib/vm";
    order.start.disk_plugin = (char *)"/lib/plugin.so";
    order.start.role = UNDERSTUDY__ROLE__ROLE_PRIMARY;
    for (size_t i = 0; i < sizeof order.token; i++)
        order.token[i] = (uint8_t)(i + 1);
    p->vm = (char *)"web";
    p->token.data = order.token;
    p->token.len = sizeof order.token;
    memset(order.secret, 0x5b, sizeof order.secret);
    p->secret.data = order.secret;
    p->secret.len = sizeof order.secret;
    p->qemu_argv = order.line;
    p->ram_bytes = 64u << 20;
    p->nnics = 2;
    p->term = 6;
    p->epoch_ms = 21;
    p->deadline_ms = 22;
    p->silence_ms = 123;
    p->heartbeat_ms = 13;
    p->qemu_version = (char *)"10.0.2";
    p->tried_for = (char *)"7.2.22";
    for (size_t i = 0; i < G_N_ELEMENTS(order.disks); i++) {
        understudy__disk__init(&order.disks[i]);
        order.disk_list[i] = &order.disks[i];
    }
    p->disks = order.disk_list;
    for (size_t i = 0; i < G_N_ELEMENTS(order.paths); i++) {
        understudy__heartbeat_path__init(&order.paths[i]);
        order.path_list[i] = &order.paths[i];
    }
    p->heartbeat_paths = order.path_list;
}

static int set_up(void **state)
{
    (void)state;
    memset(&order, 0, sizeof order);
    memset(&config, 0, sizeof config);
    memset(&actions, 0, sizeof actions);
    fill_order();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    g_free(config.vm_name);
    g_free(config.vm_dir);
    g_strfreev(config.qemu_argv);
    g_strfreev(config.trial_argv);
    g_free(config.qemu_version);
    g_free(config.tried_for);
    g_free(config.hook_path);
    g_free(config.listen_address);
    g_free(config.peer_host);
    g_free(config.state_dir);
    g_free(config.disk_plugin);
    for (unsigned i = 0; i < config.ndisks; i++) {
        g_free(config.disks[i].id);
        g_free(config.disks[i].path);
    }
    for (unsigned i = 0; i < config.nheartbeat_paths; i++) {
        g_free(config.heartbeat_paths[i].here);
        g_free(config.heartbeat_paths[i].there);
    }
    return 0;
}

static void take(void)
{
    g_autoptr(GError) error = NULL;
    assert_true(start_order_take(&order.start, &config, &actions, &error));
    assert_null(error);
}

/* With these words in the sentence, and nothing is changed. */
static void assert_refused(const char *words)
{
    static const struct replicator_config nothing;
    static const struct run_actions no_actions;
    g_autoptr(GError) error = NULL;
    assert_false(start_order_take(&order.start, &config, &actions, &error));
    assert_non_null(error);
    assert_non_null(strstr(error->message, words));
    assert_memory_equal(&config, &nothing, sizeof config);
    assert_memory_equal(&actions, &no_actions, sizeof actions);
}

static void test_what_is_ordered_is_copied(void **state)
{
    (void)state;
    take();
    assert_string_equal(config.vm_name, "web");
    assert_ptr_not_equal(config.vm_name, order.protection.vm);
    assert_string_equal(config.vm_dir, "/run/vm");
    assert_string_equal(config.hook_path, "/lib/hook.so");
    assert_string_equal(config.state_dir, "/var/lib/vm");
    assert_string_equal(config.disk_plugin, "/lib/plugin.so");
    assert_string_equal(config.qemu_version, "10.0.2");
    assert_string_equal(config.tried_for, "7.2.22");
    assert_string_equal(config.qemu_argv[0], "qemu");
    assert_string_equal(config.qemu_argv[1], "-S");
    assert_null(config.qemu_argv[2]);
    assert_ptr_not_equal(config.qemu_argv[0], order.argv[0]);
    assert_memory_equal(config.token, order.token, sizeof config.token);
    assert_true(config.sealed); /* without a word, links are sealed */
    assert_memory_equal(config.secret, order.secret, sizeof config.secret);
    assert_int_equal(config.ram_bytes, 64u << 20);
    assert_int_equal(config.nnics, 2);
    assert_int_equal(config.term, 6);
    assert_int_equal(config.epoch_ms, 21);
    assert_int_equal(config.deadline_ms, 22);
    assert_int_equal(config.silence_ms, 123);
    assert_int_equal(config.heartbeat_ms, 13);
}

static void test_what_is_not_said_is_the_usual(void **state)
{
    (void)state;
    take();
    assert_int_equal(config.role, SESSION_PRIMARY);
    assert_null(config.trial_argv);
    assert_null(config.listen_address);
    assert_null(config.peer_host);
    assert_int_equal(config.peer_data_port, 0);
    assert_int_equal(config.peer_udp_port, 0);
    assert_int_equal(config.nice, 0);
    assert_int_equal(config.tracker, HV_TRACKER_QEMU_LOG);
    assert_int_equal(config.transport, TRANSPORT_AUTO);
    assert_int_equal(config.on_peer_loss, SESSION_ON_PEER_LOSS_CONTINUE);
    assert_int_equal(config.nheartbeat_paths, 0);
    assert_int_equal(config.ndisks, 0);
    assert_false(config.durable_acks);
    assert_false(actions.shutdown_pauses);
    assert_false(actions.panic_pauses);
}

static void test_what_is_said_is_done(void **state)
{
    (void)state;
    order.start.listen_address = (char *)"192.0.2.1";
    order.start.peer_host = (char *)"192.0.2.2";
    order.start.peer_data_port = UINT16_MAX;
    order.start.peer_udp_port = 4712;
    order.start.nice = -5;
    order.protection.tracker = (char *)"uffd";
    order.protection.transport = (char *)"tcp";
    order.protection.on_peer_loss = UNDERSTUDY__PEER_LOSS__PEER_LOSS_HOLD;
    order.protection.durability = UNDERSTUDY__DURABILITY__DURABILITY_DISK;
    take();
    assert_string_equal(config.listen_address, "192.0.2.1");
    assert_string_equal(config.peer_host, "192.0.2.2");
    assert_int_equal(config.peer_data_port, UINT16_MAX);
    assert_int_equal(config.peer_udp_port, 4712);
    assert_int_equal(config.nice, -5);
    assert_int_equal(config.tracker, HV_TRACKER_UFFD);
    assert_int_equal(config.transport, TRANSPORT_TCP);
    assert_int_equal(config.on_peer_loss, SESSION_ON_PEER_LOSS_HOLD);
    assert_true(config.durable_acks);
}

static void test_rdma_is_a_transport(void **state)
{
    (void)state;
    order.protection.transport = (char *)"rdma";
    take();
    assert_int_equal(config.transport, TRANSPORT_RDMA);
}

static void test_a_standby_may_have_to_try_its_qemu_and_a_primary_never(void **state)
{
    (void)state;
    order.trial_argv[0] = (char *)"qemu";
    order.trial_argv[1] = (char *)"-nodefaults";
    order.start.trial_argv = order.trial_argv;
    order.start.n_trial_argv = 2;
    take();
    assert_null(config.trial_argv);
    tear_down(NULL);
    memset(&config, 0, sizeof config);
    order.start.role = UNDERSTUDY__ROLE__ROLE_SECONDARY;
    take();
    assert_int_equal(config.role, SESSION_SECONDARY);
    assert_string_equal(config.trial_argv[0], "qemu");
    assert_string_equal(config.trial_argv[1], "-nodefaults");
    assert_null(config.trial_argv[2]);
}

/* QEMU's own line is rewritten, and would say otherwise. */
static void test_the_users_line_says_what_ends_the_vm(void **state)
{
    (void)state;
    order.line[0] = (char *)"qemu-system-x86_64";
    order.line[1] = (char *)"-no-shutdown";
    order.line[2] = (char *)"-action";
    order.line[3] = (char *)"panic=pause";
    order.protection.n_qemu_argv = 4;
    take();
    assert_true(actions.shutdown_pauses);
    assert_true(actions.panic_pauses);
}

static void test_disks_and_paths_come_in_order(void **state)
{
    (void)state;
    order.disks[0].id = (char *)"root";
    order.disks[0].path = (char *)"/images/root.raw";
    order.disks[0].export_len = 4096;
    order.disks[1].id = (char *)"data";
    order.disks[1].path = (char *)"/shared/data.raw";
    order.disks[1].shared = true;
    order.protection.n_disks = 2;
    order.paths[0].here = (char *)"198.51.100.1";
    order.paths[0].there = (char *)"198.51.100.2";
    order.paths[1].here = (char *)"203.0.113.1";
    order.paths[1].there = (char *)"203.0.113.2";
    order.protection.n_heartbeat_paths = 2;
    take();
    assert_int_equal(config.ndisks, 2);
    assert_string_equal(config.disks[0].id, "root");
    assert_string_equal(config.disks[0].path, "/images/root.raw");
    assert_int_equal(config.disks[0].export_len, 4096);
    assert_false(config.disks[0].shared);
    assert_string_equal(config.disks[1].id, "data");
    assert_string_equal(config.disks[1].path, "/shared/data.raw");
    assert_true(config.disks[1].shared);
    assert_int_equal(config.nheartbeat_paths, 2);
    assert_string_equal(config.heartbeat_paths[0].here, "198.51.100.1");
    assert_string_equal(config.heartbeat_paths[0].there, "198.51.100.2");
    assert_string_equal(config.heartbeat_paths[1].here, "203.0.113.1");
    assert_string_equal(config.heartbeat_paths[1].there, "203.0.113.2");
}

static void test_as_much_as_there_is_room_for_is_taken(void **state)
{
    (void)state;
    order.protection.n_disks = DISK_MAX;
    order.protection.n_heartbeat_paths = LIMIT_HEARTBEAT_PATHS;
    order.protection.nnics = REPLICATOR_MAX_NICS;
    take();
    assert_int_equal(config.ndisks, DISK_MAX);
    assert_int_equal(config.nheartbeat_paths, HEARTBEAT_PATHS_MAX);
    assert_int_equal(config.nnics, REPLICATOR_MAX_NICS);
}

static void test_more_than_there_is_room_for_is_refused(void **state)
{
    (void)state;
    order.protection.n_disks = DISK_MAX + 1;
    assert_refused("not understood");
    fill_order();
    order.protection.n_heartbeat_paths = LIMIT_HEARTBEAT_PATHS + 1;
    assert_refused("heartbeat paths");
    fill_order();
    order.protection.nnics = REPLICATOR_MAX_NICS + 1;
    assert_refused("network devices");
}

static void test_an_order_that_lacks_something_is_refused(void **state)
{
    (void)state;
    order.start.protection = NULL;
    assert_refused("not understood");
    fill_order();
    order.protection.token.len--;
    assert_refused("not understood");
    fill_order();
    order.protection.token.len = 0;
    order.protection.token.data = NULL;
    assert_refused("not understood");
    fill_order();
    order.protection.secret.len--;
    assert_refused("not understood");
    fill_order();
    order.protection.secret.len = 0; /* it is sealed, or not started at all */
    order.protection.secret.data = NULL;
    assert_refused("not understood");
    fill_order();
    order.start.n_argv = 0;
    assert_refused("not understood");
}

static void test_a_link_that_need_not_be_sealed_needs_no_secret(void **state)
{
    (void)state;
    order.protection.link_security = UNDERSTUDY__LINK_SECURITY__LINK_SECURITY_NONE;
    order.protection.secret.len = 0;
    order.protection.secret.data = NULL;
    assert_true(start_order_take(&order.start, &config, &actions, NULL));
    assert_false(config.sealed);
}

/* One that is cut to 16 bits would be another process's. */
static void test_a_port_that_is_none_is_refused(void **state)
{
    (void)state;
    order.start.peer_data_port = UINT16_MAX + 1;
    assert_refused("not understood");
    fill_order();
    order.start.peer_udp_port = UINT32_MAX;
    assert_refused("not understood");
}

static void test_numbers_out_of_bounds_are_refused_by_name(void **state)
{
    (void)state;
    order.start.nice = LIMIT_NICE_MIN - 1;
    assert_refused("--nice -21");
    fill_order();
    order.start.nice = LIMIT_NICE_MAX + 1;
    assert_refused("--nice 20");
    fill_order();
    order.protection.epoch_ms = 0;
    assert_refused("--epoch-ms 0");
    fill_order();
    order.protection.transport = (char *)"pigeon";
    assert_refused("--transport pigeon");
}

static void test_a_second_order_changes_nothing(void **state)
{
    g_autoptr(GError) error = NULL;
    (void)state;
    take();
    struct replicator_config before = config;
    order.protection.epoch_ms = 99;
    assert_false(start_order_take(&order.start, &config, &actions, &error));
    assert_non_null(error);
    assert_memory_equal(&config, &before, sizeof config);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_what_is_ordered_is_copied),
        TEST(test_what_is_not_said_is_the_usual),
        TEST(test_what_is_said_is_done),
        TEST(test_rdma_is_a_transport),
        TEST(test_a_standby_may_have_to_try_its_qemu_and_a_primary_never),
        TEST(test_the_users_line_says_what_ends_the_vm),
        TEST(test_disks_and_paths_come_in_order),
        TEST(test_as_much_as_there_is_room_for_is_taken),
        TEST(test_more_than_there_is_room_for_is_refused),
        TEST(test_an_order_that_lacks_something_is_refused),
        TEST(test_a_link_that_need_not_be_sealed_needs_no_secret),
        TEST(test_a_port_that_is_none_is_refused),
        TEST(test_numbers_out_of_bounds_are_refused_by_name),
        TEST(test_a_second_order_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
