/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The hook in a real QEMU, with a boot-sector guest. The scenarios return what they found; a test asserts
 * that nothing is wrong, and beside it another plants a fault in the hook and asserts that the same scenario
 * notices.
 */
#include <errno.h>
#include <glib.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "hv-hooks/qemu/hook_shm.h"
#include "hv-hooks/qemu/takeover.h"
#include "tests/hook/fixture.h"

#define DEADLINE_US 20000u
#define PATIENT_MS  20000 /* longer than a guest takes to move on a machine with other work to do */

static struct guest guest, standby_guest;

static int teardown(void **state)
{
    (void)state;
    guest_stop(&guest);
    guest_stop(&standby_guest);
    return 0;
}

static void track(struct shadow *shadow)
{
    guest_wait_rounds(&guest);
    shadow_open(shadow, &guest);
    assert_int_equal(hypervisor_track_start(guest.hv, HV_TRACKER_QEMU_LOG), 0);
    shadow_copy_all(shadow, &guest);
}

/* One checkpoint whose pages go into the shadow. */
static void checkpoint(struct shadow *shadow, bool stay_paused, struct hv_checkpoint *out)
{
    /* A loaded test machine may lose the race with a real deadline; these scenarios are not about it. */
    assert_int_equal(hypervisor_checkpoint_begin(guest.hv, 2000000, stay_paused), 0);
    if (shadow)
        shadow_take(shadow, &guest);
    assert_int_equal(hypervisor_checkpoint_copied(guest.hv), 0);
    assert_int_equal(hypervisor_checkpoint_finish(guest.hv, out), 0);
    assert_false(out->expired);
}

static void test_hook_says_hello_and_lists_every_block(void **state)
{
    (void)state;
    guest_start(&guest, &(struct guest_options){0});
    unsigned main_blocks = 0, aux = 0;
    bool vga = false;
    assert_true(g_ascii_isdigit(hypervisor_version(guest.hv)[0]));
    for (unsigned i = 0; i < hypervisor_nblocks(guest.hv); i++) {
        const struct hv_block *block = hypervisor_block(guest.hv, i);
        g_autofree uint8_t *real = g_malloc(block->used_len);
        vga = vga || strstr(block->idstr, "vga.vram");
        aux += block->aux;
        main_blocks += !block->aux;
        if (!block->aux)
            assert_true(block->used_len == GUEST_RAM_LEN);
        assert_true(guest_read_process(&guest, block->host_addr, real, block->used_len));
    }
    assert_int_equal(main_blocks, 1);
    assert_true(aux > 0);
    assert_true(vga);
}

static void test_hook_finds_the_guest_clock(void **state)
{
    (void)state;
    guest_start(&guest, &(struct guest_options){0});
    assert_string_equal(hypervisor_last_message(guest.hv), "");
}

static void test_qemu_without_a_needed_symbol_is_refused(void **state)
{
    int status;
    (void)state;
    guest_spawn(&guest, &(struct guest_options){.hide = "memory_region_from_host"});
    assert_int_equal(hypervisor_wait_ready(guest.hv, 10000), -ENOEXEC);
    assert_non_null(strstr(hypervisor_last_message(guest.hv), "memory_region_from_host"));
    assert_non_null(strstr(hypervisor_last_message(guest.hv), hypervisor_version(guest.hv)));
    assert_int_equal(waitpid(guest.pid, &status, 0), guest.pid);
    guest.pid = 0;
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 1);
    g_autofree char *output = guest_output(&guest);
    assert_non_null(strstr(output, "memory_region_from_host"));
}

static void test_a_device_without_a_saved_state_is_refused(void **state)
{
    int status;
    (void)state;
    guest_spawn(&guest, &(struct guest_options){.device = "rocker"});
    assert_int_equal(hypervisor_wait_ready(guest.hv, 10000), -ENOEXEC);
    assert_non_null(strstr(hypervisor_last_message(guest.hv), "rocker"));
    assert_int_equal(waitpid(guest.pid, &status, 0), guest.pid);
    guest.pid = 0;
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 1);
}

