/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Compares versions as QEMU prints them, and reads machine types from the lines of `-machine help`. Only
 * qemu_machine_ask runs a program; the rest is pure.
 */
#include "hv-hooks/qemu/qemu_version.h"

#include <gio/gio.h>
#include <stdio.h>
#include <string.h>

#include "common/words.h"

#define VERSION_MAX 200

/* Major, minor and micro as one number, or -1. */
static gint64 number_of(const char *version)
{
    unsigned major, minor, micro = 0;
    if (!g_ascii_isdigit(version[0]) || sscanf(version, "%4u.%4u.%4u", &major, &minor, &micro) < 2)
        return -1;
    return ((gint64)major * 10000 + minor) * 10000 + micro;
}

char *qemu_version_ask(const char *binary, GError **error)
{
    g_autofree char *output = NULL;
    const char *argv[] = {binary, "-version", NULL};
    int status = 0;
    if (!g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_SEARCH_PATH | G_SPAWN_STDERR_TO_DEV_NULL, NULL, NULL,
                      &output, NULL, &status, NULL) ||
        status != 0) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND,
                    "%s could not be run: install QEMU or give its full path", binary);
        return NULL;
    }
    const char *version = strstr(output, "version ");
    if (!version) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA, "%s is not a QEMU", binary);
        return NULL;
    }
    /* With the packaging's part: two builds of one version may differ in their machines. */
    version += strlen("version ");
    return words_make_readable_len(version, strcspn(version, "\r\n"), VERSION_MAX);
}

enum qemu_relation qemu_version_relate(const char *theirs, const char *ours)
{
    gint64 their_number = number_of(theirs), our_number = number_of(ours);
    if (strcmp(theirs, ours) == 0)
        return QEMU_SAME;
    if (their_number < 0 || our_number < 0)
        return QEMU_UNKNOWN;
    if (their_number == our_number)
        return QEMU_OTHER_BUILD;
    return our_number > their_number ? QEMU_LATER : QEMU_EARLIER;
}

/* One line: "pc   Standard PC (i440FX + PIIX, 1996) (alias of pc-i440fx-7.2)". */
static char *pinned_by(const char *line, const char *type)
{
    static const char alias[] = "(alias of ";
    size_t len = strcspn(line, " \t");
    bool is_it =
        type[0] ? strlen(type) == len && strncmp(line, type, len) == 0 : strstr(line, "(default)") != NULL;
    if (!is_it || len == 0)
        return NULL;
    const char *name = strstr(line, alias);
    return name ? g_strndup(name + strlen(alias), strcspn(name + strlen(alias), ")")) : g_strndup(line, len);
}

char *qemu_machine_pinned(const char *help, const char *type)
{
    g_auto(GStrv) lines = g_strsplit(help, "\n", -1);
    char *found = NULL;
    for (char **line = lines; *line && !found; line++)
        found = pinned_by(*line, type);
    return found;
}

bool qemu_machine_has_version(const char *type)
{
    const char *version = strrchr(type, '-');
    return version && number_of(version + 1) >= 0;
}

char *qemu_machine_ask(const char *binary, const char *type, GError **error)
{
    const char *argv[] = {binary, "-machine", "help", NULL};
    g_autofree char *help = NULL;
    int status = 0;
    if (!g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_SEARCH_PATH | G_SPAWN_STDERR_TO_DEV_NULL, NULL, NULL,
                      &help, NULL, &status, NULL) ||
        status != 0) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND, "%s does not list its machine types", binary);
        return NULL;
    }
    char *pinned = qemu_machine_pinned(help, type);
    if (!pinned)
        g_set_error(
            error, G_IO_ERROR, G_IO_ERROR_NOT_SUPPORTED,
            "%s does not know the machine type %s: it has machine types of some years only; use one that "
            "'-machine help' lists",
            binary, type[0] ? type : "that is its default");
    return pinned;
}

char *qemu_version_warning(const char *primary, const char *standby)
{
    switch (qemu_version_relate(primary, standby)) {
    case QEMU_SAME:
        return NULL;
    case QEMU_OTHER_BUILD:
        return g_strdup_printf(
            "the standby's QEMU is another build (%s) than the one that the guest runs in (%s)", standby,
            primary);
    default:
        return g_strdup_printf(
            "the standby's QEMU (%s) is later than the one that the guest runs in (%s): after "
            "a failover the guest cannot come back before this host has that one or a later "
            "one",
            standby, primary);
    }
}
