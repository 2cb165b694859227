/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The dirty-block map: what it keeps, when it may be believed, and what it makes of files that lie. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "checkpoint/disk/disk_map_internal.h"
#include "proto/crc32c.h"

#define NCHUNKS 200u

static const uint8_t this_boot[DISK_MAP_BOOT_LEN] = "this boot.......";
static const uint8_t other_boot[DISK_MAP_BOOT_LEN] = "another boot....";
static const uint8_t a_pair[DISK_PAIR_ID_LEN] = "one host, other";
static const struct disk_map_image an_image = {
    .len = NCHUNKS * DISK_CHUNK_LEN - 5, .device = 7, .inode = 99, .mtime_ns = 123456789};

static char folder[] = "/tmp/disk-map-XXXXXX";
static char path[64];

static int make_folder(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/map", folder);
    return 0;
}

static int remove_file(void **state)
{
    (void)state;
    unlink(path);
    return 0;
}

static int remove_folder(void **state)
{
    remove_file(state);
    return rmdir(folder);
}

static struct disk_map *open_map(const struct disk_map_image *image, const uint8_t *boot)
{
    struct disk_map *map = NULL;
    assert_int_equal(disk_map_open_on_boot(&map, path, image, boot), 0);
    return map;
}

static struct disk_map_view view_of(struct disk_map *map)
{
    struct disk_map_view view;
    assert_int_equal(disk_map_attach(&view, disk_map_fd(map)), 0);
    return view;
}

/* A mapping holds the file open, and with it the lock. */
static void leave_view(struct disk_map_view *view)
{
    if (view->words[0])
        assert_int_equal(munmap(view->words[0], 2 * disk_map_bitmap_len(view->nchunks)), 0);
}

/* A map of this pair with chunks 3 and 150 set, one in each bitmap; closed as told. */
static void leave_map(const struct disk_map_image *clean)
{
    struct disk_map *map = open_map(&an_image, this_boot);
    assert_int_equal(disk_map_set_pair(map, a_pair), 0);
    struct disk_map_view view = view_of(map);
    disk_map_mark(&view, 0, 3 * DISK_CHUNK_LEN, 1);
    disk_map_mark(&view, 1, 150 * DISK_CHUNK_LEN + 4096, 1);
    leave_view(&view);
    disk_map_close(map, clean);
}

static void assert_kept(struct disk_map *map)
{
    size_t nwords;
    assert_true(disk_map_trusted(map));
    assert_memory_equal(disk_map_pair_id(map), a_pair, DISK_PAIR_ID_LEN);
    assert_int_equal(atomic_load(&disk_map_words(map, 0, &nwords)[0]), 1u << 3);
    assert_int_equal(atomic_load(&disk_map_words(map, 1, &nwords)[2]), 1u << (150 - 128));
    assert_int_equal(disk_map_count(map, 0), 1);
    assert_int_equal(disk_map_count(map, 1), 1);
    disk_map_close(map, NULL);
}

static void assert_empty_and_untrusted(struct disk_map *map)
{
    static const uint8_t none[DISK_PAIR_ID_LEN];
    assert_false(disk_map_trusted(map));
    assert_memory_equal(disk_map_pair_id(map), none, DISK_PAIR_ID_LEN);
    assert_int_equal(disk_map_count(map, 0), 0);
    assert_int_equal(disk_map_count(map, 1), 0);
    disk_map_close(map, NULL);
}

/* ---- when it may be believed ---- */

static void test_a_new_map_is_empty_and_not_trusted(void **state)
{
    (void)state;
    struct disk_map *map = open_map(&an_image, this_boot);
    assert_int_equal(disk_map_nchunks(map), NCHUNKS);
    assert_empty_and_untrusted(map);
    /* Nor is it the second time: nobody has said which pair it is of. */
    assert_empty_and_untrusted(open_map(&an_image, this_boot));
}

