/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The RDMA endpoint: connections by librdmacm. Each connection gets an event channel of its own once it is
 * established. Requests that come while another is being established are refused, since a replicator has
 * one peer. The connection's private data shows that the peer knows the VM's secret, or where links are not
 * sealed carries the session's token: a stranger never gets a queue pair.
 */
#include <errno.h>
#include <fcntl.h>
#include <gio/gio.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "common/address.h"
#include "proto/rdma_wire.h"
#include "replicator/transport/endpoint.h"
#include "replicator/transport/rdma/limits.h"
#include "replicator/transport/rdma/rdma.h"

#define ESTABLISH_MS    2000
#define RESOLVE_MS      1000
#define LISTEN_EVERY_US G_USEC_PER_SEC
#define WARN_EVERY_US   G_USEC_PER_SEC
/*
 * The peer's device has 4.096 us * 2^16 = 0.27 s to acknowledge, and six retries: then a lost host ends the
 * connection with IBV_WC_RETRY_EXC_ERR. Heartbeats are faster. Not seven retries, the maximum: soft-RoCE
 * (rdma_rxe, Linux 6.1) takes seven as unlimited and never reports a lost host.
 */
#define ACK_TIMEOUT 16
#define RETRIES     6
#define RNR_RETRIES 6

struct rdma_endpoint {
    struct endpoint base;
    struct staging *staging;
    uint8_t token[WIRE_TOKEN_LEN];
    bool sealed;
    GMutex mutex;
    uint8_t secret[SEAL_SECRET_LEN]; /* under mutex */
    unsigned stall_ms;
    struct rdma_memory *memory; /* of the device used last, or NULL */
    struct rdma_event_channel *channel;
    struct rdma_cm_id *listener; /* NULL: does not listen */
    struct sockaddr_storage listen_address;
    bool listens;
    gint64 tried_us;
    gint64 warned_us; /* of a stranger: one that comes again and again does not fill the log */
};

static const struct endpoint_ops rdma_endpoint_ops;

