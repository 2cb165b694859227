/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The disk workload of the test guest: one static program that writes as fast as it can, makes each operation
 * durable, tells a client, and remembers what each block must hold. disk_model.h says what it writes.
 *
 *   disk STREAMS NBLOCKS FOLDER [DEVICE]     FOLDER "-": no file system, the device only
 *
 * STREAMS streams on the file system at FOLDER, NBLOCKS blocks each, and one more on the bare DEVICE. Every
 * second stream writes past the page cache. Nothing is written until a client watches. TCP port 7001, a
 * command a line:
 *
 *   - watch: the answer is "nonce N streams T blocks B bare X", then the operations as they become durable,
 * "t s accident" a line; "failed t s REASON" for one that the disk refused: that stream has ended
 *   - verify: between two operations everything is read back from the disk, past all caches: "verified N"
 * blocks, or "bad" and what is
 *   - trim: the file system gives back what it does not use; "trimmed N" bytes
 *   - stop: no more operations; the watcher hears "end t s chain" for each stream, the file system is
 * unmounted, then "stopped" to both
 *   - poweroff: without an answer
 *
 * Threads: one for each stream and each connection. A stream's state is its own thread's, and that of whoever
 * has paused all streams (pause_streams). One mutex guards who is paused, another the watcher's socket.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/random.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "disk_model.h"

#define ANYTHING UINT64_MAX /* as a block's seq: after a discard or a refused write */

struct expected {
    uint64_t seq, chain; /* seq 0: zeroes, or no small file */
};

struct stream {
    uint32_t number;
    bool bare, failed;
    int fd;
    uint64_t seq, chain;
    struct expected *blocks, small[MODEL_SMALL_FILES];
    struct model_block *buffer; /* MODEL_MAX_BLOCKS of them, aligned */
};

static struct stream streams[MODEL_MAX_STREAMS];
static uint32_t nstreams;
static uint64_t nonce, nblocks;
static const char *folder, *device;

static pthread_mutex_t pause_lock = PTHREAD_MUTEX_INITIALIZER, watcher_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t pause_changed = PTHREAD_COND_INITIALIZER;
static uint32_t paused = 1, parked; /* nobody watches yet */
static bool stopped;
static int watcher = -1;

