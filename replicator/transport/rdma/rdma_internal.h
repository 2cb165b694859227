/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The inside of the RDMA transport: one connection, and what its parts may use of each other. Only for
 * these files:
 *
 *   rdma.c      creation, destruction and the table of functions
 *   queue.c     the send queue and its completions
 *   credit.c    what the peer has room for, and what it is told
 *   outgoing.c  messages and epochs that are sent
 *   incoming.c  messages and epochs that are received
 *   sealed.c    what sealed epochs look like; no verbs
 *
 * The send queue is counted: work requests posted and completed, ever. Only SENDs, an epoch's last write
 * and every SIGNAL_EVERY-th write ask for a completion; each completion says that all requests before it
 * are done.
 *
 * order_lock: keeps messages and epochs whole and in order. Its holder may wait, at most stall_ms a step.
 *
 * post_lock: the send queue's counters and buffers. Never held while waiting, so that a bare credit can
 * always be sent, and the two sides cannot wait for each other.
 *
 * end_lock: makes shutdown idempotent. The first caller ends the queue pair; later callers see that it has
 * ended.
 *
 * room_lock: what the peer has granted and returned. The receiving thread writes, the sending thread waits.
 *
 * Flow control: a SEND or a commit takes one of the peer's receive buffers, and is posted only when one is
 * known to be free; the last ones are kept for bare credits. So a receiver-not-ready never happens, and a
 * peer that stops returning buffers ends in -ETIMEDOUT.
 */
#ifndef UNDERSTUDY_REPLICATOR_RDMA_INTERNAL_H
#define UNDERSTUDY_REPLICATOR_RDMA_INTERNAL_H

#include <glib.h>
#include <pthread.h>
#include <rdma/rdma_cma.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "proto/rdma_wire.h"
#include "replicator/transport/epoch_parts.h"
#include "replicator/transport/rdma/rdma.h"
#include "replicator/transport/rdma/sealed.h"

#define RECEIVES      64u   /* receive buffers of a side */
#define RECEIVES_KEPT 4u    /* of them, for bare credits */
#define BUFFER_LEN    4096u /* of a SEND */
#define SENDS         16u   /* buffers of SENDs under way */
#define QUEUE_LEN     512u  /* work requests of the send queue */
#define QUEUE_KEPT    8u    /* of them, for bare credits */
#define CHAIN_LEN     8u    /* writes handed to the device at once */
#define SIGNAL_EVERY  32u
#define MAX_SGES      16u
#define WRITE_MAX     (1u << 20)
#define METAS         STAGING_EPOCHS /* epochs whose index and device state are under way */
#define INLINE_LEN    128u           /* asked for; */
#define INLINE_LEAST  48u            /* a bare credit needs this much, sealed */
#define SPIN_NS       20000u
#define IDLE_POLL_MS  3000
#define FLUSH_MS      500
#define BODY_LEN      (BUFFER_LEN - RDMA_WIRE_PREFIX_LEN - SEAL_TAG_LEN)

G_STATIC_ASSERT(RDMA_WIRE_PREFIX_LEN + SEAL_TAG_LEN <= INLINE_LEAST);

/* Labels of SENDs, which are records of their own: their order is all that there is to know. */
#define LABEL_SEND   ((struct seal_label){.kind = 0x10000})
#define LABEL_CREDIT ((struct seal_label){.kind = 0x10001})

/* One mapping for all small buffers of a connection. */
struct arena {
    uint8_t receives[RECEIVES][BUFFER_LEN];
    uint8_t sends[SENDS][BUFFER_LEN];
};

/* The part of an epoch before its pages, while it is sent. */
struct meta {
    uint8_t *at;
    size_t capacity;
    struct ibv_mr *mr;
    uint64_t until; /* free once this many work requests are completed */
};

struct rdma {
    struct transport base;
    struct rdma_memory *memory;
    struct rdma_cm_id *id;
    bool up;
    unsigned stall_ms;
    _Atomic bool dead;
    pthread_mutex_t end_lock;
    bool ended;            /* under end_lock: nothing that was posted leaves any more */
    int wake_fd, ready_fd; /* readable once dead; always readable */
    struct ibv_comp_channel *send_channel, *receive_channel;
    struct ibv_cq *send_cq, *receive_cq;
    /*
     * NULL: not sealed. Messages and epochs are numbered together, in the order of order_lock, and bare
     * credits by themselves, in the order of post_lock. in and credit_in: the receiving thread's.
     */
    struct seal *out, *in, *credit_out, *credit_in;
    unsigned max_sges, inline_len;
    struct arena *arena;
    struct ibv_mr *arena_mr;

