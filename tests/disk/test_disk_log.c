/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The producer's side of a disk's log, against a consumer in the same process. The test stands between the
 * producer and the kernel's writes to the image, to make them fail.
 */
#include <errno.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "checkpoint/disk/disk_record.h"
#include "common/futex.h"
#include "disk_fixture.h"
#include "replicator/disk/plugin/disk_log_internal.h"

#define EXPORT_LEN (1u << 20)
#define RING_LEN   65536u
#define HOUR_MS    3600000u
#define LOGGING    (DISK_WRITABLE | DISK_LOGGING)

static struct disk_fixture fixture;
static struct disk_shm *shm;

/* ---- the kernel, as far as it is to fail ---- */

static atomic_uint fail_with, dsync_writes;
static atomic_size_t fail_after; /* bytes that are written before it fails */

ssize_t __real_pwritev(int fd, const struct iovec *iov, int n, off_t offset);
ssize_t __wrap_pwritev(int fd, const struct iovec *iov, int n, off_t offset);
ssize_t __real_pwritev2(int fd, const struct iovec *iov, int n, off_t offset, int flags);
ssize_t __wrap_pwritev2(int fd, const struct iovec *iov, int n, off_t offset, int flags);
ssize_t __real_pread(int fd, void *buffer, size_t len, off_t offset);
ssize_t __wrap_pread(int fd, void *buffer, size_t len, off_t offset);
static atomic_bool reads_fail;

ssize_t __wrap_pwritev(int fd, const struct iovec *iov, int n, off_t offset)
{
    if (!atomic_load(&fail_with))
        return __real_pwritev(fd, iov, n, offset);
    size_t left = atomic_load(&fail_after);
    if (left > 0) {
        struct iovec part = {iov[0].iov_base, left};
        atomic_store(&fail_after, 0);
        return __real_pwritev(fd, &part, 1, offset);
    }
    errno = (int)atomic_load(&fail_with);
    return -1;
}

ssize_t __wrap_pwritev2(int fd, const struct iovec *iov, int n, off_t offset, int flags)
{
    if (flags & RWF_DSYNC)
        atomic_fetch_add(&dsync_writes, 1);
    return __real_pwritev2(fd, iov, n, offset, flags);
}

ssize_t __wrap_pread(int fd, void *buffer, size_t len, off_t offset)
{
    if (atomic_load(&reads_fail)) {
        errno = EIO;
        return -1;
    }
    return __real_pread(fd, buffer, len, offset);
}

/* ---- helpers ---- */

static int open_fixture(void **state)
{
    (void)state;
    disk_fixture_open(&fixture, NULL, EXPORT_LEN, RING_LEN);
    shm = fixture.shm;
    return 0;
}

static int close_fixture(void **state)
{
    (void)state;
    atomic_store(&fail_with, 0);
    atomic_store(&reads_fail, false);
    disk_fixture_close(&fixture);
    return 0;
}

/* A producer that obeys flags; the first of its orders is taken up at its start. */
static void start(uint32_t flags)
{
    disk_fixture_order(&fixture, flags, 0);
    disk_fixture_start(&fixture);
    disk_log_set_room_wait(fixture.log, HOUR_MS);
}

static uint8_t bytes[DISK_RECORD_MAX_DATA * 2];

static int write_at(uint64_t offset, uint32_t len, uint8_t fill)
{
    memset(bytes, fill, len);
    return disk_log_write(fixture.log, bytes, len, offset);
}

static void assert_image_is_model(void)
{
    assert_true(disk_fixture_consume(&fixture, atomic_load(&shm->head)));
    assert_int_equal(disk_fixture_difference(&fixture), -1);
}

struct writer {
    pthread_t thread;
    uint64_t offset;
    uint32_t len;
    int status;
};

static void *write_once(void *opaque)
{
    struct writer *writer = opaque;
    uint8_t *data = malloc(writer->len);
    memset(data, 0x77, writer->len);
    writer->status = disk_log_write(fixture.log, data, writer->len, writer->offset);
    free(data);
    return NULL;
}

/* Starts a write that has to wait; returns when it does. */
static void start_writer_that_waits(struct writer *writer)
{
    *writer = (struct writer){.offset = 8192, .len = 4096};
    assert_int_equal(pthread_create(&writer->thread, NULL, write_once, writer), 0);
    while (atomic_load(&shm->waits) == 0)
        sched_yield();
}

/* The same, after filling the ring. */
static void start_waiting_writer(struct writer *writer)
{
    while (RING_LEN - (atomic_load(&shm->head) - atomic_load(&shm->tail)) >= 4096 + DISK_RECORD_HEADER_LEN)
        assert_int_equal(write_at(0, 4096, 1), 0);
    start_writer_that_waits(writer);
}

/* ---- what a change does ---- */

