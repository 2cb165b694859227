/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The simulated world: two hosts that run the real session, an arbiter with the real rule, and everything
 * between them. One seed is one schedule. world.c has chance, time, the network and what clients see; hosts.c
 * carries out what a session orders; events.c says what happens, faults included; simulation.c runs schedules
 * and judges how they end.
 */
#ifndef UNDERSTUDY_TESTS_SIMULATION_WORLD_H
#define UNDERSTUDY_TESTS_SIMULATION_WORLD_H

#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "failover/arbiter.h"
#include "failover/session.h"
#include "proto/term.h"

#define MAX_EVENTS   512
#define MAX_BRANCHES 64
#define MAX_EPOCHS   4096
#define MAX_TERMS    1024
#define PAGES        8        /* of the guest's memory */
#define SECOND       1000000u /* time is in microseconds */

enum kind {
    TICK, /* a host's session timer */
    HEARTBEAT_SEND,
    HEARTBEAT, /* arrives */
    GUEST_SENDS,
    DIAL,
    DELIVER,    /* the head of a connection's queue arrives */
    BREAK_SEEN, /* a host notices that its connection is gone */
    SYNCHRONISED,
    CUT,
    CUT_DONE,
    CAPTURE_STOPPED, /* the answer to an order that came late */
    SENT,            /* an epoch is with the connection in full */
    APPLIED,
    APPLIED_LATE, /* news of an image that was thrown away meanwhile */
    ARBITER_ASKED,
    ARBITER_ANSWERS,
    PROMOTED,
    POWERED_DOWN, /* a guest that was asked to shut down has done so */
    FAULT,        /* something goes wrong, or right again */
    UPSET,        /* the guest, the user or the hypervisor ends things just after a state was entered */
    RESTART,
    WAKE,       /* a host that stood still goes on */
    DISKS_DONE, /* the disks have carried out an order, or could not */
    TERM_KEPT,  /* a term is on a host's disk */
    JOURNALLED, /* what an epoch wrote to disks is durable */
    TRIED,      /* a standby's trial load has ended */
};

struct event {
    uint64_t at, order;
    enum kind kind;
    int host;
    uint64_t a, b; /* meaning by kind; often a generation that makes an outdated event void */
    bool ok;
    struct session_beat
        beat; /* HEARTBEAT; a is its sequence number, ok: it came by the checkpoints' network */
};

/*
 * What may happen in a schedule. ARBITER: everything, and an arbiter decides. The other two have none, as a
 * pair without an arbiter: whoever asks is granted. REACHABLE: no cut between the hosts is total and they are
 * not away together, so a side that asks is answered: never may two run. CUTS: both may come to run, and one
 * is fenced when they hear each other again.
 */
enum mode { ARBITER, REACHABLE, CUTS };

enum wire { W_EPOCH, W_BATCH, W_ACK, W_HANDOVER, W_HANDOVER_DONE, W_GOODBYE, W_FENCED, W_BEAT };

struct message {
    enum wire wire;
    uint64_t term, epoch, branch, seq;
    enum session_end_reason reason;
    bool untried;
    struct session_beat beat;
    unsigned pages;         /* which of memory it carries */
    uint64_t memory[PAGES]; /* all of it, to judge by */
};

struct queue {
    struct message list[64];
    unsigned head, n;
    uint64_t last_at;
};

enum gate { PASS, HOLD, DROP };

struct host {
    bool alive;
    struct session session;
    uint64_t generation; /* of this process: a crash voids its events */
    double clock_rate;
    uint64_t clock_offset;
    uint64_t tick_serial;
    uint64_t sequence, heard_sequence; /* of beats */
    uint64_t stands_until;             /* it stands still meanwhile; what arrives waits */
    struct own_timer own_timer;        /* as the replicator's heartbeats have one */
    uint64_t granted;                  /* without an arbiter: the term asked for */
    /* guest */
    bool runs, paused;
    uint64_t branch, seq;
    uint64_t memory[PAGES]; /* 0: a hole */
    /* gate */
    enum gate gate;
    uint64_t boundary[MAX_EPOCHS];
    uint64_t held_from; /* frames up to here are out */
    /* capture */
    uint64_t capture_serial, next_epoch;
    bool capturing, last_epoch;
    bool tracking;
    unsigned dirty;                                                             /* pages */
    uint32_t serial, held_serial, page_serial[PAGES], epoch_serial[MAX_EPOCHS]; /* as checkpoint/capture.c */
    bool cutting, cutting_last; /* inside a checkpoint: it is finished whatever is decided meanwhile */
    uint64_t capture_term;      /* of what it sends */
    bool stopping;              /* told to stop and has not: what may not happen before waits */
    bool connects_then, resumes_then;
    uint64_t stop_serial;
    /* image */
    uint64_t image_epoch, image_branch, image_seq;
    uint64_t image_memory[PAGES];
    bool image_half;
    bool trying;
    uint64_t image_serial; /* voids what was being applied to an image that was thrown away */
    struct message staged[64];
    unsigned nstaged;
    uint64_t kept_term; /* on its disk: outlives it */
    /* disks: the guest writes before it sends each frame */
    bool disk_writable;      /* the guest may write */
    bool disk_synchronous;   /* each write is durable before it completes */
    uint64_t disk_unsettled; /* newest frame whose write may be in memory alone, 0: none */
    uint64_t disk_order;     /* newest one but disks-durable: the disks carry out no older one */
    /* link */
    bool wants_link, linked;
    struct session_hello hello;
};

