/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The guest's life from its start to its end, on a machine that does what the test says (fake_machine.h):
 * what the session and the administrator hear, and what the machine is told. guest.c with the parts that it
 * tells, guest_events.c, guest_disks.c and guest_nics.c; the core only writes down.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>
#include <unistd.h>

#include "replicator/control/replicator.h"
#include "tests/control/fake_core.h"
#include "tests/fakevm/fake_hypervisor.h"
#include "tests/fakevm/fake_machine.h"

#define RAM_LEN     (64u * HV_PAGE_LEN)
#define TERM        7u
#define RECEIVED_NS 250000000u /* before now: when the newest epoch came */

/* ---- what stands beside the guest (--wrap) ---- */

static struct {
    unsigned ndropped, ninjected;
    unsigned ninjected_before; /* events, when frames were injected */
    uint64_t received_ns;
    uint8_t devstate[16];
    uint64_t used_len[2];
} now;

static struct replicator r;
static struct fake_core core;
static char *last_warning;

void __wrap_gate_drop(struct output_gate *gate);
int __wrap_gate_add_nic(struct output_gate *gate, int out_fd, int in_fd);
int __wrap_input_log_add_nic(struct input_log *log, int mirror_fd, int inject_fd);
void __wrap_input_log_inject(struct input_log *log);
uint64_t __wrap_image_received_ns(const struct image *image);
const uint8_t *__wrap_image_devstate(const struct image *image, size_t *len);
const uint64_t *__wrap_image_used_len(const struct image *image, unsigned *nblocks);

void __wrap_gate_drop(struct output_gate *gate)
{
    (void)gate;
    now.ndropped++;
}
int __wrap_gate_add_nic(struct output_gate *gate, int out_fd, int in_fd)
{
    (void)gate;
    close(out_fd);
    close(in_fd);
    return 0;
}
int __wrap_input_log_add_nic(struct input_log *log, int mirror_fd, int inject_fd)
{
    (void)log;
    close(mirror_fd);
    close(inject_fd);
    return 0;
}
void __wrap_input_log_inject(struct input_log *log)
{
    (void)log;
    now.ninjected++;
    now.ninjected_before = core.nevents;
}
uint64_t __wrap_image_received_ns(const struct image *image)
{
    (void)image;
    return now.received_ns;
}
const uint8_t *__wrap_image_devstate(const struct image *image, size_t *len)
{
    (void)image;
    *len = sizeof now.devstate;
    return now.devstate;
}
const uint64_t *__wrap_image_used_len(const struct image *image, unsigned *nblocks)
{
    (void)image;
    *nblocks = G_N_ELEMENTS(now.used_len);
    return now.used_len;
}

/* ---- who is told (parts.c's place) ---- */

static struct {
    unsigned nready, nmirrors_at_ready, ntaken_over;
    enum machine_state state;
    unsigned nevents_before; /* of the session, at taken_over */
} heard;

static void on_ready(struct replicator *of)
{
    heard.nready++;
    heard.nmirrors_at_ready = fake_machine_of(of->machine)->mirrors;
}

static void on_taken_over(struct replicator *of, const struct machine_takeover *result)
{
    (void)of;
    heard.ntaken_over++;
    heard.state = result->state;
    heard.nevents_before = core.nevents;
}

static void on_disk_error(struct replicator *of, const struct machine_disk_error *error)
{
    guest_disks_io_error(&of->disks, error);
}

static void on_resumed(struct replicator *of)
{
    guest_disks_io_resumed(&of->disks);
}

static void resume_for_disks(void *opaque)
{
    guest_resume(opaque);
}

static void on_log(const gchar *domain, GLogLevelFlags level, const gchar *message, gpointer opaque)
{
    (void)domain;
    (void)opaque;
    if (level & G_LOG_LEVEL_WARNING) {
        g_free(last_warning);
        last_warning = g_strdup(message);
    }
}

/* ---- a VM that is to be started ---- */