static void test_the_real_boot_id_is_read(void **state)
{
    (void)state;
    uint8_t first[DISK_MAP_BOOT_LEN], second[DISK_MAP_BOOT_LEN], none[DISK_MAP_BOOT_LEN] = {0};
    struct disk_map *map = NULL;
    assert_int_equal(disk_map_read_boot_id(first), 0);
    assert_int_equal(disk_map_read_boot_id(second), 0);
    assert_memory_equal(first, second, sizeof first);
    assert_memory_not_equal(first, none, sizeof first);
    assert_int_equal(disk_map_open(&map, path, &an_image), 0);
    assert_int_equal(disk_map_set_pair(map, a_pair), 0);
    disk_map_close(map, NULL);
    map = open_map(&an_image, first);
    assert_true(disk_map_trusted(map));
    disk_map_close(map, NULL);
}

static void test_a_map_left_in_use_is_good_on_the_same_boot(void **state)
{
    (void)state;
    struct disk_map_image written_since = an_image;
    leave_map(NULL);
    written_since.mtime_ns++;
    assert_kept(open_map(&written_since, this_boot));
}

static void test_a_map_left_in_use_is_not_trusted_on_another_boot(void **state)
{
    (void)state;
    leave_map(NULL);
    assert_empty_and_untrusted(open_map(&an_image, other_boot));
    assert_empty_and_untrusted(open_map(&an_image, this_boot));
}

static void test_a_map_closed_cleanly_is_good_on_another_boot(void **state)
{
    (void)state;
    leave_map(&an_image);
    assert_kept(open_map(&an_image, other_boot));
    /* Opening it has made it one in use, of that boot. */
    assert_kept(open_map(&an_image, other_boot));
    assert_empty_and_untrusted(open_map(&an_image, this_boot));
}

static void test_an_image_changed_after_a_clean_close_is_noticed(void **state)
{
    (void)state;
    struct disk_map_image changed = an_image;
    leave_map(&an_image);
    changed.mtime_ns++;
    assert_empty_and_untrusted(open_map(&changed, this_boot));
}

static void test_a_map_of_another_image_is_not_trusted(void **state)
{
    (void)state;
    struct disk_map_image others[5] = {an_image, an_image, an_image, an_image, an_image};
    others[0].inode++;
    others[1].device++;
    others[2].len--; /* as many chunks */
    others[3].len *= 2;
    others[4].birth++; /* the inode was used again */
    for (unsigned i = 0; i < 5; i++) {
        for (unsigned clean = 0; clean < 2; clean++) {
            leave_map(clean ? &an_image : NULL);
            assert_empty_and_untrusted(open_map(&others[i], this_boot));
            unlink(path);
        }
    }
}

static void test_a_new_pair_id_is_kept(void **state)
{
    (void)state;
    static const uint8_t another[DISK_PAIR_ID_LEN] = "other hosts";
    leave_map(NULL);
    struct disk_map *map = open_map(&an_image, this_boot);
    assert_int_equal(disk_map_set_pair(map, another), 0);
    disk_map_close(map, NULL);
    map = open_map(&an_image, this_boot);
    assert_memory_equal(disk_map_pair_id(map), another, DISK_PAIR_ID_LEN);
    assert_int_equal(disk_map_count(map, 0), 1);
    disk_map_close(map, NULL);
}

static void test_a_map_in_use_is_refused_to_a_second_opener(void **state)
{
    (void)state;
    struct disk_map *first = open_map(&an_image, this_boot), *second = NULL;
    assert_int_equal(disk_map_open_on_boot(&second, path, &an_image, this_boot), -EBUSY);
    disk_map_close(first, NULL);
    disk_map_close(open_map(&an_image, this_boot), NULL);
}

/* ---- files that lie ---- */

static void overwrite(uint64_t offset, const void *bytes, size_t len)
{
    int fd = open(path, O_WRONLY);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, bytes, len, (off_t)offset), len);
    close(fd);
}

