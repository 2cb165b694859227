/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Checks what a command line that a peer has sent may name (daemon.h). A host that is trusted as a primary
 * may send one, but may not choose what runs on this host: the program must be on the administrator's list,
 * and no option may make the hypervisor run another one.
 *
 * The program is compared twice. Its path with all symbolic links resolved must be on the list: otherwise a
 * link with a harmless name could lead to any program. Its path with only the links of its folder resolved
 * must be on the list, too: the program is started by that name later, and a link in a folder where others
 * may write can lead elsewhere by then. So /bin/qemu-system-x86_64 counts as /usr/bin's where /bin is a link,
 * and for an alternative (a link in /usr/bin) the place that it leads to must be on the list.
 */
#include <fnmatch.h>
#include <gio/gio.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/daemon.h"
#include "hv-hooks/line.h"

/* Returns path with the links of its folder resolved. GLib string, or NULL. */
static char *with_folder_resolved(const char *path)
{
    char folder[PATH_MAX];
    g_autofree char *named = g_path_get_dirname(path), *base = g_path_get_basename(path);
    return realpath(named, folder) ? g_build_filename(folder, base, NULL) : NULL;
}

/* Returns whether a pattern matches path. Each is also tried with the links of its folder resolved, which
 * works only if the folder has no wildcards. */
static bool is_on_list(const char *path, char *const *allowed)
{
    for (; *allowed; allowed++) {
        g_autofree char *resolved = with_folder_resolved(*allowed);
        if (fnmatch(*allowed, path, FNM_PATHNAME) == 0 ||
            (resolved && fnmatch(resolved, path, FNM_PATHNAME) == 0))
            return true;
    }
    return false;
}

static bool program_is_allowed(const char *program, char *const *allowed, GError **error)
{
    char real[PATH_MAX];
    /* A name without a slash is looked up in PATH, as it is when the program is started. */
    if (strchr(program, '/') && !g_path_is_absolute(program)) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_PERMISSION_DENIED,
                    "%s cannot be the program of a standby: give its full path, or its name alone", program);
        return false;
    }
    g_autofree char *found = g_find_program_in_path(program);
    g_autofree char *named = found && g_path_is_absolute(found) ? with_folder_resolved(found) : NULL;
    if (!named || !realpath(named, real)) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND,
                    "%s was not found on this host: install it, or give its full path", program);
        return false;
    }
    const char *refused = !is_on_list(named, allowed) ? named : !is_on_list(real, allowed) ? real : NULL;
    if (!refused)
        return true;
    g_autofree char *list = g_strjoinv(" ", (char **)allowed);
    g_set_error(error, G_IO_ERROR, G_IO_ERROR_PERMISSION_DENIED,
                "%s, which is %s on this host, is not among the programs that another host may have started "
                "here (%s): start this host's understudyd with --qemu for each of them, and --qemu %s",
                program, refused, list, refused);
    return false;
}

bool peer_line_is_allowed(const struct line *line, char *const *allowed, GError **error)
{
    g_auto(GStrv) usual = allowed ? NULL : line_peer_programs();
    if (!program_is_allowed(line->program, allowed ? allowed : usual, error))
        return false;
    if (!line->runs)
        return true;
    g_set_error(error, G_IO_ERROR, G_IO_ERROR_PERMISSION_DENIED,
                "%s: another host may not have programs or code of its choice run here: leave it out, or use "
                "script=no,downscript=no for a tap device",
                line->runs);
    return false;
}
