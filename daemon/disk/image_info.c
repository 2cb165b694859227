/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Examines one disk image with qemu-img: format, sizes, backing files (disk_setup.h).
 *
 * Formats. A disk's server offers QEMU a fixed number of bytes, and the standby's QEMU opens the image long
 * before it takes over, so a format can be replicated if QEMU neither resizes the file nor keeps what it read
 * when it opened it. Tried with QEMU 7.2 over NBD:
 *
 *   raw, luks                        fixed
 *   qcow2                            writes behind its end to grow, and reads its metadata again at takeover
 *   vpc fixed, vhdx with all blocks  fixed; a VHDX of subformat fixed has them only with block_state_zero=off
 *   vhdx dynamic                     resizes the file: "Cannot grow NBD nodes"
 *   vpc dynamic, vdi                 grow by writing, but keep the block table that they read at first
 *   vmdk, qed                        find their end by the file's length
 *
 * The export length of qcow2 is twice the fully allocated length (qemu-img measure) plus 64 MiB. Further
 * fully allocated lengths are added until one of them is free behind the file. So snapshots may hold every
 * cluster once, and the length, which the dirty-block map is bound to, stays the same while the image grows.
 * It costs nothing, since bytes behind the file's end are not stored.
 */
#include <gio/gio.h>
#include <jansson.h>
#include <string.h>
#include <sys/stat.h>

#include "checkpoint/disk/disk_image.h"
#include "common/refusal.h"
#include "common/words.h"
#include "daemon/disk/disk_setup.h"

#define GROWTH_SLACK (64ull << 20)
#define MAX_BACKING  64
#define SECTOR_LEN   512u

/* Runs qemu-img and parses its answer; decref it. NULL and error, which has qemu-img's own message. */
static json_t *run_qemu_img(const char *const *argv, const char *path, GError **error)
{
    g_autofree char *output = NULL, *complaint = NULL;
    int status = 0;
    if (!g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, &output, &complaint,
                      &status, NULL)) {
        refuse(error,
               "qemu-img, which must examine disk image %s, could not be run: apt-get install qemu-utils",
               path);
        return NULL;
    }
    json_t *answer = status == 0 ? json_loads(output, 0, NULL) : NULL;
    if (!answer) {
        g_autofree char *words = words_make_readable(complaint, WORDS_MAX);
        refuse(error, "disk image %s cannot be read: %s", path, words);
    }
    return answer;
}

/* Returns the image and its backing files as a JSON array. NULL and error. */
static json_t *image_chain(const char *path, const char *format, GError **error)
{
    const char *argv[] = {"qemu-img", "info", "--output=json", "--backing-chain", "--force-share", path, NULL,
                          NULL,       NULL};
    if (format[0]) {
        argv[6] = "-f";
        argv[7] = format;
    }
    return run_qemu_img(argv, path, error);
}

static const char *string_of(const json_t *object, const char *key)
{
    const char *value = json_string_value(json_object_get(object, key));
    return value ? value : "";
}

static uint64_t number_of(const json_t *object, const char *key)
{
    json_int_t value = json_integer_value(json_object_get(object, key));
    return value > 0 ? (uint64_t)value : 0;
}

static const json_t *specific(const json_t *info)
{
    return json_object_get(json_object_get(info, "format-specific"), "data");
}

/* ---- formats ---- */

static bool check_qcow2(const Understudy__Disk *disk, const json_t *info, GError **error)
{
    if (json_is_true(json_object_get(specific(info), "corrupt")))
        return refuse(error, "%s is marked as corrupt: repair it with qemu-img check -r all", disk->path);
    if (string_of(specific(info), "data-file")[0])
        return refuse(error,
                      "%s keeps its data in another file, which is not replicated: make one file of it with "
                      "qemu-img convert -O qcow2",
                      disk->path);
    return true;
}

