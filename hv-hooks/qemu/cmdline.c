/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * See cmdline.h. A table says which of QEMU's options take an argument as far as it matters here, and which
 * function looks at it; everything else passes untouched. Options may have one or two dashes, as QEMU itself
 * takes them.
 */
#include "hv-hooks/qemu/cmdline.h"

#include <string.h>

G_DEFINE_QUARK(understudy - cmdline - error - quark, cmdline_error)

#define UNSUPPORTED(...) (g_set_error(error, CMDLINE_ERROR, CMDLINE_ERROR_UNSUPPORTED, __VA_ARGS__), false)

struct parse {
    struct cmdline *line;
    const char *option; /* the name of the one that is looked at; NULL: an image without one */
    bool may_be_value;  /* what comes next may belong to an option that is not looked at */
    bool has_net, no_defaults, has_display, has_memory;
};

/* The value of key in a "a,b=c,d" list; the first element counts as key `implied`. GLib string or NULL. */
static char *get_key(const char *list, const char *key, const char *implied)
{
    g_auto(GStrv) parts = g_strsplit(list, ",", -1);
    for (int i = 0; parts[i]; i++) {
        char *equals = strchr(parts[i], '=');
        if (!equals && i == 0 && implied && strcmp(key, implied) == 0)
            return g_strdup(parts[i]);
        if (!equals && strcmp(parts[i], key) == 0)
            return g_strdup("on");
        if (equals && strlen(key) == (size_t)(equals - parts[i]) && strncmp(parts[i], key, strlen(key)) == 0)
            return g_strdup(equals + 1);
    }
    return NULL;
}

static bool is_on(const char *value)
{
    return value && (strcmp(value, "on") == 0 || strcmp(value, "yes") == 0 || strcmp(value, "true") == 0 ||
                     strcmp(value, "y") == 0);
}

/* QEMU's sizes: a number with b, k, M, G, T; bare numbers are MiB here. False if it is not one. */
static bool parse_size(const char *text, uint64_t *bytes)
{
    char *end = NULL;
    double value = g_ascii_strtod(text, &end);
    uint64_t unit = 1ull << 20;
    if (end == text || value <= 0 || value > 1e15)
        return false;
    switch (g_ascii_toupper(*end)) {
    case 0:
        break;
    case 'B':
        unit = 1;
        break;
    case 'K':
        unit = 1ull << 10;
        break;
    case 'M':
        break;
    case 'G':
        unit = 1ull << 30;
        break;
    case 'T':
        unit = 1ull << 40;
        break;
    default:
        return false;
    }
    if (*end && end[1])
        return false;
    *bytes = (uint64_t)(value * (double)unit);
    return true;
}

static bool on_memory(struct parse *parse, const char *value, GError **error)
{
    g_autofree char *size = get_key(value, "size", "size");
    if (!size)
        return true; /* -m slots=...: the size comes in another -m */
    if (!parse_size(size, &parse->line->ram_bytes) || parse->line->ram_bytes % (2u << 20))
        return UNSUPPORTED("-m %s: give the guest's memory as a multiple of 2 MiB, for example -m 1G", value);
    parse->has_memory = true;
    return true;
}

/* QEMU takes the first that works. */
static void add_accel(struct cmdline *line, const char *name)
{
    if (!line->accel)
        line->accel = g_strdup(name);
    else if (strcmp(name, "tcg") == 0)
        line->accel_or_tcg = true;
}

static bool on_machine(struct parse *parse, const char *value, GError **error)
{
    g_autofree char *type = get_key(value, "type", "type");
    g_autofree char *accel = get_key(value, "accel", NULL);
    g_autofree char *backend = get_key(value, "memory-backend", NULL);
    if (backend)
        return UNSUPPORTED(
            "-machine memory-backend=%s: understudy provides the guest's memory; give its size with -m only",
            backend);
    if (type && !strchr(type, '=')) {
        g_free(parse->line->machine);
        parse->line->machine = g_steal_pointer(&type);
    }
    g_auto(GStrv) names = accel ? g_strsplit(accel, ":", -1) : NULL;
    for (char **name = names; name && *name; name++)
        add_accel(parse->line, *name);
    return true;
}

