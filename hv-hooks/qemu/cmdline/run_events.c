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

static enum run_verdict shut_down(const struct run_actions *actions)
{
    return actions->shutdown_pauses ? RUN_STANDS : RUN_ENDED;
}

enum run_verdict run_event_shutdown(const struct run_actions *actions, bool guest, const char *reason)
{
    if (g_strcmp0(reason, "guest-panic") == 0)
        return RUN_ENDED;
    /* A reset by the monitor is a shutdown where the user's line says so (-no-reboot). */
    if (guest || g_strcmp0(reason, "host-qmp-system-reset") == 0)
        return shut_down(actions);
    return RUN_LOST; /* host-signal, host-qmp-quit, host-ui, host-error */
}

/* As QEMU decides: a shutdown that pauses makes a panic pause too. */
enum run_verdict run_event_panicked(const struct run_actions *actions)
{
    if (actions->panic_ignored)
        return RUN_GOES_ON;
    return actions->panic_pauses || actions->shutdown_pauses ? RUN_STANDS : RUN_ENDED;
}

enum run_verdict run_event_watchdog(const struct run_actions *actions, const char *action)
{
    if (g_strcmp0(action, "pause") != 0)
        return RUN_GOES_ON; /* reset, shutdown (it is asked), inject-nmi, debug, none: QEMU does them */
    return actions->watchdog_ends ? RUN_ENDED : RUN_STANDS;
}
