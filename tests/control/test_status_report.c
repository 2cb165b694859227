/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What status says in each state of a replicator. The parts have fixed figures here; what is sent is kept as
 * the daemon would read it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "replicator/control/channel.h"
#include "replicator/control/replicator.h"
#include "tests/control/fake_core.h"

static struct replicator r;
static struct fake_core core;
static Understudy__Status *status; /* the newest one that was sent */
static struct capture_figures figures;
static struct gate_stats gate;
static struct histogram *hold_us;
static struct disk_figures disks[2];
static unsigned ndisks, npaths;
static int send_error;
static pid_t pid; /* of the machine; 0: it has ended */

/* ---- what status_report.c calls ---- */

const struct capture_figures *capture_thread_figures(const struct capture_thread *thread)
{
    assert_ptr_equal(thread, r.capture);
    return &figures;
}
const struct histogram *gate_hold_us(const struct output_gate *of)
{
    (void)of;
    return hold_us;
}
void gate_get_stats(const struct output_gate *of, struct gate_stats *out)
{
    (void)of;
    *out = gate;
}
unsigned disks_count(const struct disks *of)
{
    (void)of;
    return ndisks;
}
void disks_figures(const struct disks *of, unsigned disk, struct disk_figures *out)
{
    (void)of;
    *out = disks[disk];
}
unsigned paths_count(const struct paths *paths)
{
    (void)paths;
    return npaths;
}
uint64_t paths_silent_ms(const struct paths *paths, unsigned i)
{
    (void)paths;
    return 10 + i;
}
int paths_send_error(const struct paths *paths, unsigned i, uint64_t *total)
{
    (void)paths;
    *total = 20 + i;
    return i == 1 ? send_error : 0;
}
const char *hypervisor_version(const struct hypervisor *hv)
{
    (void)hv;
    return "10.0.2";
}
pid_t machine_pid(const struct machine *machine)
{
    assert_non_null(machine);
    return pid;
}
void channel_status(struct channel *channel, Understudy__Status *of)
{
    assert_ptr_equal(channel, r.channel);
    size_t len = understudy__status__get_packed_size(of);
    g_autofree uint8_t *packed = g_malloc(len + 1);
    understudy__status__pack(of, packed);
    if (status)
        understudy__status__free_unpacked(status, NULL);
    status = understudy__status__unpack(NULL, len, packed);
    assert_non_null(status);
}

/* ---- a transport that has sent 1000 bytes and received 200 ---- */

static uint64_t bytes_sent = 1000;

static void get_stats(const struct transport *transport, struct transport_stats *out)
{
    (void)transport;
    *out = (struct transport_stats){.bytes_sent = bytes_sent, .bytes_received = 200};
}

static const struct transport_ops ops = {.name = "tcp", .stats = get_stats};
static struct transport transport = {.ops = &ops};
static struct connection connection = {.transport = &transport};

static struct histogram *one_value(uint64_t value)
{
    struct histogram *histogram = histogram_new();
    histogram_record(histogram, value);
    return histogram;
}

/* ---- a primary under protection, with a standby at epoch 90 ---- */

static int set_up(void **state)
{
    (void)state;
    memset(&r, 0, sizeof r);
    memset(&disks, 0, sizeof disks);
    gate = (struct gate_stats){.frames_dropped = 3};
    ndisks = npaths = 0;
    send_error = 0;
    bytes_sent = 1000;
    figures = (struct capture_figures){
        .pause_us = one_value(1),
        .stop_us = one_value(2),
        .harvest_us = one_value(3),
        .save_us = one_value(4),
        .copy_wait_us = one_value(5),
        .resume_us = one_value(6),
        .dirty_pages = one_value(7),
        .expired = 12,
        .sync_remaining_pages = 40,
        .sync_total_pages = 100,
        .sync_sent_pages = 80,
    };
    hold_us = one_value(9);
    r.epoch_bytes = one_value(8);
    r.config.vm_name = (char *)"web";
    r.config.peer_host = (char *)"192.0.2.2";
    r.config.ram_bytes = 64u << 20;
    r.config.role = SESSION_PRIMARY;
    r.session.role = SESSION_PRIMARY;
    r.session.state = SESSION_PROTECTED;
    r.session.term = 6;
    r.session.cut_epoch = 92;
    r.session.acked_epoch = 90;
    r.hv_ready = r.session_begun = r.guest_runs_here = true;
    r.hv = (struct hypervisor *)&r;
    r.capture = (struct capture_thread *)&figures;
    r.gate = (struct output_gate *)&gate;
    r.channel = (struct channel *)&core;
    r.machine = (struct machine *)&r;
    pid = 4711;
    r.sync_ms = 7.5;
    r.detect_ms = r.promote_ms = -1;
    r.rates.last_us = g_get_monotonic_time();
    fake_core_open(&core, &r.sink);
    return 0;
}

