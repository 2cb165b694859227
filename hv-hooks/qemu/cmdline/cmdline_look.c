/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What each of QEMU's options means here (cmdline_look.h): a table of names, each with the function that
 * looks at its argument, or with the reason why it is refused. Arguments are read as QEMU reads them
 * (cmdline_keys.h), so what counts here is what counts there.
 */
#include "hv-hooks/qemu/cmdline/cmdline_look.h"

#include <string.h>

#include "hv-hooks/qemu/cmdline/cmdline_keys.h"
#include "hv-hooks/qemu/cmdline/cmdline_refusal.h"
#include "hv-hooks/qemu/cmdline/cmdline_throttle.h"

static bool is_on(const char *value)
{
    return value && (strcmp(value, "on") == 0 || strcmp(value, "yes") == 0 || strcmp(value, "true") == 0 ||
                     strcmp(value, "y") == 0);
}

/* Parses the argument of an option that may also be JSON. NULL and error. */
static GPtrArray *read_keys(const struct parse *parse, const char *value, const char *implied, GError **error)
{
    GPtrArray *keys = cmdline_keys_read(value, implied);
    if (!keys)
        g_set_error(
            error, CMDLINE_ERROR, CMDLINE_ERROR_SYNTAX,
            "-%s %s: this is not JSON: names and words stand in double quotes, each name once; or a name "
            "is longer than %u bytes",
            parse->option, value, CMDLINE_KEY_MAX);
    return keys;
}

/* Parses a size as QEMU does: a number with b, k, M, G or T; a number alone is in MiB. False: it is not a
 * size. */
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
    g_autoptr(GPtrArray) keys = cmdline_keys_parse(value, "size");
    const char *size = cmdline_keys_get(keys, "size");
    if (!size)
        return true; /* -m slots=...: the size comes in another -m */
    if (!parse_size(size, &parse->line->ram_bytes) || parse->line->ram_bytes % (2u << 20))
        return UNSUPPORTED("-m %s: give the guest's memory as a multiple of 2 MiB, for example -m 1G", value);
    parse->has_memory = true;
    return true;
}

/* Notes an accelerator. QEMU uses the first one that works; those of other systems never do. */
static void add_accel(struct parse *parse, const char *name)
{
    bool known = strcmp(name, "kvm") == 0 || strcmp(name, "tcg") == 0;
    if (!known)
        parse->unknown_accel = true;
    else if (!parse->line->accel)
        parse->line->accel = g_strdup(name);
    else if (strcmp(name, "tcg") == 0)
        parse->line->accel_or_tcg = true;
}

static void add_file(struct parse *parse, const char *path)
{
    /* QEMU looks up any other name in its own folders, whose content comes with its package. */
    if (path && g_path_is_absolute(path))
        g_ptr_array_add(parse->line->files, g_strdup(path));
}

static bool on_machine(struct parse *parse, const char *value, GError **error)
{
    g_autoptr(GPtrArray) keys = cmdline_keys_parse(value, "type");
    const char *type = cmdline_keys_get(keys, "type"), *accel = cmdline_keys_get(keys, "accel");
    const char *backend = cmdline_keys_get(keys, "memory-backend");
    if (backend)
        return UNSUPPORTED(
            "-machine memory-backend=%s: understudy provides the guest's memory; give its size with -m only",
            backend);
    if (cmdline_keys_get(keys, "confidential-guest-support") || cmdline_keys_get(keys, "memory-encryption"))
        return UNSUPPORTED(
            "-machine %s: encrypted memory cannot be copied to another host; leave the encryption out",
            value);
    if (type) {
        g_free(parse->line->machine);
        parse->line->machine = g_strdup(type);
    }
    static const char *const files[] = {"kernel", "initrd", "dtb", "firmware"};
    for (size_t i = 0; i < G_N_ELEMENTS(files); i++)
        add_file(parse, cmdline_keys_get(keys, files[i]));
    g_auto(GStrv) names = accel ? g_strsplit(accel, ":", -1) : NULL;
    for (char **name = names; name && *name; name++)
        add_accel(parse, *name);
    return true;
}

static bool on_accel(struct parse *parse, const char *value, GError **error)
{
    g_autoptr(GPtrArray) keys = cmdline_keys_parse(value, "accel");
    const char *name = cmdline_keys_get(keys, "accel");
    (void)error;
    if (name)
        add_accel(parse, name);
    return true;
}

static bool on_cpu(struct parse *parse, const char *value, GError **error)
{
    g_autofree char *model = g_strndup(value, strcspn(value, ","));
    (void)error;
    parse->cpu_is_host = strcmp(model, "host") == 0;
    parse->cpu_is_max = strcmp(model, "max") == 0;
    parse->line->cpu_arg = (int)parse->line->args->len - 1;
    return true;
}

