/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A standby that journals random epochs and applies them, ended in three ways:
 *
 *   kill    its process dies by SIGKILL: inside a write that is half done, or at any other moment; also while
 *           it replays. The images must be the model at a whole epoch, none that was applied may be missing.
 *   power   its host dies; each epoch is synced before it is applied. Of what was not synced, a random choice
 *           of 512-byte sectors is on the disk.
 *   damage  as kill, and then the journal's file is cut, garbled, or has bits flipped. The images must be
 * such an epoch, or the journal must say that it is damaged and leave them alone.
 *
 *   test_disk_journal_property [MODE] [--rounds N] [--seed N] [--fault NAME]
 *
 * --fault: succeeds only if the planted fault is noticed (for the build with UNDERSTUDY_CHAOS).
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/disk/journal_world.h"

#define CAPACITY (72u << 10) /* a few epochs; the largest just fits; 64 uniform ones fill it */

static const char *fault = "";

static bool is_fault(const char *name)
{
    return strcmp(fault, name) == 0;
}

/* ---- the moment of death ---- */

static uint64_t death_random;
static int writes_until_death = -1; /* in this process */

ssize_t __real_pwritev(int fd, const struct iovec *data, int ndata, off_t offset);
ssize_t __wrap_pwritev(int fd, const struct iovec *data, int ndata, off_t offset);

ssize_t __wrap_pwritev(int fd, const struct iovec *data, int ndata, off_t offset)
{
    if (writes_until_death < 0 || writes_until_death-- > 0)
        return __real_pwritev(fd, data, ndata, offset);
    size_t len = 0;
    for (int i = 0; i < ndata; i++)
        len += data[i].iov_len;
    size_t left = world_random(&death_random) % (len + 1);
    /* The kernel looks for signals between pages: what lies in one, here and in memory, is all or nothing. */
    if (len <= 64)
        left = left > len / 2 ? len : 0;
    for (int i = 0; i < ndata && left > 0; i++) {
        struct iovec part = {data[i].iov_base, data[i].iov_len < left ? data[i].iov_len : left};
        if (__real_pwritev(fd, &part, 1, offset) < 0)
            break;
        offset += (off_t)part.iov_len;
        left -= part.iov_len;
    }
    raise(SIGKILL);
    return -1;
}

/* ---- the standby ---- */

/* What an observer knows of it. */
struct progress {
    _Atomic uint64_t begun, appended, applied;
};

static const uint8_t first_boot[DISK_MAP_BOOT_LEN] = "the first boot ";

static int make_room(struct world *world, struct disk_journal *journal)
{
    world_sync_images(world);
    return disk_journal_trim(journal);
}

static int one_epoch(struct world *world, struct disk_journal *journal, uint64_t epoch,
                     struct progress *progress)
{
    static uint8_t buffer[WORLD_MAX_EPOCH];
    struct disk_stream writes;
    world_epoch(world, epoch, buffer, &writes);
    atomic_store(&progress->begun, epoch);
    int status = 0;
    if (is_fault("apply-before-append"))
        status = world_apply(world, 1, epoch, &writes);
    if (status == 0)
        status = disk_journal_append(journal, 1, epoch, &writes);
    if (status == -ENOSPC && (status = make_room(world, journal)) == 0)
        status = disk_journal_append(journal, 1, epoch, &writes);
    if (status < 0)
        return status;
    atomic_store(&progress->appended, epoch);
    status = world_apply(world, 1, epoch, &writes);
    if (status == 0)
        atomic_store(&progress->applied, epoch);
    return status;
}

/* Whether the images are a whole epoch of [oldest, newest]; the model is at an older one, and follows. */
static bool is_whole_epoch(struct world *world, uint64_t oldest, uint64_t newest)
{
    for (uint64_t epoch = oldest; epoch <= newest; epoch++) {
        world_advance(world, epoch);
        if (world_is_model(world))
            return true;
    }
    printf("seed %llu: the images are no whole epoch from %llu to %llu\n", (unsigned long long)world->seed,
           (unsigned long long)oldest, (unsigned long long)newest);
    return false;
}

/* ---- kill ---- */

