/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A trial load in a real throw-away QEMU, of a boot-sector guest's state: it says whether the state loads, it
 * leaves the image and this host's network alone, and nothing of it stays.
 */
#include <fcntl.h>
#include <glib.h>
#include <glib/gstdio.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "hv-hooks/qemu/trial_load.h"
#include "tests/hook/fixture.h"

#define DEADLINE_US 2000000u

static struct {
    struct guest guest;
    struct shadow shadow;
    int image_fd; /* main RAM */
    uint8_t *devstate;
    size_t devstate_len;
    uint64_t used_len[HV_MAX_BLOCKS];
    /* What the source does and what it saw. */
    bool no_image, cancels;
    unsigned held, let_go;
    bool maps_image_privately, maps_image_shared, shares_network;
    pid_t pid;
    struct trial_load *trial;
} t;

/* The guest's state at one instant, as a standby has it. */
static void take_image(const struct guest_options *options)
{
    struct hv_checkpoint c;
    memset(&t, 0, sizeof t);
    guest_start(&t.guest, options);
    guest_wait_rounds(&t.guest);
    shadow_open(&t.shadow, &t.guest);
    assert_int_equal(hypervisor_track_start(t.guest.hv, HV_TRACKER_QEMU_LOG), 0);
    shadow_copy_all(&t.shadow, &t.guest);
    assert_int_equal(hypervisor_checkpoint_begin(t.guest.hv, DEADLINE_US, false), 0);
    shadow_take(&t.shadow, &t.guest);
    assert_int_equal(hypervisor_checkpoint_copied(t.guest.hv), 0);
    assert_int_equal(hypervisor_checkpoint_finish(t.guest.hv, &c), 0);
    t.devstate = g_memdup2(c.devstate, c.devstate_len);
    t.devstate_len = c.devstate_len;
    t.image_fd = memfd_create("image", MFD_CLOEXEC);
    for (unsigned i = 0; i < hypervisor_nblocks(t.guest.hv); i++) {
        const struct hv_block *block = hypervisor_block(t.guest.hv, i);
        t.used_len[i] = block->used_len;
        if (!block->aux)
            assert_int_equal(write(t.image_fd, t.shadow.bytes[i], GUEST_RAM_LEN), GUEST_RAM_LEN);
    }
}

static int teardown(void **state)
{
    (void)state;
    guest_stop(&t.guest);
    shadow_close(&t.shadow);
    g_free(t.devstate);
    if (t.image_fd > 0)
        close(t.image_fd);
    memset(&t, 0, sizeof t);
    return 0;
}

/* How the throw-away QEMU has the image's file. */
static void look_at_maps(pid_t pid)
{
    struct stat st;
    g_autofree char *path = g_strdup_printf("/proc/%d/maps", (int)pid), *maps = NULL;
    assert_int_equal(fstat(t.image_fd, &st), 0);
    assert_true(g_file_get_contents(path, &maps, NULL, NULL));
    g_auto(GStrv) lines = g_strsplit(maps, "\n", -1);
    for (char **line = lines; *line; line++) {
        char flags[5] = "";
        unsigned long inode = 0;
        if (sscanf(*line, "%*s %4s %*s %*s %lu", flags, &inode) != 2 || inode != st.st_ino ||
            !strstr(*line, "memfd:image"))
            continue;
        t.maps_image_privately |= flags[3] == 'p';
        t.maps_image_shared |= flags[3] == 's';
    }
}

static void look_at_network(pid_t pid)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/ns/net", (int)pid);
    g_autofree char *theirs = g_file_read_link(path, NULL),
                    *ours = g_file_read_link("/proc/self/ns/net", NULL);
    assert_non_null(theirs);
    assert_non_null(ours);
    t.shares_network = strcmp(theirs, ours) == 0;
}

static bool hold(struct hypervisor *hv, struct machine_image *image, char **why, void *opaque)
{
    (void)why;
    (void)opaque;
    t.held++;
    t.pid = hypervisor_pid(hv);
    look_at_maps(t.pid);
    look_at_network(t.pid);
    if (t.no_image)
        return false;
    if (t.cancels)
        trial_load_cancel(t.trial);
    assert_int_equal(hypervisor_nblocks(hv), hypervisor_nblocks(t.guest.hv));
    for (unsigned i = 0; i < hypervisor_nblocks(hv); i++) {
        const struct hv_block *block = hypervisor_block(hv, i);
        if (block->aux)
            memcpy(block->bytes, t.shadow.bytes[i], t.used_len[i]);
    }
    *image = (struct machine_image){.devstate = t.devstate,
                                    .devstate_len = t.devstate_len,
                                    .used_len = t.used_len,
                                    .nblocks = hypervisor_nblocks(hv)};
    return true;
}

