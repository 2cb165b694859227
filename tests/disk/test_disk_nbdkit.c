/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Real nbdkit with the plugin, under requests that overlap: at every cut, the log's records give exactly the
 * image, and the map covers what changed; whether nbdkit lives, fails requests, delays them, or is killed.
 *
 *   test_disk_nbdkit PLUGIN CHAOS-PLUGIN [PATTERN]
 *
 * PATTERN: only the tests whose names match it (cmocka's wildcards). With UNDERSTUDY_DISK_FAULT set, a fault
 * is planted and the test has to fail.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "disk_fixture.h"
#include "nbd_load.h"

#define EXPORT_LEN (6u << 20)
#define RING_LEN   (24u << 20)
#define MAX_TAGS   200000u
#define LOGGING    (DISK_WRITABLE | DISK_LOGGING)

static const char *plugin, *chaos_plugin;
static struct disk_fixture fixture;
static struct disk_shm *shm;
static struct nbd_load load;
static uint8_t *flipped;                                /* the model when the map was last flipped */
static bool is_logged[MAX_TAGS], is_answered[MAX_TAGS]; /* writes, by tag */

/* ---- fixture ---- */

static void on_record(void *opaque, const struct disk_record *record)
{
    (void)opaque;
    uint8_t bytes[NBD_LOAD_TAG_LEN];
    size_t have = 0;
    uint64_t tag;
    if (record->type != DISK_RECORD_WRITE || record->len < sizeof bytes)
        return;
    for (unsigned i = 0; i < record->ndata && have < sizeof bytes; i++) {
        size_t n =
            record->data[i].iov_len < sizeof bytes - have ? record->data[i].iov_len : sizeof bytes - have;
        memcpy(bytes + have, record->data[i].iov_base, n);
        have += n;
    }
    memcpy(&tag, bytes, sizeof tag);
    if (tag < MAX_TAGS)
        is_logged[tag] = true;
}

static void on_written(void *opaque, uint64_t tag)
{
    (void)opaque;
    assert_true(tag < MAX_TAGS);
    is_answered[tag] = true;
}

static int open_all(void **state)
{
    (void)state;
    disk_fixture_open(&fixture, NULL, EXPORT_LEN, RING_LEN);
    shm = fixture.shm;
    fixture.on_record = on_record;
    nbd_load_init(&load, 1);
    load.on_written = on_written;
    flipped = calloc(1, EXPORT_LEN);
    memset(is_logged, 0, sizeof is_logged);
    memset(is_answered, 0, sizeof is_answered);
    assert_non_null(flipped);
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    nbd_load_end(&load);
    disk_fixture_close(&fixture);
    free(flipped);
    return 0;
}

static void serve(const char *with, char *const *filters, uint32_t flags)
{
    disk_fixture_order(&fixture, flags, 0);
    disk_fixture_start_nbdkit(&fixture, with, filters);
    disk_fixture_await(&fixture);
    assert_true(nbd_load_connect(&load, fixture.socket_path));
}

/* ---- what holds at a cut, with no request under way ---- */

static void check_image(void)
{
    assert_int_equal(atomic_load(&shm->detached), 0);
    if (!disk_fixture_consume(&fixture, atomic_load(&shm->head)))
        fail_msg("the log is not well-formed");
    int64_t at = disk_fixture_difference(&fixture);
    if (at >= 0)
        fail_msg("the image is not what the log says: byte %lld", (long long)at);
}

static void check_answered_are_logged(void)
{
    for (uint64_t tag = 1; tag < load.next_tag; tag++) {
        if (is_answered[tag] && !is_logged[tag])
            fail_msg("write %llu was answered and is not logged", (unsigned long long)tag);
    }
}

/* Changes since the last flip have to be in the active bitmap. */
static void check_map(void)
{
    for (uint64_t chunk = 0; chunk < EXPORT_LEN / DISK_CHUNK_LEN; chunk++) {
        uint64_t offset = chunk * DISK_CHUNK_LEN;
        if (memcmp(flipped + offset, fixture.model + offset, DISK_CHUNK_LEN) != 0 &&
            !disk_fixture_is_marked(&fixture, atomic_load(&shm->active_map), offset))
            fail_msg("chunk %llu changed and is not marked", (unsigned long long)chunk);
    }
}

/* As the replicator does in a pause, or by an order. */
static void flip(bool by_order)
{
    uint32_t active = atomic_load(&shm->active_map);
    if (by_order) {
        disk_fixture_order(&fixture, LOGGING, !active);
        disk_fixture_await(&fixture);
    } else {
        atomic_store(&shm->active_map, !active);
    }
    disk_map_clear_all(fixture.map, active);
    memcpy(flipped, fixture.model, EXPORT_LEN);
}

static void check_reads(void)
{
    static uint8_t got[65536];
    uint64_t offset = nbd_load_random(&load, EXPORT_LEN - sizeof got + 1);
    assert_int_equal(nbd_pread(load.nbd, got, sizeof got, offset, 0), 0);
    assert_memory_equal(got, fixture.model + offset, sizeof got);
}

static int on_extents(void *opaque, const char *metacontext, uint64_t offset, uint32_t *entries, size_t n,
                      int *error)
{
    static const uint8_t zeroes[EXPORT_LEN];
    (void)metacontext, (void)error;
    *(uint64_t *)opaque += 1;
    for (size_t i = 0; i + 1 < n && offset < EXPORT_LEN; i += 2) {
        uint64_t len = entries[i] < EXPORT_LEN - offset ? entries[i] : EXPORT_LEN - offset;
        if ((entries[i + 1] & LIBNBD_STATE_ZERO) && memcmp(fixture.model + offset, zeroes, len) != 0)
            *(uint64_t *)opaque += 1000;
        offset += len;
    }
    return 0;
}

/* What is said to be zero is zero. */
static void check_extents(void)
{
    uint64_t calls = 0;
    nbd_extent_callback callback = {.callback = on_extents, .user_data = &calls};
    assert_int_equal(nbd_block_status(load.nbd, EXPORT_LEN, 0, callback, 0), 0);
    assert_int_equal(calls, 1);
}

static void check_cut(void)
{
    check_image();
    check_map();
    check_reads();
    check_extents();
    if (nbd_load_random(&load, 3) == 0)
        flip(nbd_load_random(&load, 2));
}

static void run_load(unsigned nrequests)
{
    for (unsigned i = 0; i < nrequests; i++) {
        assert_true(nbd_load_issue(&load));
        if (nbd_load_random(&load, 60) == 0 ||
            atomic_load(&shm->head) - atomic_load(&shm->tail) > RING_LEN / 4) {
            assert_true(nbd_load_drain(&load));
            check_cut();
        }
    }
    assert_true(nbd_load_drain(&load));
    check_cut();
}

/* ---- the tests ---- */

static void test_log_gives_the_image_at_every_cut(void **state)
{
    (void)state;
    serve(getenv("UNDERSTUDY_DISK_FAULT") ? chaos_plugin : plugin, NULL, LOGGING);
    run_load(6000);
    check_answered_are_logged();
    assert_true(atomic_load(&shm->head) > 2 * RING_LEN); /* or nothing has wrapped */
    assert_int_equal(load.nerrors, 0);
}

static void test_log_gives_the_image_though_requests_fail(void **state)
{
    (void)state;
    char *filters[] = {"--filter=error",        "error=EIO", "error-rate=20%", "error-pread-rate=0%",
                       "error-extents-rate=0%", NULL};
    serve(plugin, filters, LOGGING);
    run_load(1500);
    check_answered_are_logged();
    assert_true(load.nerrors > 100);
}

static void test_log_gives_the_image_though_requests_are_delayed(void **state)
{
    (void)state;
    char *filters[] = {"--filter=delay", "wdelay=1ms", NULL};
    serve(plugin, filters, LOGGING);
    run_load(1000);
    check_answered_are_logged();
}

/* nbdkit is dead: the next one, then all that holds before a request reaches it, then QEMU's part. */
static void serve_again(void)
{
    disk_fixture_start_nbdkit(&fixture, plugin, NULL);
    check_image();
    check_answered_are_logged();
    check_map();
    assert_true(nbd_load_connect(&load, fixture.socket_path));
}

static void test_killed_nbdkit_loses_nothing_that_was_answered(void **state)
{
    (void)state;
    serve(plugin, NULL, LOGGING);
    for (unsigned round = 0; round < 40; round++) {
        for (uint64_t n = nbd_load_random(&load, 120) + 1; n > 0; n--)
            assert_true(nbd_load_issue(&load));
        disk_fixture_end_nbdkit(&fixture, SIGKILL);
        nbd_load_drain(&load); /* takes what was answered in time */
        serve_again();
        assert_true(nbd_load_drain(&load));
        check_cut();
    }
    check_answered_are_logged();
}

static void die_at(const char *step, unsigned count)
{
    char die[32];
    snprintf(die, sizeof die, "%s:%u", step, count);
    setenv("UNDERSTUDY_DISK_DIE", die, 1);
    disk_fixture_start_nbdkit(&fixture, chaos_plugin, NULL);
    unsetenv("UNDERSTUDY_DISK_DIE");
    assert_true(nbd_load_connect(&load, fixture.socket_path));
    while (nbd_load_issue(&load))
        ;
    nbd_load_drain(&load);
    int status = disk_fixture_end_nbdkit(&fixture, 0);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    serve_again();
    assert_true(nbd_load_drain(&load));
    check_cut();
    nbd_load_disconnect(&load);
    disk_fixture_end_nbdkit(&fixture, SIGTERM);
}

static void test_killed_at_every_step_of_a_write_it_loses_nothing(void **state)
{
    (void)state;
    static const char *const steps[] = {"marked", "putting", "appended", "imaged"};
    disk_fixture_order(&fixture, LOGGING, 0);
    for (unsigned round = 0; round < 24; round++)
        die_at(steps[round % 4], round < 4 ? 1 : (unsigned)nbd_load_random(&load, 150) + 1);
    check_answered_are_logged();
}

static void test_orders_given_while_nbdkit_is_dead_are_obeyed_by_the_next(void **state)
{
    (void)state;
    serve(plugin, NULL, LOGGING);
    for (unsigned i = 0; i < 50; i++)
        assert_true(nbd_load_issue(&load));
    disk_fixture_end_nbdkit(&fixture, SIGKILL);
    nbd_load_drain(&load);
    disk_fixture_order(&fixture, DISK_WRITABLE | DISK_DURABLE, 1);
    disk_fixture_start_nbdkit(&fixture, plugin, NULL);
    assert_int_equal(atomic_load(&shm->done_seq), atomic_load(&shm->wanted_seq));
    assert_int_equal(atomic_load(&shm->flags), DISK_WRITABLE | DISK_DURABLE);
    uint64_t head = atomic_load(&shm->head);
    assert_true(nbd_load_connect(&load, fixture.socket_path) && nbd_load_drain(&load));
    assert_int_equal(atomic_load(&shm->head), head);
}

static pid_t start_qemu_writes(void)
{
    char image[256];
    snprintf(image, sizeof image, "driver=nbd,server.type=unix,server.path=%s,reconnect-delay=60",
             fixture.socket_path);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        execlp("qemu-img", "qemu-img", "bench", "-w", "-t", "none", "-c", "5000", "-d", "16", "-s", "4096",
               "--pattern", "90", "--image-opts", image, (char *)NULL);
        _exit(127);
    }
    return child;
}

