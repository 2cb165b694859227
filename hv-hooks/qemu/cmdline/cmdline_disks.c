/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How a disk's file becomes an NBD client. Both -drive and -blockdev describe a tree of block nodes; -drive
 * has some keys of its own, -blockdev may also be JSON. The tree is walked from the top, which has the
 * format and whether the guest may write, to the node that is a file. That node becomes an NBD client.
 * Everything else stays as the user gave it, so that devices, ids, caching and formats do not change.
 *
 * QEMU rejects a file node's keys (locking, aio, ...) on an NBD node: they are removed with the file.
 */
#include "hv-hooks/qemu/cmdline/cmdline_disks.h"

#include <string.h>

#include "hv-hooks/qemu/cmdline/cmdline.h"
#include "hv-hooks/qemu/cmdline/cmdline_keys.h"
#include "hv-hooks/qemu/cmdline/cmdline_refusal.h"
#include "hv-hooks/qemu/cmdline/cmdline_throttle.h"

/*
 * Seconds for which QEMU holds the guest's requests while the disk's server is not running. A server that
 * dies is started again at once. After this time the requests fail.
 */
#define RECONNECT_S 10

/* What was found so far in one option's tree. */
struct walk {
    struct cmdline *line;
    const char *option, *value; /* for messages */
    bool is_drive;              /* where a file needs no driver, and its format none either */
    unsigned nfound;
    char *prefix, *path, *format; /* of the writable file */
    json_t *node;
};

void cmdline_disk_free(struct cmdline_disk *disk)
{
    if (!disk)
        return;
    g_free(disk->id);
    g_free(disk->path);
    g_free(disk->format);
    g_free(disk->prefix);
    g_free(disk->rest);
    json_decref(disk->tree);
    g_free(disk);
}

static bool is_one_of(const char *word, const char *const *words, size_t nwords)
{
    for (size_t i = 0; word && i < nwords; i++) {
        if (strcmp(word, words[i]) == 0)
            return true;
    }
    return false;
}

/* Returns whether a node is a filter: it changes the behaviour of the node below, not the format. */
static bool is_filter(const char *driver)
{
    static const char *const filters[] = {
        "throttle",  "copy-on-read", "blkdebug", "blklogwrites",      "blkverify",
        "blkreplay", "preallocate",  "compress", "copy-before-write", "quorum",
    };
    return is_one_of(driver, filters, G_N_ELEMENTS(filters));
}

static bool is_file(const char *driver)
{
    static const char *const files[] = {"file", "host_device"};
    return is_one_of(driver, files, G_N_ELEMENTS(files));
}

/* Returns whether a driver's data cannot be replicated: it is on other hosts, in hardware, or in folders. */
static bool is_elsewhere(const char *driver)
{
    static const char *const elsewhere[] = {
        "nbd",
        "rbd",
        "iscsi",
        "ssh",
        "nfs",
        "http",
        "https",
        "ftp",
        "ftps",
        "gluster",
        "nvme",
        "nvme-io_uring",
        "vvfat",
        "host_cdrom",
        "replication",
        "io_uring",
        "virtio-blk-vfio-pci",
        "virtio-blk-vhost-user",
        "virtio-blk-vhost-vdpa",
    };
    return is_one_of(driver, elsewhere, G_N_ELEMENTS(elsewhere));
}

static const char *string_of(const json_t *node, const char *key)
{
    return json_string_value(json_object_get(node, key));
}

static bool is_on(const json_t *value)
{
    static const char *const on[] = {"on", "yes", "true", "y"};
    return json_is_true(value) || is_one_of(json_string_value(value), on, G_N_ELEMENTS(on));
}

static bool refuse_elsewhere(const struct walk *walk, const char *driver, GError **error)
{
    return UNSUPPORTED(
        "-%s %s: the disk's data is behind %s, where it cannot be replicated; give the disk by a "
        "file, or with %s if the guest only reads it",
        walk->option, walk->value, driver, walk->is_drive ? "readonly=on" : "read-only=on");
}

