/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The disk workload of the test guest: one static program that writes, as fast as it can unless told
 * otherwise, makes each operation durable, tells a client, and remembers what each block must hold.
 * disk_model.h says what it writes.
 *
 *   disk STREAMS NBLOCKS THINK-MS FOLDER [DEVICE]     FOLDER "-": no file system, the device only
 *
 * STREAMS streams on the file system at FOLDER, NBLOCKS blocks each, and one more on the bare DEVICE. Each
 * waits THINK-MS after an operation. Every second stream writes past the page cache. Nothing is written until
 * a client watches. TCP port 7001, a command a line:
 *
 *   - watch: the answer is "nonce N streams T blocks B bare X", then the operations as they become durable,
 * "t s accident" a line; "failed t s REASON" for one that the disk refused: that stream has ended
 *   - verify: between two operations everything is read back from the disk, past all caches: "verified N"
 * blocks, or "bad" and what is
 *   - md5 DEVICE: "SUM  DEVICE", of all that it holds
 *   - trim: the file system gives back what it does not use; "trimmed N" bytes
 *   - stop: no more operations; the watcher hears "end t s chain" for each stream, the file system is
 * unmounted, then "stopped" to both
 *   - poweroff: without an answer
 *
 * Threads: one for each stream (disk_streams.h) and each connection. A mutex guards the watcher's socket.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/random.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "disk_streams.h"

/* What is not heard while output is held must not keep the streams from writing. */
#define WATCHER_BUFFER (32 << 20)

static pthread_mutex_t watcher_lock = PTHREAD_MUTEX_INITIALIZER;
static bool stopped;
static int watcher = -1;

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

/* ---- commands ---- */

static void watch(int fd)
{
    char line[128];
    snprintf(line, sizeof line, "nonce %llu streams %u blocks %llu bare %d\n",
             (unsigned long long)workload.nonce, workload.nstreams, (unsigned long long)workload.nblocks,
             workload.device ? 1 : 0);
    pthread_mutex_lock(&watcher_lock);
    bool first = watcher < 0 && workload.streams[0].seq == 0;
    if (first)
        watcher = fd;
    pthread_mutex_unlock(&watcher_lock);
    int size = WATCHER_BUFFER;
    setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size);
    if (!first) {
        dprintf(fd, "somebody watches or has watched already\n");
        return;
    }
    tell(line);
    streams_resume();
}

static void trim(char *answer, size_t size)
{
    struct fstrim_range range = {.len = UINT64_MAX};
    int fd = open(workload.folder, O_RDONLY | O_DIRECTORY), status = fd < 0 ? -1 : ioctl(fd, FITRIM, &range);
    if (status < 0)
        snprintf(answer, size, "bad: trim: %s", strerror(errno));
    else
        snprintf(answer, size, "trimmed %llu", (unsigned long long)range.len);
    close(fd);
}

/* busybox answers itself. */
static void sum_up(int fd, const char *device)
{
    pid_t pid = fork();
    if (pid == 0) {
        dup2(fd, STDOUT_FILENO);
        dup2(fd, STDERR_FILENO);
        execl("/bin/busybox", "busybox", "md5sum", device, (char *)NULL);
        _exit(1);
    }
    waitpid(pid, NULL, 0);
}

static void stop(char *answer, size_t size)
{
    char line[128];
    streams_pause(); /* and never resumed */
    for (uint32_t t = 0; !stopped && t < workload.nstreams; t++) {
        struct stream *stream = &workload.streams[t];
        close(stream->fd);
        snprintf(line, sizeof line, "end %u %llu %llu\n", t, (unsigned long long)stream->seq,
                 (unsigned long long)stream->chain);
        tell(line);
    }
    sync();
    snprintf(answer, size, "stopped");
    if (!stopped && strcmp(workload.folder, "-") != 0 && umount2(workload.folder, 0) < 0)
        snprintf(answer, size, "bad: %s cannot be unmounted: %s", workload.folder, strerror(errno));
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
    if (strncmp(line, "md5 ", 4) == 0) {
        sum_up(fd, line + 4);
        return;
    }
    if (strcmp(line, "verify") == 0) {
        streams_pause();
        streams_verify(answer, sizeof answer);
        streams_resume();
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
    if (argc < 5)
        return 2;
    uint32_t on_files = (uint32_t)atoi(argv[1]);
    workload.nblocks = strtoull(argv[2], NULL, 10);
    workload.think_ms = (uint32_t)atoi(argv[3]);
    workload.folder = argv[4];
    workload.device = argc > 5 ? argv[5] : NULL;
    if (strcmp(workload.folder, "-") == 0)
        on_files = 0;
    workload.nstreams = on_files + (workload.device ? 1 : 0);
    if (workload.nstreams == 0 || workload.nstreams > MODEL_MAX_STREAMS ||
        workload.nblocks < MODEL_MAX_BLOCKS)
        return 2;
    signal(SIGPIPE, SIG_IGN);
    if (getrandom(&workload.nonce, sizeof workload.nonce, 0) != sizeof workload.nonce)
        die("disk: getrandom");
    for (uint32_t t = 0; t < workload.nstreams; t++)
        stream_open(&workload.streams[t], t, t == on_files);
    sync();
    int listen_fd = listen_tcp();
    workload.tell = tell;
    if (!streams_begin())
        die("disk: threads");
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
