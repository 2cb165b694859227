/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The standby's disks across its own end: killed at every write that it makes, an image that fails, a journal
 * that is damaged or lost. Real journal, maps and images; no nbdkit.
 */
#include <errno.h>
#include <fcntl.h>
#include <gio/gio.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "checkpoint/disk/disk_section.h"
#include "replicator/disk/disks_internal.h"
#include "replicator/disk/nbdkit_process.h"

#define NDISKS   2u
#define LEN      (1u << 20)
#define NEPOCHS  6u
#define TERM     5u
#define PER_DISK 3u /* writes of an epoch */

static char *folder;
static bool shares;                      /* the last disk is shared */
static unsigned nwritten_disks = NDISKS; /* by an epoch: the first ones */
static const uint8_t a_pair[DISK_PAIR_ID_LEN] = "a pair";

/* ---- dying in a write ---- */

static int writes_until_death = -1;

ssize_t __real_pwritev(int fd, const struct iovec *data, int ndata, off_t offset);
ssize_t __wrap_pwritev(int fd, const struct iovec *data, int ndata, off_t offset);

ssize_t __wrap_pwritev(int fd, const struct iovec *data, int ndata, off_t offset)
{
    if (writes_until_death >= 0 && writes_until_death-- == 0) {
        struct iovec half = {data[0].iov_base, data[0].iov_len > 64 ? data[0].iov_len / 2 : 0};
        if (half.iov_len == 0 || __real_pwritev(fd, &half, 1, offset) > 0)
            raise(SIGKILL);
    }
    return __real_pwritev(fd, data, ndata, offset);
}

/* ---- in nbdkit's place: nobody ---- */

int nbdkit_listen(const char *path, GError **error)
{
    (void)path;
    (void)error;
    return open("/dev/null", O_RDONLY | O_CLOEXEC);
}

struct child_process *nbdkit_process_start(const struct nbdkit_start *start, child_process_exited exited,
                                           void *opaque, GError **error)
{
    (void)start;
    (void)exited;
    (void)opaque;
    (void)error;
    return g_malloc(1);
}

void child_process_free(struct child_process *process)
{
    g_free(process);
}

char *child_process_last_words(const char *log_path)
{
    (void)log_path;
    return g_strdup("");
}

static void nothing_changed(void *opaque, bool urgent)
{
    (void)opaque;
    (void)urgent;
}

static void nothing_flushed(void *opaque)
{
    (void)opaque;
}

static void nothing_told(void *opaque, const char *message)
{
    (void)opaque;
    (void)message;
}

/* ---- the host ---- */

static char *path_of(const char *name)
{
    return g_build_filename(folder, name, NULL);
}

static struct disks *try_open(bool standby, GError **error)
{
    struct disk_config list[NDISKS] = {{.id = (char *)"disk0", .path = path_of("image-0")},
                                       {.id = (char *)"disk1", .path = path_of("image-1"), .shared = shares}};
    const struct disks_config config = {
        .vm_name = "vm",
        .vm_dir = folder,
        .state_dir = folder,
        .plugin = "none",
        .list = list,
        .n = NDISKS,
        .standby = standby,
        .changed = nothing_changed,
        .flushed = nothing_flushed,
        .detached = nothing_told,
        .fault_changed = nothing_told,
    };
    struct disks *disks = disks_open(&config, error);
    for (unsigned i = 0; i < NDISKS; i++)
        g_free((char *)list[i].path);
    return disks;
}

static struct disks *open_standby(void)
{
    g_autoptr(GError) error = NULL;
    struct disks *disks = try_open(true, &error);
    if (!disks)
        fail_msg("%s", error->message);
    return disks;
}

static int make_host(void **state)
{
    (void)state;
    folder = g_build_filename(g_get_tmp_dir(), "standby-XXXXXX", NULL);
    assert_non_null(g_mkdtemp(folder));
    for (unsigned i = 0; i < NDISKS; i++) {
        g_autofree char *path = g_strdup_printf("%s/image-%u", folder, i);
        int fd = open(path, O_RDWR | O_CREAT, 0600);
        assert_int_equal(ftruncate(fd, LEN), 0);
        close(fd);
    }
    return 0;
}

static int remove_host(void **state)
{
    (void)state;
    static const char *const names[] = {"image-0",   "image-1",       "disk-0.map", "disk-1.map", "journal",
                                        "disks.log", "synchronising", "us-disk-0",  "us-disk-1"};
    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
        g_autofree char *path = path_of(names[i]);
        unlink(path);
    }
    assert_int_equal(rmdir(folder), 0);
    g_free(folder);
    return 0;
}

/* ---- epochs ---- */

