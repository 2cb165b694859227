/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The primary's part of an epoch, against a producer that fills the ring to its last byte while an epoch is
 * collected: each record comes through once, whole and in order.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "checkpoint/disk/disk_section.h"
#include "replicator/disk/disks_internal.h"
#include "replicator/disk/plugin/disk_ring.h"

#define RING_LEN (32u << 20)

static struct disks disks;
static struct disk_ring ring;
static struct staging *staging;
static uint64_t nput, ntaken; /* records */

static int set_up(void **state)
{
    (void)state;
    struct disk *disk = &disks.disk[0];
    disks = (struct disks){.n = 1, .len = {1u << 30}};
    disk->disks = &disks;
    disk->shm_fd = memfd_create("disk", MFD_CLOEXEC);
    assert_int_equal(ftruncate(disk->shm_fd, DISK_SHM_RING_OFFSET + RING_LEN), 0);
    disk->shm =
        mmap(NULL, DISK_SHM_RING_OFFSET + RING_LEN, PROT_READ | PROT_WRITE, MAP_SHARED, disk->shm_fd, 0);
    assert_ptr_not_equal(disk->shm, MAP_FAILED);
    disk->ring = (uint8_t *)disk->shm + DISK_SHM_RING_OFFSET;
    disk->ring_len = disk->shm->ring_len = RING_LEN;
    disk->shm->mark = RING_LEN;
    disk->attention_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    disk_ring_init(&ring, disk->shm, disk->attention_fd);
    nput = ntaken = 0;
    return staging_open(&staging, RING_LEN / STAGING_PAGE_LEN + 16, 4096);
}

static int tear_down(void **state)
{
    (void)state;
    struct disk *disk = &disks.disk[0];
    staging_close(staging);
    disk_ring_destroy(&ring);
    munmap(disk->shm, DISK_SHM_RING_OFFSET + RING_LEN);
    close(disk->shm_fd);
    close(disk->attention_fd);
    return 0;
}

/* Records of odd lengths whose data tells their number, until no other fits or len bytes are in. */
static void put(uint64_t len)
{
    static uint64_t data[8192];
    for (uint64_t end = ring.head + len; ring.head < end; nput++) {
        uint32_t data_len = (uint32_t)(8 * (nput * 2654435761u % 8191 + 1));
        struct disk_record record = {
            .type = DISK_RECORD_WRITE, .offset = nput, .len = data_len, .data_len = data_len};
        uint64_t used = ring.head - atomic_load(&ring.shm->tail);
        if (disk_record_len(&record) > RING_LEN - used)
            return;
        for (uint32_t i = 0; i < data_len / 8; i++)
            data[i] = nput;
        disk_ring_append(&ring, &record, data);
    }
}

static bool never_wait(void *opaque)
{
    (void)opaque;
    return false;
}

static void check(const struct disk_record *record)
{
    assert_int_equal(record->offset, ntaken);
    for (unsigned i = 0; i < record->ndata; i++) {
        for (size_t at = 0; at + 8 <= record->data[i].iov_len; at += 8) {
            uint64_t value;
            memcpy(&value, (uint8_t *)record->data[i].iov_base + at, 8);
            assert_int_equal(value, ntaken);
        }
    }
    ntaken++;
}

/* The rest of an epoch after its boundary. */
static void collect(void)
{
    struct staged_epoch *epoch = staging_begin(staging, 1, STAGED_EPOCH);
    struct disk_stream stream;
    struct disk_record record;
    int status;
    assert_int_equal(disks_collect(&disks, staging, epoch, never_wait, NULL), 0);
    disk_section_stream(staging, epoch, &stream);
    while ((status = disk_stream_next(&stream, &record)) > 0)
        check(&record);
    assert_int_equal(status, 0);
    staging_commit(staging, epoch);
    staging_free(staging, epoch);
}

static void test_what_is_written_while_an_epoch_is_collected_stays(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 60; round++) {
        for (unsigned i = 0; i < 12; i++) { /* slow writing: memory is given back */
            put(100000);
            disks_boundary(&disks, 1);
            collect();
        }
        put(round * 777777u % RING_LEN);
        disks_boundary(&disks, 1);
        put(RING_LEN); /* to the last byte: what is given back must not be of this */
        collect();
    }
    disks_boundary(&disks, 1);
    collect();
    assert_int_equal(ntaken, nput);
    assert_true(ring.head > 20ull * RING_LEN);
}

static uint64_t resident_pages(void)
{
    static unsigned char is_resident[RING_LEN / 4096];
    uint64_t n = 0;
    assert_int_equal(mincore(disks.disk[0].ring, RING_LEN, is_resident), 0);
    for (size_t i = 0; i < sizeof is_resident; i++)
        n += is_resident[i] & 1;
    return n;
}

static void test_small_epochs_do_not_fill_the_memory_in_the_course_of_time(void **state)
{
    (void)state;
    while (ring.head < 4ull * RING_LEN) {
        put(100000);
        disks_boundary(&disks, 1);
        collect();
    }
    assert_true(resident_pages() * 4096 < RING_LEN / 4);
}

static uint64_t in_the_log(void)
{
    return ring.head - atomic_load(&ring.shm->tail);
}

/* However little that is, or writers would wait for what has long been taken out. */
static void test_writers_at_the_limit_go_on_after_the_next_epoch(void **state)
{
    static const uint64_t limits[] = {1u << 20, 4u << 20, 16u << 20};
    (void)state;
    for (unsigned round = 0; round < 9; round++) {
        uint64_t limit = limits[round % 3];
        disks_limit_logs(&disks, limit);
        while (in_the_log() < limit)
            put(1);
        disks_boundary(&disks, 1);
        collect();
        assert_true(in_the_log() < limit / 2);
    }
}

static void test_the_limit_is_lifted_for_a_pause_and_back_at_its_boundary(void **state)
{
    (void)state;
    disks_boundary(&disks, 1);
    assert_int_equal(atomic_load(&ring.shm->limit), 0); /* nobody set one */
    disks_limit_logs(&disks, 1u << 20);
    uint32_t raised = atomic_load(&ring.shm->room_seq);
    disks_limit_logs(&disks, 0);
    assert_int_equal(atomic_load(&ring.shm->limit), 0);
    assert_int_not_equal(atomic_load(&ring.shm->room_seq), raised);
    disks_boundary(&disks, 2);
    assert_int_equal(atomic_load(&ring.shm->limit), 1u << 20);
    /* Who sleeps at a lower one learns of a higher one. */
    raised = atomic_load(&ring.shm->room_seq);
    disks_limit_logs(&disks, 2u << 20);
    assert_int_not_equal(atomic_load(&ring.shm->room_seq), raised);
}

static void test_a_detached_log_is_not_collected(void **state)
{
    (void)state;
    put(1000);
    disk_ring_detach(&ring);
    disks_boundary(&disks, 1);
    struct staged_epoch *epoch = staging_begin(staging, 1, STAGED_EPOCH);
    assert_int_equal(disks_collect(&disks, staging, epoch, never_wait, NULL), -EIO);
    staging_abort(staging, epoch);
    disks_drop_log(&disks);
    atomic_store(&ring.shm->detached, 0);
    ntaken = nput;
    put(1000);
    disks_boundary(&disks, 1);
    collect();
    assert_int_equal(ntaken, nput);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_what_is_written_while_an_epoch_is_collected_stays, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_small_epochs_do_not_fill_the_memory_in_the_course_of_time,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_writers_at_the_limit_go_on_after_the_next_epoch, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_the_limit_is_lifted_for_a_pause_and_back_at_its_boundary, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_a_detached_log_is_not_collected, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