static int set_up(void **state)
{
    static const struct guest_observer observer = {
        .ready = on_ready,
        .run_event = guest_events_run,
        .was_reset = guest_events_reset,
        .disk_error = on_disk_error,
        .resumed = on_resumed,
        .taken_over = on_taken_over,
    };
    static char *argv[] = {(char *)"/usr/bin/fakevm", (char *)"memory:1", NULL};
    (void)state;
    memset(&r, 0, sizeof r);
    memset(&now, 0, sizeof now);
    memset(&heard, 0, sizeof heard);
    fake_machine_faults = (struct fake_machine_faults){0};
    fake_machines_freed = fake_machines_freed_alive = 0;
    r.guest_observer = &observer;
    r.config.vm_name = (char *)"vm";
    r.config.vm_dir = (char *)"/nowhere";
    r.config.qemu_argv = argv;
    r.config.hook_path = (char *)"hook.so";
    r.config.ram_bytes = RAM_LEN;
    r.config.nnics = 2;
    r.config.nice = 3;
    r.config.role = r.session.role = SESSION_PRIMARY;
    r.session.state = SESSION_PROTECTED;
    r.session.term = TERM;
    r.disks = (struct guest_disks){
        .vm_name = "vm", .session = &r.session, .sink = &r.sink, .resume = resume_for_disks, .opaque = &r};
    fake_core_open(&core, &r.sink);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    g_clear_handle_id(&r.disks.io_retry, g_source_remove);
    guest_close(&r);
    g_clear_pointer(&r.guest_event, g_free);
    g_clear_pointer(&last_warning, g_free);
    sink_clear(&r.sink);
    return 0;
}

static struct fake_machine *machine(void)
{
    return fake_machine_of(r.machine);
}

static struct fake_machine *start(void)
{
    assert_true(guest_start(&r, NULL));
    assert_non_null(r.machine);
    return machine();
}

static struct fake_machine *start_ready(void)
{
    fake_machine_get_ready(start());
    return machine();
}

/* A standby whose session has decided to take over. */
static struct fake_machine *start_takeover_of(bool peer_takes_back)
{
    r.config.role = r.session.role = SESSION_SECONDARY;
    r.session.state = SESSION_STANDBY;
    start_ready();
    now.received_ns = (uint64_t)g_get_monotonic_time() * 1000 - RECEIVED_NS;
    r.granted_us = g_get_monotonic_time();
    guest_promote(&r, TERM, peer_takes_back);
    r.session.role = SESSION_PRIMARY;
    return machine();
}

static struct fake_machine *start_takeover(void)
{
    return start_takeover_of(false);
}

static void assert_last_order(enum machine_order order)
{
    assert_true(machine()->norders > 0);
    assert_int_equal(machine()->orders[machine()->norders - 1], order);
}

static void assert_error_has(const char *words)
{
    assert_non_null(sink_last_error(&r.sink));
    assert_non_null(strstr(sink_last_error(&r.sink), words));
}

/* ---- its start ---- */

static void test_the_machine_is_started_as_the_order_says(void **state)
{
    (void)state;
    const struct machine_config *config = &start()->config;
    assert_string_equal(config->vm_name, "vm");
    assert_string_equal(config->dir, "/nowhere");
    assert_string_equal(config->argv[1], "memory:1");
    assert_string_equal(config->hook_path, "hook.so");
    assert_int_equal(config->ram_len, RAM_LEN);
    assert_int_equal(config->nnics, 2);
    assert_int_equal(config->nice, 3);
    assert_ptr_equal(r.hv, machine()->hv);
    assert_false(r.hv_ready);
    assert_int_equal(heard.nready, 0);
}

static void test_a_machine_that_cannot_be_started_leaves_nothing(void **state)
{
    g_autoptr(GError) error = NULL;
    (void)state;
    fake_machine_faults.start = "no memory for VM vm";
    assert_false(guest_start(&r, &error));
    assert_string_equal(error->message, "no memory for VM vm");
    assert_null(r.machine);
    assert_null(r.hv);
}

static void test_the_others_begin_once_the_nics_are_connected(void **state)
{
    (void)state;
    start_ready();
    assert_true(r.hv_ready);
    assert_int_equal(heard.nready, 1);
    assert_int_equal(machine()->nnics, 2);
    assert_true(heard.nmirrors_at_ready);
    assert_true(r.guest_runs_here);
    assert_int_equal(core.ngiven_up, 0);
}

static void test_a_standbys_guest_does_not_run_here(void **state)
{
    (void)state;
    r.config.role = SESSION_SECONDARY;
    start_ready();
    assert_int_equal(heard.nready, 1);
    assert_false(r.guest_runs_here);
}