static void test_qemu_goes_on_when_nbdkit_is_killed_and_another_comes(void **state)
{
    (void)state;
    int status;
    disk_fixture_order(&fixture, LOGGING, 0);
    disk_fixture_start_nbdkit(&fixture, plugin, NULL);
    pid_t qemu = start_qemu_writes();
    for (uint64_t round = 1; round <= 8; round++) {
        while (atomic_load(&shm->writes) < round * 500)
            assert_int_equal(waitpid(qemu, &status, WNOHANG), 0);
        disk_fixture_end_nbdkit(&fixture, SIGKILL);
        disk_fixture_start_nbdkit(&fixture, plugin, NULL);
    }
    assert_int_equal(waitpid(qemu, &status, 0), qemu);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    check_image();
    check_map();
    for (uint64_t at = 0; at < EXPORT_LEN; at++)
        assert_int_equal(fixture.model[at], 90);
}

static void test_export_offers_what_it_should(void **state)
{
    (void)state;
    serve(plugin, NULL, LOGGING);
    struct nbd_handle *nbd = load.nbd;
    assert_int_equal(nbd_get_size(nbd), EXPORT_LEN);
    assert_int_equal(nbd_can_flush(nbd), 0);
    assert_int_equal(nbd_can_fua(nbd), 0);
    assert_int_equal(nbd_is_read_only(nbd), 0);
    assert_int_equal(nbd_can_trim(nbd), 1);
    assert_int_equal(nbd_can_zero(nbd), 1);
    assert_int_equal(nbd_can_cache(nbd), 1);
    assert_int_equal(nbd_can_multi_conn(nbd), 1);
    assert_int_equal(nbd_get_block_size(nbd, LIBNBD_SIZE_MINIMUM), 1);
    assert_int_equal(nbd_get_block_size(nbd, LIBNBD_SIZE_PREFERRED), 4096);
    assert_int_equal(nbd_get_block_size(nbd, LIBNBD_SIZE_MAXIMUM), DISK_RECORD_MAX_DATA);
    assert_int_equal(nbd_cache(nbd, 65536, 0, 0), 0);
    /* nbdkit waits for its clients. */
    nbd_load_disconnect(&load);
    int status = disk_fixture_end_nbdkit(&fixture, SIGTERM);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void test_a_standby_disk_can_be_read_and_not_written_until_it_is_promoted(void **state)
{
    (void)state;
    uint8_t bytes[4096] = {1}, got[4096];
    serve(plugin, NULL, 0);
    assert_int_equal(nbd_pread(load.nbd, got, sizeof got, 0, 0), 0);
    assert_int_equal(nbd_pwrite(load.nbd, bytes, sizeof bytes, 0, 0), -1);
    assert_int_equal(nbd_get_errno(), EPERM);
    assert_int_equal(nbd_zero(load.nbd, 4096, 0, 0), -1);
    assert_int_equal(nbd_get_errno(), EPERM);
    /* On the same connection. */
    disk_fixture_order(&fixture, DISK_WRITABLE | DISK_DURABLE, 0);
    disk_fixture_await(&fixture);
    assert_int_equal(nbd_pwrite(load.nbd, bytes, sizeof bytes, 0, 0), 0);
    assert_int_equal(nbd_pread(load.nbd, got, sizeof got, 0, 0), 0);
    assert_memory_equal(got, bytes, sizeof got);
}

static void test_nbdkit_does_not_start_on_shared_memory_that_is_not_right(void **state)
{
    (void)state;
    shm->version++;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        /* Aborts when nbdkit ends instead of serving. */
        if (!freopen("/dev/null", "w", stderr))
            _exit(1);
        disk_fixture_start_nbdkit(&fixture, plugin, NULL);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    shm->version--;
}

/* A tmpfs of a few MiB: the image grows until there is no room. */
static void test_a_full_file_system_is_reported_and_nothing_goes_astray(void **state)
{
    (void)state;
    char folder[] = "/tmp/disk-small.XXXXXX";
    if (geteuid() != 0) {
        print_message("skipped: needs root to mount a small file system\n");
        return;
    }
    assert_non_null(mkdtemp(folder));
    assert_int_equal(mount("tmpfs", folder, "tmpfs", 0, "size=1M"), 0);
    disk_fixture_close(&fixture);
    disk_fixture_open(&fixture, folder, EXPORT_LEN, RING_LEN);
    shm = fixture.shm;
    fixture.on_record = on_record;
    serve(plugin, NULL, LOGGING);
    for (unsigned i = 0; i < 300; i++)
        assert_true(nbd_load_issue(&load));
    assert_true(nbd_load_drain(&load));
    assert_true(load.nerrors > 0);
    assert_int_equal(atomic_load(&shm->last_errno), ENOSPC);
    disk_fixture_await_attention(&fixture, DISK_ATTENTION_ERROR);
    if (!atomic_load(&shm->detached))
        check_image();
    check_answered_are_logged();
    nbd_load_disconnect(&load);
    disk_fixture_close(&fixture);
    assert_int_equal(umount(folder), 0);
    assert_int_equal(rmdir(folder), 0);
    disk_fixture_open(&fixture, NULL, EXPORT_LEN, RING_LEN);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, open_all, close_all)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        TEST(test_log_gives_the_image_at_every_cut),
        TEST(test_log_gives_the_image_though_requests_fail),
        TEST(test_log_gives_the_image_though_requests_are_delayed),
        TEST(test_killed_nbdkit_loses_nothing_that_was_answered),
        TEST(test_killed_at_every_step_of_a_write_it_loses_nothing),
        TEST(test_orders_given_while_nbdkit_is_dead_are_obeyed_by_the_next),
        TEST(test_qemu_goes_on_when_nbdkit_is_killed_and_another_comes),
        TEST(test_export_offers_what_it_should),
        TEST(test_a_standby_disk_can_be_read_and_not_written_until_it_is_promoted),
        TEST(test_nbdkit_does_not_start_on_shared_memory_that_is_not_right),
        TEST(test_a_full_file_system_is_reported_and_nothing_goes_astray),
    };
    if (argc < 3) {
        fprintf(stderr, "usage: %s PLUGIN CHAOS-PLUGIN [PATTERN]\n", argv[0]);
        return 2;
    }
    plugin = argv[1];
    chaos_plugin = argv[2];
    if (argc > 3)
        cmocka_set_test_filter(argv[3]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