/* Refuses netdevs that cannot be protected, whichever option makes them. */
static bool check_netdev(const char *option, const char *value, const GPtrArray *keys, GError **error)
{
    static const char *const descriptors[] = {"fd", "fds", "vhostfd", "vhostfds"};
    const char *type = cmdline_keys_get(keys, "type"), *queues = cmdline_keys_get(keys, "queues");
    if (is_on(cmdline_keys_get(keys, "vhost")) || is_on(cmdline_keys_get(keys, "vhostforce")))
        return UNSUPPORTED(
            "-%s %s: vhost moves packets outside QEMU, where they cannot be held back; use vhost=off", option,
            value);
    if (type && g_str_has_prefix(type, "vhost"))
        return UNSUPPORTED("-%s %s: vhost back ends cannot be protected; use a tap or user netdev", option,
                           value);
    if (type && strcmp(type, "hubport") == 0)
        return UNSUPPORTED("-%s %s: hubs cannot be protected; connect the NIC to one netdev", option, value);
    if (queues && strcmp(queues, "1") != 0)
        return UNSUPPORTED(
            "-%s %s: only a NIC with one queue can have its packets held back; leave queues out, and mq=on",
            option, value);
    for (size_t i = 0; i < G_N_ELEMENTS(descriptors); i++) {
        if (cmdline_keys_get(keys, descriptors[i]))
            return UNSUPPORTED(
                "-%s %s: %s names an open file that QEMU, started by understudyd, does not have; "
                "for a tap device use ifname",
                option, value, descriptors[i]);
    }
    return true;
}

/* Notes a tap device, with QEMU's own defaults for what the line does not say. */
static void note_tap(struct parse *parse, const char *id, const GPtrArray *keys)
{
    const char *type = cmdline_keys_get(keys, "type"), *bridge = cmdline_keys_get(keys, "br");
    const char *ifname = cmdline_keys_get(keys, "ifname"), *script = cmdline_keys_get(keys, "script");
    bool helped = g_strcmp0(type, "bridge") == 0 || cmdline_keys_get(keys, "helper");
    if (g_strcmp0(type, "tap") != 0 && g_strcmp0(type, "bridge") != 0)
        return;
    struct cmdline_tap *tap = g_new0(struct cmdline_tap, 1);
    tap->id = g_strdup(id);
    tap->ifname = g_strdup(ifname && !helped ? ifname : "");
    tap->bridge = g_strdup(!helped ? "" : bridge ? bridge : "br0");
    tap->scripted = helped || !script || (script[0] && strcmp(script, "no") != 0);
    g_ptr_array_add(parse->line->taps, tap);
}

/* Notes the first option that makes QEMU run a program, or load code that is not the guest's. */
static void note_run(struct parse *parse, const char *value)
{
    if (!parse->line->runs)
        parse->line->runs = g_strdup_printf("-%s%s%s", parse->option, value[0] ? " " : "", value);
}

/* QEMU reads "noKEY" as KEY=off. */
static bool is_key(const struct cmdline_key *key, const char *name)
{
    return strcmp(key->key, name) == 0 ||
           (g_str_has_prefix(key->key, "no") && strcmp(key->key + strlen("no"), name) == 0);
}

/* Returns whether a netdev's key makes QEMU run a program that the line chooses or influences. */
static bool key_runs(const struct cmdline_key *key)
{
    static const char *const scripts[] = {"script", "downscript"};
    static const char *const programs[] = {
        "helper", /* of a bridge; with a space in it, a shell's words */
        "smb",    /* smbd, whose configuration it is written into as it is */
        "path",   /* of passt */
        "param",  /* passt's own options */
    };
    for (size_t i = 0; i < G_N_ELEMENTS(scripts); i++) {
        if (is_key(key, scripts[i]))
            return strcmp(key->key, scripts[i]) != 0 || (key->value[0] && strcmp(key->value, "no") != 0);
    }
    for (size_t i = 0; i < G_N_ELEMENTS(programs); i++) {
        /* A list's are "param.0.str" and so on. */
        size_t len = strlen(programs[i]);
        if (is_key(key, programs[i]) || (strncmp(key->key, programs[i], len) == 0 && key->key[len] == '.'))
            return true;
    }
    /* "tcp:10.0.2.100:7-cmd:PROGRAM"; libvdeplug takes "cmd://PROGRAM" for a switch. */
    return (g_str_has_prefix(key->key, "guestfwd") && strstr(key->value, "-cmd:")) ||
           (is_key(key, "sock") && strstr(key->value, "://"));
}

/* Notes a netdev that makes QEMU run a program. Checks all of several equal keys, not only the one that
 * counts. Without script=, QEMU runs the host's own /etc/qemu-ifup, which its administrator chose and not the
 * line. */
