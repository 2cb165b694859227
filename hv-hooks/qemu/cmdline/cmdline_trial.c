/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The line of a throw-away QEMU that loads a device state on trial (cmdline.h). To the device state it must
 * be the same machine: every device stays, with what it is connected to in its place. To the host it must be
 * nobody: the standby's own QEMU has the sockets, ports and files, and other programs write to them.
 *
 *   disks      take writes and forget them; read-only ones stay, QEMU shares their files
 *   network    a tap device stays one (its kind decides what the NIC can), in the throw-away's own network
 *              namespace; user networking keeps its guest's side (it has a state); the rest leads nowhere
 *   characters lead nowhere, under the same names
 *   monitors, displays, logs, debuggers, filters   are left out: they have no state
 *
 * Options that have no part in this pass untouched.
 */
#include <stdlib.h>
#include <string.h>

#include "hv-hooks/qemu/cmdline/cmdline_build.h"
#include "hv-hooks/qemu/cmdline/cmdline_keys.h"
#include "hv-hooks/qemu/cmdline/cmdline_refusal.h"

#define FIRST_HUB 1000

struct trial {
    const struct cmdline *line;
    const uint64_t *disk_len;
    GHashTable *emptied; /* block nodes that hold nothing: name -> length (uint64_t *) */
    unsigned nhubs;
    GError **error;
};

/* Returns the option's value for the trial (GLib string); NULL: the option is left out. */
typedef char *(*rewrite)(struct trial *trial, const char *value);

static bool is_one_of(const char *word, const char *const *words, size_t nwords)
{
    for (size_t i = 0; word && i < nwords; i++) {
        if (strcmp(word, words[i]) == 0)
            return true;
    }
    return false;
}

/* ---- network ---- */

static char *tap(GPtrArray *keys)
{
    static const char *const gone[] = {"script", "downscript", "br", "helper", "vhost", "vhostforce"};
    if (cmdline_keys_get(keys, "helper"))
        cmdline_keys_remove(keys, "", "ifname");
    for (size_t i = 0; i < G_N_ELEMENTS(gone); i++)
        cmdline_keys_remove(keys, "", gone[i]);
    cmdline_keys_remove(keys, "", "type");
    g_autofree char *rest = cmdline_keys_format(keys);
    return g_strdup_printf("tap,script=no,downscript=no%s%s", rest[0] ? "," : "", rest);
}

/* "tcp:10.0.2.100:7-DEVICE": the guest's connections to it are a part of the state. */
static void forward_nowhere(struct cmdline_key *key)
{
    const char *dash = strchr(key->value, '-');
    if (strcmp(key->key, "guestfwd") != 0 || !dash || g_str_has_prefix(dash, "-cmd:"))
        return;
    char *nowhere = g_strdup_printf("%.*s-null", (int)(dash - key->value), key->value);
    g_free(key->value);
    key->value = nowhere;
}

static char *user(GPtrArray *keys)
{
    static const char *const gone[] = {"hostfwd", "smb", "smbserver", "tftp", "type"};
    for (size_t i = 0; i < G_N_ELEMENTS(gone); i++)
        cmdline_keys_remove(keys, "", gone[i]);
    for (guint i = 0; i < keys->len; i++)
        forward_nowhere(g_ptr_array_index(keys, i));
    g_autofree char *rest = cmdline_keys_format(keys);
    return g_strdup_printf("user%s%s", rest[0] ? "," : "", rest);
}

static char *hub(struct trial *trial, GPtrArray *keys)
{
    static const char *const kept[] = {"id", "model", "mac", "macaddr", "addr", "vectors"};
    for (guint i = keys->len; i-- > 0;) {
        const struct cmdline_key *key = g_ptr_array_index(keys, i);
        if (!is_one_of(key->key, kept, G_N_ELEMENTS(kept)))
            g_ptr_array_remove_index(keys, i);
    }
    g_autofree char *rest = cmdline_keys_format(keys);
    return g_strdup_printf("hubport,hubid=%u%s%s", FIRST_HUB + trial->nhubs++, rest[0] ? "," : "", rest);
}

static char *on_network(struct trial *trial, const char *value)
{
    g_autoptr(GPtrArray) keys = cmdline_keys_read(value, "type");
    const char *type = keys ? cmdline_keys_get(keys, "type") : NULL;
    if (!type || strcmp(type, "none") == 0)
        return g_strdup(value);
    if (strcmp(type, "tap") == 0 || strcmp(type, "bridge") == 0)
        return tap(keys);
    return strcmp(type, "user") == 0 ? user(keys) : hub(trial, keys);
}