static void test_a_device_state_that_is_no_stream_is_refused_at_start(void **state)
{
    int status;
    (void)state;
    guest_spawn(&guest, &(struct guest_options){.fault = "no-stream"});
    assert_int_equal(hypervisor_wait_ready(guest.hv, 10000), -ENOEXEC);
    assert_non_null(strstr(hypervisor_last_message(guest.hv), "no standby could load"));
    assert_non_null(strstr(hypervisor_last_message(guest.hv), hypervisor_version(guest.hv)));
    assert_int_equal(waitpid(guest.pid, &status, 0), guest.pid);
    guest.pid = 0;
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 1);
}

static void test_checkpoints_work_without_the_fast_save(void **state)
{
    struct hv_checkpoint c;
    (void)state;
    guest_start(&guest, &(struct guest_options){.hide = "qemu_save_device_state"});
    guest_wait_rounds(&guest);
    for (int i = 0; i < 5; i++) {
        checkpoint(NULL, false, &c);
        assert_true(c.devstate_len > 1000);
        assert_memory_equal(c.devstate, "QEVM", 4);
    }
    assert_true(guest_moves(&guest, PATIENT_MS));
}

/* Harvests live and paused, and returns how many pages of the shadow are wrong at the end. */
static uint64_t differences_after_many_harvests(const char *fault)
{
    struct shadow shadow;
    struct hv_checkpoint c;
    guest_start(&guest, &(struct guest_options){.fault = fault});
    track(&shadow);
    for (int i = 0; i < 60; i++) {
        assert_int_equal(hypervisor_harvest(guest.hv), 0);
        shadow_take(&shadow, &guest);
        if (i % 3 == 0)
            checkpoint(&shadow, false, &c);
    }
    checkpoint(&shadow, true, &c);
    assert_false(c.blocks_changed);
    uint64_t differences = shadow_differences(&shadow, &guest);
    g_autofree char *problem = guest_ram_inconsistency(shadow.bytes[0]);
    shadow_close(&shadow);
    return differences;
}

static void test_no_dirty_page_is_lost(void **state)
{
    (void)state;
    assert_int_equal(differences_after_many_harvests(NULL), 0);
}

static void test_no_dirty_page_is_lost_would_notice_a_lost_page(void **state)
{
    (void)state;
    assert_true(differences_after_many_harvests("drop-page") > 0);
}

static void test_no_dirty_page_is_lost_would_notice_a_stale_mirror(void **state)
{
    (void)state;
    assert_true(differences_after_many_harvests("stale-mirror") > 0);
}

static void test_every_checkpoint_is_one_instant(void **state)
{
    struct shadow shadow;
    struct hv_checkpoint c;
    (void)state;
    guest_start(&guest, &(struct guest_options){0});
    track(&shadow);
    unsigned main_block = 0;
    while (hypervisor_block(guest.hv, main_block)->aux)
        main_block++;
    for (int i = 0; i < 50; i++) {
        checkpoint(&shadow, false, &c);
        assert_true(c.was_running);
        g_autofree char *problem = guest_ram_inconsistency(shadow.bytes[main_block]);
        if (problem)
            fail_msg("checkpoint %d: %s", i, problem);
        assert_true(guest_moves(&guest, PATIENT_MS));
    }
    shadow_close(&shadow);
}

struct expiry {
    uint64_t held_ns;
    bool expired, ran_on;
    uint64_t differences; /* after a later checkpoint that took all bits */
};

