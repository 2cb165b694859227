/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The disks of a VM as the user describes them: the command line's disks, with the request's options by id
 * (--peer-disk, --shared-disk). Each image is then examined (image_info.c), so that a request that cannot
 * work is refused here.
 */
#include "daemon/disk/disk_setup.h"

#include <gio/gio.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>

static Understudy__Disk *find_disk(const Understudy__Protection *protection, const char *id, size_t len)
{
    for (size_t i = 0; i < protection->n_disks; i++) {
        if (strlen(protection->disks[i]->id) == len && strncmp(protection->disks[i]->id, id, len) == 0)
            return protection->disks[i];
    }
    return NULL;
}

/* Lists the disks' ids for an error, separated by commas, so that the user can copy one. GLib string. */
static char *ids_of(const Understudy__Protection *protection)
{
    GString *out = g_string_new(NULL);
    for (size_t i = 0; i < protection->n_disks; i++)
        g_string_append_printf(out, "%s%s", i ? ", " : "", protection->disks[i]->id);
    return g_string_free(out, FALSE);
}

static bool no_such_disk(const Understudy__Protection *protection, const char *option, const char *value,
                         GError **error)
{
    g_autofree char *ids = ids_of(protection);
    if (protection->n_disks == 0)
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND,
                    "%s %s: the VM has no writable disk given by a file", option, value);
    else
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND, "%s %s: the VM's disks are called %s", option,
                    value, ids);
    return false;
}

static bool take_peer_paths(Understudy__Protection *protection, const Understudy__RunRequest *request,
                            GError **error)
{
    for (size_t i = 0; i < request->n_peer_disk; i++) {
        const char *value = request->peer_disk[i], *equals = strchr(value, '=');
        Understudy__Disk *disk = equals ? find_disk(protection, value, (size_t)(equals - value)) : NULL;
        if (!disk)
            return no_such_disk(protection, "--peer-disk", value, error);
        if (!g_path_is_absolute(equals + 1)) {
            g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                        "--peer-disk %s: name the image on the other host by its whole path", value);
            return false;
        }
        g_free(disk->peer_path);
        disk->peer_path = g_strdup(equals + 1);
    }
    for (size_t i = 0; i < request->n_shared_disk; i++) {
        const char *id = request->shared_disk[i];
        Understudy__Disk *disk = find_disk(protection, id, strlen(id));
        if (!disk)
            return no_such_disk(protection, "--shared-disk", id, error);
        disk->shared = true;
    }
    return true;
}

bool disks_describe(Understudy__Protection *protection, const struct line *line,
                    const Understudy__RunRequest *request, GError **error)
{
    bool ok = true;
    protection->durability = request->durability;
    protection->disks = g_new0(Understudy__Disk *, line->disks->len + 1);
    for (guint i = 0; ok && i < line->disks->len; i++) {
        const struct line_disk *given = g_ptr_array_index(line->disks, i);
        Understudy__Disk *disk = g_new(Understudy__Disk, 1);
        understudy__disk__init(disk);
        disk->id = g_strdup(given->id);
        disk->path = g_strdup(given->path);
        disk->peer_path = g_strdup(given->path);
        protection->disks[protection->n_disks++] = disk;
        ok = disk_describe_image(disk, given->format, error);
        if (!ok)
            g_prefix_error(error, "VM %s, disk %s: ", protection->vm, disk->id);
    }
    return ok && take_peer_paths(protection, request, error);
}

void disks_clear(Understudy__Protection *protection)
{
    for (size_t i = 0; i < protection->n_disks; i++)
        understudy__disk__free_unpacked(protection->disks[i], NULL);
    g_free(protection->disks);
    protection->disks = NULL;
    protection->n_disks = 0;
}

bool disks_can_be_served(const Understudy__Protection *protection, const char *plugin, GError **error)
{
    static const char *const programs[] = {"nbdkit", "qemu-img"};
    for (size_t i = 0; protection->n_disks > 0 && i < G_N_ELEMENTS(programs); i++) {
        g_autofree char *path = g_find_program_in_path(programs[i]);
        if (!path) {
            g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND,
                        "%s is not installed on this host, and the VM's disks need it: apt-get install %s",
                        programs[i], i == 0 ? "nbdkit" : "qemu-utils");
            return false;
        }
    }
    if (protection->n_disks == 0 || g_access(plugin, R_OK) == 0)
        return true;
    g_set_error(
        error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND,
        "the disk plugin %s cannot be read on this host: install understudy, or name it by --disk-plugin",
        plugin);
    return false;
}

void disks_refresh(Understudy__Protection *protection)
{
    for (size_t i = 0; i < protection->n_disks; i++) {
        Understudy__Disk *disk = protection->disks[i];
        struct stat status;
        if (stat(disk->path, &status) < 0 || !S_ISREG(status.st_mode))
            continue;
        disk->image_len = (uint64_t)status.st_size;
        disk->used_bytes = (uint64_t)status.st_blocks * 512;
    }
}

void disks_swap_paths(Understudy__Protection *protection)
{
    for (size_t i = 0; i < protection->n_disks; i++) {
        Understudy__Disk *disk = protection->disks[i];
        char *other = disk->path;
        disk->path = disk->peer_path;
        disk->peer_path = other;
    }
}

bool disks_set_formats(struct line *line, const Understudy__Protection *protection, GError **error)
{
    bool same = line->disks->len == protection->n_disks;
    for (guint i = 0; same && i < line->disks->len; i++) {
        const struct line_disk *disk = g_ptr_array_index(line->disks, i);
        same = strcmp(disk->id, protection->disks[i]->id) == 0;
        if (same && disk->probed)
            line_set_format(line, i, protection->disks[i]->format);
    }
    if (!same)
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                    "the two hosts disagree about the VM's disks: install one version of understudy on both");
    return same;
}
