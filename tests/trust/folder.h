/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A folder of the test's own, and files in it. */
#ifndef UNDERSTUDY_TESTS_TRUST_FOLDER_H
#define UNDERSTUDY_TESTS_TRUST_FOLDER_H

#include <glib.h>
#include <glib/gstdio.h>

static inline char *folder_new(void)
{
    return g_dir_make_tmp("us-trust-XXXXXX", NULL);
}

static inline void folder_free(char *dir)
{
    const char *argv[] = {"rm", "-rf", dir, NULL};
    g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, NULL, NULL, NULL, NULL);
    g_free(dir);
}

/* The number of entries, hidden ones too. */
static inline unsigned folder_count(const char *dir)
{
    GDir *entries = g_dir_open(dir, 0, NULL);
    unsigned n = 0;
    while (entries && g_dir_read_name(entries))
        n++;
    g_dir_close(entries);
    return n;
}

static inline char *folder_text(const char *dir, const char *name)
{
    g_autofree char *path = g_build_filename(dir, name, NULL);
    char *text = NULL;
    g_file_get_contents(path, &text, NULL, NULL);
    return text;
}

static inline void folder_write(const char *dir, const char *name, const char *text, int mode)
{
    g_autofree char *path = g_build_filename(dir, name, NULL);
    g_file_set_contents(path, text, -1, NULL);
    g_chmod(path, mode);
}

#endif
