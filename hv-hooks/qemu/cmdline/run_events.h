/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the user's QEMU line says should happen when its guest shuts down, resets, panics or lets its watchdog
 * run out (-action, -no-shutdown, -no-reboot, -watchdog-action). QEMU itself is told to pause in each case
 * (cmdline_build.c), so that the standby learns of it first. Pure.
 */
#ifndef UNDERSTUDY_HV_HOOKS_QEMU_CMDLINE_RUN_EVENTS_H
#define UNDERSTUDY_HV_HOOKS_QEMU_CMDLINE_RUN_EVENTS_H

#include "hv-hooks/line.h"

/* What the line says; QEMU's defaults where it says nothing. */
void run_actions_read(struct run_actions *actions, const char *const *argv);

#endif
