/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Checks the limits of a device and of this host that the RDMA transport depends on, before a guest does.
 * Used by the replicator at start, and by the daemon for `understudy doctor`. Any thread.
 */
#ifndef UNDERSTUDY_REPLICATOR_RDMA_LIMITS_H
#define UNDERSTUDY_REPLICATOR_RDMA_LIMITS_H

#include <glib.h>
#include <infiniband/verbs.h>
#include <stddef.h>
#include <stdint.h>

/* Returns the bytes that this process may lock in memory; UINT64_MAX: no limit. */
uint64_t rdma_limits_lockable(void);

/*
 * Checks the limits for staging_len bytes of staging. 0, or -errno with error set: which limit is too low,
 * and what to do. Pure: the device's name and attributes and the host's limit come in.
 */
int rdma_limits_judge(const char *name, const struct ibv_device_attr *attr, uint64_t lockable,
                      size_t staging_len, GError **error);
/* The same for an open device of this host. */
int rdma_limits_check(struct ibv_context *device, size_t staging_len, GError **error);

/* Returns a sentence if packets are smaller than they should be (the caller frees it), or NULL. Pure. */
char *rdma_limits_mtu_note(const char *name, enum ibv_mtu active);

/*
 * Returns a line for each RDMA device of this host that is fit, with its port. *faults: a line for each that
 * is not, with what to do. The caller frees both (g_strfreev).
 */
char **rdma_limits_report(char ***faults);

#endif