static void note_runs(struct parse *parse, const char *value, const GPtrArray *keys)
{
    bool runs = g_strcmp0(cmdline_keys_get(keys, "type"), "passt") == 0;
    for (guint i = 0; i < keys->len; i++)
        runs |= key_runs(g_ptr_array_index(keys, i));
    if (runs)
        note_run(parse, value);
}

/* A plugin is loaded into QEMU; semihosting lets the guest run the host's programs. */
static bool on_run(struct parse *parse, const char *value, GError **error)
{
    (void)error;
    note_run(parse, value);
    return true;
}

static bool on_netdev(struct parse *parse, const char *value, GError **error)
{
    g_autoptr(GPtrArray) keys = read_keys(parse, value, "type", error);
    if (!keys || !check_netdev("netdev", value, keys, error))
        return false;
    const char *id = cmdline_keys_get(keys, "id");
    if (!id)
        return UNSUPPORTED("-netdev %s: the id is missing", value);
    parse->has_net = true;
    note_runs(parse, value, keys);
    note_tap(parse, id, keys);
    g_ptr_array_add(parse->line->nics, g_strdup(id));
    return true;
}

/* -nic makes a netdev and a NIC. Its netdev gets an id here if the user gave none. */
static bool on_nic(struct parse *parse, const char *value, GError **error)
{
    g_autoptr(GPtrArray) keys = cmdline_keys_parse(value, "type");
    parse->has_net = true;
    if (g_strcmp0(cmdline_keys_get(keys, "type"), "none") == 0)
        return true;
    if (!check_netdev("nic", value, keys, error))
        return false;
    g_autofree char *id = g_strdup(cmdline_keys_get(keys, "id"));
    if (!id) {
        id = g_strdup_printf("us-net%u", parse->line->nics->len);
        g_ptr_array_remove_index(parse->line->args, parse->line->args->len - 1);
        g_ptr_array_add(parse->line->args, g_strdup_printf("%s,id=%s", value, id));
    }
    note_runs(parse, value, keys);
    note_tap(parse, id, keys);
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
        {"virtio-9p", "the files that a shared folder has open stay on this host; use a disk"},
    };
    g_autoptr(GPtrArray) keys = read_keys(parse, value, "driver", error);
    const char *driver = keys ? cmdline_keys_get(keys, "driver") : NULL;
    for (size_t i = 0; driver && i < G_N_ELEMENTS(refused); i++) {
        if (g_str_has_prefix(driver, refused[i][0]))
            return UNSUPPORTED("-device %s: %s", value, refused[i][1]);
    }
    if (keys)
        add_file(parse, cmdline_keys_get(keys, "romfile"));
    if (g_strcmp0(driver, "loader") == 0)
        add_file(parse, cmdline_keys_get(keys, "file"));
    return keys != NULL;
}