static void test_write_is_marked_logged_and_in_the_image(void **state)
{
    (void)state;
    start(LOGGING);
    assert_int_equal(write_at(65536 * 3 - 10, 20, 0xab), 0);
    assert_int_equal(atomic_load(&shm->head), 32 + 32);
    for (unsigned chunk = 0; chunk < 16; chunk++)
        assert_int_equal(disk_fixture_is_marked(&fixture, 0, chunk * 65536ull), chunk == 2 || chunk == 3);
    assert_image_is_model();
    assert_int_equal(fixture.model[65536 * 3 + 9], 0xab);
    uint8_t got[20];
    assert_int_equal(disk_log_read(fixture.log, got, sizeof got, 65536 * 3 - 10), 0);
    assert_memory_equal(got, bytes, sizeof got);
    assert_int_equal(atomic_load(&shm->writes), 1);
    assert_int_equal(atomic_load(&shm->write_bytes), 20);
    assert_int_equal(atomic_load(&shm->reads), 1);
}

static void test_zero_and_trim_are_logged_without_data(void **state)
{
    (void)state;
    start(LOGGING);
    assert_int_equal(write_at(0, 32768, 5), 0);
    assert_image_is_model();
    uint64_t before = atomic_load(&shm->head);
    assert_int_equal(disk_log_zero(fixture.log, 5000, 100, false), 0);
    assert_int_equal(disk_log_zero(fixture.log, 8192, 16384, true), 0);
    assert_int_equal(atomic_load(&shm->head), before + 64);
    struct disk_stream stream;
    struct disk_record record;
    disk_stream_of_ring(&stream, (uint8_t *)shm + DISK_SHM_RING_OFFSET, RING_LEN, before, 64);
    assert_int_equal(disk_stream_next(&stream, &record), 1);
    assert_true(record.type == DISK_RECORD_ZERO && record.offset == 100 && record.len == 5000);
    assert_int_equal(disk_stream_next(&stream, &record), 1);
    assert_true(record.type == DISK_RECORD_TRIM && record.offset == 16384 && record.len == 8192);
    assert_image_is_model();
}

static void test_nothing_is_logged_without_the_flag(void **state)
{
    (void)state;
    start(DISK_WRITABLE);
    assert_int_equal(write_at(0, 4096, 1), 0);
    assert_int_equal(atomic_load(&shm->head), 0);
    assert_true(disk_fixture_is_marked(&fixture, 0, 0));
    assert_int_equal(atomic_load(&shm->detached), 0);
}

static void test_a_disk_that_is_not_writable_refuses_changes_and_answers_reads(void **state)
{
    (void)state;
    start(0);
    uint8_t got[512];
    assert_int_equal(write_at(0, 4096, 1), -EPERM);
    assert_int_equal(disk_log_zero(fixture.log, 4096, 0, true), -EPERM);
    assert_int_equal(disk_log_read(fixture.log, got, sizeof got, 0), 0);
    assert_false(disk_fixture_is_marked(&fixture, 0, 0));
    assert_int_equal(disk_fixture_difference(&fixture), -1);
}

static void test_what_is_out_of_range_is_refused(void **state)
{
    (void)state;
    start(LOGGING);
    bool is_hole;
    uint64_t len;
    assert_int_equal(write_at(EXPORT_LEN - 10, 11, 1), -EPERM);
    assert_int_equal(write_at(UINT64_MAX - 3, 10, 1), -EPERM);
    assert_int_equal(disk_log_zero(fixture.log, UINT64_MAX, 1, false), -EPERM);
    assert_int_equal(disk_log_read(fixture.log, bytes, 11, EXPORT_LEN - 10), -EPERM);
    assert_int_equal(disk_log_extent(fixture.log, 11, EXPORT_LEN - 10, &is_hole, &len), -EPERM);
    assert_int_equal(write_at(EXPORT_LEN, 0, 1), 0);
    assert_int_equal(atomic_load(&shm->head), 0);
}

static void test_a_long_write_is_several_records(void **state)
{
    (void)state;
    disk_fixture_close(&fixture);
    disk_fixture_open(&fixture, NULL, 4 * DISK_RECORD_MAX_DATA, 4 * DISK_RECORD_MAX_DATA);
    shm = fixture.shm;
    start(LOGGING);
    for (uint32_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i >> 8 ^ i);
    assert_int_equal(disk_log_write(fixture.log, bytes, DISK_RECORD_MAX_DATA + 5000, 777), 0);
    assert_image_is_model();
    assert_int_equal(fixture.nrecords, 2);
}

