/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How fast a disk's chunks are hashed, by what is in them: data, zeroes that were written, holes. From the
 * page cache: a real disk is mostly slower.
 *
 *   disk_hash_bench [MiB] [runs]
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "checkpoint/disk/disk_hash.h"
#include "checkpoint/disk/disk_map.h"

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void measure(const char *what, int fd, uint64_t len, unsigned runs)
{
    uint32_t nchunks = (uint32_t)(len / DISK_CHUNK_LEN);
    uint8_t *hashes = malloc((size_t)nchunks * DISK_HASH_LEN);
    double best = 1e9;
    for (unsigned run = 0; hashes && run < runs; run++) {
        double began = now_s();
        if (disk_hash_chunks(fd, len, 0, nchunks, hashes) < 0)
            exit(1);
        double took = now_s() - began;
        best = took < best ? took : best;
    }
    printf("%-8s %9.0f MiB/s  %8.2f us a chunk\n", what, (double)len / best / 1048576, best * 1e6 / nchunks);
    free(hashes);
}

static void fill(int fd, uint64_t len, bool zero)
{
    static uint8_t bytes[DISK_CHUNK_LEN];
    for (uint64_t offset = 0; offset < len; offset += sizeof bytes) {
        for (size_t i = 0; i < sizeof bytes; i++)
            bytes[i] = zero ? 0 : (uint8_t)(i * 7 + offset / sizeof bytes);
        if (pwrite(fd, bytes, sizeof bytes, (off_t)offset) != sizeof bytes)
            exit(1);
    }
}

int main(int argc, char **argv)
{
    uint64_t len = (argc > 1 ? strtoull(argv[1], NULL, 10) : 256) << 20;
    unsigned runs = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : 5;
    int fd = memfd_create("bench-disk", MFD_CLOEXEC);
    if (fd < 0 || len == 0 || ftruncate(fd, (off_t)len) < 0)
        return 1;
    measure("holes", fd, len, runs);
    fill(fd, len, true);
    measure("zeroes", fd, len, runs);
    fill(fd, len, false);
    measure("data", fd, len, runs);
    return 0;
}
