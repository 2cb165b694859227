/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Disk records: what is encoded is decoded, wherever the stream wraps; nonsense is refused. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "checkpoint/disk/disk_record.h"
#include "proto/crc32c.h"
#include "proto/little_endian.h"

#define RING_LEN 8192u

static uint64_t random_state = 88172645463325252ull;
static uint32_t next_random(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint32_t)(random_state >> 16);
}

static struct disk_record write_of(uint64_t offset, uint32_t len)
{
    return (struct disk_record){
        .type = DISK_RECORD_WRITE, .disk = 3, .offset = offset, .len = len, .data_len = len};
}

/* One record with the data fill, fill + 1, ...; a copy of exactly its length, so that a sanitizer sees more.
 */
static uint8_t *encoded(const struct disk_record *record, uint8_t fill)
{
    uint8_t *bytes = calloc(1, disk_record_len(record));
    assert_non_null(bytes);
    disk_record_encode(record, bytes);
    for (uint32_t i = 0; i < record->data_len; i++)
        bytes[DISK_RECORD_HEADER_LEN + i] = (uint8_t)(fill + i);
    return bytes;
}

static void gather(const struct disk_record *record, uint8_t *out)
{
    size_t len = 0;
    for (unsigned i = 0; i < record->ndata; i++) {
        memcpy(out + len, record->data[i].iov_base, record->data[i].iov_len);
        len += record->data[i].iov_len;
    }
    assert_int_equal(len, record->data_len);
}

static void test_layout_is_the_documented_one(void **state)
{
    (void)state;
    struct disk_record record = write_of(0x1122334455667788, 0x1234);
    uint8_t bytes[DISK_RECORD_HEADER_LEN];
    disk_record_encode(&record, bytes);
    static const uint8_t wanted[28] = {'D',  'R',  'E',  'C',  3, 0, 1, 0, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33,
                                       0x22, 0x11, 0x34, 0x12, 0, 0, 0, 0, 0,    0,    0x34, 0x12, 0,    0};
    assert_memory_equal(bytes, wanted, sizeof wanted);
    assert_int_equal(get32(bytes + 28), crc32c(0, bytes, 28));
    assert_int_equal(disk_record_len(&record), 32 + 0x1240);
    record = write_of(0, 0x1240);
    assert_int_equal(disk_record_len(&record), 32 + 0x1240);
    record = (struct disk_record){.type = DISK_RECORD_ZERO, .len = 1ull << 40};
    assert_int_equal(disk_record_len(&record), 32);
}

static void test_empty_stream_is_well_formed(void **state)
{
    (void)state;
    struct disk_stream stream = {0};
    struct disk_record record;
    assert_int_equal(disk_stream_next(&stream, &record), 0);
    assert_int_equal(disk_stream_check(&stream, NULL, 0), 0);
}

/* Fills a ring from a random position with random records, over and over, and reads them back. */
static void test_records_come_through_a_ring_that_wraps(void **state)
{
    (void)state;
    uint8_t *ring = malloc(RING_LEN), *data = malloc(RING_LEN);
    assert_true(ring && data);
    for (unsigned round = 0; round < 2000; round++) {
        enum { MANY = 64 };
        struct disk_record put[MANY];
        uint8_t fill[MANY];
        uint64_t begin = (uint64_t)next_random() * DISK_RECORD_ALIGN, position = begin;
        unsigned n = 0;
        for (; n < MANY; n++) {
            uint32_t len = next_random() % 3000 + 1;
            put[n] = write_of(next_random(), len);
            put[n].disk = next_random() % DISK_MAX;
            if (next_random() % 3 == 0) {
                put[n].type = next_random() % 2 ? DISK_RECORD_ZERO : DISK_RECORD_TRIM;
                put[n].data_len = 0;
            }
            size_t record_len = disk_record_len(&put[n]);
            if (position + record_len - begin > RING_LEN)
                break;
            fill[n] = (uint8_t)next_random();
            uint8_t *bytes = encoded(&put[n], fill[n]);
            for (size_t i = 0; i < record_len; i++)
                ring[(position + i) % RING_LEN] = bytes[i];
            free(bytes);
            position += record_len;
        }
        struct disk_stream stream;
        struct disk_record got;
        disk_stream_of_ring(&stream, ring, RING_LEN, begin, position - begin);
        for (unsigned i = 0; i < n; i++) {
            assert_int_equal(disk_stream_next(&stream, &got), 1);
            assert_int_equal(got.type, put[i].type);
            assert_int_equal(got.disk, put[i].disk);
            assert_int_equal(got.offset, put[i].offset);
            assert_int_equal(got.len, put[i].len);
            assert_int_equal(got.data_len, put[i].data_len);
            gather(&got, data);
            for (uint32_t b = 0; b < got.data_len; b++)
                assert_int_equal(data[b], (uint8_t)(fill[i] + b));
        }
        assert_int_equal(disk_stream_next(&stream, &got), 0);
    }
    free(ring);
    free(data);
}

static void test_every_truncation_is_refused(void **state)
{
    (void)state;
    struct disk_record record = write_of(4096, 50), got;
    size_t len = disk_record_len(&record);
    uint8_t *bytes = encoded(&record, 1);
    for (size_t cut = 1; cut < len; cut++) {
        uint8_t *piece = malloc(cut);
        assert_non_null(piece);
        memcpy(piece, bytes, cut);
        struct disk_stream stream = {.span = {{piece, cut}}};
        assert_int_equal(disk_stream_next(&stream, &got), -EPROTO);
        /* The same in two pieces. */
        stream = (struct disk_stream){.span = {{piece, cut / 2}, {piece + cut / 2, cut - cut / 2}}};
        assert_int_equal(disk_stream_next(&stream, &got), -EPROTO);
        free(piece);
    }
    free(bytes);
}

