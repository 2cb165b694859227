/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The table of QEMU's options, by which cmdline.c reads a command line. Pure. */
#ifndef UNDERSTUDY_HV_HOOKS_QEMU_CMDLINE_LOOK_H
#define UNDERSTUDY_HV_HOOKS_QEMU_CMDLINE_LOOK_H

#include "hv-hooks/qemu/cmdline/cmdline.h"

/* What cmdline.c has found so far in the line that it reads. */
struct parse {
    struct cmdline *line;
    const char *option; /* name of the present option; NULL: an image without an option */
    bool may_be_value;  /* the next word may be the value of an option that is not in the table */
    bool has_net, no_defaults, has_display, has_memory;
    bool unknown_accel;           /* the line names an accelerator that is neither KVM nor TCG */
    bool cpu_is_host, cpu_is_max; /* the last -cpu */
};

struct cmdline_option {
    const char *name; /* without its dash or two */
    bool takes_value;
    /* Notes what the option means, or returns false with a sentence that says what to change. The option's
     * value is the last of parse->line->args. */
    bool (*look)(struct parse *parse, const char *value, GError **error);
    const char *refusal; /* if look is NULL: why the option is refused, and what to do */
};

/* Finds an option by its name without dashes. NULL: the option does not matter here. */
const struct cmdline_option *cmdline_look_find(const char *name);
/* Returns whether an option that cmdline_look_find does not know takes no argument. */
bool cmdline_look_is_flag(const char *name);

#endif
