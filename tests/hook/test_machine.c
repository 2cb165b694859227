/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QEMU's machine (hv-hooks/qemu/machine.c) with a program in QEMU's place (fake_qemu.c): what it tells of the
 * process's life, and what its orders do.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hv-hooks/machine.h"
#include "hv-hooks/qemu/trial_load.h"

#define RAM_LEN   (1u << 20)
#define STATE_LEN 300000u /* more than a socket holds */
#define LONG_MS   30000   /* limits of takeovers: the fake is late by a time between them */
#define SHORT_MS  100

static const char *program; /* fake_qemu */
static const char *hook;    /* a library that does nothing */

static struct {
    unsigned nready, nfailed, nended, ntrouble, nrun_events, nreset, nresumed, ntaken_over, nrefused;
    char *why, *end, *trouble, *reason, *refusal, *words;
    enum run_event event;
    struct machine_takeover takeover;
} heard;

static char *dir;
static struct machine *machine;

static void keep(char **to, const char *words)
{
    g_free(*to);
    *to = g_strdup(words);
}

static void on_ready(void *opaque)
{
    assert_ptr_equal(opaque, &heard);
    heard.nready++;
}

static void on_failed(void *opaque, const char *why)
{
    (void)opaque;
    heard.nfailed++;
    keep(&heard.why, why);
}

static void on_ended(void *opaque, const char *why)
{
    (void)opaque;
    heard.nended++;
    keep(&heard.end, why);
}

static void on_trouble(void *opaque, const char *what)
{
    (void)opaque;
    heard.ntrouble++;
    keep(&heard.trouble, what);
}

static void on_run_event(void *opaque, enum run_event event, const char *reason)
{
    (void)opaque;
    heard.nrun_events++;
    heard.event = event;
    keep(&heard.reason, reason);
}

static void on_reset(void *opaque)
{
    (void)opaque;
    heard.nreset++;
}

static void on_disk_error(void *opaque, const struct machine_disk_error *error)
{
    (void)opaque;
    (void)error;
    fail();
}

static void on_resumed(void *opaque)
{
    (void)opaque;
    heard.nresumed++;
}

static void on_taken_over(void *opaque, const struct machine_takeover *result)
{
    (void)opaque;
    heard.ntaken_over++;
    heard.takeover = *result;
    keep(&heard.words, result->words);
}

static void on_refused(void *opaque, const char *why)
{
    assert_ptr_equal(opaque, &dir);
    heard.nrefused++;
    keep(&heard.refusal, why);
}

static const struct machine_observer observer = {
    .ready = on_ready,
    .failed = on_failed,
    .ended = on_ended,
    .trouble = on_trouble,
    .run_event = on_run_event,
    .was_reset = on_reset,
    .disk_error = on_disk_error,
    .resumed = on_resumed,
    .taken_over = on_taken_over,
};

static int set_up(void **state)
{
    (void)state;
    memset(&heard, 0, sizeof heard);
    dir = g_dir_make_tmp("understudy-machine-XXXXXX", NULL);
    return dir ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    g_clear_pointer(&machine, machine_free);
    g_autoptr(GDir) open = g_dir_open(dir, 0, NULL);
    const char *name;
    while ((name = g_dir_read_name(open))) {
        g_autofree char *path = g_build_filename(dir, name, NULL);
        g_unlink(path);
    }
    int left = g_rmdir(dir);
    g_free(dir);
    char **words[] = {&heard.why, &heard.end, &heard.trouble, &heard.reason, &heard.refusal, &heard.words};
    for (size_t i = 0; i < G_N_ELEMENTS(words); i++)
        g_clear_pointer(words[i], g_free);
    return left;
}

static bool start_with(const char *path, const char *mode, const char *library, GError **error)
{
    /* The machine's, until it is freed. */
    static const char *argv[5];
    static struct machine_config config;
    argv[0] = path;
    argv[1] = mode;
    argv[2] = dir;
    argv[3] = "2";
    config = (struct machine_config){
        .vm_name = "vm", .dir = dir, .argv = argv, .hook_path = library, .ram_len = RAM_LEN, .nnics = 2};
    machine = machine_start(&config, &observer, &heard, error);
    return machine != NULL;
}