static int tear_down(void **state)
{
    struct histogram *const all[] = {figures.pause_us,    figures.stop_us,   figures.harvest_us,
                                     figures.save_us,     figures.resume_us, figures.copy_wait_us,
                                     figures.dirty_pages, hold_us,           r.epoch_bytes};
    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(all); i++)
        histogram_free(all[i]);
    if (status)
        understudy__status__free_unpacked(g_steal_pointer(&status), NULL);
    sink_clear(&r.sink);
    return 0;
}

static const Understudy__Status *report(void)
{
    status_report(&r);
    return status;
}

static void test_a_primary_says_what_it_is(void **state)
{
    const Understudy__Status *s = report();
    (void)state;
    assert_string_equal(s->vm, "web");
    assert_int_equal(s->role, UNDERSTUDY__ROLE__ROLE_PRIMARY);
    assert_int_equal(s->state, UNDERSTUDY__STATE__STATE_PROTECTED);
    assert_int_equal(s->term, 6);
    assert_string_equal(s->peer, "192.0.2.2");
    assert_string_equal(s->qemu_version, "10.0.2");
    assert_int_equal(s->memory_mib, 64);
    assert_int_equal(s->epochs, 92);
    assert_int_equal(s->acked_epoch, 90);
    assert_int_equal(s->qemu_pid, 4711);
    assert_true(s->guest_here);
    assert_int_equal(s->frames_dropped, 3);
    assert_int_equal(s->expired, 12);
    assert_int_equal(s->sync_total_pages, 100);
    assert_int_equal(s->sync_done_pages, 60);
    assert_int_equal(s->sync_sent_pages, 80);
    assert_true(s->sync_ms == 7.5);
    assert_false(s->sync_difference);
    assert_true(s->detect_ms == -1);
    assert_true(s->promote_ms == -1);
    assert_int_equal(s->on_peer_loss, UNDERSTUDY__PEER_LOSS__PEER_LOSS_CONTINUE);
    assert_string_equal(s->last_error, "");
    assert_string_equal(s->split, "");
    assert_string_equal(s->guest_event, "");
    assert_int_equal(s->n_disks, 0);
    assert_int_equal(s->n_heartbeats, 0);
    assert_false(s->untried);
}

static void test_each_histogram_is_in_its_own_place(void **state)
{
    const Understudy__Status *s = report();
    (void)state;
    const Understudy__Percentiles *const all[] = {s->pause_us,    s->stop_us,      s->harvest_us,
                                                  s->save_us,     s->copy_wait_us, s->resume_us,
                                                  s->dirty_pages, s->epoch_bytes,  s->hold_us};
    for (size_t i = 0; i < G_N_ELEMENTS(all); i++) {
        assert_int_equal(all[i]->max, i + 1);
        assert_int_equal(all[i]->p50, i + 1);
        assert_int_equal(all[i]->p99, i + 1);
    }
}

static void test_percentiles_are_in_their_order(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 98; i++)
        histogram_record(figures.pause_us, 1);
    histogram_record(figures.pause_us, 1000);
    const Understudy__Status *s = report();
    assert_int_equal(s->pause_us->p50, 1);
    assert_int_equal(s->pause_us->max, 1000);
    assert_in_range(s->pause_us->p99, 1, 999);
}

