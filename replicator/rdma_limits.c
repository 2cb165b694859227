/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See rdma_limits.h. */
#include "replicator/rdma_limits.h"

#include <errno.h>
#include <gio/gio.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/resource.h>
#include <unistd.h>

/* As in transport_rdma.c, with a little room. */
#define NEEDED_WRS  600
#define NEEDED_SGES 2
#define NEEDED_MRS  16
#define SMALL_LEN   (4u << 20) /* small buffers beside staging */
#define LEAST_MTU   IBV_MTU_1024

static int too_low(GError **error, int status, const struct ibv_context *device, const char *what)
{
    g_set_error(error, G_IO_ERROR, g_io_error_from_errno(-status), "RDMA device %s: %s",
                ibv_get_device_name(device->device), what);
    return status;
}

static int check_memlock(const struct ibv_context *device, size_t needed, GError **error)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_MEMLOCK, &limit) < 0 || limit.rlim_cur == RLIM_INFINITY ||
        limit.rlim_cur >= needed || geteuid() == 0) /* CAP_IPC_LOCK: the limit does not count */
        return 0;
    g_autofree char *what = g_strdup_printf(
        "%zu MiB have to be locked in memory and the limit is %llu MiB: raise it (LimitMEMLOCK=infinity in "
        "understudyd's unit, or ulimit -l)",
        needed >> 20, (unsigned long long)limit.rlim_cur >> 20);
    return too_low(error, -ENOMEM, device, what);
}

static int check_device(struct ibv_context *device, size_t staging_len, GError **error)
{
    struct ibv_device_attr attr;
    g_autofree char *what = NULL;
    if (ibv_query_device(device, &attr) != 0)
        return too_low(error, -errno, device, "it does not answer; is its driver loaded?");
    if (attr.max_mr_size < staging_len)
        what =
            g_strdup_printf("it can register %llu MiB in one piece and %zu are needed: give the guest less "
                            "memory, or use --transport tcp",
                            (unsigned long long)attr.max_mr_size >> 20, staging_len >> 20);
    else if (attr.max_qp_wr < NEEDED_WRS || attr.max_cqe < NEEDED_WRS)
        what = g_strdup_printf("its queues hold %d requests and %d are needed: use --transport tcp",
                               MIN(attr.max_qp_wr, attr.max_cqe), NEEDED_WRS);
    else if (attr.max_sge < NEEDED_SGES || attr.max_mr < NEEDED_MRS)
        what = g_strdup_printf("it allows %d pieces a request and %d memory regions: use --transport tcp",
                               attr.max_sge, attr.max_mr);
    return what ? too_low(error, -ENOSPC, device, what) : 0;
}

int rdma_limits_check(struct ibv_context *device, size_t staging_len, GError **error)
{
    int status = check_memlock(device, staging_len + SMALL_LEN, error);
    return status < 0 ? status : check_device(device, staging_len, error);
}

static unsigned mtu_bytes(enum ibv_mtu mtu)
{
    return 128u << mtu;
}

/* A sentence about the device's first port that is of use, or what is wrong. */
static char *describe(struct ibv_context *device, bool *good)
{
    const char *name = ibv_get_device_name(device->device);
    g_autoptr(GError) error = NULL;
    struct ibv_device_attr attr;
    struct ibv_port_attr port = {0};
    *good = false;
    if (rdma_limits_check(device, 64u << 20, &error) < 0)
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
    return g_strdup_printf(
        "RDMA device %s: port %u active, %s, %u bytes a packet%s", name, number,
        port.link_layer == IBV_LINK_LAYER_ETHERNET ? "Ethernet" : "InfiniBand", mtu_bytes(port.active_mtu),
        port.active_mtu < LEAST_MTU
            ? " (slow: raise the network device's MTU to 4200 or more, on both hosts and the "
              "switch)"
            : "");
}

char **rdma_limits_report(unsigned *good)
{
    int n = 0;
    struct ibv_device **list = ibv_get_device_list(&n);
    GPtrArray *lines = g_ptr_array_new();
    *good = 0;
    for (int i = 0; list && i < n; i++) {
        struct ibv_context *device = ibv_open_device(list[i]);
        bool fine = false;
        g_ptr_array_add(lines, device ? describe(device, &fine)
                                      : g_strdup_printf("RDMA device %s cannot be opened: %s",
                                                        ibv_get_device_name(list[i]), g_strerror(errno)));
        *good += fine;
        if (device)
            ibv_close_device(device);
    }
    if (list)
        ibv_free_device_list(list);
    g_ptr_array_add(lines, NULL);
    return (char **)g_ptr_array_free(lines, FALSE);
}
