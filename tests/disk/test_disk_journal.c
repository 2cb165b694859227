/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The journal, a behaviour at a time. What random deaths and damage do to it: test_disk_journal_property.c.
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
#include <unistd.h>

#include <cmocka.h>

#include "checkpoint/disk/disk_journal_internal.h"

#define CAPACITY 16384u
/* An entry of a stream of BYTES is 2048 bytes: eight fill the ring. */
#define BYTES 1952u

static const uint8_t this_boot[DISK_MAP_BOOT_LEN] = "this boot";
static const uint8_t other_boot[DISK_MAP_BOOT_LEN] = "another boot";
static char folder[] = "/tmp/disk-journal-XXXXXX";
static char path[64];

/* ---- a device that fails ---- */

static int writes_until_failure = -1;

ssize_t __real_pwritev(int fd, const struct iovec *data, int ndata, off_t offset);
ssize_t __wrap_pwritev(int fd, const struct iovec *data, int ndata, off_t offset);

ssize_t __wrap_pwritev(int fd, const struct iovec *data, int ndata, off_t offset)
{
    if (writes_until_failure >= 0 && writes_until_failure-- == 0) {
        errno = ENOSPC;
        return -1;
    }
    return __real_pwritev(fd, data, ndata, offset);
}

/* ---- what was replayed ---- */

struct replayed {
    unsigned n;
    uint64_t term[64], epoch[64];
    uint64_t len[64];
    bool wrong_bytes;
    int status;
};

static uint8_t byte_of(uint64_t epoch, size_t at)
{
    return (uint8_t)(epoch * 37 + at * 11 + at / 256);
}

static int note(void *opaque, uint64_t term, uint64_t epoch, const struct disk_stream *writes)
{
    struct replayed *replayed = opaque;
    size_t at = 0;
    for (unsigned i = 0; i < 2; i++) {
        const uint8_t *bytes = writes->span[i].iov_base;
        for (size_t j = 0; j < writes->span[i].iov_len; j++)
            replayed->wrong_bytes |= bytes[j] != byte_of(epoch, at++);
    }
    assert_true(replayed->n < 64);
    replayed->term[replayed->n] = term;
    replayed->epoch[replayed->n] = epoch;
    replayed->len[replayed->n++] = at;
    return replayed->status;
}

/* Opens, replays, and says what came. */
static struct disk_journal *open_on(const uint8_t *boot, struct replayed *replayed)
{
    struct disk_journal *journal = NULL;
    struct replayed ignored;
    replayed = replayed ? replayed : &ignored;
    *replayed = (struct replayed){0};
    assert_int_equal(disk_journal_open_on_boot(&journal, path, CAPACITY, boot), 0);
    int64_t status = disk_journal_replay(journal, note, replayed);
    assert_int_equal(status, replayed->n);
    assert_false(replayed->wrong_bytes);
    return journal;
}

static struct disk_journal *open_again(struct disk_journal *journal, struct replayed *replayed)
{
    disk_journal_close(journal);
    return open_on(this_boot, replayed);
}

static int append(struct disk_journal *journal, uint64_t epoch, size_t len, size_t first)
{
    uint8_t *bytes = malloc(len + 1);
    assert_non_null(bytes);
    for (size_t i = 0; i < len; i++)
        bytes[i] = byte_of(epoch, i);
    struct disk_stream stream = {{{bytes, first}, {bytes + first, len - first}}};
    int status = disk_journal_append(journal, 3, epoch, &stream);
    free(bytes);
    return status;
}

static void garble(uint64_t offset)
{
    int fd = open(path, O_RDWR);
    uint8_t byte;
    assert_int_equal(pread(fd, &byte, 1, (off_t)offset), 1);
    byte ^= 0x10;
    assert_int_equal(pwrite(fd, &byte, 1, (off_t)offset), 1);
    close(fd);
}

static int make_folder(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/journal", folder);
    return 0;
}

