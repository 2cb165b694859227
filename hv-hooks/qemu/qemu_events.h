/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Translates what QEMU tells of the run of its guest into the words of line.h and machine.h. Pure. */
#ifndef UNDERSTUDY_HV_HOOKS_QEMU_EVENTS_H
#define UNDERSTUDY_HV_HOOKS_QEMU_EVENTS_H

#include <jansson.h>

#include "hv-hooks/machine.h"

/* SHUTDOWN: its `guest` and `reason` (NULL: not told). */
enum run_event qemu_event_shutdown(bool guest, const char *reason);
/* WATCHDOG: its `action` (NULL: not told). */
enum run_event qemu_event_watchdog(const char *action);
/* A run state, as query-status has it. */
enum machine_state qemu_event_state(const char *run_state);

/* One of the monitor's events to the observer that it concerns; data may be NULL. Others are passed over. */
void qemu_event_tell(const char *name, const json_t *data, const struct machine_observer *observer,
                     void *opaque);

#endif
