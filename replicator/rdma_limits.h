/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the RDMA transport needs of a device and of this host, looked at before a guest depends on it. Used by
 * the replicator at start and by `understudy doctor`. Any thread.
 */
#ifndef UNDERSTUDY_REPLICATOR_RDMA_LIMITS_H
#define UNDERSTUDY_REPLICATOR_RDMA_LIMITS_H

#include <glib.h>
#include <infiniband/verbs.h>
#include <stddef.h>

/* 0, or -errno with error set: which limit is too low for staging_len bytes of staging, and what to raise. */
int rdma_limits_check(struct ibv_context *device, size_t staging_len, GError **error);

/*
 * One line for each RDMA device of this host, with its ports, or with what is wrong with it; NULL-terminated,
 * the caller's (g_strfreev). Empty: there is none. *good counts the devices without fault.
 */
char **rdma_limits_report(unsigned *good);

#endif
