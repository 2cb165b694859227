/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A connection's objects, their creation and destruction, and the table of functions; rdma_internal.h lists
 * the other parts. Freeing a transport while others still wait in it is the caller's mistake; shutdown
 * wakes them.
 */
#include "replicator/transport/rdma/rdma.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "replicator/transport/rdma/rdma_internal.h"
#include "replicator/transport/rdma/verbs_objects.h"

unsigned transport_rdma_objects(void)
{
    return verbs_alive();
}

static void rdma_room(struct transport *t)
{
    credit_send(rdma_of(t));
}

/* Installs the keys. Called between two messages, so early that neither side has sent a bare credit yet. */
static int rdma_seal(struct transport *t, const struct seal_keys *keys)
{
    struct rdma *c = rdma_of(t);
    const struct {
        struct seal **seal;
        const uint8_t *secret;
    } wanted[] = {{&c->out, keys->out},
                  {&c->in, keys->in},
                  {&c->credit_out, keys->credit_out},
                  {&c->credit_in, keys->credit_in}};
    if (c->out || !c->memory->sealed)
        return -EINVAL;
    for (unsigned i = 0; i < G_N_ELEMENTS(wanted); i++)
        if (!(*wanted[i].seal = seal_new(keys->cipher, wanted[i].secret, &keys->limits)))
            return -errno;
    return 0;
}

/*
 * Ends the queue pair. When this returns, nothing that was posted is sent any more, whichever thread called
 * first. The sender reuses the memory of epochs under way, so a commit that left later would announce pages
 * with other content. rdma_disconnect alone is not enough on iWARP, where it lets the device finish first.
 */
static void rdma_shutdown(struct transport *t)
{
    struct rdma *c = rdma_of(t);
    struct ibv_qp_attr error = {.qp_state = IBV_QPS_ERR};
    queue_kill(c);
    pthread_mutex_lock(&c->end_lock);
    if (c->up && !c->ended) {
        ibv_modify_qp(c->id->qp, &error, IBV_QP_STATE);
        rdma_disconnect(c->id);
        c->ended = true;
    }
    pthread_mutex_unlock(&c->end_lock);
}

static void rdma_free(struct transport *t)
{
    struct rdma *c = rdma_of(t);
    rdma_shutdown(t);
    if (c->id && c->id->qp) {
        rdma_destroy_qp(c->id);
        verbs_count(-1);
    }
    verbs_drop_cq(c->send_cq, c->send_channel);
    verbs_drop_cq(c->receive_cq, c->receive_channel);
    for (unsigned i = 0; i < METAS; i++)
        outgoing_free_meta(&c->metas[i]);
    verbs_drop_mr(c->arena_mr);
    if (c->arena)
        munmap(c->arena, sizeof *c->arena);
    if (c->up) {
        struct rdma_event_channel *channel = c->id->channel;
        rdma_destroy_id(c->id);
        rdma_destroy_event_channel(channel);
    }
    epoch_encoder_clear(&c->encoder);
    epoch_decoder_clear(&c->decoder);
    bytes_free(&c->payload);
    seal_free(c->out);
    seal_free(c->in);
    seal_free(c->credit_out);
    seal_free(c->credit_in);
    if (c->wake_fd >= 0)
        close(c->wake_fd);
    if (c->ready_fd >= 0)
        close(c->ready_fd);
    pthread_mutex_destroy(&c->end_lock);
    pthread_mutex_destroy(&c->order_lock);
    pthread_mutex_destroy(&c->post_lock);
    pthread_mutex_destroy(&c->room_lock);
    pthread_cond_destroy(&c->room_changed);
    rdma_memory_put(c->memory);
    g_free(c);
}

static void rdma_stats(const struct transport *t, struct transport_stats *out)
{
    const struct rdma *c = rdma_of(t);
    out->bytes_sent = atomic_load_explicit(&c->bytes_sent, memory_order_relaxed);
    out->bytes_received = atomic_load_explicit(&c->bytes_received, memory_order_relaxed);
    out->epochs_sent = atomic_load_explicit(&c->epochs_sent, memory_order_relaxed);
    out->epochs_received = atomic_load_explicit(&c->epochs_received, memory_order_relaxed);
}

static const struct transport_ops rdma_ops = {
    .name = "rdma",
    .seal = rdma_seal,
    .send_epoch = outgoing_send_epoch,
    .epochs_done = outgoing_epochs_done,
    .done_fd = outgoing_done_fd,
    .flush = outgoing_flush,
    .send_message = outgoing_send_message,
    .receive = incoming_receive,
    .room = rdma_room,
    .shutdown = rdma_shutdown,
    .free = rdma_free,
    .stats = rdma_stats,
};

static bool make_buffers(struct rdma *c)
{
    void *at = mmap(NULL, sizeof *c->arena, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED)
        return false;
    c->arena = at;
    c->arena_mr = verbs_make_mr(c->memory->pd, c->arena, sizeof *c->arena, IBV_ACCESS_LOCAL_WRITE);
    return c->arena_mr != NULL;
}

static bool make_queue_pair(struct rdma *c)
{
    struct ibv_qp_init_attr attr = {
        .send_cq = c->send_cq,
        .recv_cq = c->receive_cq,
        .cap = {.max_send_wr = QUEUE_LEN,
                .max_recv_wr = RECEIVES,
                .max_send_sge = MIN(MAX_SGES, (unsigned)c->memory->limits.max_sge),
                .max_recv_sge = 1,
                .max_inline_data = INLINE_LEN},
        .qp_type = IBV_QPT_RC,
    };
    if (rdma_create_qp(c->id, c->memory->pd, &attr) != 0) {
        attr.cap.max_inline_data = INLINE_LEAST;
        if (rdma_create_qp(c->id, c->memory->pd, &attr) != 0)
            return false;
    }
    verbs_count(1);
    c->max_sges = MIN(attr.cap.max_send_sge, MAX_SGES);
    c->inline_len = attr.cap.max_inline_data;
    for (unsigned i = 0; i < RECEIVES; i++)
        if (queue_post_receive(c, i) < 0)
            return false;
    return true;
}

struct transport *transport_rdma_new(struct rdma_memory *memory, struct rdma_cm_id *id, unsigned stall_ms)
{
    struct rdma *c = g_new0(struct rdma, 1);
    pthread_condattr_t monotonic;
    c->base.ops = &rdma_ops;
    c->memory = rdma_memory_get(memory);
    c->id = id;
    c->stall_ms = stall_ms;
    c->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    c->ready_fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
    pthread_mutex_init(&c->end_lock, NULL);
    pthread_mutex_init(&c->order_lock, NULL);
    pthread_mutex_init(&c->post_lock, NULL);
    pthread_mutex_init(&c->room_lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&c->room_changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    if (c->wake_fd >= 0 && c->ready_fd >= 0 &&
        verbs_make_cq(c->memory->device, QUEUE_LEN, &c->send_cq, &c->send_channel) &&
        verbs_make_cq(c->memory->device, RECEIVES, &c->receive_cq, &c->receive_channel) && make_buffers(c) &&
        make_queue_pair(c))
        return &c->base;
    int error = errno;
    rdma_free(&c->base);
    errno = error;
    return NULL;
}

void transport_rdma_up(struct transport *t)
{
    struct rdma *c = rdma_of(t);
    fcntl(c->id->channel->fd, F_SETFL, fcntl(c->id->channel->fd, F_GETFL) | O_NONBLOCK);
    c->up = true;
}