/* An engine that never says COPIED, and takes no bits either. */
static struct expiry let_a_checkpoint_expire(const char *fault)
{
    struct shadow shadow;
    struct hv_checkpoint c;
    struct expiry result = {0};
    /* Its pages are not all dirtied again before the next checkpoint: a dropped bit shows. */
    guest_start(&guest, &(struct guest_options){.fault = fault, .image = BOOTSECTOR_WIDE});
    track(&shadow);
    guest_moves(&guest, 1000); /* pages to lose */
    assert_int_equal(hypervisor_checkpoint_begin(guest.hv, DEADLINE_US, true), 0);
    assert_int_equal(hypervisor_checkpoint_finish(guest.hv, &c), 0);
    result.held_ns = c.pause_ns;
    result.expired = c.expired && hypervisor_checkpoint_copied(guest.hv) == -ETIME;
    checkpoint(&shadow, true, &c); /* at once, before the guest dirties the same pages again */
    result.ran_on = c.was_running; /* stay_paused must not have held it: COPIED did not win */
    result.differences = shadow_differences(&shadow, &guest);
    shadow_close(&shadow);
    return result;
}

static void test_expired_checkpoint_lets_the_guest_run_and_keeps_the_bits(void **state)
{
    (void)state;
    struct expiry result = let_a_checkpoint_expire(NULL);
    assert_true(result.expired);
    assert_true(result.ran_on);
    assert_true(result.held_ns >= DEADLINE_US * 1000ull);
    /* It is the deadline that ends it, sooner or later: how soon is a matter for bench/. */
    assert_true(result.held_ns < DEADLINE_US * 1000ull * 100);
    assert_int_equal(result.differences, 0);
}

static void test_expiry_would_notice_dropped_bits(void **state)
{
    uint64_t differences = 0;
    (void)state;
    /* A guest that is quick enough dirties all the same pages again before the next checkpoint, and nothing
     * shows. */
    for (int i = 0; i < 10 && differences == 0; i++) {
        if (i > 0)
            guest_stop(&guest);
        differences = let_a_checkpoint_expire("drop-bits").differences;
    }
    assert_true(differences > 0);
}

static void test_expiry_would_notice_an_ignored_deadline(void **state)
{
    (void)state;
    assert_true(let_a_checkpoint_expire("ignore-deadline").held_ns > (DEADLINE_US + 30000) * 1000ull);
}

/* The engine's process, up to the phase at which it is killed. */
G_NORETURN static void doomed_engine(int phase)
{
    struct hv_checkpoint c;
    struct hypervisor *hv = guest.hv;
    switch (phase) {
    case 0: /* right after the request */
    case 1: /* the guest paused and harvested */
        hypervisor_checkpoint_begin(hv, DEADLINE_US, true);
        break;
    case 2: /* pages taken, nothing said */
        hypervisor_checkpoint_begin(hv, DEADLINE_US, true);
        for (unsigned i = 0; i < hypervisor_nblocks(hv); i++)
            atomic_exchange(&hypervisor_block(hv, i)->bitmap[0], 0);
        break;
    case 3: /* COPIED said */
        hypervisor_checkpoint_begin(hv, DEADLINE_US, false);
        hypervisor_checkpoint_copied(hv);
        break;
    default: /* all done */
        hypervisor_checkpoint_begin(hv, DEADLINE_US, false);
        hypervisor_checkpoint_copied(hv);
        hypervisor_checkpoint_finish(hv, &c);
        break;
    }
    kill(getpid(), SIGKILL);
    _exit(1);
}

static void test_guest_runs_on_when_the_engine_is_killed_in_any_phase(void **state)
{
    (void)state;
    guest_start(&guest, &(struct guest_options){0});
    guest_wait_rounds(&guest);
    assert_int_equal(hypervisor_track_start(guest.hv, HV_TRACKER_QEMU_LOG), 0);
    for (int phase = 0; phase < 5; phase++) {
        pid_t engine = fork();
        if (engine == 0)
            doomed_engine(phase);
        if (phase == 0)
            kill(engine, SIGKILL); /* wherever it has come to */
        assert_int_equal(waitpid(engine, NULL, 0), engine);
        uint64_t died = now_ns();
        while (!guest_moves(&guest, 5)) {
            if (now_ns() - died > 1000000000ull)
                fail_msg("the guest does not run after the engine died in phase %d", phase);
        }
        /* A new engine takes over the same shared memory. */
        hypervisor_close(guest.hv);
        assert_int_equal(hypervisor_open(&guest.hv, &guest.fds, GUEST_RAM_LEN), 0);
        hypervisor_set_pid(guest.hv, guest.pid);
        assert_int_equal(hypervisor_list_blocks(guest.hv), 0);
        struct hv_checkpoint c;
        checkpoint(NULL, false, &c);
        assert_true(guest_moves(&guest, PATIENT_MS));
    }
}