static bool check_vhdx(const Understudy__Disk *disk, const json_t *info, GError **error)
{
    if (json_is_true(json_object_get(info, "dirty-flag")))
        return refuse(error, "%s was not closed cleanly: repair it with qemu-img check -r all", disk->path);
    if (disk_vhdx_is_full(disk->path, number_of(info, "virtual-size"), number_of(info, "cluster-size")) < 0)
        return refuse(error,
                      "%s is a VHDX that grows, which cannot be replicated: convert it with qemu-img convert "
                      "-O vhdx -o subformat=fixed,block_state_zero=off, or to qcow2",
                      disk->path);
    return true;
}

static bool check_vpc(const Understudy__Disk *disk, const json_t *info, GError **error)
{
    /* Only formats that grow have clusters. */
    if (json_object_get(info, "cluster-size"))
        return refuse(error,
                      "%s is a VHD that grows, which cannot be replicated: convert it with qemu-img convert "
                      "-O vpc -o subformat=fixed,force_size=on, or to qcow2",
                      disk->path);
    return true;
}

static bool check_fixed(const Understudy__Disk *disk, const json_t *info, GError **error)
{
    (void)disk;
    (void)info;
    (void)error;
    return true;
}

static const struct {
    const char *format;
    bool grows;
    bool (*check)(const Understudy__Disk *disk, const json_t *info, GError **error);
} formats[] = {
    {"raw", false, check_fixed}, {"luks", false, check_fixed}, {"qcow2", true, check_qcow2},
    {"vhdx", false, check_vhdx}, {"vpc", false, check_vpc},
};

static bool check_format(const Understudy__Disk *disk, const json_t *info, bool *grows, GError **error)
{
    const char *format = string_of(info, "format");
    for (size_t i = 0; i < G_N_ELEMENTS(formats); i++) {
        if (strcmp(formats[i].format, format) == 0) {
            *grows = formats[i].grows;
            return formats[i].check(disk, info, error);
        }
    }
    return refuse(error,
                  "%s has the format %s, which cannot be replicated: convert it with qemu-img "
                  "convert -O qcow2",
                  disk->path, format);
}

/* ---- sizes ---- */

static uint64_t fully_allocated(const json_t *info, const char *path, GError **error)
{
    g_autofree char *size = g_strdup_printf("%" G_GUINT64_FORMAT, number_of(info, "virtual-size"));
    uint64_t refcount_bits = number_of(specific(info), "refcount-bits");
    g_autofree char *options = g_strdup_printf(
        "cluster_size=%" G_GUINT64_FORMAT ",refcount_bits=%" G_GUINT64_FORMAT "%s",
        number_of(info, "cluster-size"), refcount_bits ? refcount_bits : 16,
        json_is_true(json_object_get(specific(info), "extended-l2")) ? ",extended_l2=on" : "");
    const char *const argv[] = {"qemu-img", "measure", "--output=json", "-O", "qcow2", "--size",
                                size,       "-o",      options,         NULL};
    json_t *answer = run_qemu_img(argv, path, error);
    uint64_t len = answer ? number_of(answer, "fully-allocated") : 0;
    if (answer && len == 0)
        refuse(error, "disk image %s: qemu-img measure does not say how large it can become", path);
    json_decref(answer);
    return len;
}

static bool fill_sizes(Understudy__Disk *disk, const json_t *info, bool grows, GError **error)
{
    struct stat status;
    if (stat(disk->path, &status) < 0)
        return refuse(error, "%s: %s", disk->path, g_strerror(errno));
    disk->virtual_len = number_of(info, "virtual-size");
    disk->used_bytes = (uint64_t)status.st_blocks * 512;
    disk->export_len = disk->image_len;
    if (disk->image_len == 0 || disk->virtual_len == 0)
        return refuse(error, "%s is empty: give it a size with qemu-img resize", disk->path);
    /* QEMU rounds the last sector of a file up and lets the file grow. A server's length is fixed: the guest
     * could read that sector and not write it (findings/qemu-nbd-odd-size-last-sector.sh). */
    if (!grows && disk->image_len % SECTOR_LEN != 0)
        return refuse(
            error,
            "%s has %" G_GUINT64_FORMAT
            " bytes, and its last sector is not whole: round the length up with 'qemu-img resize -f raw %s "
            "%" G_GUINT64_FORMAT "'",
            disk->path, disk->image_len, disk->path, (disk->image_len / SECTOR_LEN + 1) * SECTOR_LEN);
    if (!grows || S_ISBLK(status.st_mode)) /* a device does not grow either */
        return true;
    uint64_t full = fully_allocated(info, disk->path, error);
    if (full == 0)
        return false;
    disk->export_len = 2 * full + GROWTH_SLACK;
    while (disk->export_len < disk->image_len + full)
        disk->export_len += full;
    return true;
}

