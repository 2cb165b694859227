/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Opening, closing, nbdkit, and status. Opening begins with what may be refused and ends with what costs
 * most: image and lock, then the journal is replayed (an image is not at a whole epoch before that), then
 * maps, shared memory, sockets, and nbdkit last.
 *
 * nbdkit reports by an eventfd and bits in the shared memory, which the control thread reads.
 */
#include <errno.h>
#include <fcntl.h>
#include <gio/gio.h>
#include <glib-unix.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "replicator/disk/disks_internal.h"
#include "replicator/disk/nbdkit_process.h"

#define MARK_LEN (8u << 20) /* logged bytes that call for an epoch at once */
#define QUICK_END_US                                                                                         \
    1000000 /* an nbdkit that ends sooner than this after its start is not started at once                   \
             */
#define RESTART_MS     100
#define RESTART_MAX_MS 2000
#define TROUBLE_OVER_S 5 /* without its coming back */

/*
 * Reports a fault for status. passes: the fault counts as over when it has not been reported again for some
 * time (trouble_over_soon).
 */
static void trouble(struct disk *disk, bool passes, const char *format, ...) G_GNUC_PRINTF(3, 4);
static void trouble(struct disk *disk, bool passes, const char *format, ...)
{
    va_list args;
    g_clear_handle_id(&disk->trouble_over, g_source_remove);
    disk->trouble_passes = passes;
    va_start(args, format);
    g_free(disk->trouble);
    disk->trouble = g_strdup_vprintf(format, args);
    va_end(args);
    disk->disks->config.trouble(disk->disks->config.opaque, disk->trouble);
}

static gboolean on_trouble_over(gpointer opaque)
{
    struct disk *disk = opaque;
    disk->trouble_over = 0;
    if (!atomic_load(&disk->server_runs))
        return G_SOURCE_REMOVE;
    g_clear_pointer(&disk->trouble, g_free);
    disk->disks->config.trouble(disk->disks->config.opaque, NULL);
    return G_SOURCE_REMOVE;
}

static void trouble_over_soon(struct disk *disk)
{
    if (disk->trouble && disk->trouble_passes && !disk->trouble_over)
        disk->trouble_over = g_timeout_add_seconds(TROUBLE_OVER_S, on_trouble_over, disk);
}

void disks_guest_goes_on(struct disks *disks)
{
    for (unsigned i = 0; i < disks_count(disks); i++)
        trouble_over_soon(&disks->disk[i]);
}

/* ---- nbdkit ---- */

static void start_nbdkit(struct disk *disk);

static gboolean on_restart(gpointer opaque)
{
    struct disk *disk = opaque;
    disk->restart = 0;
    start_nbdkit(disk);
    return G_SOURCE_REMOVE;
}

static void restart_later(struct disk *disk)
{
    unsigned wait_ms = MIN(RESTART_MS << MIN(disk->quick_ends, 8), RESTART_MAX_MS);
    if (!disk->disks->closing && !disk->restart)
        disk->restart = g_timeout_add(wait_ms, on_restart, disk);
}

static void on_nbdkit_exit(struct child_process *process, int status, void *opaque)
{
    struct disk *disk = opaque;
    struct disks *disks = disk->disks;
    bool quick = g_get_monotonic_time() - disk->started_us < QUICK_END_US;
    g_autofree char *log = g_build_filename(disks->config.vm_dir, "disks.log", NULL);
    g_autofree char *words = child_process_last_words(log);
    (void)process;
    atomic_store(&disk->server_runs, false);
    disk->quick_ends = quick ? disk->quick_ends + 1 : 0;
    trouble(disk, true,
            "the server of disk %s (%s) ended (%s %d) and is started again; QEMU waits meanwhile%s%s",
            disk->id, disk_image_path(disk->image), WIFSIGNALED(status) ? "signal" : "exit status",
            WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status), WIFSIGNALED(status) ? "" : ": ",
            WIFSIGNALED(status) ? "" : words);
    if (quick)
        restart_later(disk);
    else
        start_nbdkit(disk);
    disks_mode_look(disks);
}

static bool try_nbdkit(struct disk *disk, GError **error)
{
    struct disks *disks = disk->disks;
    g_autofree char *log = g_build_filename(disks->config.vm_dir, "disks.log", NULL);
    const struct nbdkit_start start = {
        .plugin = disks->config.plugin,
        .disk = disk->id,
        .log_path = log,
        .nice = disks->config.nice,
        .listen_fd = disk->listen_fd,
        .shm_fd = disk->shm_fd,
        .image_fd = disk_image_fd(disk->image),
        .map_fd = disk_map_fd(disk->map),
        .attention_fd = disk->attention_fd,
    };
    child_process_free(disk->nbdkit);
    disk->started_us = g_get_monotonic_time();
    disk->nbdkit = nbdkit_process_start(&start, on_nbdkit_exit, disk, error);
    atomic_store(&disk->server_runs, disk->nbdkit != NULL);
    return disk->nbdkit != NULL;
}

