/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Limits that the RDMA transport needs of a device and of this host, checked before a guest depends on
 * them. Used by the replicator at start, and by the daemon for `understudy doctor`. Any thread.
 */
#ifndef UNDERSTUDY_REPLICATOR_RDMA_LIMITS_H
#define UNDERSTUDY_REPLICATOR_RDMA_LIMITS_H

#include <glib.h>
#include <infiniband/verbs.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes that this process may lock in memory; UINT64_MAX: as many as there are. */
uint64_t rdma_limits_lockable(void);

/*
 * 0, or -errno with error set: which limit is too low for staging_len bytes of staging, and what to raise.
 * Pure: the device's name and attributes and the host's limit come in.
 */
int rdma_limits_judge(const char *name, const struct ibv_device_attr *attr, uint64_t lockable,
                      size_t staging_len, GError **error);
/* The same for an open device of this host. */
int rdma_limits_check(struct ibv_context *device, size_t staging_len, GError **error);

/* A sentence about packets that are smaller than they should be, the caller's; or NULL. Pure. */
char *rdma_limits_mtu_note(const char *name, enum ibv_mtu active);

/*
 * One line for each RDMA device of this host that is fit, with its port; and in *faults one for each that is
 * not, with what to do. Both NULL-terminated, the caller's (g_strfreev).
 */
char **rdma_limits_report(char ***faults);

#endif