static void let_go(void *opaque)
{
    (void)opaque;
    t.let_go++;
}

static void assert_image_is_unchanged(void)
{
    uint8_t *now = mmap(NULL, GUEST_RAM_LEN, PROT_READ, MAP_SHARED, t.image_fd, 0);
    assert_ptr_not_equal(now, MAP_FAILED);
    for (unsigned i = 0; i < hypervisor_nblocks(t.guest.hv); i++) {
        if (!hypervisor_block(t.guest.hv, i)->aux)
            assert_int_equal(memcmp(now, t.shadow.bytes[i], GUEST_RAM_LEN), 0);
    }
    munmap(now, GUEST_RAM_LEN);
}

/* No process and no file of the trial's is there any more. */
static void assert_nothing_is_left(void)
{
    g_autofree char *log = g_build_filename(t.guest.dir, "trial.log", NULL);
    g_autofree char *socket = g_build_filename(t.guest.dir, "us-trial", NULL);
    assert_false(g_file_test(log, G_FILE_TEST_EXISTS));
    assert_false(g_file_test(socket, G_FILE_TEST_EXISTS));
    assert_int_equal(waitpid(-1, NULL, WNOHANG), 0); /* the guest's QEMU, which lives, is the only child */
    assert_true(t.pid == 0 || kill(t.pid, 0) < 0);
}

/* The line's program, unless NULL, is another. */
static struct trial_report try(const struct guest_options *options, const char *program)
{
    struct trial_report report = {0};
    g_autoptr(GError) error = NULL;
    g_autoptr(GPtrArray) line = guest_line(&t.guest, options);
    if (program) {
        g_free(g_ptr_array_index(line, 0));
        g_ptr_array_index(line, 0) = g_strdup(program);
    }
    const struct trial_load_config config = {
        .argv = (const char *const *)line->pdata,
        .hook_path = HOOK_LIBRARY,
        .vm_name = "test",
        .dir = t.guest.dir,
        .ram_len = GUEST_RAM_LEN,
        .ram_fd = t.image_fd,
        .source = {.hold = hold, .let_go = let_go},
    };
    t.trial = trial_load_new(&config, &error);
    assert_non_null(t.trial);
    trial_load_run(t.trial, &report);
    trial_load_free(g_steal_pointer(&t.trial));
    if (report.why)
        print_message("QEMU said: %s\n", report.why);
    assert_nothing_is_left();
    return report;
}

static void test_a_trial_loads_the_state_and_leaves_the_image_alone(void **state)
{
    (void)state;
    take_image(&(struct guest_options){.device = "virtio-rng-pci"});
    struct trial_report report =
        try(&(struct guest_options){.device = "virtio-rng-pci", .trial = true}, NULL);
    print_message("loaded in %.1f ms, %.0f ms in all\n", (double)report.load_us / 1000,
                  (double)report.total_us / 1000);
    assert_null(report.why);
    assert_int_equal(report.verdict, TRIAL_LOADED);
    assert_int_equal(t.held, 1);
    assert_int_equal(t.let_go, 1);
    assert_true(t.maps_image_privately);
    assert_false(t.maps_image_shared);
    assert_image_is_unchanged();
    assert_true(guest_moves(&t.guest, 20000));
}

static void test_a_trial_has_no_network(void **state)
{
    (void)state;
    take_image(&(struct guest_options){0});
    assert_int_equal(try(&(struct guest_options){.trial = true}, NULL).verdict, TRIAL_LOADED);
    assert_false(t.shares_network);
}

/* The machine lacks a device of which the state speaks. */
static void test_a_state_that_does_not_load_fails_the_trial_in_qemus_words(void **state)
{
    (void)state;
    take_image(&(struct guest_options){.device = "virtio-rng-pci"});
    struct trial_report report = try(&(struct guest_options){.trial = true}, NULL);
    assert_int_equal(report.verdict, TRIAL_FAILED);
    assert_non_null(strstr(report.why, "virtio-rng"));
    assert_int_equal(t.let_go, 1);
    assert_image_is_unchanged();
    assert_true(guest_moves(&t.guest, 20000));
    g_free(report.why);
}

static void test_a_program_that_is_no_qemu_fails_the_trial(void **state)
{
    (void)state;
    take_image(&(struct guest_options){0});
    struct trial_report report = try(&(struct guest_options){.trial = true}, "/nonexistent/qemu");
    assert_int_equal(report.verdict, TRIAL_FAILED);
    assert_non_null(strstr(report.why, "/nonexistent/qemu"));
    g_free(report.why);
    /* It starts and ends at once. */
    report = try(&(struct guest_options){.trial = true}, "false");
    assert_int_equal(report.verdict, TRIAL_FAILED);
    assert_non_null(strstr(report.why, "QEMU exited before it was ready"));
    g_free(report.why);
    assert_int_equal(t.held, 0);
}