static void test_a_nic_that_cannot_be_reached_ends_the_start(void **state)
{
    (void)state;
    fake_machine_faults.connect_nic = "the socket of NIC 0 cannot be reached";
    start_ready();
    assert_int_equal(heard.nready, 0);
    assert_int_equal(core.ngiven_up, 1);
    assert_error_has("NIC 0");
    assert_false(machine()->mirrors);
}

static void test_a_machine_that_fails_says_why_and_its_end_ends_the_start(void **state)
{
    (void)state;
    fake_machine_fail(start(), "it did not start within 20000 ms");
    assert_string_equal(sink_last_error(&r.sink),
                        "VM vm could not be started: it did not start within 20000 ms");
    assert_int_equal(core.ngiven_up, 0); /* it may have more to say */
    fake_machine_end(machine(), "signal 9");
    assert_int_equal(core.ngiven_up, 1);
    assert_error_has("20000 ms");      /* that it was killed is no news */
    assert_int_equal(core.nevents, 0); /* there is no session yet */
    assert_int_equal(heard.nready, 0);
}

static void test_a_machine_that_dies_before_it_is_ready_says_why_itself(void **state)
{
    (void)state;
    fake_machine_end(start(), "no such device");
    assert_string_equal(sink_last_error(&r.sink), "no such device");
    assert_int_equal(core.ngiven_up, 1);
    assert_int_equal(core.nevents, 0);
    fake_machine_fail(machine(), "it exited before it was ready"); /* the wait for it hears of it later */
    assert_string_equal(sink_last_error(&r.sink), "no such device");
    assert_int_equal(core.ngiven_up, 1);
}

/* ---- its end ---- */

static void test_a_machine_that_dies_is_lost(void **state)
{
    (void)state;
    fake_machine_end(start_ready(), "QEMU ended by itself (signal 11)");
    assert_int_equal(core.nevents, 1);
    assert_int_equal(core.events[0].type, SESSION_EVENT_HYPERVISOR_DIED);
    assert_int_equal(core.ngiven_up, 0);
    assert_error_has("signal 11");
    assert_false(r.guest_runs_here);
}

static void test_the_end_that_was_ordered_is_no_loss(void **state)
{
    (void)state;
    start_ready();
    guest_quit(&r);
    assert_last_order(MACHINE_QUIT);
    assert_false(r.guest_runs_here);
    fake_machine_end(machine(), "exit status 0");
    assert_int_equal(core.nevents, 0);
    assert_null(sink_last_error(&r.sink));
}

static void test_the_end_after_the_sessions_end_is_no_loss(void **state)
{
    (void)state;
    start_ready();
    r.ended = true;
    fake_machine_end(machine(), "exit status 0");
    assert_int_equal(core.nevents, 0);
    assert_int_equal(core.ngiven_up, 0);
    assert_null(sink_last_error(&r.sink));
}

static void test_a_machine_that_does_not_quit_is_killed_at_the_end(void **state)
{
    (void)state;
    start_ready();
    guest_quit(&r);
    assert_false(machine()->was_killed);
    guest_close(&r);
    assert_null(r.machine);
    assert_null(r.hv);
    assert_int_equal(fake_machines_freed, 1);
    assert_int_equal(fake_machines_freed_alive, 1); /* which kills it (machine.h) */
}

static void test_a_fenced_guest_is_killed_and_nothing_of_it_leaves(void **state)
{
    (void)state;
    start_ready();
    guest_fence(&r);
    assert_true(machine()->was_killed);
    assert_int_equal(machine()->norders, 0); /* it is not asked */
    assert_int_equal(now.ndropped, 1);
    assert_false(r.guest_runs_here);
    fake_machine_end(machine(), "signal 9");
    assert_int_equal(core.nevents, 0);
    assert_null(sink_last_error(&r.sink));
}

static void test_trouble_is_logged_until_the_machine_is_to_end(void **state)
{
    (void)state;
    start_ready();
    machine()->observer->trouble(machine()->opaque, "the monitor closed");
    assert_non_null(last_warning);
    assert_non_null(strstr(last_warning, "the monitor closed"));
    assert_null(sink_last_error(&r.sink));
    g_clear_pointer(&last_warning, g_free);
    guest_quit(&r);
    machine()->observer->trouble(machine()->opaque, "the monitor closed");
    assert_null(last_warning);
}

/* ---- what the guest does ---- */

static void run_event(enum run_event event, const char *reason)
{
    machine()->observer->run_event(machine()->opaque, event, reason);
}

