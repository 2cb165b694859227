/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Flow control of an RDMA connection (rdma_internal.h). It counts what the peer has room for: its receive
 * buffers, its ring's pages and its ring's epochs, all from the connection's beginning. Each SEND says how
 * many its sender has returned so far.
 */
#include <errno.h>

#include "replicator/transport/rdma/rdma_internal.h"

/* Returns the number of the peer's free receive buffers. room_lock is held. */
static uint64_t peer_free(const struct rdma *c)
{
    return RECEIVES - (c->receives_used - c->peer_receives);
}

/* Waits once for room_changed, at most until end. 0: check again; or -errno. room_lock is held. */
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
int credit_take_receive(struct rdma *c)
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

/* Takes a receive buffer for a bare credit, one of the kept ones too. False: there is none. */
static bool take_last_receive(struct rdma *c)
{
    pthread_mutex_lock(&c->room_lock);
    bool free_one = peer_free(c) > 0;
    c->receives_used += free_one;
    pthread_mutex_unlock(&c->room_lock);
    return free_one;
}

int credit_wait_ring(struct rdma *c, uint64_t npages, unsigned stalls)
{
    uint64_t end = now_ns() + (uint64_t)c->stall_ms * stalls * 1000000;
    int status = 0;
    pthread_mutex_lock(&c->room_lock);
    while (status == 0 && !c->granted)
        status = wait_room(c, end);
    if (status == 0 && npages > c->grant.capacity_pages)
        status = -EMSGSIZE;
    while (status == 0 && (c->grant.page_head - c->peer_page_tail + npages > c->grant.capacity_pages ||
                           c->grant.epoch_head - c->peer_epoch_tail >= STAGING_EPOCHS))
        status = wait_room(c, end);
    /* An empty ring begins again at its first page, which is most likely in the caches. */
    if (status == 0 && c->grant.page_head == c->peer_page_tail)
        c->grant.next_slot = 0;
    pthread_mutex_unlock(&c->room_lock);
    return atomic_load(&c->dead) ? -ENOTCONN : status;
}

void credit_put_prefix(struct rdma *c, enum rdma_wire_kind kind, uint8_t *at)
{
    struct rdma_wire_prefix prefix = {.kind = kind, .receives = atomic_load(&c->receives_reposted)};
    struct staging *staging = atomic_load(&c->gives_back);
    if (staging)
        staging_tails(staging, &prefix.page_tail, &prefix.epoch_tail);
    rdma_wire_prefix_encode(&prefix, at);
    atomic_store(&c->told_receives, prefix.receives);
    c->told_page_tail = prefix.page_tail;
    c->told_epoch_tail = prefix.epoch_tail;
}

/* Returns whether enough was returned since the last message to tell the peer. post_lock is held. */
static bool has_news(const struct rdma *c)
{
    const struct staging *staging = atomic_load(&c->gives_back);
    uint64_t page_tail, epoch_tail;
    if (atomic_load(&c->receives_reposted) - atomic_load(&c->told_receives) >= RECEIVES / 4)
        return true;
    if (!staging)
        return false;
    staging_tails(staging, &page_tail, &epoch_tail);
    return page_tail != c->told_page_tail || epoch_tail != c->told_epoch_tail;
}

void credit_send(struct rdma *c)
{
    uint8_t bytes[RDMA_WIRE_PREFIX_LEN + SEAL_TAG_LEN];
    const struct iovec plain = {bytes, RDMA_WIRE_PREFIX_LEN};
    uint32_t len = c->credit_out ? sizeof bytes : RDMA_WIRE_PREFIX_LEN;
    struct ibv_sge sge = {.addr = (uintptr_t)bytes, .length = len};
    struct ibv_send_wr wr = {
        .sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_SEND, .send_flags = IBV_SEND_INLINE};
    pthread_mutex_lock(&c->post_lock);
    bool fits =
        has_news(c) && queue_reap(c) == 0 && c->posted - c->completed < QUEUE_LEN && take_last_receive(c);
    if (fits) {
        credit_put_prefix(c, RDMA_WIRE_CREDIT, bytes);
        int status =
            c->credit_out ? seal_close(c->credit_out, &LABEL_CREDIT, &plain, 1, bytes + plain.iov_len) : 0;
        if (status == 0)
            queue_post(c, &wr, true); /* fails where the connection is dead */
        else
            queue_kill(c); /* the seal's record numbers are used up */
        atomic_fetch_add_explicit(&c->bytes_sent, len, memory_order_relaxed);
    }
    pthread_mutex_unlock(&c->post_lock);
}

/* Posts the receive buffer again. Sends a bare credit once a quarter of them was returned and not told. */
int credit_give_receive_back(struct rdma *c, unsigned index)
{
    int status = queue_post_receive(c, index);
    uint64_t reposted = atomic_fetch_add(&c->receives_reposted, 1) + 1;
    if (status == 0 && reposted - atomic_load(&c->told_receives) >= RECEIVES / 4)
        credit_send(c);
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

/* Checks and takes the peer's counters: they only grow, and never beyond what it was given. */
int credit_take(struct rdma *c, const struct rdma_wire_prefix *prefix, const uint8_t *body, size_t len)
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