static void child_life(struct world *world, struct progress *progress, uint64_t epoch, int nwrites)
{
    struct disk_journal *journal = NULL;
    world_open_images(world);
    writes_until_death = nwrites;
    int64_t status = disk_journal_open_on_boot(&journal, world->journal_path, CAPACITY, first_boot);
    if (status == 0)
        status = disk_journal_replay(journal, world_apply, world);
    while (status >= 0)
        status = one_epoch(world, journal, ++epoch, progress);
    printf("seed %llu: epoch %llu: %s\n", (unsigned long long)world->seed, (unsigned long long)epoch,
           strerror((int)-status));
    fflush(stdout);
    _exit(1);
}

/* One life: begins at the model's epoch, and is cut off. False if it ended itself. */
static bool one_life(struct world *world, struct progress *progress, uint64_t *random)
{
    atomic_store(&progress->begun, world->epoch);
    atomic_store(&progress->appended, world->epoch);
    atomic_store(&progress->applied, world->epoch);
    /* Most deaths inside a write; the others anywhere. */
    bool inside = world_random(random) % 8 > 0;
    int nwrites = inside ? (int)(world_random(random) % (world_random(random) % 2 ? 20 : 120)) : -1;
    death_random = world_random(random);
    pid_t pid = fork();
    if (pid == 0)
        child_life(world, progress, world->epoch, nwrites);
    if (!inside) {
        struct timespec time = {.tv_nsec = (long)(world_random(random) % 4000000)};
        nanosleep(&time, NULL);
        kill(pid, SIGKILL);
    }
    int status;
    return waitpid(pid, &status, 0) == pid && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
}

