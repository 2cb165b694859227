/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Checks whether a VM's files are the same on both hosts (daemon.h). */
#include <string.h>

#include "common/stream.h"
#include "daemon/daemon.h"
#include "hv-hooks/line.h"

static void add_path(GPtrArray *paths, const char *path)
{
    if (!g_ptr_array_find_with_equal_func(paths, path, g_str_equal, NULL))
        g_ptr_array_add(paths, g_strdup(path));
}

GPtrArray *pair_files(const struct line *line, const Understudy__Protection *protection)
{
    GPtrArray *paths = g_ptr_array_new_with_free_func(g_free);
    for (guint i = 0; i < line->files->len; i++) {
        const char *path = g_ptr_array_index(line->files, i);
        add_path(paths, path);
        files_add_backing(paths, path);
    }
    for (guint i = 0; i < line->disks->len; i++)
        files_add_backing(paths, ((const struct line_disk *)g_ptr_array_index(line->disks, i))->path);
    for (size_t i = 0; protection && i < protection->n_disks; i++) {
        for (size_t k = 0; k < protection->disks[i]->n_backing; k++)
            add_path(paths, protection->disks[i]->backing[k]->path);
    }
    return paths;
}

GPtrArray *pair_files_agree(const GPtrArray *paths, const char *host, uint16_t port,
                            const struct files_progress *progress, GError **error)
{
    GPtrArray *facts = files_describe(paths, progress, error);
    if (!facts || facts->len == 0)
        return facts;
    struct stream *stream = peer_connect(host, port, error);
    bool same = stream && files_ask_peer(stream, facts, host, progress, error);
    if (stream && !same)
        g_prefix_error(error, "the peer %s refused: ", host);
    stream_close(stream);
    if (!same)
        g_clear_pointer(&facts, g_ptr_array_unref);
    return facts;
}

bool pair_files_are_fit(const Understudy__Protection *protection, const char *host, uint16_t port,
                        const struct files_progress *progress, GError **error)
{
    struct line *line = host_line(protection, error);
    g_autoptr(GPtrArray) paths = line ? pair_files(line, protection) : NULL;
    line_free(line);
    g_autoptr(GPtrArray) facts = paths ? pair_files_agree(paths, host, port, progress, error) : NULL;
    return facts != NULL;
}