static int remove_file(void **state)
{
    (void)state;
    writes_until_failure = -1;
    unlink(path);
    return 0;
}

static int remove_folder(void **state)
{
    remove_file(state);
    return rmdir(folder);
}

/* ---- tests ---- */

static void test_a_new_journal_is_allocated_and_has_nothing(void **state)
{
    (void)state;
    struct stat st;
    struct disk_journal *journal = NULL;
    assert_int_equal(disk_journal_open(&journal, path, CAPACITY - 100), 0);
    assert_true(disk_journal_is_new(journal));
    assert_int_equal(disk_journal_replay(journal, note, NULL), 0);
    assert_int_equal(disk_journal_used(journal), 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, DISK_JOURNAL_RING_OFFSET + CAPACITY);
    assert_true(st.st_blocks * 512 >= st.st_size);
    journal = open_again(journal, NULL);
    assert_false(disk_journal_is_new(journal));
    disk_journal_close(journal);
}

static void test_what_was_appended_is_replayed_in_order(void **state)
{
    (void)state;
    struct replayed replayed;
    struct disk_journal *journal = open_on(this_boot, NULL);
    assert_int_equal(append(journal, 10, 0, 0), 0);
    assert_int_equal(append(journal, 11, 1000, 0), 0);
    assert_int_equal(append(journal, 12, 1001, 1001), 0);
    assert_int_equal(append(journal, 14, 3333, 17), 0);
    assert_int_equal(disk_journal_sync(journal), 0);
    uint64_t used = disk_journal_used(journal);
    for (unsigned life = 0; life < 3; life++) {
        journal = open_again(journal, &replayed);
        assert_int_equal(replayed.n, 4);
        assert_int_equal(replayed.epoch[0], 10);
        assert_int_equal(replayed.epoch[3], 14);
        assert_int_equal(replayed.term[2], 3);
        assert_int_equal(replayed.len[0], 0);
        assert_int_equal(replayed.len[2], 1001);
        assert_int_equal(disk_journal_used(journal), used);
    }
    disk_journal_close(journal);
}

static void test_a_later_life_appends_behind_the_earlier_ones(void **state)
{
    (void)state;
    struct replayed replayed;
    struct disk_journal *journal = open_on(this_boot, NULL);
    for (unsigned life = 0; life < 8; life++) {
        assert_int_equal(append(journal, life, BYTES, 5), 0);
        journal = open_again(journal, &replayed);
        assert_int_equal(replayed.n, life + 1);
        assert_int_equal(replayed.epoch[life], life);
    }
    disk_journal_close(journal);
}

static void test_a_full_ring_asks_for_a_trim_and_is_empty_afterwards(void **state)
{
    (void)state;
    struct replayed replayed;
    struct disk_journal *journal = open_on(this_boot, NULL);
    for (unsigned epoch = 1; epoch <= 8; epoch++)
        assert_int_equal(append(journal, epoch, BYTES, 0), 0);
    assert_int_equal(disk_journal_used(journal), CAPACITY);
    assert_int_equal(append(journal, 9, 0, 0), -ENOSPC);
    assert_int_equal(disk_journal_used(journal), CAPACITY);
    journal = open_again(journal, &replayed);
    assert_int_equal(replayed.n, 8);
    assert_int_equal(append(journal, 9, 0, 0), -ENOSPC);
    assert_int_equal(disk_journal_trim(journal), 0);
    assert_int_equal(disk_journal_used(journal), 0);
    assert_int_equal(append(journal, 9, BYTES, 0), 0);
    journal = open_again(journal, &replayed);
    assert_int_equal(replayed.n, 1);
    assert_int_equal(replayed.epoch[0], 9);
    disk_journal_close(journal);
}