static void test_a_paused_guest_stays_paused(void **state)
{
    struct hv_checkpoint c;
    (void)state;
    guest_start(&guest, &(struct guest_options){0});
    guest_wait_rounds(&guest);
    assert_int_equal(hypervisor_pause(guest.hv), 0);
    assert_false(guest_moves(&guest, 50));
    checkpoint(NULL, false, &c);
    assert_false(c.was_running);
    assert_false(guest_moves(&guest, 50));
    assert_int_equal(hypervisor_resume(guest.hv), 0);
    assert_true(guest_moves(&guest, PATIENT_MS));
}

static void test_dead_qemu_is_noticed(void **state)
{
    (void)state;
    guest_start(&guest, &(struct guest_options){0});
    kill(guest.pid, SIGKILL);
    uint64_t began = now_ns();
    assert_int_equal(hypervisor_harvest(guest.hv), -ENOTCONN);
    assert_true(now_ns() - began < 1000000000ull);
}

static void test_silent_qemu_is_noticed_and_not_asked_twice(void **state)
{
    struct hv_checkpoint c;
    (void)state;
    guest_start(&guest, &(struct guest_options){0});
    guest_wait_rounds(&guest);
    kill(guest.pid, SIGSTOP);
    assert_int_equal(hypervisor_harvest(guest.hv), -ETIMEDOUT);
    kill(guest.pid, SIGCONT);
    checkpoint(NULL, false, &c);
    assert_true(guest_moves(&guest, PATIENT_MS));
}

struct outcome {
    GMainLoop *loop;
    bool ok;
    char *message;
    uint64_t elapsed_us;
};

static void on_taken_over(bool ok, const char *message, uint64_t elapsed_us, void *opaque)
{
    struct outcome *outcome = opaque;
    outcome->ok = ok;
    outcome->message = g_strdup(message);
    outcome->elapsed_us = elapsed_us;
    g_main_loop_quit(outcome->loop);
}

/* Carries the shadow to a standby and starts it there. */
static struct outcome take_over(const struct shadow *shadow, const void *devstate, size_t devstate_len)
{
    struct outcome outcome = {.loop = g_main_loop_new(NULL, FALSE)};
    uint64_t used_len[HV_MAX_BLOCKS];
    unsigned n = hypervisor_nblocks(guest.hv);
    assert_int_equal(n, hypervisor_nblocks(standby_guest.hv));
    for (unsigned i = 0; i < n; i++) {
        const struct hv_block *from = hypervisor_block(guest.hv, i),
                              *to = hypervisor_block(standby_guest.hv, i);
        assert_string_equal(from->idstr, to->idstr);
        used_len[i] = from->used_len;
        memcpy(to->bytes, shadow->bytes[i], from->used_len);
    }
    /* The monitor is ready long before a takeover. */
    g_autoptr(GError) error = NULL;
    json_decref(qmp_execute_wait(standby_guest.qmp, "query-status", NULL, -1, 5000, &error));
    assert_null(error);
    assert_non_null(standby_takeover(standby_guest.hv, used_len, n, standby_guest.qmp, devstate, devstate_len,
                                     10000, on_taken_over, &outcome, &error));
    g_main_loop_run(outcome.loop);
    g_main_loop_unref(outcome.loop);
    return outcome;
}

