/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See fake_line.h. Its programs are not run: fakevm is of version 1, fakevm2 of version 2. */
#include "tests/fakevm/fake_line.h"

#include <gio/gio.h>
#include <string.h>

struct own {
    GPtrArray *words; /* the user's without the program and the disks */
    bool enforces;
};

/* The value of a word with this key, or NULL. */
static const char *value_of(const char *word, const char *key)
{
    size_t len = strlen(key);
    return strncmp(word, key, len) == 0 && word[len] == ':' ? word + len + 1 : NULL;
}

static bool refuse(GError **error, const char *why, const char *what)
{
    g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT, "fakevm: %s: %s", what, why);
    return false;
}

static bool add_disk(struct line *line, const char *value, GError **error)
{
    g_auto(GStrv) parts = g_strsplit_set(value, "@%", 3);
    if (g_strv_length(parts) < 2)
        return refuse(error, "a disk has an id and a path", value);
    struct line_disk *disk = g_new0(struct line_disk, 1);
    disk->id = g_strdup(parts[0]);
    disk->path = g_strdup(parts[1]);
    disk->format = g_strdup(parts[2] ? parts[2] : "");
    disk->probed = !parts[2];
    g_ptr_array_add(line->disks, disk);
    return true;
}

static bool add_tap(struct line *line, const char *value, GError **error)
{
    g_auto(GStrv) parts = g_strsplit(value, "@", 2);
    if (g_strv_length(parts) < 2)
        return refuse(error, "a NIC has an id and a tap device", value);
    struct line_tap *tap = g_new0(struct line_tap, 1);
    tap->id = g_strdup(parts[0]);
    tap->ifname = g_strdup(parts[1]);
    tap->bridge = g_strdup("");
    g_ptr_array_add(line->taps, tap);
    g_ptr_array_add(line->nics, g_strdup(parts[0]));
    return true;
}

static bool add_firmware(struct line *line, const char *value, GError **error)
{
    if (!g_str_has_suffix(value, ".fw"))
        return refuse(error, "a firmware's name ends in .fw", value);
    g_ptr_array_add(line->files, g_strdup(value));
    return true;
}

static void set_speed(struct line *line, const char *value)
{
    bool any = strcmp(value, "any") == 0;
    g_free(line->accel);
    line->accel = g_strdup(any ? "kvm" : value);
    line->accel_otherwise = any ? "slow" : NULL;
}

static bool take_word(struct line *line, const char *word, GError **error)
{
    struct own *own = line->own;
    const char *value = value_of(word, "disk");
    if (value)
        return add_disk(line, value, error);
    g_ptr_array_add(own->words, g_strdup(word));
    if ((value = value_of(word, "memory")))
        line->ram_bytes = g_ascii_strtoull(value, NULL, 10) << 20;
    else if ((value = value_of(word, "tap")))
        return add_tap(line, value, error);
    else if ((value = value_of(word, "firmware")))
        return add_firmware(line, value, error);
    else if ((value = value_of(word, "speed")))
        set_speed(line, value);
    else if (strcmp(word, "processor:own") == 0)
        line->cpu_of_host = "processor:own";
    else if (!value_of(word, "end"))
        return refuse(error, "this means nothing", word);
    return true;
}

static bool parse(struct line *line, const char *const *argv, GError **error)
{
    struct own *own = g_new0(struct own, 1);
    own->words = g_ptr_array_new_with_free_func(g_free);
    line->own = own;
    line->accel = g_strdup("slow");
    line->without_kvm = "speed:slow";
    for (size_t i = 1; argv[i]; i++) {
        if (!take_word(line, argv[i], error))
            return false;
    }
    return line->ram_bytes != 0 || refuse(error, "this is missing", "memory");
}

static void free_own(void *opaque)
{
    struct own *own = opaque;
    g_ptr_array_unref(own->words);
    g_free(own);
}

static char **absolute(const char *const *argv, const char *cwd)
{
    char **out = g_strdupv((char **)argv);
    for (char **word = out; *word; word++) {
        const char *path = value_of(*word, "firmware");
        if (!path)
            continue;
        char *whole = g_canonicalize_filename(path, cwd);
        g_free(*word);
        *word = g_strconcat("firmware:", whole, NULL);
        g_free(whole);
    }
    return out;
}

