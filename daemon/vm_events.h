/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Turns the repeated reports of a replicator into events, each of which is emitted once. Keeps what has been
 * reported of one VM. Main thread.
 */
#ifndef UNDERSTUDY_DAEMON_VM_EVENTS_H
#define UNDERSTUDY_DAEMON_VM_EVENTS_H

#include <stdbool.h>

#include "proto/control.pb-c.h"
#include "proto/end_reason.h"

struct vm_events;

/* Makes the record of one VM. adopted: the VM was running when this daemon started. */
struct vm_events *vm_events_new(const char *vm, bool adopted);
/* Frees the record. NULL is allowed. */
void vm_events_free(struct vm_events *events);

/* Emits the events that follow from the VM's new status. */
void vm_events_status(struct vm_events *events, const Understudy__Status *status);
/* Notes that the peer is asked for a standby. */
void vm_events_asked(struct vm_events *events, const char *peer);
/* Notes that the peer refused, or did not answer. */
void vm_events_refused(struct vm_events *events, const char *peer, const char *why);
/* Emits the VM's end. said: the last message of its replicator, or "". */
void vm_events_ended(struct vm_events *events, Understudy__Role role, uint64_t term,
                     enum session_end_reason reason, const char *said);
/* Emits that the VM's replicator died. */
void vm_events_lost(struct vm_events *events, Understudy__Role role, uint64_t term);

#endif
