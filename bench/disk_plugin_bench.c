/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Serves a disk by nbdkit with the plugin, as the replicator would, while a command runs; for
 * bench/disk_plugin.sh.
 *
 *   disk_plugin_bench PLUGIN logging|durable MIB COMMAND...
 *
 * COMMAND finds the NBD socket in $SOCKET. Logging: a consumer copies the ring out every 20 ms, or when the
 * plugin asks for it, as the capture thread does. At the end the figures of the shared memory go to standard
 * error.
 */
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/futex.h"
#include "replicator/disk/plugin/disk_ring.h"
#include "tests/disk/disk_fixture.h"

#define RING_LEN      (256u << 20) /* this and the mark: as replicator/disk/disks.c has them */
#define EPOCH_MS      20
#define GIVE_BACK_LEN (2u << 20)

static struct disk_fixture fixture;
static uint8_t *staging;
static uint64_t taken;
static atomic_bool stop;

/* As replicator/disk/disks_epoch.c does: the ring's memory is not kept. */
static void give_back(uint64_t from, uint64_t to)
{
    from = (from + 4095) & ~4095ull;
    to &= ~4095ull;
    while (from < to) {
        uint64_t at = from % RING_LEN, len = to - from < RING_LEN - at ? to - from : RING_LEN - at;
        if (fallocate(fixture.fds.shm, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                      (off_t)(DISK_SHM_RING_OFFSET + at), (off_t)len) < 0)
            abort();
        from += len;
    }
}

static void copy_out(void)
{
    struct disk_shm *shm = fixture.shm;
    uint64_t tail = atomic_load(&shm->tail), head = atomic_load_explicit(&shm->head, memory_order_acquire);
    struct disk_stream stream;
    size_t copied = 0;
    disk_stream_of_ring(&stream, (uint8_t *)shm + DISK_SHM_RING_OFFSET, RING_LEN, taken, head - taken);
    for (unsigned i = 0; i < 2; i++) {
        memcpy(staging + copied, stream.span[i].iov_base, stream.span[i].iov_len);
        copied += stream.span[i].iov_len;
    }
    taken = head;
    if (head - tail < GIVE_BACK_LEN)
        return;
    give_back(tail, head);
    atomic_store_explicit(&shm->tail, head, memory_order_release);
    atomic_fetch_add(&shm->room_seq, 1);
    disk_futex_wake(&shm->room_seq);
}

static void *consume(void *opaque)
{
    (void)opaque;
    while (!atomic_load(&stop)) {
        struct pollfd wait = {.fd = fixture.fds.attention, .events = POLLIN};
        uint64_t count;
        if (poll(&wait, 1, EPOCH_MS) > 0 && read(fixture.fds.attention, &count, sizeof count) > 0)
            atomic_exchange(&fixture.shm->attention, 0);
        copy_out();
    }
    return NULL;
}

static int run(char **command)
{
    int status = -1;
    pid_t child = fork();
    if (child == 0) {
        setenv("SOCKET", fixture.socket_path, 1);
        execvp(command[0], command);
        _exit(127);
    }
    if (child > 0)
        waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

int main(int argc, char **argv)
{
    pthread_t consumer;
    if (argc < 5 || (strcmp(argv[2], "logging") != 0 && strcmp(argv[2], "durable") != 0)) {
        fprintf(stderr, "usage: %s PLUGIN logging|durable MIB COMMAND...\n", argv[0]);
        return 2;
    }
    bool logging = strcmp(argv[2], "logging") == 0;
    disk_fixture_open(&fixture, NULL, strtoull(argv[3], NULL, 10) << 20, RING_LEN);
    fixture.shm->mark = 8u << 20;
    staging = malloc(RING_LEN);
    if (!staging)
        return 1;
    memset(staging, 1, RING_LEN);
    disk_fixture_order(&fixture, DISK_WRITABLE | (logging ? DISK_LOGGING : DISK_DURABLE), 0);
    disk_fixture_start_nbdkit(&fixture, argv[1], NULL);
    if (pthread_create(&consumer, NULL, consume, NULL) != 0)
        return 1;
    int status = run(argv + 4);
    disk_fixture_end_nbdkit(&fixture, SIGTERM);
    atomic_store(&stop, true);
    pthread_join(consumer, NULL);
    fprintf(stderr, "disk_plugin_bench: %llu writes, %llu MiB logged, %llu waits of %llu us in all%s\n",
            (unsigned long long)atomic_load(&fixture.shm->writes),
            (unsigned long long)atomic_load(&fixture.shm->head) >> 20,
            (unsigned long long)atomic_load(&fixture.shm->waits),
            (unsigned long long)atomic_load(&fixture.shm->wait_us),
            atomic_load(&fixture.shm->detached) ? "; DETACHED" : "");
    disk_fixture_close(&fixture);
    free(staging);
    return status;
}