static void test_a_guest_that_shuts_down_ends_the_vm(void **state)
{
    (void)state;
    start_ready();
    run_event(RUN_EVENT_SHUTDOWN, "guest-shutdown");
    assert_int_equal(core.nevents, 1);
    assert_int_equal(core.events[0].type, SESSION_EVENT_GUEST_SHUTDOWN);
    assert_false(machine()->was_killed); /* its last frames are still on their way */
}

static void test_a_machine_that_the_host_ends_is_killed_and_lost(void **state)
{
    (void)state;
    start_ready();
    run_event(RUN_EVENT_QUIT, "host-signal");
    assert_int_equal(core.nevents, 0);
    assert_true(machine()->was_killed);
    assert_error_has("host-signal");
    fake_machine_end(machine(), "signal 9");
    assert_int_equal(core.nevents, 1);
    assert_int_equal(core.events[0].type, SESSION_EVENT_HYPERVISOR_DIED);
}

static void iterate_until(unsigned norders)
{
    gint64 until = g_get_monotonic_time() + 10 * G_USEC_PER_SEC;
    while (machine()->norders < norders && g_get_monotonic_time() < until)
        g_main_context_iteration(NULL, FALSE);
    assert_int_equal(machine()->norders, norders);
}

static void test_a_guest_that_stands_still_for_a_disk_is_let_on_until_it_goes_on(void **state)
{
    const struct machine_disk_error error = {.disk = "vda", .reason = "no space", .stops = true};
    (void)state;
    start_ready();
    machine()->observer->disk_error(machine()->opaque, &error);
    assert_error_has("vda");
    iterate_until(2);
    assert_last_order(MACHINE_CONTINUE);
    machine()->observer->resumed(machine()->opaque);
    assert_int_equal(r.disks.io_retry, 0);
}

static void test_a_guest_that_somebody_stopped_is_not_let_on(void **state)
{
    (void)state;
    start_ready();
    r.guest_state = UNDERSTUDY__GUEST_STATE__GUEST_STATE_PAUSED;
    guest_resume(&r);
    assert_int_equal(machine()->norders, 0);
    r.guest_state = UNDERSTUDY__GUEST_STATE__GUEST_STATE_RUNS;
    guest_resume(&r);
    assert_last_order(MACHINE_CONTINUE);
}

static void test_a_reset_lets_a_panicked_guest_begin_anew(void **state)
{
    (void)state;
    r.actions.panic_pauses = true;
    start_ready();
    run_event(RUN_EVENT_PANICKED, NULL);
    guest_button(&r, UNDERSTUDY__POWER_ACTION__POWER_RESET);
    assert_last_order(MACHINE_RESET);
    machine()->observer->was_reset(machine()->opaque);
    assert_last_order(MACHINE_CONTINUE);
}

static void test_an_order_that_the_machine_refuses_is_an_error(void **state)
{
    (void)state;
    start_ready();
    guest_button(&r, UNDERSTUDY__POWER_ACTION__POWER_SHUTDOWN);
    fake_machine_refuse(machine(), "not now");
    assert_error_has("not now");
}

/* The host goes down, and nobody can take the guest over. Whether it obeys is nobody's business. */
static void test_a_guest_whose_host_goes_down_is_asked_to_shut_down(void **state)
{
    (void)state;
    guest_start(&r, NULL);
    guest_power_down(&r);
    assert_int_equal(machine()->norders, 0);
    fake_machine_get_ready(machine());
    guest_power_down(&r);
    assert_last_order(MACHINE_POWER_DOWN);
    assert_null(machine()->refused);
}

/* ---- takeover ---- */

static void test_a_guest_that_was_taken_over_runs_here_with_the_time_that_it_lost(void **state)
{
    (void)state;
    fake_machine_arrive(start_takeover(), MACHINE_RUNS, "running");
    assert_ptr_equal(machine()->image.devstate, now.devstate);
    assert_int_equal(machine()->image.devstate_len, sizeof now.devstate);
    assert_ptr_equal(machine()->image.used_len, now.used_len);
    assert_int_equal(machine()->image.nblocks, 2);
    assert_int_equal(core.nevents, 1);
    assert_int_equal(core.events[0].type, SESSION_EVENT_PROMOTED);
    assert_int_equal(core.events[0].term, TERM);
    assert_true(core.events[0].ok);
    assert_true(r.guest_runs_here);
    assert_true(r.promote_ms >= 0);
    assert_true(fake_clock_advanced_ns(r.hv) >= RECEIVED_NS);
    assert_int_equal(now.ninjected, 1);
    assert_int_equal(now.ninjected_before, 1); /* the session knows before a frame reaches the guest */
    assert_int_equal(heard.ntaken_over, 1);
    assert_int_equal(heard.nevents_before, 1);
    assert_int_equal(heard.state, MACHINE_RUNS);
}