static void start(const char *mode)
{
    assert_true(start_with(program, mode, hook, NULL));
}

static gboolean on_late(gpointer opaque)
{
    *(bool *)opaque = true;
    return G_SOURCE_CONTINUE;
}

static void await(const unsigned *count, unsigned n)
{
    bool late = false;
    guint timer = g_timeout_add_seconds(60, on_late, &late);
    while (*count < n && !late)
        g_main_context_iteration(NULL, TRUE);
    g_source_remove(timer);
    assert_int_equal(*count, n);
}

static void start_ready(const char *mode)
{
    start(mode);
    await(&heard.nready, 1);
}

static char *printed(void)
{
    g_autofree char *path = g_build_filename(dir, "console.log", NULL);
    char *text = NULL;
    assert_true(g_file_get_contents(path, &text, NULL, NULL));
    return text;
}

static void await_printed(const char *words)
{
    gint64 until = g_get_monotonic_time() + 60 * G_USEC_PER_SEC;
    bool there = false;
    while (!there && g_get_monotonic_time() < until) {
        g_main_context_iteration(NULL, FALSE);
        g_autofree char *text = printed();
        there = strstr(text, words) != NULL;
    }
    assert_true(there);
}

static void test_ready_means_that_its_memory_is_known(void **state)
{
    (void)state;
    start("run");
    assert_int_equal(heard.nready, 0);
    assert_true(machine_pid(machine) > 0);
    await(&heard.nready, 1);
    assert_string_equal(hypervisor_version(machine_hypervisor(machine)), "9.9.9");
    assert_int_equal(hypervisor_nblocks(machine_hypervisor(machine)), 1);
    assert_int_equal(hypervisor_block(machine_hypervisor(machine), 0)->max_len, RAM_LEN);
    assert_int_equal(heard.nfailed, 0);
}

static void test_orders_before_it_is_ready_are_none(void **state)
{
    (void)state;
    start("silent");
    machine_order(machine, MACHINE_QUIT, on_refused, &dir);
    machine_free(g_steal_pointer(&machine)); /* which waits for no hello */
    while (g_main_context_iteration(NULL, FALSE))
        ; /* nothing of it is left there */
    assert_int_equal(heard.nrefused, 0);
    assert_int_equal(heard.nready + heard.nfailed + heard.nended + heard.ntrouble, 0);
}

static void test_a_program_or_hook_that_is_not_there_is_an_error(void **state)
{
    g_autoptr(GError) no_program = NULL;
    g_autoptr(GError) no_hook = NULL;
    (void)state;
    assert_false(start_with("/nowhere/qemu-system-x86_64", "run", hook, &no_program));
    assert_non_null(strstr(no_program->message, "/nowhere/qemu-system-x86_64"));
    assert_false(start_with(program, "run", "/nowhere/hook.so", &no_hook));
    assert_non_null(strstr(no_hook->message, "/nowhere/hook.so"));
}

static void test_a_hook_that_refuses_is_told_and_the_process_killed(void **state)
{
    (void)state;
    start("refuse");
    await(&heard.nfailed, 1);
    assert_string_equal(heard.why, "this QEMU lacks a symbol");
    await(&heard.nended, 1);
    assert_non_null(strstr(heard.end, "signal 9"));
    assert_int_equal(heard.nready, 0);
}

static void test_a_process_that_dies_at_once_has_the_last_word(void **state)
{
    (void)state;
    start("die");
    await(&heard.nended, 1);
    assert_string_equal(heard.end, "QEMU ended by itself (exit status 3): there is no such device");
    await(&heard.nfailed, 1);
    assert_int_equal(heard.nready, 0);
    assert_int_equal(machine_pid(machine), 0);
}

static void test_what_the_hook_printed_is_a_sentence_of_ours(void **state)
{
    (void)state;
    start("cannot");
    await(&heard.nended, 1);
    assert_string_equal(heard.end, "this host cannot do it");
}

