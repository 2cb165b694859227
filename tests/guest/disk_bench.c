/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Measures a disk from inside the test guest: what fio would do, as one static program.
 *
 *   disk-bench DEVICE
 *
 * Answers on TCP port 7001, one request a line: "KIND THREADS SECONDS", where KIND is
 *   - write-4k-fsync: 4 KiB at random places, each followed by fdatasync
 *   - write-1m: 1 MiB, one after the other, and one fdatasync at the end, within the time measured
 *   - write-deep: 1 MiB, one after the other, through the guest's page cache, which writes back what it has
 * with as many requests at a time as the device takes, and one fdatasync at the end
 *   - read-4k: 4 KiB at random places
 *   - read-1m: 1 MiB, one after the other
 *   - fill: the whole device once, so that nothing measured after it meets a hole; THREADS and SECONDS do not
 * matter The answer is "OPERATIONS BYTES NANOSECONDS P50_US P99_US", or "bad" and why. All past the guest's
 * page cache (O_DIRECT), but where it says otherwise. Each thread has a share of the device of its own. An
 * operation's time includes its fdatasync.
 *
 * "poweroff" gets no answer. Threads: one server; those of a measurement live as long as it.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PORT        7001
#define MAX_THREADS 16
#define MAX_SAMPLES 400000u

struct kind {
    const char *name;
    size_t len;
    bool writes, random, sync_each, cached;
};
static const struct kind kinds[] = {
    {.name = "write-4k-fsync", .len = 4096, .writes = true, .random = true, .sync_each = true},
    {.name = "write-1m", .len = 1u << 20, .writes = true},
    {.name = "write-deep", .len = 1u << 20, .writes = true, .cached = true},
    {.name = "read-4k", .len = 4096, .random = true},
    {.name = "read-1m", .len = 1u << 20},
};

struct worker {
    const struct kind *kind;
    pthread_t thread;
    uint64_t from, until_ns, share; /* bytes of the device, from `from` on */
    uint64_t operations;
    int error;
    uint32_t *samples; /* microseconds */
};

static const char *device;
static uint64_t device_len;

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* Bytes that no layer can take for a hole or for what was there. */
static void fill_random(uint64_t *words, size_t len, uint64_t *state)
{
    for (size_t i = 0; i < len / 8; i++)
        words[i] = next_random(state);
}

static void *work(void *opaque)
{
    struct worker *worker = opaque;
    const struct kind *kind = worker->kind;
    uint64_t state = now_ns() | 1, places = worker->share / kind->len, at = 0;
    int fd = open(device, kind->cached ? O_RDWR : O_RDWR | O_DIRECT);
    uint64_t *buffer = aligned_alloc(4096, kind->len);
    if (fd < 0 || !buffer)
        worker->error = errno;
    else
        fill_random(buffer, kind->len, &state);
    while (!worker->error) {
        uint64_t began = now_ns();
        if (began >= worker->until_ns)
            break;
        uint64_t place = kind->random ? next_random(&state) % places : at++ % places;
        off_t offset = (off_t)(worker->from + place * kind->len);
        buffer[0] = next_random(&state);
        ssize_t n =
            kind->writes ? pwrite(fd, buffer, kind->len, offset) : pread(fd, buffer, kind->len, offset);
        if (n != (ssize_t)kind->len || (kind->sync_each && fdatasync(fd) < 0))
            worker->error = n < 0 || n == (ssize_t)kind->len ? errno : EIO;
        if (worker->operations < MAX_SAMPLES)
            worker->samples[worker->operations] = (uint32_t)((now_ns() - began) / 1000);
        worker->operations++;
    }
    if (!worker->error && kind->writes && !kind->sync_each && fdatasync(fd) < 0)
        worker->error = errno;
    free(buffer);
    close(fd);
    return NULL;
}

