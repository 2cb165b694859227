/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The set of disks itself: what it consists of, the locks and the sync of its images, and why a write to them
 * failed. The other files of struct disks use this one; it uses none of them.
 */
#include <errno.h>
#include <gio/gio.h>

#include "replicator/disk/disks_internal.h"

char *disks_state_path(const struct disks *disks, const char *name)
{
    return g_build_filename(disks->config.state_dir, name, NULL);
}

unsigned disks_count(const struct disks *disks)
{
    return disks ? disks->n : 0;
}

const char *disks_id(const struct disks *disks, unsigned disk)
{
    return disks->disk[disk].id;
}

struct disk_image *disks_image(const struct disks *disks, unsigned disk)
{
    return disks->disk[disk].image;
}

struct disk_map *disks_map(const struct disks *disks, unsigned disk)
{
    return disks->disk[disk].map;
}

bool disks_is_shared(const struct disks *disks, unsigned disk)
{
    return disks->disk[disk].shared;
}

bool disks_any_shared(const struct disks *disks)
{
    bool any = false;
    for (unsigned i = 0; i < disks_count(disks); i++)
        any |= disks->disk[i].shared;
    return any;
}

uint64_t disks_max_section_pages(unsigned ndisks)
{
    return (uint64_t)ndisks * DISKS_RING_LEN / STAGING_PAGE_LEN + 1;
}

void disks_count_candidates(struct disks *disks, unsigned disk, uint64_t len)
{
    atomic_store_explicit(&disks->disk[disk].candidate_bytes, len, memory_order_relaxed);
    atomic_store_explicit(&disks->disk[disk].sent_bytes, 0, memory_order_relaxed);
}

void disks_count_sent(struct disks *disks, unsigned disk, uint64_t len)
{
    atomic_fetch_add_explicit(&disks->disk[disk].sent_bytes, len, memory_order_relaxed);
}

void disks_figures(const struct disks *disks, unsigned number, struct disk_figures *out)
{
    const struct disk *disk = &disks->disk[number];
    uint64_t head = atomic_load(&disk->shm->head), tail = atomic_load(&disk->shm->tail);
    *out = (struct disk_figures){
        .id = disk->id,
        .path = disk_image_path(disk->image),
        .len = disks->len[number],
        .log_bytes = MIN(head - tail, disk->ring_len),
        .dirty_bytes = (disk_map_count(disk->map, 0) + disk_map_count(disk->map, 1)) * DISK_CHUNK_LEN,
        .candidate_bytes = atomic_load_explicit(&disk->candidate_bytes, memory_order_relaxed),
        .sent_bytes = atomic_load_explicit(&disk->sent_bytes, memory_order_relaxed),
        .server_runs = atomic_load(&disk->server_runs),
        .fault = disk->fault,
    };
}

/* ---- images ---- */

void disks_unlock_shared(struct disks *disks)
{
    for (unsigned i = 0; i < disks->n; i++)
        if (disks->disk[i].shared)
            disk_image_unlock(disks->disk[i].image);
}

int disks_lock_shared(struct disks *disks)
{
    int status = 0;
    for (unsigned i = 0; i < disks->n && status == 0; i++)
        if (disks->disk[i].shared)
            status = disk_image_lock(disks->disk[i].image);
    return status;
}

int disks_sync(struct disks *disks)
{
    int status = 0;
    for (unsigned i = 0; i < disks->n && status == 0; i++)
        if ((status = disk_image_sync(disks->disk[i].image)) < 0)
            disks_keep_image_failure(&disks->disk[i], "syncing", status);
    return status;
}

/* ---- failures ---- */

bool disks_open_failed(GError **error, int status, const char *what, const char *name)
{
    g_set_error(error, G_IO_ERROR, g_io_error_from_errno(-status), "%s %s: %s", what, name,
                g_strerror(-status));
    return false;
}

void disks_keep_failure(struct disks *disks, const char *why)
{
    g_mutex_lock(&disks->mutex);
    g_free(disks->failure);
    disks->failure = g_strdup(why);
    g_mutex_unlock(&disks->mutex);
}

static const char *advice(int status)
{
    return status == -ENOSPC || status == -EDQUOT ? "make room there" : "repair that storage";
}

void disks_keep_image_failure(const struct disk *disk, const char *doing, int status)
{
    g_autofree char *why = g_strdup_printf("disk %s: %s %s failed: %s: %s", disk->id, doing,
                                           disk_image_path(disk->image), g_strerror(-status), advice(status));
    disks_keep_failure(disk->disks, why);
}

void disks_keep_file_failure(struct disks *disks, const char *what, const char *name, int status)
{
    g_autofree char *path = disks_state_path(disks, name);
    g_autofree char *why =
        g_strdup_printf("writing %s %s failed: %s: %s", what, path, g_strerror(-status), advice(status));
    disks_keep_failure(disks, why);
}

char *disks_failure(struct disks *disks)
{
    g_mutex_lock(&disks->mutex);
    char *failure = g_strdup(disks->failure);
    g_mutex_unlock(&disks->mutex);
    return failure;
}
