/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the replicator is made of, under every limit of open files that it may meet: each part is made whole,
 * or refused with the reason, and nothing of it is left.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <gio/gio.h>
#include <glib/gstdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/child_process.h"
#include "replicator/pipeline/applier.h"
#include "replicator/pipeline/capture_thread.h"
#include "replicator/transport/sender.h"

#define FEW  12u  /* more than a part of this process needs */
#define MANY 150u /* a child's descriptors go out of the way of the numbers that it is given */

static struct hypervisor *hv; /* nothing answers there, and nothing is asked */
static struct staging *staging;
static struct mailbox control;

static unsigned count_descriptors(void)
{
    unsigned n = 0;
    for (int fd = 0; fd < 256; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

/* The numbers that are free below the limit: exactly so many. */
static void leave(unsigned spare)
{
    struct rlimit limit;
    rlim_t number = 0;
    getrlimit(RLIMIT_NOFILE, &limit);
    for (unsigned free_ones = 0; free_ones < spare; number++)
        free_ones += fcntl((int)number, F_GETFD) < 0;
    limit.rlim_cur = number;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

static void leave_all(void)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

static void room(void *opaque)
{
    (void)opaque;
}

static bool make_sender(void)
{
    struct sender *sender = sender_new(staging, &control, NULL, room, NULL);
    sender_free(sender);
    return sender != NULL;
}

static bool make_applier(void)
{
    struct applier *applier = applier_new(NULL, NULL, false, staging, &control);
    applier_free(applier);
    return applier != NULL;
}

static bool make_capture_thread(void)
{
    const struct capture_thread_config config = {
        .hv = hv, .staging = staging, .control = &control, .epoch_ms = 20, .deadline_ms = 20};
    struct capture_thread *capture = capture_thread_new(&config);
    capture_thread_free(capture);
    return capture != NULL;
}

static void on_exit_of(struct child_process *process, int status, void *opaque)
{
    (void)process;
    (void)status;
    (void)opaque;
}

static bool make_child(void)
{
    static const char *const argv[] = {"sleep", "600", NULL};
    const struct child_start start = {.argv = argv, .path = "/bin/sleep", .log_path = "/dev/null"};
    g_autoptr(GError) error = NULL;
    struct child_process *process = child_process_start(&start, on_exit_of, NULL, &error);
    child_process_free(process);
    /* No child is left, not even one that nobody watches. */
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    errno = g_error_matches(error, G_IO_ERROR, G_IO_ERROR_TOO_MANY_OPEN_FILES) ? EMFILE : 0;
    return process != NULL;
}

static void under_every_limit(bool (*make)(void), unsigned enough)
{
    unsigned before = count_descriptors();
    bool well = false;
    for (unsigned spare = 0; spare <= enough; spare++) {
        leave(spare);
        errno = 0;
        bool made = make();
        int why = errno;
        leave_all();
        if (spare == 0)
            assert_false(made);
        if (!made)
            assert_int_equal(why, EMFILE);
        assert_true(made || !well); /* more room does no harm */
        well = made;
        assert_int_equal(count_descriptors(), before);
    }
    assert_true(well);
}

static void test_sender(void **state)
{
    (void)state;
    under_every_limit(make_sender, FEW);
}

static void test_applier(void **state)
{
    (void)state;
    under_every_limit(make_applier, FEW);
}

static void test_capture_thread(void **state)
{
    (void)state;
    under_every_limit(make_capture_thread, FEW);
}

static void test_child_process(void **state)
{
    (void)state;
    under_every_limit(make_child, MANY);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sender),
        cmocka_unit_test(test_applier),
        cmocka_unit_test(test_capture_thread),
        cmocka_unit_test(test_child_process),
    };
    struct hv_fds fds;
    if (hv_fds_create(&fds, "few", 1 << 20) < 0 || hypervisor_open(&hv, &fds, 1 << 20) < 0 ||
        staging_open(&staging, 1024, 4096) < 0 || mailbox_open(&control) < 0)
        return 1;
    g_main_context_default(); /* its own descriptor is there before anything is counted */
    int failures = cmocka_run_group_tests(tests, NULL, NULL);
    mailbox_close(&control);
    staging_close(staging);
    hypervisor_close(hv);
    hv_fds_close(&fds);
    return failures;
}
