/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The parts of the replicator that have threads of their own, where the kernel gives so many and no more:
 * each part is made whole, or refused with the reason, and nothing of it is left.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <gio/gio.h>
#include <pthread.h>
#include <unistd.h>

#include "hv-hooks/qemu/hook_client.h"
#include "replicator/control/term_file.h"
#include "replicator/pipeline/applier.h"
#include "replicator/pipeline/capture_thread.h"
#include "replicator/pipeline/disk_answer.h"
#include "replicator/transport/link.h"
#include "replicator/transport/sender.h"

#define MANY 12 /* more than a part has */

static struct hypervisor *hv; /* nothing answers there, and nothing is asked */
static struct staging *staging;
static struct mailbox control;
static int threads_left = -1; /* -1: as many as the kernel likes */

/* In front of the C library's, for GLib too. */
__attribute__((visibility("default"))) int pthread_create(pthread_t *thread, const pthread_attr_t *attr,
                                                          void *(*start)(void *), void *opaque)
{
    static int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "pthread_create");
    if (threads_left == 0)
        return EAGAIN;
    if (threads_left > 0)
        threads_left--;
    return real(thread, attr, start, opaque);
}

/* In the place of the disks: there is one. */
unsigned __wrap_disks_count(const struct disks *disks);
unsigned __wrap_disks_count(const struct disks *disks)
{
    return disks != NULL;
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
    return g_error_matches(error, G_THREAD_ERROR, G_THREAD_ERROR_AGAIN) ? EAGAIN : 0;
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

static bool make_disk_answer(void)
{
    g_autoptr(GError) error = NULL;
    struct disk_answer *answer = disk_answer_new((struct disks *)&control, NULL, NULL, &error);
    disk_answer_free(answer);
    errno = why_of(error);
    return answer != NULL;
}

static bool make_term_file(void)
{
    static const uint8_t token[16];
    g_autoptr(GError) error = NULL;
    uint64_t term;
    struct term_file *file =
        term_file_open("/nonexistent/term", token, sizeof token, &control, &term, &error);
    term_file_close(file);
    errno = why_of(error);
    return file != NULL;
}

static unsigned count_descriptors(void)
{
    unsigned n = 0;
    for (int fd = 0; fd < 256; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

/* Returns how many threads it has. */
static int with_few_threads(bool (*make)(void))
{
    unsigned before = count_descriptors();
    int needed = -1;
    for (int n = 0; n <= MANY; n++) {
        threads_left = n;
        errno = 0;
        bool made = make();
        int why = errno, left = threads_left;
        threads_left = -1;
        if (!made) {
            assert_int_equal(why, EAGAIN);
            assert_int_equal(needed, -1); /* more of them do no harm */
        } else if (needed < 0) {
            needed = n - left;
        }
        assert_int_equal(count_descriptors(), before);
    }
    return needed;
}

static void test_sender(void **state)
{
    (void)state;
    assert_int_equal(with_few_threads(make_sender), 1);
}

static void test_applier(void **state)
{
    (void)state;
    assert_int_equal(with_few_threads(make_applier), 1);
}

/* It has as many helpers as there are processors. */
static void test_capture_thread(void **state)
{
    (void)state;
    assert_true(with_few_threads(make_capture_thread) >= 1);
}

static void test_link(void **state)
{
    (void)state;
    assert_int_equal(with_few_threads(make_link), 1);
}

static void test_disk_answer(void **state)
{
    (void)state;
    assert_int_equal(with_few_threads(make_disk_answer), 1);
}

static void test_term_file(void **state)
{
    (void)state;
    assert_int_equal(with_few_threads(make_term_file), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sender),         cmocka_unit_test(test_applier),
        cmocka_unit_test(test_capture_thread), cmocka_unit_test(test_link),
        cmocka_unit_test(test_disk_answer),    cmocka_unit_test(test_term_file),
    };
    struct hv_fds fds;
    if (hv_fds_create(&fds, "few", 1 << 20) < 0 || hypervisor_open(&hv, &fds, 1 << 20) < 0 ||
        staging_open(&staging, 1024, 4096) < 0 || mailbox_open(&control) < 0)
        return 1;
    int failures = cmocka_run_group_tests(tests, NULL, NULL);
    mailbox_close(&control);
    staging_close(staging);
    hypervisor_close(hv);
    hv_fds_close(&fds);
    return failures;
}
