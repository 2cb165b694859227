/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbdkit-understudy-plugin: serves one disk of a VM to QEMU. Here are only nbdkit's callbacks; what a request
 * does is disk_log_write.h's.
 *
 * All descriptors are inherited from the replicator, which has opened, checked and locked what they stand
 * for. The plugin offers neither flush nor FUA: protected, the epoch is the group commit; alone, each write
 * is durable before it is answered (DISK_DURABLE).
 *
 * nbdkit calls from many threads at once. What it prints, the replicator logs: a message a second of each
 * kind is enough of a guest that goes on writing to a disk that refuses.
 */
#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <time.h>

#include "checkpoint/disk/disk_record.h"
#include "replicator/disk/plugin/disk_log_write.h"
#include "replicator/disk/plugin/parent_death.h"

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

static struct disk_log_descriptors descriptors = {-1, -1, -1, -1};
static const char *disk_name = "?";
static struct disk_log *disk;
static int parent;

/* ---- configuration ---- */

static int take_descriptor(const char *key, const char *value, int *fd)
{
    if (nbdkit_parse_int(key, value, fd) < 0)
        return -1;
    if (*fd < 3 || fcntl(*fd, F_SETFD, FD_CLOEXEC) < 0) {
        nbdkit_error("%s=%s: no descriptor of that number was inherited", key, value);
        return -1;
    }
    return 0;
}

static int plugin_config(const char *key, const char *value)
{
    static const struct {
        const char *key;
        int *fd;
    } keys[] = {
        {"shm", &descriptors.shm},
        {"image", &descriptors.image},
        {"map", &descriptors.map},
        {"attention", &descriptors.attention},
    };
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        if (strcmp(key, keys[i].key) == 0)
            return take_descriptor(key, value, keys[i].fd);
    }
    if (strcmp(key, "parent") == 0)
        return nbdkit_parse_int(key, value, &parent);
    if (strcmp(key, "name") == 0) {
        disk_name = nbdkit_strdup_intern(value);
        return disk_name ? 0 : -1;
    }
    nbdkit_error("unknown parameter %s", key);
    return -1;
}

static int plugin_config_complete(void)
{
    if (descriptors.shm < 0 || descriptors.image < 0 || descriptors.map < 0 || descriptors.attention < 0) {
        nbdkit_error("shm=, image=, map= and attention= are needed: this plugin is started by understudy");
        return -1;
    }
    return 0;
}

#define CONFIG_HELP                                                                                          \
    "shm=FD        The shared memory with the log ring.\n"                                                   \
    "image=FD      The disk's image.\n"                                                                      \
    "map=FD        The dirty-block map.\n"                                                                   \
    "attention=FD  The eventfd to signal.\n"                                                                 \
    "parent=PID    Ends with this process, by SIGQUIT.\n"                                                    \
    "name=DISK-ID  What to call the disk in messages."

static int plugin_get_ready(void)
{
    const char *why;
    int status = disk_log_open(&disk, &descriptors, &why);
    if (status == 0)
        return 0;
    nbdkit_error("disk %s: %s (%s)", disk_name, why, strerror(-status));
    return -1;
}

/* The process is the one that will serve: threads may be made. */
static int plugin_after_fork(void)
{
    if (!parent_death_await(parent)) {
        nbdkit_error("disk %s: the process that started this one is gone", disk_name);
        return -1;
    }
    int status = disk_log_start(disk);
    if (status == 0)
        return 0;
    nbdkit_error("disk %s: %s", disk_name, strerror(-status));
    return -1;
}

static void plugin_cleanup(void)
{
    disk_log_close(disk);
    disk = NULL;
}

/* ---- what the export is ---- */

static void *plugin_open(int readonly)
{
    (void)readonly;
    return NBDKIT_HANDLE_NOT_NEEDED;
}

static int64_t plugin_get_size(void *handle)
{
    (void)handle;
    return (int64_t)disk_log_export_len(disk);
}

static int plugin_block_size(void *handle, uint32_t *minimum, uint32_t *preferred, uint32_t *maximum)
{
    (void)handle;
    *minimum = 1;
    *preferred = 4096;
    *maximum = DISK_RECORD_MAX_DATA;
    return 0;
}

