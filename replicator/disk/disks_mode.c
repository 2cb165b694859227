/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Orders to the plugins, and making everything durable.
 *
 * An order is remembered here and in the shared memory, so it also holds for an nbdkit that starts later.
 * An nbdkit that does not run has no write under way: for durability that is as good as having carried out
 * the order.
 */
#include <errno.h>
#include <gio/gio.h>

#include "common/futex.h"
#include "replicator/disk/disks_internal.h"

static void order_one(struct disk *disk, uint32_t set, uint32_t clear, bool flip)
{
    struct disk_shm *shm = disk->shm;
    disk->wanted_flags = (disk->wanted_flags & ~clear) | set;
    disk->wanted_map ^= flip;
    atomic_store(&shm->wanted_flags, disk->wanted_flags);
    atomic_store(&shm->wanted_map, disk->wanted_map);
    atomic_store(&shm->wanted_seq, ++disk->wanted_seq);
    disk_futex_wake(&shm->wanted_seq);
    /* Wakes writers that wait for room: they may not have to wait any more. */
    disk_futex_raise(&shm->room_seq);
}

void disks_order(struct disks *disks, uint32_t set, uint32_t clear, bool flip)
{
    if (!disks)
        return;
    g_mutex_lock(&disks->mutex);
    for (unsigned i = 0; i < disks->n; i++)
        order_one(&disks->disk[i], set, clear, flip);
    g_mutex_unlock(&disks->mutex);
}

/* ---- shared disks ---- */

void disks_hold(struct disks *disks)
{
    g_mutex_lock(&disks->mutex);
    for (unsigned i = 0; i < disks->n; i++)
        order_one(&disks->disk[i], disks->disk[i].shared ? DISK_HELD : 0, DISK_DURABLE, false);
    g_mutex_unlock(&disks->mutex);
}

void disks_stop_logging(struct disks *disks)
{
    g_mutex_lock(&disks->mutex);
    for (unsigned i = 0; i < disks->n; i++) {
        struct disk *disk = &disks->disk[i];
        if (!(disk->wanted_flags & DISK_HELD))
            order_one(disk, disk->wanted_flags & DISK_WRITABLE ? DISK_DURABLE : 0, DISK_LOGGING, false);
    }
    g_mutex_unlock(&disks->mutex);
}

void disks_write_through(struct disks *disks)
{
    disks_order(disks, DISK_DURABLE, DISK_LOGGING | DISK_HELD, false);
}

void disks_give_up_writing(struct disks *disks)
{
    disks_order(disks, 0, DISK_WRITABLE, false);
}

void disks_release(struct disks *disks, uint64_t epoch)
{
    for (unsigned i = 0; i < disks_count(disks); i++) {
        struct disk *disk = &disks->disk[i];
        if (!disk->shared)
            continue;
        disk->released_epoch = epoch;
        atomic_store(&disk->shm->release,
                     atomic_load_explicit(&disk->ends[epoch % DISKS_EPOCHS], memory_order_acquire));
        disk_futex_raise(&disk->shm->release_seq);
    }
}

uint64_t disks_newly_flushed(struct disks *disks, unsigned number)
{
    struct disk *disk = &disks->disk[number];
    uint64_t flushed = atomic_load(&disk->shm->flushed), newest = 0;
    uint64_t oldest = disk->released_epoch > DISKS_EPOCHS / 2 ? disk->released_epoch - DISKS_EPOCHS / 2 : 0;
    for (uint64_t epoch = disk->released_epoch; disk->shared && epoch > oldest && newest == 0; epoch--)
        if (flushed >= atomic_load(&disk->ends[epoch % DISKS_EPOCHS]))
            newest = epoch;
    if (newest <= disk->flushed_epoch)
        return 0;
    disk->flushed_epoch = newest;
    return newest;
}

bool disks_order_done(const struct disks *disks)
{
    bool done = true;
    struct disks *d = (struct disks *)disks;
    if (!d)
        return true;
    g_mutex_lock(&d->mutex);
    for (unsigned i = 0; i < d->n; i++)
        done &= atomic_load(&d->disk[i].shm->done_seq) == d->disk[i].wanted_seq;
    g_mutex_unlock(&d->mutex);
    return done;
}

unsigned disks_frozen(const struct disks *disks, unsigned disk)
{
    return !(atomic_load(&disks->disk[disk].shm->active_map) & 1);
}