static void take_over_and_check(const struct guest_options *primary, const struct guest_options *standby)
{
    struct shadow shadow;
    struct hv_checkpoint c;
    guest_start(&guest, primary);
    guest_start(&standby_guest, standby);
    track(&shadow);
    for (int i = 0; i < 5; i++)
        checkpoint(&shadow, false, &c);
    checkpoint(&shadow, true, &c);
    const uint8_t *ram = guest_ram(&guest);
    uint32_t rounds = guest_word(ram, 0x8004);
    g_autofree uint8_t *devstate = g_memdup2(c.devstate, c.devstate_len);
    struct outcome outcome = take_over(&shadow, devstate, c.devstate_len);
    if (!outcome.ok) {
        g_autofree char *output = guest_output(&standby_guest);
        fail_msg("takeover failed: %s: %s", outcome.message, output);
    }
    print_message("takeover: %.1f ms\n", (double)outcome.elapsed_us / 1000);
    assert_string_equal(outcome.message, "running");
    g_free(outcome.message);
    assert_true(guest_moves(&standby_guest, PATIENT_MS));
    assert_int_equal(guest_word(ram, 0x8004), rounds); /* the old one still stands */
    assert_int_equal(hypervisor_pause(standby_guest.hv), 0);
    g_autofree char *problem = guest_ram_inconsistency(guest_ram(&standby_guest));
    if (problem)
        fail_msg("after the takeover %s", problem);
    assert_true(guest_word(guest_ram(&standby_guest), 0x8004) >= rounds);
    assert_int_equal(hypervisor_resume(standby_guest.hv), 0);
    assert_int_equal(hypervisor_advance_clock(standby_guest.hv, 1000000000), 0);
    shadow_close(&shadow);
}

static void test_takeover_resumes_the_exact_instant(void **state)
{
    (void)state;
    take_over_and_check(&(struct guest_options){0}, &(struct guest_options){.standby = true});
}

static void test_a_headerless_device_state_gets_its_header(void **state)
{
    (void)state;
    take_over_and_check(&(struct guest_options){.fault = "headerless"},
                        &(struct guest_options){.standby = true});
}

static void test_takeover_from_kvm_to_tcg(void **state)
{
    (void)state;
    if (!guest_can_use_kvm()) {
        fprintf(stderr, "SKIPPED: takeover from KVM to TCG: /dev/kvm cannot be opened\n");
        skip();
    }
    take_over_and_check(&(struct guest_options){.accel = "kvm", .portable = true},
                        &(struct guest_options){.accel = "tcg", .portable = true, .standby = true});
}

static void test_takeover_of_a_paused_guest_leaves_it_paused(void **state)
{
    struct shadow shadow;
    struct hv_checkpoint c;
    (void)state;
    guest_start(&guest, &(struct guest_options){0});
    guest_start(&standby_guest, &(struct guest_options){.standby = true});
    track(&shadow);
    assert_int_equal(hypervisor_pause(guest.hv), 0);
    checkpoint(&shadow, false, &c);
    struct outcome outcome = take_over(&shadow, c.devstate, c.devstate_len);
    assert_true(outcome.ok);
    assert_string_equal(outcome.message, "paused");
    g_free(outcome.message);
    shadow_close(&shadow);
}

static void test_broken_device_state_fails_the_takeover(void **state)
{
    struct shadow shadow;
    (void)state;
    guest_start(&guest, &(struct guest_options){0});
    guest_start(&standby_guest, &(struct guest_options){.standby = true});
    shadow_open(&shadow, &guest);
    struct outcome outcome = take_over(&shadow, "QEVM\0\0\0\3 and then nonsense", 26);
    assert_false(outcome.ok);
    print_message("said: %s\n", outcome.message);
    g_free(outcome.message);
    shadow_close(&shadow);
}

struct drift {
    bool kvm;
    double tsc_ppm, hpet_ppm, kvmclock_ppm; /* how much the guest's clocks are slow */
};