/* Whether writes are taken changes while QEMU is connected: said when one comes. */
static int plugin_can(void *handle)
{
    (void)handle;
    return 1;
}

static int plugin_can_cache(void *handle)
{
    (void)handle;
    return NBDKIT_CACHE_NATIVE;
}

/* ---- requests ---- */

/* True once a second for each kind. */
static bool is_time_to_speak(_Atomic int64_t *last_s)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    int64_t last = atomic_load(last_s);
    return now.tv_sec != last && atomic_compare_exchange_strong(last_s, &last, now.tv_sec);
}

static int answer(int status, const char *what, uint64_t len, uint64_t offset)
{
    static _Atomic int64_t refusal_s = -1, failure_s = -1;
    if (status == 0)
        return 0;
    if (status == -EPERM && is_time_to_speak(&refusal_s))
        nbdkit_error("disk %s: refused %s: the guest does not run on this host", disk_name, what);
    else if (status != -EPERM && is_time_to_speak(&failure_s))
        nbdkit_error("disk %s: %s of %llu bytes at %llu failed: %s", disk_name, what, (unsigned long long)len,
                     (unsigned long long)offset, strerror(-status));
    nbdkit_set_error(-status);
    return -1;
}

static int plugin_pread(void *handle, void *buffer, uint32_t count, uint64_t offset, uint32_t flags)
{
    (void)handle;
    int status = flags ? -EPERM : disk_log_read(disk, buffer, count, offset);
    return answer(status, "a read", count, offset);
}

static int plugin_pwrite(void *handle, const void *buffer, uint32_t count, uint64_t offset, uint32_t flags)
{
    (void)handle;
    int status = flags ? -EPERM : disk_log_write(disk, buffer, count, offset);
    return answer(status, "a write", count, offset);
}

static int plugin_zero(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
    (void)handle;
    int status = flags & ~(uint32_t)NBDKIT_FLAG_MAY_TRIM
                     ? -EPERM
                     : disk_log_zero(disk, count, offset, flags & NBDKIT_FLAG_MAY_TRIM);
    return answer(status, "zeroing", count, offset);
}

static int plugin_trim(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
    (void)handle;
    int status = flags ? -EPERM : disk_log_zero(disk, count, offset, true);
    return answer(status, "a trim", count, offset);
}

static int plugin_extents(void *handle, uint32_t count, uint64_t offset, uint32_t flags,
                          struct nbdkit_extents *extents)
{
    (void)handle;
    uint64_t len = count;
    while (len > 0) {
        bool is_hole;
        uint64_t n;
        int status = disk_log_extent(disk, len, offset, &is_hole, &n);
        if (status < 0)
            return answer(status, "asking for extents", len, offset);
        if (nbdkit_add_extent(extents, offset, n, is_hole ? NBDKIT_EXTENT_HOLE | NBDKIT_EXTENT_ZERO : 0) < 0)
            return -1;
        if (flags & NBDKIT_FLAG_REQ_ONE)
            break;
        offset += n;
        len -= n;
    }
    return 0;
}

static int plugin_cache(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
    (void)handle;
    int status = flags ? -EPERM : disk_log_cache(disk, count, offset);
    return answer(status, "reading ahead", count, offset);
}

static struct nbdkit_plugin plugin = {
    .name = "understudy",
    .longname = "understudy replicated disk",
    .version = UNDERSTUDY_VERSION,
    .description = "Serves a disk of a protected VM and logs its changes for the standby host.",
    .config = plugin_config,
    .config_complete = plugin_config_complete,
    .config_help = CONFIG_HELP,
    .get_ready = plugin_get_ready,
    .after_fork = plugin_after_fork,
    .cleanup = plugin_cleanup,
    .open = plugin_open,
    .get_size = plugin_get_size,
    .block_size = plugin_block_size,
    .can_write = plugin_can,
    .can_trim = plugin_can,
    .can_zero = plugin_can,
    .can_extents = plugin_can,
    .can_cache = plugin_can_cache,
    .can_multi_conn = plugin_can,
    .pread = plugin_pread,
    .pwrite = plugin_pwrite,
    .zero = plugin_zero,
    .trim = plugin_trim,
    .extents = plugin_extents,
    .cache = plugin_cache,
    .errno_is_preserved = 1,
};

NBDKIT_REGISTER_PLUGIN(plugin)
