/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Prepares the images on the standby's host (disk_setup.h): each must be able to take what the other host
 * will send, and QEMU must be able to open it at once. A missing image is created: as long as the original,
 * with no blocks but those of its metadata. It is renamed to its own name when it is whole, so that a daemon
 * that is killed meanwhile leaves nothing that looks like an image.
 *
 * The synchronisation overwrites an existing image. So an image that plainly belongs to another disk (another
 * length, another format) is refused.
 *
 * An image that was created here, or that failed its check (another program may have written to it), may not
 * be the one that its dirty-block map describes: the map is removed, and the next synchronisation compares
 * all chunks.
 */
#include <errno.h>
#include <fcntl.h>
#include <gio/gio.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "checkpoint/disk/disk_image.h"
#include "common/refusal.h"
#include "daemon/disk/disk_setup.h"

static bool is_fixed(const Understudy__Disk *disk)
{
    return strcmp(disk->format, "qcow2") != 0;
}

/* ---- room ---- */

/* Returns the bytes that the disks will need in disk->path's file system, beyond what their images there use.
 */
static uint64_t bytes_wanted(const Understudy__Protection *protection, dev_t device)
{
    uint64_t wanted = 0;
    for (size_t i = 0; i < protection->n_disks; i++) {
        const Understudy__Disk *disk = protection->disks[i];
        g_autofree char *folder = g_path_get_dirname(disk->path);
        struct stat where, image;
        if (stat(folder, &where) < 0 || where.st_dev != device)
            continue;
        bool is_there = stat(disk->path, &image) == 0;
        uint64_t has = is_there ? (uint64_t)image.st_blocks * 512 : 0;
        bool in_place = disk->shared || (is_there && S_ISBLK(image.st_mode));
        if (!in_place && disk->used_bytes > has)
            wanted += disk->used_bytes - has;
    }
    return wanted;
}

static bool has_room(const Understudy__Protection *protection, const Understudy__Disk *disk,
                     const char *folder, GError **error)
{
    struct stat where;
    struct statvfs room;
    if (stat(folder, &where) < 0 || statvfs(folder, &room) < 0)
        return refuse(error, "folder %s: %s", folder, g_strerror(errno));
    uint64_t free_bytes = (uint64_t)room.f_bavail * room.f_frsize;
    uint64_t wanted = bytes_wanted(protection, where.st_dev);
    if (wanted <= free_bytes)
        return true;
    return refuse(error,
                  "there is no room for %s: the VM's disks take %" G_GUINT64_FORMAT
                  " MiB more, but %s has only %" G_GUINT64_FORMAT
                  " MiB free: make room, or name an image elsewhere by --peer-disk %s=PATH",
                  disk->path, wanted >> 20, folder, free_bytes >> 20, disk->id);
}

/* ---- one image ---- */

static int fill_new(int fd, const Understudy__Disk *disk, const Understudy__DiskSeed *seed)
{
    if (disk->image_len > INT64_MAX || ftruncate(fd, (off_t)disk->image_len) < 0)
        return -errno;
    int status = seed ? disk_seed_write(fd, seed, disk->image_len) : 0;
    return status == 0 && fsync(fd) < 0 ? -errno : status;
}

