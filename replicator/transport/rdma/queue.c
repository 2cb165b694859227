/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The send queue of an RDMA connection and its completions (rdma_internal.h). Work requests are counted. A
 * completion carries the count of the last request that it covers, so that few requests have to ask for
 * one.
 */
#include <errno.h>
#include <poll.h>
#include <unistd.h>

#include "replicator/transport/rdma/rdma_internal.h"

/* Marks the connection dead and wakes all threads that wait in it. */
void queue_kill(struct rdma *c)
{
    uint64_t one = 1;
    atomic_store(&c->dead, true);
    ssize_t ignored = write(c->wake_fd, &one, sizeof one);
    (void)ignored;
    pthread_mutex_lock(&c->room_lock);
    pthread_cond_broadcast(&c->room_changed);
    pthread_mutex_unlock(&c->room_lock);
}

/* Takes the completions that have arrived. post_lock is held. */
int queue_reap(struct rdma *c)
{
    struct ibv_wc wc[16];
    int n;
    while ((n = ibv_poll_cq(c->send_cq, G_N_ELEMENTS(wc), wc)) > 0) {
        for (int i = 0; i < n; i++) {
            if (wc[i].status != IBV_WC_SUCCESS) {
                queue_kill(c);
                return -ENOTCONN;
            }
            c->completed = wc[i].wr_id;
        }
    }
    return n < 0 || atomic_load(&c->dead) ? -ENOTCONN : 0;
}

/* Clears the wake-ups of a completion channel. */
void queue_take_events(struct ibv_comp_channel *channel)
{
    struct ibv_cq *cq;
    void *context;
    while (ibv_get_cq_event(channel, &cq, &context) == 0)
        ibv_ack_cq_events(cq, 1);
}

/* Waits until this many work requests are completed. -ETIMEDOUT after timeout_ms without it. */
int queue_wait(struct rdma *c, uint64_t target, unsigned timeout_ms)
{
    uint64_t end = now_ns() + (uint64_t)timeout_ms * 1000000;
    bool armed = false;
    for (;;) {
        pthread_mutex_lock(&c->post_lock);
        int status = queue_reap(c);
        bool there = c->completed >= target;
        pthread_mutex_unlock(&c->post_lock);
        if (status < 0 || there)
            return status;
        uint64_t now = now_ns();
        if (now >= end)
            return -ETIMEDOUT;
        if (!armed) { /* check again after arming: a completion may have arrived before */
            if (ibv_req_notify_cq(c->send_cq, 0) != 0)
                return -ENOTCONN;
            armed = true;
            continue;
        }
        struct pollfd fds[] = {{.fd = c->send_channel->fd, .events = POLLIN},
                               {.fd = c->wake_fd, .events = POLLIN}};
        poll(fds, G_N_ELEMENTS(fds), (int)((end - now) / 1000000) + 1);
        queue_take_events(c->send_channel);
        armed = false;
    }
}

int queue_post(struct rdma *c, struct ibv_send_wr *first, bool signal)
{
    struct ibv_send_wr *bad;
    uint64_t n = 0;
    for (struct ibv_send_wr *wr = first; wr; wr = wr->next) {
        if (++c->unsignalled >= SIGNAL_EVERY || (signal && !wr->next)) {
            wr->send_flags |= IBV_SEND_SIGNALED;
            c->unsignalled = 0;
        }
        wr->wr_id = c->posted + ++n;
    }
    if (atomic_load(&c->dead) || ibv_post_send(c->id->qp, first, &bad) != 0)
        return -ENOTCONN;
    c->posted += n;
    return 0;
}

int queue_post_when_free(struct rdma *c, struct ibv_send_wr *first, bool signal)
{
    uint64_t n = 0;
    for (const struct ibv_send_wr *wr = first; wr; wr = wr->next)
        n++;
    for (;;) {
        pthread_mutex_lock(&c->post_lock);
        uint64_t used = c->posted - c->completed, oldest = c->completed + 1;
        int status = used + n <= QUEUE_LEN - QUEUE_KEPT ? queue_post(c, first, signal) : -EAGAIN;
        pthread_mutex_unlock(&c->post_lock);
        if (status != -EAGAIN)
            return status;
        status = queue_wait(c, oldest, c->stall_ms);
        if (status < 0)
            return status;
    }
}

int queue_post_receive(struct rdma *c, unsigned index)
{
    struct ibv_sge sge = {
        .addr = (uintptr_t)c->arena->receives[index], .length = BUFFER_LEN, .lkey = c->arena_mr->lkey};
    struct ibv_recv_wr wr = {.wr_id = index, .sg_list = &sge, .num_sge = 1}, *bad;
    return ibv_post_recv(c->id->qp, &wr, &bad) == 0 ? 0 : -ENOTCONN;
}
