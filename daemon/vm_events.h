/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Turns the repeated reports of a replicator into events, each of which is emitted once. Keeps what has been
 * reported of one VM. Main thread.
 */
#ifndef UNDERSTUDY_DAEMON_VM_EVENTS_H
#define UNDERSTUDY_DAEMON_VM_EVENTS_H

#include <stdbool.h>

#include "proto/control.pb-c.h"

struct vm_events;

/* adopted: it was running before this daemon. */
struct vm_events *vm_events_new(const char *vm, bool adopted);
void vm_events_free(struct vm_events *events);

/* What `status` shows of it now. */
void vm_events_status(struct vm_events *events, const Understudy__Status *status);
/* The peer is asked for a standby; it refused, or did not answer. */
void vm_events_asked(struct vm_events *events, const char *peer);
void vm_events_refused(struct vm_events *events, const char *peer, const char *why);
/* Whether a VM that ended for this reason (the session's name for it) failed here, and did not end in good
 * order. Pure. */
bool vm_events_is_failure(const char *reason);
/* reason: the session's name for it, and what it means; said: the VM's own last sentence, or "". */
void vm_events_ended(struct vm_events *events, Understudy__Role role, uint64_t term, const char *reason,
                     const char *meaning, const char *said);
/* Its replicator is gone without a word. */
void vm_events_lost(struct vm_events *events, Understudy__Role role, uint64_t term);

#endif
