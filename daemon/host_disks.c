/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Reports whether this host has what replicated disks need: nbdkit, our plugin, qemu-img, a state folder. */
#include <gio/gio.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/statvfs.h>

#include "common/words.h"
#include "daemon/daemon.h"

struct report {
    GPtrArray *good, *faults;
};

/* Returns the first line of what a program prints, or NULL if it fails. GLib string. */
static char *first_line(const char *program, const char *a, const char *b)
{
    const char *argv[] = {program, a, b, NULL};
    char *output = NULL;
    int status = 0;
    bool ok = g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_SEARCH_PATH | G_SPAWN_STDERR_TO_DEV_NULL, NULL,
                           NULL, &output, NULL, &status, NULL);
    if (!ok || status != 0)
        g_clear_pointer(&output, g_free);
    char *line = output ? words_make_readable_len(output, strcspn(output, "\r\n"), WORDS_MAX) : NULL;
    g_free(output);
    return line;
}

static void check_programs(const struct report *report)
{
    static const char *const programs[][2] = {{"nbdkit", "nbdkit"}, {"qemu-img", "qemu-utils"}};
    for (size_t i = 0; i < G_N_ELEMENTS(programs); i++) {
        char *version = first_line(programs[i][0], "--version", NULL);
        if (version)
            g_ptr_array_add(report->good, version);
        else
            g_ptr_array_add(
                report->faults,
                g_strdup_printf("%s is not installed: apt-get install %s, or VMs with disks are refused",
                                programs[i][0], programs[i][1]));
    }
}

static void check_plugin(const struct report *report, const char *plugin)
{
    g_autofree char *line = first_line("nbdkit", plugin, "--dump-plugin");
    if (line)
        g_ptr_array_add(report->good, g_strdup_printf("nbdkit loads %s", plugin));
    else
        g_ptr_array_add(
            report->faults,
            g_strdup_printf("nbdkit cannot load %s: install understudy, or name it by --disk-plugin",
                            plugin));
}

static void check_state_dir(const struct report *report, const char *path)
{
    struct statvfs room;
    if (g_mkdir_with_parents(path, 0700) < 0 || g_access(path, W_OK) < 0 || statvfs(path, &room) < 0)
        g_ptr_array_add(
            report->faults,
            g_strdup_printf(
                "the state folder %s cannot be written: make it writable, or name another by --state-dir",
                path));
    else
        g_ptr_array_add(report->good, g_strdup_printf("state folder %s, %" G_GUINT64_FORMAT " MiB free", path,
                                                      (uint64_t)room.f_bavail * room.f_frsize >> 20));
}

char **host_disks_report(const struct daemon_config *config, char ***faults)
{
    const struct report report = {.good = g_ptr_array_new(), .faults = g_ptr_array_new()};
    check_programs(&report);
    check_plugin(&report, config->disk_plugin);
    check_state_dir(&report, config->state_dir);
    g_ptr_array_add(report.good, NULL);
    g_ptr_array_add(report.faults, NULL);
    *faults = (char **)g_ptr_array_free(report.faults, FALSE);
    return (char **)g_ptr_array_free(report.good, FALSE);
}
