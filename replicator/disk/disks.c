/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Opening and closing. Opening begins with what may be refused and ends with what costs most: image and
 * lock, then the journal is replayed (an image is not at a whole epoch before that), then maps, shared
 * memory, sockets, and nbdkit last.
 */
#include <errno.h>
#include <fcntl.h>
#include <gio/gio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "replicator/disk/disks_internal.h"

#define MARK_LEN (8u << 20) /* logged bytes that call for an epoch at once */

/* ---- opening ---- */

static bool open_image(struct disk *disk, const struct disk_config *config, GError **error)
{
    char *why = NULL;
    /* A shared image is the other host's while the guest runs there. */
    bool lock = !(config->shared && disk->disks->config.standby);
    int status = (lock ? disk_image_open : disk_image_open_unlocked)(&disk->image, config->path,
                                                                     config->export_len, &why);
    if (status < 0) {
        g_set_error(error, G_IO_ERROR, g_io_error_from_errno(-status), "disk %s: %s", disk->id,
                    why ? why : g_strerror(-status));
        free(why);
        return false;
    }
    disk->disks->len[disk->number] = disk_image_len(disk->image);
    return true;
}

/* Opens the map, after the journal was replayed: that changes the image. */
static bool open_map(struct disk *disk, GError **error)
{
    struct disk_map_image image;
    g_autofree char *name = g_strdup_printf("disk-%u.map", disk->number);
    g_autofree char *path = disks_state_path(disk->disks, name);
    int status = disk_image_identify(disk->image, &image);
    if (status == 0)
        status = disk_map_open(&disk->map, path, &image);
    return status == 0 || disks_open_failed(error, status, "the dirty-block map", path);
}

static bool open_shm(struct disk *disk, GError **error)
{
    size_t len = DISK_SHM_RING_OFFSET + DISKS_RING_LEN;
    disk->shm_fd = memfd_create("understudy-disk", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (disk->shm_fd < 0 || ftruncate(disk->shm_fd, (off_t)len) < 0 ||
        fcntl(disk->shm_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
        return disks_open_failed(error, -errno, "memory for the log of disk", disk->id);
    void *map = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, disk->shm_fd, 0);
    if (map == MAP_FAILED)
        return disks_open_failed(error, -errno, "memory for the log of disk", disk->id);
    disk->shm = map;
    disk->ring = (uint8_t *)map + DISK_SHM_RING_OFFSET;
    disk->ring_len = DISKS_RING_LEN;
    disk->shm->magic = DISK_SHM_MAGIC;
    disk->shm->version = DISK_SHM_VERSION;
    disk->shm->disk = disk->number;
    disk->shm->ring_len = DISKS_RING_LEN;
    disk->shm->export_len = disk_image_len(disk->image);
    disk->shm->mark = MARK_LEN;
    disk->shm->shared = disk->shared;
    return true;
}

static bool open_all(struct disks *disks, GError **error)
{
    const struct disks_config *config = &disks->config;
    for (unsigned i = 0; i < config->n; i++) {
        struct disk *disk = &disks->disk[i];
        disk->disks = disks;
        disk->number = i;
        disk->id = g_strdup(config->list[i].id);
        disk->shared = config->list[i].shared;
        disk->shm_fd = disk->attention_fd = disk->listen_fd = -1;
        disks->n = i + 1;
        if (!open_image(disk, &config->list[i], error))
            return false;
    }
    if (!disks_standby_open(disks, error))
        return false;
    for (unsigned i = 0; i < disks->n; i++) {
        struct disk *disk = &disks->disk[i];
        if (!open_map(disk, error) || !open_shm(disk, error) || !disk_server_open(disk, error))
            return false;
    }
    /* The first order stands before the first nbdkit looks. */
    disks_order(disks, config->standby ? 0 : DISK_WRITABLE | DISK_DURABLE, 0, false);
    for (unsigned i = 0; i < disks->n; i++) {
        if (!disk_server_start(&disks->disk[i], error)) {
            g_prefix_error(error, "the server of disk %s cannot be started: ", disks->disk[i].id);
            return false;
        }
    }
    return true;
}

struct disks *disks_open(const struct disks_config *config, GError **error)
{
    struct disks *disks = g_new0(struct disks, 1);
    g_mutex_init(&disks->mutex);
    g_cond_init(&disks->synced);
    disks->on_server_changed = disks_mode_server_changed;
    disks->config = *config;
    disks->config.vm_name = g_strdup(config->vm_name);
    disks->config.vm_dir = g_strdup(config->vm_dir);
    disks->config.state_dir = g_strdup(config->state_dir);
    disks->config.plugin = g_strdup(config->plugin);
    bool ok = config->n <= DISK_MAX;
    if (!ok)
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                    "VM %s has %u writable disks; at most %u can be replicated", config->vm_name, config->n,
                    DISK_MAX);
    else if (g_mkdir_with_parents(config->state_dir, 0700) < 0)
        ok = disks_open_failed(error, -errno, "the folder", config->state_dir);
    if (ok && disks_mode_open(disks, error) && open_all(disks, error)) {
        disks->config.list = NULL; /* the caller's */
        return disks;
    }
    disks_close(disks);
    return NULL;
}

static void close_disk(struct disk *disk)
{
    struct disk_map_image image;
    disk_server_close(disk);
    if (disk->map) {
        bool clean = !atomic_load(&disk->disks->torn) && disk_image_sync(disk->image) == 0 &&
                     disk_image_identify(disk->image, &image) == 0;
        disk_map_close(disk->map, clean ? &image : NULL);
    }
    if (disk->shm)
        munmap(disk->shm, DISK_SHM_RING_OFFSET + DISKS_RING_LEN);
    if (disk->shm_fd >= 0)
        close(disk->shm_fd);
    disk_image_close(disk->image);
    g_free(disk->id);
}

void disks_close(struct disks *disks)
{
    if (!disks)
        return;
    disks->closing = true;
    disks_cancel_durable(disks);
    disks_mode_close(disks);
    /* What the journal has is in the images; they are about to be closed cleanly. */
    if (disks->journal && !atomic_load(&disks->torn) && disks_sync(disks) == 0)
        disk_journal_trim(disks->journal);
    for (unsigned i = 0; i < disks->n; i++)
        close_disk(&disks->disk[i]);
    disk_journal_close(disks->journal);
    g_mutex_clear(&disks->mutex);
    g_cond_clear(&disks->synced);
    g_free(disks->failure);
    disks_forget_held(disks);
    g_free((char *)disks->config.vm_name);
    g_free((char *)disks->config.vm_dir);
    g_free((char *)disks->config.state_dir);
    g_free((char *)disks->config.plugin);
    g_free(disks);
}