static int ascending(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static void summarise(const struct worker *workers, unsigned n, uint64_t took_ns, char *answer, size_t size)
{
    uint64_t operations = 0, nsamples = 0;
    uint32_t *all = malloc(n * MAX_SAMPLES * sizeof *all);
    for (unsigned i = 0; i < n; i++) {
        uint64_t here = workers[i].operations < MAX_SAMPLES ? workers[i].operations : MAX_SAMPLES;
        if (workers[i].error || !all) {
            snprintf(answer, size, "bad: %s", strerror(all ? workers[i].error : ENOMEM));
            free(all);
            return;
        }
        memcpy(all + nsamples, workers[i].samples, here * sizeof *all);
        nsamples += here;
        operations += workers[i].operations;
    }
    qsort(all, nsamples, sizeof *all, ascending);
    snprintf(answer, size, "%llu %llu %llu %u %u", (unsigned long long)operations,
             (unsigned long long)(operations * workers[0].kind->len), (unsigned long long)took_ns,
             nsamples ? all[nsamples / 2] : 0, nsamples ? all[nsamples * 99 / 100] : 0);
    free(all);
}

static void measure(const struct kind *kind, unsigned n, double seconds, char *answer, size_t size)
{
    struct worker workers[MAX_THREADS] = {0};
    uint64_t began = now_ns(), share = device_len / n / (1u << 20) << 20;
    for (unsigned i = 0; i < n; i++) {
        workers[i] = (struct worker){.kind = kind,
                                     .from = i * share,
                                     .share = share,
                                     .until_ns = began + (uint64_t)(seconds * 1e9),
                                     .samples = malloc(MAX_SAMPLES * sizeof(uint32_t))};
        if (!workers[i].samples || pthread_create(&workers[i].thread, NULL, work, &workers[i]) != 0)
            exit(1);
    }
    for (unsigned i = 0; i < n; i++)
        pthread_join(workers[i].thread, NULL);
    summarise(workers, n, now_ns() - began, answer, size);
    for (unsigned i = 0; i < n; i++)
        free(workers[i].samples);
}

static void fill_device(char *answer, size_t size)
{
    uint64_t state = now_ns() | 1, done = 0, began = now_ns(), len = 1u << 20;
    uint64_t *buffer = aligned_alloc(4096, len);
    int fd = open(device, O_WRONLY | O_DIRECT);
    fill_random(buffer, len, &state);
    for (; done + len <= device_len; done += len)
        if (pwrite(fd, buffer, len, (off_t)done) != (ssize_t)len)
            break;
    bool good = done + len > device_len && fdatasync(fd) == 0;
    close(fd);
    free(buffer);
    snprintf(answer, size, good ? "1 %llu %llu 0 0" : "bad: the device cannot be filled",
             (unsigned long long)done, (unsigned long long)(now_ns() - began));
}

static void answer_line(FILE *client, const char *line)
{
    char name[32], answer[256] = "what?";
    unsigned threads = 0;
    double seconds = 0;
    if (strncmp(line, "poweroff", 8) == 0)
        reboot(RB_POWER_OFF);
    if (strncmp(line, "fill", 4) == 0)
        fill_device(answer, sizeof answer);
    else if (sscanf(line, "%31s %u %lf", name, &threads, &seconds) == 3 && threads > 0 &&
             threads <= MAX_THREADS)
        for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
            if (strcmp(name, kinds[i].name) == 0)
                measure(&kinds[i], threads, seconds, answer, sizeof answer);
    fprintf(client, "%s\n", answer);
    fflush(client);
}

int main(int argc, char **argv)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(PORT)};
    char line[128];
    int one = 1, fd = open(device = argc > 1 ? argv[1] : "", O_RDWR);
    if (fd < 0 || ioctl(fd, BLKGETSIZE64, &device_len) < 0) {
        perror(device);
        return 1;
    }
    close(fd);
    signal(SIGPIPE, SIG_IGN);
    int listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(listen_fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listen_fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(listen_fd, 4) < 0) {
        perror("disk-bench: listen");
        return 1;
    }
    for (;;) {
        int client_fd = accept(listen_fd, NULL, NULL);
        FILE *client = client_fd < 0 ? NULL : fdopen(client_fd, "r+");
        while (client && fgets(line, sizeof line, client))
            answer_line(client, line);
        if (client)
            fclose(client);
    }
}
