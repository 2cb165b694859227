/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Files that a command line names from the folder where the user stood: named from the root instead, since
 * QEMU is started elsewhere, and on two hosts.
 */
#include <string.h>

#include "hv-hooks/qemu/cmdline_disks.h"
#include "hv-hooks/qemu/cmdline_keys.h"

/* GLib string, or NULL where the name needs no change. */
static char *absolute(const char *name, const char *cwd)
{
    g_autofree char *protocol = cmdline_keys_protocol(name);
    if (protocol && strcmp(protocol, "file") != 0)
        return NULL;
    const char *path = protocol ? name + strlen("file:") : name;
    return path[0] && !g_path_is_absolute(path) ? g_build_filename(cwd, path, NULL) : NULL;
}

static void make_tree_absolute(json_t *node, const char *cwd)
{
    const char *name = json_string_value(json_object_get(node, "filename"));
    g_autofree char *path = name ? absolute(name, cwd) : NULL;
    if (path)
        json_object_set_new(node, "filename", json_string_nocheck(path));
    const char *key;
    json_t *child;
    json_object_foreach (node, key, child) {
        size_t i;
        json_t *element;
        if (json_is_object(child))
            make_tree_absolute(child, cwd);
        json_array_foreach (child, i, element) {
            make_tree_absolute(element, cwd);
        }
    }
}

static char *absolute_json(const char *value, const char *cwd)
{
    json_t *tree = json_loads(value, 0, NULL);
    if (!tree)
        return g_strdup(value);
    make_tree_absolute(tree, cwd);
    char *text = json_dumps(tree, JSON_COMPACT);
    char *out = g_strdup(text);
    free(text);
    json_decref(tree);
    return out;
}

char *cmdline_disks_absolute(const char *option, const char *value, const char *cwd)
{
    bool is_drive = strcmp(option, "drive") == 0;
    bool changed = false;
    if (!is_drive && strcmp(option, "blockdev") != 0) {
        char *path = absolute(value, cwd);
        return path ? path : g_strdup(value);
    }
    if (!is_drive && value[0] == '{')
        return absolute_json(value, cwd);
    g_autoptr(GPtrArray) keys = cmdline_keys_parse(value, is_drive ? NULL : "driver");
    for (guint i = 0; i < keys->len; i++) {
        struct cmdline_key *key = g_ptr_array_index(keys, i);
        bool names_file = strcmp(key->key, "filename") == 0 || g_str_has_suffix(key->key, ".filename") ||
                          (is_drive && strcmp(key->key, "file") == 0);
        char *path = names_file ? absolute(key->value, cwd) : NULL;
        if (path) {
            g_free(key->value);
            key->value = path;
            changed = true;
        }
    }
    return changed ? cmdline_keys_format(keys) : g_strdup(value);
}