static void test_every_flipped_bit_of_header_and_padding_is_noticed(void **state)
{
    (void)state;
    struct disk_record record = write_of(4096, 50), got;
    size_t len = disk_record_len(&record);
    uint8_t *bytes = encoded(&record, 1);
    for (size_t bit = 0; bit < len * 8; bit++) {
        struct disk_stream stream = {.span = {{bytes, len}}};
        bool is_data = bit / 8 >= DISK_RECORD_HEADER_LEN && bit / 8 < DISK_RECORD_HEADER_LEN + 50;
        bytes[bit / 8] ^= (uint8_t)(1u << (bit % 8));
        assert_int_equal(disk_stream_next(&stream, &got), is_data ? 1 : -EPROTO);
        bytes[bit / 8] ^= (uint8_t)(1u << (bit % 8));
    }
    free(bytes);
}

static void refused(struct disk_record record)
{
    struct disk_record got;
    uint8_t bytes[DISK_RECORD_HEADER_LEN + 64] = {0};
    disk_record_encode(&record, bytes);
    struct disk_stream stream = {.span = {{bytes, DISK_RECORD_HEADER_LEN + (record.data_len ? 64 : 0)}}};
    assert_int_equal(disk_stream_next(&stream, &got), -EPROTO);
}

static void test_lying_records_are_refused(void **state)
{
    (void)state;
    struct disk_record lie = write_of(0, 64);
    lie.disk = DISK_MAX;
    refused(lie);
    lie = write_of(0, 64);
    lie.len = 65; /* not what its data has */
    refused(lie);
    lie = write_of(0, 64);
    lie.type = 0;
    refused(lie);
    lie.type = 4;
    refused(lie);
    lie.type = DISK_RECORD_ZERO; /* with data */
    refused(lie);
    refused((struct disk_record){.type = DISK_RECORD_TRIM, .len = 0});
    refused((struct disk_record){.type = DISK_RECORD_WRITE, .len = 0});
    refused((struct disk_record){.type = DISK_RECORD_ZERO, .offset = 1, .len = INT64_MAX});
    refused((struct disk_record){.type = DISK_RECORD_ZERO, .offset = UINT64_MAX, .len = 2});
    refused((struct disk_record){.type = DISK_RECORD_ZERO, .offset = 0, .len = UINT64_MAX});
    refused(write_of(0, UINT32_MAX)); /* far past what is there */
}

static void test_longest_write_is_accepted_and_a_longer_one_refused(void **state)
{
    (void)state;
    for (uint32_t more = 0; more < 2; more++) {
        struct disk_record record = write_of(0, DISK_RECORD_MAX_DATA + more), got;
        uint8_t *bytes = encoded(&record, 0);
        struct disk_stream stream = {.span = {{bytes, disk_record_len(&record)}}};
        assert_int_equal(disk_stream_next(&stream, &got), more ? -EPROTO : 1);
        free(bytes);
    }
}

static void test_check_holds_each_record_to_its_disk(void **state)
{
    (void)state;
    const uint64_t disk_len[4] = {0, 0, 0, 8192};
    struct {
        uint64_t offset;
        uint32_t len;
        int wanted;
    } cases[] = {
        {0, 8192, 0}, {4096, 4096, 0}, {4096, 4097, -EPROTO}, {8192, 1, -EPROTO}, {1ull << 40, 1, -EPROTO}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct disk_record record = write_of(cases[i].offset, cases[i].len);
        uint8_t *bytes = encoded(&record, 0);
        struct disk_stream stream = {.span = {{bytes, disk_record_len(&record)}}}, before = stream;
        assert_int_equal(disk_stream_check(&stream, disk_len, 4), cases[i].wanted);
        assert_memory_equal(&stream, &before, sizeof stream);
        assert_int_equal(disk_stream_check(&stream, disk_len, 3), -EPROTO); /* no such disk */
        free(bytes);
    }
}

static void test_random_bytes_do_no_harm(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 100000; round++) {
        struct disk_record record = {.type = next_random() % 5,
                                     .disk = next_random() % 20,
                                     .offset = next_random(),
                                     .len = next_random() % 100,
                                     .data_len = next_random() % 100};
        size_t len = next_random() % 150;
        uint8_t *bytes = malloc(len + DISK_RECORD_HEADER_LEN);
        assert_non_null(bytes);
        disk_record_encode(&record, bytes);
        for (size_t i = 0; i < len; i++)
            bytes[DISK_RECORD_HEADER_LEN + i] = next_random() % 3 ? 0 : (uint8_t)next_random();
        struct disk_stream stream = {.span = {{bytes, len + DISK_RECORD_HEADER_LEN}}};
        while (disk_stream_next(&stream, &record) > 0)
            assert_true(record.data_len <= len);
        free(bytes);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layout_is_the_documented_one),
        cmocka_unit_test(test_empty_stream_is_well_formed),
        cmocka_unit_test(test_records_come_through_a_ring_that_wraps),
        cmocka_unit_test(test_every_truncation_is_refused),
        cmocka_unit_test(test_every_flipped_bit_of_header_and_padding_is_noticed),
        cmocka_unit_test(test_lying_records_are_refused),
        cmocka_unit_test(test_longest_write_is_accepted_and_a_longer_one_refused),
        cmocka_unit_test(test_check_holds_each_record_to_its_disk),
        cmocka_unit_test(test_random_bytes_do_no_harm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
