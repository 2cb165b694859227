/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See two_hosts.h. */
#include "tests/disk/two_hosts.h"

// clang-format off
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
// clang-format on
#include <fcntl.h>
#include <glib/gstdio.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "checkpoint/disk/disk_section.h"
#include "replicator/disk/disk_log.h"
#include "replicator/disk/nbdkit_process.h"
#include "replicator/disk/plugin/disk_log_write.h"
#include "replicator/note.h"
#include "replicator/pipeline/disk_answer.h"

#define STAGING_PAGES (uint32_t)(disks_max_section_pages(1) + 4096)
#define TERM          3u
#define MAX_WRITE     (192u << 10)
/* Requests of a guest that writes at random between two steps of its pair. More would test nothing else. */
#define WRITES_A_STEP 48

struct host {
    char *dir, *image;
    bool shared; /* the image is another host's too */
    struct disks *disks;
    struct staging *staging;
    /* The guest. */
    pthread_t thread;
    pthread_mutex_t paused;
    _Atomic bool stop, pausing;
    _Atomic int budget; /* requests until the pair's next step */
    unsigned seed;
};

struct pair {
    struct host *primary, *standby;
    struct staging *staging_out, *staging_in;
    struct mailbox control_out, control_in, wake;
    struct histogram *bytes;
    struct sender *sender_out, *sender_in;
    struct connection *out, *in;
    struct disk_sync *sync;
    struct disk_answer *answer;
    pthread_t receive_out, receive_in;
    uint64_t batch, epoch;
    uint8_t *boundary; /* the primary's image as it was at the last epoch's */
    bool whole;        /* the standby's thread's */
    _Atomic bool broken;
    _Atomic uint64_t chunks, applied;
};

/* ---- in the place of nbdkit ---- */

struct child_process {
    struct disk_log *log;
};

/* By the image's descriptor, by which hosts find theirs. */
static struct child_process *servers[64];

int nbdkit_listen(const char *path, GError **error)
{
    (void)path;
    (void)error;
    return open("/dev/null", O_RDONLY | O_CLOEXEC);
}

struct child_process *nbdkit_process_start(const struct nbdkit_start *start, child_process_exited exited,
                                           void *opaque, GError **error)
{
    struct disk_log_descriptors descriptors = {start->shm_fd, start->image_fd, start->map_fd,
                                               start->attention_fd};
    struct child_process *server = g_new0(struct child_process, 1);
    const char *why;
    (void)exited;
    (void)opaque;
    (void)error;
    assert_int_equal(disk_log_open(&server->log, &descriptors, &why), 0);
    assert_int_equal(disk_log_start(server->log), 0);
    assert_true(start->image_fd < (int)G_N_ELEMENTS(servers));
    servers[start->image_fd] = server;
    return server;
}

void child_process_free(struct child_process *server)
{
    if (!server)
        return;
    for (size_t i = 0; i < G_N_ELEMENTS(servers); i++)
        if (servers[i] == server)
            servers[i] = NULL;
    disk_log_close(server->log);
    g_free(server);
}

char *child_process_last_words(const char *log_path)
{
    (void)log_path;
    return g_strdup("");
}

/* In the place of the applier, of which disk_answer needs nothing else. */
bool applier_post_pair(struct applier *applier, unsigned disk, const uint8_t *pair_id, size_t len)
{
    struct disk_map *map = disks_map(((struct pair *)applier)->standby->disks, disk);
    assert_int_equal(len, DISK_PAIR_ID_LEN);
    disk_map_clear_all(map, 0);
    disk_map_clear_all(map, 1);
    assert_int_equal(disk_map_set_pair(map, pair_id), 0);
    return true;
}

bool applier_post_flushed(struct applier *applier, unsigned disk, uint64_t epoch)
{
    disks_flushed(((struct pair *)applier)->standby->disks, disk, epoch);
    return true;
}

/* ---- hosts ---- */

static void nothing_changed(void *opaque, bool urgent)
{
    (void)opaque;
    (void)urgent;
}

static void nothing_flushed(void *opaque)
{
    (void)opaque;
}

static void tell(void *opaque, const char *message)
{
    (void)opaque;
    print_message("%s\n", message);
}

