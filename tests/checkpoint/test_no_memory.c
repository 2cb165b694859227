/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The constructors of code that knows no GLib, with each of their allocations failing in turn: they say
 * -ENOMEM, and keep nothing. Every allocation of what is tested goes through this file.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "checkpoint/capture.h"
#include "checkpoint/copiers.h"
#include "checkpoint/disk/disk_image.h"
#include "checkpoint/disk/disk_journal.h"
#include "checkpoint/disk/disk_map.h"
#include "checkpoint/image.h"
#include "checkpoint/tracker.h"
#include "tests/fakevm/fake_hypervisor.h"

#define MOST 32 /* more than a constructor asks for */

static struct hypervisor *hv;
static struct staging *staging;
static char folder[] = "/tmp/understudy-XXXXXX";

/* ---- the allocator ---- */

static bool counting; /* what the fixture itself does is not */
static int left;      /* allocations that succeed */
static int kept;      /* pieces of memory that are not given back */

static bool may_have(void)
{
    if (!counting)
        return true;
    if (left == 0)
        return false;
    left--;
    kept++;
    return true;
}

void *__real_malloc(size_t len);
void *__wrap_malloc(size_t len);
void *__wrap_malloc(size_t len)
{
    return may_have() ? __real_malloc(len) : NULL;
}

void *__real_calloc(size_t n, size_t len);
void *__wrap_calloc(size_t n, size_t len);
void *__wrap_calloc(size_t n, size_t len)
{
    return may_have() ? __real_calloc(n, len) : NULL;
}

void *__real_aligned_alloc(size_t alignment, size_t len);
void *__wrap_aligned_alloc(size_t alignment, size_t len);
void *__wrap_aligned_alloc(size_t alignment, size_t len)
{
    return may_have() ? __real_aligned_alloc(alignment, len) : NULL;
}

char *__real_strdup(const char *text);
char *__wrap_strdup(const char *text);
char *__wrap_strdup(const char *text)
{
    return may_have() ? __real_strdup(text) : NULL;
}

void __real_free(void *memory);
void __wrap_free(void *memory);
void __wrap_free(void *memory)
{
    kept -= counting && memory != NULL;
    __real_free(memory);
}

/* Pieces of a mapping are given back one by one: their bytes are counted. */
static long mapped;
void *__real_mmap(void *at, size_t len, int protection, int flags, int fd, off_t offset);
void *__wrap_mmap(void *at, size_t len, int protection, int flags, int fd, off_t offset);
void *__wrap_mmap(void *at, size_t len, int protection, int flags, int fd, off_t offset)
{
    if (counting && left == 0) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    void *map = __real_mmap(at, len, protection, flags, fd, offset);
    if (counting && map != MAP_FAILED) {
        left--;
        mapped += (long)((len + 4095) / 4096);
    }
    return map;
}

int __real_munmap(void *at, size_t len);
int __wrap_munmap(void *at, size_t len);
int __wrap_munmap(void *at, size_t len)
{
    if (counting)
        mapped -= (long)((len + 4095) / 4096);
    return __real_munmap(at, len);
}

/* ---- what is made ---- */

static int make_staging(void)
{
    struct staging *made = NULL;
    int status = staging_open(&made, 64, 4096);
    staging_close(made);
    return status;
}

static int make_dirty_map(void)
{
    struct dirty_map made;
    int status = dirty_map_open(&made, hv);
    dirty_map_close(&made);
    return status;
}

static int make_image(void)
{
    struct image *made = NULL;
    int status = image_new(&made, hv, 4096);
    image_free(made);
    return status;
}

static int make_copiers(void)
{
    struct copiers *made = NULL;
    int status = copiers_open(&made, 2);
    copiers_close(made);
    return status;
}

static int make_tracker(void)
{
    struct tracker *made = NULL;
    int status = tracker_open(&made, hv, HV_TRACKER_QEMU_LOG);
    tracker_close(made);
    return status;
}

static void at_boundary(void *opaque, uint64_t epoch)
{
    (void)opaque;
    (void)epoch;
}

/* Tracking begins, too: that is when the bitmaps are made. */
static int make_capture(void)
{
    struct capture *made = NULL;
    const struct capture_config config = {
        .hv = hv, .staging = staging, .copiers = 1, .deadline_us = 20000, .at_boundary = at_boundary};
    int status = capture_open(&made, &config);
    if (status == 0)
        status = capture_start(made);
    capture_close(made);
    return status;
}

static char *path_of(const char *name)
{
    static char path[64];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static int make_disk_image(void)
{
    struct disk_image *made = NULL;
    char *why = NULL;
    int status = disk_image_open_unlocked(&made, path_of("image"), 0, &why);
    disk_image_close(made);
    __real_free(why); /* a sentence is asprintf's, which is not counted */
    return status;
}

static int make_disk_map(void)
{
    struct disk_map *made = NULL;
    const struct disk_map_image image = {.len = 1 << 20};
    int status = disk_map_open(&made, path_of("map"), &image);
    disk_map_close(made, NULL);
    return status;
}

static int make_disk_journal(void)
{
    struct disk_journal *made = NULL;
    unlink(path_of("journal"));
    int status = disk_journal_open(&made, path_of("journal"), 1 << 20);
    disk_journal_close(made);
    return status;
}

static const struct {
    const char *name;
    int (*make)(void);
} makers[] = {
    {"staging", make_staging},       {"dirty map", make_dirty_map}, {"image", make_image},
    {"copiers", make_copiers},       {"tracker", make_tracker},     {"capture", make_capture},
    {"disk image", make_disk_image}, {"disk map", make_disk_map},   {"journal", make_disk_journal},
};

static unsigned count_descriptors(void)
{
    unsigned n = 0;
    for (int fd = 0; fd < 256; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

static void test_every_allocation_may_fail(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof makers / sizeof *makers; i++) {
        unsigned descriptors = count_descriptors();
        int status = -ENOMEM;
        int n = 0;
        for (; n < MOST && status < 0; n++) {
            kept = 0;
            mapped = 0;
            left = n;
            counting = true;
            status = makers[i].make();
            counting = false;
            if (status != (status < 0 ? -ENOMEM : 0) || kept != 0 || mapped != 0 ||
                count_descriptors() != descriptors)
                fail_msg("%s with %d allocations: status %d, %d pieces and %ld pages kept, %u descriptors",
                         makers[i].name, n, status, kept, mapped, count_descriptors() - descriptors);
        }
        assert_int_equal(status, 0);
        assert_true(n > 1); /* with none at all it cannot be made */
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_allocation_may_fail)};
    if (!mkdtemp(folder))
        return 1;
    int fd = open(path_of("image"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    hv = fake_hypervisor_new(256, 16);
    if (fd < 0 || ftruncate(fd, 1 << 20) < 0 || staging_open(&staging, 1024, 4096) < 0)
        return 1;
    close(fd);
    int failures = cmocka_run_group_tests(tests, NULL, NULL);
    staging_close(staging);
    fake_hypervisor_free(hv);
    unlink(path_of("image"));
    unlink(path_of("map"));
    unlink(path_of("journal"));
    rmdir(folder);
    return failures;
}