static void test_extents_are_those_of_the_image(void **state)
{
    (void)state;
    start(LOGGING);
    bool is_hole;
    uint64_t len;
    assert_int_equal(disk_log_extent(fixture.log, EXPORT_LEN, 0, &is_hole, &len), 0);
    assert_true(is_hole && len == EXPORT_LEN);
    assert_int_equal(write_at(65536, 65536, 1), 0);
    assert_int_equal(disk_log_extent(fixture.log, EXPORT_LEN, 0, &is_hole, &len), 0);
    assert_true(is_hole && len == 65536);
    assert_int_equal(disk_log_extent(fixture.log, 100, 70000, &is_hole, &len), 0);
    assert_true(!is_hole && len == 100);
    assert_int_equal(disk_log_extent(fixture.log, EXPORT_LEN - 70000, 70000, &is_hole, &len), 0);
    assert_true(!is_hole && len == 131072 - 70000);
    /* A file that is shorter than the disk: a growing format. */
    assert_int_equal(ftruncate(fixture.fds.image, 131072), 0);
    assert_int_equal(disk_log_extent(fixture.log, EXPORT_LEN - 131072, 131072, &is_hole, &len), 0);
    assert_true(is_hole && len == EXPORT_LEN - 131072);
}

static void test_durable_writes_are_on_the_disk_before_they_complete(void **state)
{
    (void)state;
    atomic_store(&dsync_writes, 0);
    start(DISK_WRITABLE);
    assert_int_equal(write_at(0, 4096, 1), 0);
    assert_int_equal(atomic_load(&dsync_writes), 0);
    disk_fixture_order(&fixture, DISK_WRITABLE | DISK_DURABLE, 0);
    disk_fixture_await(&fixture);
    assert_int_equal(write_at(0, 4096, 1), 0);
    assert_int_equal(atomic_load(&dsync_writes), 1);
}

/* ---- a full ring ---- */

static void test_a_full_ring_makes_a_writer_wait_until_tail_moves(void **state)
{
    (void)state;
    struct writer writer;
    start(LOGGING);
    start_waiting_writer(&writer);
    disk_fixture_await_attention(&fixture, DISK_ATTENTION_MARK);
    uint64_t head = atomic_load(&shm->head);
    assert_true(disk_fixture_consume(&fixture, head));
    pthread_join(writer.thread, NULL);
    assert_int_equal(writer.status, 0);
    assert_int_equal(atomic_load(&shm->detached), 0);
    assert_int_equal(atomic_load(&shm->head), head + 4096 + 32);
    assert_image_is_model();
    assert_int_equal(atomic_load(&shm->waits), 1);
}

static void test_the_wait_has_an_end_and_logging_is_given_up(void **state)
{
    (void)state;
    struct writer writer;
    start(LOGGING);
    disk_log_set_room_wait(fixture.log, 20);
    start_waiting_writer(&writer);
    pthread_join(writer.thread, NULL);
    assert_int_equal(writer.status, 0);
    assert_int_equal(atomic_load(&shm->detached), 1);
    disk_fixture_await_attention(&fixture, DISK_ATTENTION_DETACHED);
    assert_true(atomic_load(&shm->wait_us) >= 20000);
    /* Its change is in image and map all the same, and the next one does not wait. */
    disk_log_set_room_wait(fixture.log, HOUR_MS);
    assert_int_equal(write_at(65536, 4096, 9), 0);
    assert_true(disk_fixture_is_marked(&fixture, 0, 65536));
    assert_true(disk_fixture_consume(&fixture, atomic_load(&shm->head)));
    assert_int_equal(disk_fixture_difference(&fixture), 8192);
    /* Nor is anything logged now that there is room: the log would have a gap. */
    uint64_t head = atomic_load(&shm->head);
    assert_int_equal(write_at(65536, 4096, 9), 0);
    assert_int_equal(atomic_load(&shm->head), head);
}

static void test_a_record_that_never_fits_detaches_at_once(void **state)
{
    (void)state;
    start(LOGGING); /* would wait an hour */
    assert_int_equal(write_at(0, RING_LEN, 1), 0);
    assert_int_equal(atomic_load(&shm->detached), 1);
    assert_int_equal(atomic_load(&shm->head), 0);
}

static void test_a_tail_that_is_nonsense_leaves_no_room(void **state)
{
    (void)state;
    start(LOGGING);
    disk_log_set_room_wait(fixture.log, 5);
    atomic_store(&shm->tail, 1ull << 40);
    assert_int_equal(write_at(0, 4096, 1), 0);
    assert_int_equal(atomic_load(&shm->detached), 1);
}

static void test_an_order_to_stop_logging_frees_a_waiting_writer(void **state)
{
    (void)state;
    struct writer writer;
    start(LOGGING);
    start_waiting_writer(&writer);
    disk_fixture_order(&fixture, DISK_WRITABLE | DISK_DURABLE, 0);
    pthread_join(writer.thread, NULL);
    disk_fixture_await(&fixture);
    assert_int_equal(writer.status, 0);
    /* An epoch that were cut between must not be sent. But it is no news to the replicator. */
    assert_int_equal(atomic_load(&shm->detached), 1);
    assert_false(atomic_load(&shm->attention) & DISK_ATTENTION_DETACHED);
    assert_int_equal(atomic_load(&shm->flags), DISK_WRITABLE | DISK_DURABLE);
}