static void test_a_machine_quits_when_it_is_told_to(void **state)
{
    (void)state;
    start_ready("run");
    machine_order(machine, MACHINE_QUIT, NULL, NULL);
    await(&heard.nended, 1);
    assert_non_null(strstr(heard.end, "exit status 0"));
    assert_int_equal(machine_pid(machine), 0);
    machine_order(machine, MACHINE_PAUSE, on_refused, &dir);
    machine_kill(machine);
    assert_int_equal(heard.nrefused, 0);
    assert_int_equal(heard.nended, 1);
}

static void test_a_machine_that_does_not_quit_is_killed_with_it(void **state)
{
    (void)state;
    start_ready("stubborn");
    pid_t pid = machine_pid(machine);
    machine_order(machine, MACHINE_QUIT, on_refused, &dir);
    machine_order(machine, MACHINE_CONTINUE, NULL, NULL);
    await(&heard.nresumed, 1); /* it lives on */
    assert_int_equal(kill(pid, 0), 0);
    machine_free(g_steal_pointer(&machine));
    assert_int_equal(kill(pid, 0), -1);
    assert_int_equal(errno, ESRCH);
    assert_int_equal(heard.nended, 0);
    assert_int_equal(heard.nrefused, 0);
}

static void test_a_kill_is_told_as_its_end(void **state)
{
    (void)state;
    start_ready("run");
    machine_kill(machine);
    await(&heard.nended, 1);
    assert_non_null(strstr(heard.end, "signal 9"));
}

static void test_orders_reach_the_guest_and_it_is_heard_of(void **state)
{
    (void)state;
    start_ready("run");
    machine_order(machine, MACHINE_POWER_DOWN, on_refused, &dir);
    await(&heard.nrun_events, 1);
    assert_int_equal(heard.event, RUN_EVENT_SHUTDOWN);
    assert_string_equal(heard.reason, "guest-shutdown");
    machine_order(machine, MACHINE_RESET, on_refused, &dir);
    await(&heard.nreset, 1);
    machine_order(machine, MACHINE_CONTINUE, on_refused, &dir);
    await(&heard.nresumed, 1);
    assert_int_equal(heard.nrefused, 0);
    machine_order(machine, MACHINE_PAUSE, on_refused, &dir);
    await(&heard.nrefused, 1);
    assert_string_equal(heard.refusal, "not in this state");
}

static void test_an_order_that_is_under_way_at_the_end_is_not_refused(void **state)
{
    (void)state;
    start_ready("run");
    machine_order(machine, MACHINE_PAUSE, on_refused, &dir);
    machine_free(g_steal_pointer(&machine));
    assert_int_equal(heard.nrefused, 0);
    assert_int_equal(heard.ntrouble, 0);
}

static void test_a_monitor_that_closes_is_trouble_and_no_end(void **state)
{
    (void)state;
    start_ready("hangs-up");
    machine_order(machine, MACHINE_RESET, NULL, NULL);
    await(&heard.ntrouble, 1);
    assert_non_null(strstr(heard.trouble, "monitor closed"));
    assert_int_equal(heard.nended, 0);
    machine_order(machine, MACHINE_PAUSE, on_refused, &dir);
    assert_int_equal(heard.nrefused, 1);
}

static void close_nic(const struct machine_nic *nic)
{
    const int fds[] = {nic->out, nic->in, nic->mirror, nic->inject};
    for (size_t i = 0; i < G_N_ELEMENTS(fds); i++) {
        assert_true(fcntl(fds[i], F_GETFL) & O_NONBLOCK);
        assert_true(fcntl(fds[i], F_GETFD) & FD_CLOEXEC);
        close(fds[i]);
    }
}

static void connect_nics(void)
{
    for (unsigned nic = 0; nic < 2; nic++) {
        struct machine_nic sockets;
        assert_true(machine_connect_nic(machine, nic, &sockets, NULL));
        close_nic(&sockets);
    }
    machine_mirror_frames(machine);
}