static bool on_accel(struct parse *parse, const char *value, GError **error)
{
    g_autofree char *name = get_key(value, "accel", "accel");
    (void)error;
    if (name)
        add_accel(parse->line, name);
    return true;
}

static bool on_cpu(struct parse *parse, const char *value, GError **error)
{
    (void)error;
    parse->line->cpu_host = strcmp(value, "host") == 0 || g_str_has_prefix(value, "host,");
    return true;
}

static bool check_vhost(const char *option, const char *value, GError **error)
{
    g_autofree char *vhost = get_key(value, "vhost", NULL);
    g_autofree char *vhostfd = get_key(value, "vhostfd", NULL);
    g_autofree char *vhostforce = get_key(value, "vhostforce", NULL);
    if (is_on(vhost) || vhostfd || is_on(vhostforce))
        return UNSUPPORTED(
            "-%s %s: vhost moves packets outside QEMU, where they cannot be held back; use vhost=off", option,
            value);
    if (g_str_has_prefix(value, "vhost-user") || g_str_has_prefix(value, "vhost-vdpa"))
        return UNSUPPORTED("-%s %s: vhost back ends cannot be protected; use a tap or user netdev", option,
                           value);
    return true;
}

static bool on_netdev(struct parse *parse, const char *value, GError **error)
{
    g_autofree char *id = get_key(value, "id", NULL);
    if (!check_vhost("netdev", value, error))
        return false;
    if (!id)
        return UNSUPPORTED("-netdev %s: the id is missing", value);
    if (g_str_has_prefix(value, "hubport"))
        return UNSUPPORTED("-netdev %s: hubs cannot be protected; connect the NIC to one netdev", value);
    parse->has_net = true;
    g_ptr_array_add(parse->line->nics, g_steal_pointer(&id));
    return true;
}

/* -nic makes a netdev and a NIC; its netdev has a name only if it is given one. */
static bool on_nic(struct parse *parse, const char *value, GError **error)
{
    parse->has_net = true;
    if (strcmp(value, "none") == 0)
        return true;
    g_autofree char *id = get_key(value, "id", NULL);
    if (!check_vhost("nic", value, error))
        return false;
    if (!id) {
        id = g_strdup_printf("us-net%u", parse->line->nics->len);
        g_ptr_array_remove_index(parse->line->args, parse->line->args->len - 1);
        g_ptr_array_add(parse->line->args, g_strdup_printf("%s,id=%s", value, id));
    }
    g_ptr_array_add(parse->line->nics, g_steal_pointer(&id));
    return true;
}

static bool on_net(struct parse *parse, const char *value, GError **error)
{
    if (strcmp(value, "none") == 0) {
        parse->has_net = true;
        return true;
    }
    return UNSUPPORTED("-net %s: this old form has no names to attach to; use -netdev with -device, or -nic",
                       value);
}

static bool on_device(struct parse *parse, const char *value, GError **error)
{
    static const char *const refused[][2] = {
        {"vfio",
         "a passed-through device keeps state that cannot be saved; use an emulated or virtio device"},
        {"vhost", "vhost devices write guest memory unseen; use the plain virtio device"},
        {"ivshmem", "memory shared with another program cannot be protected; leave the device out"},
        {"pc-dimm", "memory modules cannot be protected yet; give all memory with -m"},
        {"nvdimm", "memory modules cannot be protected yet; give all memory with -m"},
        {"virtio-mem", "memory devices cannot be protected yet; give all memory with -m"},
        {"virtio-pmem", "memory devices cannot be protected yet; give all memory with -m"},
        {"usb-host", "a passed-through device keeps state that cannot be saved; leave it out"},
    };
    (void)parse;
    for (size_t i = 0; i < G_N_ELEMENTS(refused); i++) {
        if (g_str_has_prefix(value, refused[i][0]))
            return UNSUPPORTED("-device %s: %s", value, refused[i][1]);
    }
    return true;
}