static bool create_image(const Understudy__Disk *disk, const Understudy__DiskSeed *seed, const char *folder,
                         GError **error)
{
    bool needs_seed = disk->format[0] && strcmp(disk->format, "raw") != 0;
    if (needs_seed && !seed)
        return refuse(
            error,
            "the image %s does not exist, and the other host does not say how it begins: copy the image here",
            disk->path);
    g_autofree char *name = g_path_get_basename(disk->path);
    g_autofree char *fresh = g_strdup_printf("%s/.%s.understudy-new", folder, name);
    int fd = open(fresh, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    int status = fd < 0 ? -errno : fill_new(fd, disk, seed);
    if (fd >= 0)
        close(fd);
    if (status == 0 && renameat2(AT_FDCWD, fresh, AT_FDCWD, disk->path, RENAME_NOREPLACE) < 0)
        status = -errno;
    if (status == 0)
        return true;
    if (fd >= 0)
        g_unlink(fresh);
    return refuse(
        error,
        "the image %s cannot be created: %s: create it yourself, or name another one by --peer-disk %s=PATH",
        disk->path, g_strerror(-status), disk->id);
}

/* Checks that an image of a format that does not grow has exactly its length. */
static bool check_len(const Understudy__Disk *disk, uint64_t len, bool is_device, GError **error)
{
    bool fits = is_device ? len >= disk->image_len : len == disk->image_len;
    if (fits || (!is_fixed(disk) && !is_device))
        return true;
    return refuse(error,
                  "%s has %" G_GUINT64_FORMAT " bytes, the disk %" G_GUINT64_FORMAT
                  ": remove it, resize it, or name another image by --peer-disk %s=PATH",
                  disk->path, len, disk->image_len, disk->id);
}

static bool check_existing(const Understudy__Disk *disk, const struct stat *status, GError **error)
{
    struct disk_image *image = NULL;
    char *why = NULL;
    bool is_device = S_ISBLK(status->st_mode);
    /* A shared image is locked by the host where the guest runs, and has that host's content. */
    bool ok = (disk->shared ? disk_image_open_unlocked : disk_image_open)(&image, disk->path, 0, &why) == 0;
    if (ok)
        ok = check_len(disk, disk_image_len(image), is_device, error);
    else
        refuse(error, "%s", why ? why : "no memory");
    free(why);
    disk_image_close(image);
    return ok && (disk->shared || disk_image_matches(disk, disk->path, error));
}

static bool check_backing(const Understudy__Disk *disk, GError **error)
{
    for (size_t i = 0; i < disk->n_backing; i++) {
        const Understudy__BackingFile *backing = disk->backing[i];
        struct stat status;
        if (stat(backing->path, &status) < 0 || g_access(backing->path, R_OK) < 0)
            return refuse(error, "its backing file %s cannot be read: copy it here by the same name",
                          backing->path);
        if ((uint64_t)status.st_size != backing->len)
            return refuse(error,
                          "its backing file %s has %" G_GUINT64_FORMAT
                          " bytes, on the other host %" G_GUINT64_FORMAT ": copy that one here",
                          backing->path, (uint64_t)status.st_size, backing->len);
    }
    return true;
}

static const Understudy__DiskSeed *find_seed(const Understudy__PrepareStandby *request, const char *id)
{
    for (size_t i = 0; i < request->n_seeds; i++) {
        if (strcmp(request->seeds[i]->id, id) == 0)
            return request->seeds[i];
    }
    return NULL;
}

static void forget_map(const char *vm_dir, size_t number)
{
    g_autofree char *name = g_strdup_printf("disk-%zu.map", number); /* replicator/disk/disks.c */
    g_autofree char *path = g_build_filename(vm_dir, name, NULL);
    g_unlink(path);
}

/* Checks the image, or creates it if it is missing. False and error. */
static bool prepare_image(const Understudy__PrepareStandby *request, const Understudy__Disk *disk,
                          const char *folder, bool *as_it_was, GError **error)
{
    struct stat status;
    *as_it_was = false;
    if (stat(disk->path, &status) == 0)
        return *as_it_was = check_existing(disk, &status, error);
    if (errno != ENOENT || g_file_test(disk->path, G_FILE_TEST_IS_SYMLINK))
        return refuse(error, "%s: %s", disk->path, g_strerror(errno));
    if (disk->shared)
        return refuse(
            error,
            "%s does not exist, but the disk is to be shared: mount what holds it, or give the path that it "
            "has here by --peer-disk %s=PATH",
            disk->path, disk->id);
    return create_image(disk, find_seed(request, disk->id), folder, error);
}

static bool prepare(const Understudy__PrepareStandby *request, size_t number, const char *vm_dir,
                    GError **error)
{
    const Understudy__Disk *disk = request->protection->disks[number];
    g_autofree char *folder = g_path_get_dirname(disk->path);
    bool as_it_was;
    if (!g_path_is_absolute(disk->path))
        return refuse(error, "%s is not a whole path", disk->path);
    if (!g_file_test(folder, G_FILE_TEST_IS_DIR))
        return refuse(error,
                      "the folder %s does not exist: create it, or name another image by --peer-disk %s=PATH",
                      folder, disk->id);
    if (!check_backing(disk, error) || !has_room(request->protection, disk, folder, error))
        return false;
    bool ok = prepare_image(request, disk, folder, &as_it_was, error);
    if (!as_it_was)
        forget_map(vm_dir, number);
    return ok;
}

bool disks_prepare_standby(const Understudy__PrepareStandby *request, const char *vm_dir, GError **error)
{
    for (size_t i = 0; i < request->protection->n_disks; i++) {
        const Understudy__Disk *disk = request->protection->disks[i];
        if (!prepare(request, i, vm_dir, error)) {
            g_prefix_error(error, "VM %s, disk %s on host %s: ", request->protection->vm, disk->id,
                           g_get_host_name());
            return false;
        }
    }
    return true;
}
