/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See journal_world.h. Whatever goes wrong in here is the test's fault, and ends it. */
#include "tests/disk/journal_world.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void die(const char *what)
{
    fprintf(stderr, "journal_world: %s: %s\n", what, strerror(errno));
    _exit(3);
}

uint64_t world_random(uint64_t *state)
{
    /* splitmix64 (public domain, Vigna): good from any seed. */
    uint64_t z = *state += 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

void world_open(struct world *world, const char *folder, uint64_t seed)
{
    memset(world, 0, sizeof *world);
    world->seed = seed;
    snprintf(world->journal_path, sizeof world->journal_path, "%s/journal", folder);
    unlink(world->journal_path);
    for (unsigned i = 0; i < WORLD_DISKS; i++) {
        snprintf(world->image_path[i], sizeof world->image_path[i], "%s/image-%u", folder, i);
        int fd = open(world->image_path[i], O_RDWR | O_CREAT | O_TRUNC, 0600);
        if (fd < 0 || ftruncate(fd, WORLD_DISK_LEN) < 0)
            die(world->image_path[i]);
        close(fd);
    }
    world_open_images(world);
}

void world_open_images(struct world *world)
{
    for (unsigned i = 0; i < WORLD_DISKS; i++) {
        char *why = NULL;
        if (disk_image_open(&world->image[i], world->image_path[i], 0, &why) < 0)
            die(why);
    }
}

void world_close_images(struct world *world)
{
    for (unsigned i = 0; i < WORLD_DISKS; i++) {
        disk_image_close(world->image[i]);
        world->image[i] = NULL;
    }
}

void world_close(struct world *world)
{
    world_close_images(world);
    unlink(world->journal_path);
    for (unsigned i = 0; i < WORLD_DISKS; i++)
        unlink(world->image_path[i]);
}

void world_sync_images(const struct world *world)
{
    for (unsigned i = 0; i < WORLD_DISKS; i++) {
        if (disk_image_sync(world->image[i]) < 0)
            die("sync");
    }
}

static void random_record(uint64_t *random, bool uniform, struct disk_record *record)
{
    uint64_t r = world_random(random), place = world_random(random) % (WORLD_DISK_LEN / 512) * 512;
    record->type = r % 8 < 6 || uniform ? DISK_RECORD_WRITE : r % 8 - 4;
    record->disk = (uint16_t)(r >> 8) % WORLD_DISKS;
    record->offset = uniform ? place & ~1023ull : place;
    record->len = uniform ? 1024 : 512 * (1 + (r >> 16) % (r >> 32 & 3 ? 8 : 32));
    if (record->len > WORLD_DISK_LEN - record->offset)
        record->len = WORLD_DISK_LEN - record->offset;
    record->data_len = record->type == DISK_RECORD_WRITE ? (uint32_t)record->len : 0;
}

void world_epoch(const struct world *world, uint64_t epoch, uint8_t *buffer, struct disk_stream *out)
{
    uint64_t random = world->seed ^ epoch << 20;
    unsigned nrecords = world->uniform ? 1 : (unsigned)(world_random(&random) % 9);
    size_t len = 0;
    for (unsigned i = 0; i < nrecords; i++) {
        struct disk_record record = {0};
        random_record(&random, world->uniform, &record);
        if (len + disk_record_len(&record) > WORLD_MAX_EPOCH)
            break;
        memset(buffer + len, 0, disk_record_len(&record));
        disk_record_encode(&record, buffer + len);
        for (uint32_t at = 0; at < record.data_len; at += 8) {
            uint64_t word = world_random(&random);
            memcpy(buffer + len + DISK_RECORD_HEADER_LEN + at, &word, 8);
        }
        len += disk_record_len(&record);
    }
    size_t first = len ? world_random(&random) % (len + 1) : 0;
    out->span[0] = (struct iovec){buffer, first};
    out->span[1] = (struct iovec){buffer + first, len - first};
}

unsigned world_nrecords(const struct disk_stream *writes)
{
    struct disk_stream rest = *writes;
    struct disk_record record;
    unsigned n = 0;
    while (disk_stream_next(&rest, &record) > 0)
        n++;
    return n;
}

int world_apply_some(struct world *world, const struct disk_stream *writes, unsigned nrecords)
{
    static const uint64_t lens[WORLD_DISKS] = {WORLD_DISK_LEN, WORLD_DISK_LEN};
    struct disk_stream rest = *writes;
    struct disk_record record;
    int status = disk_stream_check(writes, lens, WORLD_DISKS);
    for (unsigned i = 0; status == 0 && i < nrecords && disk_stream_next(&rest, &record) > 0; i++)
        status = disk_image_apply(world->image[record.disk], &record);
    return status;
}

int world_apply(void *opaque, uint64_t term, uint64_t epoch, const struct disk_stream *writes)
{
    (void)term;
    (void)epoch;
    return world_apply_some(opaque, writes, UINT32_MAX);
}

void world_advance(struct world *world, uint64_t epoch)
{
    static uint8_t buffer[WORLD_MAX_EPOCH];
    while (world->epoch < epoch) {
        struct disk_stream stream;
        struct disk_record record;
        world_epoch(world, ++world->epoch, buffer, &stream);
        while (disk_stream_next(&stream, &record) > 0) {
            uint8_t *at = world->model[record.disk] + record.offset;
            if (record.type != DISK_RECORD_WRITE)
                memset(at, 0, record.len);
            for (unsigned i = 0; i < record.ndata; i++) {
                memcpy(at, record.data[i].iov_base, record.data[i].iov_len);
                at += record.data[i].iov_len;
            }
        }
    }
}

bool world_is_model(const struct world *world)
{
    static uint8_t read_back[WORLD_DISK_LEN];
    for (unsigned i = 0; i < WORLD_DISKS; i++) {
        if (disk_image_read(disk_image_fd(world->image[i]), read_back, WORLD_DISK_LEN, 0) < 0)
            die("read");
        if (memcmp(read_back, world->model[i], WORLD_DISK_LEN) != 0)
            return false;
    }
    return true;
}