static void do_not_block(int fd)
{
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

/*
 * Waits for the channel's next event, at most until end_us. Returns 0 with *event, which the caller has to
 * acknowledge (rdma_ack_cm_event), or -errno.
 */
static int next_event(struct rdma_event_channel *channel, gint64 end_us, struct rdma_cm_event **event)
{
    struct pollfd pfd = {.fd = channel->fd, .events = POLLIN};
    for (;;) {
        if (rdma_get_cm_event(channel, event) == 0)
            return 0;
        if (errno != EAGAIN && errno != EINTR)
            return -errno;
        gint64 left = end_us - g_get_monotonic_time();
        if (left <= 0)
            return -ETIMEDOUT;
        poll(&pfd, 1, (int)(left / 1000) + 1);
    }
}

/* Waits for the next event of a channel that has a single id. 0 if it is the wanted one, otherwise -errno. */
static int await_event(struct rdma_event_channel *channel, enum rdma_cm_event_type wanted,
                       unsigned timeout_ms)
{
    struct rdma_cm_event *event;
    int status = next_event(channel, g_get_monotonic_time() + (gint64)timeout_ms * 1000, &event);
    if (status < 0)
        return status;
    if (event->event == RDMA_CM_EVENT_REJECTED)
        status = -ECONNREFUSED;
    else if (event->event != wanted)
        status = event->status < 0 ? event->status : -EHOSTUNREACH;
    rdma_ack_cm_event(event);
    return status;
}

static bool has_devices(void)
{
    int n = 0;
    struct ibv_device **list = ibv_get_device_list(&n);
    if (list)
        ibv_free_device_list(list);
    return n > 0;
}

/* Registers memory for staging with the id's device, unless endpoint->memory is of this device already. */
static int memory_for(struct rdma_endpoint *endpoint, struct rdma_cm_id *id, GError **error)
{
    if (endpoint->memory && endpoint->memory->device == id->verbs)
        return 0;
    g_clear_pointer(&endpoint->memory, rdma_memory_put);
    return rdma_memory_new(rdma_get_local_addr(id), endpoint->staging, endpoint->sealed, &endpoint->memory,
                           error);
}

static void fill_parameters(struct rdma_conn_param *parameters, const void *private, uint8_t private_len)
{
    *parameters = (struct rdma_conn_param){
        .private_data = private,
        .private_data_len = private_len,
        .responder_resources = 1,
        .initiator_depth = 1,
        .retry_count = RETRIES,
        .rnr_retry_count = RNR_RETRIES,
    };
}

static void set_ack_timeout(struct rdma_cm_id *id)
{
    uint8_t timeout = ACK_TIMEOUT;
    /* Old kernels lack this option: their timeout is longer, and heartbeats notice a lost host first. */
    rdma_set_option(id, RDMA_OPTION_ID, RDMA_OPTION_ID_ACK_TIMEOUT, &timeout, sizeof timeout);
}

/* ---- private data ---- */

G_STATIC_ASSERT(RDMA_WIRE_TICKET_LEN == SEAL_TICKET_LEN);

static void rdma_set_secret(struct endpoint *base, const uint8_t secret[SEAL_SECRET_LEN])
{
    struct rdma_endpoint *endpoint = (struct rdma_endpoint *)base;
    g_mutex_lock(&endpoint->mutex);
    memcpy(endpoint->secret, secret, SEAL_SECRET_LEN);
    g_mutex_unlock(&endpoint->mutex);
}

/* Makes a connection's private data: a sealed ticket, or the token. Returns its length, or -errno. */
static int make_private(struct rdma_endpoint *endpoint, uint8_t out[RDMA_WIRE_SEALED_LEN])
{
    uint8_t ticket[SEAL_TICKET_LEN];
    if (!endpoint->sealed) {
        rdma_wire_private_encode(endpoint->token, out);
        return RDMA_WIRE_PRIVATE_LEN;
    }
    g_mutex_lock(&endpoint->mutex);
    int status = seal_ticket_make(endpoint->secret, ticket);
    g_mutex_unlock(&endpoint->mutex);
    rdma_wire_sealed_encode(ticket, out);
    return status < 0 ? status : (int)RDMA_WIRE_SEALED_LEN;
}

static int check_private(struct rdma_endpoint *endpoint, const uint8_t *bytes, size_t len)
{
    const uint8_t *ticket;
    if (!endpoint->sealed)
        return rdma_wire_private_check(endpoint->token, bytes, len);
    int status = rdma_wire_sealed_decode(&ticket, bytes, len);
    g_mutex_lock(&endpoint->mutex);
    if (status == 0)
        status = seal_ticket_check(endpoint->secret, ticket);
    g_mutex_unlock(&endpoint->mutex);
    return status;
}

/* ---- listening ---- */

static int start_listening(struct rdma_endpoint *endpoint, GError **error)
{
    int status = 0;
    endpoint->tried_us = g_get_monotonic_time();
    if (!has_devices()) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND, "this host has no RDMA device");
        return -ENODEV;
    }
    if (!endpoint->channel)
        endpoint->channel = rdma_create_event_channel();
    if (!endpoint->channel) {
        g_set_error(error, G_IO_ERROR, g_io_error_from_errno(errno),
                    "RDMA connections cannot be made (%s): is the kernel module rdma_ucm loaded?",
                    g_strerror(errno));
        return -ENODEV;
    }
    do_not_block(endpoint->channel->fd);
    if (rdma_create_id(endpoint->channel, &endpoint->listener, NULL, RDMA_PS_TCP) != 0 ||
        rdma_bind_addr(endpoint->listener, (struct sockaddr *)&endpoint->listen_address) != 0 ||
        rdma_listen(endpoint->listener, 4) != 0) {
        status = -errno;
        g_set_error(error, G_IO_ERROR, g_io_error_from_errno(-status),
                    "RDMA connections cannot be accepted: %s", g_strerror(-status));
    }
    /* If the listener is bound to one address, its device is known: registers now, not when a peer waits. */
    if (status == 0 && endpoint->listener->verbs)
        status = memory_for(endpoint, endpoint->listener, error);
    if (status < 0 && endpoint->listener) {
        rdma_destroy_id(endpoint->listener);
        endpoint->listener = NULL;
    }
    return status;
}

static void stop_listening(struct rdma_endpoint *endpoint)
{
    if (endpoint->listener)
        rdma_destroy_id(endpoint->listener);
    endpoint->listener = NULL;
    g_clear_pointer(&endpoint->memory, rdma_memory_put);
}

