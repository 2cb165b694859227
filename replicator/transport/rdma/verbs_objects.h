/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Verbs objects that are counted while they live, so that a test can tell that nothing leaks. Any thread.
 */
#ifndef UNDERSTUDY_REPLICATOR_VERBS_OBJECTS_H
#define UNDERSTUDY_REPLICATOR_VERBS_OBJECTS_H

#include <infiniband/verbs.h>
#include <stdbool.h>
#include <stddef.h>

/* A completion queue of len entries, with a channel that does not block. What was made is in *cq and
 * *channel, also on failure. */
bool verbs_make_cq(struct ibv_context *device, unsigned len, struct ibv_cq **cq,
                   struct ibv_comp_channel **channel);
void verbs_drop_cq(struct ibv_cq *cq, struct ibv_comp_channel *channel);
/* NULL and errno. access: IBV_ACCESS_*. */
struct ibv_mr *verbs_make_mr(struct ibv_pd *pd, void *at, size_t len, int access);
void verbs_drop_mr(struct ibv_mr *mr);
/* For what librdmacm makes and destroys: n more, or fewer, are alive. */
void verbs_count(int n);
/* How many are alive in this process. */
unsigned verbs_alive(void);

#endif