static bool found_file(struct walk *walk, const char *prefix, json_t *node, const char *format, bool readonly,
                       GError **error)
{
    const char *path = string_of(node, "filename");
    g_autofree char *protocol = string_of(node, "driver") ? NULL : cmdline_keys_protocol(path);
    if (protocol && strcmp(protocol, "file") == 0)
        path += strlen("file:");
    else if (protocol)
        return readonly || refuse_elsewhere(walk, protocol, error);
    if (readonly) {
        g_ptr_array_add(walk->line->files, g_strdup(path));
        return true;
    }
    if (!path[0])
        return UNSUPPORTED("-%s %s: the name of the disk's file is missing", walk->option, walk->value);
    if (walk->nfound++)
        return UNSUPPORTED("-%s %s: this has several writable files; give each a -blockdev of its own",
                           walk->option, walk->value);
    walk->prefix = g_strdup(prefix);
    walk->path = g_strdup(path);
    walk->format = g_strdup(format);
    walk->node = node;
    return true;
}

/* Walks over a node and the nodes below it. format: set by the nodes above; "": QEMU probes it. */
static bool walk_node(struct walk *walk, const char *prefix, json_t *node, const char *format, bool readonly,
                      GError **error)
{
    const char *driver = string_of(node, "driver");
    const json_t *own = json_object_get(node, "read-only");
    readonly = own ? is_on(own) : readonly;
    if (string_of(node, "filename") && (!driver || is_file(driver)))
        return found_file(walk, prefix, node, format, readonly, error);
    if (is_elsewhere(driver))
        return readonly || refuse_elsewhere(walk, driver, error);
    if (driver && !is_filter(driver))
        format = driver;
    const char *key;
    json_t *child;
    json_object_foreach (node, key, child) {
        if (strcmp(key, "data-file") == 0)
            return UNSUPPORTED(
                "-%s %s: images with an external data file are not replicated; convert the image "
                "with qemu-img convert",
                walk->option, walk->value);
        g_autofree char *below = g_strdup_printf("%s%s.", prefix, key);
        /* A backing file is opened read-only unless it says otherwise. */
        bool below_readonly = readonly || strcmp(key, "backing") == 0;
        if (json_is_object(child) && !walk_node(walk, below, child, format, below_readonly, error))
            return false;
        size_t i;
        json_t *element;
        json_array_foreach (child, i, element) {
            if (json_is_object(element) && !walk_node(walk, below, element, format, below_readonly, error))
                return false;
        }
    }
    return true;
}

static void clear_walk(struct walk *walk)
{
    g_free(walk->prefix);
    g_free(walk->path);
    g_free(walk->format);
}

/* Keys of a file node only, and the file itself. */
static const char *const file_keys[] = {
    "driver",        "filename",   "locking",    "aio",
    "aio-max-batch", "pr-manager", "drop-cache", "x-check-cache-dropped",
};

static struct cmdline_disk *add_disk(struct walk *walk, const char *id)
{
    struct cmdline_disk *disk = g_new0(struct cmdline_disk, 1);
    disk->id = g_strdup(id);
    disk->path = g_strdup(walk->path);
    disk->format = g_strdup(walk->format);
    disk->probed = !walk->format[0];
    disk->option = walk->is_drive ? "-drive" : "-blockdev";
    disk->arg = walk->line->args->len - 1;
    disk->prefix = g_strdup(walk->prefix);
    g_ptr_array_add(walk->line->disks, disk);
    return disk;
}

static void take_file_keys(struct cmdline_disk *disk, GPtrArray *keys)
{
    for (size_t i = 0; i < G_N_ELEMENTS(file_keys); i++)
        cmdline_keys_remove(keys, disk->prefix, file_keys[i]);
    disk->rest = cmdline_keys_format(keys);
}

/* ---- -drive ---- */

/*
 * Builds the tree that a -drive's keys describe: file=NAME is the child's name, format and readonly are old
 * words. NULL: a name is too long.
 */
