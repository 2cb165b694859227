/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QEMU's options, one by one: for cmdline.c, which walks the line. Pure. */
#ifndef UNDERSTUDY_HV_HOOKS_QEMU_CMDLINE_LOOK_H
#define UNDERSTUDY_HV_HOOKS_QEMU_CMDLINE_LOOK_H

#include "hv-hooks/qemu/cmdline/cmdline.h"

/* What a walk over the line has found out. */
struct parse {
    struct cmdline *line;
    const char *option; /* the name of the one that is looked at; NULL: an image without one */
    bool may_be_value;  /* what comes next may belong to an option that is not looked at */
    bool has_net, no_defaults, has_display, has_memory;
    bool unknown_accel;           /* one that is neither KVM nor TCG was asked for */
    bool cpu_is_host, cpu_is_max; /* the last -cpu */
};

struct cmdline_option {
    const char *name; /* without its dash or two */
    bool takes_value;
    /* Takes note, or says what to change. The argument is the last of parse->line->args. */
    bool (*look)(struct parse *parse, const char *value, GError **error);
    const char *refusal; /* instead of look: what to do about it */
};

/* NULL: nothing that matters here. */
const struct cmdline_option *cmdline_look_find(const char *name);
/* Whether this option, which cmdline_look_find does not know, stands without an argument. */
bool cmdline_look_is_flag(const char *name);

#endif