/* ---- a limit below that ---- */

#define LIMIT (2u * 4096)

static void fill_to_the_limit(void)
{
    start(LOGGING);
    atomic_store(&shm->limit, LIMIT);
    while (atomic_load(&shm->head) - atomic_load(&shm->tail) < LIMIT)
        assert_int_equal(write_at(0, 4096, 1), 0);
    assert_int_equal(atomic_load(&shm->waits), 0);
}

static void assert_written_and_logged(struct writer *writer)
{
    pthread_join(writer->thread, NULL);
    assert_int_equal(writer->status, 0);
    assert_int_equal(atomic_load(&shm->detached), 0);
    assert_image_is_model();
}

static void test_writers_wait_at_the_limit_until_tail_moves(void **state)
{
    (void)state;
    struct writer writer;
    fill_to_the_limit();
    uint64_t head = atomic_load(&shm->head);
    start_writer_that_waits(&writer);
    disk_fixture_await_attention(&fixture, DISK_ATTENTION_MARK);
    assert_int_equal(atomic_load(&shm->head), head);
    assert_true(disk_fixture_consume(&fixture, head));
    assert_written_and_logged(&writer);
}

static void test_a_limit_that_is_lifted_lets_writers_into_the_rest_of_the_ring(void **state)
{
    (void)state;
    struct writer writer;
    fill_to_the_limit();
    start_writer_that_waits(&writer);
    atomic_store(&shm->limit, 0);
    disk_futex_raise(&shm->room_seq);
    assert_written_and_logged(&writer);
}

static void test_an_order_does_not_wait_for_writers_at_the_limit(void **state)
{
    (void)state;
    struct writer writer;
    fill_to_the_limit();
    start_writer_that_waits(&writer);
    disk_fixture_order(&fixture, LOGGING, 1);
    disk_fixture_await(&fixture);
    assert_int_equal(atomic_load(&shm->active_map), 1);
    assert_written_and_logged(&writer);
}

static void test_a_limit_that_nobody_lifts_is_no_reason_to_give_logging_up(void **state)
{
    (void)state;
    struct writer writer;
    fill_to_the_limit();
    disk_log_set_room_wait(fixture.log, 20);
    start_writer_that_waits(&writer);
    assert_written_and_logged(&writer);
    assert_true(atomic_load(&shm->wait_us) >= 20000);
}

static void test_the_mark_is_signalled_once_for_each_place_of_tail(void **state)
{
    (void)state;
    start(LOGGING);
    disk_fixture_await_attention(&fixture, DISK_ATTENTION_DONE);
    for (unsigned round = 0; round < 3; round++) {
        while (atomic_load(&shm->head) + 4096 + 32 - atomic_load(&shm->tail) <= shm->mark)
            assert_int_equal(write_at(0, 4096, 1), 0);
        assert_int_equal(atomic_load(&shm->attention), 0);
        assert_int_equal(write_at(0, 4096, 1), 0);
        assert_int_equal(atomic_exchange(&shm->attention, 0), DISK_ATTENTION_MARK);
        assert_int_equal(write_at(0, 4096, 1), 0);
        assert_int_equal(atomic_load(&shm->attention), 0);
        assert_image_is_model();
    }
}

/* ---- orders ---- */

static void await_order_behind_a_write(void)
{
    for (unsigned waiting = 0; waiting == 0; sched_yield()) {
        pthread_mutex_lock(&fixture.log->ranges.mutex);
        waiting = fixture.log->ranges.waiting;
        pthread_mutex_unlock(&fixture.log->ranges.mutex);
    }
}

static void test_modes_change_only_with_no_write_under_way(void **state)
{
    (void)state;
    struct writer writer;
    start(LOGGING);
    start_waiting_writer(&writer);
    disk_fixture_order(&fixture, LOGGING, 1);
    await_order_behind_a_write();
    assert_int_equal(atomic_load(&shm->done_seq), 1);
    assert_int_equal(atomic_load(&shm->active_map), 0);
    assert_true(disk_fixture_consume(&fixture, atomic_load(&shm->head)));
    pthread_join(writer.thread, NULL);
    disk_fixture_await(&fixture);
    assert_int_equal(atomic_load(&shm->active_map), 1);
    assert_int_equal(write_at(EXPORT_LEN - 1, 1, 3), 0);
    assert_false(disk_fixture_is_marked(&fixture, 0, EXPORT_LEN - 1));
    assert_true(disk_fixture_is_marked(&fixture, 1, EXPORT_LEN - 1));
    assert_image_is_model();
}