static json_t *drive_tree(GPtrArray *keys)
{
    g_autoptr(GPtrArray) plain = g_ptr_array_new();
    static const char *const own[] = {"if", "index", "bus", "unit", "media", "snapshot", "id", "file"};
    for (guint i = 0; i < keys->len; i++) {
        const struct cmdline_key *key = g_ptr_array_index(keys, i);
        if (!is_one_of(key->key, own, G_N_ELEMENTS(own)))
            g_ptr_array_add(plain, (gpointer)key);
    }
    json_t *tree = cmdline_keys_tree(plain);
    const char *file = cmdline_keys_get(keys, "file");
    if (!tree)
        return NULL;
    const char *format = string_of(tree, "format");
    if (format)
        json_object_set_new(tree, "driver", json_string_nocheck(format));
    if (json_object_get(tree, "readonly"))
        json_object_set(tree, "read-only", json_object_get(tree, "readonly"));
    if (!file)
        return tree;
    if (is_file(string_of(tree, "driver"))) {
        json_object_set_new(tree, "filename", json_string_nocheck(file));
        return tree;
    }
    if (!json_is_object(json_object_get(tree, "file")))
        json_object_set_new(tree, "file", json_object());
    json_object_set_new(json_object_get(tree, "file"), "filename", json_string_nocheck(file));
    return tree;
}

static bool check_interface(struct walk *walk, const GPtrArray *keys, GError **error)
{
    static const char *const unreplicated[] = {"floppy", "pflash", "sd", "mtd", "xen"};
    const char *interface = cmdline_keys_get(keys, "if");
    if (walk->nfound && is_one_of(interface, unreplicated, G_N_ELEMENTS(unreplicated)))
        return UNSUPPORTED("-drive %s: what the guest writes to a drive with if=%s is not replicated; add "
                           "readonly=on",
                           walk->value, interface);
    const char *snapshot = cmdline_keys_get(keys, "snapshot");
    if (walk->nfound && snapshot && strcmp(snapshot, "off") != 0)
        return UNSUPPORTED(
            "-drive %s: what the guest writes to a snapshot does not follow it to the other host; "
            "leave snapshot=on out, or use readonly=on",
            walk->value);
    return true;
}

bool cmdline_disks_drive(struct cmdline *line, const char *value, GError **error)
{
    struct walk walk = {.line = line, .option = "drive", .value = value, .is_drive = true};
    g_autoptr(GPtrArray) keys = cmdline_keys_parse(value, NULL);
    json_t *tree = drive_tree(keys);
    if (!tree)
        return UNSUPPORTED("-drive: the name of a key is longer than %u bytes", CMDLINE_KEY_MAX);
    bool readonly = g_strcmp0(cmdline_keys_get(keys, "media"), "cdrom") == 0;
    bool ok = walk_node(&walk, "", tree, is_file(string_of(tree, "driver")) ? "raw" : "", readonly, error) &&
              check_interface(&walk, keys, error) && cmdline_throttle_check("drive", value, keys, error);
    if (ok && walk.nfound) {
        struct cmdline_disk *disk = add_disk(&walk, cmdline_keys_get(keys, "id"));
        if (!disk->id)
            disk->id = g_strdup(cmdline_keys_get(keys, "node-name"));
        cmdline_keys_remove(keys, "", "file");
        cmdline_keys_remove(keys, "", "aio");
        if (!disk->prefix[0])
            cmdline_keys_remove(keys, "", "format");
        take_file_keys(disk, keys);
    }
    json_decref(tree);
    clear_walk(&walk);
    return ok;
}

/* ---- -blockdev ---- */

static void json_to_client(struct cmdline_disk *disk, json_t *tree, json_t *node)
{
    for (size_t i = 0; i < G_N_ELEMENTS(file_keys); i++)
        json_object_del(node, file_keys[i]);
    json_object_set_new(node, "driver", json_string("nbd"));
    json_object_set_new(node, "reconnect-delay", json_integer(RECONNECT_S));
    disk->server = json_pack("{s:s}", "type", "unix");
    json_object_set_new(node, "server", disk->server);
    disk->tree = json_incref(tree);
}