static void test_the_clock_of_a_guest_that_stood_still_is_not_moved(void **state)
{
    (void)state;
    fake_machine_arrive(start_takeover(), MACHINE_PAUSED, "paused");
    assert_true(core.events[0].ok);
    assert_int_equal(fake_clock_advanced_ns(r.hv), 0);
    assert_int_equal(heard.state, MACHINE_PAUSED);
}

static void assert_takeover_failed(const char *why)
{
    assert_int_equal(core.nevents, 1);
    assert_int_equal(core.events[0].type, SESSION_EVENT_PROMOTED);
    assert_int_equal(core.events[0].term, TERM);
    assert_false(core.events[0].ok);
    assert_error_has(why);
    assert_false(r.guest_runs_here);
    assert_int_equal(now.ninjected, 0);
    assert_int_equal(heard.ntaken_over, 0);
    assert_int_equal(fake_clock_advanced_ns(r.hv), 0);
}

/* A busy host must not lose the guest for being late. */
static void test_a_takeover_has_long_time_where_the_guest_is_nowhere_else(void **state)
{
    (void)state;
    assert_int_equal(start_takeover_of(false)->image.limit_ms, 60000);
}

static void test_a_planned_takeover_soon_ends_and_the_other_host_goes_on(void **state)
{
    (void)state;
    assert_int_equal(start_takeover_of(true)->image.limit_ms, 5000);
}

static void test_a_takeover_that_fails_is_told(void **state)
{
    (void)state;
    start_takeover();
    assert_int_equal(core.nevents, 0);
    fake_machine_fail_takeover(machine(), "it did not run the guest in time");
    assert_takeover_failed("in time");
}

static void test_a_takeover_that_cannot_begin_is_told_at_once(void **state)
{
    (void)state;
    fake_machine_faults.take_over = "its memory could not be filled";
    start_takeover();
    assert_takeover_failed("could not be filled");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_the_machine_is_started_as_the_order_says),
        TEST(test_a_machine_that_cannot_be_started_leaves_nothing),
        TEST(test_the_others_begin_once_the_nics_are_connected),
        TEST(test_a_standbys_guest_does_not_run_here),
        TEST(test_a_nic_that_cannot_be_reached_ends_the_start),
        TEST(test_a_machine_that_fails_says_why_and_its_end_ends_the_start),
        TEST(test_a_machine_that_dies_before_it_is_ready_says_why_itself),
        TEST(test_a_machine_that_dies_is_lost),
        TEST(test_the_end_that_was_ordered_is_no_loss),
        TEST(test_the_end_after_the_sessions_end_is_no_loss),
        TEST(test_a_machine_that_does_not_quit_is_killed_at_the_end),
        TEST(test_a_fenced_guest_is_killed_and_nothing_of_it_leaves),
        TEST(test_trouble_is_logged_until_the_machine_is_to_end),
        TEST(test_a_guest_that_shuts_down_ends_the_vm),
        TEST(test_a_machine_that_the_host_ends_is_killed_and_lost),
        TEST(test_a_guest_that_stands_still_for_a_disk_is_let_on_until_it_goes_on),
        TEST(test_a_guest_that_somebody_stopped_is_not_let_on),
        TEST(test_a_reset_lets_a_panicked_guest_begin_anew),
        TEST(test_an_order_that_the_machine_refuses_is_an_error),
        TEST(test_a_guest_whose_host_goes_down_is_asked_to_shut_down),
        TEST(test_a_guest_that_was_taken_over_runs_here_with_the_time_that_it_lost),
        TEST(test_the_clock_of_a_guest_that_stood_still_is_not_moved),
        TEST(test_a_takeover_has_long_time_where_the_guest_is_nowhere_else),
        TEST(test_a_planned_takeover_soon_ends_and_the_other_host_goes_on),
        TEST(test_a_takeover_that_fails_is_told),
        TEST(test_a_takeover_that_cannot_begin_is_told_at_once),
    };
    g_log_set_default_handler(on_log, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
