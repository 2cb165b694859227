/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the transports alone can do: made-up epochs from staging to staging, acked as soon as they are whole,
 * as a secondary does. No guest, no image. bench/transport.sh runs it beside ib_write_bw and iperf3 on the
 * same link.
 *
 *   transport_bench receive ADDRESS PORT                    serves one connection after the other: RDMA and
 * TCP transport_bench send rdma|tcp ADDRESS PORT SECONDS ROUNDS
 *
 * The sender prints JSON. Throughput: of batches of so many pages, with up to UNDER_WAY of them under way, as
 * the replicator's sender has them, and the processor time of each side for a GiB. Commit: for epochs of 10
 * to 10,000 pages how long it takes from the call to the ack, one epoch at a time.
 *
 * Threads of the sender: main sends; another receives acks and credits and says so to main.
 */
#include <errno.h>
#include <glib.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "checkpoint/staging.h"
#include "replicator/transport/endpoint.h"
#include "replicator/transport/tcp.h"

#define LARGEST_PAGES 10000u
#define RING_PAGES    (4 * LARGEST_PAGES)
#define DEVSTATE_LEN  16384u
#define UNDER_WAY     STAGING_EPOCHS
#define STALL_MS      20000u
#define DIAL_MS       5000u
#define MAX_ROUNDS    10000u
#define GIB           (1024.0 * 1024.0 * 1024.0)

static const uint8_t token[WIRE_TOKEN_LEN] = "bench/transport";
static bool sealed; /* both ends are to be told so */