/* line->disks says it when the line is built. */
static void set_format(struct line *line, guint disk, const char *format)
{
    (void)line, (void)disk, (void)format;
}

static void enforce_cpu(struct line *line)
{
    ((struct own *)line->own)->enforces = true;
}

static char **build(const struct line *line, const char *vm_dir, bool standby)
{
    const struct own *own = line->own;
    GPtrArray *out = g_ptr_array_new();
    g_ptr_array_add(out, g_strdup(line->program));
    for (guint i = 0; i < own->words->len; i++)
        g_ptr_array_add(out, g_strdup(g_ptr_array_index(own->words, i)));
    for (guint i = 0; i < line->disks->len; i++) {
        const struct line_disk *disk = g_ptr_array_index(line->disks, i);
        g_ptr_array_add(out, g_strdup_printf("disk:%s@%s/us-disk-%u%%%s", disk->id, vm_dir, i, disk->format));
    }
    g_ptr_array_add(out, g_strdup("memory-of:understudy"));
    if (own->enforces)
        g_ptr_array_add(out, g_strdup("processor:whole"));
    if (standby)
        g_ptr_array_add(out, g_strdup("wait:"));
    g_ptr_array_add(out, NULL);
    return (char **)g_ptr_array_free(out, FALSE);
}

/* A disk of so many bytes that hold nothing stands for each. */
static char **build_trial(const struct line *line, const char *vm_dir, const uint64_t *disk_len,
                          GError **error)
{
    const struct own *own = line->own;
    if (line->cpu_of_host) {
        refuse(error, "it cannot be there twice", line->cpu_of_host);
        return NULL;
    }
    GPtrArray *out = g_ptr_array_new();
    g_ptr_array_add(out, g_strdup(line->program));
    for (guint i = 0; i < own->words->len; i++)
        g_ptr_array_add(out, g_strdup(g_ptr_array_index(own->words, i)));
    for (guint i = 0; i < line->disks->len; i++)
        g_ptr_array_add(out, g_strdup_printf("disk:nothing@%" G_GUINT64_FORMAT, disk_len[i]));
    g_ptr_array_add(out, g_strdup_printf("monitor:%s/us-trial", vm_dir));
    g_ptr_array_add(out, NULL);
    return (char **)g_ptr_array_free(out, FALSE);
}

static bool was_built(const char *bytes, size_t len)
{
    static const char mark[] = "memory-of:understudy";
    return memmem(bytes, len, mark, sizeof mark) != NULL;
}

static void run_actions(const char *const *argv, struct run_actions *actions)
{
    *actions = (struct run_actions){0};
    for (size_t i = 1; argv[i]; i++)
        actions->shutdown_pauses |= strcmp(argv[i], "end:stand") == 0;
}

static char *version(const char *program, GError **error)
{
    (void)error;
    return g_strdup(g_str_has_suffix(program, "2") ? "2" : "1");
}

static char **pin(const struct line *line, const char *const *argv, GError **error)
{
    (void)line, (void)error;
    return g_strdupv((char **)argv);
}

static bool can_move(const struct line *line, const char *theirs, const char *ours, GError **error)
{
    (void)line;
    return strcmp(theirs, ours) == 0 || refuse(error, "only equal versions exchange guests", ours);
}

static char *version_warning(const char *primary, const char *standby)
{
    return strcmp(primary, standby) == 0 ? NULL : g_strdup_printf("fakevm %s and %s", primary, standby);
}

static const char *const programs[] = {"fakevm", "fakevm?", NULL};
static const char *const peer_programs[] = {"/opt/fakevm/bin/fakevm*", NULL};

const struct line_ops line_ops_fakevm = {
    .programs = programs,
    .peer_programs = peer_programs,
    .usual = {.name = "fakevm", .install = "dream it"},
    .parse = parse,
    .free_own = free_own,
    .absolute = absolute,
    .set_format = set_format,
    .enforce_cpu = enforce_cpu,
    .build = build,
    .build_trial = build_trial,
    .was_built = was_built,
    .run_actions = run_actions,
    .version = version,
    .pin = pin,
    .can_move = can_move,
    .version_warning = version_warning,
};