static void test_a_trial_without_a_whole_image_decides_nothing(void **state)
{
    (void)state;
    take_image(&(struct guest_options){0});
    t.no_image = true;
    assert_int_equal(try(&(struct guest_options){.trial = true}, NULL).verdict, TRIAL_UNDECIDED);
    assert_int_equal(t.held, 1);
    assert_int_equal(t.let_go, 0);
}

static void test_a_cancelled_trial_decides_nothing_and_lets_go(void **state)
{
    (void)state;
    take_image(&(struct guest_options){0});
    t.cancels = true;
    assert_int_equal(try(&(struct guest_options){.trial = true}, NULL).verdict, TRIAL_UNDECIDED);
    assert_int_equal(t.let_go, 1);
}

static gpointer cancel_soon(gpointer opaque)
{
    struct trial_load *trial = opaque;
    g_usleep(20000);
    trial_load_cancel(trial);
    return NULL;
}

/* A throw-away QEMU that never says that it is ready is not waited for. */
static void test_a_trial_that_has_not_started_is_cancelled(void **state)
{
    struct trial_report report = {0};
    static const char *const argv[] = {"sleep", "3600", NULL};
    (void)state;
    take_image(&(struct guest_options){0});
    const struct trial_load_config config = {
        .argv = argv,
        .hook_path = HOOK_LIBRARY,
        .vm_name = "test",
        .dir = t.guest.dir,
        .ram_len = GUEST_RAM_LEN,
        .ram_fd = t.image_fd,
        .source = {.hold = hold, .let_go = let_go},
    };
    struct trial_load *trial = trial_load_new(&config, NULL);
    GThread *thread = g_thread_new("cancel", cancel_soon, trial);
    trial_load_run(trial, &report);
    g_thread_join(thread);
    trial_load_free(trial);
    assert_int_equal(report.verdict, TRIAL_UNDECIDED);
    assert_true(report.total_us < 10000000);
    assert_nothing_is_left();
}

struct turn {
    int fd;
    const char *log;
    bool began_early;
};

static gpointer give_way_later(gpointer opaque)
{
    struct turn *turn = opaque;
    g_usleep(300000);
    turn->began_early = g_file_test(turn->log, G_FILE_TEST_EXISTS); /* of a QEMU that was started */
    close(turn->fd);
    return NULL;
}

/* Another trial, of another VM on this host, has its turn. */
static void test_trials_of_one_host_wait_for_each_other(void **state)
{
    (void)state;
    take_image(&(struct guest_options){0});
    /* A folder of its own above, so that the tests of others are not waited for. */
    g_autofree char *above = g_dir_make_tmp("understudy-trial-XXXXXX", NULL);
    g_autofree char *dir = g_build_filename(above, "vm", NULL);
    g_autofree char *moved = g_steal_pointer(&t.guest.dir);
    assert_int_equal(g_rename(moved, dir), 0);
    t.guest.dir = g_strdup(dir);
    g_autofree char *log = g_build_filename(dir, "trial.log", NULL);
    struct turn turn = {.fd = open(above, O_RDONLY | O_DIRECTORY), .log = log};
    assert_int_equal(flock(turn.fd, LOCK_EX), 0);
    GThread *thread = g_thread_new("other", give_way_later, &turn);
    struct trial_report report = try(&(struct guest_options){.trial = true}, NULL);
    g_thread_join(thread);
    assert_int_equal(report.verdict, TRIAL_LOADED);
    assert_false(turn.began_early);
    guest_stop(&t.guest);
    g_rmdir(above);
}

#define TEST(name) cmocka_unit_test_teardown(name, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_trial_loads_the_state_and_leaves_the_image_alone),
        TEST(test_a_trial_has_no_network),
        TEST(test_a_state_that_does_not_load_fails_the_trial_in_qemus_words),
        TEST(test_a_program_that_is_no_qemu_fails_the_trial),
        TEST(test_a_trial_without_a_whole_image_decides_nothing),
        TEST(test_a_cancelled_trial_decides_nothing_and_lets_go),
        TEST(test_a_trial_that_has_not_started_is_cancelled),
        TEST(test_trials_of_one_host_wait_for_each_other),
    };
    if (!guest_can_run())
        return 77;
    const char *only = g_getenv("UNDERSTUDY_TEST_ONLY");
    if (only)
        cmocka_set_test_filter(only);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
