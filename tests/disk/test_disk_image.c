/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * An image file's reads, writes, zeroes and trims against a model in memory, on kernels that do half of what
 * they are asked, are interrupted, or do not know a call: the linker puts this file's pwritev, pread and
 * fallocate before the real ones. And what is said about images that cannot be used.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/falloc.h>

#include <cmocka.h>

#include "checkpoint/disk/disk_image.h"

#define IMAGE_LEN (1u << 20)

/* ---- the kernel's tempers ---- */

static bool short_calls;  /* transfers stop early, and are interrupted */
static int refused_modes; /* bits of refuse_* */
static int fallocate_error, write_error;
static unsigned nshort, ninterrupted, nrefused, ndsync;

enum { REFUSE_ZERO_RANGE = 1, REFUSE_PUNCH_HOLE = 2, REFUSE_PLAIN = 4, REFUSE_DSYNC = 8 };

ssize_t __real_pwritev(int fd, const struct iovec *data, int ndata, off_t offset);
ssize_t __wrap_pwritev(int fd, const struct iovec *data, int ndata, off_t offset);
ssize_t __real_pwritev2(int fd, const struct iovec *data, int ndata, off_t offset, int flags);
ssize_t __wrap_pwritev2(int fd, const struct iovec *data, int ndata, off_t offset, int flags);
ssize_t __real_pread(int fd, void *buffer, size_t len, off_t offset);
ssize_t __wrap_pread(int fd, void *buffer, size_t len, off_t offset);
int __real_fallocate(int fd, int mode, off_t offset, off_t len);
int __wrap_fallocate(int fd, int mode, off_t offset, off_t len);

static bool is_interrupted(void)
{
    if (!short_calls || rand() % 3)
        return false;
    ninterrupted++;
    errno = EINTR;
    return true;
}

ssize_t __wrap_pwritev(int fd, const struct iovec *data, int ndata, off_t offset)
{
    if (write_error) {
        errno = write_error;
        return -1;
    }
    if (is_interrupted())
        return -1;
    if (!short_calls)
        return __real_pwritev(fd, data, ndata, offset);
    /* A part of the first piece that has any bytes, or that and part of the next. */
    struct iovec part[2] = {data[0], {0}};
    nshort++;
    if (ndata > 1 && rand() % 2) {
        part[1] = data[1];
        part[1].iov_len = part[1].iov_len ? (size_t)rand() % part[1].iov_len : 0;
    } else {
        part[0].iov_len = part[0].iov_len > 1 ? 1 + (size_t)rand() % (part[0].iov_len - 1) : part[0].iov_len;
    }
    return __real_pwritev(fd, part, 2, offset);
}

ssize_t __wrap_pwritev2(int fd, const struct iovec *data, int ndata, off_t offset, int flags)
{
    if (refused_modes & REFUSE_DSYNC) {
        errno = EOPNOTSUPP;
        return -1;
    }
    ndsync += (flags & RWF_DSYNC) != 0;
    return __real_pwritev2(fd, data, ndata, offset, flags);
}

ssize_t __wrap_pread(int fd, void *buffer, size_t len, off_t offset)
{
    if (is_interrupted())
        return -1;
    return __real_pread(fd, buffer, short_calls && len > 1 ? 1 + (size_t)rand() % (len - 1) : len, offset);
}

int __wrap_fallocate(int fd, int mode, off_t offset, off_t len)
{
    if (fallocate_error) {
        errno = fallocate_error;
        return -1;
    }
    if (is_interrupted())
        return -1;
    if ((mode & FALLOC_FL_ZERO_RANGE && refused_modes & REFUSE_ZERO_RANGE) ||
        (mode & FALLOC_FL_PUNCH_HOLE && refused_modes & REFUSE_PUNCH_HOLE) ||
        (mode == 0 && refused_modes & REFUSE_PLAIN)) {
        nrefused++;
        errno = EOPNOTSUPP;
        return -1;
    }
    return __real_fallocate(fd, mode, offset, len);
}

static char folder[] = "/tmp/disk-image-XXXXXX";
static char path[64];

static int make_folder(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(folder));
    assert_int_equal(chmod(folder, 0755), 0);
    snprintf(path, sizeof path, "%s/image", folder);
    return 0;
}

static int be_calm(void **state)
{
    (void)state;
    short_calls = false;
    refused_modes = fallocate_error = write_error = 0;
    unlink(path);
    return 0;
}

static int remove_folder(void **state)
{
    be_calm(state);
    return rmdir(folder);
}

static void make_file(uint64_t len)
{
    int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0644);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)len), 0);
    close(fd);
}

static struct disk_image *open_image(uint64_t file_len, uint64_t export_len)
{
    struct disk_image *image = NULL;
    char *why = NULL;
    make_file(file_len);
    int status = disk_image_open(&image, path, export_len, &why);
    if (status < 0)
        fail_msg("%s", why);
    assert_null(why);
    return image;
}