/* It has no figures of a capture, and its epochs are those that it has acked. */
static void test_a_standby_says_what_it_holds(void **state)
{
    (void)state;
    r.session.role = SESSION_SECONDARY;
    r.session.state = SESSION_STANDBY;
    r.session.untried = true;
    r.trial_text = (char *)"QEMU is loading";
    r.guest_runs_here = false;
    r.guest_state = UNDERSTUDY__GUEST_STATE__GUEST_STATE_PAUSED;
    const Understudy__Status *s = report();
    assert_int_equal(s->role, UNDERSTUDY__ROLE__ROLE_SECONDARY);
    assert_int_equal(s->state, UNDERSTUDY__STATE__STATE_STANDBY);
    assert_int_equal(s->epochs, 90);
    assert_int_equal(s->expired, 0);
    assert_int_equal(s->sync_total_pages, 0);
    assert_true(s->untried);
    assert_string_equal(s->trial, "QEMU is loading");
    assert_false(s->guest_here);
    assert_int_equal(s->guest_state, UNDERSTUDY__GUEST_STATE__GUEST_STATE_RUNS);
}

static void test_a_primary_says_whether_its_standby_is_untried(void **state)
{
    (void)state;
    r.peer_untried = true;
    r.trial_text = (char *)"of when this was the standby";
    r.session.untried = true;
    assert_false(report()->untried); /* it was, and has been tried since */
    assert_string_equal(status->trial, "");
    r.session.state = SESSION_ARMING;
    assert_true(report()->untried);
    r.peer_untried = false;
    assert_false(report()->untried);
}

/* Nothing of the parts is there yet, and the session is all zero: a primary that connects. */
static void test_before_there_is_a_session_the_order_says_what_this_is(void **state)
{
    struct histogram *epoch_bytes = r.epoch_bytes;
    struct channel *channel = r.channel;
    (void)state;
    sink_clear(&r.sink);
    memset(&r, 0, sizeof r);
    r.channel = channel;
    r.config.vm_name = (char *)"web";
    r.config.role = SESSION_SECONDARY;
    r.rates.last_us = g_get_monotonic_time();
    const Understudy__Status *s = report();
    assert_int_equal(s->role, UNDERSTUDY__ROLE__ROLE_SECONDARY);
    assert_int_equal(s->state, UNDERSTUDY__STATE__STATE_STARTING);
    assert_string_equal(s->peer, "");
    assert_string_equal(s->qemu_version, "");
    assert_string_equal(s->transport, "");
    assert_int_equal(s->qemu_pid, 0);
    assert_int_equal(s->pause_us->max, 0);
    assert_int_equal(s->hold_us->max, 0);
    r.hv_ready = true; /* QEMU is there, and a part of this process cannot be made */
    s = report();
    assert_int_equal(s->role, UNDERSTUDY__ROLE__ROLE_SECONDARY);
    assert_int_equal(s->state, UNDERSTUDY__STATE__STATE_STARTING);
    r.config.role = SESSION_PRIMARY;
    assert_int_equal(report()->role, UNDERSTUDY__ROLE__ROLE_PRIMARY);
    r.epoch_bytes = epoch_bytes; /* tear_down frees it */
}

static void test_before_the_order_there_is_not_even_a_name(void **state)
{
    (void)state;
    r.config.vm_name = NULL;
    assert_string_equal(report()->vm, "");
}

static void test_what_is_wrong_is_said(void **state)
{
    (void)state;
    sink_error(&r.sink, "the disk is full");
    r.split = (char *)"both ran it";
    r.guest_event = (char *)"the guest was reset";
    r.guest_state = UNDERSTUDY__GUEST_STATE__GUEST_STATE_PANICKED;
    r.config.on_peer_loss = SESSION_ON_PEER_LOSS_HOLD;
    pid = 0; /* the machine has ended */
    r.sync_difference = true;
    r.detect_ms = 30;
    r.promote_ms = 4;
    const Understudy__Status *s = report();
    assert_string_equal(s->last_error, "the disk is full");
    assert_string_equal(s->split, "both ran it");
    assert_string_equal(s->guest_event, "the guest was reset");
    assert_int_equal(s->guest_state, UNDERSTUDY__GUEST_STATE__GUEST_STATE_PANICKED);
    assert_int_equal(s->on_peer_loss, UNDERSTUDY__PEER_LOSS__PEER_LOSS_HOLD);
    assert_int_equal(s->qemu_pid, 0);
    assert_true(s->sync_difference);
    assert_true(s->detect_ms == 30);
    assert_true(s->promote_ms == 4);
}

