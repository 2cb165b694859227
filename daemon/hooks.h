/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Calls the administrator's programs (hooks) at each event. Every executable of the folder is called, in the
 * order of the names, with the arguments NAME (of the VM; "-" for the host) and EVENT, and with the event as
 * a JSON object on standard input. The output of a hook goes to the log.
 *
 * No function here waits for a hook. Several hooks run at once, but never two of one program, so each program
 * sees the events in order. Other calls wait in a bounded queue. A call that finds the queue full is dropped
 * and logged. A hook has a process group of its own. The group is killed when the hook's time is over, and
 * the rest of the group when the hook has ended.
 *
 * Only files that nobody but root or the daemon's user can write to are called. The folder is read at each
 * event. Main thread (GLib's default context).
 */
#ifndef UNDERSTUDY_DAEMON_HOOKS_H
#define UNDERSTUDY_DAEMON_HOOKS_H

#include <stdbool.h>

struct hooks;

struct hooks_limits {
    unsigned at_once;   /* hooks that run */
    unsigned waiting;   /* calls in the queue */
    unsigned time_ms;   /* of each */
    unsigned max_hooks; /* programs in the folder; the others are passed over */
};

#define HOOKS_LIMITS                                                                                         \
    (struct hooks_limits)                                                                                    \
    {                                                                                                        \
        .at_once = 4, .waiting = 256, .time_ms = 30000, .max_hooks = 32                                      \
    }

/* Makes an empty queue for the programs of the folder dir. */
struct hooks *hooks_new(const char *dir, struct hooks_limits limits);
/* Kills the hooks that run, drops the calls that wait, and frees the queue. */
void hooks_free(struct hooks *hooks);
/* Calls every hook of the folder for an event. vm: NULL or "" for the host. json: standard input of the hook.
 */
void hooks_call(struct hooks *hooks, const char *vm, const char *event, const char *json);
/* Returns whether no hook runs and no call waits. */
bool hooks_are_idle(const struct hooks *hooks);

#endif