static bool on_object(struct parse *parse, const char *value, GError **error)
{
    g_autoptr(GPtrArray) keys = read_keys(parse, value, "qom-type", error);
    const char *type = keys ? cmdline_keys_get(keys, "qom-type") : NULL;
    if (type && g_str_has_prefix(type, "memory-backend"))
        return UNSUPPORTED("-object %s: understudy provides the guest's memory; give its size with -m only",
                           value);
    if (g_strcmp0(type, "throttle-group") == 0)
        return cmdline_throttle_check("object", value, keys, error);
    return keys != NULL;
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

/* Options with a file among their keys. */
static bool on_file_keys(struct parse *parse, const char *value, GError **error)
{
    bool is_rom = strcmp(parse->option, "option-rom") == 0;
    g_autoptr(GPtrArray) keys = cmdline_keys_parse(value, is_rom ? "romfile" : "name");
    (void)error;
    add_file(parse, cmdline_keys_get(keys, is_rom ? "romfile" : "file"));
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
    add_accel(parse, "kvm");
    return true;
}

/*
 * Refuses a socket that waits for its client. QEMU does not start until one connects, and on the standby's
 * host none would.
 */
static bool must_not_wait(const struct parse *parse, const GPtrArray *keys, const char *value, GError **error)
{
    const char *waits = cmdline_keys_get(keys, "wait");
    if (!is_on(cmdline_keys_get(keys, "server")) || (waits && !is_on(waits)) ||
        is_on(cmdline_keys_get(keys, "nowait")))
        return true;
    return UNSUPPORTED("-%s %s: QEMU would not start before a client has connected: add ,wait=off",
                       parse->option, value);
}

static bool on_chardev(struct parse *parse, const char *value, GError **error)
{
    g_autoptr(GPtrArray) keys = cmdline_keys_parse(value, "backend");
    const char *backend = cmdline_keys_get(keys, "backend");
    return !backend || strcmp(backend, "socket") != 0 || must_not_wait(parse, keys, value, error);
}

/* A character device in its short form. */
static bool on_characters(struct parse *parse, const char *value, GError **error)
{
    static const char *const sockets[] = {"unix:", "tcp:", "telnet:", "tn3270:", "websocket:"};
    const char *form = g_str_has_prefix(value, "mon:") ? value + strlen("mon:") : value;
    for (size_t i = 0; i < G_N_ELEMENTS(sockets); i++) {
        g_autoptr(GPtrArray) keys = cmdline_keys_parse(form, "address");
        if (g_str_has_prefix(form, sockets[i]) && !must_not_wait(parse, keys, value, error))
            return false;
    }
    return true;
}

static bool on_sandbox(struct parse *parse, const char *value, GError **error)
{
    g_autoptr(GPtrArray) keys = cmdline_keys_parse(value, "enable");
    const char *enable = cmdline_keys_get(keys, "enable");
    (void)parse;
    if (enable && !is_on(enable))
        return true;
    return UNSUPPORTED("-sandbox %s: use -sandbox off: it blocks calls that checkpoints need", value);
}

static bool on_run_with(struct parse *parse, const char *value, GError **error)
{
    g_autoptr(GPtrArray) keys = cmdline_keys_parse(value, NULL);
    (void)parse;
    if (cmdline_keys_get(keys, "chroot") || cmdline_keys_get(keys, "user"))
        return UNSUPPORTED(
            "-run-with %s: leave chroot and user out: QEMU could not reach what understudy gives it", value);
    return true;
}

/* The options that matter. Those without an argument must be listed too, so that the word after them is not
 * taken for their value. */
static const struct cmdline_option options[] = {
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
    {"shim", true, on_file, NULL},
    {"option-rom", true, on_file_keys, NULL},
    {"fw_cfg", true, on_file_keys, NULL},
    {"smbios", true, on_file_keys, NULL},
    {"acpitable", true, on_file_keys, NULL},
    {"nographic", false, on_display, NULL},
    {"display", true, on_display, NULL},
    {"vnc", true, on_display, NULL},
    {"spice", true, on_display, NULL},
    {"curses", false, on_display, NULL},
    {"nodefaults", false, on_nodefaults, NULL},
    {"chardev", true, on_chardev, NULL},
    {"serial", true, on_characters, NULL},
    {"parallel", true, on_characters, NULL},
    {"monitor", true, on_characters, NULL},
    {"qmp", true, on_characters, NULL},
    {"qmp-pretty", true, on_characters, NULL},
    {"debugcon", true, on_characters, NULL},
    {"plugin", true, on_run, NULL},
    {"semihosting", false, on_run, NULL},
    {"semihosting-config", true, on_run, NULL},
    {"numa", true, NULL,
     "leave -numa out: understudy gives the guest's memory in one piece, and QEMU makes no NUMA nodes of "
     "that"},
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
    {"runas", true, NULL, "leave -runas out: QEMU must run as the user of understudyd"},
    {"chroot", true, NULL, "leave -chroot out: QEMU could not reach understudy's sockets"},
    {"sandbox", true, on_sandbox, NULL},
    {"set", true, NULL, "put what -set changes into the option that it changes, where it can be checked"},
    {"add-fd", true, NULL,
     "leave -add-fd out: QEMU is started by understudyd, which does not have that open file"},
    {"virtfs", true, NULL,
     "leave -virtfs out: the files that a shared folder has open stay on this host; use a disk"},
    {"fsdev", true, NULL,
     "leave -fsdev out: the files that a shared folder has open stay on this host; use a disk"},
    {"run-with", true, on_run_with, NULL},
    {"help", false, NULL, "run QEMU itself for its help"},
    {"h", false, NULL, "run QEMU itself for its help"},
    {"version", false, NULL, "run QEMU itself for its version"},
};

/* All other options of QEMU 7.2 to 11.1 that take no argument: a word after them is a disk image. */
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
    "no-shutdown",
    "only-migratable",
    "old-param",
    "enable-sync-profile",
    "portrait",
    "xen-attach",
    "xen-domid-restrict",
    "perfmap",
    "jitdump",
};

bool cmdline_look_is_flag(const char *name)
{
    for (size_t i = 0; i < G_N_ELEMENTS(flags); i++) {
        if (strcmp(flags[i], name) == 0)
            return true;
    }
    return false;
}

const struct cmdline_option *cmdline_look_find(const char *name)
{
    for (size_t i = 0; i < G_N_ELEMENTS(options); i++) {
        if (strcmp(options[i].name, name) == 0)
            return &options[i];
    }
    return NULL;
}