/* ---- durability ---- */

/* Whether every write from now on is durable before it completes. */
static bool writes_are_durable(struct disks *disks)
{
    bool done = true;
    g_mutex_lock(&disks->mutex);
    for (unsigned i = 0; i < disks->n; i++)
        done &= atomic_load(&disks->disk[i].shm->done_seq) == disks->disk[i].wanted_seq ||
                !atomic_load(&disks->disk[i].server_runs);
    g_mutex_unlock(&disks->mutex);
    return done;
}

static bool sync_under_way(const struct disks *disks)
{
    return disks->syncs_begun != disks->syncs_heard_of;
}

static gboolean on_synced(gpointer opaque)
{
    struct disks *disks = opaque;
    g_mutex_lock(&disks->mutex);
    int status = disks->sync_status;
    g_mutex_unlock(&disks->mutex);
    disks->syncs_heard_of++;
    if (!disks->making_durable)
        return G_SOURCE_REMOVE;
    if (sync_under_way(disks) || disks->synced_request != disks->durable_request) {
        disks_mode_server_changed(disks); /* asked again meanwhile: what was written in between counts too */
        return G_SOURCE_REMOVE;
    }
    if (status < 0) {
        /* What the guest was promised is not safe anywhere: its output stays here. */
        g_autofree char *why = disks_failure(disks);
        g_autofree char *message = g_strdup_printf("%s; the output of VM %s stays held",
                                                   why ? why : g_strerror(-status), disks->config.vm_name);
        disks->config.fault_changed(disks->config.opaque, message);
        disks->making_durable = false;
        return G_SOURCE_REMOVE;
    }
    disks->making_durable = false;
    disks->done(disks->done_opaque);
    return G_SOURCE_REMOVE;
}

static void sync_on_thread(gpointer data, gpointer opaque)
{
    struct disks *disks = opaque;
    int status = disks_sync(disks);
    (void)data;
    g_mutex_lock(&disks->mutex);
    disks->sync_status = status;
    disks->syncs_done++;
    g_cond_broadcast(&disks->synced);
    g_mutex_unlock(&disks->mutex);
    g_idle_add_full(G_PRIORITY_DEFAULT, on_synced, disks, NULL);
}

bool disks_mode_open(struct disks *disks, GError **error)
{
    g_autoptr(GError) why = NULL;
    disks->syncer = g_thread_pool_new(sync_on_thread, disks, 1, TRUE, &why);
    if (why)
        g_propagate_prefixed_error(error, g_steal_pointer(&why), "no thread to sync the disks: ");
    return why == NULL;
}

void disks_mode_close(struct disks *disks)
{
    if (disks->syncer)
        g_thread_pool_free(disks->syncer, FALSE, TRUE);
    while (g_idle_remove_by_data(disks))
        ;
}

/* The pool's thread is there already: this does not fail. */
static void begin_sync(struct disks *disks)
{
    disks->syncs_begun++;
    g_thread_pool_push(disks->syncer, disks, NULL);
}

void disks_mode_server_changed(struct disks *disks)
{
    if (!disks->making_durable || sync_under_way(disks) || !writes_are_durable(disks))
        return;
    disks->synced_request = disks->durable_request;
    begin_sync(disks);
}

int disks_sync_within(struct disks *disks, unsigned timeout_ms)
{
    gint64 until = g_get_monotonic_time() + (gint64)timeout_ms * 1000;
    bool in_time = true;
    if (!disks)
        return 0;
    begin_sync(disks);
    g_mutex_lock(&disks->mutex);
    while (disks->syncs_done < disks->syncs_begun && in_time)
        in_time = g_cond_wait_until(&disks->synced, &disks->mutex, until);
    int status = disks->syncs_done < disks->syncs_begun ? -ETIMEDOUT : disks->sync_status;
    g_mutex_unlock(&disks->mutex);
    return status;
}

void disks_make_durable(struct disks *disks, disks_done done, void *opaque)
{
    disks->making_durable = true;
    disks->durable_request++;
    disks->done = done;
    disks->done_opaque = opaque;
    disks_write_through(disks);
    disks_mode_server_changed(disks);
}

void disks_cancel_durable(struct disks *disks)
{
    if (disks)
        disks->making_durable = false;
}
