/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Machines of the hypervisor that does not exist: implements hv-hooks/machine.h over fake_hypervisor.h. No
 * process is started. What the machine goes through, the test says, by the functions below; what it is asked
 * for is written down. It keeps the promises of machine.h, and holds its user to the conditions there.
 */
#ifndef UNDERSTUDY_TESTS_FAKEVM_FAKE_MACHINE_H
#define UNDERSTUDY_TESTS_FAKEVM_FAKE_MACHINE_H

#include "hv-hooks/machine_ops.h"

#define FAKE_MACHINE_ORDERS 32u
#define FAKE_MACHINE_NICS   4u
#define FAKE_MACHINE_PID    4711

extern const struct machine_ops machine_ops_fakevm;

/* What the machines to come do. NULL: it goes well; else one sentence: why not. */
struct fake_machine_faults {
    const char *start, *connect_nic, *take_over, *trial;
};
extern struct fake_machine_faults fake_machine_faults;

struct fake_machine {
    struct machine base;
    struct machine_config config;
    const struct machine_observer *observer;
    void *opaque;
    struct hypervisor *hv;
    bool ready, gone, was_killed, mirrors;
    enum machine_order orders[FAKE_MACHINE_ORDERS];
    unsigned norders;
    machine_refused refused; /* of the last order */
    void *refused_opaque;
    struct machine_nic ends[FAKE_MACHINE_NICS]; /* of the sockets: the machine's */
    unsigned nnics;
    bool taking_over;
    struct machine_image image; /* of the takeover; borrowed */
};

struct fake_machine *fake_machine_of(struct machine *machine);
/* Machines that were freed, and those of them that had not ended. */
extern unsigned fake_machines_freed, fake_machines_freed_alive;

/* ---- what becomes of it ---- */

void fake_machine_get_ready(struct fake_machine *machine);
/* It could not start. It is killed for it: let it end then. */
void fake_machine_fail(struct fake_machine *machine, const char *why);
void fake_machine_end(struct fake_machine *machine, const char *why);
/* The last order is not carried out. */
void fake_machine_refuse(struct fake_machine *machine, const char *why);
/* The takeover under way is over. */
void fake_machine_arrive(struct fake_machine *machine, enum machine_state state, const char *words);
void fake_machine_fail_takeover(struct fake_machine *machine, const char *why);

#endif
