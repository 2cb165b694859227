/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Decides what happens to a VM when its guest shuts down, resets, panics or lets its watchdog expire. The
 * user's QEMU line says so (-action, -no-shutdown, -no-reboot, -watchdog-action). QEMU itself is told to
 * pause in each case (cmdline_build.c), so that the standby learns of it first; then the line's action is
 * carried out here. Pure.
 */
#ifndef UNDERSTUDY_HV_HOOKS_QEMU_CMDLINE_RUN_EVENTS_H
#define UNDERSTUDY_HV_HOOKS_QEMU_CMDLINE_RUN_EVENTS_H

#include <stdbool.h>

/* The line's actions; QEMU's defaults where it says nothing. */
struct run_actions {
    bool shutdown_pauses; /* a guest that shuts down stands still instead of ending the VM */
    bool panic_pauses;
    bool panic_ignored;
    bool watchdog_ends; /* watchdog=poweroff */
};

void run_actions_read(struct run_actions *actions, const char *const *argv);

enum run_verdict {
    RUN_GOES_ON, /* it is told and that is all */
    RUN_STANDS,  /* the guest stands still, as the line says */
    RUN_ENDED,   /* the VM ends, on both hosts */
    RUN_LOST,    /* this QEMU ends, and nobody wanted the guest to: the standby goes on */
};

/* QEMU's event SHUTDOWN: `guest` and `reason` (NULL: not told). */
enum run_verdict run_event_shutdown(const struct run_actions *actions, bool guest, const char *reason);
/* QEMU's event GUEST_PANICKED. */
enum run_verdict run_event_panicked(const struct run_actions *actions);
/* QEMU's event WATCHDOG: its `action`. */
enum run_verdict run_event_watchdog(const struct run_actions *actions, const char *action);

#endif
