/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Counts the entries of a folder: this process's threads (/proc/self/task), or its descriptors. */
#ifndef UNDERSTUDY_TESTS_DAEMON_ENTRIES_H
#define UNDERSTUDY_TESTS_DAEMON_ENTRIES_H

#include <glib.h>

static inline unsigned entries_of(const char *folder)
{
    GDir *dir = g_dir_open(folder, 0, NULL);
    unsigned n = 0;
    while (g_dir_read_name(dir))
        n++;
    g_dir_close(dir);
    return n;
}

#endif