struct world {
    uint64_t now, order, random, steps, limit;
    struct event heap[MAX_EVENTS];
    unsigned nheap;
    struct host hosts[2];
    struct queue queues[2]; /* towards host i */
    uint64_t connection;    /* counts; what belongs to an older one is void */
    bool broken;            /* the present one: what was on its way may arrive in part, nothing is added */
    bool cut[2];            /* nothing arrives at host i */
    bool stalled[2];        /* nothing arrives at host i on this connection, though hearts are heard */
    uint64_t
        dead_since[2]; /* nor on the whole checkpoint network, other than by the second one; 0: it is whole */
    enum mode mode;
    bool two_paths, durable, disks, trials;
    struct arbiter_record arbiter;
    uint64_t
        let_out[MAX_TERMS]; /* by term: which process let out frames in it (host and generation), 0: none */
    uint64_t nbranches;
    struct {
        uint64_t parent, from_seq; /* where it left its parent */
        uint64_t left_at;          /* smallest frame at which another branch left it, or UINT64_MAX */
        uint64_t released;         /* newest frame released */
    } branches[MAX_BRANCHES];
    /* Epoch n of host i as primary was held by its peer, in the present synchronisation. */
    bool peer_held[MAX_EPOCHS][2];
    bool trace, healed;
    bool crashed;        /* or ended for another reason that may take the guest along */
    bool done;           /* the guest powered itself off or was stopped by the user */
    bool ended_for_good; /* a primary said so when it ended, where the other host could be asked */
    const char *plant;
    char failure[256];
    uint64_t hash, promotions, protections, resyncs;
    uint64_t transitions; /* that a session made, by their place in failover/transitions.c */
};

/* The first broken invariant ends the schedule. */
#define FAIL(w, ...)                                                                                         \
    do {                                                                                                     \
        if (!(w)->failure[0])                                                                                \
            snprintf((w)->failure, sizeof(w)->failure, __VA_ARGS__);                                         \
    } while (0)

/* world.c */
uint64_t next_random(struct world *w);
/* From low to high, both included. */
uint64_t between(struct world *w, uint64_t low, uint64_t high);
bool chance(struct world *w, unsigned percent);
/* delay: microseconds from now. */
void schedule(struct world *w, uint64_t delay, struct event event);
struct event take_event(struct world *w);
/* What the host's own clock shows. */
uint64_t clock_ms(const struct world *w, int h);
/* Frames up to seq leave the host: what a client sees, and where I5 is checked. */
void release_to(struct world *w, int h, uint64_t seq);
void send_message(struct world *w, int from, struct message message);
void break_connection(struct world *w);
/* One beat by every path. */
void send_beat(struct world *w, int h);
bool stands_still(const struct world *w, int h);

/* hosts.c */
/* An event for the host's session; its orders are carried out before this returns. */
void feed(struct world *w, int h, struct session_event event);
void feed_simple(struct world *w, int h, enum session_event_type type);
/* A guest that was promoted begins a branch of history where its image ends. */
void start_branch(struct world *w, struct host *host);
/* The capture has let go at last. */
void capture_stopped(struct world *w, int h);
void finish_cut(struct world *w, int h, bool tell);
void schedule_cut(struct world *w, int h, uint64_t delay);
void apply_next(struct world *w, int h);

/* events.c */
void start_session(struct world *w, int h, enum session_role role, uint64_t term);
void step(struct world *w, const struct event *event);

#endif
