/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Decides what a guest's shutdown, panic or watchdog means, from QEMU's event and the user's -action
 * options. The words are those of qapi/run-state.json, QEMU 7.2 to 10.0.
 */
#include "hv-hooks/qemu/cmdline/run_events.h"

#include <glib.h>
#include <string.h>

static void read_one(struct run_actions *actions, const char *key, const char *value)
{
    if (strcmp(key, "shutdown") == 0) {
        actions->shutdown_pauses = strcmp(value, "pause") == 0;
    } else if (strcmp(key, "panic") == 0) {
        actions->panic_pauses = strcmp(value, "pause") == 0;
        actions->panic_ignored = strcmp(value, "none") == 0;
    } else if (strcmp(key, "watchdog") == 0) {
        actions->watchdog_ends = strcmp(value, "poweroff") == 0;
    }
    /* reboot=shutdown is QEMU's own to carry out: it says SHUTDOWN then. */
}

void run_actions_read(struct run_actions *actions, const char *const *argv)
{
    *actions = (struct run_actions){0};
    for (int i = 0; argv[i]; i++) {
        const char *name = argv[i][0] == '-' ? argv[i] + (argv[i][1] == '-' ? 2 : 1) : "";
        if (strcmp(name, "no-shutdown") == 0) {
            actions->shutdown_pauses = true;
        } else if (strcmp(name, "watchdog-action") == 0 && argv[i + 1]) {
            read_one(actions, "watchdog", argv[++i]);
        } else if (strcmp(name, "action") == 0 && argv[i + 1]) {
            g_auto(GStrv) pairs = g_strsplit(argv[++i], ",", -1);
            for (char **pair = pairs; *pair; pair++) {
                char *equals = strchr(*pair, '=');
                if (equals) {
                    *equals = 0;
                    read_one(actions, *pair, equals + 1);
                }
            }
        }
    }
}