/* ---- against the model ---- */

static void assert_equals_model(struct disk_image *image, const uint8_t *model)
{
    static uint8_t read_back[IMAGE_LEN];
    assert_int_equal(disk_image_read(disk_image_fd(image), read_back, IMAGE_LEN, 0), 0);
    assert_memory_equal(read_back, model, IMAGE_LEN);
}

static void change_at_random(struct disk_image *image, uint8_t *model)
{
    static uint8_t data[65536];
    uint64_t offset = (uint64_t)rand() % IMAGE_LEN;
    uint64_t len = (uint64_t)rand() % (IMAGE_LEN - offset < sizeof data ? IMAGE_LEN - offset : sizeof data);
    if (rand() % 2) {
        offset &= ~4095ull;
        len &= ~4095ull;
    }
    struct disk_record record = {
        .type = DISK_RECORD_WRITE + (unsigned)rand() % 3, .offset = offset, .len = len};
    if (record.type == DISK_RECORD_WRITE) {
        for (uint64_t i = 0; i < len; i++)
            data[i] = (uint8_t)(rand() >> 8);
        size_t first = len ? (size_t)rand() % (len + 1) : 0;
        record.data_len = (uint32_t)len;
        record.data[0] = (struct iovec){data, first};
        record.data[1] = (struct iovec){data + first, len - first};
        record.ndata = 2;
        memcpy(model + offset, data, len);
    } else {
        memset(model + offset, 0, len);
    }
    assert_int_equal(disk_image_apply(image, &record), 0);
}

/* One walk for each set of calls that the file system does not know; the file shorter than the disk. */
static void walk(int refused, bool with_short_calls)
{
    static uint8_t model[IMAGE_LEN];
    memset(model, 0, sizeof model);
    struct disk_image *image = open_image(5000, IMAGE_LEN);
    assert_int_equal(disk_image_len(image), IMAGE_LEN);
    refused_modes = refused;
    short_calls = with_short_calls;
    for (unsigned i = 0; i < 150; i++) {
        change_at_random(image, model);
        if (i % 10 == 0)
            assert_equals_model(image, model);
    }
    short_calls = false;
    assert_equals_model(image, model);
    struct stat st;
    assert_int_equal(fstat(disk_image_fd(image), &st), 0);
    assert_true(st.st_size <= IMAGE_LEN);
    disk_image_close(image);
    be_calm(NULL);
}

static void test_the_image_is_what_was_written(void **state)
{
    (void)state;
    srand(1);
    walk(0, false);
}

static void test_short_and_interrupted_calls_are_continued(void **state)
{
    (void)state;
    srand(2);
    nshort = ninterrupted = 0;
    walk(0, true);
    walk(REFUSE_ZERO_RANGE | REFUSE_PUNCH_HOLE | REFUSE_PLAIN, true);
    assert_true(nshort > 100 && ninterrupted > 100);
}

static void test_file_systems_without_these_calls_get_zeroes_written(void **state)
{
    (void)state;
    srand(3);
    for (int refused = 1; refused < 8; refused++) {
        nrefused = 0;
        walk(refused, false);
        assert_true(nrefused > 0 || refused == REFUSE_PLAIN); /* a plain one is only the second choice */
    }
}

static void test_durable_writes_are_synced_and_the_same(void **state)
{
    (void)state;
    uint8_t bytes[100], back[100];
    struct iovec data[2] = {{bytes, 60}, {bytes + 60, 40}};
    struct disk_image *image = open_image(0, IMAGE_LEN);
    memset(bytes, 7, sizeof bytes);
    for (unsigned round = 0; round < 2; round++) {
        refused_modes = round ? REFUSE_DSYNC : 0;
        ndsync = 0;
        assert_int_equal(disk_image_write(disk_image_fd(image), data, 2, 1000 + 500 * round, true), 0);
        assert_int_equal(ndsync, round ? 0 : 1);
        assert_int_equal(disk_image_read(disk_image_fd(image), back, 100, 1000 + 500 * round), 0);
        assert_memory_equal(back, bytes, 100);
        assert_int_equal(disk_image_zero(disk_image_fd(image), 1000 + 500 * round, 50, true, true), 0);
    }
    assert_int_equal(disk_image_sync(image), 0);
    disk_image_close(image);
}

static void test_many_pieces_are_one_write(void **state)
{
    (void)state;
    uint8_t bytes[3000], back[3000];
    struct iovec data[60];
    struct disk_image *image = open_image(0, IMAGE_LEN);
    for (unsigned i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i * 7);
    for (unsigned i = 0; i < 60; i++)
        data[i] = (struct iovec){bytes + 100 * (i / 2), i % 2 ? 100 : 0};
    short_calls = true;
    assert_int_equal(disk_image_write(disk_image_fd(image), data, 60, 77, false), 0);
    assert_int_equal(disk_image_read(disk_image_fd(image), back, sizeof back, 77), 0);
    assert_memory_equal(back, bytes, sizeof bytes);
    disk_image_close(image);
}