static void open_disks(struct host *host, bool standby)
{
    g_autoptr(GError) error = NULL;
    struct disk_config disk = {.id = (char *)"disk0", .path = host->image, .shared = host->shared};
    const struct disks_config config = {
        .vm_name = "vm",
        .vm_dir = host->dir,
        .state_dir = host->dir,
        .plugin = "none",
        .list = &disk,
        .n = 1,
        .standby = standby,
        .changed = nothing_changed,
        .flushed = nothing_flushed,
        .detached = tell,
        .fault_changed = tell,
    };
    host->disks = disks_open(&config, &error);
    if (!host->disks)
        fail_msg("%s", error->message);
}

static struct disk_log *server_of(const struct host *host)
{
    return servers[disk_image_fd(disks_image(host->disks, 0))]->log;
}

static void fill_image(const struct host *host, unsigned seed)
{
    int fd = open(host->image, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    uint8_t chunk[DISK_CHUNK_LEN];
    assert_int_equal(ftruncate(fd, (off_t)TEST_DISK_LEN), 0);
    for (uint64_t at = 0; seed && at + sizeof chunk <= TEST_DISK_LEN; at += sizeof chunk) {
        if (rand_r(&seed) % 3 == 0)
            continue;
        memset(chunk, rand_r(&seed), sizeof chunk);
        assert_int_equal(pwrite(fd, chunk, sizeof chunk, (off_t)at), sizeof chunk);
    }
    close(fd);
}

static struct host *new_host(void)
{
    struct host *host = g_new0(struct host, 1);
    /* In memory where that is possible: durable writes by the thousand are no part of what is tested. */
    bool in_memory = access("/dev/shm", W_OK) == 0;
    host->dir = g_build_filename(in_memory ? "/dev/shm" : g_get_tmp_dir(), "understudy-XXXXXX", NULL);
    assert_non_null(g_mkdtemp(host->dir));
    pthread_mutex_init(&host->paused, NULL);
    return host;
}

struct host *host_new(unsigned seed, bool standby)
{
    struct host *host = new_host();
    host->image = g_build_filename(host->dir, "image", NULL);
    fill_image(host, seed);
    open_disks(host, standby);
    return host;
}

struct host *host_new_shared(unsigned seed)
{
    struct host *host = new_host();
    host->image = g_build_filename(host->dir, "image", NULL);
    host->shared = true;
    fill_image(host, seed);
    open_disks(host, false);
    return host;
}

struct host *host_new_sharing(const struct host *with)
{
    struct host *host = new_host();
    host->image = g_strdup(with->image);
    host->shared = true;
    open_disks(host, true);
    return host;
}

int host_read(struct host *host, void *buffer, uint32_t len, uint64_t offset)
{
    return disk_log_read(server_of(host), buffer, len, offset);
}

void host_kill(struct host *host)
{
    disks_close(host->disks);
    host->disks = NULL;
}

static void set_aside_map(const struct host *host, const char *from, const char *to)
{
    g_autofree char *a = g_build_filename(host->dir, from, NULL);
    g_autofree char *b = g_build_filename(host->dir, to, NULL);
    assert_int_equal(g_rename(a, b), 0);
}

void host_crash(struct host *host, bool standby)
{
    /* Closing marks the map clean; what a killed process leaves is the file before that. */
    g_autofree char *map = g_build_filename(host->dir, "disk-0.map", NULL);
    g_autofree char *copy = g_build_filename(host->dir, "disk-0.kept", NULL);
    g_autofree char *bytes = NULL;
    gsize len;
    assert_true(g_file_get_contents(map, &bytes, &len, NULL));
    assert_true(g_file_set_contents(copy, bytes, (gssize)len, NULL));
    disks_close(host->disks);
    set_aside_map(host, "disk-0.kept", "disk-0.map");
    open_disks(host, standby);
}

void host_lose_map(struct host *host, bool standby)
{
    disks_close(host->disks);
    set_aside_map(host, "disk-0.map", "disk-0.lost");
    open_disks(host, standby);
}

void host_free(struct host *host)
{
    static const char *const files[] = {"image", "disk-0.map", "disk-0.lost", "journal", "synchronising"};
    disks_close(host->disks);
    for (size_t i = 0; i < G_N_ELEMENTS(files); i++) {
        g_autofree char *path = g_build_filename(host->dir, files[i], NULL);
        g_unlink(path);
    }
    assert_int_equal(g_rmdir(host->dir), 0);
    g_free(host->dir);
    g_free(host->image);
    g_free(host);
}

void host_take_over(struct host *host)
{
    assert_int_equal(disks_end_standby(host->disks, false), 0);
    disks_order(host->disks, DISK_WRITABLE | DISK_DURABLE, 0, false);
    while (!disks_order_done(host->disks))
        sched_yield();
}

struct disks *host_disks(const struct host *host)
{
    return host->disks;
}

int host_write(struct host *host, uint64_t offset, uint32_t len, unsigned seed)
{
    g_autofree uint8_t *bytes = g_malloc(len);
    for (uint32_t i = 0; i < len; i++)
        bytes[i] = (uint8_t)(i % 4096 == 0 ? rand_r(&seed) : bytes[i - 1] + 1);
    return disk_log_write(server_of(host), bytes, len, offset);
}

int host_zero(struct host *host, uint64_t offset, uint64_t len)
{
    return disk_log_zero(server_of(host), len, offset, true);
}

static void *guest_run(void *opaque)
{
    struct host *host = opaque;
    while (!atomic_load(&host->stop)) {
        /* A mutex alone would let the guest never be paused. */
        if (atomic_load(&host->pausing) || atomic_load(&host->budget) <= 0) {
            g_usleep(100);
            continue;
        }
        atomic_fetch_sub(&host->budget, 1);
        pthread_mutex_lock(&host->paused);
        uint32_t len = 1 + (unsigned)rand_r(&host->seed) % MAX_WRITE;
        /* Mostly in a tenth of the disk, as guests do. */
        uint64_t range = rand_r(&host->seed) % 8 ? TEST_DISK_LEN / 10 : TEST_DISK_LEN - MAX_WRITE;
        uint64_t offset = ((uint64_t)rand_r(&host->seed) << 12) % range;
        int status = rand_r(&host->seed) % 6 ? host_write(host, offset, len, host->seed)
                                             : host_zero(host, offset, len);
        assert_int_equal(status, 0);
        pthread_mutex_unlock(&host->paused);
    }
    return NULL;
}

void guest_start(struct host *host, unsigned seed)
{
    host->seed = seed;
    atomic_store(&host->stop, false);
    atomic_store(&host->budget, WRITES_A_STEP);
    assert_int_equal(pthread_create(&host->thread, NULL, guest_run, host), 0);
}

void guest_pause(struct host *host)
{
    atomic_store(&host->pausing, true);
    pthread_mutex_lock(&host->paused);
}

void guest_resume(struct host *host)
{
    pthread_mutex_unlock(&host->paused);
    atomic_store(&host->pausing, false);
}

void guest_stop(struct host *host)
{
    atomic_store(&host->stop, true);
    pthread_join(host->thread, NULL);
}

/* ---- the standby's side of the link ---- */

static void standby_applies(struct pair *pair, struct staged_epoch *staged)
{
    struct disks *disks = pair->standby->disks;
    bool batch = staged->kind == STAGED_PRECOPY;
    int status = disks_check(disks, pair->staging_in, staged);
    if (status == 0 && batch && pair->whole)
        status = disks_begin_synchronisation(disks);
    else if (status == 0 && !batch)
        status = disks_journal(disks, pair->staging_in, staged, TERM, staged->epoch % 2);
    if (status == 0)
        status = disks_apply(disks, pair->staging_in, staged);
    if (status == 0 && !batch && !pair->whole)
        status = disks_whole(disks);
    assert_int_equal(status, 0);
    pair->whole = !batch;
    struct transport_message applied = {
        .type = MESSAGE_APPLIED, .term = TERM, .epoch = staged->epoch, .arg = batch};
    staging_free(pair->staging_in, staged);
    sender_post_message(pair->sender_in, pair->in, &applied);
    if (!batch)
        atomic_store(&pair->applied, applied.epoch);
    pair->in->transport->ops->room(pair->in->transport);
}

static void *standby_receives(void *opaque)
{
    struct pair *pair = opaque;
    struct transport_received received;
    while (pair->in->transport->ops->receive(pair->in->transport, pair->staging_in, &received) == 0) {
        if (received.epoch)
            standby_applies(pair, received.epoch);
        else
            assert_true(disk_answer_message(pair->answer, pair->in, &received.message));
    }
    return NULL;
}

static void *primary_receives(void *opaque)
{
    struct pair *pair = opaque;
    struct transport_received received;
    while (pair->out->transport->ops->receive(pair->out->transport, NULL, &received) == 0)
        assert_true(disk_sync_message(pair->sync, &received.message));
    atomic_store(&pair->broken, true);
    mailbox_wake(&pair->wake);
    return NULL;
}

/* ---- the pair ---- */

static void wake(void *opaque)
{
    mailbox_wake(&((struct pair *)opaque)->wake);
}

static void no_room(void *opaque)
{
    (void)opaque;
}

struct pair *pair_new(struct host *primary, struct host *standby)
{
    struct pair *pair = g_new0(struct pair, 1);
    int fds[2];
    pair->primary = primary;
    pair->standby = standby;
    pair->whole = true;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    assert_int_equal(staging_open(&pair->staging_out, STAGING_PAGES, 4096), 0);
    assert_int_equal(staging_open(&pair->staging_in, STAGING_PAGES, 4096), 0);
    assert_int_equal(mailbox_open(&pair->control_out), 0);
    assert_int_equal(mailbox_open(&pair->control_in), 0);
    assert_int_equal(mailbox_open(&pair->wake), 0);
    pair->bytes = histogram_new();
    pair->out = connection_new(transport_tcp_new(fds[0], 2000), 1);
    pair->in = connection_new(transport_tcp_new(fds[1], 2000), 1);
    pair->sender_out = sender_new(pair->staging_out, &pair->control_out, pair->bytes, wake, pair);
    pair->sender_in = sender_new(pair->staging_in, &pair->control_in, pair->bytes, no_room, pair);
    pair->sync = disk_sync_new(primary->disks, pair->staging_out, wake, pair);
    pair->answer = disk_answer_new(standby->disks, pair->sender_in, (struct applier *)pair, NULL);
    disks_order(primary->disks, DISK_WRITABLE | DISK_DURABLE, DISK_LOGGING, false);
    disk_sync_connected(pair->sync);
    disk_sync_begin(pair->sync, pair->sender_out, pair->out, TERM, false);
    assert_int_equal(pthread_create(&pair->receive_out, NULL, primary_receives, pair), 0);
    assert_int_equal(pthread_create(&pair->receive_in, NULL, standby_receives, pair), 0);
    disk_answer_connected(pair->answer, pair->in, TERM);
    return pair;
}

static void drain(struct mailbox *box)
{
    struct note *note;
    while ((note = note_take(box))) {
        connection_put(note->connection);
        g_free(note);
    }
    mailbox_close(box);
}

void pair_free(struct pair *pair)
{
    connection_shutdown(pair->out);
    connection_shutdown(pair->in);
    pthread_join(pair->receive_out, NULL);
    pthread_join(pair->receive_in, NULL);
    disk_answer_free(pair->answer);
    disk_sync_free(pair->sync);
    sender_free(pair->sender_out);
    sender_free(pair->sender_in);
    disks_order(pair->primary->disks, DISK_DURABLE, DISK_LOGGING, false);
    while (!disks_order_done(pair->primary->disks))
        sched_yield();
    connection_put(pair->out);
    connection_put(pair->in);
    drain(&pair->control_out);
    drain(&pair->control_in);
    mailbox_close(&pair->wake);
    staging_close(pair->staging_out);
    staging_close(pair->staging_in);
    histogram_free(pair->bytes);
    g_free(pair->boundary);
    g_free(pair);
}

static void count_chunks(struct pair *pair, const struct staged_epoch *batch)
{
    struct disk_stream stream;
    struct disk_record record;
    disk_section_stream(pair->staging_out, batch, &stream);
    while (disk_stream_next(&stream, &record) == 1)
        atomic_fetch_add(&pair->chunks, 1);
}

bool pair_synchronise(struct pair *pair, unsigned break_after)
{
    for (;;) {
        struct staged_epoch *batch;
        int status;
        atomic_store(&pair->primary->budget, WRITES_A_STEP);
        enum disk_sync_progress progress = disk_sync_step(pair->sync, pair->batch + 1, &batch, &status);
        assert_int_equal(status, 0);
        if (batch) {
            count_chunks(pair, batch);
            pair->batch++;
            sender_post_epoch(pair->sender_out, pair->out, TERM, batch);
        }
        if (progress == DISK_SYNC_DONE)
            return true;
        if (atomic_load(&pair->broken))
            return false;
        if (break_after && pair->batch == break_after) {
            connection_shutdown(pair->out);
            return false;
        }
        if (progress == DISK_SYNC_READY)
            disk_sync_finish(pair->sync);
        else if (progress == DISK_SYNC_WAITING)
            mailbox_wait(&pair->wake, 1); /* the plugins' word comes to a main loop that does not run here */
    }
}

static bool wait_room(void *opaque)
{
    mailbox_wait(&((struct pair *)opaque)->wake, 1000);
    return true;
}

/* An image as it is now, to be looked at where it lies: these disks are compared whole, again and again. */
static const uint8_t *map_image(const struct host *host)
{
    void *at = mmap(NULL, TEST_DISK_LEN, PROT_READ, MAP_SHARED | MAP_POPULATE,
                    disk_image_fd(disks_image(host->disks, 0)), 0);
    assert_true(at != MAP_FAILED);
    return at;
}

static void unmap_image(const uint8_t *image)
{
    munmap((void *)image, TEST_DISK_LEN);
}

static void pair_send_epoch(struct pair *pair);

void pair_epoch(struct pair *pair)
{
    struct disks *disks = pair->primary->disks;
    disk_sync_between_epochs(pair->sync, pair->epoch + 1);
    const uint8_t *ours = map_image(pair->primary), *theirs = map_image(pair->standby);
    if (!pair->boundary)
        pair->boundary = g_malloc(TEST_DISK_LEN);
    guest_pause(pair->primary);
    disks_boundary(disks, pair->epoch + 1);
    memcpy(pair->boundary, ours, TEST_DISK_LEN);
    guest_resume(pair->primary);
    atomic_store(&pair->primary->budget, WRITES_A_STEP);
    pair_send_epoch(pair);
    while (atomic_load(&pair->applied) < pair->epoch) {
        assert_false(atomic_load(&pair->broken));
        mailbox_wait(&pair->wake, 10);
    }
    assert_int_equal(memcmp(pair->boundary, theirs, TEST_DISK_LEN), 0);
    unmap_image(ours);
    unmap_image(theirs);
}

/* What the boundary left in the log. */
static void pair_send_epoch(struct pair *pair)
{
    struct disks *disks = pair->primary->disks;
    struct staged_epoch *epoch;
    while (!(epoch = staging_begin(pair->staging_out, pair->epoch + 1, STAGED_EPOCH)))
        mailbox_wait(&pair->wake, 1000);
    assert_int_equal(disks_collect(disks, pair->staging_out, epoch, wait_room, pair), 0);
    staging_commit(pair->staging_out, epoch);
    sender_post_epoch(pair->sender_out, pair->out, TERM, epoch);
    pair->epoch++;
}

void pair_hold(struct pair *pair)
{
    disks_hold(pair->primary->disks);
    while (!disks_order_done(pair->primary->disks))
        sched_yield();
}

void pair_cut_unacked(struct pair *pair)
{
    guest_pause(pair->primary);
    disks_boundary(pair->primary->disks, pair->epoch + 1);
    guest_resume(pair->primary);
    pair_send_epoch(pair);
    while (atomic_load(&pair->applied) < pair->epoch)
        mailbox_wait(&pair->wake, 10);
}

void pair_ack(struct pair *pair)
{
    disks_release(pair->primary->disks, pair->epoch);
    while (disks_newly_flushed(pair->primary->disks, 0) < pair->epoch)
        sched_yield();
}

uint64_t pair_chunks_sent(const struct pair *pair)
{
    return atomic_load(&pair->chunks);
}

void assert_same_images(const struct host *a, const struct host *b)
{
    const uint8_t *ours = map_image(a), *theirs = map_image(b);
    assert_int_equal(memcmp(ours, theirs, TEST_DISK_LEN), 0);
    unmap_image(ours);
    unmap_image(theirs);
}