static void test_why_it_is_not_rdma_is_said_while_it_is_tcp(void **state)
{
    (void)state;
    r.transport_why = (char *)"no device";
    assert_string_equal(report()->transport_why, ""); /* no link yet */
    r.transport = "tcp";
    assert_string_equal(report()->transport, "tcp");
    assert_string_equal(status->transport_why, "no device");
    r.transport = "rdma";
    assert_string_equal(report()->transport_why, "");
}

/* The harvest may have found more since. */
static void test_no_more_pages_are_left_than_there_are(void **state)
{
    (void)state;
    atomic_store(&figures.sync_remaining_pages, 400);
    assert_int_equal(report()->sync_done_pages, 0);
}

/* ---- rates ---- */

static void test_rates_are_of_the_time_since_the_last_report(void **state)
{
    (void)state;
    r.connection = &connection;
    r.rates.last_us = g_get_monotonic_time() - 2 * G_USEC_PER_SEC;
    r.rates.last_epochs = 52;
    r.rates.last_bytes = 200;
    const Understudy__Status *s = report();
    assert_in_range((uint64_t)(s->epochs_per_s * 100), 1500, 2000); /* 40 in 2 s, or a little more */
    assert_in_range((uint64_t)s->bytes_per_s, 375, 500);
    assert_int_equal(r.rates.last_epochs, 92);
    assert_int_equal(r.rates.last_bytes, 1200);
    double before = s->epochs_per_s;
    r.session.cut_epoch = 192;
    assert_true(report()->epochs_per_s == before); /* too soon to say */
    assert_int_equal(r.rates.last_epochs, 92);
}

/* A connection's bytes begin at nothing, and a takeover's epochs. */
static void test_rates_never_go_below_nothing(void **state)
{
    (void)state;
    r.rates.last_us = g_get_monotonic_time() - G_USEC_PER_SEC;
    r.rates.last_epochs = 1000;
    r.rates.last_bytes = 5000;
    assert_true(report()->epochs_per_s == 0);
    assert_true(status->bytes_per_s == 0);
}

/* ---- disks and heartbeats ---- */

static void add_disks(void)
{
    ndisks = 2;
    disks[0] = (struct disk_figures){.id = "root",
                                     .path = "/images/root.raw",
                                     .len = 1000,
                                     .log_bytes = 1,
                                     .dirty_bytes = 300,
                                     .candidate_bytes = 3,
                                     .sent_bytes = 4,
                                     .server_runs = true};
    disks[1] = (struct disk_figures){
        .id = "data", .path = "/images/data.raw", .len = 10, .dirty_bytes = 50, .fault = "no space"};
}

static void test_each_disk_has_its_figures(void **state)
{
    (void)state;
    add_disks();
    r.config.durable_acks = true;
    const Understudy__Status *s = report();
    assert_int_equal(s->n_disks, 2);
    assert_int_equal(s->durability, UNDERSTUDY__DURABILITY__DURABILITY_DISK);
    const Understudy__DiskStatus *root = s->disks[0], *data = s->disks[1];
    assert_string_equal(root->id, "root");
    assert_string_equal(root->path, "/images/root.raw");
    assert_int_equal(root->state, UNDERSTUDY__DISK_STATE__DISK_STATE_PROTECTED);
    assert_int_equal(root->total_bytes, 1000);
    assert_int_equal(root->dirty_bytes, 300);
    assert_int_equal(root->done_bytes, 700);
    assert_int_equal(root->log_bytes, 1);
    assert_int_equal(root->candidate_bytes, 3);
    assert_int_equal(root->sent_bytes, 4);
    assert_string_equal(root->message, "");
    assert_string_equal(data->id, "data");
    assert_int_equal(data->state, UNDERSTUDY__DISK_STATE__DISK_STATE_FAILED);
    assert_int_equal(data->done_bytes, 0); /* more may differ than there is */
    assert_string_equal(data->message, "no space");
    r.config.durable_acks = false;
    assert_int_equal(report()->durability, UNDERSTUDY__DURABILITY__DURABILITY_MEMORY);
}