/* ---- characters ---- */

static char *on_chardev(struct trial *trial, const char *value)
{
    g_autoptr(GPtrArray) keys = cmdline_keys_read(value, "backend");
    const char *id = keys ? cmdline_keys_get(keys, "id") : NULL;
    const char *mux = keys ? cmdline_keys_get(keys, "mux") : NULL;
    (void)trial;
    if (!id)
        return g_strdup(value);
    g_autofree char *name = cmdline_keys_escape(id);
    return g_strdup_printf("null,id=%s%s%s", name, mux ? ",mux=" : "", mux ? mux : "");
}

static char *on_characters(struct trial *trial, const char *value)
{
    (void)trial;
    return g_strdup(g_str_has_prefix(value, "chardev:") || strcmp(value, "none") == 0 ? value : "null");
}

/* ---- block nodes ---- */

/* Returns the length of the emptied node below tree; NULL: there is none. */
static const uint64_t *emptied_below(const struct trial *trial, json_t *tree)
{
    static const char *const own[] = {"node-name", "driver", "filename"};
    const uint64_t *len = NULL;
    const char *key;
    json_t *child;
    json_object_foreach (tree, key, child) {
        const char *name = json_string_value(child);
        if (json_is_object(child))
            len = emptied_below(trial, child);
        else if (name && !is_one_of(key, own, G_N_ELEMENTS(own)))
            len = g_hash_table_lookup(trial->emptied, name);
        if (len)
            return len;
    }
    return NULL;
}

static json_t *tree_of(const char *value)
{
    if (value[0] == '{')
        return cmdline_keys_load(value, 0);
    g_autoptr(GPtrArray) keys = cmdline_keys_parse(value, "driver");
    return cmdline_keys_tree(keys);
}

static void note_emptied(struct trial *trial, const json_t *tree, uint64_t len)
{
    const char *name = json_string_value(json_object_get(tree, "node-name"));
    if (name)
        g_hash_table_replace(trial->emptied, g_strdup(name), g_memdup2(&len, sizeof len));
}

/* Rewrites a -blockdev. A node above a disk's node has no image to read in a trial. */
static char *on_blockdev(struct trial *trial, const char *value)
{
    json_t *tree = tree_of(value);
    const uint64_t *len = json_is_object(tree) ? emptied_below(trial, tree) : NULL;
    char *out = g_strdup(value);
    if (len) {
        g_free(out);
        out = cmdline_disk_null_node(tree, *len);
        note_emptied(trial, tree, *len);
    }
    json_decref(tree);
    return out;
}

static void add_disk(struct trial *trial, GPtrArray *out, const struct cmdline_disk *disk, uint64_t len)
{
    if (!disk->bare)
        g_ptr_array_remove_index(out, out->len - 1);
    if (strcmp(disk->option, "-blockdev") == 0) {
        json_t *tree = tree_of(g_ptr_array_index(trial->line->args, disk->arg));
        note_emptied(trial, tree, len);
        json_decref(tree);
    }
    g_autofree char *argument = cmdline_disk_null_argument(disk, len);
    cmdline_add(out, disk->option, "%s", argument);
}

/* ---- the rest ---- */

static char *on_object(struct trial *trial, const char *value)
{
    static const char *const gone[] = {"filter-", "colo-", "input-"};
    g_autoptr(GPtrArray) keys = cmdline_keys_read(value, "qom-type");
    const char *type = keys ? cmdline_keys_get(keys, "qom-type") : NULL;
    (void)trial;
    for (size_t i = 0; type && i < G_N_ELEMENTS(gone); i++) {
        if (g_str_has_prefix(type, gone[i]))
            return NULL;
    }
    return g_strdup(value);
}

static char *on_audio(struct trial *trial, const char *value)
{
    g_autoptr(GPtrArray) keys = cmdline_keys_read(value, "driver");
    const char *id = keys ? cmdline_keys_get(keys, "id") : NULL;
    const char *model = keys ? cmdline_keys_get(keys, "model") : NULL;
    (void)trial;
    return g_strdup_printf("none%s%s%s%s", id ? ",id=" : "", id ? id : "", model ? ",model=" : "",
                           model ? model : "");
}

/* Switches mem-lock off, since locking a private mapping would copy every page. */
static char *on_overcommit(struct trial *trial, const char *value)
{
    g_autoptr(GPtrArray) keys = cmdline_keys_parse(value, NULL);
    (void)trial;
    cmdline_keys_set(keys, "", "mem-lock", "off");
    return cmdline_keys_format(keys);
}