static void test_entries_wrap_at_any_place(void **state)
{
    (void)state;
    struct replayed replayed;
    struct disk_journal *journal = open_on(this_boot, NULL);
    srand(7);
    uint64_t oldest = 1;
    for (uint64_t epoch = 1; epoch < 2000; epoch++) {
        size_t len = (size_t)rand() % (epoch % 10 ? 3000 : 16000);
        int status = append(journal, epoch, len, len ? (size_t)rand() % (len + 1) : 0);
        if (status == -ENOSPC) {
            assert_int_equal(disk_journal_trim(journal), 0);
            oldest = epoch--;
            continue;
        }
        assert_int_equal(status, 0);
        if (epoch % 8 == 0) {
            journal = open_again(journal, &replayed);
            assert_int_equal(replayed.n, epoch - oldest + 1);
            assert_int_equal(replayed.epoch[0], oldest);
        }
    }
    disk_journal_close(journal);
}

static void test_an_epoch_larger_than_the_journal_is_refused(void **state)
{
    (void)state;
    struct replayed replayed;
    struct disk_journal *journal = open_on(this_boot, NULL);
    size_t largest = CAPACITY - DISK_JOURNAL_HEADER_LEN - DISK_JOURNAL_END_LEN;
    assert_int_equal(append(journal, 1, largest + 1, 0), -EFBIG);
    assert_int_equal(append(journal, 1, 5 * CAPACITY, 0), -EFBIG);
    assert_int_equal(append(journal, 2, largest, 100), 0);
    journal = open_again(journal, &replayed);
    assert_int_equal(replayed.n, 1);
    assert_int_equal(replayed.len[0], largest);
    disk_journal_close(journal);
}

static void test_calls_out_of_order_are_refused(void **state)
{
    (void)state;
    struct disk_journal *journal = NULL;
    assert_int_equal(disk_journal_open_on_boot(&journal, path, 0, this_boot), -EINVAL);
    assert_int_equal(disk_journal_open_on_boot(&journal, path, CAPACITY, this_boot), 0);
    assert_int_equal(append(journal, 1, 10, 0), -EINVAL);
    assert_int_equal(disk_journal_trim(journal), -EINVAL);
    assert_int_equal(disk_journal_replay(journal, note, NULL), 0);
    assert_int_equal(disk_journal_replay(journal, note, NULL), -EINVAL);
    disk_journal_close(journal);
}

static void test_a_second_opener_is_refused(void **state)
{
    (void)state;
    struct disk_journal *journal = open_on(this_boot, NULL), *second = NULL;
    assert_int_equal(disk_journal_open_on_boot(&second, path, CAPACITY, this_boot), -EBUSY);
    disk_journal_close(journal);
}

static void test_a_replay_that_fails_can_be_done_again(void **state)
{
    (void)state;
    struct replayed replayed = {.status = -EIO};
    struct disk_journal *journal = open_on(this_boot, NULL);
    assert_int_equal(append(journal, 1, 100, 0), 0);
    assert_int_equal(append(journal, 2, 100, 0), 0);
    disk_journal_close(journal);
    assert_int_equal(disk_journal_open_on_boot(&journal, path, CAPACITY, this_boot), 0);
    assert_int_equal(disk_journal_replay(journal, note, &replayed), -EIO);
    assert_int_equal(replayed.n, 1);
    assert_int_equal(append(journal, 3, 100, 0), -EINVAL);
    replayed.status = 0;
    assert_int_equal(disk_journal_replay(journal, note, &replayed), 2);
    disk_journal_close(journal);
}

static void test_a_failed_append_leaves_the_journal_as_it_was(void **state)
{
    (void)state;
    struct replayed replayed;
    struct disk_journal *journal = open_on(this_boot, NULL);
    /* So that the entry wraps: one write before the end, one behind it, one of the mark. */
    assert_int_equal(append(journal, 1, 9000, 0), 0);
    assert_int_equal(disk_journal_trim(journal), 0);
    assert_int_equal(append(journal, 2, 1000, 0), 0);
    uint64_t used = disk_journal_used(journal);
    for (int i = 0; i < 3; i++) {
        writes_until_failure = i;
        assert_int_equal(append(journal, 3, 9000, 0), i < 2 ? -EIO : -ENOSPC);
        assert_int_equal(disk_journal_used(journal), used);
    }
    assert_int_equal(append(journal, 4, 9000, 0), 0);
    journal = open_again(journal, &replayed);
    assert_int_equal(replayed.n, 2);
    assert_int_equal(replayed.epoch[1], 4);
    disk_journal_close(journal);
}