static void test_errors_of_the_disk_are_passed_on(void **state)
{
    (void)state;
    uint8_t bytes[10] = {0};
    struct iovec data = {bytes, sizeof bytes};
    struct disk_image *image = open_image(0, IMAGE_LEN);
    write_error = ENOSPC;
    assert_int_equal(disk_image_write(disk_image_fd(image), &data, 1, 0, false), -ENOSPC);
    write_error = EIO;
    assert_int_equal(disk_image_write(disk_image_fd(image), &data, 1, 0, false), -EIO);
    for (unsigned trim = 0; trim < 2; trim++) {
        fallocate_error = ENOSPC;
        assert_int_equal(disk_image_zero(disk_image_fd(image), 0, 100, trim, false), -ENOSPC);
        fallocate_error = EIO;
        assert_int_equal(disk_image_zero(disk_image_fd(image), 0, 100, trim, false), -EIO);
    }
    disk_image_close(image);
}

static void test_a_record_outside_the_disk_is_refused(void **state)
{
    (void)state;
    struct disk_image *image = open_image(0, IMAGE_LEN);
    struct disk_record record = {.type = DISK_RECORD_ZERO, .offset = IMAGE_LEN - 1, .len = 2};
    assert_int_equal(disk_image_apply(image, &record), -EINVAL);
    record.offset = UINT64_MAX;
    assert_int_equal(disk_image_apply(image, &record), -EINVAL);
    record.offset = 1;
    record.len = UINT64_MAX;
    assert_int_equal(disk_image_apply(image, &record), -EINVAL);
    assert_int_equal(disk_image_zero(disk_image_fd(image), UINT64_MAX, 2, false, false), -EFBIG);
    assert_int_equal(disk_image_zero(disk_image_fd(image), 2, UINT64_MAX, true, false), -EFBIG);
    disk_image_close(image);
}

static void test_trims_give_blocks_back_and_zeroes_keep_them(void **state)
{
    (void)state;
    static uint8_t bytes[IMAGE_LEN];
    struct iovec data = {bytes, sizeof bytes};
    struct stat full, zeroed, trimmed;
    struct disk_image *image = open_image(0, IMAGE_LEN);
    int fd = disk_image_fd(image);
    memset(bytes, 1, sizeof bytes);
    assert_int_equal(disk_image_write(fd, &data, 1, 0, true), 0);
    assert_int_equal(fstat(fd, &full), 0);
    assert_false(disk_image_is_hole(fd, 0, 65536));
    assert_int_equal(disk_image_zero(fd, 0, IMAGE_LEN, false, true), 0);
    assert_int_equal(fstat(fd, &zeroed), 0);
    assert_true(zeroed.st_blocks >= full.st_blocks);
    assert_int_equal(disk_image_zero(fd, 0, IMAGE_LEN, true, true), 0);
    assert_int_equal(fstat(fd, &trimmed), 0);
    assert_true(trimmed.st_blocks < full.st_blocks / 2);
    assert_int_equal(trimmed.st_size, IMAGE_LEN);
    assert_true(disk_image_is_hole(fd, 0, IMAGE_LEN));
    disk_image_close(image);
}

static void test_holes_are_told_from_data(void **state)
{
    (void)state;
    uint8_t one = 1;
    struct iovec data = {&one, 1};
    struct disk_image *image = open_image(IMAGE_LEN / 2, IMAGE_LEN);
    int fd = disk_image_fd(image);
    assert_int_equal(disk_image_write(fd, &data, 1, 3 * 65536 + 9, false), 0);
    assert_true(disk_image_is_hole(fd, 0, 3 * 65536));
    assert_false(disk_image_is_hole(fd, 3 * 65536, 65536));
    assert_false(disk_image_is_hole(fd, 0, IMAGE_LEN));
    assert_true(disk_image_is_hole(fd, 4 * 65536, IMAGE_LEN - 4 * 65536));
    assert_true(disk_image_is_hole(fd, IMAGE_LEN - 65536, 65536)); /* beyond the file's end */
    disk_image_close(image);
    assert_false(disk_image_is_hole(-1, 0, 1));
}