bool cmdline_disks_blockdev(struct cmdline *line, const char *value, GError **error)
{
    struct walk walk = {.line = line, .option = "blockdev", .value = value};
    g_autoptr(GPtrArray) keys = value[0] == '{' ? NULL : cmdline_keys_parse(value, "driver");
    json_t *tree = keys ? cmdline_keys_tree(keys) : cmdline_keys_load(value, 0);
    if (!json_is_object(tree)) {
        json_decref(tree);
        g_set_error(error, CMDLINE_ERROR, CMDLINE_ERROR_SYNTAX,
                    "-blockdev %s: this is not JSON, or the name of a key is longer than %u bytes", value,
                    CMDLINE_KEY_MAX);
        return false;
    }
    bool ok = walk_node(&walk, "", tree, "raw", false, error);
    if (ok)
        g_ptr_array_add(line->block_nodes, json_deep_copy(tree));
    if (ok && walk.nfound) {
        const char *name = string_of(walk.node, "node-name");
        struct cmdline_disk *disk = add_disk(&walk, name ? name : string_of(tree, "node-name"));
        if (keys)
            take_file_keys(disk, keys);
        else
            json_to_client(disk, tree, walk.node);
    }
    json_decref(tree);
    clear_walk(&walk);
    return ok;
}

/* ---- images without keys ---- */

bool cmdline_disks_image(struct cmdline *line, const char *option, const char *path, GError **error)
{
    static const char *const places[] = {"hda", "hdb", "hdc", "hdd"};
    struct walk walk = {.line = line, .option = option ? option : "hda", .value = path, .is_drive = true};
    json_t *node = json_pack("{s:s}", "filename", path);
    unsigned place = 0;
    while (option && place < 3 && strcmp(places[place], option) != 0)
        place++;
    bool ok = node && found_file(&walk, "file.", node, "", false, error);
    if (!node)
        g_set_error(error, CMDLINE_ERROR, CMDLINE_ERROR_SYNTAX, "%s: a disk's file must have a name in UTF-8",
                    path);
    if (ok) {
        struct cmdline_disk *disk = add_disk(&walk, NULL);
        disk->rest = g_strdup_printf("index=%u,media=disk", place);
        disk->bare = !option;
    }
    json_decref(node);
    clear_walk(&walk);
    return ok;
}

bool cmdline_disks_refuse(const char *option, const char *path, GError **error)
{
    return UNSUPPORTED(
        "-%s %s: what the guest writes there is not replicated; leave it out, or give it by -drive "
        "with readonly=on",
        option, path);
}

/* ---- all together ---- */

/* Returns the node in tree that has `name` as a child (*as: under which key), or NULL. */
static const json_t *parent_in(const json_t *tree, const char *name, const char **as)
{
    const char *key;
    json_t *child;
    json_object_foreach ((json_t *)tree, key, child) {
        bool own =
            strcmp(key, "node-name") == 0 || strcmp(key, "driver") == 0 || strcmp(key, "filename") == 0;
        if (!own && g_strcmp0(json_string_value(child), name) == 0) {
            *as = key;
            return tree;
        }
        const json_t *below = json_is_object(child) ? parent_in(child, name, as) : NULL;
        if (below)
            return below;
    }
    return NULL;
}

static const json_t *parent_of(const struct cmdline *line, const char *name, const char **as)
{
    const json_t *parent = NULL;
    for (guint i = 0; !parent && i < line->block_nodes->len; i++)
        parent = parent_in(g_ptr_array_index(line->block_nodes, i), name, as);
    return parent;
}

/* Sets the format of a file node from the node that is built on it. */
static void resolve_format(const struct cmdline *line, struct cmdline_disk *disk)
{
    const char *name = disk->id, *as = NULL;
    for (guint i = 0; name && i < line->block_nodes->len; i++) {
        const json_t *parent = parent_of(line, name, &as);
        const char *driver = parent ? string_of(parent, "driver") : NULL;
        if (driver && strcmp(as, "file") == 0 && !is_filter(driver)) {
            g_free(disk->format);
            disk->format = g_strdup(driver);
            return;
        }
        name = parent ? string_of(parent, "node-name") : NULL;
    }
}

static bool is_taken(const struct cmdline *line, guint before, const char *id)
{
    for (guint i = 0; i < before; i++) {
        const struct cmdline_disk *disk = g_ptr_array_index(line->disks, i);
        if (strcmp(disk->id, id) == 0)
            return true;
    }
    return false;
}

