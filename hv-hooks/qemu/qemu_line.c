/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QEMU's command lines as line.h wants them. cmdline/ reads and writes them and is pure; what the program
 * itself has to be asked for is in qemu_version.h.
 */
#include "hv-hooks/qemu/qemu_line.h"

#include <gio/gio.h>
#include <string.h>

#include "hv-hooks/line_ops.h"
#include "hv-hooks/qemu/cmdline/cmdline.h"
#include "hv-hooks/qemu/cmdline/run_events.h"
#include "hv-hooks/qemu/qemu_process.h"
#include "hv-hooks/qemu/qemu_version.h"

static void describe_taps(struct line *line, const GPtrArray *taps)
{
    for (guint i = 0; i < taps->len; i++) {
        const struct cmdline_tap *each = g_ptr_array_index(taps, i);
        struct line_tap *tap = g_new0(struct line_tap, 1);
        tap->id = g_strdup(each->id);
        tap->ifname = g_strdup(each->ifname);
        tap->bridge = g_strdup(each->bridge);
        tap->scripted = each->scripted;
        g_ptr_array_add(line->taps, tap);
    }
}

static void describe_disks(struct line *line, const GPtrArray *disks)
{
    for (guint i = 0; i < disks->len; i++) {
        const struct cmdline_disk *each = g_ptr_array_index(disks, i);
        struct line_disk *disk = g_new0(struct line_disk, 1);
        disk->id = g_strdup(each->id);
        disk->path = g_strdup(each->path);
        disk->format = g_strdup(each->format);
        disk->probed = each->probed;
        g_ptr_array_add(line->disks, disk);
    }
}

static void add_all(GPtrArray *to, const GPtrArray *from)
{
    for (guint i = 0; i < from->len; i++)
        g_ptr_array_add(to, g_strdup(g_ptr_array_index(from, i)));
}

static bool parse(struct line *line, const char *const *argv, GError **error)
{
    struct cmdline *own = cmdline_parse(argv, error);
    if (!own)
        return false;
    line->own = own;
    line->ram_bytes = own->ram_bytes;
    line->accel = g_strdup(own->accel);
    line->runs = g_strdup(own->runs);
    line->accel_otherwise = own->accel_or_tcg ? "tcg" : NULL;
    line->without_kvm = "-accel tcg";
    line->cpu_of_host = own->cpu_host ? "-cpu host" : NULL;
    add_all(line->nics, own->nics);
    add_all(line->files, own->files);
    describe_taps(line, own->taps);
    describe_disks(line, own->disks);
    return true;
}

static void free_own(void *own)
{
    cmdline_free(own);
}

static void set_format(struct line *line, guint disk, const char *format)
{
    cmdline_set_format(line->own, disk, format);
}

static void enforce_cpu(struct line *line)
{
    cmdline_enforce_cpu(line->own);
}

static char **build(const struct line *line, const char *vm_dir, bool standby)
{
    return cmdline_build(line->own, QEMU_FD_RAM, vm_dir, standby);
}

static char **build_trial(const struct line *line, const char *vm_dir, const uint64_t *disk_len,
                          GError **error)
{
    return cmdline_build_trial(line->own, QEMU_FD_RAM, vm_dir, disk_len, error);
}

static bool was_built(const char *bytes, size_t len)
{
    return g_strstr_len(bytes, (gssize)len, "qemu") &&
           memmem(bytes, len, "understudy-ram", strlen("understudy-ram"));
}

static void run_actions(const char *const *argv, struct run_actions *actions)
{
    run_actions_read(actions, argv);
}

/*
 * The line with the machine type's version: "pc" is another machine in each QEMU, and the standby's may be a
 * later one. A second -machine is merged with the first.
 */
static char **pin(const struct line *line, const char *const *argv, GError **error)
{
    const struct cmdline *own = line->own;
    g_autofree char *type = qemu_machine_ask(own->binary, own->machine, error);
    if (!type)
        return NULL;
    if (strcmp(type, own->machine) == 0)
        return g_strdupv((char **)argv);
    GPtrArray *pinned = g_ptr_array_new();
    for (const char *const *word = argv; *word; word++)
        g_ptr_array_add(pinned, g_strdup(*word));
    g_ptr_array_add(pinned, g_strdup("-machine"));
    g_ptr_array_add(pinned, g_steal_pointer(&type));
    g_ptr_array_add(pinned, NULL);
    return (char **)g_ptr_array_free(pinned, FALSE);
}

static bool can_move(const struct line *line, const char *theirs, const char *ours, GError **error)
{
    const struct cmdline *own = line->own;
    enum qemu_relation relation = qemu_version_relate(theirs, ours);
    if (relation == QEMU_SAME)
        return true;
    if (relation == QEMU_EARLIER || relation == QEMU_UNKNOWN) {
        g_set_error(
            error, G_IO_ERROR, G_IO_ERROR_NOT_SUPPORTED,
            "this host has QEMU %s, the guest runs in %s on the other one, and a guest cannot go to an "
            "earlier QEMU: install that one or a later one here",
            ours, theirs);
        return false;
    }
    g_autofree char *type = qemu_machine_ask(own->binary, own->machine, error);
    if (!type)
        return false;
    if (strcmp(type, own->machine) != 0 || !qemu_machine_has_version(type) || own->cpu_max) {
        g_set_error(
            error, G_IO_ERROR, G_IO_ERROR_NOT_SUPPORTED,
            "this host has QEMU %s, the other one %s, and %s is not the same in both: install the same "
            "version on both",
            ours, theirs, own->cpu_max ? "-cpu max" : "the guest's machine type");
        return false;
    }
    return true;
}

const char *const qemu_programs[] = {"qemu-system-*", "qemu-kvm", "kvm", "qemu", NULL};
static const char *const peer_programs[] = {"/usr/bin/qemu-system-*", NULL};

const struct line_ops line_ops_qemu = {
    .programs = qemu_programs,
    .peer_programs = peer_programs,
    .usual = {.name = "qemu-system-x86_64", .install = "apt-get install qemu-system-x86"},
    .parse = parse,
    .free_own = free_own,
    .absolute = cmdline_absolute,
    .set_format = set_format,
    .enforce_cpu = enforce_cpu,
    .build = build,
    .build_trial = build_trial,
    .was_built = was_built,
    .run_actions = run_actions,
    .version = qemu_version_ask,
    .pin = pin,
    .can_move = can_move,
    .version_warning = qemu_version_warning,
};