    pthread_mutex_t order_lock; /* see above */
    struct epoch_encoder encoder;
    struct meta metas[METAS];
    unsigned next_meta;
    uint64_t ends[STAGING_EPOCHS]; /* where in the send queue each epoch under way ends */
    uint64_t epochs_posted, epochs_completed;
    int64_t done_told; /* what epochs_done said last */

    pthread_mutex_t post_lock;
    uint64_t posted, completed; /* work requests */
    unsigned unsignalled;
    uint64_t sends_posted, send_until[SENDS];
    uint64_t receives_used;         /* of the peer's, ever */
    _Atomic uint64_t told_receives; /* what the peer was told last */
    uint64_t told_page_tail, told_epoch_tail;

    pthread_mutex_t room_lock;
    pthread_cond_t room_changed;
    bool granted;
    struct rdma_wire_grant grant;
    uint64_t peer_receives, peer_page_tail, peer_epoch_tail;

    /* Receiving thread. */
    struct staging *receiving; /* granted to the peer */
    _Atomic(struct staging *) gives_back;
    struct epoch_decoder decoder;
    struct bytes payload;
    bool assembling;
    struct wire_header header;
    _Atomic uint64_t receives_reposted;
    bool polling_pays;

    _Atomic uint64_t bytes_sent, bytes_received, epochs_sent, epochs_received;
};

static inline struct rdma *rdma_of(const struct transport *t)
{
    return (struct rdma *)t;
}

static inline uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

static inline uint64_t stall_end(const struct rdma *c)
{
    return now_ns() + (uint64_t)c->stall_ms * 1000000;
}

static inline uint32_t pages_of(size_t len)
{
    return (uint32_t)((len + STAGING_PAGE_LEN - 1) / STAGING_PAGE_LEN);
}

/* ---- queue.c ---- */

/* Marks the connection dead and wakes all threads that wait in it. Any thread. */
void queue_kill(struct rdma *c);
/* Takes the completions that have arrived. post_lock is held. 0 or -ENOTCONN. */
int queue_reap(struct rdma *c);
/* Clears the wake-ups of a completion channel. */
void queue_take_events(struct ibv_comp_channel *channel);
/* Waits until this many work requests are completed. -ETIMEDOUT after timeout_ms without it. */
int queue_wait(struct rdma *c, uint64_t target, unsigned timeout_ms);
/*
 * Posts one request or a list of them, under post_lock, which is held. Counts them, and decides which ask for
 * a completion: with signal, at least the last.
 */
int queue_post(struct rdma *c, struct ibv_send_wr *first, bool signal);
/* Posts when the queue has room for all. Not under post_lock; order_lock is held. */
int queue_post_when_free(struct rdma *c, struct ibv_send_wr *first, bool signal);
/* Posts this receive buffer (again). */
int queue_post_receive(struct rdma *c, unsigned index);

/* ---- credit.c ---- */

/* Takes one of the peer's receive buffers for what is posted next. */
int credit_take_receive(struct rdma *c);
/*
 * Waits until the peer's ring has room for an epoch of npages ring pages, for at most stalls times stall_ms;
 * -EMSGSIZE where it never will.
 */
int credit_wait_ring(struct rdma *c, uint64_t npages, unsigned stalls);
/* Writes the prefix of a SEND: what this side has returned. post_lock is held. */
void credit_put_prefix(struct rdma *c, enum rdma_wire_kind kind, uint8_t *at);
/*
 * Sends a bare credit that says what was returned. Never waits: if it cannot be sent now, the next message
 * says it. Any thread.
 */
void credit_send(struct rdma *c);
/* Posts the receive buffer again, and sends a bare credit if many were returned. Receiving thread. */
int credit_give_receive_back(struct rdma *c, unsigned index);
/* Takes what the peer says it has returned, or grants. Receiving thread. 0 or -EPROTO. */
int credit_take(struct rdma *c, const struct rdma_wire_prefix *prefix, const uint8_t *body, size_t len);

/* ---- outgoing.c ---- */

/* Sends a prefix and two pieces of body as one SEND. order_lock is held. */
int outgoing_send_buffer(struct rdma *c, enum rdma_wire_kind kind, const void *head, size_t head_len,
                         const void *body, size_t body_len);
void outgoing_free_meta(struct meta *meta);
/* See struct transport_ops. */
int outgoing_send_message(struct transport *t, const struct transport_message *message);
int outgoing_send_epoch(struct transport *t, uint64_t term, const struct staging *staging,
                        const struct staged_epoch *epoch);
int64_t outgoing_epochs_done(struct transport *t);
int outgoing_done_fd(struct transport *t);
void outgoing_flush(struct transport *t);

/* ---- incoming.c ---- */

/* See struct transport_ops. */
int incoming_receive(struct transport *t, struct staging *staging, struct transport_received *out);

#endif
