/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A trial load whose QEMU cannot be started: what this host lacks only now is no word about its QEMU, and
 * what it will lack later too fails the trial.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <gio/gio.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "hv-hooks/qemu/qemu_process.h"
#include "hv-hooks/qemu/trial_load.h"

#define RAM_LEN (1u << 20)

static int start_errno;

struct child_process *__wrap_qemu_process_start(const struct qemu_start *qemu, child_process_exited exited,
                                                void *opaque, GError **error);

struct child_process *__wrap_qemu_process_start(const struct qemu_start *qemu, child_process_exited exited,
                                                void *opaque, GError **error)
{
    (void)exited;
    (void)opaque;
    g_set_error(error, G_IO_ERROR, g_io_error_from_errno(start_errno), "%s could not be started: %s",
                qemu->argv[0], g_strerror(start_errno));
    return NULL;
}

static bool hold(struct hypervisor *hv, struct machine_image *image, char **why, void *opaque)
{
    (void)hv;
    (void)image;
    (void)why;
    (void)opaque;
    fail();
    return false;
}

static void assert_verdict(int error_number, enum trial_verdict verdict)
{
    static const char *const argv[] = {"qemu", NULL};
    g_autofree char *all = g_dir_make_tmp("understudy-test-XXXXXX", NULL), *dir = NULL;
    g_autoptr(GError) error = NULL;
    struct trial_report report = {0};
    int ram_fd = memfd_create("ram", MFD_CLOEXEC);
    assert_int_equal(ftruncate(ram_fd, RAM_LEN), 0);
    dir = g_build_filename(all, "vm", NULL);
    assert_int_equal(g_mkdir(dir, 0700), 0);
    const struct trial_load_config config = {
        .argv = argv,
        .hook_path = "hook.so",
        .vm_name = "vm",
        .dir = dir,
        .ram_len = RAM_LEN,
        .ram_fd = ram_fd,
        .source = {.hold = hold},
    };
    struct trial_load *trial = trial_load_new(&config, &error);
    assert_non_null(trial);
    start_errno = error_number;
    trial_load_run(trial, &report);
    trial_load_free(trial);
    assert_int_equal(report.verdict, verdict);
    assert_non_null(report.why);
    assert_non_null(strstr(report.why, g_strerror(error_number)));
    g_free(report.why);
    close(ram_fd);
    assert_int_equal(g_rmdir(dir), 0); /* nothing of the trial stays */
    assert_int_equal(g_rmdir(all), 0);
}

static void test_a_lack_of_processes_memory_or_descriptors_is_no_verdict(void **state)
{
    (void)state;
    assert_verdict(EAGAIN, TRIAL_NOT_BEGUN);
    assert_verdict(ENOMEM, TRIAL_NOT_BEGUN);
    assert_verdict(EMFILE, TRIAL_NOT_BEGUN);
}

static void test_a_qemu_that_is_not_there_or_not_a_program_fails_the_trial(void **state)
{
    (void)state;
    assert_verdict(ENOENT, TRIAL_FAILED);
    assert_verdict(EACCES, TRIAL_FAILED);
    assert_verdict(ENOEXEC, TRIAL_FAILED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_lack_of_processes_memory_or_descriptors_is_no_verdict),
        cmocka_unit_test(test_a_qemu_that_is_not_there_or_not_a_program_fails_the_trial),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
