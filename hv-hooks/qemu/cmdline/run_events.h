/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Reads from the user's QEMU command line what should happen when the guest shuts down, resets, panics or
 * lets its watchdog run out (-action, -no-shutdown, -no-reboot, -watchdog-action). QEMU itself is told to
 * pause in each case (cmdline_build.c), so that the standby learns of it first. Pure.
 */
#ifndef UNDERSTUDY_HV_HOOKS_QEMU_CMDLINE_RUN_EVENTS_H
#define UNDERSTUDY_HV_HOOKS_QEMU_CMDLINE_RUN_EVENTS_H

#include "hv-hooks/line.h"

/* Fills actions from the line; QEMU's defaults where the line says nothing. */
void run_actions_read(struct run_actions *actions, const char *const *argv);

#endif
