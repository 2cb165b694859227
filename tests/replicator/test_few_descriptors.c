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
#include "hv-hooks/qemu/hook_client.h"
#include "replicator/disk/disks.h"
#include "replicator/pipeline/applier.h"
#include "replicator/pipeline/capture_thread.h"
#include "replicator/transport/link.h"
#include "replicator/transport/sender.h"

#define FEW  12u  /* more than a part of this process needs */
#define MANY 150u /* a child's descriptors go out of the way of the numbers that it is given */

static struct hypervisor *hv; /* nothing answers there, and nothing is asked */
static struct staging *staging;
static struct mailbox control;
static char *folder;       /* of the disk's test */
static const char *plugin; /* that nbdkit is given */

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

static int why_of(const GError *error)
{
    return g_error_matches(error, G_IO_ERROR, G_IO_ERROR_TOO_MANY_OPEN_FILES) ? EMFILE : 0;
}

static bool make_link(void)
{
    g_autoptr(GError) error = NULL;
    struct endpoint *endpoint = endpoint_tcp_new(-1, 1000);
    struct link *link = link_new(&control, staging, &endpoint, 1, &error);
    link_free(link);
    endpoint_free(endpoint);
    errno = why_of(error);
    return link != NULL;
}

static bool make_guest_memory(void)
{
    struct hv_fds made;
    int status = hv_fds_create(&made, "few", 1 << 20);
    if (status == 0)
        hv_fds_close(&made);
    errno = -status;
    return status == 0;
}

static void nothing_changed(void *opaque, bool urgent)
{
    (void)opaque;
    (void)urgent;
}

static void nothing_flushed(void *opaque)
{
    (void)opaque;
}

static void no_words(void *opaque, const char *words)
{
    (void)opaque;
    (void)words;
}

static bool make_disks(void)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *image = g_build_filename(folder, "image", NULL);
    struct disk_config disk = {.id = (char *)"disk0", .path = image};
    const struct disks_config config = {
        .vm_name = "few",
        .vm_dir = folder,
        .state_dir = folder,
        .plugin = plugin,
        .list = &disk,
        .n = 1,
        .changed = nothing_changed,
        .flushed = nothing_flushed,
        .detached = no_words,
        .fault_changed = no_words,
    };
    struct disks *disks = disks_open(&config, &error);
    if (disks) {
        struct disk_figures figures;
        disks_figures(disks, 0, &figures);
        assert_true(figures.server_runs);
    }
    disks_close(disks);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    assert_true(disks || error->message[0]);
    errno = why_of(error);
    return disks != NULL;
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
    errno = why_of(error);
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

static void test_link(void **state)
{
    (void)state;
    under_every_limit(make_link, FEW);
}

static void test_guest_memory(void **state)
{
    (void)state;
    under_every_limit(make_guest_memory, FEW);
}

/* With their nbdkit. */
static void test_disks(void **state)
{
    (void)state;
    under_every_limit(make_disks, MANY);
}

static void test_child_process(void **state)
{
    (void)state;
    under_every_limit(make_child, MANY);
}

static void make_image(void)
{
    g_autofree char *image = g_build_filename(folder, "image", NULL);
    assert_true(g_file_set_contents(image, "", 0, NULL));
    assert_int_equal(truncate(image, 1 << 20), 0);
}

static void remove_folder(void)
{
    GDir *dir = g_dir_open(folder, 0, NULL);
    const char *name;
    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename(folder, name, NULL);
        g_unlink(path);
    }
    g_dir_close(dir);
    g_rmdir(folder);
}

/* PLUGIN: a disk plugin for nbdkit. */
int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sender),         cmocka_unit_test(test_applier),
        cmocka_unit_test(test_capture_thread), cmocka_unit_test(test_link),
        cmocka_unit_test(test_guest_memory),   cmocka_unit_test(test_disks),
        cmocka_unit_test(test_child_process),
    };
    struct hv_fds fds;
    if (argc < 2)
        return 2;
    plugin = argv[1];
    bool in_memory = access("/dev/shm", W_OK) == 0;
    folder = g_build_filename(in_memory ? "/dev/shm" : g_get_tmp_dir(), "understudy-XXXXXX", NULL);
    assert_non_null(g_mkdtemp(folder));
    make_image();
    if (hv_fds_create(&fds, "few", 1 << 20) < 0 || hypervisor_open(&hv, &fds, 1 << 20) < 0 ||
        staging_open(&staging, 1024, 4096) < 0 || mailbox_open(&control) < 0)
        return 1;
    g_main_context_default(); /* its own descriptor is there before anything is counted */
    int failures = cmocka_run_group_tests(tests, NULL, NULL);
    remove_folder();
    g_free(folder);
    mailbox_close(&control);
    staging_close(staging);
    hypervisor_close(hv);
    hv_fds_close(&fds);
    return failures;
}