/* A shared disk whose log is full, and to which nothing is released. */
static void fill_held_log(void)
{
    shm->shared = 1;
    start(LOGGING | DISK_HELD);
    while (RING_LEN - (atomic_load(&shm->head) - atomic_load(&shm->flushed)) >= 4096 + DISK_RECORD_HEADER_LEN)
        assert_int_equal(write_at(0, 4096, 1), 0);
}

static void release_all(void)
{
    atomic_store(&shm->tail, atomic_load(&shm->head));
    atomic_store(&shm->release, atomic_load(&shm->head));
    disk_futex_raise(&shm->release_seq);
}

/* Two, as of a guest with a deep queue: neither may keep the order waiting. */
static void test_an_order_passes_held_writes_that_wait_for_room(void **state)
{
    (void)state;
    struct writer first, second;
    fill_held_log();
    start_writer_that_waits(&first);
    second = (struct writer){.offset = 65536, .len = 4096};
    assert_int_equal(pthread_create(&second.thread, NULL, write_once, &second), 0);
    disk_fixture_order(&fixture, LOGGING | DISK_HELD, 1);
    disk_fixture_await(&fixture);
    assert_int_equal(atomic_load(&shm->active_map), 1);
    /* And both go on to wait, and are logged once there is room. */
    uint64_t head = atomic_load(&shm->head);
    release_all();
    pthread_join(first.thread, NULL);
    pthread_join(second.thread, NULL);
    assert_int_equal(first.status, 0);
    assert_int_equal(second.status, 0);
    assert_int_equal(atomic_load(&shm->head), head + 2 * (4096 + DISK_RECORD_HEADER_LEN));
}

static void test_held_writes_wait_in_vain_once_until_there_is_room(void **state)
{
    (void)state;
    fill_held_log();
    disk_log_set_room_wait(fixture.log, 20);
    assert_int_equal(write_at(8192, 4096, 2), -ENOSPC);
    assert_true(atomic_load(&shm->wait_us) >= 20000);
    /* A wait of an hour would be noticed. */
    disk_log_set_room_wait(fixture.log, HOUR_MS);
    assert_int_equal(write_at(8192, 4096, 2), -ENOSPC);
    assert_int_equal(write_at(65536, 4096, 2), -ENOSPC);
    release_all();
    while (atomic_load(&shm->flushed) != atomic_load(&shm->head))
        sched_yield();
    assert_int_equal(write_at(8192, 4096, 2), 0);
    assert_int_equal(atomic_load(&shm->last_errno), 0);
}

static void test_an_order_that_waits_is_in_force_when_start_returns(void **state)
{
    (void)state;
    disk_fixture_order(&fixture, LOGGING | 0xff00, 7);
    disk_fixture_start(&fixture);
    assert_int_equal(atomic_load(&shm->done_seq), 1);
    assert_int_equal(atomic_load(&shm->flags), LOGGING); /* what is not known is left out */
    assert_int_equal(atomic_load(&shm->active_map), 1);
    assert_true(atomic_load(&shm->attention) & DISK_ATTENTION_DONE);
}

static void test_only_turning_logging_on_ends_detachment(void **state)
{
    (void)state;
    start(LOGGING);
    assert_int_equal(write_at(0, RING_LEN, 1), 0);
    disk_fixture_order(&fixture, LOGGING, 1);
    disk_fixture_await(&fixture);
    /* It may have been given before detached was seen. */
    assert_int_equal(atomic_load(&shm->detached), 1);
    disk_fixture_order(&fixture, DISK_WRITABLE, 1);
    disk_fixture_await(&fixture);
    assert_int_equal(atomic_load(&shm->detached), 1);
    disk_fixture_order(&fixture, LOGGING, 1);
    disk_fixture_await(&fixture);
    assert_int_equal(atomic_load(&shm->detached), 0);
    assert_int_equal(atomic_load(&shm->logged_from), atomic_load(&shm->head));
    assert_int_equal(write_at(0, 4096, 1), 0);
    assert_int_equal(atomic_load(&shm->head), atomic_load(&shm->logged_from) + 4096 + 32);
}

/* ---- an image that fails ---- */

static void test_a_failed_write_is_reported_and_the_log_has_what_the_image_has(void **state)
{
    (void)state;
    start(LOGGING);
    assert_int_equal(write_at(4096, 8192, 1), 0);
    atomic_store(&fail_with, ENOSPC);
    atomic_store(&fail_after, 3000);
    assert_int_equal(write_at(4096, 8192, 2), -ENOSPC);
    atomic_store(&fail_with, 0);
    assert_int_equal(atomic_load(&shm->last_errno), ENOSPC);
    assert_int_equal(atomic_load(&shm->last_error_offset), 4096);
    disk_fixture_await_attention(&fixture, DISK_ATTENTION_ERROR);
    assert_int_equal(atomic_load(&shm->detached), 0);
    assert_image_is_model();
    assert_int_equal(fixture.model[4096 + 2999], 2);
    assert_int_equal(fixture.model[4096 + 3000], 1);
}

