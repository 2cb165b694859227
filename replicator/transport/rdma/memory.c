/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One device's resources: its protection domain, a ring registered once, and the limits of the device. An
 * id bound to the device's address keeps librdmacm from closing the device while this lives.
 */
#include <errno.h>
#include <gio/gio.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

#include "replicator/transport/rdma/limits.h"
#include "replicator/transport/rdma/rdma.h"

static void set_error(GError **error, int status, const char *what, const struct ibv_context *device)
{
    g_set_error(error, G_IO_ERROR, g_io_error_from_errno(-status), "RDMA device %s: %s: %s",
                ibv_get_device_name(device->device), what, g_strerror(-status));
}

/* Notes a small MTU in the log: not an error, but a reason for low speed. */
static void note_mtu(const struct rdma_memory *memory)
{
    struct ibv_port_attr port;
    if (ibv_query_port(memory->device, memory->anchor->port_num, &port) != 0)
        return;
    g_autofree char *note =
        rdma_limits_mtu_note(ibv_get_device_name(memory->device->device), port.active_mtu);
    if (note)
        g_warning("%s", note);
}

/* Makes the second ring of sealed connections. Its pages are allocated when it is registered. */
static int make_ring(struct rdma_memory *memory, GError **error)
{
    void *at = mmap(NULL, memory->ring_len, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) {
        int status = -errno;
        g_set_error(error, G_IO_ERROR, g_io_error_from_errno(-status), "no memory for sealed epochs: %s",
                    g_strerror(-status));
        return status;
    }
    madvise(at, memory->ring_len, MADV_HUGEPAGE);
    memory->ring = at;
    return 0;
}

static int register_ring(struct rdma_memory *memory, GError **error)
{
    size_t len = memory->ring_len;
    memory->ring_mr =
        ibv_reg_mr(memory->pd, memory->ring, len, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
    if (memory->ring_mr)
        return 0;
    int status = -errno;
    g_set_error(error, G_IO_ERROR, g_io_error_from_errno(-status),
                "RDMA device %s cannot register %zu MiB of staging memory: %s%s",
                ibv_get_device_name(memory->device->device), len >> 20, g_strerror(-status),
                status == -ENOMEM
                    ? " (raise the locked-memory limit, LimitMEMLOCK= of understudyd's unit, or free memory)"
                    : "");
    return status;
}

/* Makes the anchor: an id that is bound to the address, and so to its device. */
static int make_anchor(struct rdma_memory *memory, const struct sockaddr *local, GError **error)
{
    struct sockaddr_storage address = {0};
    char host[NI_MAXHOST] = "?";
    socklen_t len = local->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    memcpy(&address, local, len);
    if (local->sa_family == AF_INET6)
        ((struct sockaddr_in6 *)&address)->sin6_port = 0;
    else
        ((struct sockaddr_in *)&address)->sin_port = 0;
    getnameinfo(local, len, host, sizeof host, NULL, 0, NI_NUMERICHOST);
    int status = rdma_create_id(NULL, &memory->anchor, NULL, RDMA_PS_TCP) == 0 &&
                         rdma_bind_addr(memory->anchor, (struct sockaddr *)&address) == 0
                     ? 0
                     : -errno;
    if (status == 0 && !memory->anchor->verbs)
        status = -ENODEV;
    if (status < 0)
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND, "no RDMA device has the address %s: %s", host,
                    g_strerror(-status));
    else
        memory->device = memory->anchor->verbs;
    return status;
}

int rdma_memory_new(const struct sockaddr *local, struct staging *staging, bool sealed,
                    struct rdma_memory **out, GError **error)
{
    struct rdma_memory *memory = g_new0(struct rdma_memory, 1);
    atomic_init(&memory->references, 1);
    memory->staging = staging;
    memory->sealed = sealed;
    void *region = staging_region(staging, &memory->ring_len);
    int status = make_anchor(memory, local, error);
    if (status == 0)
        status = rdma_limits_check(memory->device, memory->ring_len, error);
    if (status == 0 && ibv_query_device(memory->device, &memory->limits) != 0) {
        status = -errno;
        set_error(error, status, "cannot be queried", memory->device);
    }
    if (status == 0) {
        memory->pd = ibv_alloc_pd(memory->device);
        if (!memory->pd) {
            status = -errno;
            set_error(error, status, "no protection domain", memory->device);
        }
    }
    if (status == 0 && sealed) {
        status = make_ring(memory, error);
    } else if (status == 0) {
        staging_pin(staging);
        memory->ring = region;
    }
    if (status == 0)
        status = register_ring(memory, error);
    if (status < 0) {
        rdma_memory_put(memory);
        return status;
    }
    note_mtu(memory);
    *out = memory;
    return 0;
}

struct rdma_memory *rdma_memory_get(struct rdma_memory *memory)
{
    atomic_fetch_add_explicit(&memory->references, 1, memory_order_relaxed);
    return memory;
}

bool rdma_memory_removed(struct rdma_memory *memory)
{
    struct pollfd pfd = {.fd = memory->anchor->channel->fd, .events = POLLIN};
    struct rdma_cm_event *event;
    if (!memory->removed && poll(&pfd, 1, 0) > 0 && rdma_get_cm_event(memory->anchor->channel, &event) == 0) {
        memory->removed = event->event == RDMA_CM_EVENT_DEVICE_REMOVAL;
        rdma_ack_cm_event(event);
    }
    return memory->removed;
}

void rdma_memory_put(struct rdma_memory *memory)
{
    if (!memory || atomic_fetch_sub_explicit(&memory->references, 1, memory_order_acq_rel) != 1)
        return;
    if (memory->ring_mr)
        ibv_dereg_mr(memory->ring_mr);
    if (memory->sealed && memory->ring)
        munmap(memory->ring, memory->ring_len);
    if (memory->pd)
        ibv_dealloc_pd(memory->pd);
    if (memory->anchor)
        rdma_destroy_id(memory->anchor);
    g_free(memory);
}
