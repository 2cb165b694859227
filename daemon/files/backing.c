/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Finds the backing files of qcow2 images (files.h). The head of a qcow2 image names its backing file: bytes
 * 8 to 15 are the offset of the name, bytes 16 to 19 its length, big-endian. The images are the user's, but
 * their content is checked as untrusted bytes.
 */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "daemon/files/files.h"

#define NAME_MAX_LEN 1023u

/* Returns the absolute name of the image's backing file, or NULL. GLib string. */
static char *backing_of(const char *path)
{
    uint8_t head[20];
    char name[NAME_MAX_LEN + 1] = "";
    uint64_t offset;
    uint32_t len;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    bool is_qcow =
        fd >= 0 && pread(fd, head, sizeof head, 0) == (ssize_t)sizeof head && memcmp(head, "QFI\xfb", 4) == 0;
    if (is_qcow) {
        memcpy(&offset, head + 8, sizeof offset);
        memcpy(&len, head + 16, sizeof len);
        offset = GUINT64_FROM_BE(offset);
        len = GUINT32_FROM_BE(len);
        bool names = offset > 0 && offset <= INT32_MAX && len > 0 && len <= NAME_MAX_LEN;
        if (!names || pread(fd, name, len, (off_t)offset) != (ssize_t)len)
            name[0] = 0;
    }
    if (fd >= 0)
        close(fd);
    const char *file = g_str_has_prefix(name, "file:") ? name + strlen("file:") : name;
    if (!file[0] || g_str_has_prefix(file, "json:"))
        return NULL;
    g_autofree char *folder = g_path_get_dirname(path);
    return file[0] == '/' ? g_strdup(file) : g_build_filename(folder, file, NULL);
}

void files_add_backing(GPtrArray *paths, const char *path)
{
    g_autofree char *at = g_strdup(path);
    while (paths->len < FILES_MAX) {
        char *next = backing_of(at);
        if (!next || g_ptr_array_find_with_equal_func(paths, next, g_str_equal, NULL)) {
            g_free(next);
            return;
        }
        g_ptr_array_add(paths, next);
        g_free(at);
        at = g_strdup(next);
    }
}
