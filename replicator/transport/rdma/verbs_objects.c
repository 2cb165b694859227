/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Makes and destroys completion queues and memory regions, and counts them with one atomic counter for the
 * process.
 */
#include "replicator/transport/rdma/verbs_objects.h"

#include <fcntl.h>
#include <stdatomic.h>

static _Atomic int alive;

void verbs_count(int n)
{
    atomic_fetch_add(&alive, n);
}

unsigned verbs_alive(void)
{
    return (unsigned)atomic_load(&alive);
}

bool verbs_make_cq(struct ibv_context *device, unsigned len, struct ibv_cq **cq,
                   struct ibv_comp_channel **channel)
{
    *channel = ibv_create_comp_channel(device);
    if (!*channel)
        return false;
    verbs_count(1);
    fcntl((*channel)->fd, F_SETFL, fcntl((*channel)->fd, F_GETFL) | O_NONBLOCK);
    *cq = ibv_create_cq(device, (int)len, NULL, *channel, 0);
    if (*cq)
        verbs_count(1);
    return *cq != NULL;
}

void verbs_drop_cq(struct ibv_cq *cq, struct ibv_comp_channel *channel)
{
    if (cq) {
        ibv_destroy_cq(cq);
        verbs_count(-1);
    }
    if (channel) {
        ibv_destroy_comp_channel(channel);
        verbs_count(-1);
    }
}

struct ibv_mr *verbs_make_mr(struct ibv_pd *pd, void *at, size_t len, int access)
{
    struct ibv_mr *mr = ibv_reg_mr(pd, at, len, access);
    if (mr)
        verbs_count(1);
    return mr;
}

void verbs_drop_mr(struct ibv_mr *mr)
{
    if (!mr)
        return;
    ibv_dereg_mr(mr);
    verbs_count(-1);
}
