/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Chunks' hashes against the system's own sha256sum, holes, short last chunks, and what is beyond a disk. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "checkpoint/disk/disk_hash.h"
#include "checkpoint/disk/disk_map.h"

#define NCHUNKS  6u
#define DISK_LEN (5 * DISK_CHUNK_LEN + 1000u)

/* What sha256sum says of 64 KiB of zeroes. */
static const uint8_t hash_of_zeroes[DISK_HASH_LEN] = {
    0xde, 0x2f, 0x25, 0x60, 0x64, 0xa0, 0xaf, 0x79, 0x77, 0x47, 0xc2, 0xb9, 0x75, 0x05, 0xdc, 0x0b,
    0x9f, 0x3d, 0xf0, 0xde, 0x4f, 0x48, 0x9e, 0xac, 0x73, 0x1c, 0x23, 0xae, 0x9c, 0xa9, 0xcc, 0x31,
};

static unsigned nreads;
static int read_error;

ssize_t __real_pread(int fd, void *buffer, size_t len, off_t offset);
ssize_t __wrap_pread(int fd, void *buffer, size_t len, off_t offset);

ssize_t __wrap_pread(int fd, void *buffer, size_t len, off_t offset)
{
    nreads++;
    if (read_error) {
        errno = read_error;
        return -1;
    }
    return __real_pread(fd, buffer, len, offset);
}

static int new_file(off_t len)
{
    int fd = memfd_create("disk", MFD_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, len), 0);
    nreads = 0;
    return fd;
}

static void put(int fd, uint64_t offset, size_t len, uint8_t seed)
{
    uint8_t *bytes = malloc(len);
    for (size_t i = 0; i < len; i++)
        bytes[i] = seed ? (uint8_t)(i * seed + i / 256) : 0;
    assert_int_equal(pwrite(fd, bytes, len, (off_t)offset), len);
    free(bytes);
}

/* As another program computes it, for the bytes of a chunk padded with zeroes to len. */
static void assert_hash(const uint8_t *hash, int fd, uint64_t offset, size_t len)
{
    char command[256], hex[2 * DISK_HASH_LEN + 1] = "", expected[2 * DISK_HASH_LEN + 1];
    snprintf(command, sizeof command,
             "(tail -c +%llu /proc/%d/fd/%d; head -c 65536 /dev/zero) | head -c %zu | sha256sum",
             (unsigned long long)offset + 1, getpid(), fd, len);
    FILE *pipe = popen(command, "re");
    assert_non_null(fgets(hex, sizeof hex, pipe));
    pclose(pipe);
    for (unsigned i = 0; i < DISK_HASH_LEN; i++)
        snprintf(expected + 2 * i, 3, "%02x", hash[i]);
    assert_string_equal(hex, expected);
}

static void test_chunks_have_the_hash_of_their_bytes(void **state)
{
    (void)state;
    uint8_t hashes[NCHUNKS * DISK_HASH_LEN], one[DISK_HASH_LEN];
    int fd = new_file(DISK_LEN);
    put(fd, 0, DISK_CHUNK_LEN, 3);
    put(fd, DISK_CHUNK_LEN + 5, 1, 9);
    put(fd, 2 * DISK_CHUNK_LEN, DISK_CHUNK_LEN, 0);
    put(fd, 4 * DISK_CHUNK_LEN + 65535, 2, 7); /* the last byte of one, the first of the next */
    assert_int_equal(disk_hash_chunks(fd, DISK_LEN, 0, NCHUNKS, hashes), 0);
    for (unsigned i = 0; i < NCHUNKS; i++) {
        assert_hash(hashes + i * DISK_HASH_LEN, fd, (uint64_t)i * DISK_CHUNK_LEN,
                    i < 5 ? DISK_CHUNK_LEN : DISK_LEN % DISK_CHUNK_LEN);
        assert_int_equal(disk_hash_chunks(fd, DISK_LEN, i, 1, one), 0);
        assert_memory_equal(one, hashes + i * DISK_HASH_LEN, DISK_HASH_LEN);
    }
    assert_memory_equal(hashes + 2 * DISK_HASH_LEN, hash_of_zeroes, DISK_HASH_LEN);
    assert_memory_equal(hashes + 3 * DISK_HASH_LEN, hash_of_zeroes, DISK_HASH_LEN);
    close(fd);
}