/*
 * Releases everything on a device that is being removed; rdma_listen_fd listens again if it comes back.
 * librdmacm notices and closes removed devices only when it lists all devices, so this lists them: a driver
 * that cannot revoke its device from its users (rdma_rxe of Linux 6.1) waits until they close it.
 */
static void forget_device(struct rdma_endpoint *endpoint)
{
    stop_listening(endpoint);
    struct ibv_context **devices = rdma_get_devices(NULL);
    if (devices)
        rdma_free_devices(devices);
}

static int rdma_listen_fd(struct endpoint *base)
{
    struct rdma_endpoint *endpoint = (struct rdma_endpoint *)base;
    if (endpoint->memory && rdma_memory_removed(endpoint->memory))
        forget_device(endpoint);
    if (endpoint->listens && !endpoint->listener &&
        g_get_monotonic_time() - endpoint->tried_us > LISTEN_EVERY_US)
        start_listening(endpoint, NULL);
    return endpoint->listener ? endpoint->channel->fd : -1;
}

static void refuse(struct rdma_cm_id *id)
{
    rdma_reject(id, NULL, 0);
    rdma_destroy_id(id);
}

/* Waits until the accepted id is established. Other requests are refused meanwhile. */
static int await_established(struct rdma_endpoint *endpoint, const struct rdma_cm_id *id)
{
    gint64 end = g_get_monotonic_time() + ESTABLISH_MS * 1000;
    for (;;) {
        struct rdma_cm_event *event;
        int status = next_event(endpoint->channel, end, &event);
        if (status < 0)
            return status;
        bool ours = event->id == id, other = event->event == RDMA_CM_EVENT_CONNECT_REQUEST;
        bool up = ours && event->event == RDMA_CM_EVENT_ESTABLISHED;
        bool removed = event->event == RDMA_CM_EVENT_DEVICE_REMOVAL;
        struct rdma_cm_id *asks = event->id;
        rdma_ack_cm_event(event);
        if (other)
            refuse(asks);
        else if (ours || removed)
            return up ? 0 : -ENOTCONN;
    }
}

/* Accepts a request whose private data was right. 0 with *out, or -errno; then the id is destroyed. */
static int accept_id(struct rdma_endpoint *endpoint, struct rdma_cm_id *id, struct transport **out)
{
    g_autoptr(GError) error = NULL;
    struct rdma_conn_param parameters;
    int status = memory_for(endpoint, id, &error);
    struct transport *transport =
        status == 0 ? transport_rdma_new(endpoint->memory, id, endpoint->stall_ms) : NULL;
    if (!transport) {
        g_warning("an RDMA connection was refused: %s", error ? error->message : g_strerror(errno));
        refuse(id);
        return status < 0 ? status : -ENOMEM;
    }
    fill_parameters(&parameters, NULL, 0);
    set_ack_timeout(id);
    status = rdma_accept(id, &parameters) == 0 ? await_established(endpoint, id) : -errno;
    struct rdma_event_channel *own = status == 0 ? rdma_create_event_channel() : NULL;
    if (status == 0 && (!own || rdma_migrate_id(id, own) != 0))
        status = -errno;
    if (status < 0) {
        transport->ops->free(transport);
        rdma_destroy_id(id);
        if (own)
            rdma_destroy_event_channel(own);
        return status;
    }
    transport_rdma_up(transport);
    *out = transport;
    return 0;
}

static void warn_of_stranger(struct rdma_endpoint *endpoint, int status)
{
    gint64 now = g_get_monotonic_time();
    if (endpoint->warned_us && now - endpoint->warned_us < WARN_EVERY_US)
        return;
    endpoint->warned_us = now;
    g_warning(
        status == -EPROTONOSUPPORT
            ? "an RDMA connection of another understudy version was refused: install the same on both hosts"
            : "an RDMA connection from one who does not know this VM's secret was refused");
}

static int rdma_endpoint_accept(struct endpoint *base, struct transport **out)
{
    struct rdma_endpoint *endpoint = (struct rdma_endpoint *)base;
    struct rdma_cm_event *event;
    int status = next_event(endpoint->channel, 0, &event);
    if (status < 0)
        return -EAGAIN;
    enum rdma_cm_event_type type = event->event;
    struct rdma_cm_id *id = event->id;
    int known = -EAGAIN;
    if (type == RDMA_CM_EVENT_CONNECT_REQUEST)
        known = check_private(endpoint, event->param.conn.private_data, event->param.conn.private_data_len);
    rdma_ack_cm_event(event);
    if (type == RDMA_CM_EVENT_DEVICE_REMOVAL)
        forget_device(endpoint);
    if (type != RDMA_CM_EVENT_CONNECT_REQUEST)
        return -EAGAIN;
    if (known == 0)
        return accept_id(endpoint, id, out);
    warn_of_stranger(endpoint, known);
    refuse(id);
    return known;
}