/* Keeps SPICE, since the machine's devices need it, on a port that nothing can reach without a network. */
static char *on_spice(struct trial *trial, const char *value)
{
    (void)trial;
    (void)value;
    return g_strdup("port=5900,disable-ticketing=on");
}

static char *on_tpm(struct trial *trial, const char *value)
{
    if (!*trial->error)
        g_set_error(trial->error, CMDLINE_ERROR, CMDLINE_ERROR_UNSUPPORTED,
                    "the guest's TPM (-tpmdev %s) belongs to one QEMU at a time", value);
    return NULL;
}

static char *on_text(struct trial *trial, const char *value)
{
    (void)trial;
    return g_strdup(value);
}

static char *leave_out(struct trial *trial, const char *value)
{
    (void)trial;
    (void)value;
    return NULL;
}

static const struct option {
    const char *name;
    rewrite rewrite; /* NULL: it has no argument, and is left out */
} options[] = {
    {"netdev", on_network},
    {"nic", on_network},
    {"chardev", on_chardev},
    {"serial", on_characters},
    {"parallel", on_characters},
    {"debugcon", on_characters},
    {"blockdev", on_blockdev},
    {"object", on_object},
    {"audiodev", on_audio},
    {"audio", on_audio},
    {"overcommit", on_overcommit},
    {"spice", on_spice},
    {"tpmdev", on_tpm},
    {"append", on_text}, /* it may begin with a dash */
    {"monitor", leave_out},
    {"mon", leave_out},
    {"qmp", leave_out},
    {"qmp-pretty", leave_out},
    {"vnc", leave_out},
    {"display", leave_out},
    {"gdb", leave_out},
    {"pidfile", leave_out},
    {"D", leave_out},
    {"d", leave_out},
    {"trace", leave_out},
    {"plugin", leave_out},
    {"dump-vmstate", leave_out},
    {"s", NULL},
    {"curses", NULL},
    {"sdl", NULL},
    {"full-screen", NULL},
};

static const struct option *find(const char *arg)
{
    if (arg[0] != '-' || !arg[1])
        return NULL;
    const char *name = arg + (arg[1] == '-' ? 2 : 1);
    for (size_t i = 0; i < G_N_ELEMENTS(options); i++) {
        if (strcmp(options[i].name, name) == 0)
            return &options[i];
    }
    return NULL;
}

static void add_user_args(struct trial *trial, GPtrArray *out)
{
    const GPtrArray *args = trial->line->args, *disks = trial->line->disks;
    guint disk = 0;
    for (guint i = 0; i < args->len; i++) {
        const char *arg = g_ptr_array_index(args, i);
        const struct cmdline_disk *next = disk < disks->len ? g_ptr_array_index(disks, disk) : NULL;
        const struct option *option = find(arg);
        if (next && next->arg == i) {
            add_disk(trial, out, next, trial->disk_len[disk++]);
        } else if (!option || (next && next->arg == i + 1)) {
            g_ptr_array_add(out, g_strdup(arg));
        } else if (next && !next->bare && next->arg == i + 2) {
            continue; /* the word after it is the disk's option: it has no value, and QEMU refuses the line */
        } else if (option->rewrite && i + 1 < args->len) {
            g_autofree char *value = option->rewrite(trial, g_ptr_array_index(args, ++i));
            if (value)
                cmdline_add(out, arg, "%s", value);
        }
    }
}

char **cmdline_build_trial(const struct cmdline *cmdline, int ram_fd, const char *vm_dir,
                           const uint64_t *disk_len, GError **error)
{
    GError *refused = NULL;
    struct trial trial = {.line = cmdline, .disk_len = disk_len, .error = &refused};
    g_autoptr(GPtrArray) out = g_ptr_array_new_with_free_func(g_free);
    trial.emptied = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    g_ptr_array_add(out, g_strdup(cmdline->binary));
    add_user_args(&trial, out);
    g_hash_table_unref(trial.emptied);
    if (refused) {
        g_propagate_error(error, refused);
        return NULL;
    }
    cmdline_add_memory(out, cmdline, ram_fd, true);
    cmdline_add_monitor(out, vm_dir, "us-trial");
    cmdline_add_actions(out, cmdline);
    cmdline_add_migration(out, true);
    cmdline_add(out, "-display", "none");
    cmdline_add(out, "-monitor", "none");
    g_ptr_array_add(out, g_strdup("-S"));
    g_ptr_array_add(out, NULL);
    return (char **)g_ptr_array_free(g_steal_pointer(&out), FALSE);
}
