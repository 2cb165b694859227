/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What copying pages into staging costs, by number of pages and of helper threads, and how fast zero pages
 * are found. Pages are scattered over 512 MiB, and between two runs everything rests for a few milliseconds,
 * as between two epochs: the caches are cold and the helpers asleep.
 *
 *   copiers_bench [runs]
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "checkpoint/copiers.h"
#include "checkpoint/page_encoding.h"
#include "checkpoint/staging.h"
#include "common/histogram.h"

#define RAM_PAGES (512u * 256u)

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

static uint8_t *guest_ram(void)
{
    size_t len = (size_t)RAM_PAGES * STAGING_PAGE_LEN;
    int fd = memfd_create("bench-ram", MFD_CLOEXEC);
    uint8_t *ram = MAP_FAILED;
    if (fd >= 0 && ftruncate(fd, (off_t)len) == 0)
        ram = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (ram == MAP_FAILED) {
        perror("guest memory");
        exit(1);
    }
    close(fd);
    memset(ram, 1, len);
    return ram;
}

/* n pages in ascending order, as a bitmap gives them, in short runs. */
static void list_pages(struct copy_job *jobs, size_t n, const uint8_t *ram, const struct staging *staging)
{
    size_t stride = RAM_PAGES / n, first = (size_t)rand() % stride;
    for (size_t i = 0; i < n; i++) {
        size_t page = (i & ~(size_t)3) * stride + (i & 3) + first;
        jobs[i] = (struct copy_job){.source = ram + page % RAM_PAGES * STAGING_PAGE_LEN,
                                    .destination = staging_slot(staging, (uint32_t)i)};
    }
}

static void measure_copy(struct copiers *copiers, int helpers, size_t n, unsigned runs, const uint8_t *ram,
                         const struct staging *staging)
{
    struct copy_job *jobs = calloc(n, sizeof *jobs);
    struct histogram *ns = histogram_new();
    struct timespec rest = {.tv_nsec = 5000000};
    for (unsigned run = 0; jobs && run < runs; run++) {
        list_pages(jobs, n, ram, staging);
        nanosleep(&rest, NULL);
        uint64_t began = now_ns();
        copiers_run(copiers, jobs, n);
        histogram_record(ns, now_ns() - began);
    }
    printf("%6zu pages  %d helpers  p50 %7.1f us  p99 %7.1f us  max %7.1f us\n", n, helpers,
           (double)histogram_percentile(ns, 50) / 1e3, (double)histogram_percentile(ns, 99) / 1e3,
           (double)histogram_max(ns) / 1e3);
    histogram_free(ns);
    free(jobs);
}

static void measure_zero(const struct staging *staging)
{
    const uint32_t pages = 8192;
    uint32_t zeroes = 0;
    memset(staging_slot(staging, 0), 0, (size_t)pages * STAGING_PAGE_LEN);
    uint64_t began = now_ns();
    for (unsigned round = 0; round < 20; round++) {
        for (uint32_t i = 0; i < pages; i++)
            zeroes += page_is_zero(staging_slot(staging, i));
    }
    double seconds = (double)(now_ns() - began) / 1e9;
    printf("zero pages: %.1f GB/s, %.0f ns each (%u found)\n",
           (double)zeroes * STAGING_PAGE_LEN / 1e9 / seconds, seconds * 1e9 / zeroes, zeroes);
}

int main(int argc, char **argv)
{
    static const size_t sizes[] = {100, 200, 500, 1000, 5000};
    unsigned runs = argc > 1 ? (unsigned)atoi(argv[1]) : 200;
    int processors = (int)sysconf(_SC_NPROCESSORS_ONLN);
    struct staging *staging;
    if (staging_open(&staging, 8192, 64) < 0)
        return 1;
    uint8_t *ram = guest_ram();
    for (int helpers = 0; helpers < processors && helpers <= 4; helpers++) {
        struct copiers *copiers;
        if (copiers_open(&copiers, helpers) < 0)
            return 1;
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
            measure_copy(copiers, helpers, sizes[i], runs, ram, staging);
        copiers_close(copiers);
    }
    measure_zero(staging);
    staging_close(staging);
    return 0;
}