static void test_zeroes_beyond_the_end_are_room_and_trims_are_not(void **state)
{
    (void)state;
    struct stat st;
    struct disk_image *image = open_image(4096, IMAGE_LEN);
    int fd = disk_image_fd(image);
    for (int refused = 0; refused < 8; refused++) {
        refused_modes = refused;
        assert_int_equal(ftruncate(fd, 4096), 0);
        assert_int_equal(disk_image_zero(fd, 0, 65536, true, false), 0);
        assert_int_equal(disk_image_zero(fd, 65536, 65536, true, false), 0);
        assert_int_equal(fstat(fd, &st), 0);
        assert_int_equal(st.st_size, 4096);
        assert_int_equal(disk_image_zero(fd, 65536, 65536, false, false), 0);
        assert_int_equal(fstat(fd, &st), 0);
        assert_int_equal(st.st_size, 131072);
    }
    disk_image_close(image);
}

static void test_an_image_is_identified(void **state)
{
    (void)state;
    struct disk_map_image before, after;
    struct stat st;
    uint8_t one = 1;
    struct iovec data = {&one, 1};
    struct disk_image *image = open_image(4096, IMAGE_LEN);
    assert_int_equal(disk_image_identify(image, &before), 0);
    assert_int_equal(fstat(disk_image_fd(image), &st), 0);
    assert_int_equal(before.len, IMAGE_LEN);
    assert_int_equal(before.inode, st.st_ino);
    assert_int_equal(before.device, st.st_dev);
    struct timespec old[2] = {{1, 0}, {1, 0}};
    assert_int_equal(futimens(disk_image_fd(image), old), 0);
    assert_int_equal(disk_image_identify(image, &before), 0);
    assert_int_equal(before.mtime_ns, 1000000000);
    assert_int_equal(disk_image_write(disk_image_fd(image), &data, 1, 0, false), 0);
    assert_int_equal(disk_image_identify(image, &after), 0);
    assert_true(after.mtime_ns > before.mtime_ns);
    disk_image_close(image);
}

/* ---- what cannot be used ---- */

static void assert_refused(const char *at, uint64_t export_len, int expected, const char *sentence)
{
    struct disk_image *image = NULL;
    char *why = NULL;
    assert_int_equal(disk_image_open(&image, at, export_len, &why), expected);
    assert_null(image);
    assert_non_null(why);
    if (!strstr(why, at) || !strstr(why, sentence))
        fail_msg("\"%s\" does not say \"%s\" of %s", why, sentence, at);
    free(why);
}

static void test_images_that_cannot_be_used_are_refused_with_a_sentence(void **state)
{
    (void)state;
    assert_refused(path, 0, -ENOENT, "does not exist");
    assert_refused(folder, 0, -EISDIR, "is a directory");
    assert_refused("/dev/null", 0, -EINVAL, "neither a file nor a block device");
    make_file(IMAGE_LEN + 1);
    assert_refused(path, IMAGE_LEN, -EFBIG, "more than its disk");
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_refused(path, 0, -EINVAL, "neither a file nor a block device");
    assert_int_equal(unlink(path), 0);
    assert_int_equal(symlink("image", path), 0);
    assert_refused(path, 0, -ELOOP, "cannot be opened");
}

static void test_an_image_without_write_permission_is_refused(void **state)
{
    (void)state;
    make_file(4096);
    assert_int_equal(chmod(path, 0444), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct disk_image *image = NULL;
        char *why = NULL;
        if (geteuid() == 0 && seteuid(65534) < 0)
            _exit(2);
        int status = disk_image_open(&image, path, 0, &why);
        _exit(status == -EACCES && why && strstr(why, "may not be written") ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

static void test_an_image_is_opened_only_once(void **state)
{
    (void)state;
    struct disk_image *first = open_image(4096, 0), *again = NULL;
    char *why = NULL;
    assert_refused(path, 0, -EAGAIN, "in use by another process");
    /* A descriptor inherited is the same open file: the lock stays until the last one is closed. */
    int inherited = dup(disk_image_fd(first));
    disk_image_close(first);
    assert_refused(path, 0, -EAGAIN, "in use by another process");
    close(inherited);
    assert_int_equal(disk_image_open(&again, path, 0, &why), 0);
    disk_image_close(again);
}

#define TEST(f) cmocka_unit_test_teardown(f, be_calm)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_the_image_is_what_was_written),
        TEST(test_short_and_interrupted_calls_are_continued),
        TEST(test_file_systems_without_these_calls_get_zeroes_written),
        TEST(test_durable_writes_are_synced_and_the_same),
        TEST(test_many_pieces_are_one_write),
        TEST(test_errors_of_the_disk_are_passed_on),
        TEST(test_a_record_outside_the_disk_is_refused),
        TEST(test_trims_give_blocks_back_and_zeroes_keep_them),
        TEST(test_holes_are_told_from_data),
        TEST(test_zeroes_beyond_the_end_are_room_and_trims_are_not),
        TEST(test_an_image_is_identified),
        TEST(test_images_that_cannot_be_used_are_refused_with_a_sentence),
        TEST(test_an_image_without_write_permission_is_refused),
        TEST(test_an_image_is_opened_only_once),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
