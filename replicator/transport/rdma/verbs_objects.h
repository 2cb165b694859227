/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Makes verbs objects and counts them while they exist, so that a test can check that none leaks. Any thread.
 */
#ifndef UNDERSTUDY_REPLICATOR_VERBS_OBJECTS_H
#define UNDERSTUDY_REPLICATOR_VERBS_OBJECTS_H

#include <infiniband/verbs.h>
#include <stdbool.h>
#include <stddef.h>

/* Makes a completion queue of len entries, and a channel that does not block. What was made is in *cq and
 * *channel, also on failure. */
bool verbs_make_cq(struct ibv_context *device, unsigned len, struct ibv_cq **cq,
                   struct ibv_comp_channel **channel);
void verbs_drop_cq(struct ibv_cq *cq, struct ibv_comp_channel *channel);
/* Registers memory. access: IBV_ACCESS_*. NULL and errno. */
struct ibv_mr *verbs_make_mr(struct ibv_pd *pd, void *at, size_t len, int access);
void verbs_drop_mr(struct ibv_mr *mr);
/* Counts n objects more, or fewer, that librdmacm has made or destroyed. */
void verbs_count(int n);
/* Returns how many exist in this process. */
unsigned verbs_alive(void);

#endif