/* ---- backing files ---- */

static bool add_backing(Understudy__Disk *disk, const json_t *info, bool is_top, GError **error)
{
    const char *given = string_of(info, "backing-filename"), *path = string_of(info, "full-backing-filename");
    struct stat status;
    if (!given[0])
        return true;
    if (is_top && given[0] != '/')
        return refuse(
            error,
            "%s names its backing file by %s, which is found only beside the image: write the whole "
            "path into it with qemu-img rebase -u -b /PATH/TO/%s -F FORMAT",
            disk->path, given, given);
    if (!path[0])
        path = given;
    if (path[0] != '/' || stat(path, &status) < 0 || disk->n_backing == MAX_BACKING)
        return refuse(error, "the backing file %s of %s is not a file that this host can read", path,
                      disk->path);
    Understudy__BackingFile *backing = g_new(Understudy__BackingFile, 1);
    understudy__backing_file__init(backing);
    backing->path = g_strdup(path);
    backing->len = (uint64_t)status.st_size;
    disk->backing = g_renew(Understudy__BackingFile *, disk->backing, disk->n_backing + 1);
    disk->backing[disk->n_backing++] = backing;
    return true;
}

bool disk_describe_image(Understudy__Disk *disk, const char *format, GError **error)
{
    struct disk_image *image = NULL;
    char *why = NULL;
    /* Opened for its checks and its length only; the replicator opens it again to serve it. */
    if (disk_image_open(&image, disk->path, 0, &why) < 0) {
        refuse(error, "%s", why ? why : "no memory");
        free(why);
        return false;
    }
    disk->image_len = disk_image_len(image);
    disk_image_close(image);
    json_t *chain = image_chain(disk->path, format, error);
    const json_t *info = json_array_get(chain, 0);
    bool grows = false;
    bool ok = info && check_format(disk, info, &grows, error) && fill_sizes(disk, info, grows, error);
    for (size_t i = 0; ok && i < json_array_size(chain); i++)
        ok = add_backing(disk, json_array_get(chain, i), i == 0, error);
    /* If QEMU is to probe the format and it is raw, it stays unset: then QEMU protects the first sector. */
    const char *found = ok ? string_of(info, "format") : "";
    disk->format = g_strdup(!format[0] && strcmp(found, "raw") == 0 ? "" : found);
    json_decref(chain);
    return ok;
}

bool disk_image_matches(const Understudy__Disk *disk, const char *path, GError **error)
{
    const char *format = disk->format[0] ? disk->format : "raw";
    /* QEMU is given the format, unless it must probe a raw image itself. */
    json_t *chain = image_chain(path, disk->format, error);
    const json_t *info = json_array_get(chain, 0);
    const char *found = info ? string_of(info, "format") : "";
    bool ok = info != NULL;
    if (ok && (strcmp(found, format) != 0 || number_of(info, "virtual-size") != disk->virtual_len))
        ok = refuse(error,
                    "%s holds a disk of %" G_GUINT64_FORMAT
                    " bytes in the format %s, not one of %" G_GUINT64_FORMAT
                    " bytes in the format %s: remove it, or name another image by --peer-disk %s=PATH",
                    path, number_of(info, "virtual-size"), found, disk->virtual_len, format, disk->id);
    json_decref(chain);
    return ok;
}