static void test_a_file_that_is_no_journal_is_made_anew(void **state)
{
    (void)state;
    static uint8_t noise[40000];
    for (size_t len = 0; len < sizeof noise; len += 1111) {
        int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
        for (size_t i = 0; i < len; i++)
            noise[i] = (uint8_t)(i * 197 + len);
        assert_int_equal(write(fd, noise, len), len);
        close(fd);
        struct disk_journal *journal = open_on(this_boot, NULL);
        assert_true(disk_journal_is_new(journal));
        assert_int_equal(append(journal, 1, 100, 0), 0);
        disk_journal_close(journal);
    }
}

static void test_a_new_capacity_waits_until_the_journal_is_empty(void **state)
{
    (void)state;
    struct replayed replayed = {0};
    struct stat st;
    struct disk_journal *journal = open_on(this_boot, NULL);
    assert_int_equal(append(journal, 1, BYTES, 0), 0);
    for (unsigned round = 0; round < 2; round++) {
        disk_journal_close(journal);
        assert_int_equal(disk_journal_open_on_boot(&journal, path, 2 * CAPACITY, this_boot), 0);
        assert_false(disk_journal_is_new(journal));
        assert_int_equal(disk_journal_replay(journal, note, &replayed), round ? 0 : 1);
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_size, DISK_JOURNAL_RING_OFFSET + (round + 1) * CAPACITY);
        assert_int_equal(append(journal, 2, CAPACITY, 0), round ? 0 : -EFBIG);
        assert_int_equal(disk_journal_trim(journal), 0);
    }
    disk_journal_close(journal);
}

/* On the same boot, an entry that was whole may have been applied. */
static void test_a_damaged_entry_is_refused_with_nothing_applied(void **state)
{
    (void)state;
    struct replayed replayed = {0};
    struct disk_journal *journal = open_on(this_boot, NULL);
    for (unsigned epoch = 1; epoch <= 3; epoch++)
        assert_int_equal(append(journal, epoch, BYTES, 0), 0);
    disk_journal_close(journal);
    for (unsigned at = 0; at < 3 * 2048; at += 61) {
        garble(DISK_JOURNAL_RING_OFFSET + at);
        assert_int_equal(disk_journal_open_on_boot(&journal, path, CAPACITY, this_boot), 0);
        assert_int_equal(disk_journal_replay(journal, note, &replayed), -EBADMSG);
        assert_int_equal(replayed.n, 0);
        assert_int_equal(append(journal, 4, 10, 0), -EINVAL);
        assert_int_equal(disk_journal_replay(journal, note, &replayed), -EINVAL);
        disk_journal_close(journal);
        garble(DISK_JOURNAL_RING_OFFSET + at); /* as it was */
    }
    garble(DISK_JOURNAL_RING_OFFSET);
    assert_int_equal(disk_journal_open_on_boot(&journal, path, CAPACITY, this_boot), 0);
    assert_int_equal(disk_journal_replay(journal, note, &replayed), -EBADMSG);
    /* The user has seen to the images otherwise. */
    assert_int_equal(disk_journal_trim(journal), 0);
    assert_int_equal(append(journal, 5, BYTES, 0), 0);
    journal = open_again(journal, &replayed);
    assert_int_equal(replayed.n, 1);
    assert_int_equal(replayed.epoch[0], 5);
    disk_journal_close(journal);
}

