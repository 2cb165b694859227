/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The guest's disks from the control thread's side: which mode the disk servers are in at each turn of the
 * session. The session says what waits for them (failover/disk_turns.h); here its orders are carried out, and
 * answered when the servers have done so.
 *
 *   alone       every write is durable before it completes
 *   protected   writes are logged and need not be durable: what depends on them waits in the output gate
 *   peer lost   durable again; the gate opens once what was written meanwhile is on stable storage
 *   takeover    the applier empties the journal, the servers let the guest write, then QEMU goes on
 *
 * Control thread.
 */
#ifndef UNDERSTUDY_REPLICATOR_GUEST_DISKS_H
#define UNDERSTUDY_REPLICATOR_GUEST_DISKS_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "failover/session.h"
#include "hv-hooks/machine.h"
#include "replicator/control/sink.h"
#include "replicator/disk/disk_sync.h"
#include "replicator/disk/disks.h"
#include "replicator/network/output_gate.h"
#include "replicator/pipeline/applier.h"
#include "replicator/pipeline/capture_thread.h"
#include "replicator/pipeline/disk_answer.h"
#include "replicator/transport/connection.h"

struct note;

/* The parts that are made once the machine is ready. NULL: there are none yet, or no more. */
struct guest_disks_parts {
    struct capture_thread *capture;
    struct applier *applier;
    struct disk_sync *sync;     /* primary */
    struct disk_answer *answer; /* secondary */
};

struct guest_disks {
    /* Set by the owner before guest_disks_open. All of them outlive the disks. */
    const char *vm_name;
    bool durable_acks;
    const struct session *session;
    struct sink *sink;
    struct output_gate *gate;
    void (*resume)(void *opaque);   /* lets the guest go on, if it is here and nobody stopped it */
    void (*cut_link)(void *opaque); /* ends the present connection, if there is one */
    void *opaque;

    struct disks *set; /* NULL: the VM has none */
    struct guest_disks_parts parts;
    /* The session's orders that are still to be answered, 0: none. */
    uint64_t order, durable_order, take_over_order;
    bool unlock;            /* once order is done: the other host may have the shared disks */
    guint io_retry;         /* the guest stands still for a disk's sake: it is tried again now and then */
    bool stood_still_there; /* it was taken over like that, and has not gone on here yet */
};

/* Opens the disks of config (its callbacks are set here); without any, set stays NULL. */
bool guest_disks_open(struct guest_disks *disks, const struct disks_config *config, GError **error);
/* The parts, from now on. All NULL before they are closed: then nothing is tried again, either. */
void guest_disks_use(struct guest_disks *disks, const struct guest_disks_parts *parts);
/* Once every other part is closed. */
void guest_disks_close(struct guest_disks *disks);

/* The session's orders. Each is answered with an event that names it, SESSION_EVENT_DISKS_*. */
void guest_disks_make_durable(struct guest_disks *disks, uint64_t order);
void guest_disks_give_up(struct guest_disks *disks, uint64_t order);
void guest_disks_make_writable(struct guest_disks *disks, uint64_t order);
void guest_disks_take_over(struct guest_disks *disks, uint64_t order);
/* The gate opens for all when what was written is on stable storage, which this waits for. */
void guest_disks_release_last(struct guest_disks *disks);
/* Output is held from here on: writes need not be durable any more. */
void guest_disks_hold(struct guest_disks *disks);
/* No more epochs: nothing is logged, and writes are durable again. */
void guest_disks_stop_logging(struct guest_disks *disks);
/* The peer holds the epoch: shared disks may have it too. */
void guest_disks_release(struct guest_disks *disks, uint64_t epoch);
/* A newer term runs elsewhere: nothing more is written here. */
void guest_disks_fence(struct guest_disks *disks);
/* The applier has emptied the journal, or could not. */
void guest_disks_standby_ended(struct guest_disks *disks, int status);
/* What the guest's machine tells: a request failed; the guest goes on. */
void guest_disks_io_error(struct guest_disks *disks, const struct machine_disk_error *error);
void guest_disks_io_resumed(struct guest_disks *disks);
/* The guest came here standing still, with a request to a disk that the other host's disk had refused. */
void guest_disks_retry(struct guest_disks *disks);
/* A message about disks that came by this connection. False: nonsense. */
bool guest_disks_message(struct guest_disks *disks, struct connection *connection, const struct note *note);

#endif
