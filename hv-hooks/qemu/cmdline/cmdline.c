/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Walks the user's command line. cmdline_look.c knows which of QEMU's options matter here, and checks them;
 * all others pass untouched. Options may have one or two dashes, as in QEMU itself.
 */
#include "hv-hooks/qemu/cmdline/cmdline.h"

#include <string.h>

#include "hv-hooks/qemu/cmdline/cmdline_look.h"
#include "hv-hooks/qemu/cmdline/cmdline_paths.h"
#include "hv-hooks/qemu/cmdline/cmdline_refusal.h"

/* Without its dash or two. */
static const char *option_name(const char *arg)
{
    return arg + (g_str_has_prefix(arg, "--") ? 2 : 1);
}

static bool look_at(struct parse *parse, const char *const *argv, int *i, GError **error)
{
    const char *name = option_name(argv[*i]);
    const struct cmdline_option *option = cmdline_look_find(name);
    parse->may_be_value = !option && !cmdline_look_is_flag(name);
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
            if (!cmdline_disks_image(line, NULL, argv[i], error))
                return false;
        }
    }
    if (!cmdline_disks_finish(line, error))
        return false;
    if (!parse->has_memory)
        return UNSUPPORTED("-m is missing: say how much memory the guest has, for example -m 1G");
    if (!line->accel && parse->unknown_accel)
        return UNSUPPORTED("the accelerator is neither kvm nor tcg: use -accel kvm or -accel tcg");
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

static void free_tap(gpointer opaque)
{
    struct cmdline_tap *tap = opaque;
    g_free(tap->id);
    g_free(tap->ifname);
    g_free(tap->bridge);
    g_free(tap);
}

/* Programs that start another program. */
static const char *const wrappers[] = {
    "taskset", "nice",   "ionice",  "chrt", "numactl", "env",  "sudo",    "doas",        "setsid", "nohup",
    "stdbuf",  "cgexec", "prlimit", "time", "timeout", "exec", "unshare", "systemd-run", "strace",
};

/* Checks that argv begins with the program itself. */
static bool check_program(const char *program, GError **error)
{
    g_autofree char *base = program ? g_path_get_basename(program) : NULL;
    if (!base || program[0] == '-' || !program[0]) {
        g_set_error(error, CMDLINE_ERROR, CMDLINE_ERROR_SYNTAX,
                    "the QEMU command line must begin with the program, for example qemu-system-x86_64");
        return false;
    }
    for (size_t i = 0; i < G_N_ELEMENTS(wrappers); i++) {
        if (strcmp(base, wrappers[i]) == 0)
            return UNSUPPORTED(
                "%s cannot stand before QEMU, which understudyd starts by itself: begin with "
                "qemu-system-x86_64, and use 'understudyd --nice', or taskset and renice with the "
                "qemu_pid of 'understudy status NAME --json'",
                base);
    }
    return true;
}

struct cmdline *cmdline_parse(const char *const *argv, GError **error)
{
    struct parse parse = {.line = g_new0(struct cmdline, 1)};
    parse.line->cpu_arg = -1;
    parse.line->nics = g_ptr_array_new_with_free_func(g_free);
    parse.line->taps = g_ptr_array_new_with_free_func(free_tap);
    parse.line->files = g_ptr_array_new_with_free_func(g_free);
    parse.line->args = g_ptr_array_new_with_free_func(g_free);
    parse.line->disks = g_ptr_array_new_with_free_func((GDestroyNotify)cmdline_disk_free);
    parse.line->block_nodes = g_ptr_array_new_with_free_func((GDestroyNotify)json_decref);
    if (!check_program(argv[0], error) || !look_at_all(&parse, argv, error)) {
        cmdline_free(parse.line);
        return NULL;
    }
    parse.line->binary = g_strdup(argv[0]);
    /* QEMU itself prefers KVM where its name ends in kvm, if it has it. */
    if (!parse.line->accel) {
        bool prefers_kvm = g_str_has_suffix(argv[0], "kvm");
        parse.line->accel = g_strdup(prefers_kvm ? "kvm" : "tcg");
        parse.line->accel_or_tcg = prefers_kvm;
    }
    /* Under KVM max is what the host has. */
    parse.line->cpu_host = parse.cpu_is_host || (parse.cpu_is_max && strcmp(parse.line->accel, "kvm") == 0);
    parse.line->cpu_max = parse.cpu_is_max;
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
    g_free(cmdline->runs);
    g_ptr_array_unref(cmdline->nics);
    g_ptr_array_unref(cmdline->taps);
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

void cmdline_enforce_cpu(struct cmdline *cmdline)
{
    if (cmdline->cpu_arg < 0)
        return;
    gpointer *value = &g_ptr_array_index(cmdline->args, cmdline->cpu_arg);
    if (strstr(*value, ",enforce"))
        return; /* the user has spoken */
    char *enforced = g_strconcat(*value, ",enforce", NULL);
    g_free(*value);
    *value = enforced;
}

char **cmdline_absolute(const char *const *argv, const char *cwd)
{
    GPtrArray *out = g_ptr_array_new();
    bool may_be_value = true;
    for (int i = 0; argv[i]; i++) {
        bool is_option = i > 0 && argv[i][0] == '-' && argv[i][1];
        const char *name = is_option ? option_name(argv[i]) : "";
        const struct cmdline_option *option = is_option ? cmdline_look_find(name) : NULL;
        bool has_files = is_option && cmdline_paths_has_files(name);
        if ((has_files || (option && option->takes_value)) && argv[i + 1]) {
            g_ptr_array_add(out, g_strdup(argv[i++]));
            g_ptr_array_add(out, has_files ? cmdline_paths_absolute(name, argv[i], cwd) : g_strdup(argv[i]));
            may_be_value = false;
        } else {
            bool is_image = !is_option && !may_be_value;
            g_ptr_array_add(out, is_image ? cmdline_paths_absolute("hda", argv[i], cwd) : g_strdup(argv[i]));
            may_be_value = is_option && !option && !cmdline_look_is_flag(name);
        }
    }
    g_ptr_array_add(out, NULL);
    return (char **)g_ptr_array_free(out, FALSE);
}
