/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * See disk_streams.h. One mutex guards who is paused: a stream parks between two operations, for ever once
 * the disk has refused it one.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "disk_streams.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define ANYTHING UINT64_MAX /* as a block's seq: after a discard or a refused write */

struct workload workload;
static pthread_mutex_t pause_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t pause_changed = PTHREAD_COND_INITIALIZER;
static uint32_t paused = 1, parked; /* nobody watches yet */

static uint64_t clock_accident(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

static void name_of(const struct stream *stream, uint32_t small, const char *suffix, char *path, size_t size)
{
    if (stream->bare)
        snprintf(path, size, "%s", workload.device);
    else if (small)
        snprintf(path, size, "%s/%u.%u%s", workload.folder, stream->number, small - 1, suffix);
    else
        snprintf(path, size, "%s/%u", workload.folder, stream->number);
}

/* ---- pausing ---- */

/* Returns when no operation is under way; none begins until streams_resume. */
void streams_pause(void)
{
    pthread_mutex_lock(&pause_lock);
    paused++;
    while (parked < workload.nstreams)
        pthread_cond_wait(&pause_changed, &pause_lock);
    pthread_mutex_unlock(&pause_lock);
}

void streams_resume(void)
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
    int folder_fd = status == 0 ? open(workload.folder, O_RDONLY | O_DIRECTORY) : -1;
    if (status == 0)
        status = or_errno(fsync(folder_fd));
    if (folder_fd >= 0)
        close(folder_fd);
    return status;
}

static int cut_and_grow(const struct stream *stream, uint64_t first)
{
    int status = or_errno(ftruncate(stream->fd, (off_t)(first * MODEL_BLOCK_LEN)));
    return status ? status : or_errno(ftruncate(stream->fd, (off_t)(workload.nblocks * MODEL_BLOCK_LEN)));
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
        model_fill(stream->buffer, workload.nonce, stream->number, (uint32_t)operation->first + 1, 0,
                   stream->seq, stream->chain);
    for (uint64_t i = 0; operation->kind == MODEL_WRITE && i < operation->nblocks; i++)
        model_fill(&stream->buffer[i], workload.nonce, stream->number, 0, operation->first + i, stream->seq,
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
            model_operation_of(workload.nonce, stream->number, stream->seq, workload.nblocks, stream->bare);
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
        workload.tell(line);
        if (workload.think_ms)
            usleep(1000 * workload.think_ms);
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
    return model_is_whole(block, workload.nonce, stream->number, small, number) &&
           block->seq == wanted->seq && block->chain == wanted->chain;
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
void streams_verify(char *why, size_t size)
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
    for (uint32_t t = 0; good && t < workload.nstreams; t++) {
        const struct stream *stream = &workload.streams[t];
        good = verify_file(stream, 0, stream->blocks, workload.nblocks, buffer, why, size);
        for (uint32_t small = 1; good && !stream->bare && small <= MODEL_SMALL_FILES; small++)
            good = verify_file(stream, small, &stream->small[small - 1], 1, buffer, why, size);
        verified += workload.nblocks;
    }
    free(buffer);
    if (good)
        snprintf(why, size, "verified %llu", (unsigned long long)verified);
}

/* ---- start ---- */

static void die(const char *what)
{
    perror(what);
    exit(1);
}

void stream_open(struct stream *stream, uint32_t number, bool bare)
{
    char path[256];
    *stream = (struct stream){.number = number, .bare = bare};
    name_of(stream, 0, "", path, sizeof path);
    stream->fd =
        open(path, O_RDWR | (bare ? 0 : O_CREAT | O_TRUNC) | (number % 2 || bare ? O_DIRECT : 0), 0644);
    stream->blocks = calloc(workload.nblocks, sizeof *stream->blocks);
    stream->buffer = aligned_alloc(MODEL_BLOCK_LEN, (size_t)MODEL_MAX_BLOCKS * MODEL_BLOCK_LEN);
    if (stream->fd < 0 || !stream->blocks || !stream->buffer)
        die(path);
    for (uint32_t small = 1; !bare && small <= MODEL_SMALL_FILES; small++) {
        name_of(stream, small, "", path, sizeof path);
        if (unlink(path) < 0 && errno != ENOENT)
            die(path);
    }
    struct model_operation all = {.kind = MODEL_ZERO, .nblocks = workload.nblocks};
    if (bare ? wipe(stream, &all) < 0
             : ftruncate(stream->fd, (off_t)(workload.nblocks * MODEL_BLOCK_LEN)) < 0)
        die(path);
    if (fsync(stream->fd) < 0)
        die(path);
}

bool streams_begin(void)
{
    pthread_t thread;
    for (uint32_t t = 0; t < workload.nstreams; t++)
        if (pthread_create(&thread, NULL, run_stream, &workload.streams[t]) != 0)
            return false;
    return true;
}