G_NORETURN static void die(const char *what, int status)
{
    fprintf(stderr, "transport_bench: %s: %s\n", what, g_strerror(-status));
    exit(1);
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

/*
 * Processor time so far: of this process, user and system; and of its whole host, where the kernel's share of
 * TCP, or of soft-RoCE, is seen too.
 */
struct used {
    uint64_t process_us, host_us;
};

static struct used used_now(void)
{
    struct rusage usage;
    unsigned long long user = 0, nice = 0, system = 0, irq = 0, softirq = 0;
    FILE *file = fopen("/proc/stat", "r");
    getrusage(RUSAGE_SELF, &usage);
    if (file) {
        if (fscanf(file, "cpu %llu %llu %llu %*u %*u %llu %llu", &user, &nice, &system, &irq, &softirq) != 5)
            user = nice = system = irq = softirq = 0;
        fclose(file);
    }
    return (struct used){
        .process_us = (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000u +
                      (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec),
        .host_us = (user + nice + system + irq + softirq) * 1000000u / (unsigned long)sysconf(_SC_CLK_TCK),
    };
}

static struct staging *new_staging(void)
{
    struct staging *staging = NULL;
    int status = staging_open(&staging, RING_PAGES, DEVSTATE_LEN);
    if (status < 0)
        die("no memory for staging", status);
    size_t len;
    memset(staging_region(staging, &len), 0x5a, (size_t)RING_PAGES * STAGING_PAGE_LEN);
    return staging;
}

/* NULL where there is no RDMA device for it; says why. */
static struct endpoint *new_rdma_endpoint(struct staging *staging, const char *listen_address,
                                          const char *port)
{
    g_autoptr(GError) error = NULL;
    struct endpoint_rdma_config config = {.staging = staging,
                                          .stall_ms = STALL_MS,
                                          .listen_address = listen_address,
                                          .listen_port = listen_address ? (uint16_t)atoi(port) : 0};
    memcpy(config.token, token, sizeof config.token);
    config.sealed = sealed;
    struct endpoint *endpoint = endpoint_rdma_new(&config, &error);
    if (!endpoint)
        fprintf(stderr, "transport_bench: %s\n", error->message);
    return endpoint;
}

/* Seals a new connection. Both ends know the keys: what is measured does not depend on their secrecy. */
static void seal(struct transport *transport, bool dialled)
{
    struct seal_keys keys = {.cipher = SEAL_AES_128_GCM, .limits = seal_limits_usual};
    keys.out[0] = keys.credit_out[0] = dialled;
    keys.in[0] = keys.credit_in[0] = !dialled;
    int status = sealed ? transport->ops->seal(transport, &keys) : 0;
    if (status < 0)
        die("the connection cannot be sealed", status);
}

/* ---- the receiving side ---- */

/* Acks each epoch, and answers each KEEPALIVE with the processor time used so far. */
static void serve(struct transport *transport, struct staging *staging)
{
    struct transport_received received;
    seal(transport, false);
    while (transport->ops->receive(transport, staging, &received) == 0) {
        struct used used;
        struct transport_message answer = {.type = MESSAGE_ACK, .epoch = received.message.epoch};
        if (received.epoch)
            staging_free(staging, received.epoch);
        if (received.message.type == MESSAGE_KEEPALIVE) {
            used = used_now();
            answer = (struct transport_message){
                .type = MESSAGE_KEEPALIVE, .len = sizeof used, .payload = (const uint8_t *)&used};
        }
        if (transport->ops->send_message(transport, &answer) < 0)
            break;
        transport->ops->room(transport);
    }
    transport->ops->free(transport);
}

G_NORETURN static void receive_for_ever(const char *address, const char *port)
{
    g_autoptr(GError) error = NULL;
    struct staging *staging = new_staging();
    uint16_t number = (uint16_t)atoi(port);
    int fd = transport_tcp_listen(address, &number, &error);
    if (fd < 0)
        die(error->message, fd);
    struct endpoint *endpoints[] = {endpoint_tcp_new(fd, STALL_MS),
                                    new_rdma_endpoint(staging, address, port)};
    puts("ready");
    fflush(stdout);
    for (;;) {
        struct pollfd fds[G_N_ELEMENTS(endpoints)];
        for (unsigned i = 0; i < G_N_ELEMENTS(endpoints); i++)
            fds[i] = (struct pollfd){.fd = endpoints[i] ? endpoints[i]->ops->listen_fd(endpoints[i]) : -1,
                                     .events = POLLIN};
        poll(fds, G_N_ELEMENTS(fds), -1);
        for (unsigned i = 0; i < G_N_ELEMENTS(endpoints); i++) {
            struct transport *transport = NULL;
            if (fds[i].revents && endpoints[i]->ops->accept(endpoints[i], &transport) == 0)
                serve(transport, staging);
        }
    }
}

/* ---- the sending side ---- */

struct bench {
    struct transport *transport;
    struct staging *staging;
    uint64_t epoch; /* the last one sent */

    pthread_mutex_t lock; /* the rest: written by the receiving thread */
    pthread_cond_t changed;
    uint64_t acked, acked_ns;
    unsigned answers;
    struct used peer_used;
};

static void *take_acks(void *opaque)
{
    struct bench *bench = opaque;
    struct transport_received received;
    int status;
    while ((status = bench->transport->ops->receive(bench->transport, NULL, &received)) == 0) {
        uint64_t now = now_ns();
        pthread_mutex_lock(&bench->lock);
        if (received.message.type == MESSAGE_ACK) {
            bench->acked = received.message.epoch;
            bench->acked_ns = now;
        } else if (received.message.len == sizeof bench->peer_used) {
            memcpy(&bench->peer_used, received.message.payload, sizeof bench->peer_used);
            bench->answers++;
        }
        pthread_cond_signal(&bench->changed);
        pthread_mutex_unlock(&bench->lock);
    }
    die("the connection ended", status); /* this thread is not waited for when all went well */
}

static void await_ack(struct bench *bench, uint64_t epoch)
{
    pthread_mutex_lock(&bench->lock);
    while (bench->acked < epoch)
        pthread_cond_wait(&bench->changed, &bench->lock);
    pthread_mutex_unlock(&bench->lock);
}

static struct used ask_peer_used(struct bench *bench)
{
    struct transport_message question = {.type = MESSAGE_KEEPALIVE};
    pthread_mutex_lock(&bench->lock);
    unsigned answers = bench->answers;
    pthread_mutex_unlock(&bench->lock);
    int status = bench->transport->ops->send_message(bench->transport, &question);
    if (status < 0)
        die("cannot ask the peer", status);
    pthread_mutex_lock(&bench->lock);
    while (bench->answers == answers)
        pthread_cond_wait(&bench->changed, &bench->lock);
    struct used used = bench->peer_used;
    pthread_mutex_unlock(&bench->lock);
    return used;
}

static struct staged_epoch *stage(struct bench *bench, uint32_t npages)
{
    struct staged_epoch *epoch = staging_begin(bench->staging, ++bench->epoch, STAGED_EPOCH);
    int64_t slot = epoch ? staging_reserve(bench->staging, epoch, npages) : -ENOSPC;
    if (slot < 0)
        die("staging is full", (int)slot);
    for (uint32_t i = 0; i < npages; i++)
        epoch->pages[i] = (struct staged_page){.ref = page_ref_make(0, i, 0),
                                               .slot = (uint32_t)(((uint64_t)slot + i) % RING_PAGES)};
    epoch->npages = npages;
    epoch->nblocks = 1;
    epoch->block_used_len[0] = (uint64_t)npages * STAGING_PAGE_LEN;
    epoch->devstate_len = DEVSTATE_LEN;
    staging_commit(bench->staging, epoch);
    return epoch;
}

static void send_epoch(struct bench *bench, const struct staged_epoch *epoch)
{
    int status = bench->transport->ops->send_epoch(bench->transport, 1, bench->staging, epoch);
    if (status < 0)
        die("an epoch cannot be sent", status);
}

/* Until at most this many epochs of those sent so far still need their memory. */
static void reap(struct bench *bench, struct staged_epoch **under_way, uint64_t *first, uint64_t next,
                 uint64_t done_before, uint64_t at_most)
{
    const struct transport_ops *ops = bench->transport->ops;
    for (;;) {
        int64_t done = ops->epochs_done(bench->transport);
        if (done < 0)
            die("the connection broke", (int)done);
        while (*first < next && *first < (uint64_t)done - done_before)
            staging_free(bench->staging, under_way[(*first)++ % UNDER_WAY]);
        if (next - *first <= at_most)
            return;
        struct pollfd pfd = {.fd = ops->done_fd(bench->transport), .events = POLLIN};
        poll(&pfd, 1, 1000);
    }
}

static void throughput(struct bench *bench, uint32_t npages, double seconds)
{
    struct staged_epoch *under_way[UNDER_WAY];
    struct transport_stats stats;
    uint64_t first = 0, next = 0;
    bench->transport->ops->stats(bench->transport, &stats);
    uint64_t done_before = stats.epochs_sent;
    struct used peer_before = ask_peer_used(bench), before = used_now();
    uint64_t began = now_ns(), until = began + (uint64_t)(seconds * 1e9);
    while (now_ns() < until) {
        reap(bench, under_way, &first, next, done_before, UNDER_WAY - 1);
        struct staged_epoch *epoch = stage(bench, npages);
        send_epoch(bench, epoch);
        under_way[next++ % UNDER_WAY] = epoch;
    }
    reap(bench, under_way, &first, next, done_before, 0);
    await_ack(bench, bench->epoch);
    double took_s = (double)(bench->acked_ns - began) / 1e9;
    struct used after = used_now(), peer_after = ask_peer_used(bench);
    double bytes = (double)next * npages * STAGING_PAGE_LEN, per_gib = 1e6 * bytes / GIB;
    printf("{\"pages\": %" PRIu32 ", \"mib_per_s\": %.1f, \"sender_s_per_gib\": %.3f, "
           "\"receiver_s_per_gib\": %.3f, \"sender_host_s_per_gib\": %.3f, \"receiver_host_s_per_gib\": "
           "%.3f}\n",
           npages, bytes / took_s / (1 << 20), (double)(after.process_us - before.process_us) / per_gib,
           (double)(peer_after.process_us - peer_before.process_us) / per_gib,
           (double)(after.host_us - before.host_us) / per_gib,
           (double)(peer_after.host_us - peer_before.host_us) / per_gib);
    fflush(stdout);
}

static int ascending(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void latency(struct bench *bench, uint32_t npages, unsigned rounds, bool last)
{
    static uint64_t took_ns[MAX_ROUNDS];
    for (unsigned round = 0; round < rounds; round++) {
        struct staged_epoch *epoch = stage(bench, npages);
        struct transport_stats stats;
        uint64_t first = 0, began = now_ns();
        bench->transport->ops->stats(bench->transport, &stats);
        send_epoch(bench, epoch);
        await_ack(bench, bench->epoch);
        took_ns[round] = bench->acked_ns - began;
        reap(bench, &epoch, &first, 1, stats.epochs_sent, 0);
    }
    qsort(took_ns, rounds, sizeof *took_ns, ascending);
    printf(
        "    {\"pages\": %" PRIu32 ", \"rounds\": %u, \"p50_us\": %" PRIu64 ", \"p99_us\": %" PRIu64 "}%s\n",
        npages, rounds, took_ns[rounds / 2] / 1000, took_ns[(rounds * 99 - 1) / 100] / 1000, last ? "" : ",");
    fflush(stdout);
}

static void commit_latencies(struct bench *bench, unsigned rounds)
{
    static const uint32_t epochs[] = {10, 100, 1000, LARGEST_PAGES};
    puts("[");
    /* Fewer rounds of the large ones. */
    for (unsigned i = 0; i < G_N_ELEMENTS(epochs); i++)
        latency(bench, epochs[i], MAX(MIN(rounds, rounds * 200 / epochs[i]), 5),
                i + 1 == G_N_ELEMENTS(epochs));
    puts("]");
}

static void open_bench(struct bench *bench, const char *kind, const char *address, const char *port)
{
    g_autofree char *why = NULL;
    pthread_t thread;
    *bench = (struct bench){.staging = new_staging()};
    pthread_mutex_init(&bench->lock, NULL);
    pthread_cond_init(&bench->changed, NULL);
    struct endpoint *endpoint = strcmp(kind, "tcp") == 0 ? endpoint_tcp_new(-1, STALL_MS)
                                                         : new_rdma_endpoint(bench->staging, NULL, port);
    if (!endpoint)
        exit(1);
    int status = endpoint->ops->dial(endpoint, address, port, DIAL_MS, &bench->transport, &why);
    if (status < 0)
        die(why, status);
    seal(bench->transport, true);
    pthread_create(&thread, NULL, take_acks, bench);
}

int main(int argc, char **argv)
{
    static struct bench bench;
    signal(SIGPIPE, SIG_IGN);
    sealed = argc > 1 && strcmp(argv[1], "--sealed") == 0;
    if (sealed) {
        argv++;
        argc--;
    }
    if (argc == 4 && strcmp(argv[1], "receive") == 0)
        receive_for_ever(argv[2], argv[3]);
    bool sends = argc > 6 && strcmp(argv[1], "send") == 0 &&
                 (strcmp(argv[2], "rdma") == 0 || strcmp(argv[2], "tcp") == 0);
    int count = sends ? atoi(argv[6]) : 0; /* pages, or rounds */
    if (sends && argc == 8 && strcmp(argv[5], "throughput") == 0 && count >= 1 &&
        count <= (int)LARGEST_PAGES && atof(argv[7]) > 0) {
        open_bench(&bench, argv[2], argv[3], argv[4]);
        throughput(&bench, (uint32_t)count, atof(argv[7]));
    } else if (sends && argc == 7 && strcmp(argv[5], "commit") == 0 && count >= 1 &&
               count <= (int)MAX_ROUNDS) {
        open_bench(&bench, argv[2], argv[3], argv[4]);
        commit_latencies(&bench, (unsigned)count);
    } else {
        fprintf(stderr,
                "usage: transport_bench [--sealed] receive ADDRESS PORT\n"
                "       transport_bench [--sealed] send rdma|tcp ADDRESS PORT throughput PAGES(1..10000) "
                "SECONDS\n"
                "       transport_bench [--sealed] send rdma|tcp ADDRESS PORT commit ROUNDS(1..10000)\n");
        return 2;
    }
    fflush(stdout);
    _exit(0); /* the other thread is still receiving */
}