static bool on_object(struct parse *parse, const char *value, GError **error)
{
    (void)parse;
    if (g_str_has_prefix(value, "memory-backend"))
        return UNSUPPORTED("-object %s: understudy provides the guest's memory; give its size with -m only",
                           value);
    return true;
}

static bool on_drive(struct parse *parse, const char *value, GError **error)
{
    return cmdline_disks_drive(parse->line, value, error);
}

static bool on_blockdev(struct parse *parse, const char *value, GError **error)
{
    return cmdline_disks_blockdev(parse->line, value, error);
}

static bool on_hard_disk(struct parse *parse, const char *value, GError **error)
{
    return cmdline_disks_image(parse->line, parse->option, value, error);
}

static bool on_odd_disk(struct parse *parse, const char *value, GError **error)
{
    return cmdline_disks_refuse(parse->option, value, error);
}

static bool on_file(struct parse *parse, const char *value, GError **error)
{
    (void)error;
    g_ptr_array_add(parse->line->files, g_strdup(value));
    return true;
}

static bool on_display(struct parse *parse, const char *value, GError **error)
{
    (void)value;
    (void)error;
    parse->has_display = true;
    return true;
}

static bool on_nodefaults(struct parse *parse, const char *value, GError **error)
{
    (void)value;
    (void)error;
    parse->no_defaults = true;
    return true;
}

static bool on_enable_kvm(struct parse *parse, const char *value, GError **error)
{
    (void)value;
    (void)error;
    add_accel(parse->line, "kvm");
    return true;
}

static bool on_numa(struct parse *parse, const char *value, GError **error)
{
    (void)parse;
    if (strstr(value, "memdev=") || strstr(value, "mem="))
        return UNSUPPORTED("-numa %s: understudy provides the guest's memory; leave memory out of -numa",
                           value);
    return true;
}

struct option {
    const char *name;
    bool takes_value;
    bool (*look)(struct parse *parse, const char *value, GError **error);
    const char *refusal; /* instead of look: what to do about it */
};

/* Options without an argument that may stand here must be listed too: their successor is an option, not a
 * value. */
static const struct option options[] = {
    {"m", true, on_memory, NULL},
    {"machine", true, on_machine, NULL},
    {"M", true, on_machine, NULL},
    {"accel", true, on_accel, NULL},
    {"enable-kvm", false, on_enable_kvm, NULL},
    {"cpu", true, on_cpu, NULL},
    {"netdev", true, on_netdev, NULL},
    {"nic", true, on_nic, NULL},
    {"net", true, on_net, NULL},
    {"device", true, on_device, NULL},
    {"object", true, on_object, NULL},
    {"drive", true, on_drive, NULL},
    {"blockdev", true, on_blockdev, NULL},
    {"hda", true, on_hard_disk, NULL},
    {"hdb", true, on_hard_disk, NULL},
    {"hdc", true, on_hard_disk, NULL},
    {"hdd", true, on_hard_disk, NULL},
    {"fda", true, on_odd_disk, NULL},
    {"fdb", true, on_odd_disk, NULL},
    {"sd", true, on_odd_disk, NULL},
    {"pflash", true, on_odd_disk, NULL},
    {"mtdblock", true, on_odd_disk, NULL},
    {"cdrom", true, on_file, NULL},
    {"kernel", true, on_file, NULL},
    {"initrd", true, on_file, NULL},
    {"bios", true, on_file, NULL},
    {"dtb", true, on_file, NULL},
    {"nographic", false, on_display, NULL},
    {"display", true, on_display, NULL},
    {"vnc", true, on_display, NULL},
    {"spice", true, on_display, NULL},
    {"curses", false, on_display, NULL},
    {"nodefaults", false, on_nodefaults, NULL},
    {"numa", true, on_numa, NULL},
    {"daemonize", false, NULL, "leave -daemonize out: understudy runs QEMU in the background by itself"},
    {"incoming", true, NULL, "leave -incoming out: understudy prepares the standby by itself"},
    {"loadvm", true, NULL, "leave -loadvm out: a protected VM starts from power-on"},
    {"snapshot", false, NULL,
     "leave -snapshot out: what the guest writes would not follow it to the other host"},
    {"mem-path", true, NULL, "leave -mem-path out: understudy provides the guest's memory"},
    {"mem-prealloc", false, NULL, "leave -mem-prealloc out: understudy provides the guest's memory"},
    {"preconfig", false, NULL, "leave -preconfig out: the machine must be complete when it starts"},
    {"readconfig", true, NULL,
     "put the options of the -readconfig file on the command line, where they can be checked"},
    {"S", false, NULL, "leave -S out: the guest must run to be protected"},
    {"icount", true, NULL, "leave -icount out: the guest's clock could not be kept right"},
    {"no-shutdown", false, NULL, "leave -no-shutdown out: understudy decides when QEMU ends"},
    {"runas", true, NULL, "leave -runas out: QEMU must run as the user of understudyd"},
    {"chroot", true, NULL, "leave -chroot out: QEMU could not reach understudy's sockets"},
    {"sandbox", true, NULL, "leave -sandbox out: it blocks calls that checkpoints need"},
    {"help", false, NULL, "run QEMU itself for its help"},
    {"h", false, NULL, "run QEMU itself for its help"},
    {"version", false, NULL, "run QEMU itself for its version"},
};