static void test_an_image_that_cannot_be_read_back_either_ends_logging(void **state)
{
    (void)state;
    start(LOGGING);
    atomic_store(&fail_with, EIO);
    atomic_store(&reads_fail, true);
    assert_int_equal(write_at(4096, 8192, 2), -EIO);
    assert_int_equal(disk_log_read(fixture.log, bytes, 512, 0), -EIO);
    assert_int_equal(atomic_load(&shm->detached), 1);
    disk_fixture_await_attention(&fixture, DISK_ATTENTION_ERROR | DISK_ATTENTION_DETACHED);
}

/* ---- one that was killed ---- */

/* Its records are in the ring, published; the image has none of it. */
static void lose_image_changes(void)
{
    struct disk_ring ring;
    disk_ring_init(&ring, shm, fixture.fds.attention);
    for (unsigned i = 0; i < 3; i++) {
        struct disk_record record = {
            .type = DISK_RECORD_WRITE, .disk = 5, .offset = 1000 * i, .len = 1500, .data_len = 1500};
        memset(bytes, (int)(0x10 + i), 1500);
        disk_ring_append(&ring, &record, bytes);
    }
    struct disk_record trim = {.type = DISK_RECORD_TRIM, .disk = 5, .offset = 500, .len = 100};
    disk_ring_append(&ring, &trim, NULL);
    disk_ring_destroy(&ring);
}

static void test_a_new_producer_makes_the_image_what_the_ring_says(void **state)
{
    (void)state;
    start(LOGGING);
    assert_int_equal(write_at(0, 4096, 1), 0);
    assert_image_is_model();
    disk_fixture_stop(&fixture);
    lose_image_changes();
    disk_fixture_start(&fixture);
    assert_image_is_model();
    assert_int_equal(fixture.nrecords, 5);
    assert_int_equal(write_at(100, 100, 7), 0); /* and goes on behind them */
    assert_image_is_model();
}

static void test_what_was_logged_before_the_last_turning_on_is_not_done_again(void **state)
{
    (void)state;
    start(LOGGING);
    assert_int_equal(write_at(0, 4096, 1), 0); /* never consumed */
    disk_fixture_order(&fixture, DISK_WRITABLE, 0);
    disk_fixture_await(&fixture);
    assert_int_equal(write_at(0, 4096, 2), 0);
    disk_fixture_order(&fixture, LOGGING, 0);
    disk_fixture_await(&fixture);
    disk_fixture_stop(&fixture);
    disk_fixture_start(&fixture);
    uint8_t got;
    assert_int_equal(disk_log_read(fixture.log, &got, 1, 0), 0);
    assert_int_equal(got, 2);
}

static void test_nothing_is_done_again_if_logging_is_to_end(void **state)
{
    (void)state;
    start(LOGGING);
    assert_int_equal(write_at(0, 4096, 1), 0);
    disk_fixture_stop(&fixture);
    lose_image_changes();
    disk_fixture_order(&fixture, DISK_WRITABLE | DISK_DURABLE, 0);
    disk_fixture_start(&fixture);
    uint8_t got[4096];
    assert_int_equal(disk_log_read(fixture.log, got, sizeof got, 0), 0);
    for (size_t i = 0; i < sizeof got; i++)
        assert_int_equal(got[i], 1);
    assert_int_equal(atomic_load(&shm->detached), 1);
}

static void test_a_ring_that_is_nonsense_ends_logging(void **state)
{
    (void)state;
    start(LOGGING);
    assert_int_equal(write_at(0, 4096, 1), 0);
    disk_fixture_stop(&fixture);
    ((uint8_t *)shm)[DISK_SHM_RING_OFFSET + 9] ^= 1;
    disk_fixture_start(&fixture);
    assert_int_equal(atomic_load(&shm->detached), 1);
    assert_int_equal(atomic_load(&shm->last_errno), EPROTO);
}

/* The child's writers, each in blocks of its own, tell in shared memory what was answered. */
enum { NWRITERS = 4, NBLOCKS = EXPORT_LEN / 4096 };
struct block {
    uint64_t number, sequence[511];
};
static _Atomic uint64_t *answered;

static void *write_for_ever(void *opaque)
{
    unsigned writer = (unsigned)(uintptr_t)opaque;
    struct block block;
    for (uint64_t sequence = 1;; sequence++) {
        block.number = sequence * 7919 % (NBLOCKS / NWRITERS) * NWRITERS + writer;
        for (unsigned i = 0; i < 511; i++)
            block.sequence[i] = sequence;
        if (disk_log_write(fixture.log, &block, sizeof block, block.number * 4096) == 0)
            atomic_store(&answered[block.number], sequence);
    }
    return NULL;
}

