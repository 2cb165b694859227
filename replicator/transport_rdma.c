/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * See transport_rdma.h. What is where:
 *
 *   send queue   counted: posted and completed work requests, ever. Only SENDs, commits and every
 *                SIGNAL_EVERY-th write ask for a completion; each completion says that all before it are
 * done. order_lock   whole messages and epochs, one after the other. Its holder may wait, at most stall_ms a
 * step. post_lock    the send queue's counters and buffers. Never held while waiting, so that a bare credit
 * can always go out, and the two sides cannot wait for each other. room         what the peer has granted and
 * given back; the receiving thread writes, the sending thread waits.
 *
 * Flow control: a SEND or a commit takes one of the peer's receive buffers, and is posted only when one is
 * known to be free; the last ones are kept for bare credits. So a receiver-not-ready never happens, and a
 * peer that stops giving back ends in -ETIMEDOUT.
 */
#include "replicator/transport_rdma.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <gio/gio.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "proto/crc32c.h"
#include "proto/rdma_wire.h"
#include "replicator/epoch_parts.h"

#define RECEIVES      64u   /* receive buffers of a side */
#define RECEIVES_KEPT 4u    /* of them, for bare credits */
#define BUFFER_LEN    4096u /* of a SEND */
#define SENDS         16u   /* buffers of SENDs under way */
#define QUEUE_LEN     512u  /* work requests of the send queue */
#define QUEUE_KEPT    8u    /* of them, for bare credits */
#define SIGNAL_EVERY  32u
#define MAX_SGES      16u
#define WRITE_MAX     (1u << 20)
#define METAS         4u /* epochs whose index and device state are under way */
#define COMMIT_STRIDE 128u
#define INLINE_LEN    128u /* asked for; */
#define INLINE_LEAST  32u  /* a bare credit needs this much */
#define SPIN_NS       20000u
#define IDLE_POLL_MS  3000
#define FLUSH_MS      500
#define BODY_LEN      (BUFFER_LEN - RDMA_WIRE_PREFIX_LEN)

G_STATIC_ASSERT(RDMA_WIRE_COMMIT_LEN <= INLINE_LEN && INLINE_LEN <= COMMIT_STRIDE);
G_STATIC_ASSERT(RDMA_WIRE_PREFIX_LEN <= INLINE_LEAST);

/* One mapping for all small buffers of a connection. */
struct arena {
    uint8_t receives[RECEIVES][BUFFER_LEN];
    uint8_t sends[SENDS][BUFFER_LEN];
    uint8_t records[STAGING_EPOCHS][COMMIT_STRIDE]; /* commit records on their way to the peer */
    uint8_t commits[STAGING_EPOCHS][COMMIT_STRIDE]; /* the peer writes its own here */
};

/* Index and device state of an epoch on its way. */
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
    _Atomic bool dead, disconnecting;
    int wake_fd;
    struct ibv_comp_channel *send_channel, *receive_channel;
    struct ibv_cq *send_cq, *receive_cq;
    unsigned max_sges, inline_len;
    struct arena *arena;
    struct ibv_mr *arena_mr, *commits_mr;

    pthread_mutex_t order_lock; /* see above */
    struct epoch_encoder encoder;
    struct meta metas[METAS];
    unsigned next_meta;
    uint64_t ends[STAGING_EPOCHS]; /* where in the send queue each epoch under way ends */
    uint64_t epochs_posted, epochs_completed;

    pthread_mutex_t post_lock;
    uint64_t posted, completed; /* work requests */
    unsigned unsignalled;
    uint64_t sends_posted, send_until[SENDS];
    uint64_t receives_used;         /* of the peer's, ever */
    _Atomic uint64_t told_receives; /* what the peer was told last */

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

static _Atomic unsigned objects;

unsigned transport_rdma_objects(void)
{
    return atomic_load(&objects);
}