/* What else of QEMU 7.2 to 10.0 stands without an argument: a word behind it is a disk image. */
static const char *const flags[] = {
    "full-screen",
    "ctrl-grab",
    "alt-grab",
    "no-quit",
    "sdl",
    "usb",
    "win2k-hack",
    "no-fd-bootchk",
    "no-acpi",
    "no-hpet",
    "no-user-config",
    "s",
    "singlestep",
    "one-insn-per-tb",
    "no-reboot",
    "only-migratable",
    "old-param",
    "semihosting",
    "enable-sync-profile",
    "portrait",
    "xen-attach",
    "xen-domid-restrict",
};

static bool is_flag(const char *name)
{
    for (size_t i = 0; i < G_N_ELEMENTS(flags); i++) {
        if (strcmp(flags[i], name) == 0)
            return true;
    }
    return false;
}

/* Without its dash or two. */
static const char *option_name(const char *arg)
{
    return arg + (g_str_has_prefix(arg, "--") ? 2 : 1);
}

static const struct option *find_option(const char *name)
{
    for (size_t i = 0; i < G_N_ELEMENTS(options); i++) {
        if (strcmp(options[i].name, name) == 0)
            return &options[i];
    }
    return NULL;
}

static bool look_at(struct parse *parse, const char *const *argv, int *i, GError **error)
{
    const char *name = option_name(argv[*i]);
    const struct option *option = find_option(name);
    parse->may_be_value = !option && !is_flag(name);
    if (!option)
        return true;
    if (option->refusal)
        return UNSUPPORTED("%s", option->refusal);
    const char *value = "";
    if (option->takes_value) {
        value = argv[*i + 1];
        if (!value) {
            g_set_error(error, CMDLINE_ERROR, CMDLINE_ERROR_SYNTAX, "%s needs an argument", argv[*i]);
            return false;
        }
        (*i)++;
        g_ptr_array_add(parse->line->args, g_strdup(value));
    }
    parse->option = option->name;
    return option->look(parse, value, error);
}