static void run_child(void)
{
    pthread_t thread;
    disk_fixture_start(&fixture);
    for (uintptr_t i = 0; i < NWRITERS; i++)
        pthread_create(&thread, NULL, write_for_ever, (void *)i);
    for (;;)
        pause();
}

static void test_killed_at_any_moment_it_loses_nothing_that_was_answered(void **state)
{
    (void)state;
    size_t len = NBLOCKS * sizeof *answered;
    answered = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(answered, MAP_FAILED);
    disk_fixture_order(&fixture, LOGGING, 0);
    for (unsigned round = 0; round < 30; round++) {
        uint64_t writes = atomic_load(&shm->writes) + 1 + round * 7;
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0)
            run_child();
        /* The ring has fewer places: writers may be waiting for room. */
        while (atomic_load(&shm->writes) < writes && atomic_load(&shm->waits) == 0)
            sched_yield();
        kill(child, SIGKILL);
        assert_int_equal(waitpid(child, NULL, 0), child);
        atomic_store(&shm->waits, 0);
        disk_fixture_start(&fixture);
        disk_fixture_stop(&fixture);
        assert_int_equal(atomic_load(&shm->detached), 0);
        assert_image_is_model();
        for (unsigned number = 0; number < NBLOCKS; number++) {
            const struct block *block = (const void *)(fixture.model + number * 4096);
            uint64_t sequence = block->sequence[0];
            assert_true(sequence == 0 || block->number == number);
            for (unsigned i = 0; i < 511; i++)
                assert_int_equal(block->sequence[i], sequence);
            /* In each round the sequences begin anew: it is the answered one or another of this round. */
            assert_true(atomic_load(&answered[number]) == 0 || sequence != 0);
            assert_true(sequence >= atomic_load(&answered[number]) || round > 0);
            assert_true(sequence == 0 || disk_fixture_is_marked(&fixture, 0, number * 4096));
        }
    }
    munmap(answered, len);
}

/* ---- many at once ---- */

static void *write_over_each_other(void *opaque)
{
    uint32_t random = (uint32_t)(uintptr_t)opaque;
    uint8_t data[3000];
    for (unsigned i = 0; i < 400; i++) {
        random = random * 1664525u + 1013904223u;
        uint32_t len = (random >> 8) % sizeof data + 1, offset = (random >> 20) % 4096;
        memset(data, (int)(random >> 24), len);
        int status = random >> 28 == 0 ? disk_log_zero(fixture.log, len, offset, random >> 27 & 1)
                                       : disk_log_write(fixture.log, data, len, offset);
        if (status < 0)
            abort();
    }
    return NULL;
}

static void test_overlapping_writes_have_one_order_in_log_and_image(void **state)
{
    (void)state;
    enum { NTHREADS = 8 };
    pthread_t threads[NTHREADS];
    disk_fixture_close(&fixture);
    disk_fixture_open(&fixture, NULL, EXPORT_LEN, 8u << 20);
    shm = fixture.shm;
    start(LOGGING);
    for (unsigned round = 0; round < 5; round++) {
        for (uintptr_t i = 0; i < NTHREADS; i++)
            assert_int_equal(pthread_create(&threads[i], NULL, write_over_each_other, (void *)(i + 1)), 0);
        for (unsigned i = 0; i < NTHREADS; i++)
            pthread_join(threads[i], NULL);
        assert_image_is_model();
    }
    assert_int_equal(atomic_load(&shm->detached), 0);
}

/* ---- memory ---- */

static unsigned resident_pages(void)
{
    unsigned char is_resident[RING_LEN / 4096];
    unsigned n = 0;
    assert_int_equal(mincore((uint8_t *)shm + DISK_SHM_RING_OFFSET, RING_LEN, is_resident), 0);
    for (size_t i = 0; i < sizeof is_resident; i++)
        n += is_resident[i] & 1;
    return n;
}

static void test_a_ring_that_is_left_alone_keeps_only_what_is_still_wanted(void **state)
{
    (void)state;
    start(LOGGING);
    for (unsigned i = 0; i < 45; i++) {
        assert_int_equal(write_at(i * 4096, 4096, (uint8_t)i), 0);
        assert_image_is_model();
    }
    assert_int_equal(write_at(8192, 24576, 0x55), 0); /* not taken yet; goes round the ring's end */
    uint64_t tail = atomic_load(&shm->tail), head = atomic_load(&shm->head);
    assert_true(head / RING_LEN > tail / RING_LEN);
    unsigned wanted = (unsigned)((head - tail) / 4096 + 2);
    assert_true(resident_pages() > wanted);
    struct timespec moment = {.tv_nsec = 10000000};
    for (unsigned i = 0; resident_pages() > wanted; i++) {
        assert_true(i < 3000);
        nanosleep(&moment, NULL);
    }
    assert_image_is_model();
    assert_int_equal(write_at(0, 40000, 0x66), 0);
    assert_image_is_model();
}