static void test_mirrors_of_all_nics_are_switched_on(void **state)
{
    (void)state;
    start_ready("run");
    connect_nics();
    await_printed("switched on /objects/us-mir-0\nswitched on /objects/us-mir-1\n");
    assert_int_equal(heard.ntrouble, 0);
}

static void test_a_mirror_that_stays_off_is_trouble(void **state)
{
    (void)state;
    start_ready("no-mirror");
    connect_nics();
    await(&heard.ntrouble, 2);
    assert_non_null(strstr(heard.trouble, "no such object"));
}

/* The monitor closes with questions unanswered, which is no fault of the mirrors. */
static void test_mirrors_are_no_trouble_of_a_machine_that_is_freed(void **state)
{
    (void)state;
    start_ready("mute");
    connect_nics();
    await_printed("switched on /objects/us-mir-1\n");
    machine_free(g_steal_pointer(&machine));
    assert_int_equal(heard.ntrouble, 0);
}

static void test_a_nic_that_is_not_there_is_an_error(void **state)
{
    g_autoptr(GError) error = NULL;
    struct machine_nic sockets;
    (void)state;
    start_ready("run");
    assert_false(machine_connect_nic(machine, 2, &sockets, &error));
    assert_non_null(strstr(error->message, "us-out-2"));
    assert_non_null(strstr(error->message, "NIC 2"));
}

static bool begin_takeover(unsigned limit_ms, GError **error)
{
    static const uint8_t devstate[STATE_LEN];
    static const uint64_t used_len[] = {RAM_LEN};
    const struct machine_image image = {.devstate = devstate,
                                        .devstate_len = sizeof devstate,
                                        .used_len = used_len,
                                        .nblocks = 1,
                                        .limit_ms = limit_ms};
    return machine_take_over(machine, &image, error);
}

static void take_over_within(unsigned limit_ms)
{
    assert_true(begin_takeover(limit_ms, NULL));
    assert_int_equal(heard.ntaken_over, 0);
    await(&heard.ntaken_over, 1);
}

static void take_over(void)
{
    take_over_within(LONG_MS);
}

static void test_a_takeover_gives_it_the_whole_state(void **state)
{
    (void)state;
    start_ready("run");
    take_over();
    assert_true(heard.takeover.ok);
    assert_int_equal(heard.takeover.state, MACHINE_RUNS);
    assert_string_equal(heard.words, "running");
    assert_true(heard.takeover.elapsed_us > 0);
    assert_int_equal(heard.nresumed, 1);
    await_printed("loaded " G_STRINGIFY(300000) " bytes");
}

static void test_a_machine_that_is_late_fails_after_the_limit(void **state)
{
    (void)state;
    start_ready("late");
    take_over_within(SHORT_MS);
    assert_false(heard.takeover.ok);
    assert_non_null(strstr(heard.words, "in time"));
}

static void test_a_machine_that_is_late_has_the_time_that_it_is_given(void **state)
{
    (void)state;
    start_ready("late");
    take_over();
    assert_true(heard.takeover.ok);
    assert_int_equal(heard.takeover.state, MACHINE_RUNS);
}

static void test_memory_that_is_filled_late_fails_after_the_limit(void **state)
{
    g_autoptr(GError) error = NULL;
    (void)state;
    start_ready("late-memory");
    assert_false(begin_takeover(SHORT_MS, &error));
    assert_non_null(strstr(error->message, "did not answer for " G_STRINGIFY(SHORT_MS) " ms"));
}

static void test_memory_that_is_filled_late_has_the_time_that_it_is_given(void **state)
{
    (void)state;
    start_ready("late-memory");
    take_over();
    assert_true(heard.takeover.ok);
}

static void test_a_machine_that_ends_in_a_takeover_fails_it(void **state)
{
    (void)state;
    start_ready("no-load");
    take_over();
    assert_false(heard.takeover.ok);
    assert_non_null(strstr(heard.words, "device state"));
    await(&heard.nended, 1);
    assert_non_null(strstr(heard.end, "it cannot be loaded"));
}