struct clocks {
    uint64_t guest_tsc, host_tsc, host_ns;
    uint32_t guest_hpet;
    uint64_t kvmclock_ns; /* at guest_tsc; 0 without KVM */
};

/* What the guest would read from kvmclock at this time-stamp counter (Linux
 * Documentation/virt/kvm/x86/msr.rst). */
static uint64_t kvmclock_at(uint64_t guest_tsc)
{
    struct {
        uint32_t version, pad;
        uint64_t tsc_timestamp, system_time;
        uint32_t mul;
        int8_t shift;
        uint8_t flags, pad2[2];
    } info;
    do
        memcpy(&info, guest_ram(&guest) + 0x9000, sizeof info);
    while (info.version & 1);
    if (info.version == 0)
        return 0;
    __extension__ typedef __int128 wide;
    wide delta = (wide)(int64_t)(guest_tsc - info.tsc_timestamp);
    delta = info.shift < 0 ? delta >> -info.shift : delta << info.shift;
    return (uint64_t)((wide)info.system_time + ((delta * info.mul) >> 32));
}

/* The guest's clocks just after it noted them. */
static struct clocks sample(void)
{
    const uint8_t *ram = guest_ram(&guest);
    struct clocks best = {0}, now;
    uint64_t least = UINT64_MAX;
    for (int i = 0; i < 2000; i++) {
        uint32_t rounds = guest_word(ram, 0x8004);
        while (guest_word(ram, 0x8004) == rounds)
            continue;
        now.guest_tsc = *(const volatile uint64_t *)(ram + 0x8008);
        now.host_tsc = __builtin_ia32_rdtsc();
        now.host_ns = now_ns();
        now.guest_hpet = guest_word(ram, 0x8010);
        if (now.host_tsc - now.guest_tsc <
            least) { /* the freshest: least time between the guest's look and ours */
            least = now.host_tsc - now.guest_tsc;
            best = now;
        }
    }
    return best;
}

static struct drift drift_under_checkpoints(const char *fault, unsigned count)
{
    struct hv_checkpoint c;
    guest_start(&guest, &(struct guest_options){.fault = fault, .image = BOOTSECTOR_CLOCK});
    guest_wait_rounds(&guest);
    assert_int_equal(hypervisor_track_start(guest.hv, HV_TRACKER_QEMU_LOG), 0);
    struct clocks began = sample();
    began.kvmclock_ns = kvmclock_at(began.guest_tsc);
    for (unsigned i = 0; i < count; i++) {
        checkpoint(NULL, false, &c);
        g_usleep(19000); /* the epoch itself: 50 checkpoints a second */
    }
    struct clocks ended = sample();
    ended.kvmclock_ns = kvmclock_at(ended.guest_tsc);
    double tsc = (double)(ended.guest_tsc - began.guest_tsc) / (double)(ended.host_tsc - began.host_tsc);
    double hpet = (double)(uint32_t)(ended.guest_hpet - began.guest_hpet) * 10 /
                  (double)(ended.host_ns - began.host_ns);
    double kvmclock =
        (double)(ended.kvmclock_ns - began.kvmclock_ns) / (double)(ended.host_ns - began.host_ns);
    struct drift drift = {
        .kvm = began.kvmclock_ns != 0, .tsc_ppm = (1 - tsc) * 1e6, .hpet_ppm = (1 - hpet) * 1e6};
    drift.kvmclock_ppm = drift.kvm ? (1 - kvmclock) * 1e6 : 0;
    print_message("%s: the guest's TSC is %.0f ppm slow, its HPET %.0f ppm, its kvmclock %.0f ppm\n",
                  fault ? fault : "as is", drift.tsc_ppm, drift.hpet_ppm, drift.kvmclock_ppm);
    return drift;
}