static void test_a_disk_is_as_the_session_is(void **state)
{
    static const enum session_state synchronising[] = {SESSION_SYNCHRONISING, SESSION_FOLLOWING};
    static const enum session_state protected[] = {SESSION_ARMING, SESSION_PROTECTED, SESSION_STANDBY,
                                                   SESSION_HANDING_OVER};
    unsigned seen[5] = {0};
    (void)state;
    add_disks();
    for (unsigned i = 0; i < SESSION_NSTATES; i++) {
        r.session.state = (enum session_state)i;
        assert_in_range(report()->disks[0]->state, 1, 3);
        seen[status->disks[0]->state]++;
    }
    for (size_t i = 0; i < G_N_ELEMENTS(synchronising); i++) {
        r.session.state = synchronising[i];
        assert_int_equal(report()->disks[0]->state, UNDERSTUDY__DISK_STATE__DISK_STATE_SYNCHRONISING);
    }
    for (size_t i = 0; i < G_N_ELEMENTS(protected); i++) {
        r.session.state = protected[i];
        assert_int_equal(report()->disks[0]->state, UNDERSTUDY__DISK_STATE__DISK_STATE_PROTECTED);
    }
    assert_int_equal(seen[UNDERSTUDY__DISK_STATE__DISK_STATE_SYNCHRONISING], 2);
    assert_int_equal(seen[UNDERSTUDY__DISK_STATE__DISK_STATE_PROTECTED], 4);
}

static void test_each_path_says_where_it_goes_and_what_fails(void **state)
{
    (void)state;
    npaths = 2;
    send_error = ENETUNREACH;
    r.config.nheartbeat_paths = 1;
    r.config.heartbeat_paths[0].there = (char *)"198.51.100.2";
    const Understudy__Status *s = report();
    assert_int_equal(s->n_heartbeats, 2);
    assert_string_equal(s->heartbeats[0]->there, "192.0.2.2");
    assert_int_equal(s->heartbeats[0]->silent_ms, 10);
    assert_int_equal(s->heartbeats[0]->send_errors, 20);
    assert_string_equal(s->heartbeats[0]->send_error, "");
    assert_string_equal(s->heartbeats[1]->there, "198.51.100.2");
    assert_int_equal(s->heartbeats[1]->silent_ms, 11);
    assert_int_equal(s->heartbeats[1]->send_errors, 21);
    assert_string_equal(s->heartbeats[1]->send_error, g_strerror(ENETUNREACH));
    r.config.peer_host = NULL; /* not known yet */
    assert_string_equal(report()->heartbeats[0]->there, "");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_a_primary_says_what_it_is),
        TEST(test_each_histogram_is_in_its_own_place),
        TEST(test_percentiles_are_in_their_order),
        TEST(test_a_standby_says_what_it_holds),
        TEST(test_a_primary_says_whether_its_standby_is_untried),
        TEST(test_before_there_is_a_session_the_order_says_what_this_is),
        TEST(test_before_the_order_there_is_not_even_a_name),
        TEST(test_what_is_wrong_is_said),
        TEST(test_why_it_is_not_rdma_is_said_while_it_is_tcp),
        TEST(test_no_more_pages_are_left_than_there_are),
        TEST(test_rates_are_of_the_time_since_the_last_report),
        TEST(test_rates_never_go_below_nothing),
        TEST(test_each_disk_has_its_figures),
        TEST(test_a_disk_is_as_the_session_is),
        TEST(test_each_path_says_where_it_goes_and_what_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