static bool kill_round(const char *folder, uint64_t seed)
{
    struct world world;
    uint64_t random = seed;
    bool good = true;
    struct progress *progress =
        mmap(NULL, sizeof *progress, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    world_open(&world, folder, seed);
    world.uniform = world_random(&random) % 2;
    for (unsigned life = 0; life < 12 && good; life++) {
        world_close_images(&world); /* their lock is the child's */
        uint64_t oldest = world.epoch;
        if (!(good = one_life(&world, progress, &random)))
            break;
        if (atomic_load(&progress->appended) > oldest)
            oldest = atomic_load(&progress->appended);
        world_open_images(&world);
        struct disk_journal *journal = NULL;
        int64_t status = disk_journal_open_on_boot(&journal, world.journal_path, CAPACITY, first_boot);
        if (status == 0)
            status = disk_journal_replay(journal, world_apply, &world);
        if (status < 0)
            printf("seed %llu: replay: %s\n", (unsigned long long)seed, strerror((int)-status));
        good = status >= 0 && is_whole_epoch(&world, oldest, atomic_load(&progress->begun));
        disk_journal_close(journal);
    }
    world_close(&world);
    munmap(progress, sizeof *progress);
    return good;
}

/* ---- power ---- */

#define SECTOR    512u
#define MAX_FILE  (256u << 10)
#define ALL_FILES (1u + WORLD_DISKS) /* the journal first */

/* What of each file is on the disk for certain. */
struct medium {
    uint8_t bytes[ALL_FILES][MAX_FILE];
    bool failing; /* what is being written just now does not get there for certain */
};

static struct medium *journal_medium; /* of the journal's durable writes, if any */

ssize_t __real_pwritev2(int fd, const struct iovec *data, int ndata, off_t offset, int flags);
ssize_t __wrap_pwritev2(int fd, const struct iovec *data, int ndata, off_t offset, int flags);

/* Only the journal writes so. */
ssize_t __wrap_pwritev2(int fd, const struct iovec *data, int ndata, off_t offset, int flags)
{
    ssize_t put = __real_pwritev2(fd, data, ndata, offset, flags);
    if (put > 0 && journal_medium && !journal_medium->failing) {
        off_t begin = offset / SECTOR * SECTOR, end = (offset + put + SECTOR - 1) / SECTOR * SECTOR;
        if (pread(fd, journal_medium->bytes[0] + begin, (size_t)(end - begin), begin) != end - begin)
            abort();
    }
    return put;
}

static const char *file_path(const struct world *world, unsigned i)
{
    return i == 0 ? world->journal_path : world->image_path[i - 1];
}

static size_t read_file(const char *path, uint8_t out[MAX_FILE])
{
    int fd = open(path, O_RDONLY);
    memset(out, 0, MAX_FILE);
    ssize_t len = read(fd, out, MAX_FILE);
    close(fd);
    if (len <= 0 || len == MAX_FILE)
        abort();
    return (size_t)len;
}

static void write_file(const char *path, const uint8_t *bytes, size_t len)
{
    int fd = open(path, O_WRONLY);
    if (pwrite(fd, bytes, len, 0) != (ssize_t)len)
        abort();
    close(fd);
}

static void now_durable(struct medium *medium, const struct world *world, unsigned i)
{
    read_file(file_path(world, i), medium->bytes[i]);
}

static void lose_power(struct medium *medium, const struct world *world, uint64_t *random)
{
    static uint8_t bytes[MAX_FILE];
    for (unsigned i = 0; i < ALL_FILES; i++) {
        uint64_t of_eight = world_random(random) % 9;
        size_t len = read_file(file_path(world, i), bytes);
        for (size_t at = 0; at < len; at += SECTOR) {
            if (world_random(random) % 8 >= of_eight)
                memcpy(bytes + at, medium->bytes[i] + at, SECTOR);
        }
        write_file(file_path(world, i), bytes, len);
        memcpy(medium->bytes[i], bytes, len);
    }
}

/* Appends, syncs and applies until the power goes, after a random step. */
static int power_life(struct world *world, struct disk_journal *journal, struct medium *medium,
                      uint64_t *random, uint64_t *synced, uint64_t *appended)
{
    static uint8_t buffer[WORLD_MAX_EPOCH];
    for (int left = (int)(world_random(random) % 40);;) {
        struct disk_stream writes;
        world_epoch(world, *appended + 1, buffer, &writes);
        int status = disk_journal_append(journal, 1, *appended + 1, &writes);
        if (status == -ENOSPC) {
            for (unsigned i = 0; i < WORLD_DISKS; i++)
                now_durable(medium, world, 1 + i);
            medium->failing = left-- <= 0;
            status = disk_journal_trim(journal);
            if (status < 0 || medium->failing)
                return status;
            continue;
        }
        if (status < 0)
            return status;
        ++*appended;
        /* Not synced, and perhaps more behind it: what is lost then may have a gap. */
        if (left-- <= 0 || (left < 3 && world_random(random) % 2))
            goto out_of_power;
        now_durable(medium, world, 0);
        *synced = *appended;
        unsigned nrecords =
            left-- <= 0 ? (unsigned)(world_random(random) % (world_nrecords(&writes) + 1)) : 999;
        status = world_apply_some(world, &writes, nrecords);
        if (status < 0 || left < 0)
            return status;
    }
out_of_power:
    for (unsigned more = (unsigned)(world_random(random) % 4); more > 0; more--) {
        struct disk_stream writes;
        world_epoch(world, *appended + 1, buffer, &writes);
        if (disk_journal_append(journal, 1, *appended + 1, &writes) == 0)
            ++*appended;
    }
    return 0;
}

static bool power_round(const char *folder, uint64_t seed)
{
    static struct medium medium;
    struct world world;
    uint64_t random = seed, synced = 0, appended = 0;
    bool good = true;
    world_open(&world, folder, seed);
    world.uniform = world_random(&random) % 4 > 0;
    memset(&medium, 0, sizeof medium);
    journal_medium = &medium;
    for (unsigned boot = 0; boot < 12 && good; boot++) {
        struct disk_journal *journal = NULL;
        uint8_t boot_id[DISK_MAP_BOOT_LEN] = {(uint8_t)boot};
        medium.failing = false;
        int64_t status = disk_journal_open_on_boot(&journal, world.journal_path, CAPACITY, boot_id);
        if (status == 0 && boot == 0)
            now_durable(&medium, &world, 0);
        if (status == 0)
            status = disk_journal_replay(journal, world_apply, &world);
        if (status < 0)
            printf("seed %llu: replay: %s\n", (unsigned long long)seed, strerror((int)-status));
        good = status >= 0 && is_whole_epoch(&world, synced, appended);
        if (good) {
            appended = synced = world.epoch;
            status = power_life(&world, journal, &medium, &random, &synced, &appended);
            if (status < 0)
                printf("seed %llu: %s\n", (unsigned long long)seed, strerror((int)-status));
            good = status >= 0;
            lose_power(&medium, &world, &random);
        }
        disk_journal_close(journal);
    }
    journal_medium = NULL;
    world_close(&world);
    return good;
}

/* ---- damage ---- */

struct damage {
    uint64_t begin, end; /* of the file */
    bool cut;
};

static struct damage do_damage(const char *path, uint64_t *random)
{
    static uint8_t bytes[MAX_FILE];
    size_t len = read_file(path, bytes);
    uint64_t kind = world_random(random) % 4;
    /* The first three blocks are worth a share of their own. */
    uint64_t at = world_random(random) % (world_random(random) % 3 ? len : DISK_JOURNAL_RING_OFFSET);
    if (world_random(random) % 8 == 0)
        at = at / DISK_JOURNAL_BLOCK_LEN * DISK_JOURNAL_BLOCK_LEN +
             world_random(random) % DISK_JOURNAL_SUPER_LEN;
    struct damage damage = {at, at + 1, false};
    if (kind == 0) {
        damage = (struct damage){at, len, true};
        if (truncate(path, (off_t)at) < 0)
            abort();
        return damage;
    }
    if (kind > 1) {
        damage.end = at + 1 + world_random(random) % (world_random(random) % 2 ? 64 : 6000);
        damage.end = damage.end < len ? damage.end : len;
    }
    for (uint64_t i = damage.begin; i < damage.end; i++)
        bytes[i] = kind == 3 ? 0 : bytes[i] ^ (uint8_t)(1 + world_random(random) % 255);
    write_file(path, bytes, len);
    return damage;
}

static bool touches(const struct damage *damage, uint64_t begin, uint64_t end)
{
    return damage->begin < end && damage->end > begin;
}

static bool touches_entries(const struct damage *damage, uint64_t tail, uint64_t head)
{
    uint64_t begin = tail % CAPACITY, end = begin + (head - tail);
    uint64_t ring = DISK_JOURNAL_RING_OFFSET;
    return head > tail && (touches(damage, ring + begin, ring + (end < CAPACITY ? end : CAPACITY)) ||
                           (end > CAPACITY && touches(damage, ring, ring + end - CAPACITY)));
}

/* Appends and applies some epochs; the last one perhaps only in part. Where the live entries are. */
static int damage_life(struct world *world, struct disk_journal *journal, uint64_t *random, uint64_t *tail,
                       uint64_t *head, struct progress *progress)
{
    static uint8_t buffer[WORLD_MAX_EPOCH];
    int status = 0;
    for (unsigned left = (unsigned)(world_random(random) % 30); left > 0 && status == 0; left--) {
        struct disk_stream writes;
        uint64_t before = disk_journal_used(journal), epoch = progress->appended + 1;
        world_epoch(world, epoch, buffer, &writes);
        status = disk_journal_append(journal, 1, epoch, &writes);
        if (status == -ENOSPC && (status = disk_journal_trim(journal)) == 0) {
            before = 0;
            status = disk_journal_append(journal, 1, epoch, &writes);
        }
        if (status < 0)
            break;
        *head += disk_journal_used(journal) - before;
        progress->begun = progress->appended = epoch;
        status = world_apply_some(world, &writes, left == 1 ? (unsigned)(world_random(random) % 4) : 999);
    }
    *tail = *head - disk_journal_used(journal);
    return status;
}

static unsigned nrepaired, ndamaged, nnew;

static bool damage_round(const char *folder, uint64_t seed)
{
    static uint8_t before[WORLD_DISKS][MAX_FILE], after[MAX_FILE];
    struct world world;
    struct progress progress = {0};
    uint64_t random = seed, tail = 0, head = 0;
    struct disk_journal *journal = NULL;
    world_open(&world, folder, seed);
    world.uniform = world_random(&random) % 4 == 0;
    int64_t status = disk_journal_open_on_boot(&journal, world.journal_path, CAPACITY, first_boot);
    if (status == 0)
        status = disk_journal_replay(journal, world_apply, &world);
    if (status == 0)
        status = damage_life(&world, journal, &random, &tail, &head, &progress);
    disk_journal_close(journal);
    for (unsigned i = 0; i < WORLD_DISKS; i++)
        read_file(world.image_path[i], before[i]);
    struct damage damage = do_damage(world.journal_path, &random);

    bool good = status >= 0, is_new = false;
    status = disk_journal_open_on_boot(&journal, world.journal_path, CAPACITY, first_boot);
    if (status == 0) {
        is_new = disk_journal_is_new(journal);
        status = disk_journal_replay(journal, world_apply, &world);
    }
    bool harmless = !touches(&damage, 0, DISK_JOURNAL_RING_OFFSET) && !touches_entries(&damage, tail, head);
    if (harmless)
        good = good && status >= 0 && !is_new;
    if (status == -EBADMSG || is_new) {
        for (unsigned i = 0; i < WORLD_DISKS; i++) {
            read_file(world.image_path[i], after);
            good = good && memcmp(before[i], after, MAX_FILE) == 0;
        }
        ndamaged += !is_new;
        nnew += is_new;
        good = good && disk_journal_trim(journal) == 0;
    } else {
        good = good && status >= 0 && is_whole_epoch(&world, progress.appended, progress.appended);
        nrepaired++;
    }
    if (!good)
        printf("seed %llu: bytes %llu to %llu %s, entries from %llu to %llu: status %lld%s\n",
               (unsigned long long)seed, (unsigned long long)damage.begin, (unsigned long long)damage.end,
               damage.cut ? "cut off" : "garbled", (unsigned long long)tail, (unsigned long long)head,
               (long long)status, is_new ? ", new" : "");
    disk_journal_close(journal);
    world_close(&world);
    return good;
}

/* ---- all ---- */

static const struct mode {
    const char *name;
    bool (*round)(const char *folder, uint64_t seed);
    unsigned nrounds;
} modes[] = {{"kill", kill_round, 40}, {"power", power_round, 150}, {"damage", damage_round, 600}};

/* Whether all rounds were good. */
static bool run_mode(const struct mode *mode, const char *folder, uint64_t seed, unsigned nrounds)
{
    unsigned n = 0;
    bool good = true;
    /* Some deaths come at a moment of the clock, so one seed is not always the same round: a planted fault is
     * looked for until it shows. */
    if (nrounds == 0)
        nrounds = mode->nrounds * (*fault ? 10 : 1);
    while (good && n < nrounds) {
        good = mode->round(folder, seed + n++);
        fflush(stdout);
    }
    printf("%s: %u rounds from seed %llu: %s\n", mode->name, n, (unsigned long long)seed,
           good ? "good" : "WRONG");
    if (mode->round == damage_round) {
        printf("damage: %u replayed, %u refused, %u without a superblock\n", nrepaired, ndamaged, nnew);
        good = good && (n < 100 || (nrepaired > 0 && ndamaged > 0 && nnew > 0));
    }
    fflush(stdout);
    return good;
}

int main(int argc, char **argv)
{
    char folder[64];
    const char *only = "";
    uint64_t seed = 1;
    unsigned nrounds = 0;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc)
            seed = strtoull(argv[++i], NULL, 10);
        else if (strcmp(argv[i], "--rounds") == 0 && i + 1 < argc)
            nrounds = (unsigned)strtoul(argv[++i], NULL, 10);
        else if (strcmp(argv[i], "--fault") == 0 && i + 1 < argc)
            fault = argv[++i];
        else
            only = argv[i];
    }
    setenv("UNDERSTUDY_JOURNAL_CHAOS", fault, 1);
    /* In memory if it can be: the tests play the disk themselves, and it need not wait for a real one. */
    snprintf(folder, sizeof folder, "%s/disk-journal-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    if (!mkdtemp(folder))
        return 3;
    bool good = true;
    for (unsigned i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        if (!*only || strcmp(only, modes[i].name) == 0)
            good = run_mode(&modes[i], folder, seed, nrounds) && good;
    }
    rmdir(folder);
    if (*fault)
        printf("%s: %s\n", fault, good ? "NOT NOTICED" : "noticed");
    return good == !*fault ? 0 : 1;
}
