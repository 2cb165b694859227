/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Translates QEMU's events about the run of its guest into line.h's run events. Pure. */
#ifndef UNDERSTUDY_HV_HOOKS_QEMU_EVENTS_H
#define UNDERSTUDY_HV_HOOKS_QEMU_EVENTS_H

#include "hv-hooks/line.h"

/* SHUTDOWN: its `guest` and `reason` (NULL: not told). */
enum run_event qemu_event_shutdown(bool guest, const char *reason);
/* WATCHDOG: its `action` (NULL: not told). */
enum run_event qemu_event_watchdog(const char *action);

#endif