/* ---- dialling ---- */

/* Parses host, which is in digits: the control thread calls this too and must not block. */
static int resolve(const char *host, const char *port, struct sockaddr_storage *out)
{
    struct addresses all;
    int status = addresses_resolve(&all, host, address_port_of(port), ADDRESS_DIGITS, AF_UNSPEC, NULL);
    if (status == 0)
        *out = all.list[0].storage;
    return status;
}

/*
 * Makes an id whose device reaches the peer. Resolves the route, too: a device may be found for an address
 * that it has no route to (127.0.0.1 matches any device). On failure everything is freed again.
 */
static int resolve_id(const struct sockaddr_storage *peer, unsigned timeout_ms, struct rdma_cm_id **out)
{
    struct rdma_event_channel *channel = rdma_create_event_channel();
    struct rdma_cm_id *id = NULL;
    if (!channel)
        return -ENODEV;
    do_not_block(channel->fd);
    int status = rdma_create_id(channel, &id, NULL, RDMA_PS_TCP) == 0 ? 0 : -errno;
    if (status == 0)
        status = rdma_resolve_addr(id, NULL, (struct sockaddr *)peer, (int)timeout_ms) == 0 ? 0 : -errno;
    if (status == 0)
        status = await_event(channel, RDMA_CM_EVENT_ADDR_RESOLVED, timeout_ms);
    if (status == 0 && !id->verbs)
        status = -ENODEV;
    if (status == 0)
        status = rdma_resolve_route(id, (int)timeout_ms) == 0
                     ? await_event(channel, RDMA_CM_EVENT_ROUTE_RESOLVED, timeout_ms)
                     : -errno;
    if (status < 0) {
        if (id)
            rdma_destroy_id(id);
        rdma_destroy_event_channel(channel);
        return status;
    }
    *out = id;
    return 0;
}

static void drop_id(struct rdma_cm_id *id)
{
    struct rdma_event_channel *channel = id->channel;
    rdma_destroy_id(id);
    rdma_destroy_event_channel(channel);
}

static int connect_id(struct rdma_endpoint *endpoint, struct rdma_cm_id *id, unsigned timeout_ms,
                      struct transport **out)
{
    uint8_t private[RDMA_WIRE_SEALED_LEN];
    struct rdma_conn_param parameters;
    int private_len = make_private(endpoint, private);
    if (private_len < 0)
        return private_len;
    struct transport *transport = transport_rdma_new(endpoint->memory, id, endpoint->stall_ms);
    if (!transport)
        return -errno;
    fill_parameters(&parameters, private, (uint8_t)private_len);
    set_ack_timeout(id);
    int status = rdma_connect(id, &parameters) == 0
                     ? await_event(id->channel, RDMA_CM_EVENT_ESTABLISHED, timeout_ms)
                     : -errno;
    if (status < 0) {
        transport->ops->free(transport);
        return status;
    }
    transport_rdma_up(transport);
    *out = transport;
    return 0;
}

static int rdma_dial(struct endpoint *base, const char *host, const char *port, unsigned timeout_ms,
                     struct transport **out, char **why)
{
    struct rdma_endpoint *endpoint = (struct rdma_endpoint *)base;
    struct sockaddr_storage peer;
    struct rdma_cm_id *id = NULL;
    g_autoptr(GError) error = NULL;
    if (endpoint->memory && rdma_memory_removed(endpoint->memory))
        forget_device(endpoint);
    int status = has_devices() ? resolve(host, port, &peer) : -ENODEV;
    if (status == 0)
        status = resolve_id(&peer, timeout_ms, &id);
    if (status < 0) {
        *why = status == -ENODEV
                   ? g_strdup_printf("no RDMA device of this host reaches %s", host)
                   : g_strdup_printf("no RDMA device of this host reaches %s: %s", host, g_strerror(-status));
        return status;
    }
    status = memory_for(endpoint, id, &error);
    if (status == 0)
        status = connect_id(endpoint, id, timeout_ms, out);
    if (status < 0) {
        *why = error ? g_strdup(error->message)
                     : g_strdup_printf("the peer %s does not take RDMA connections: %s", host,
                                       g_strerror(-status));
        drop_id(id);
    }
    return status;
}