static uint64_t clock_accident(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

static void name_of(const struct stream *stream, uint32_t small, const char *suffix, char *path, size_t size)
{
    if (stream->bare)
        snprintf(path, size, "%s", device);
    else if (small)
        snprintf(path, size, "%s/%u.%u%s", folder, stream->number, small - 1, suffix);
    else
        snprintf(path, size, "%s/%u", folder, stream->number);
}

/* ---- what a client hears ---- */

static void tell(const char *line)
{
    pthread_mutex_lock(&watcher_lock);
    if (watcher >= 0 && write(watcher, line, strlen(line)) < 0) {
        shutdown(watcher, SHUT_RDWR);
        watcher = -1;
    }
    pthread_mutex_unlock(&watcher_lock);
}

/* ---- pausing ---- */

/* Returns when no operation is under way; none begins until resume_streams. */
static void pause_streams(void)
{
    pthread_mutex_lock(&pause_lock);
    paused++;
    while (parked < nstreams)
        pthread_cond_wait(&pause_changed, &pause_lock);
    pthread_mutex_unlock(&pause_lock);
}

static void resume_streams(void)
{
    pthread_mutex_lock(&pause_lock);
    paused--;
    pthread_cond_broadcast(&pause_changed);
    pthread_mutex_unlock(&pause_lock);
}

static void park_while_paused(void)
{
    pthread_mutex_lock(&pause_lock);
    parked++;
    pthread_cond_broadcast(&pause_changed);
    while (paused)
        pthread_cond_wait(&pause_changed, &pause_lock);
    parked--;
    pthread_mutex_unlock(&pause_lock);
}

/* ---- operations ---- */

/* pwrite until all is written. 0 or -errno. */
static int write_all(int fd, const void *data, size_t len, uint64_t offset)
{
    for (size_t done = 0; done < len;) {
        ssize_t n = pwrite(fd, (const char *)data + done, len - done, (off_t)(offset + done));
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        done += (size_t)n;
    }
    return 0;
}

static int or_errno(int result)
{
    return result < 0 ? -errno : 0;
}

static int replace_small(struct stream *stream, uint32_t small)
{
    char fresh[256], path[256];
    name_of(stream, small + 1, ".new", fresh, sizeof fresh);
    name_of(stream, small + 1, "", path, sizeof path);
    int fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (fd < 0)
        return -errno;
    int status = write_all(fd, stream->buffer, MODEL_BLOCK_LEN, 0);
    if (status == 0)
        status = or_errno(fsync(fd));
    close(fd);
    if (status == 0)
        status = or_errno(rename(fresh, path));
    int folder_fd = status == 0 ? open(folder, O_RDONLY | O_DIRECTORY) : -1;
    if (status == 0)
        status = or_errno(fsync(folder_fd));
    if (folder_fd >= 0)
        close(folder_fd);
    return status;
}

static int cut_and_grow(const struct stream *stream, uint64_t first)
{
    int status = or_errno(ftruncate(stream->fd, (off_t)(first * MODEL_BLOCK_LEN)));
    return status ? status : or_errno(ftruncate(stream->fd, (off_t)(nblocks * MODEL_BLOCK_LEN)));
}

static int wipe(const struct stream *stream, const struct model_operation *operation)
{
    uint64_t range[2] = {operation->first * MODEL_BLOCK_LEN, operation->nblocks * MODEL_BLOCK_LEN};
    if (stream->bare)
        return or_errno(ioctl(stream->fd, operation->kind == MODEL_DISCARD ? BLKDISCARD : BLKZEROOUT, range));
    int mode =
        operation->kind == MODEL_PUNCH ? FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE : FALLOC_FL_ZERO_RANGE;
    return or_errno(fallocate(stream->fd, mode, (off_t)range[0], (off_t)range[1]));
}

/* Durable when it returns. 0 or -errno. */
static int carry_out(struct stream *stream, const struct model_operation *operation)
{
    int status;
    if (operation->kind == MODEL_REPLACE)
        return replace_small(stream, (uint32_t)operation->first);
    if (operation->kind == MODEL_WRITE)
        status = write_all(stream->fd, stream->buffer, operation->nblocks * MODEL_BLOCK_LEN,
                           operation->first * MODEL_BLOCK_LEN);
    else if (operation->kind == MODEL_TRUNCATE)
        status = cut_and_grow(stream, operation->first);
    else
        status = wipe(stream, operation);
    return status ? status : or_errno(fdatasync(stream->fd));
}

static void fill(struct stream *stream, const struct model_operation *operation)
{
    if (operation->kind == MODEL_REPLACE)
        model_fill(stream->buffer, nonce, stream->number, (uint32_t)operation->first + 1, 0, stream->seq,
                   stream->chain);
    for (uint64_t i = 0; operation->kind == MODEL_WRITE && i < operation->nblocks; i++)
        model_fill(&stream->buffer[i], nonce, stream->number, 0, operation->first + i, stream->seq,
                   stream->chain);
}

static void remember(struct stream *stream, const struct model_operation *operation)
{
    struct expected now = {.seq = stream->seq, .chain = stream->chain};
    if (stream->failed || operation->kind == MODEL_DISCARD)
        now = (struct expected){.seq = ANYTHING};
    else if (operation->kind != MODEL_WRITE && operation->kind != MODEL_REPLACE)
        now = (struct expected){.seq = 0};
    if (operation->kind == MODEL_REPLACE)
        stream->small[operation->first] = now;
    for (uint64_t i = 0; operation->kind != MODEL_REPLACE && i < operation->nblocks; i++)
        stream->blocks[operation->first + i] = now;
}

static void *run_stream(void *opaque)
{
    struct stream *stream = opaque;
    char line[128];
    while (!stream->failed) {
        park_while_paused();
        uint64_t accident = clock_accident();
        stream->seq++;
        stream->chain = model_chain(stream->chain, accident);
        struct model_operation operation =
            model_operation_of(nonce, stream->number, stream->seq, nblocks, stream->bare);
        fill(stream, &operation);
        int status = carry_out(stream, &operation);
        stream->failed = status < 0;
        remember(stream, &operation);
        if (status < 0)
            snprintf(line, sizeof line, "failed %u %llu %s\n", stream->number,
                     (unsigned long long)stream->seq, strerror(-status));
        else
            snprintf(line, sizeof line, "%u %llu %llu\n", stream->number, (unsigned long long)stream->seq,
                     (unsigned long long)accident);
        tell(line);
    }
    pthread_mutex_lock(&pause_lock);
    parked++; /* for ever */
    pthread_cond_broadcast(&pause_changed);
    pthread_mutex_unlock(&pause_lock);
    return NULL;
}

/* ---- verifying ---- */

static bool holds(const struct stream *stream, uint32_t small, uint64_t number, const struct expected *wanted,
                  const struct model_block *block)
{
    if (wanted->seq == ANYTHING)
        return true;
    if (wanted->seq == 0)
        return model_is_zero(block);
    return model_is_whole(block, nonce, stream->number, small, number) && block->seq == wanted->seq &&
           block->chain == wanted->chain;
}

/* A whole file against what it should hold. False: why says what is wrong. */
static bool verify_file(const struct stream *stream, uint32_t small, const struct expected *wanted,
                        uint64_t n, struct model_block *buffer, char *why, size_t size)
{
    char path[256];
    name_of(stream, small, "", path, sizeof path);
    int fd = open(path, O_RDONLY | O_DIRECT);
    if (fd < 0) {
        snprintf(why, size, "bad %s: %s", path, strerror(errno));
        return small && wanted->seq == 0 && errno == ENOENT;
    }
    bool good = true;
    for (uint64_t first = 0; good && first < n; first += MODEL_MAX_BLOCKS) {
        uint64_t here = n - first < MODEL_MAX_BLOCKS ? n - first : MODEL_MAX_BLOCKS;
        ssize_t len = pread(fd, buffer, here * MODEL_BLOCK_LEN, (off_t)(first * MODEL_BLOCK_LEN));
        good = len == (ssize_t)(here * MODEL_BLOCK_LEN);
        if (!good)
            snprintf(why, size, "bad %s block %llu: cannot be read: %s", path, (unsigned long long)first,
                     len < 0 ? strerror(errno) : "the file is short");
        for (uint64_t i = 0; good && i < here; i++) {
            good = holds(stream, small, first + i, &wanted[first + i], &buffer[i]);
            if (!good)
                snprintf(why, size, "bad %s block %llu: has operation %llu of stream %u, should have %llu",
                         path, (unsigned long long)(first + i), (unsigned long long)buffer[i].seq,
                         buffer[i].stream, (unsigned long long)wanted[first + i].seq);
        }
    }
    close(fd);
    return good;
}

/* Everything of all streams, which are paused, from the disk itself. */
static void verify(char *why, size_t size)
{
    static const char three[] = "3";
    struct model_block *buffer = aligned_alloc(MODEL_BLOCK_LEN, (size_t)MODEL_MAX_BLOCKS * MODEL_BLOCK_LEN);
    uint64_t verified = 0;
    sync();
    int caches = open("/proc/sys/vm/drop_caches", O_WRONLY);
    bool good = caches >= 0 && write(caches, three, 1) == 1;
    if (!good)
        snprintf(why, size, "bad: the caches cannot be dropped: %s", strerror(errno));
    close(caches);
    for (uint32_t t = 0; good && t < nstreams; t++) {
        const struct stream *stream = &streams[t];
        good = verify_file(stream, 0, stream->blocks, nblocks, buffer, why, size);
        for (uint32_t small = 1; good && !stream->bare && small <= MODEL_SMALL_FILES; small++)
            good = verify_file(stream, small, &stream->small[small - 1], 1, buffer, why, size);
        verified += nblocks;
    }
    free(buffer);
    if (good)
        snprintf(why, size, "verified %llu", (unsigned long long)verified);
}

/* ---- commands ---- */

static void watch(int fd)
{
    char line[128];
    snprintf(line, sizeof line, "nonce %llu streams %u blocks %llu bare %d\n", (unsigned long long)nonce,
             nstreams, (unsigned long long)nblocks, device ? 1 : 0);
    pthread_mutex_lock(&watcher_lock);
    bool first = watcher < 0 && streams[0].seq == 0;
    if (first)
        watcher = fd;
    pthread_mutex_unlock(&watcher_lock);
    if (!first) {
        dprintf(fd, "somebody watches or has watched already\n");
        return;
    }
    tell(line);
    resume_streams();
}

static void trim(char *answer, size_t size)
{
    struct fstrim_range range = {.len = UINT64_MAX};
    int fd = open(folder, O_RDONLY | O_DIRECTORY), status = fd < 0 ? -1 : ioctl(fd, FITRIM, &range);
    if (status < 0)
        snprintf(answer, size, "bad: trim: %s", strerror(errno));
    else
        snprintf(answer, size, "trimmed %llu", (unsigned long long)range.len);
    close(fd);
}

static void stop(char *answer, size_t size)
{
    char line[128];
    pause_streams(); /* and never resumed */
    for (uint32_t t = 0; !stopped && t < nstreams; t++) {
        struct stream *stream = &streams[t];
        close(stream->fd);
        snprintf(line, sizeof line, "end %u %llu %llu\n", t, (unsigned long long)stream->seq,
                 (unsigned long long)stream->chain);
        tell(line);
    }
    sync();
    snprintf(answer, size, "stopped");
    if (!stopped && strcmp(folder, "-") != 0 && umount2(folder, 0) < 0)
        snprintf(answer, size, "bad: %s cannot be unmounted: %s", folder, strerror(errno));
    stopped = true;
    snprintf(line, sizeof line, "%s\n", answer);
    tell(line);
}

static void obey(int fd, const char *line)
{
    char answer[512] = "what?";
    if (strcmp(line, "watch") == 0) {
        watch(fd);
        return;
    }
    if (strcmp(line, "verify") == 0) {
        pause_streams();
        verify(answer, sizeof answer);
        resume_streams();
    } else if (strcmp(line, "trim") == 0) {
        trim(answer, sizeof answer);
    } else if (strcmp(line, "stop") == 0) {
        stop(answer, sizeof answer);
    } else if (strcmp(line, "poweroff") == 0) {
        reboot(RB_POWER_OFF);
    }
    pthread_mutex_lock(&watcher_lock);
    bool told = fd == watcher;
    pthread_mutex_unlock(&watcher_lock);
    if (!told)
        dprintf(fd, "%s\n", answer);
}

static void *serve(void *opaque)
{
    char line[128];
    FILE *commands = opaque;
    while (fgets(line, sizeof line, commands)) {
        line[strcspn(line, "\n")] = 0;
        obey(fileno(commands), line);
    }
    pthread_mutex_lock(&watcher_lock);
    if (watcher == fileno(commands))
        watcher = -1;
    pthread_mutex_unlock(&watcher_lock);
    fclose(commands);
    return NULL;
}

/* ---- start ---- */

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void open_stream(struct stream *stream, uint32_t number, bool bare)
{
    char path[256];
    *stream = (struct stream){.number = number, .bare = bare};
    name_of(stream, 0, "", path, sizeof path);
    stream->fd =
        open(path, O_RDWR | (bare ? 0 : O_CREAT | O_TRUNC) | (number % 2 || bare ? O_DIRECT : 0), 0644);
    stream->blocks = calloc(nblocks, sizeof *stream->blocks);
    stream->buffer = aligned_alloc(MODEL_BLOCK_LEN, (size_t)MODEL_MAX_BLOCKS * MODEL_BLOCK_LEN);
    if (stream->fd < 0 || !stream->blocks || !stream->buffer)
        die(path);
    for (uint32_t small = 1; !bare && small <= MODEL_SMALL_FILES; small++) {
        name_of(stream, small, "", path, sizeof path);
        if (unlink(path) < 0 && errno != ENOENT)
            die(path);
    }
    struct model_operation all = {.kind = MODEL_ZERO, .nblocks = nblocks};
    if (bare ? wipe(stream, &all) < 0 : ftruncate(stream->fd, (off_t)(nblocks * MODEL_BLOCK_LEN)) < 0)
        die(path);
    if (fsync(stream->fd) < 0)
        die(path);
}

static int listen_tcp(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(MODEL_PORT)};
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, 16) < 0)
        die("disk: listen");
    return fd;
}