static void test_checkpoints_do_not_slow_the_guest_clock(void **state)
{
    (void)state;
    struct drift drift = drift_under_checkpoints(NULL, 250);
    assert_true(drift.tsc_ppm < 500 && drift.tsc_ppm > -500);
    assert_true(drift.hpet_ppm < 500 && drift.hpet_ppm > -500);
    assert_true(drift.kvmclock_ppm < 500 && drift.kvmclock_ppm > -500);
}

static void test_clock_would_notice_lost_time(void **state)
{
    (void)state;
    struct drift drift = drift_under_checkpoints("lose-time", 100);
    assert_true(drift.hpet_ppm > 2000);
    if (drift.kvm) /* the TSC is the hardware's and never stops; kvmclock does */
        assert_true(drift.kvmclock_ppm > 2000);
    else
        assert_true(drift.tsc_ppm > 2000);
}

static void test_userfaultfd_tracker_mirrors_aux_blocks(void **state)
{
    struct shadow shadow;
    struct hv_checkpoint c;
    (void)state;
    guest_start(&guest, &(struct guest_options){0});
    guest_wait_rounds(&guest);
    int status = hypervisor_track_start(guest.hv, HV_TRACKER_UFFD);
    if (status < 0) {
        fprintf(stderr, "SKIPPED: %s\n", hypervisor_last_message(guest.hv));
        skip();
    }
    shadow_open(&shadow, &guest);
    shadow_copy_all(&shadow, &guest);
    for (int i = 0; i < 20; i++)
        checkpoint(&shadow, false, &c);
    checkpoint(&shadow, true, &c);
    for (unsigned i = 0; i < hypervisor_nblocks(guest.hv); i++) {
        const struct hv_block *block = hypervisor_block(guest.hv, i);
        if (!block->aux)
            memcpy(shadow.bytes[i], block->bytes, block->used_len); /* main RAM is the engine's to scan */
    }
    assert_int_equal(shadow_differences(&shadow, &guest), 0);
    assert_int_equal(hypervisor_track_stop(guest.hv), 0);
    shadow_close(&shadow);
}

#define TEST(name) cmocka_unit_test_teardown(name, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_hook_says_hello_and_lists_every_block),
        TEST(test_hook_finds_the_guest_clock),
        TEST(test_qemu_without_a_needed_symbol_is_refused),
        TEST(test_a_device_without_a_saved_state_is_refused),
        TEST(test_a_device_state_that_is_no_stream_is_refused_at_start),
        TEST(test_checkpoints_work_without_the_fast_save),
        TEST(test_no_dirty_page_is_lost),
        TEST(test_no_dirty_page_is_lost_would_notice_a_lost_page),
        TEST(test_no_dirty_page_is_lost_would_notice_a_stale_mirror),
        TEST(test_every_checkpoint_is_one_instant),
        TEST(test_expired_checkpoint_lets_the_guest_run_and_keeps_the_bits),
        TEST(test_expiry_would_notice_dropped_bits),
        TEST(test_expiry_would_notice_an_ignored_deadline),
        TEST(test_guest_runs_on_when_the_engine_is_killed_in_any_phase),
        TEST(test_a_paused_guest_stays_paused),
        TEST(test_dead_qemu_is_noticed),
        TEST(test_silent_qemu_is_noticed_and_not_asked_twice),
        TEST(test_takeover_resumes_the_exact_instant),
        TEST(test_a_headerless_device_state_gets_its_header),
        TEST(test_takeover_from_kvm_to_tcg),
        TEST(test_takeover_of_a_paused_guest_leaves_it_paused),
        TEST(test_broken_device_state_fails_the_takeover),
        TEST(test_checkpoints_do_not_slow_the_guest_clock),
        TEST(test_clock_would_notice_lost_time),
        TEST(test_userfaultfd_tracker_mirrors_aux_blocks),
    };
    if (!guest_can_run())
        return 77;
    const char *only = g_getenv("UNDERSTUDY_TEST_ONLY"); /* a pattern, for work on one test */
    if (only)
        cmocka_set_test_filter(only);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