static void test_every_flipped_byte_of_the_header_is_noticed(void **state)
{
    (void)state;
    for (unsigned at = 0; at < sizeof(struct disk_map_header); at++) {
        uint8_t header[sizeof(struct disk_map_header)];
        leave_map(at % 2 ? &an_image : NULL);
        int fd = open(path, O_RDONLY);
        assert_int_equal(read(fd, header, sizeof header), sizeof header);
        close(fd);
        header[at] ^= (uint8_t)(1u << (at % 8));
        overwrite(0, header, sizeof header);
        assert_empty_and_untrusted(open_map(&an_image, this_boot));
        unlink(path);
    }
}

static void test_a_file_of_another_length_is_not_trusted(void **state)
{
    (void)state;
    static const off_t lens[] = {0, 1, 8, 103, 104, 4095, 4096, 4097, 8192, 12287, 12289, 1 << 20};
    for (unsigned i = 0; i < sizeof lens / sizeof lens[0]; i++) {
        leave_map(NULL);
        assert_int_equal(truncate(path, lens[i]), 0);
        assert_empty_and_untrusted(open_map(&an_image, this_boot));
        assert_empty_and_untrusted(open_map(&an_image, this_boot));
        unlink(path);
    }
}

static void sign(struct disk_map_header *header)
{
    header->fixed_crc32c =
        crc32c(0, &header->nchunks,
               offsetof(struct disk_map_header, state) - offsetof(struct disk_map_header, nchunks));
    header->crc32c = crc32c(0, header, offsetof(struct disk_map_header, crc32c));
}

static void test_hostile_lengths_with_right_checksums_are_refused(void **state)
{
    (void)state;
    static const uint64_t nchunks[] = {0, 1, NCHUNKS + 1, 1ull << 31, 1ull << 60, UINT64_MAX};
    for (unsigned i = 0; i < sizeof nchunks / sizeof nchunks[0]; i++) {
        for (unsigned both = 0; both < 2; both++) {
            struct disk_map_header header;
            struct disk_map_view view;
            leave_map(NULL);
            int fd = open(path, O_RDWR);
            assert_int_equal(read(fd, &header, sizeof header), sizeof header);
            header.nchunks = nchunks[i];
            if (both)
                header.image_len = nchunks[i] * DISK_CHUNK_LEN;
            sign(&header);
            assert_int_equal(pwrite(fd, &header, sizeof header, 0), sizeof header);
            /* One chunk more, or one only, fits the same file: what is mapped is never more than there is. */
            int status = disk_map_attach(&view, fd);
            assert_true(status == -EPROTO || (status == 0 && view.nchunks <= 8 * 4096));
            if (status == 0)
                leave_view(&view);
            close(fd);
            assert_empty_and_untrusted(open_map(&an_image, this_boot));
            unlink(path);
        }
    }
}

static void test_what_is_no_map_file_is_not_attached(void **state)
{
    (void)state;
    struct disk_map_view view;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(disk_map_attach(&view, ends[0]), -EINVAL);
    close(ends[0]);
    close(ends[1]);
    int fd = open(path, O_RDWR | O_CREAT, 0600);
    assert_int_equal(disk_map_attach(&view, fd), -EPROTO);
    assert_int_equal(ftruncate(fd, 12288), 0);
    assert_int_equal(disk_map_attach(&view, fd), -EPROTO);
    close(fd);
    assert_int_equal(disk_map_attach(&view, fd), -EBADF);
}

static void test_an_image_too_long_for_any_map_is_refused(void **state)
{
    (void)state;
    struct disk_map_image huge = {.len = DISK_MAP_MAX_LEN + 1};
    struct disk_map *map = NULL;
    assert_int_equal(disk_map_open_on_boot(&map, path, &huge, this_boot), -EFBIG);
}

/* ---- bits ---- */

