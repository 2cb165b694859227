/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Files that a command line names from the folder where the user stood, or that QEMU is to make there: named
 * from the root instead, since QEMU is started elsewhere, and on two hosts.
 */
#include <stdlib.h>
#include <string.h>

#include "hv-hooks/qemu/cmdline/cmdline_keys.h"
#include "hv-hooks/qemu/cmdline/cmdline_paths.h"

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
    json_t *tree = cmdline_keys_load(value, 0);
    if (!tree)
        return g_strdup(value);
    make_tree_absolute(tree, cwd);
    char *text = json_dumps(tree, JSON_COMPACT);
    /* JSON is UTF-8. If the folder's name is not, no JSON names a file in it. */
    char *out = g_strdup(text ? text : value);
    free(text);
    json_decref(tree);
    return out;
}

/* The ways in which an option names files. */
enum kind {
    PLAIN,      /* the argument is a name */
    DRIVE,      /* keys: file, and what ends in .filename */
    BLOCKDEV,   /* keys or JSON: filename, and what ends in .filename */
    CHARACTERS, /* a character device in its short form: file:NAME and the like */
    KEYS,       /* keys: named in the table */
};

static const struct option {
    const char *name;
    enum kind kind;
    const char *implied;       /* the key of a first word without one */
    const char *keys;          /* key|key: what they give is a file */
    const char *keys_if_there; /* the same, where the user's folder has that file: QEMU looks in others too */
} options[] = {
    {"kernel", PLAIN, NULL, NULL, NULL},
    {"initrd", PLAIN, NULL, NULL, NULL},
    {"bios", PLAIN, NULL, NULL, NULL},
    {"dtb", PLAIN, NULL, NULL, NULL},
    {"shim", PLAIN, NULL, NULL, NULL},
    {"cdrom", PLAIN, NULL, NULL, NULL},
    {"hda", PLAIN, NULL, NULL, NULL},
    {"hdb", PLAIN, NULL, NULL, NULL},
    {"hdc", PLAIN, NULL, NULL, NULL},
    {"hdd", PLAIN, NULL, NULL, NULL},
    {"option-rom", PLAIN, NULL, NULL, NULL},
    {"L", PLAIN, NULL, NULL, NULL},
    {"pidfile", PLAIN, NULL, NULL, NULL},
    {"D", PLAIN, NULL, NULL, NULL},
    {"dump-vmstate", PLAIN, NULL, NULL, NULL},
    {"drive", DRIVE, NULL, NULL, NULL},
    {"blockdev", BLOCKDEV, "driver", NULL, NULL},
    {"serial", CHARACTERS, NULL, NULL, NULL},
    {"parallel", CHARACTERS, NULL, NULL, NULL},
    {"monitor", CHARACTERS, NULL, NULL, NULL},
    {"debugcon", CHARACTERS, NULL, NULL, NULL},
    {"qmp", CHARACTERS, NULL, NULL, NULL},
    {"qmp-pretty", CHARACTERS, NULL, NULL, NULL},
    {"gdb", CHARACTERS, NULL, NULL, NULL},
    {"vnc", CHARACTERS, NULL, NULL, NULL},
    {"chardev", KEYS, "backend", "file|path|logfile|input-path", NULL},
    {"fw_cfg", KEYS, "name", "file|path", NULL},
    {"smbios", KEYS, NULL, "file|path", NULL},
    {"acpitable", KEYS, NULL, "file|path", NULL},
    {"object", KEYS, "qom-type", "file|filename", "dir"},
    {"audiodev", KEYS, "driver", "path", NULL},
    {"trace", KEYS, "enable", "file", "events"},
    {"plugin", KEYS, "file", NULL, "file"},
    {"tpmdev", KEYS, "type", NULL, "path|cancel-path"},
    {"device", KEYS, "driver", NULL, "romfile|file"},
    {"netdev", KEYS, "type", NULL, "script|downscript|helper|tftp|smb"},
    {"nic", KEYS, "type", NULL, "script|downscript|helper|tftp|smb"},
};

static const struct option *find(const char *name)
{
    for (size_t i = 0; i < G_N_ELEMENTS(options); i++) {
        if (strcmp(options[i].name, name) == 0)
            return &options[i];
    }
    return NULL;
}

static char *absolute_characters(const char *value, const char *cwd)
{
    static const char *const prefixes[] = {"file:", "pipe:", "unix:", "mon:file:", "mon:pipe:", "mon:unix:"};
    for (size_t i = 0; i < G_N_ELEMENTS(prefixes); i++) {
        const char *name = value + strlen(prefixes[i]);
        if (!g_str_has_prefix(value, prefixes[i]) || !name[0] || g_path_is_absolute(name))
            continue;
        g_autofree char *path = g_build_filename(cwd, name, NULL);
        return g_strconcat(prefixes[i], path, NULL);
    }
    return g_strdup(value);
}

static bool is_among(const char *key, const char *keys)
{
    g_auto(GStrv) list = keys ? g_strsplit(keys, "|", -1) : NULL;
    return list && g_strv_contains((const char *const *)list, key);
}

static bool is_there(const char *name, const char *cwd)
{
    g_autofree char *path = g_build_filename(cwd, name, NULL);
    return g_file_test(path, G_FILE_TEST_EXISTS);
}

/* To QEMU script=no is no script, whatever the folder holds. */
static bool is_no_script(const struct cmdline_key *key)
{
    return g_str_has_suffix(key->key, "script") && strcmp(key->value, "no") == 0;
}

static bool names_file(const struct option *option, const struct cmdline_key *key, const char *cwd)
{
    if (option->kind == KEYS)
        return is_among(key->key, option->keys) ||
               (is_among(key->key, option->keys_if_there) && !is_no_script(key) && is_there(key->value, cwd));
    return strcmp(key->key, "filename") == 0 || g_str_has_suffix(key->key, ".filename") ||
           (option->kind == DRIVE && strcmp(key->key, "file") == 0);
}

static char *absolute_keys(const struct option *option, const char *value, const char *cwd)
{
    bool changed = false;
    g_autoptr(GPtrArray) keys = cmdline_keys_parse(value, option->implied);
    for (guint i = 0; i < keys->len; i++) {
        struct cmdline_key *key = g_ptr_array_index(keys, i);
        char *path = names_file(option, key, cwd) ? absolute(key->value, cwd) : NULL;
        if (path) {
            g_free(key->value);
            key->value = path;
            changed = true;
        }
    }
    return changed ? cmdline_keys_format(keys) : g_strdup(value);
}

static char *absolute_plain(const char *value, const char *cwd)
{
    char *path = absolute(value, cwd);
    return path ? path : g_strdup(value);
}

bool cmdline_paths_has_files(const char *option)
{
    return find(option) != NULL;
}

char *cmdline_paths_absolute(const char *name, const char *value, const char *cwd)
{
    const struct option *option = find(name);
    switch (option ? option->kind : PLAIN) {
    case CHARACTERS:
        return absolute_characters(value, cwd);
    case BLOCKDEV:
        return value[0] == '{' ? absolute_json(value, cwd) : absolute_keys(option, value, cwd);
    case DRIVE:
        return absolute_keys(option, value, cwd);
    case KEYS:
        return value[0] == '{' ? g_strdup(value) : absolute_keys(option, value, cwd);
    default:
        return absolute_plain(value, cwd);
    }
}