static struct rdma *rdma_of(const struct transport *t)
{
    return (struct rdma *)t;
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

static uint64_t stall_end(const struct rdma *c)
{
    return now_ns() + (uint64_t)c->stall_ms * 1000000;
}

/* Nothing more will work: wakes everybody who waits. */
static void kill_connection(struct rdma *c)
{
    uint64_t one = 1;
    atomic_store(&c->dead, true);
    ssize_t ignored = write(c->wake_fd, &one, sizeof one);
    (void)ignored;
    pthread_mutex_lock(&c->room_lock);
    pthread_cond_broadcast(&c->room_changed);
    pthread_mutex_unlock(&c->room_lock);
}

/* ---- the send queue ---- */

/* Takes what completed. post_lock is held. */
static int reap(struct rdma *c)
{
    struct ibv_wc wc[16];
    int n;
    while ((n = ibv_poll_cq(c->send_cq, G_N_ELEMENTS(wc), wc)) > 0) {
        for (int i = 0; i < n; i++) {
            if (wc[i].status != IBV_WC_SUCCESS) {
                kill_connection(c);
                return -ENOTCONN;
            }
            c->completed = wc[i].wr_id;
        }
    }
    return n < 0 || atomic_load(&c->dead) ? -ENOTCONN : 0;
}

/* Forgets the wake-ups of a completion channel. */
static void take_cq_events(struct ibv_comp_channel *channel)
{
    struct ibv_cq *cq;
    void *context;
    while (ibv_get_cq_event(channel, &cq, &context) == 0)
        ibv_ack_cq_events(cq, 1);
}

/* Waits until this many work requests are completed. -ETIMEDOUT after stall_ms without it. */
static int wait_completed(struct rdma *c, uint64_t target, unsigned timeout_ms)
{
    uint64_t end = now_ns() + (uint64_t)timeout_ms * 1000000;
    bool armed = false;
    for (;;) {
        pthread_mutex_lock(&c->post_lock);
        int status = reap(c);
        bool there = c->completed >= target;
        pthread_mutex_unlock(&c->post_lock);
        if (status < 0 || there)
            return status;
        uint64_t now = now_ns();
        if (now >= end)
            return -ETIMEDOUT;
        if (!armed) { /* look once more after arming: it may have come in between */
            if (ibv_req_notify_cq(c->send_cq, 0) != 0)
                return -ENOTCONN;
            armed = true;
            continue;
        }
        struct pollfd fds[] = {{.fd = c->send_channel->fd, .events = POLLIN},
                               {.fd = c->wake_fd, .events = POLLIN}};
        poll(fds, G_N_ELEMENTS(fds), (int)((end - now) / 1000000) + 1);
        take_cq_events(c->send_channel);
        armed = false;
    }
}

/* Posts under post_lock, which is held. Counts it, and decides whether it asks for a completion. */
static int post(struct rdma *c, struct ibv_send_wr *wr, bool signal)
{
    struct ibv_send_wr *bad;
    signal = signal || ++c->unsignalled >= SIGNAL_EVERY;
    if (signal) {
        wr->send_flags |= IBV_SEND_SIGNALED;
        c->unsignalled = 0;
    }
    wr->wr_id = c->posted + 1;
    if (atomic_load(&c->dead) || ibv_post_send(c->id->qp, wr, &bad) != 0)
        return -ENOTCONN;
    c->posted++;
    return 0;
}

/* Posts when the queue has room. Not under post_lock. */
static int post_when_free(struct rdma *c, struct ibv_send_wr *wr, bool signal)
{
    for (;;) {
        pthread_mutex_lock(&c->post_lock);
        uint64_t used = c->posted - c->completed, oldest = c->completed + 1;
        int status = used < QUEUE_LEN - QUEUE_KEPT ? post(c, wr, signal) : -EAGAIN;
        pthread_mutex_unlock(&c->post_lock);
        if (status != -EAGAIN)
            return status;
        status = wait_completed(c, oldest, c->stall_ms);
        if (status < 0)
            return status;
    }
}

/* ---- what the peer has room for ---- */

/* Free receive buffers of the peer. */
static uint64_t peer_free(const struct rdma *c)
{
    return RECEIVES - (c->receives_used - c->peer_receives);
}

/* Waits on room_changed until end. room_lock is held. */
static int wait_room(struct rdma *c, uint64_t end)
{
    struct timespec until = {.tv_sec = (time_t)(end / 1000000000), .tv_nsec = (long)(end % 1000000000)};
    if (atomic_load(&c->dead))
        return -ENOTCONN;
    if (now_ns() >= end)
        return -ETIMEDOUT;
    pthread_cond_timedwait(&c->room_changed, &c->room_lock, &until);
    return 0;
}

/* Takes one of the peer's receive buffers for what is posted next. */
static int take_receive(struct rdma *c)
{
    uint64_t end = stall_end(c);
    int status = 0;
    pthread_mutex_lock(&c->room_lock);
    while (status == 0 && peer_free(c) <= RECEIVES_KEPT)
        status = wait_room(c, end);
    if (status == 0)
        c->receives_used++;
    pthread_mutex_unlock(&c->room_lock);
    return atomic_load(&c->dead) ? -ENOTCONN : status;
}

/* Takes one of the kept ones too, if there is one. */
static bool take_last_receive(struct rdma *c)
{
    pthread_mutex_lock(&c->room_lock);
    bool free_one = peer_free(c) > 0;
    c->receives_used += free_one;
    pthread_mutex_unlock(&c->room_lock);
    return free_one;
}

/* Waits until the peer's ring has room for an epoch of npages ring pages. */
static int wait_ring(struct rdma *c, uint64_t npages)
{
    uint64_t end = stall_end(c);
    int status = 0;
    pthread_mutex_lock(&c->room_lock);
    while (status == 0 && !c->granted)
        status = wait_room(c, end);
    if (status == 0 && npages > c->grant.capacity_pages)
        status = -EMSGSIZE;
    while (status == 0 && (c->grant.page_head - c->peer_page_tail + npages > c->grant.capacity_pages ||
                           c->grant.epoch_head - c->peer_epoch_tail >= STAGING_EPOCHS))
        status = wait_room(c, end);
    /* An empty ring begins again at its first page, which the caches know best. */
    if (status == 0 && c->grant.page_head == c->peer_page_tail)
        c->grant.next_slot = 0;
    pthread_mutex_unlock(&c->room_lock);
    return atomic_load(&c->dead) ? -ENOTCONN : status;
}

static void put_prefix(struct rdma *c, enum rdma_wire_kind kind, uint8_t *at)
{
    struct rdma_wire_prefix prefix = {.kind = kind, .receives = atomic_load(&c->receives_reposted)};
    struct staging *staging = atomic_load(&c->gives_back);
    if (staging)
        staging_tails(staging, &prefix.page_tail, &prefix.epoch_tail);
    rdma_wire_prefix_encode(&prefix, at);
    atomic_store(&c->told_receives, prefix.receives);
}

/*
 * Tells the peer what was given back. Never waits: where there is no room to tell it, the next message does.
 */
static void send_credit(struct rdma *c)
{
    uint8_t bytes[RDMA_WIRE_PREFIX_LEN];
    struct ibv_sge sge = {.addr = (uintptr_t)bytes, .length = sizeof bytes};
    struct ibv_send_wr wr = {
        .sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_SEND, .send_flags = IBV_SEND_INLINE};
    pthread_mutex_lock(&c->post_lock);
    bool fits = reap(c) == 0 && c->posted - c->completed < QUEUE_LEN && take_last_receive(c);
    if (fits) {
        put_prefix(c, RDMA_WIRE_CREDIT, bytes);
        post(c, &wr, true); /* fails where the connection is dead */
        atomic_fetch_add_explicit(&c->bytes_sent, sizeof bytes, memory_order_relaxed);
    }
    pthread_mutex_unlock(&c->post_lock);
}

/* ---- messages ---- */

/* One SEND of a prefix and two pieces of body. order_lock is held. */
static int send_buffer(struct rdma *c, enum rdma_wire_kind kind, const void *head, size_t head_len,
                       const void *body, size_t body_len)
{
    unsigned index = (unsigned)(c->sends_posted % SENDS);
    uint8_t *at = c->arena->sends[index];
    int status = wait_completed(c, c->send_until[index], c->stall_ms);
    if (status == 0)
        status = take_receive(c);
    if (status < 0)
        return status;
    pthread_mutex_lock(&c->post_lock);
    put_prefix(c, kind, at);
    pthread_mutex_unlock(&c->post_lock);
    if (head_len)
        memcpy(at + RDMA_WIRE_PREFIX_LEN, head, head_len);
    if (body_len)
        memcpy(at + RDMA_WIRE_PREFIX_LEN + head_len, body, body_len);
    size_t len = RDMA_WIRE_PREFIX_LEN + head_len + body_len;
    struct ibv_sge sge = {.addr = (uintptr_t)at, .length = (uint32_t)len, .lkey = c->arena_mr->lkey};
    struct ibv_send_wr wr = {.sg_list = &sge,
                             .num_sge = 1,
                             .opcode = IBV_WR_SEND,
                             .send_flags = len <= c->inline_len ? IBV_SEND_INLINE : 0};
    status = post_when_free(c, &wr, true);
    if (status < 0)
        return status;
    c->send_until[index] = wr.wr_id;
    c->sends_posted++;
    atomic_fetch_add_explicit(&c->bytes_sent, len, memory_order_relaxed);
    return 0;
}

static int rdma_send_message(struct transport *t, const struct transport_message *message)
{
    struct rdma *c = rdma_of(t);
    uint8_t head[WIRE_HEADER_LEN];
    struct wire_header header = {
        .type = (uint16_t)message->type,
        .arg = message->arg,
        .term = message->term,
        .epoch = message->epoch,
        .payload_len = message->len,
        .payload_crc = crc32c(0, message->payload, message->len),
    };
    if (message->len > TRANSPORT_MAX_PAYLOAD)
        return -EMSGSIZE;
    wire_header_encode(&header, head);
    pthread_mutex_lock(&c->order_lock);
    size_t done = MIN(message->len, BODY_LEN - sizeof head);
    int status = send_buffer(c, RDMA_WIRE_FIRST, head, sizeof head, message->payload, done);
    while (status == 0 && done < message->len) {
        size_t piece = MIN(message->len - done, BODY_LEN);
        status = send_buffer(c, RDMA_WIRE_MORE, NULL, 0, message->payload + done, piece);
        done += piece;
    }
    pthread_mutex_unlock(&c->order_lock);
    return status;
}

/* ---- epochs, sending ---- */

/* One RDMA WRITE being put together: local pieces that go to one place of the peer's ring. */
struct gather {
    struct rdma *c;
    uint32_t slot; /* of the peer's ring, where the next page goes */
    struct ibv_sge sges[MAX_SGES];
    int nsges;
    uint32_t len;
    uint64_t remote;
};

static int gather_flush(struct gather *g)
{
    struct rdma *c = g->c;
    if (g->nsges == 0)
        return 0;
    struct ibv_send_wr wr = {
        .sg_list = g->sges,
        .num_sge = g->nsges,
        .opcode = IBV_WR_RDMA_WRITE,
        .wr.rdma = {.remote_addr = g->remote, .rkey = c->grant.ring_rkey},
    };
    int status = post_when_free(c, &wr, false);
    atomic_fetch_add_explicit(&c->bytes_sent, g->len, memory_order_relaxed);
    g->nsges = 0;
    g->len = 0;
    return status;
}

/* The next page of the peer's ring gets len bytes (a page, or the beginning of one). */
static int gather_page(struct gather *g, const uint8_t *at, uint32_t len, uint32_t lkey)
{
    struct ibv_sge *last = g->nsges ? &g->sges[g->nsges - 1] : NULL;
    int status = 0;
    if (last && last->lkey == lkey && last->addr + last->length == (uintptr_t)at && g->len < WRITE_MAX) {
        last->length += len;
    } else {
        if (g->nsges == (int)g->c->max_sges || g->len >= WRITE_MAX)
            status = gather_flush(g);
        if (g->nsges == 0)
            g->remote = g->c->grant.ring_address + (uint64_t)g->slot * STAGING_PAGE_LEN;
        g->sges[g->nsges++] = (struct ibv_sge){.addr = (uintptr_t)at, .length = len, .lkey = lkey};
    }
    g->len += len;
    if (++g->slot == g->c->grant.capacity_pages || len < STAGING_PAGE_LEN) {
        /* The ring's end; or a part of a page, after which the next one does not follow directly. */
        if (status == 0)
            status = gather_flush(g);
        g->slot %= g->c->grant.capacity_pages;
    }
    return status;
}

static void free_meta(struct meta *meta)
{
    if (meta->mr) {
        ibv_dereg_mr(meta->mr);
        atomic_fetch_sub(&objects, 1);
    }
    if (meta->at)
        munmap(meta->at, meta->capacity);
    *meta = (struct meta){0};
}

/* A buffer for len bytes whose last use is over. Grows to the next power of two: seldom. */
static struct meta *take_meta(struct rdma *c, size_t len, int *status)
{
    struct meta *meta = &c->metas[c->next_meta++ % METAS];
    *status = wait_completed(c, meta->until, c->stall_ms);
    if (*status < 0 || meta->capacity >= len)
        return *status < 0 ? NULL : meta;
    free_meta(meta);
    size_t capacity = 64u << 10;
    while (capacity < len)
        capacity *= 2;
    void *at = mmap(NULL, capacity, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) {
        *status = -ENOMEM;
        return NULL;
    }
    meta->at = at;
    meta->capacity = capacity;
    meta->mr = ibv_reg_mr(c->memory->pd, at, capacity, 0);
    if (!meta->mr) {
        *status = -errno;
        free_meta(meta);
        return NULL;
    }
    atomic_fetch_add(&objects, 1);
    return meta;
}

static int post_meta(struct gather *g, const struct meta *meta, size_t len)
{
    int status = 0;
    for (size_t done = 0; status == 0 && done < len; done += STAGING_PAGE_LEN)
        status = gather_page(g, meta->at + done, (uint32_t)MIN(len - done, STAGING_PAGE_LEN), meta->mr->lkey);
    return status == 0 ? gather_flush(g) : status;
}

static int post_pages(struct gather *g, const struct staging *staging, const struct staged_epoch *epoch,
                      uint32_t *crc)
{
    int status = 0;
    for (uint32_t i = 0; status == 0 && i < epoch->npages; i++) {
        if (epoch->pages[i].slot == STAGING_NO_PAGE)
            continue;
        const uint8_t *page = staging_slot(staging, epoch->pages[i].slot);
        *crc = crc32c(*crc, page, STAGING_PAGE_LEN);
        status = gather_page(g, page, STAGING_PAGE_LEN, g->c->memory->staging_mr->lkey);
    }
    return status == 0 ? gather_flush(g) : status;
}

/* WRITE_WITH_IMM of the commit record: the peer learns of the epoch by it, after all that was written before.
 */
static int post_commit(struct rdma *c, const struct rdma_wire_commit *commit, unsigned record)
{
    uint8_t *bytes = c->arena->records[record]; /* its last use is over: the peer has given that epoch back */
    struct ibv_sge sge = {
        .addr = (uintptr_t)bytes, .length = RDMA_WIRE_COMMIT_LEN, .lkey = c->arena_mr->lkey};
    struct ibv_send_wr wr = {
        .sg_list = &sge,
        .num_sge = 1,
        .opcode = IBV_WR_RDMA_WRITE_WITH_IMM,
        .send_flags = RDMA_WIRE_COMMIT_LEN <= c->inline_len ? IBV_SEND_INLINE : 0,
        .imm_data = htonl(record),
        .wr.rdma = {.remote_addr = c->grant.commit_address + (uint64_t)record * COMMIT_STRIDE,
                    .rkey = c->grant.commit_rkey},
    };
    rdma_wire_commit_encode(commit, bytes);
    int status = take_receive(c);
    if (status == 0)
        status = post_when_free(c, &wr, true);
    if (status < 0)
        return status;
    c->ends[c->epochs_posted++ % STAGING_EPOCHS] = wr.wr_id;
    atomic_fetch_add_explicit(&c->bytes_sent, RDMA_WIRE_COMMIT_LEN, memory_order_relaxed);
    return 0;
}

/* What comes before the pages, in one buffer: counts, index, device state. */
static size_t fill_meta(const struct epoch_encoder *encoder, const struct wire_epoch *wire, uint8_t *at)
{
    wire_epoch_encode(wire, at);
    memcpy(at + WIRE_EPOCH_LEN, encoder->index.at, encoder->index.len);
    if (wire->delta_len)
        memcpy(at + WIRE_EPOCH_LEN + encoder->index.len, encoder->delta.at, wire->delta_len);
    return WIRE_EPOCH_LEN + encoder->index.len + wire->delta_len;
}

static uint32_t pages_of(size_t len)
{
    return (uint32_t)((len + STAGING_PAGE_LEN - 1) / STAGING_PAGE_LEN);
}

static int send_epoch_locked(struct rdma *c, uint64_t term, const struct staging *staging,
                             const struct staged_epoch *epoch)
{
    struct wire_epoch wire;
    int status = epoch_encode(&c->encoder, epoch, &wire);
    if (status < 0)
        return status;
    size_t meta_len = WIRE_EPOCH_LEN + c->encoder.index.len + wire.delta_len;
    uint32_t npages = pages_of(meta_len) + wire.ndata;
    status = wait_ring(c, npages);
    struct meta *meta = status == 0 ? take_meta(c, meta_len, &status) : NULL;
    if (!meta)
        return status;
    fill_meta(&c->encoder, &wire, meta->at);
    uint32_t crc = crc32c(0, meta->at, meta_len);
    struct gather gather = {.c = c, .slot = c->grant.next_slot};
    status = post_meta(&gather, meta, meta_len);
    if (status == 0)
        status = post_pages(&gather, staging, epoch, &crc);
    struct rdma_wire_commit commit = {
        .first_page = c->grant.next_slot,
        .header = {.type = MESSAGE_EPOCH,
                   .term = term,
                   .epoch = epoch->epoch,
                   .payload_len = epoch_payload_len(&wire)},
        .commit = {
            .crc = crc, .term = term, .epoch = epoch->epoch, .npages = wire.npages, .ndata = wire.ndata}};
    if (status < 0)
        return status;
    /* Before the commit: the peer may have given the epoch back by the time it is posted. */
    pthread_mutex_lock(&c->room_lock);
    unsigned record = (unsigned)(c->grant.epoch_head++ % STAGING_EPOCHS);
    c->grant.page_head += npages;
    c->grant.next_slot = gather.slot;
    pthread_mutex_unlock(&c->room_lock);
    status = post_commit(c, &commit, record);
    if (status < 0)
        return status;
    pthread_mutex_lock(&c->post_lock);
    meta->until = c->posted;
    pthread_mutex_unlock(&c->post_lock);
    atomic_fetch_add_explicit(&c->epochs_sent, 1, memory_order_relaxed);
    return 0;
}

static int rdma_send_epoch(struct transport *t, uint64_t term, const struct staging *staging,
                           const struct staged_epoch *epoch)
{
    struct rdma *c = rdma_of(t);
    if (staging != c->memory->staging)
        return -EINVAL;
    pthread_mutex_lock(&c->order_lock);
    int status = send_epoch_locked(c, term, staging, epoch);
    pthread_mutex_unlock(&c->order_lock);
    return status;
}

static int64_t rdma_epochs_done(struct transport *t)
{
    struct rdma *c = rdma_of(t);
    for (int round = 0; round < 2; round++) {
        pthread_mutex_lock(&c->post_lock);
        int status = reap(c);
        while (c->epochs_completed < c->epochs_posted &&
               c->ends[c->epochs_completed % STAGING_EPOCHS] <= c->completed)
            c->epochs_completed++;
        pthread_mutex_unlock(&c->post_lock);
        if (status < 0)
            return status;
        if (round == 0) { /* arm done_fd, and look once more: it may have come in between */
            take_cq_events(c->send_channel);
            if (ibv_req_notify_cq(c->send_cq, 0) != 0)
                return -ENOTCONN;
        }
    }
    return (int64_t)c->epochs_completed;
}

static int rdma_done_fd(struct transport *t)
{
    return rdma_of(t)->send_channel->fd;
}

static void rdma_flush(struct transport *t)
{
    struct rdma *c = rdma_of(t);
    pthread_mutex_lock(&c->order_lock);
    pthread_mutex_lock(&c->post_lock);
    uint64_t target = c->posted;
    pthread_mutex_unlock(&c->post_lock);
    wait_completed(c, target, FLUSH_MS);
    pthread_mutex_unlock(&c->order_lock);
}

/* ---- receiving ---- */

static int post_receive(struct rdma *c, unsigned index)
{
    struct ibv_sge sge = {
        .addr = (uintptr_t)c->arena->receives[index], .length = BUFFER_LEN, .lkey = c->arena_mr->lkey};
    struct ibv_recv_wr wr = {.wr_id = index, .sg_list = &sge, .num_sge = 1}, *bad;
    return ibv_post_recv(c->id->qp, &wr, &bad) == 0 ? 0 : -ENOTCONN;
}

/* The buffer is free for the next; the peer is told in time. */
static int give_receive_back(struct rdma *c, unsigned index)
{
    int status = post_receive(c, index);
    uint64_t reposted = atomic_fetch_add(&c->receives_reposted, 1) + 1;
    if (status == 0 && reposted - atomic_load(&c->told_receives) >= RECEIVES / 4)
        send_credit(c);
    return status;
}

static int take_grant(struct rdma *c, const uint8_t *bytes, size_t len)
{
    struct rdma_wire_grant grant;
    int status = rdma_wire_grant_decode(&grant, bytes, len);
    if (status < 0 || c->granted)
        return -EPROTO;
    c->grant = grant;
    c->peer_page_tail = grant.page_tail;
    c->peer_epoch_tail = grant.epoch_tail;
    c->granted = true;
    return 0;
}

/* What the peer says it has given back can only grow, and not beyond what it was given. */
static int take_credits(struct rdma *c, const struct rdma_wire_prefix *prefix, const uint8_t *body,
                        size_t len)
{
    int status = 0;
    pthread_mutex_lock(&c->room_lock);
    if (prefix->receives < c->peer_receives || prefix->receives > c->receives_used)
        status = -EPROTO;
    else
        c->peer_receives = prefix->receives;
    if (status == 0 && prefix->kind == RDMA_WIRE_GRANT)
        status = take_grant(c, body, len);
    if (status == 0 && c->granted) {
        if (prefix->page_tail < c->peer_page_tail || prefix->page_tail > c->grant.page_head ||
            prefix->epoch_tail < c->peer_epoch_tail || prefix->epoch_tail > c->grant.epoch_head)
            status = -EPROTO;
        c->peer_page_tail = prefix->page_tail;
        c->peer_epoch_tail = prefix->epoch_tail;
    }
    pthread_cond_broadcast(&c->room_changed);
    pthread_mutex_unlock(&c->room_lock);
    return status;
}

/* A piece of a message. 1: it is whole. */
static int assemble(struct rdma *c, enum rdma_wire_kind kind, const uint8_t *body, size_t len)
{
    if ((kind == RDMA_WIRE_FIRST) == c->assembling)
        return -EPROTO;
    if (kind == RDMA_WIRE_FIRST) {
        int status = len < WIRE_HEADER_LEN ? -EPROTO : wire_header_decode(&c->header, body);
        if (status < 0)
            return status;
        if (c->header.payload_len > TRANSPORT_MAX_PAYLOAD || c->header.type == MESSAGE_EPOCH)
            return -EPROTO;
        bytes_make_room(&c->payload, c->header.payload_len + 1);
        c->payload.len = 0;
        body += WIRE_HEADER_LEN;
        len -= WIRE_HEADER_LEN;
    }
    if (len > c->header.payload_len - c->payload.len)
        return -EPROTO;
    memcpy(c->payload.at + c->payload.len, body, len);
    c->payload.len += len;
    c->assembling = c->payload.len < c->header.payload_len;
    if (c->assembling)
        return 0;
    return crc32c(0, c->payload.at, c->payload.len) == c->header.payload_crc ? 1 : -EPROTO;
}

/* 1: *out is a message. 0: nothing for the caller. */
static int take_buffer(struct rdma *c, unsigned index, size_t len, struct transport_received *out)
{
    const uint8_t *bytes = c->arena->receives[index];
    struct rdma_wire_prefix prefix;
    int status = rdma_wire_prefix_decode(&prefix, bytes, len);
    if (status < 0)
        return status;
    const uint8_t *body = bytes + RDMA_WIRE_PREFIX_LEN;
    size_t body_len = len - RDMA_WIRE_PREFIX_LEN;
    status = take_credits(c, &prefix, body, body_len);
    if (status < 0)
        return status;
    if (prefix.kind == RDMA_WIRE_FIRST || prefix.kind == RDMA_WIRE_MORE)
        status = assemble(c, (enum rdma_wire_kind)prefix.kind, body, body_len);
    if (status == 1)
        out->message = (struct transport_message){.type = (enum message_type)c->header.type,
                                                  .arg = c->header.arg,
                                                  .term = c->header.term,
                                                  .epoch = c->header.epoch,
                                                  .len = c->payload.len,
                                                  .payload = c->payload.at};
    return status;
}

/* Copies len bytes from ring pages that may wrap: small things that must not change while they are read. */
static void copy_from_ring(const struct staging *staging, uint32_t slot, uint8_t *to, size_t len)
{
    size_t before_end = (size_t)(staging_capacity_pages(staging) - slot) * STAGING_PAGE_LEN;
    size_t first = MIN(len, before_end);
    memcpy(to, staging_slot(staging, slot), first);
    memcpy(to + first, staging_slot(staging, 0), len - first);
}

static uint32_t crc_pages(const struct staging *staging, const struct staged_epoch *epoch, uint32_t crc)
{
    for (uint32_t i = 0; i < epoch->npages; i++)
        if (epoch->pages[i].slot != STAGING_NO_PAGE)
            crc = crc32c(crc, staging_slot(staging, epoch->pages[i].slot), STAGING_PAGE_LEN);
    return crc;
}

/* All that is checked between the open epoch and its commit. */
static int take_parts(struct rdma *c, struct staging *staging, struct staged_epoch *epoch,
                      const struct rdma_wire_commit *record, const struct wire_epoch *wire)
{
    size_t index_len = (size_t)wire->npages * 8, len = WIRE_EPOCH_LEN + index_len + wire->delta_len;
    uint32_t nmeta = pages_of(len);
    int status = staging_place(staging, epoch, record->first_page);
    if (status == 0 && staging_reserve(staging, epoch, nmeta + wire->ndata) < 0)
        status = -EPROTO; /* the peer was told how much room there is */
    if (status < 0)
        return -EPROTO;
    bytes_make_room(&c->payload, len);
    copy_from_ring(staging, record->first_page, c->payload.at, len);
    uint32_t first = (record->first_page + nmeta) % staging_capacity_pages(staging);
    status = epoch_take_index(staging, epoch, wire, c->payload.at + WIRE_EPOCH_LEN, first);
    if (status < 0)
        return status;
    epoch->nblocks = wire->nblocks;
    memcpy(epoch->block_used_len, wire->used_len, sizeof epoch->block_used_len);
    uint32_t crc = crc_pages(staging, epoch, crc32c(0, c->payload.at, len));
    status = epoch_check_commit(&record->header, wire, &record->commit, crc);
    if (status < 0)
        return status;
    atomic_fetch_add_explicit(&c->bytes_received,
                              len + (uint64_t)wire->ndata * STAGING_PAGE_LEN + RDMA_WIRE_COMMIT_LEN,
                              memory_order_relaxed);
    return epoch_take_devstate(&c->decoder, epoch, c->payload.at + WIRE_EPOCH_LEN + index_len,
                               wire->delta_len);
}

/* The commit record with this number was written. 1: *out is an epoch. */
static int take_epoch(struct rdma *c, uint32_t number, struct transport_received *out)
{
    struct staging *staging = c->receiving;
    struct staging_position position;
    struct rdma_wire_commit record;
    struct wire_epoch wire;
    uint8_t bytes[RDMA_WIRE_COMMIT_LEN], fixed[WIRE_EPOCH_LEN];
    if (!staging || c->assembling)
        return -EPROTO;
    staging_position(staging, &position);
    if (number != position.epoch_head % STAGING_EPOCHS)
        return -EPROTO;
    memcpy(bytes, c->arena->commits[number], sizeof bytes);
    int status = rdma_wire_commit_decode(&record, bytes);
    if (status < 0 || record.first_page >= staging_capacity_pages(staging) ||
        record.header.type != MESSAGE_EPOCH)
        return -EPROTO;
    copy_from_ring(staging, record.first_page, fixed, sizeof fixed);
    status = wire_epoch_decode(&wire, fixed, record.header.payload_len, staging_capacity_pages(staging),
                               EPOCH_MAX_DELTA);
    if (status < 0)
        return status;
    struct staged_epoch *epoch = staging_begin(staging, record.header.epoch, (enum staged_kind)wire.kind);
    if (!epoch)
        return -EPROTO;
    status = take_parts(c, staging, epoch, &record, &wire);
    if (status < 0) {
        staging_abort(staging, epoch);
        return status;
    }
    epoch->received_ns = now_ns();
    staging_commit(staging, epoch);
    atomic_fetch_add_explicit(&c->epochs_received, 1, memory_order_relaxed);
    out->epoch = epoch;
    out->message = (struct transport_message){
        .type = MESSAGE_EPOCH, .term = record.header.term, .epoch = record.header.epoch};
    return 1;
}

static int take_completion(struct rdma *c, const struct ibv_wc *wc, struct transport_received *out)
{
    int status;
    if (wc->status != IBV_WC_SUCCESS || wc->wr_id >= RECEIVES)
        return -ENOTCONN;
    unsigned index = (unsigned)wc->wr_id;
    if (wc->opcode == IBV_WC_RECV_RDMA_WITH_IMM) {
        status = take_epoch(c, ntohl(wc->imm_data), out);
    } else {
        atomic_fetch_add_explicit(&c->bytes_received, wc->byte_len, memory_order_relaxed);
        status = take_buffer(c, index, wc->byte_len, out);
    }
    int given = give_receive_back(c, index);
    return status < 0 ? status : given < 0 ? given : status;
}

/* 0: still connected. */
static int take_cm_events(struct rdma *c)
{
    struct rdma_cm_event *event;
    int status = 0;
    while (rdma_get_cm_event(c->id->channel, &event) == 0) {
        switch (event->event) {
        case RDMA_CM_EVENT_DISCONNECTED:
        case RDMA_CM_EVENT_TIMEWAIT_EXIT:
            status = -ENOTCONN;
            break;
        case RDMA_CM_EVENT_DEVICE_REMOVAL:
            status = -ENODEV;
            break;
        default:
            break;
        }
        rdma_ack_cm_event(event);
    }
    return status;
}

/* Sleeps until something may have come: 0, -ETIMEDOUT, or what ended the connection. */
static int wait_receive(struct rdma *c, int timeout_ms)
{
    struct pollfd fds[] = {{.fd = c->receive_channel->fd, .events = POLLIN},
                           {.fd = c->id->channel->fd, .events = POLLIN},
                           {.fd = c->wake_fd, .events = POLLIN}};
    int n = poll(fds, G_N_ELEMENTS(fds), timeout_ms);
    if (fds[0].revents)
        take_cq_events(c->receive_channel);
    if (atomic_load(&c->dead))
        return -ENOTCONN;
    if (n == 0)
        return -ETIMEDOUT;
    return fds[1].revents ? take_cm_events(c) : 0;
}

/* The peer may use our ring from here on. */
static int send_grant(struct rdma *c, struct staging *staging)
{
    struct staging_position position;
    uint8_t bytes[RDMA_WIRE_GRANT_LEN];
    size_t len;
    if (staging != c->memory->staging)
        return -EINVAL;
    staging_position(staging, &position);
    struct rdma_wire_grant grant = {
        .ring_address = (uintptr_t)staging_region(staging, &len),
        .commit_address = (uintptr_t)c->arena->commits,
        .ring_rkey = c->memory->staging_mr->rkey,
        .commit_rkey = c->commits_mr->rkey,
        .capacity_pages = staging_capacity_pages(staging),
        .next_slot = position.next_slot,
        .page_head = position.page_head,
        .page_tail = position.page_tail,
        .epoch_head = position.epoch_head,
        .epoch_tail = position.epoch_tail,
    };
    rdma_wire_grant_encode(&grant, bytes);
    c->receiving = staging;
    atomic_store(&c->gives_back, staging);
    pthread_mutex_lock(&c->order_lock);
    int status = send_buffer(c, RDMA_WIRE_GRANT, bytes, sizeof bytes, NULL, 0);
    pthread_mutex_unlock(&c->order_lock);
    return status;
}

/* 1: *out is filled; 0: something came that is not for the caller; -EAGAIN: nothing came. */
static int poll_once(struct rdma *c, struct transport_received *out)
{
    struct ibv_wc wc;
    if (atomic_load(&c->dead))
        return -ENOTCONN;
    int n = ibv_poll_cq(c->receive_cq, 1, &wc);
    if (n == 0)
        return -EAGAIN;
    return n < 0 ? -ENOTCONN : take_completion(c, &wc, out);
}

/*
 * Like poll_once, but where the last wait was a short one it polls for a little while, and then asks for a
 * wake-up and looks once more: a message may have come in between. A connection that idles does not poll.
 */
static int poll_and_arm(struct rdma *c, struct transport_received *out)
{
    uint64_t until = now_ns() + (c->polling_pays ? SPIN_NS : 0);
    int status;
    do
        status = poll_once(c, out);
    while (status == -EAGAIN && now_ns() < until);
    if (status != -EAGAIN)
        return status;
    return ibv_req_notify_cq(c->receive_cq, 0) == 0 ? poll_once(c, out) : -ENOTCONN;
}

static int rdma_receive(struct transport *t, struct staging *staging, struct transport_received *out)
{
    struct rdma *c = rdma_of(t);
    int gone = 0, status = 0;
    memset(out, 0, sizeof *out);
    if (staging && !c->receiving)
        status = send_grant(c, staging);
    while (status == 0) {
        status = poll_and_arm(c, out);
        if (status != -EAGAIN)
            continue;
        if (gone < 0) { /* what had come before the end is taken */
            status = gone;
            continue;
        }
        uint64_t began = now_ns();
        status = wait_receive(c, c->assembling ? (int)c->stall_ms : IDLE_POLL_MS);
        c->polling_pays = now_ns() - began < 2 * SPIN_NS;
        if (status == -ETIMEDOUT && !c->assembling)
            status = 0;
        if (status == -ENOTCONN && !atomic_load(&c->dead)) {
            gone = status;
            status = 0;
        }
    }
    if (status < 0)
        kill_connection(c);
    return status < 0 ? status : 0;
}

/* ---- life and death ---- */

static void rdma_room(struct transport *t)
{
    send_credit(rdma_of(t));
}

static void rdma_shutdown(struct transport *t)
{
    struct rdma *c = rdma_of(t);
    kill_connection(c);
    if (c->up && !atomic_exchange(&c->disconnecting, true))
        rdma_disconnect(c->id);
}

static void drop_cq(struct ibv_cq *cq, struct ibv_comp_channel *channel)
{
    if (cq) {
        ibv_destroy_cq(cq);
        atomic_fetch_sub(&objects, 1);
    }
    if (channel) {
        ibv_destroy_comp_channel(channel);
        atomic_fetch_sub(&objects, 1);
    }
}

static void drop_mr(struct ibv_mr *mr)
{
    if (!mr)
        return;
    ibv_dereg_mr(mr);
    atomic_fetch_sub(&objects, 1);
}

static void rdma_free(struct transport *t)
{
    struct rdma *c = rdma_of(t);
    rdma_shutdown(t);
    if (c->id && c->id->qp) {
        rdma_destroy_qp(c->id);
        atomic_fetch_sub(&objects, 1);
    }
    drop_cq(c->send_cq, c->send_channel);
    drop_cq(c->receive_cq, c->receive_channel);
    for (unsigned i = 0; i < METAS; i++)
        free_meta(&c->metas[i]);
    drop_mr(c->commits_mr);
    drop_mr(c->arena_mr);
    if (c->arena)
        munmap(c->arena, sizeof *c->arena);
    if (c->up) {
        struct rdma_event_channel *channel = c->id->channel;
        rdma_destroy_id(c->id);
        rdma_destroy_event_channel(channel);
    }
    epoch_encoder_clear(&c->encoder);
    epoch_decoder_clear(&c->decoder);
    bytes_free(&c->payload);
    if (c->wake_fd >= 0)
        close(c->wake_fd);
    pthread_mutex_destroy(&c->order_lock);
    pthread_mutex_destroy(&c->post_lock);
    pthread_mutex_destroy(&c->room_lock);
    pthread_cond_destroy(&c->room_changed);
    rdma_memory_put(c->memory);
    g_free(c);
}

static void rdma_stats(const struct transport *t, struct transport_stats *out)
{
    const struct rdma *c = rdma_of(t);
    out->bytes_sent = atomic_load_explicit(&c->bytes_sent, memory_order_relaxed);
    out->bytes_received = atomic_load_explicit(&c->bytes_received, memory_order_relaxed);
    out->epochs_sent = atomic_load_explicit(&c->epochs_sent, memory_order_relaxed);
    out->epochs_received = atomic_load_explicit(&c->epochs_received, memory_order_relaxed);
}

static const struct transport_ops rdma_ops = {
    .name = "rdma",
    .send_epoch = rdma_send_epoch,
    .epochs_done = rdma_epochs_done,
    .done_fd = rdma_done_fd,
    .flush = rdma_flush,
    .send_message = rdma_send_message,
    .receive = rdma_receive,
    .room = rdma_room,
    .shutdown = rdma_shutdown,
    .free = rdma_free,
    .stats = rdma_stats,
};

/* A completion queue with a channel that does not block. */
static bool make_cq(struct rdma *c, unsigned len, struct ibv_cq **cq, struct ibv_comp_channel **channel)
{
    *channel = ibv_create_comp_channel(c->memory->device);
    if (!*channel)
        return false;
    atomic_fetch_add(&objects, 1);
    fcntl((*channel)->fd, F_SETFL, fcntl((*channel)->fd, F_GETFL) | O_NONBLOCK);
    *cq = ibv_create_cq(c->memory->device, (int)len, NULL, *channel, 0);
    if (*cq)
        atomic_fetch_add(&objects, 1);
    return *cq != NULL;
}

static struct ibv_mr *make_mr(struct rdma *c, void *at, size_t len, int access)
{
    struct ibv_mr *mr = ibv_reg_mr(c->memory->pd, at, len, access);
    if (mr)
        atomic_fetch_add(&objects, 1);
    return mr;
}

static bool make_buffers(struct rdma *c)
{
    void *at = mmap(NULL, sizeof *c->arena, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED)
        return false;
    c->arena = at;
    c->arena_mr = make_mr(c, c->arena, offsetof(struct arena, commits), IBV_ACCESS_LOCAL_WRITE);
    c->commits_mr = make_mr(c, c->arena->commits, sizeof c->arena->commits,
                            IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
    return c->arena_mr && c->commits_mr;
}

static bool make_queue_pair(struct rdma *c)
{
    struct ibv_qp_init_attr attr = {
        .send_cq = c->send_cq,
        .recv_cq = c->receive_cq,
        .cap = {.max_send_wr = QUEUE_LEN,
                .max_recv_wr = RECEIVES,
                .max_send_sge = MIN(MAX_SGES, (unsigned)c->memory->limits.max_sge),
                .max_recv_sge = 1,
                .max_inline_data = INLINE_LEN},
        .qp_type = IBV_QPT_RC,
    };
    if (rdma_create_qp(c->id, c->memory->pd, &attr) != 0) {
        attr.cap.max_inline_data = INLINE_LEAST;
        if (rdma_create_qp(c->id, c->memory->pd, &attr) != 0)
            return false;
    }
    atomic_fetch_add(&objects, 1);
    c->max_sges = MIN(attr.cap.max_send_sge, MAX_SGES);
    c->inline_len = attr.cap.max_inline_data;
    for (unsigned i = 0; i < RECEIVES; i++)
        if (post_receive(c, i) < 0)
            return false;
    return true;
}

struct transport *transport_rdma_new(struct rdma_memory *memory, struct rdma_cm_id *id, unsigned stall_ms)
{
    struct rdma *c = g_new0(struct rdma, 1);
    pthread_condattr_t monotonic;
    c->base.ops = &rdma_ops;
    c->memory = rdma_memory_get(memory);
    c->id = id;
    c->stall_ms = stall_ms;
    c->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    pthread_mutex_init(&c->order_lock, NULL);
    pthread_mutex_init(&c->post_lock, NULL);
    pthread_mutex_init(&c->room_lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&c->room_changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    if (c->wake_fd >= 0 && make_cq(c, QUEUE_LEN, &c->send_cq, &c->send_channel) &&
        make_cq(c, RECEIVES, &c->receive_cq, &c->receive_channel) && make_buffers(c) && make_queue_pair(c))
        return &c->base;
    int error = errno;
    rdma_free(&c->base);
    errno = error;
    return NULL;
}

void transport_rdma_up(struct transport *t)
{
    struct rdma *c = rdma_of(t);
    fcntl(c->id->channel->fd, F_SETFL, fcntl(c->id->channel->fd, F_GETFL) | O_NONBLOCK);
    c->up = true;
}