static bool bit(struct disk_map *map, unsigned which, uint64_t chunk)
{
    size_t nwords;
    return atomic_load(&disk_map_words(map, which, &nwords)[chunk / 64]) >> (chunk % 64) & 1;
}

static void test_a_range_marks_the_chunks_it_touches_and_no_other(void **state)
{
    (void)state;
    struct disk_map *map = open_map(&an_image, this_boot);
    struct disk_map_view view = view_of(map);
    srand(5);
    for (unsigned round = 0; round < 3000; round++) {
        uint64_t offset = (uint64_t)rand() % an_image.len, len = (uint64_t)rand() % (an_image.len - offset);
        if (round % 3 == 0)
            len %= 3 * DISK_CHUNK_LEN;
        if (round % 7 == 0)
            offset -= offset % DISK_CHUNK_LEN;
        unsigned which = round % 2;
        disk_map_clear_all(map, which);
        disk_map_mark(&view, which, offset, len);
        uint64_t expected = 0;
        for (uint64_t chunk = 0; chunk < NCHUNKS; chunk++) {
            uint64_t begin = chunk * DISK_CHUNK_LEN, end = begin + DISK_CHUNK_LEN;
            bool touched = len > 0 && offset < end && offset + len > begin;
            expected += touched;
            assert_int_equal(bit(map, which, chunk), touched);
        }
        assert_int_equal(disk_map_count(map, which), expected);
    }
    leave_view(&view);
    disk_map_close(map, NULL);
}

static void test_bits_beyond_the_disk_stay_zero(void **state)
{
    (void)state;
    struct disk_map *map = open_map(&an_image, this_boot);
    struct disk_map_view view = view_of(map);
    disk_map_mark(&view, 0, an_image.len - 1, UINT64_MAX);
    assert_int_equal(disk_map_count(map, 0), 1);
    disk_map_mark(&view, 0, an_image.len - 1, 10 * DISK_CHUNK_LEN);
    disk_map_mark(&view, 0, NCHUNKS * DISK_CHUNK_LEN, 1);
    disk_map_mark(&view, 0, UINT64_MAX, UINT64_MAX);
    assert_int_equal(disk_map_count(map, 0), 1);
    disk_map_set_all(map, 1);
    assert_int_equal(disk_map_count(map, 1), NCHUNKS);
    leave_view(&view);
    disk_map_close(map, NULL);
}

static void test_merging_moves_every_bit_and_empties_the_other(void **state)
{
    (void)state;
    struct disk_map *map = open_map(&an_image, this_boot);
    struct disk_map_view view = view_of(map);
    disk_map_mark(&view, 0, 0, 70 * DISK_CHUNK_LEN);
    disk_map_mark(&view, 1, 60 * DISK_CHUNK_LEN, 80 * DISK_CHUNK_LEN);
    disk_map_merge(map, 0);
    assert_int_equal(disk_map_count(map, 0), 140);
    assert_int_equal(disk_map_count(map, 1), 0);
    disk_map_merge(map, 1);
    assert_int_equal(disk_map_count(map, 0), 0);
    assert_int_equal(disk_map_count(map, 1), 140);
    leave_view(&view);
    disk_map_close(map, NULL);
}

struct marker {
    struct disk_map_view view;
    unsigned first;
};

static void *mark_every_third(void *opaque)
{
    const struct marker *marker = opaque;
    for (unsigned chunk = marker->first; chunk < NCHUNKS; chunk += 3)
        disk_map_mark(&marker->view, 0, (uint64_t)chunk * DISK_CHUNK_LEN, 512);
    return NULL;
}