int main(int argc, char **argv)
{
    pthread_t thread;
    if (argc < 4)
        return 2;
    uint32_t on_files = (uint32_t)atoi(argv[1]);
    nblocks = strtoull(argv[2], NULL, 10);
    folder = argv[3];
    device = argc > 4 ? argv[4] : NULL;
    if (strcmp(folder, "-") == 0)
        on_files = 0;
    nstreams = on_files + (device ? 1 : 0);
    if (nstreams == 0 || nstreams > MODEL_MAX_STREAMS || nblocks < MODEL_MAX_BLOCKS)
        return 2;
    signal(SIGPIPE, SIG_IGN);
    if (getrandom(&nonce, sizeof nonce, 0) != sizeof nonce)
        die("disk: getrandom");
    for (uint32_t t = 0; t < nstreams; t++)
        open_stream(&streams[t], t, t == on_files);
    sync();
    int listen_fd = listen_tcp();
    for (uint32_t t = 0; t < nstreams; t++)
        if (pthread_create(&thread, NULL, run_stream, &streams[t]) != 0)
            die("disk: thread");
    printf("understudy-disk: ready\n");
    fflush(stdout);
    for (;;) {
        int one = 1, fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);
        FILE *commands = fd < 0 ? NULL : fdopen(fd, "r+");
        if (!commands)
            continue;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        if (pthread_create(&thread, NULL, serve, commands) == 0)
            pthread_detach(thread);
        else
            fclose(commands);
    }
}