/* ---- shared memory that is not right ---- */

static void refused(void)
{
    struct disk_log *log = NULL;
    const char *why = NULL;
    assert_true(disk_log_open(&log, &fixture.fds, &why) < 0);
    assert_null(log);
    assert_non_null(why);
}

static void test_shared_memory_that_is_not_right_is_refused(void **state)
{
    (void)state;
    struct disk_shm good = *shm;
    shm->magic ^= 1;
    refused();
    memcpy(shm, &good, sizeof good);
    shm->version++;
    refused();
    memcpy(shm, &good, sizeof good);
    shm->disk = DISK_MAX;
    refused();
    memcpy(shm, &good, sizeof good);
    const uint64_t ring_lens[] = {0, 100, RING_LEN + 4096, UINT64_MAX & ~4095ull};
    for (size_t i = 0; i < sizeof ring_lens / sizeof *ring_lens; i++) {
        shm->ring_len = ring_lens[i];
        refused();
    }
    memcpy(shm, &good, sizeof good);
    shm->export_len = UINT64_MAX;
    refused();
    shm->export_len = EXPORT_LEN * 2; /* more than the map covers */
    refused();
    memcpy(shm, &good, sizeof good);
    atomic_store(&shm->head, RING_LEN + 32);
    refused();
    atomic_store(&shm->head, 33);
    refused();
    atomic_store(&shm->head, 0);
    atomic_store(&shm->tail, 32);
    refused();
    memcpy(shm, &good, sizeof good);
    assert_int_equal(ftruncate(fixture.fds.shm, DISK_SHM_RING_OFFSET), 0);
    refused();
    assert_int_equal(ftruncate(fixture.fds.shm, (off_t)fixture.shm_len), 0);
    struct disk_log_descriptors fds = fixture.fds;
    fixture.fds.image = fixture.fds.shm;
    fixture.fds.map = fds.image;
    refused();
    fixture.fds = fds;
    fixture.fds.attention = -1;
    refused();
    fixture.fds = fds;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, open_fixture, close_fixture)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_write_is_marked_logged_and_in_the_image),
        TEST(test_zero_and_trim_are_logged_without_data),
        TEST(test_nothing_is_logged_without_the_flag),
        TEST(test_a_disk_that_is_not_writable_refuses_changes_and_answers_reads),
        TEST(test_what_is_out_of_range_is_refused),
        TEST(test_a_long_write_is_several_records),
        TEST(test_extents_are_those_of_the_image),
        TEST(test_durable_writes_are_on_the_disk_before_they_complete),
        TEST(test_a_full_ring_makes_a_writer_wait_until_tail_moves),
        TEST(test_the_wait_has_an_end_and_logging_is_given_up),
        TEST(test_a_record_that_never_fits_detaches_at_once),
        TEST(test_a_tail_that_is_nonsense_leaves_no_room),
        TEST(test_an_order_to_stop_logging_frees_a_waiting_writer),
        TEST(test_writers_wait_at_the_limit_until_tail_moves),
        TEST(test_a_limit_that_is_lifted_lets_writers_into_the_rest_of_the_ring),
        TEST(test_an_order_does_not_wait_for_writers_at_the_limit),
        TEST(test_a_limit_that_nobody_lifts_is_no_reason_to_give_logging_up),
        TEST(test_the_mark_is_signalled_once_for_each_place_of_tail),
        TEST(test_modes_change_only_with_no_write_under_way),
        TEST(test_an_order_passes_held_writes_that_wait_for_room),
        TEST(test_held_writes_wait_in_vain_once_until_there_is_room),
        TEST(test_an_order_that_waits_is_in_force_when_start_returns),
        TEST(test_only_turning_logging_on_ends_detachment),
        TEST(test_a_failed_write_is_reported_and_the_log_has_what_the_image_has),
        TEST(test_an_image_that_cannot_be_read_back_either_ends_logging),
        TEST(test_a_new_producer_makes_the_image_what_the_ring_says),
        TEST(test_what_was_logged_before_the_last_turning_on_is_not_done_again),
        TEST(test_nothing_is_done_again_if_logging_is_to_end),
        TEST(test_a_ring_that_is_nonsense_ends_logging),
        TEST(test_killed_at_any_moment_it_loses_nothing_that_was_answered),
        TEST(test_overlapping_writes_have_one_order_in_log_and_image),
        TEST(test_a_ring_that_is_left_alone_keeps_only_what_is_still_wanted),
        TEST(test_shared_memory_that_is_not_right_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