static void test_threads_that_mark_neighbours_lose_no_bit(void **state)
{
    (void)state;
    struct disk_map *map = open_map(&an_image, this_boot);
    struct disk_map_view view = view_of(map);
    for (unsigned round = 0; round < 200; round++) {
        pthread_t threads[3];
        struct marker markers[3];
        for (unsigned i = 0; i < 3; i++) {
            markers[i] = (struct marker){view, i};
            assert_int_equal(pthread_create(&threads[i], NULL, mark_every_third, &markers[i]), 0);
        }
        for (unsigned i = 0; i < 3; i++)
            pthread_join(threads[i], NULL);
        assert_int_equal(disk_map_count(map, 0), NCHUNKS);
        disk_map_clear_all(map, 0);
    }
    leave_view(&view);
    disk_map_close(map, NULL);
}

static void test_a_bit_set_by_a_process_that_is_killed_stays_set(void **state)
{
    (void)state;
    struct disk_map *map = open_map(&an_image, this_boot);
    assert_int_equal(disk_map_set_pair(map, a_pair), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct disk_map_view view;
        if (disk_map_attach(&view, disk_map_fd(map)) < 0)
            _exit(1);
        disk_map_mark(&view, 0, 3 * DISK_CHUNK_LEN, 1);
        disk_map_mark(&view, 1, 150 * DISK_CHUNK_LEN, 1);
        raise(SIGKILL);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    disk_map_close(map, NULL);
    assert_kept(open_map(&an_image, this_boot));
}

static void test_sixteen_tebibytes_are_mapped(void **state)
{
    (void)state;
    struct disk_map_image large = {.len = 16ull << 40, .inode = 1};
    struct disk_map *map = open_map(&large, this_boot);
    struct disk_map_view view = view_of(map);
    assert_int_equal(disk_map_nchunks(map), 1ull << 28);
    disk_map_mark(&view, 0, large.len - 1, 1);
    disk_map_mark(&view, 1, large.len / 2, 65 * (uint64_t)DISK_CHUNK_LEN);
    disk_map_merge(map, 0);
    assert_int_equal(disk_map_count(map, 0), 66);
    assert_true(bit(map, 0, (1ull << 28) - 1));
    leave_view(&view);
    disk_map_close(map, NULL);
}

static void test_an_image_of_no_bytes_has_a_map(void **state)
{
    (void)state;
    struct disk_map_image none = {.inode = 1};
    struct disk_map *map = open_map(&none, this_boot);
    struct disk_map_view view = view_of(map);
    disk_map_mark(&view, 0, 0, 1);
    disk_map_set_all(map, 0);
    assert_int_equal(disk_map_count(map, 0), 0);
    leave_view(&view);
    disk_map_close(map, NULL);
}

#define TEST(f) cmocka_unit_test_teardown(f, remove_file)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_new_map_is_empty_and_not_trusted),
        TEST(test_the_real_boot_id_is_read),
        TEST(test_a_map_left_in_use_is_good_on_the_same_boot),
        TEST(test_a_map_left_in_use_is_not_trusted_on_another_boot),
        TEST(test_a_map_closed_cleanly_is_good_on_another_boot),
        TEST(test_an_image_changed_after_a_clean_close_is_noticed),
        TEST(test_a_map_of_another_image_is_not_trusted),
        TEST(test_a_new_pair_id_is_kept),
        TEST(test_a_map_in_use_is_refused_to_a_second_opener),
        TEST(test_every_flipped_byte_of_the_header_is_noticed),
        TEST(test_a_file_of_another_length_is_not_trusted),
        TEST(test_hostile_lengths_with_right_checksums_are_refused),
        TEST(test_what_is_no_map_file_is_not_attached),
        TEST(test_an_image_too_long_for_any_map_is_refused),
        TEST(test_a_range_marks_the_chunks_it_touches_and_no_other),
        TEST(test_bits_beyond_the_disk_stay_zero),
        TEST(test_merging_moves_every_bit_and_empties_the_other),
        TEST(test_threads_that_mark_neighbours_lose_no_bit),
        TEST(test_a_bit_set_by_a_process_that_is_killed_stays_set),
        TEST(test_sixteen_tebibytes_are_mapped),
        TEST(test_an_image_of_no_bytes_has_a_map),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
