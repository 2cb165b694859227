/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The server of each disk: an nbdkit with the plugin, on a socket of its own. One that ends is started again,
 * at once or, when it ends soon after its start, after a wait that grows. Control thread.
 *
 * nbdkit reports by an eventfd and bits in the shared memory, which the control thread reads. The files above
 * this one are told by disks->on_server_changed.
 */
#include <errno.h>
#include <gio/gio.h>
#include <glib-unix.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "replicator/disk/disks_internal.h"
#include "replicator/disk/nbdkit_process.h"

#define QUICK_END_US   1000000 /* an nbdkit that ends sooner after its start is not started at once */
#define RESTART_MS     100
#define RESTART_MAX_MS 2000
#define FAULT_OVER_S   5 /* without its coming back */

/*
 * Reports a fault for status. passes: the fault counts as over when it has not been reported again for some
 * time (clear_fault_soon).
 */
static void report_fault(struct disk *disk, bool passes, const char *format, ...) G_GNUC_PRINTF(3, 4);
static void report_fault(struct disk *disk, bool passes, const char *format, ...)
{
    va_list args;
    g_clear_handle_id(&disk->fault_timer, g_source_remove);
    disk->fault_passes = passes;
    va_start(args, format);
    g_free(disk->fault);
    disk->fault = g_strdup_vprintf(format, args);
    va_end(args);
    disk->disks->config.fault_changed(disk->disks->config.opaque, disk->fault);
}

static gboolean on_fault_over(gpointer opaque)
{
    struct disk *disk = opaque;
    disk->fault_timer = 0;
    if (!atomic_load(&disk->server_runs))
        return G_SOURCE_REMOVE;
    g_clear_pointer(&disk->fault, g_free);
    disk->disks->config.fault_changed(disk->disks->config.opaque, NULL);
    return G_SOURCE_REMOVE;
}

static void clear_fault_soon(struct disk *disk)
{
    if (disk->fault && disk->fault_passes && !disk->fault_timer)
        disk->fault_timer = g_timeout_add_seconds(FAULT_OVER_S, on_fault_over, disk);
}

void disks_guest_goes_on(struct disks *disks)
{
    for (unsigned i = 0; i < disks_count(disks); i++)
        clear_fault_soon(&disks->disk[i]);
}

/* ---- nbdkit ---- */

static void start_again(struct disk *disk);

static gboolean on_restart(gpointer opaque)
{
    struct disk *disk = opaque;
    disk->restart = 0;
    start_again(disk);
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
    report_fault(disk, true,
                 "the server of disk %s (%s) ended (%s %d) and is started again; QEMU waits meanwhile%s%s",
                 disk->id, disk_image_path(disk->image), WIFSIGNALED(status) ? "signal" : "exit status",
                 WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status),
                 WIFSIGNALED(status) ? "" : ": ", WIFSIGNALED(status) ? "" : words);
    if (quick)
        restart_later(disk);
    else
        start_again(disk);
    disks->on_server_changed(disks);
}

bool disk_server_start(struct disk *disk, GError **error)
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

static void start_again(struct disk *disk)
{
    g_autoptr(GError) error = NULL;
    if (disk->disks->closing)
        return;
    if (disk_server_start(disk, &error)) {
        clear_fault_soon(disk);
        return;
    }
    disk->quick_ends++;
    report_fault(disk, true, "the server of disk %s (%s) cannot be started: %s", disk->id,
                 disk_image_path(disk->image), error->message);
    restart_later(disk);
}

static void report_image_error(struct disk *disk)
{
    int error = (int)atomic_load(&disk->shm->last_errno);
    bool full = error == ENOSPC || error == EDQUOT;
    report_fault(disk, full, "disk %s: %s failed at byte %" G_GUINT64_FORMAT ": %s: %s", disk->id,
                 disk_image_path(disk->image), atomic_load(&disk->shm->last_error_offset), g_strerror(error),
                 full ? "make room there" : "repair that storage, or move the VM to the other host");
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
        report_image_error(disk);
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
        disks->on_server_changed(disks);
    return G_SOURCE_CONTINUE;
}

/* ---- opening and closing ---- */

bool disk_server_open(struct disk *disk, GError **error)
{
    disk->attention_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (disk->attention_fd < 0)
        return disks_open_failed(error, -errno, "an eventfd for disk", disk->id);
    disk->attention_watch = g_unix_fd_add(disk->attention_fd, G_IO_IN, on_attention, disk);
    g_autofree char *name = g_strdup_printf("us-disk-%u", disk->number);
    disk->socket_path = g_build_filename(disk->disks->config.vm_dir, name, NULL);
    disk->listen_fd = nbdkit_listen(disk->socket_path, error);
    return disk->listen_fd >= 0;
}

void disk_server_close(struct disk *disk)
{
    g_clear_handle_id(&disk->attention_watch, g_source_remove);
    g_clear_handle_id(&disk->restart, g_source_remove);
    g_clear_handle_id(&disk->fault_timer, g_source_remove);
    g_clear_pointer(&disk->nbdkit, child_process_free);
    if (disk->socket_path)
        unlink(disk->socket_path);
    int fds[] = {disk->attention_fd, disk->listen_fd};
    for (size_t i = 0; i < G_N_ELEMENTS(fds); i++)
        if (fds[i] >= 0)
            close(fds[i]);
    g_free(disk->socket_path);
    g_free(disk->fault);
}
