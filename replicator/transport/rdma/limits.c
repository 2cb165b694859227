/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Judges a device's limits and the host's limit on locked memory, and writes the sentences for doctor and
 * for errors. The judgement is pure; only the report opens devices.
 */
#include "replicator/transport/rdma/limits.h"

#include <errno.h>
#include <gio/gio.h>
#include <linux/capability.h>
#include <stdbool.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

/* As in rdma_internal.h, with a little room. */
#define NEEDED_WRS  600
#define NEEDED_SGES 2
#define NEEDED_MRS  16
#define SMALL_LEN   (4u << 20)  /* small buffers beside staging */
#define LEAST_LEN   (64u << 20) /* staging of the smallest guest worth protecting */
#define LEAST_MTU   IBV_MTU_1024

static int too_low(GError **error, int status, const char *name, const char *what)
{
    g_set_error(error, G_IO_ERROR, g_io_error_from_errno(-status), "RDMA device %s: %s", name, what);
    return status;
}

/* Returns whether the process has CAP_IPC_LOCK: then the kernel does not limit locked memory. */
static bool may_lock_all(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {0};
    if (syscall(SYS_capget, &header, data) != 0)
        return geteuid() == 0;
    return data[CAP_TO_INDEX(CAP_IPC_LOCK)].effective & CAP_TO_MASK(CAP_IPC_LOCK);
}

uint64_t rdma_limits_lockable(void)
{
    struct rlimit limit;
    if (may_lock_all() || getrlimit(RLIMIT_MEMLOCK, &limit) < 0 || limit.rlim_cur == RLIM_INFINITY)
        return UINT64_MAX;
    return limit.rlim_cur;
}

int rdma_limits_judge(const char *name, const struct ibv_device_attr *attr, uint64_t lockable,
                      size_t staging_len, GError **error)
{
    g_autofree char *what = NULL;
    int status = -ENOSPC;
    if (lockable < staging_len + SMALL_LEN) {
        status = -ENOMEM;
        what = g_strdup_printf("%zu MiB have to be locked in memory and the limit is %" G_GUINT64_FORMAT
                               " MiB: raise it (LimitMEMLOCK=infinity in understudyd's unit, or ulimit -l)",
                               (staging_len + SMALL_LEN) >> 20, lockable >> 20);
    } else if (attr->max_mr_size < staging_len) {
        what = g_strdup_printf("it can register %" G_GUINT64_FORMAT " MiB in one piece and %zu are needed: "
                               "give the guest less memory, or use --transport tcp",
                               attr->max_mr_size >> 20, staging_len >> 20);
    } else if (attr->max_qp_wr < NEEDED_WRS || attr->max_cqe < NEEDED_WRS) {
        what = g_strdup_printf("its queues hold %d requests and %d are needed: use --transport tcp",
                               MIN(attr->max_qp_wr, attr->max_cqe), NEEDED_WRS);
    } else if (attr->max_sge < NEEDED_SGES || attr->max_mr < NEEDED_MRS) {
        what =
            g_strdup_printf("it allows %d pieces a request (%d are needed) and %d memory regions (%d): use "
                            "--transport tcp",
                            attr->max_sge, NEEDED_SGES, attr->max_mr, NEEDED_MRS);
    }
    return what ? too_low(error, status, name, what) : 0;
}

int rdma_limits_check(struct ibv_context *device, size_t staging_len, GError **error)
{
    const char *name = ibv_get_device_name(device->device);
    struct ibv_device_attr attr;
    if (ibv_query_device(device, &attr) != 0)
        return too_low(error, -EIO, name, "it does not answer; is its driver loaded?");
    return rdma_limits_judge(name, &attr, rdma_limits_lockable(), staging_len, error);
}

static unsigned mtu_bytes(enum ibv_mtu mtu)
{
    return 128u << mtu;
}

char *rdma_limits_mtu_note(const char *name, enum ibv_mtu active)
{
    return active >= LEAST_MTU
               ? NULL
               : g_strdup_printf(
                     "RDMA device %s sends %u bytes a packet, which is slow: raise the MTU of its network "
                     "device to 1500 or, better, 4200 or more, on both hosts and the switch",
                     name, mtu_bytes(active));
}

/* Describes the device's first usable port, or says what is wrong. */
static char *describe(struct ibv_context *device, bool *good)
{
    const char *name = ibv_get_device_name(device->device);
    g_autoptr(GError) error = NULL;
    struct ibv_device_attr attr;
    struct ibv_port_attr port = {0};
    *good = false;
    if (rdma_limits_check(device, LEAST_LEN, &error) < 0)
        return g_strdup(error->message);
    if (ibv_query_device(device, &attr) != 0)
        return g_strdup_printf("RDMA device %s: it does not answer", name);
    uint8_t number = 1;
    while (number < attr.phys_port_cnt &&
           (ibv_query_port(device, number, &port) != 0 || port.state != IBV_PORT_ACTIVE))
        number++;
    if (ibv_query_port(device, number, &port) != 0 || port.state != IBV_PORT_ACTIVE)
        return g_strdup_printf("RDMA device %s: no port is active: is its cable, or its network device, up?",
                               name);
    *good = true;
    g_autofree char *note = rdma_limits_mtu_note(name, port.active_mtu);
    uint64_t most = MIN(rdma_limits_lockable(), attr.max_mr_size);
    g_autofree char *guests = most < 1ull << 40
                                  ? g_strdup_printf(", guests of up to %" G_GUINT64_FORMAT " MiB", most >> 20)
                                  : g_strdup("");
    return g_strdup_printf("%s: port %u active, %s, %u bytes a packet%s%s%s", name, number,
                           port.link_layer == IBV_LINK_LAYER_ETHERNET ? "Ethernet" : "InfiniBand",
                           mtu_bytes(port.active_mtu), guests, note ? ". " : "", note ? note : "");
}

char **rdma_limits_report(char ***faults)
{
    int n = 0;
    struct ibv_device **list = ibv_get_device_list(&n);
    GPtrArray *lines = g_ptr_array_new(), *bad = g_ptr_array_new();
    for (int i = 0; list && i < n; i++) {
        struct ibv_context *device = ibv_open_device(list[i]);
        bool good = false;
        char *line = device ? describe(device, &good)
                            : g_strdup_printf("RDMA device %s cannot be opened: %s",
                                              ibv_get_device_name(list[i]), g_strerror(errno));
        g_ptr_array_add(good ? lines : bad, line);
        if (device)
            ibv_close_device(device);
    }
    if (list)
        ibv_free_device_list(list);
    g_ptr_array_add(lines, NULL);
    g_ptr_array_add(bad, NULL);
    *faults = (char **)g_ptr_array_free(bad, FALSE);
    return (char **)g_ptr_array_free(lines, FALSE);
}