/* Each epoch writes everywhere it did before: an image that has two of them in part shows it. */
static void stage(struct staging *staging, struct staged_epoch *epoch)
{
    static uint8_t record_bytes[DISK_RECORD_HEADER_LEN + 8192];
    uint64_t each = sizeof record_bytes, len = (uint64_t)nwritten_disks * PER_DISK * each, at = 0;
    assert_int_equal(disk_section_reserve(staging, epoch, len), 0);
    for (unsigned i = 0; i < nwritten_disks * PER_DISK; i++, at += each) {
        struct disk_record record = {.type = DISK_RECORD_WRITE,
                                     .disk = (uint16_t)(i % nwritten_disks),
                                     .offset = 4096 + i / nwritten_disks * 100000ull,
                                     .len = 8192,
                                     .data_len = 8192};
        disk_record_encode(&record, record_bytes);
        memset(record_bytes + DISK_RECORD_HEADER_LEN, (int)epoch->epoch, 8192);
        disk_section_write(staging, epoch, at, record_bytes, each);
    }
}

static struct staged_epoch *new_staged(struct staging *staging, uint64_t number, enum staged_kind kind)
{
    struct staged_epoch *epoch = staging_begin(staging, number, kind);
    assert_non_null(epoch);
    stage(staging, epoch);
    staging_commit(staging, epoch);
    return epoch;
}

static int take_epoch(struct disks *disks, struct staging *staging, uint64_t number)
{
    struct staged_epoch *epoch = new_staged(staging, number, STAGED_EPOCH);
    int status = disks_check(disks, staging, epoch);
    if (status == 0)
        status = disks_journal(disks, staging, epoch, TERM, number % 2);
    if (status == 0)
        status = disks_apply(disks, staging, epoch);
    staging_free(staging, epoch);
    return status;
}

static struct staging *new_staging(void)
{
    struct staging *staging = NULL;
    assert_int_equal(staging_open(&staging, 256, 4096), 0);
    return staging;
}

/* The epoch that both images are at, or UINT64_MAX if they are at none. */
static uint64_t epoch_of_images(struct disks *disks)
{
    uint64_t epoch = UINT64_MAX;
    for (unsigned i = 0; i < NDISKS * PER_DISK; i++) {
        uint8_t bytes[8192];
        assert_int_equal(disk_image_read(disk_image_fd(disks_image(disks, i % NDISKS)), bytes, sizeof bytes,
                                         4096 + i / NDISKS * 100000ull),
                         0);
        if (epoch == UINT64_MAX)
            epoch = bytes[0];
        if (bytes[0] != epoch || memcmp(bytes, bytes + 1, sizeof bytes - 1) != 0)
            return UINT64_MAX;
    }
    return epoch;
}

static uint64_t epoch_after_return(void)
{
    struct disks *disks = open_standby();
    uint64_t epoch = epoch_of_images(disks);
    disks_close(disks);
    return epoch;
}

static bool exists(const char *name)
{
    g_autofree char *path = path_of(name);
    return access(path, F_OK) == 0;
}