bool cmdline_disks_finish(struct cmdline *line, GError **error)
{
    if (line->disks->len > CMDLINE_DISKS_MAX)
        return UNSUPPORTED("the VM has %u writable disks: at most %u can be replicated", line->disks->len,
                           CMDLINE_DISKS_MAX);
    if (line->block_nodes->len > CMDLINE_NODES_MAX)
        return UNSUPPORTED("the VM has %u -blockdev options: at most %u can be checked",
                           line->block_nodes->len, CMDLINE_NODES_MAX);
    for (guint i = 0; i < line->disks->len; i++) {
        struct cmdline_disk *disk = g_ptr_array_index(line->disks, i);
        if (!disk->id)
            disk->id = g_strdup_printf("disk%u", i);
        if (is_taken(line, i, disk->id))
            return UNSUPPORTED("two disks would be called %s: give each an id of its own", disk->id);
        if (!disk->prefix[0])
            resolve_format(line, disk);
    }
    return true;
}

char *cmdline_disk_argument(const struct cmdline_disk *disk, const char *socket)
{
    if (disk->tree) {
        json_object_set_new(disk->server, "path", json_string_nocheck(socket));
        char *text = json_dumps(disk->tree, JSON_COMPACT);
        char *value = g_strdup(text);
        free(text);
        return value;
    }
    g_autofree char *path = cmdline_keys_escape(socket);
    const char *prefix = disk->prefix;
    GString *out = g_string_new(NULL);
    g_string_printf(out, "%sdriver=nbd,%sserver.type=unix,%sserver.path=%s,%sreconnect-delay=%d", prefix,
                    prefix, prefix, path, prefix, RECONNECT_S);
    if (disk->probed && disk->format[0])
        g_string_append_printf(out, ",format=%s", disk->format);
    if (disk->rest[0])
        g_string_append_printf(out, ",%s", disk->rest);
    return g_string_free(out, FALSE);
}

/* ---- without its data ---- */

/* Keys that the device above a node or drive depends on and that have a meaning without a file. */
static bool is_of_the_device(const char *key)
{
    static const char *const keys[] = {
        "if",      "index",         "bus",          "unit",           "media",
        "id",      "node-name",     "readonly",     "read-only",      "cache",
        "discard", "detect-zeroes", "cache.direct", "cache.no-flush", "cache.writeback",
        "werror",  "rerror",
    };
    return is_one_of(key, keys, G_N_ELEMENTS(keys)) || g_str_has_prefix(key, "throttling");
}

/* Returns an object's flags. In a tree made of keys, on and off are strings. */
static json_t *flags_of(json_t *object)
{
    json_t *flags = json_object();
    const char *key;
    json_t *value;
    json_object_foreach (object, key, value) {
        json_object_set_new(flags, key, json_boolean(is_on(value)));
    }
    return flags;
}

char *cmdline_disk_null_node(const json_t *tree, uint64_t len)
{
    static const char *const words[] = {"node-name", "discard", "detect-zeroes"};
    json_t *node =
        json_pack("{s:s, s:I, s:b}", "driver", "null-co", "size", (json_int_t)len, "read-zeroes", 1);
    json_t *read_only = json_object_get(tree, "read-only"), *cache = json_object_get(tree, "cache");
    for (size_t i = 0; i < G_N_ELEMENTS(words); i++) {
        json_t *value = json_object_get(tree, words[i]);
        if (value)
            json_object_set(node, words[i], value);
    }
    if (read_only)
        json_object_set_new(node, "read-only", json_boolean(is_on(read_only)));
    if (json_is_object(cache))
        json_object_set_new(node, "cache", flags_of(cache));
    char *text = json_dumps(node, JSON_COMPACT);
    char *value = g_strdup(text);
    free(text);
    json_decref(node);
    return value;
}

char *cmdline_disk_null_argument(const struct cmdline_disk *disk, uint64_t len)
{
    if (disk->tree)
        return cmdline_disk_null_node(disk->tree, len);
    g_autoptr(GPtrArray) keys = cmdline_keys_parse(disk->rest, NULL);
    for (guint i = keys->len; i-- > 0;) {
        const struct cmdline_key *key = g_ptr_array_index(keys, i);
        if (!is_of_the_device(key->key))
            g_ptr_array_remove_index(keys, i);
    }
    g_autofree char *rest = cmdline_keys_format(keys);
    return g_strdup_printf("driver=null-co,size=%" G_GUINT64_FORMAT ",read-zeroes=on%s%s", len,
                           rest[0] ? "," : "", rest);
}