static void start_nbdkit(struct disk *disk)
{
    g_autoptr(GError) error = NULL;
    if (disk->disks->closing)
        return;
    if (try_nbdkit(disk, &error)) {
        trouble_over_soon(disk);
        return;
    }
    disk->quick_ends++;
    trouble(disk, true, "the server of disk %s (%s) cannot be started: %s", disk->id,
            disk_image_path(disk->image), error->message);
    restart_later(disk);
}

static void tell_image_error(struct disk *disk)
{
    int error = (int)atomic_load(&disk->shm->last_errno);
    bool full = error == ENOSPC || error == EDQUOT;
    trouble(disk, full, "disk %s: %s failed at byte %" G_GUINT64_FORMAT ": %s: %s", disk->id,
            disk_image_path(disk->image), atomic_load(&disk->shm->last_error_offset), g_strerror(error),
            full ? "make room there" : "mend that storage, or let the VM go on at the other host");
}

static gboolean on_attention(gint fd, GIOCondition condition, gpointer opaque)
{
    struct disk *disk = opaque;
    struct disks *disks = disk->disks;
    uint64_t ignored;
    (void)condition;
    if (read(fd, &ignored, sizeof ignored) < 0 && errno != EAGAIN)
        return G_SOURCE_CONTINUE;
    uint32_t bits = atomic_exchange(&disk->shm->attention, 0);
    if (bits & DISK_ATTENTION_ERROR)
        tell_image_error(disk);
    if (bits & DISK_ATTENTION_FLUSHED)
        disks->config.flushed(disks->config.opaque);
    if (bits & DISK_ATTENTION_DETACHED) {
        g_autofree char *why =
            g_strdup_printf("disk %s was written to faster than checkpoints could take it: its log "
                            "overflowed, a new synchronisation begins",
                            disk->id);
        disks->config.detached(disks->config.opaque, why);
    }
    if (bits & (DISK_ATTENTION_DONE | DISK_ATTENTION_MARK))
        disks->config.changed(disks->config.opaque, bits & DISK_ATTENTION_MARK);
    if (bits & DISK_ATTENTION_DONE)
        disks_mode_look(disks);
    return G_SOURCE_CONTINUE;
}

/* ---- opening ---- */

static bool fail(GError **error, int status, const char *what, const char *name)
{
    g_set_error(error, G_IO_ERROR, g_io_error_from_errno(-status), "%s %s: %s", what, name,
                g_strerror(-status));
    return false;
}

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
    return status == 0 || fail(error, status, "the dirty-block map", path);
}

static bool open_shm(struct disk *disk, GError **error)
{
    size_t len = DISK_SHM_RING_OFFSET + DISKS_RING_LEN;
    disk->shm_fd = memfd_create("understudy-disk", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (disk->shm_fd < 0 || ftruncate(disk->shm_fd, (off_t)len) < 0 ||
        fcntl(disk->shm_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
        return fail(error, -errno, "memory for the log of disk", disk->id);
    void *map = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, disk->shm_fd, 0);
    if (map == MAP_FAILED)
        return fail(error, -errno, "memory for the log of disk", disk->id);
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

static bool open_sockets(struct disk *disk, GError **error)
{
    disk->attention_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (disk->attention_fd < 0)
        return fail(error, -errno, "an eventfd for disk", disk->id);
    disk->attention_watch = g_unix_fd_add(disk->attention_fd, G_IO_IN, on_attention, disk);
    g_autofree char *name = g_strdup_printf("us-disk-%u", disk->number);
    disk->socket_path = g_build_filename(disk->disks->config.vm_dir, name, NULL);
    disk->listen_fd = nbdkit_listen(disk->socket_path, error);
    return disk->listen_fd >= 0;
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
        if (!open_map(disk, error) || !open_shm(disk, error) || !open_sockets(disk, error))
            return false;
    }
    /* The first order stands before the first nbdkit looks. */
    disks_order(disks, config->standby ? 0 : DISK_WRITABLE | DISK_DURABLE, 0, false);
    for (unsigned i = 0; i < disks->n; i++) {
        if (!try_nbdkit(&disks->disk[i], error)) {
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
        ok = fail(error, -errno, "the folder", config->state_dir);
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
    g_clear_handle_id(&disk->attention_watch, g_source_remove);
    g_clear_handle_id(&disk->restart, g_source_remove);
    g_clear_handle_id(&disk->trouble_over, g_source_remove);
    child_process_free(disk->nbdkit);
    if (disk->map) {
        bool clean = !atomic_load(&disk->disks->torn) && disk_image_sync(disk->image) == 0 &&
                     disk_image_identify(disk->image, &image) == 0;
        disk_map_close(disk->map, clean ? &image : NULL);
    }
    if (disk->shm)
        munmap(disk->shm, DISK_SHM_RING_OFFSET + DISKS_RING_LEN);
    if (disk->socket_path)
        unlink(disk->socket_path);
    int fds[] = {disk->shm_fd, disk->attention_fd, disk->listen_fd};
    for (size_t i = 0; i < G_N_ELEMENTS(fds); i++)
        if (fds[i] >= 0)
            close(fds[i]);
    disk_image_close(disk->image);
    g_free(disk->socket_path);
    g_free(disk->trouble);
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