/* A child that takes epochs until it dies in its nth write, or has taken them all. True: it died. */
static bool live(int nwrites, uint64_t *taken)
{
    int told[2], status;
    assert_int_equal(pipe(told), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct disks *disks = open_standby();
        struct staging *staging = new_staging();
        for (unsigned i = 0; i < NDISKS; i++)
            if (disk_map_set_pair(disks_map(disks, i), a_pair) < 0)
                _exit(2);
        writes_until_death = nwrites;
        for (uint64_t number = 1; number <= NEPOCHS; number++) {
            if (take_epoch(disks, staging, number) < 0 || write(told[1], "", 1) != 1)
                _exit(3);
        }
        raise(SIGKILL); /* it never ends by itself */
    }
    close(told[1]);
    char byte;
    for (*taken = 0; read(told[0], &byte, 1) == 1;)
        ++*taken;
    close(told[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    return *taken < NEPOCHS;
}

static void test_a_standby_killed_in_any_write_returns_with_a_whole_epoch(void **state)
{
    unsigned ndeaths = 0, nforward = 0;
    uint64_t taken;
    while (live((int)ndeaths++, &taken)) {
        uint64_t epoch = epoch_after_return();
        if (epoch != taken && epoch != taken + 1)
            fail_msg("killed in write %u: %llu epochs were applied, the images are at %lld", ndeaths,
                     (unsigned long long)taken, (long long)epoch);
        nforward += epoch == taken + 1;
        remove_host(state);
        make_host(state);
    }
    /* One write for the journal, one for its mark, and each of the images'. */
    assert_int_equal(ndeaths - 1, NEPOCHS * (2 + NDISKS * PER_DISK));
    assert_int_equal(nforward, NEPOCHS * (1 + NDISKS * PER_DISK));
    assert_int_equal(epoch_after_return(), NEPOCHS);
}

/* The device fails in the middle of an epoch, and the standby ends in good order. */
static void test_an_image_that_failed_gets_the_rest_of_the_epoch_when_the_standby_returns(void **state)
{
    (void)state;
    struct disks *disks = open_standby();
    struct staging *staging = new_staging();
    assert_int_equal(take_epoch(disks, staging, 1), 0);
    int fd = disk_image_fd(disks_image(disks, 1)), good = dup(fd);
    int read_only = open("/dev/null", O_RDONLY);
    assert_int_equal(dup2(read_only, fd), fd);
    assert_true(take_epoch(disks, staging, 2) < 0);
    g_autofree char *failure = disks_failure(disks);
    assert_non_null(strstr(failure, "disk disk1: writing to "));
    assert_non_null(strstr(failure, disk_image_path(disks_image(disks, 1))));
    assert_int_equal(dup2(good, fd), fd);
    assert_int_equal(epoch_of_images(disks), UINT64_MAX);
    close(good);
    close(read_only);
    disks_close(disks);
    staging_close(staging);
    assert_int_equal(epoch_after_return(), 2);
}

static void flip_in_journal(uint64_t offset)
{
    g_autofree char *path = path_of("journal");
    int fd = open(path, O_RDWR);
    uint8_t byte;
    assert_int_equal(pread(fd, &byte, 1, (off_t)offset), 1);
    byte ^= 4;
    assert_int_equal(pwrite(fd, &byte, 1, (off_t)offset), 1);
    close(fd);
}

static void test_a_damaged_journal_makes_the_standby_start_over_and_nobody_else_starts(void **state)
{
    (void)state;
    g_autoptr(GError) error = NULL;
    uint64_t taken;
    assert_false(live(-1, &taken));
    flip_in_journal(3 * 4096 + 5000); /* in the first epoch's data */
    struct disks *disks = open_standby();
    assert_false(disk_map_trusted(disks_map(disks, 0)) || disk_map_trusted(disks_map(disks, 1)));
    assert_true(exists("synchronising"));
    struct staging *staging = new_staging();
    assert_int_equal(take_epoch(disks, staging, 9), 0);
    staging_close(staging);
    disks_close(disks);
    assert_null(try_open(false, &error));
    assert_non_null(strstr(error->message, "in no state that it ever had"));
    /* Once a synchronisation has gone through, it is as before. */
    disks = open_standby();
    assert_int_equal(disks_whole(disks), 0);
    disks_close(disks);
    disks = try_open(false, NULL);
    assert_non_null(disks);
    disks_close(disks);
}

static void test_a_lost_journal_makes_the_maps_untrusted(void **state)
{
    (void)state;
    uint64_t taken;
    assert_false(live(-1, &taken));
    struct disks *disks = open_standby();
    assert_true(disk_map_trusted(disks_map(disks, 0)) && disk_map_trusted(disks_map(disks, 1)));
    disks_close(disks);
    g_autofree char *path = path_of("journal");
    assert_int_equal(unlink(path), 0);
    disks = open_standby();
    assert_false(disk_map_trusted(disks_map(disks, 0)) || disk_map_trusted(disks_map(disks, 1)));
    disks_close(disks);
}

/* Whatever else is written, and by whom, the standby's memory holds only what the shared image may lack. */
static void
test_only_epochs_with_writes_to_a_shared_disk_are_kept_and_only_until_its_image_has_them(void **state)
{
    (void)state;
    shares = true;
    struct disks *disks = open_standby();
    struct staging *staging = new_staging();
    struct staged_epoch *batch = new_staged(staging, 9, STAGED_PRECOPY);
    assert_int_equal(disks_apply(disks, staging, batch), 0);
    staging_free(staging, batch);
    assert_int_equal(disks->held_bytes, 0);
    nwritten_disks = 1;
    assert_int_equal(take_epoch(disks, staging, 1), 0);
    assert_int_equal(disks->held_bytes, 0);
    nwritten_disks = NDISKS;
    assert_int_equal(take_epoch(disks, staging, 2), 0);
    assert_int_equal(take_epoch(disks, staging, 3), 0);
    size_t two = disks->held_bytes;
    assert_true(two > 0);
    disks_flushed(disks, 1, 2);
    assert_int_equal(disks->held_bytes, two / 2);
    disks_flushed(disks, 1, 3);
    assert_int_equal(disks->held_bytes, 0);
    staging_close(staging);
    disks_close(disks);
    shares = false;
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, make_host, remove_host)

static void test_a_vm_without_disks_has_all_its_orders_done_and_is_in_sync(void **state)
{
    (void)state;
    disks_order(NULL, DISK_DURABLE, 0, false);
    disks_write_through(NULL);
    assert_true(disks_order_done(NULL));
    assert_int_equal(disks_sync_within(NULL, 1000), 0);
    assert_int_equal(disks_count(NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_standby_killed_in_any_write_returns_with_a_whole_epoch),
        TEST(test_an_image_that_failed_gets_the_rest_of_the_epoch_when_the_standby_returns),
        TEST(test_a_damaged_journal_makes_the_standby_start_over_and_nobody_else_starts),
        TEST(test_a_lost_journal_makes_the_maps_untrusted),
        TEST(test_only_epochs_with_writes_to_a_shared_disk_are_kept_and_only_until_its_image_has_them),
        TEST(test_a_vm_without_disks_has_all_its_orders_done_and_is_in_sync),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