static bool look_at_all(struct parse *parse, const char *const *argv, GError **error)
{
    struct cmdline *line = parse->line;
    for (int i = 1; argv[i]; i++) {
        g_ptr_array_add(line->args, g_strdup(argv[i]));
        if (argv[i][0] == '-' && argv[i][1]) {
            if (!look_at(parse, argv, &i, error))
                return false;
        } else if (parse->may_be_value) {
            parse->may_be_value = false;
        } else {
            /* A bare word is a disk image to QEMU. */
            parse->option = NULL;
            if (!on_hard_disk(parse, argv[i], error))
                return false;
        }
    }
    if (!cmdline_disks_finish(line, error))
        return false;
    if (!parse->has_memory)
        return UNSUPPORTED("-m is missing: say how much memory the guest has, for example -m 1G");
    if (!parse->has_net && !parse->no_defaults) {
        /* QEMU's own default NIC, with a name. */
        g_ptr_array_add(line->args, g_strdup("-nic"));
        g_ptr_array_add(line->args, g_strdup("user,id=us-net0"));
        g_ptr_array_add(line->nics, g_strdup("us-net0"));
    }
    if (!parse->has_display) {
        g_ptr_array_add(line->args, g_strdup("-display"));
        g_ptr_array_add(line->args, g_strdup("none"));
    }
    return true;
}

struct cmdline *cmdline_parse(const char *const *argv, GError **error)
{
    struct parse parse = {.line = g_new0(struct cmdline, 1)};
    parse.line->nics = g_ptr_array_new_with_free_func(g_free);
    parse.line->files = g_ptr_array_new_with_free_func(g_free);
    parse.line->args = g_ptr_array_new_with_free_func(g_free);
    parse.line->disks = g_ptr_array_new_with_free_func((GDestroyNotify)cmdline_disk_free);
    parse.line->block_nodes = g_ptr_array_new_with_free_func((GDestroyNotify)json_decref);
    bool ok = argv[0] && argv[0][0] != '-';
    if (!ok)
        g_set_error(error, CMDLINE_ERROR, CMDLINE_ERROR_SYNTAX,
                    "the QEMU command line must begin with the program, for example qemu-system-x86_64");
    else
        ok = look_at_all(&parse, argv, error);
    if (!ok) {
        cmdline_free(parse.line);
        return NULL;
    }
    parse.line->binary = g_strdup(argv[0]);
    if (!parse.line->accel)
        parse.line->accel = g_strdup("tcg");
    if (!parse.line->machine)
        parse.line->machine = g_strdup("");
    return parse.line;
}

void cmdline_free(struct cmdline *cmdline)
{
    if (!cmdline)
        return;
    g_free(cmdline->binary);
    g_free(cmdline->accel);
    g_free(cmdline->machine);
    g_ptr_array_unref(cmdline->nics);
    g_ptr_array_unref(cmdline->files);
    g_ptr_array_unref(cmdline->args);
    g_ptr_array_unref(cmdline->disks);
    g_ptr_array_unref(cmdline->block_nodes);
    g_free(cmdline);
}

void cmdline_set_format(struct cmdline *cmdline, guint disk, const char *format)
{
    struct cmdline_disk *each = g_ptr_array_index(cmdline->disks, disk);
    g_free(each->format);
    each->format = g_strdup(format);
}

char **cmdline_absolute(const char *const *argv, const char *cwd)
{
    static const char *const with_file[] = {"kernel",   "initrd", "bios", "cdrom", "dtb", "drive",
                                            "blockdev", "hda",    "hdb",  "hdc",   "hdd", NULL};
    GPtrArray *out = g_ptr_array_new();
    bool may_be_value = true;
    for (int i = 0; argv[i]; i++) {
        bool is_option = i > 0 && argv[i][0] == '-' && argv[i][1];
        const char *name = is_option ? option_name(argv[i]) : "";
        const struct option *option = is_option ? find_option(name) : NULL;
        if (option && option->takes_value && argv[i + 1]) {
            g_ptr_array_add(out, g_strdup(argv[i++]));
            g_ptr_array_add(out, g_strv_contains(with_file, name) ? cmdline_disks_absolute(name, argv[i], cwd)
                                                                  : g_strdup(argv[i]));
        } else {
            bool is_image = !is_option && !may_be_value;
            g_ptr_array_add(out, is_image ? cmdline_disks_absolute("hda", argv[i], cwd) : g_strdup(argv[i]));
        }
        may_be_value = is_option && !option && !is_flag(name);
    }
    g_ptr_array_add(out, NULL);
    return (char **)g_ptr_array_free(out, FALSE);
}