/* Finds the device that reaches the peer, and registers memory with it. */
static int prepare_dial(struct rdma_endpoint *endpoint, const char *host, GError **error)
{
    struct sockaddr_storage peer;
    struct rdma_cm_id *id = NULL;
    int status = has_devices() ? resolve(host, "1", &peer) : -ENODEV;
    if (status == 0)
        status = resolve_id(&peer, RESOLVE_MS, &id);
    if (status < 0) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND, "no RDMA device of this host reaches %s: %s",
                    host, g_strerror(-status));
        return status;
    }
    status = memory_for(endpoint, id, error);
    drop_id(id);
    return status;
}

bool endpoint_rdma_check(const char *peer_host, const char *listen_address, size_t staging_len,
                         GError **error)
{
    const char *host = peer_host ? peer_host : listen_address ? listen_address : "0.0.0.0";
    struct sockaddr_storage address;
    struct rdma_cm_id *id = NULL;
    int status = has_devices() ? resolve(host, "0", &address) : -ENODEV;
    if (status == 0 && peer_host) {
        status = resolve_id(&address, RESOLVE_MS, &id);
    } else if (status == 0) {
        status = rdma_create_id(NULL, &id, NULL, RDMA_PS_TCP) == 0 ? 0 : -errno;
        if (status == 0 && rdma_bind_addr(id, (struct sockaddr *)&address) != 0)
            status = -errno;
    }
    if (status < 0)
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND,
                    "no RDMA device of this host %s %s (%s): use --transport tcp, or see docs/rdma.md",
                    peer_host ? "reaches" : "has the address", host, g_strerror(-status));
    else if (id->verbs)
        status = rdma_limits_check(id->verbs, staging_len, error);
    if (id && peer_host)
        drop_id(id);
    else if (id)
        rdma_destroy_id(id);
    return status == 0;
}

/* ---- life ---- */

static void rdma_endpoint_free(struct endpoint *base)
{
    struct rdma_endpoint *endpoint = (struct rdma_endpoint *)base;
    stop_listening(endpoint);
    if (endpoint->channel)
        rdma_destroy_event_channel(endpoint->channel);
    seal_wipe(endpoint->secret, sizeof endpoint->secret);
    g_mutex_clear(&endpoint->mutex);
    g_free(endpoint);
}

static const struct endpoint_ops rdma_endpoint_ops = {
    .name = "rdma",
    .listen_fd = rdma_listen_fd,
    .accept = rdma_endpoint_accept,
    .set_secret = rdma_set_secret,
    .dial = rdma_dial,
    .free = rdma_endpoint_free,
};

struct endpoint *endpoint_rdma_new(const struct endpoint_rdma_config *config, GError **error)
{
    struct rdma_endpoint *endpoint = g_new0(struct rdma_endpoint, 1);
    int status = 0;
    char port[8];
    endpoint->base.ops = &rdma_endpoint_ops;
    endpoint->staging = config->staging;
    endpoint->stall_ms = config->stall_ms;
    memcpy(endpoint->token, config->token, sizeof endpoint->token);
    endpoint->sealed = config->sealed;
    g_mutex_init(&endpoint->mutex);
    memcpy(endpoint->secret, config->secret, sizeof endpoint->secret);
    g_snprintf(port, sizeof port, "%u", config->listen_port);
    if (config->listen_port) {
        status = resolve(config->listen_address ? config->listen_address : "0.0.0.0", port,
                         &endpoint->listen_address);
        if (status < 0)
            g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT, "%s is not an address",
                        config->listen_address);
        endpoint->listens = status == 0;
        if (status == 0)
            status = start_listening(endpoint, error);
    }
    /* Registers now, not while a peer waits: for a large guest that takes long. */
    if (status == 0 && config->peer_host && !endpoint->memory)
        status = prepare_dial(endpoint, config->peer_host, error);
    if (status < 0) {
        rdma_endpoint_free(&endpoint->base);
        return NULL;
    }
    return &endpoint->base;
}