static void test_a_takeover_with_other_memory_does_not_begin(void **state)
{
    g_autoptr(GError) error = NULL;
    static const uint64_t used_len[] = {RAM_LEN, RAM_LEN};
    const struct machine_image image = {.devstate = (const uint8_t *)"",
                                        .devstate_len = 1,
                                        .used_len = used_len,
                                        .nblocks = 2,
                                        .limit_ms = 5000};
    (void)state;
    start_ready("run");
    assert_false(machine_take_over(machine, &image, &error));
    assert_non_null(strstr(error->message, "RAM blocks"));
}

/* ---- trials (the linker's wrap) ---- */

static struct trial_load_config trial_config;

struct trial_load *__real_trial_load_new(const struct trial_load_config *config, GError **error);
struct trial_load *__wrap_trial_load_new(const struct trial_load_config *config, GError **error);

struct trial_load *__wrap_trial_load_new(const struct trial_load_config *config, GError **error)
{
    trial_config = *config;
    return __real_trial_load_new(config, error);
}

static bool hold_nothing(struct hypervisor *hv, struct machine_image *image, char **why, void *opaque)
{
    (void)hv;
    (void)image;
    (void)why;
    (void)opaque;
    return false;
}

static void test_a_trial_is_made_of_what_the_machine_has(void **state)
{
    static const char *const argv[] = {"trial", NULL};
    const struct trial_source source = {.hold = hold_nothing, .opaque = &heard};
    struct stat st;
    (void)state;
    start_ready("run");
    struct machine_trial *trial = machine_trial_new(machine, argv, &source, NULL);
    assert_non_null(trial);
    assert_ptr_equal(trial_config.argv, argv);
    assert_string_equal(trial_config.vm_name, "vm");
    assert_string_equal(trial_config.dir, dir);
    assert_string_equal(trial_config.hook_path, hook);
    assert_int_equal(trial_config.ram_len, RAM_LEN);
    assert_int_equal(fstat(trial_config.ram_fd, &st), 0);
    assert_int_equal(st.st_size, RAM_LEN);
    assert_ptr_equal(trial_config.source.hold, hold_nothing);
    assert_ptr_equal(trial_config.source.opaque, &heard);
    machine_trial_free(trial);
}

int main(int argc, char **argv)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_ready_means_that_its_memory_is_known),
        TEST(test_orders_before_it_is_ready_are_none),
        TEST(test_a_program_or_hook_that_is_not_there_is_an_error),
        TEST(test_a_hook_that_refuses_is_told_and_the_process_killed),
        TEST(test_a_process_that_dies_at_once_has_the_last_word),
        TEST(test_what_the_hook_printed_is_a_sentence_of_ours),
        TEST(test_a_machine_quits_when_it_is_told_to),
        TEST(test_a_machine_that_does_not_quit_is_killed_with_it),
        TEST(test_a_kill_is_told_as_its_end),
        TEST(test_orders_reach_the_guest_and_it_is_heard_of),
        TEST(test_an_order_that_is_under_way_at_the_end_is_not_refused),
        TEST(test_a_monitor_that_closes_is_trouble_and_no_end),
        TEST(test_mirrors_of_all_nics_are_switched_on),
        TEST(test_a_mirror_that_stays_off_is_trouble),
        TEST(test_mirrors_are_no_trouble_of_a_machine_that_is_freed),
        TEST(test_a_nic_that_is_not_there_is_an_error),
        TEST(test_a_takeover_gives_it_the_whole_state),
        TEST(test_a_machine_that_is_late_fails_after_the_limit),
        TEST(test_a_machine_that_is_late_has_the_time_that_it_is_given),
        TEST(test_memory_that_is_filled_late_fails_after_the_limit),
        TEST(test_memory_that_is_filled_late_has_the_time_that_it_is_given),
        TEST(test_a_machine_that_ends_in_a_takeover_fails_it),
        TEST(test_a_takeover_with_other_memory_does_not_begin),
        TEST(test_a_trial_is_made_of_what_the_machine_has),
    };
    if (argc != 3)
        return 2;
    program = argv[1];
    hook = argv[2];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