static void test_one_bit_makes_another_hash(void **state)
{
    (void)state;
    uint8_t before[DISK_HASH_LEN], after[DISK_HASH_LEN];
    int fd = new_file(DISK_CHUNK_LEN);
    for (unsigned at = 0; at < DISK_CHUNK_LEN; at += 4095) {
        assert_int_equal(disk_hash_chunks(fd, DISK_CHUNK_LEN, 0, 1, before), 0);
        uint8_t byte;
        assert_int_equal(pread(fd, &byte, 1, at), 1);
        byte ^= 1;
        assert_int_equal(pwrite(fd, &byte, 1, at), 1);
        assert_int_equal(disk_hash_chunks(fd, DISK_CHUNK_LEN, 0, 1, after), 0);
        assert_memory_not_equal(before, after, DISK_HASH_LEN);
    }
    close(fd);
}

static void test_holes_are_not_read(void **state)
{
    (void)state;
    enum { MANY = 10000 };
    uint8_t *hashes = malloc(MANY * DISK_HASH_LEN);
    int fd = new_file((off_t)MANY * DISK_CHUNK_LEN);
    put(fd, 777ull * DISK_CHUNK_LEN, 10, 5);
    assert_int_equal(disk_hash_chunks(fd, (uint64_t)MANY * DISK_CHUNK_LEN, 0, MANY, hashes), 0);
    assert_true(nreads <= 2); /* the one chunk, its huge page's neighbours at most */
    for (unsigned i = 0; i < MANY; i++) {
        bool zero = memcmp(hashes + (size_t)i * DISK_HASH_LEN, hash_of_zeroes, DISK_HASH_LEN) == 0;
        assert_int_equal(zero, i != 777);
    }
    free(hashes);
    close(fd);
}

static void test_what_is_beyond_the_files_end_is_zero(void **state)
{
    (void)state;
    uint8_t hashes[NCHUNKS * DISK_HASH_LEN];
    int fd = new_file(0);
    put(fd, 0, DISK_CHUNK_LEN + 100, 3);
    assert_int_equal(disk_hash_chunks(fd, DISK_LEN, 0, NCHUNKS, hashes), 0);
    assert_hash(hashes + DISK_HASH_LEN, fd, DISK_CHUNK_LEN, DISK_CHUNK_LEN);
    assert_memory_equal(hashes + 2 * DISK_HASH_LEN, hash_of_zeroes, DISK_HASH_LEN);
    assert_hash(hashes + 5 * DISK_HASH_LEN, fd, 5 * DISK_CHUNK_LEN, DISK_LEN % DISK_CHUNK_LEN);
    close(fd);
}

static void test_what_is_beyond_the_disk_is_refused(void **state)
{
    (void)state;
    uint8_t hash[DISK_HASH_LEN];
    int fd = new_file(DISK_LEN);
    assert_int_equal(disk_hash_chunks(fd, DISK_LEN, NCHUNKS, 0, hash), 0);
    assert_int_equal(disk_hash_chunks(fd, DISK_LEN, NCHUNKS, 1, hash), -EINVAL);
    assert_int_equal(disk_hash_chunks(fd, DISK_LEN, 1, UINT32_MAX, hash), -EINVAL);
    assert_int_equal(disk_hash_chunks(fd, DISK_LEN, UINT64_MAX, 1, hash), -EINVAL);
    assert_int_equal(disk_hash_chunks(fd, UINT64_MAX, 0, 1, hash), -EINVAL);
    assert_int_equal(disk_hash_chunks(fd, 0, 0, 0, hash), 0);
    close(fd);
}

static void test_an_error_of_the_disk_is_passed_on(void **state)
{
    (void)state;
    uint8_t hash[DISK_HASH_LEN];
    int fd = new_file(DISK_LEN);
    put(fd, 0, 10, 1);
    read_error = EIO;
    assert_int_equal(disk_hash_chunks(fd, DISK_LEN, 0, 1, hash), -EIO);
    read_error = 0;
    close(fd);
    assert_int_equal(disk_hash_chunks(fd, DISK_LEN, 0, 1, hash), -EBADF);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chunks_have_the_hash_of_their_bytes),
        cmocka_unit_test(test_one_bit_makes_another_hash),
        cmocka_unit_test(test_holes_are_not_read),
        cmocka_unit_test(test_what_is_beyond_the_files_end_is_zero),
        cmocka_unit_test(test_what_is_beyond_the_disk_is_refused),
        cmocka_unit_test(test_an_error_of_the_disk_is_passed_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