/* On another boot, the same is the end of what had reached the disk. */
static void test_after_another_boot_a_torn_end_is_the_end(void **state)
{
    (void)state;
    struct replayed replayed;
    struct disk_journal *journal = open_on(this_boot, NULL);
    for (unsigned epoch = 1; epoch <= 3; epoch++)
        assert_int_equal(append(journal, epoch, BYTES, 0), 0);
    disk_journal_close(journal);
    garble(DISK_JOURNAL_RING_OFFSET + 2 * 2048 + 999);
    journal = open_on(other_boot, &replayed);
    assert_int_equal(replayed.n, 2);
    assert_int_equal(append(journal, 13, BYTES, 0), 0);
    disk_journal_close(journal);
    journal = open_on(other_boot, &replayed);
    assert_int_equal(replayed.n, 3);
    assert_int_equal(replayed.epoch[2], 13);
    disk_journal_close(journal);
}

static void test_an_entry_whose_forerunner_was_lost_never_comes_back(void **state)
{
    (void)state;
    struct replayed replayed;
    for (unsigned trimmed = 0; trimmed < 2; trimmed++) {
        struct disk_journal *journal = open_on(this_boot, NULL);
        for (unsigned epoch = 1; epoch <= 3; epoch++)
            assert_int_equal(append(journal, epoch, BYTES, 0), 0);
        disk_journal_close(journal);
        garble(DISK_JOURNAL_RING_OFFSET + 2048 + 99); /* the second never reached the disk, the third did */
        journal = open_on(other_boot, &replayed);
        assert_int_equal(replayed.n, 1);
        assert_int_equal(append(journal, 12, BYTES, 0), 0);
        if (trimmed)
            assert_int_equal(disk_journal_trim(journal), 0);
        disk_journal_close(journal);
        journal = open_on(other_boot, &replayed);
        assert_int_equal(replayed.n, trimmed ? 0 : 2);
        disk_journal_close(journal);
        unlink(path);
    }
}

static void test_a_damaged_superblock_gives_way_to_the_other(void **state)
{
    (void)state;
    struct replayed replayed;
    for (unsigned slot = 0; slot < 2; slot++) {
        struct disk_journal *journal = open_on(this_boot, NULL);
        assert_int_equal(append(journal, 1, BYTES, 0), 0);
        disk_journal_close(journal);
        garble(slot * DISK_JOURNAL_BLOCK_LEN + 33);
        struct disk_journal *again = NULL;
        replayed = (struct replayed){0};
        assert_int_equal(disk_journal_open_on_boot(&again, path, CAPACITY, this_boot), 0);
        assert_false(disk_journal_is_new(again));
        /* The older one knows nothing of the life that wrote the entry: that is told, not overlooked. */
        int64_t status = disk_journal_replay(again, note, &replayed);
        assert_true(status == 1 || status == -EBADMSG);
        disk_journal_close(again);
        unlink(path);
    }
}

#define TEST(f) cmocka_unit_test_teardown(f, remove_file)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_new_journal_is_allocated_and_has_nothing),
        TEST(test_what_was_appended_is_replayed_in_order),
        TEST(test_a_later_life_appends_behind_the_earlier_ones),
        TEST(test_a_full_ring_asks_for_a_trim_and_is_empty_afterwards),
        TEST(test_entries_wrap_at_any_place),
        TEST(test_an_epoch_larger_than_the_journal_is_refused),
        TEST(test_calls_out_of_order_are_refused),
        TEST(test_a_second_opener_is_refused),
        TEST(test_a_replay_that_fails_can_be_done_again),
        TEST(test_a_failed_append_leaves_the_journal_as_it_was),
        TEST(test_a_file_that_is_no_journal_is_made_anew),
        TEST(test_a_new_capacity_waits_until_the_journal_is_empty),
        TEST(test_a_damaged_entry_is_refused_with_nothing_applied),
        TEST(test_after_another_boot_a_torn_end_is_the_end),
        TEST(test_an_entry_whose_forerunner_was_lost_never_comes_back),
        TEST(test_a_damaged_superblock_gives_way_to_the_other),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
