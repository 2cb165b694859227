/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The sending side of an RDMA connection (rdma_internal.h). Messages go by SEND, in pieces of a buffer. An
 * epoch goes by RDMA WRITE into the peer's ring: a small buffer with the commit record, counts, index and
 * device state, then the pages straight from staging, neighbours together. The last write carries an
 * immediate, which announces the epoch to the peer when all of it is there.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "proto/crc32c.h"
#include "replicator/transport/rdma/rdma_internal.h"
#include "replicator/transport/rdma/verbs_objects.h"

/* ---- messages ---- */

/* Seals a SEND in its buffer. Returns its length, or -errno. */
static ssize_t seal_send(struct rdma *c, uint8_t *at, size_t len)
{
    const struct iovec iov = {at, len};
    if (!c->out)
        return (ssize_t)len;
    int status = seal_close(c->out, &LABEL_SEND, &iov, 1, at + len);
    return status < 0 ? status : (ssize_t)(len + SEAL_TAG_LEN);
}

/* Sends a prefix and two pieces of body as one SEND. order_lock is held. */
int outgoing_send_buffer(struct rdma *c, enum rdma_wire_kind kind, const void *head, size_t head_len,
                         const void *body, size_t body_len)
{
    unsigned index = (unsigned)(c->sends_posted % SENDS);
    uint8_t *at = c->arena->sends[index];
    int status = queue_wait(c, c->send_until[index], c->stall_ms);
    if (status == 0)
        status = credit_take_receive(c);
    if (status < 0)
        return status;
    pthread_mutex_lock(&c->post_lock);
    credit_put_prefix(c, kind, at);
    pthread_mutex_unlock(&c->post_lock);
    if (head_len)
        memcpy(at + RDMA_WIRE_PREFIX_LEN, head, head_len);
    if (body_len)
        memcpy(at + RDMA_WIRE_PREFIX_LEN + head_len, body, body_len);
    ssize_t sealed = seal_send(c, at, RDMA_WIRE_PREFIX_LEN + head_len + body_len);
    if (sealed < 0)
        return (int)sealed;
    size_t len = (size_t)sealed;
    struct ibv_sge sge = {.addr = (uintptr_t)at, .length = (uint32_t)len, .lkey = c->arena_mr->lkey};
    struct ibv_send_wr wr = {.sg_list = &sge,
                             .num_sge = 1,
                             .opcode = IBV_WR_SEND,
                             .send_flags = len <= c->inline_len ? IBV_SEND_INLINE : 0};
    status = queue_post_when_free(c, &wr, true);
    if (status < 0)
        return status;
    c->send_until[index] = wr.wr_id;
    c->sends_posted++;
    atomic_fetch_add_explicit(&c->bytes_sent, len, memory_order_relaxed);
    return 0;
}

int outgoing_send_message(struct transport *t, const struct transport_message *message)
{
    struct rdma *c = rdma_of(t);
    uint8_t head[WIRE_HEADER_LEN];
    int status = message_encode_header(message, c->out, head);
    if (status < 0)
        return status;
    pthread_mutex_lock(&c->order_lock);
    size_t done = MIN(message->len, BODY_LEN - sizeof head);
    status = outgoing_send_buffer(c, RDMA_WIRE_FIRST, head, sizeof head, message->payload, done);
    while (status == 0 && done < message->len) {
        size_t piece = MIN(message->len - done, BODY_LEN);
        status = outgoing_send_buffer(c, RDMA_WIRE_MORE, NULL, 0, message->payload + done, piece);
        done += piece;
    }
    pthread_mutex_unlock(&c->order_lock);
    return status;
}

/* ---- epochs, sending ---- */

/*
 * RDMA WRITEs under construction: each has local pieces that go to one place of the peer's ring. Several
 * are posted to the device at once.
 */
struct gather {
    struct rdma *c;
    uint32_t slot; /* of the peer's ring, where the next page goes */
    /* wrs[nwrs] is the current request if it has SGEs. */
    struct ibv_send_wr wrs[CHAIN_LEN];
    struct ibv_sge sges[CHAIN_LEN][MAX_SGES];
    unsigned nwrs;
    int nsges;
    uint32_t len;
    uint64_t remote;
    uint64_t bytes;
};

static void gather_init(struct gather *g, struct rdma *c)
{
    g->c = c;
    g->slot = c->grant.next_slot;
    g->nwrs = 0;
    g->nsges = 0;
    g->len = 0;
    g->bytes = 0;
}

/* Posts the closed requests to the device. */
static int gather_post(struct gather *g, bool signal)
{
    for (unsigned i = 0; i < g->nwrs; i++)
        g->wrs[i].next = i + 1 < g->nwrs ? &g->wrs[i + 1] : NULL;
    int status = g->nwrs ? queue_post_when_free(g->c, g->wrs, signal) : 0;
    atomic_fetch_add_explicit(&g->c->bytes_sent, g->bytes, memory_order_relaxed);
    g->nwrs = 0;
    g->bytes = 0;
    return status;
}

/* Closes the current work request, even if it has no SGEs. */
static struct ibv_send_wr *gather_close(struct gather *g, enum ibv_wr_opcode opcode)
{
    struct ibv_send_wr *wr = &g->wrs[g->nwrs];
    *wr = (struct ibv_send_wr){
        .sg_list = g->sges[g->nwrs],
        .num_sge = g->nsges,
        .opcode = opcode,
        .wr.rdma = {.remote_addr = g->nsges ? g->remote : g->c->grant.ring_address,
                    .rkey = g->c->grant.ring_rkey},
    };
    g->nwrs++;
    g->bytes += g->len;
    g->nsges = 0;
    g->len = 0;
    return wr;
}

static int gather_write(struct gather *g)
{
    if (g->nsges == 0)
        return 0;
    gather_close(g, IBV_WR_RDMA_WRITE);
    return g->nwrs == CHAIN_LEN ? gather_post(g, false) : 0;
}

/* Adds the next page of the peer's ring to the current request, and closes it where the ring ends. */
static int gather_page(struct gather *g, const uint8_t *at, uint32_t lkey)
{
    struct ibv_sge *last = g->nsges ? &g->sges[g->nwrs][g->nsges - 1] : NULL;
    int status = 0;
    if (last && last->lkey == lkey && last->addr + last->length == (uintptr_t)at && g->len < WRITE_MAX) {
        last->length += STAGING_PAGE_LEN;
    } else {
        if (g->nsges == (int)g->c->max_sges || g->len >= WRITE_MAX)
            status = gather_write(g);
        if (g->nsges == 0)
            g->remote = g->c->grant.ring_address + (uint64_t)g->slot * STAGING_PAGE_LEN;
        g->sges[g->nwrs][g->nsges++] =
            (struct ibv_sge){.addr = (uintptr_t)at, .length = STAGING_PAGE_LEN, .lkey = lkey};
    }
    g->len += STAGING_PAGE_LEN;
    if (++g->slot == g->c->grant.capacity_pages) {
        if (status == 0)
            status = gather_write(g);
        g->slot = 0;
    }
    return status;
}

/*
 * Closes the last write of an epoch: its immediate announces the epoch, when everything before it is
 * written. The write is empty if the ring's end has just closed the one before.
 */
static int gather_commit(struct gather *g, uint32_t first_page)
{
    struct rdma *c = g->c;
    struct ibv_send_wr *wr = gather_close(g, IBV_WR_RDMA_WRITE_WITH_IMM);
    wr->imm_data = htonl(first_page);
    int status = credit_take_receive(c);
    if (status == 0)
        status = gather_post(g, true);
    if (status == 0)
        c->ends[c->epochs_posted++ % STAGING_EPOCHS] = wr->wr_id;
    return status;
}

void outgoing_free_meta(struct meta *meta)
{
    verbs_drop_mr(meta->mr);
    if (meta->at)
        munmap(meta->at, meta->capacity);
    *meta = (struct meta){0};
}

/* Waits until the next buffer is no longer in use, and grows it to a power of two if len bytes do not fit,
 * which is rare. NULL and *status on failure. */
static struct meta *take_meta(struct rdma *c, size_t len, int *status)
{
    struct meta *meta = &c->metas[c->next_meta++ % METAS];
    *status = queue_wait(c, meta->until, c->stall_ms);
    if (*status < 0 || meta->capacity >= len)
        return *status < 0 ? NULL : meta;
    outgoing_free_meta(meta);
    size_t capacity = 64u << 10;
    while (capacity < len)
        capacity *= 2;
    void *at = mmap(NULL, capacity, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) {
        *status = -ENOMEM;
        return NULL;
    }
    meta->at = at;
    meta->capacity = capacity;
    meta->mr = verbs_make_mr(c->memory->pd, at, capacity, 0);
    if (!meta->mr) {
        *status = -errno;
        outgoing_free_meta(meta);
        return NULL;
    }
    return meta;
}

static int gather_meta(struct gather *g, const struct meta *meta, uint32_t npages)
{
    int status = 0;
    for (uint32_t i = 0; status == 0 && i < npages; i++)
        status = gather_page(g, meta->at + (size_t)i * STAGING_PAGE_LEN, meta->mr->lkey);
    return status;
}

/*
 * Adds an epoch's pages. The processor does not read them: no checksum is computed here, since each packet
 * carries the device's own.
 */
static int gather_pages(struct gather *g, const struct staging *staging, const struct staged_epoch *epoch)
{
    struct epoch_pages pages = {.epoch = epoch};
    uint32_t slot;
    int status = 0;
    while (status == 0 && epoch_next_page(&pages, staging, &slot))
        status = gather_page(g, staging_slot(staging, slot), g->c->memory->ring_mr->lkey);
    return status;
}

/*
 * Adds the pages of a sealed epoch: seals them into the second ring piece by piece, while the device sends
 * the pieces before.
 */
static int gather_sealed_pages(struct gather *g, struct sealed_pages *sealed)
{
    const struct rdma_memory *memory = g->c->memory;
    uint32_t capacity = staging_capacity_pages(memory->staging), first;
    int n, status = 0;
    while (status == 0 && (n = sealed_pages_next(sealed, &first)) != 0) {
        status = n < 0 ? n : 0;
        for (int i = 0; status == 0 && i < n; i++) {
            uint32_t slot = (uint32_t)(((uint64_t)first + (uint32_t)i) % capacity);
            status = gather_page(g, staging_slot_at(memory->ring, slot), memory->ring_mr->lkey);
        }
    }
    return status;
}

/*
 * Fills the buffer before the pages: commit record, counts, index, device state, and zeroes to the page's
 * end.
 */
static int fill_meta(const struct rdma *c, const struct wire_epoch *wire, struct rdma_wire_commit *commit,
                     uint8_t *out, size_t len)
{
    const struct epoch_encoder *encoder = &c->encoder;
    const struct sealed_layout layout = sealed_layout_of(wire);
    uint8_t *parts = out + RDMA_WIRE_COMMIT_LEN, *at = parts;
    wire_epoch_encode(wire, at);
    at = c->out ? out + layout.parts_at : at + WIRE_EPOCH_LEN;
    memcpy(at, encoder->index.at, encoder->index.len);
    at += encoder->index.len;
    if (wire->delta_len)
        memcpy(at, encoder->delta.at, wire->delta_len);
    at += wire->delta_len;
    memset(at, 0, len - (size_t)(at - out));
    commit->commit.crc = c->out ? 0 : crc32c(0, parts, (size_t)(at - parts));
    rdma_wire_commit_encode(commit, out);
    return c->out ? sealed_close_meta(c->out, &commit->header, &layout, out) : 0;
}

/* Adds all of an epoch. In a sealed one the tags are before the pages, but exist only once the pages are
 * sealed: so the pages are sent first. */
static int gather_epoch(struct gather *g, const struct staging *staging, const struct staged_epoch *epoch,
                        const struct wire_epoch *wire, const struct wire_header *header,
                        const struct meta *meta, uint32_t nmeta)
{
    struct rdma *c = g->c;
    uint32_t first_page = g->slot;
    struct sealed_pages sealed;
    if (!c->out) {
        int status = gather_meta(g, meta, nmeta);
        return status == 0 ? gather_pages(g, staging, epoch) : status;
    }
    sealed_pages_begin(&sealed, c->out, c->memory->ring, staging, epoch, header,
                       meta->at + sealed_layout_of(wire).tags_at);
    g->slot = (uint32_t)(((uint64_t)first_page + nmeta) % c->grant.capacity_pages);
    int status = gather_sealed_pages(g, &sealed);
    if (status == 0)
        status = gather_write(g);
    uint32_t end = g->slot;
    g->slot = first_page;
    if (status == 0)
        status = gather_meta(g, meta, nmeta);
    g->slot = end;
    return status;
}

static int send_epoch_locked(struct rdma *c, uint64_t term, const struct staging *staging,
                             const struct staged_epoch *epoch)
{
    struct wire_epoch wire;
    int status = epoch_encode(&c->encoder, epoch, &wire);
    if (status < 0)
        return status;
    uint32_t nmeta =
        pages_of(c->out ? sealed_layout_of(&wire).len
                        : RDMA_WIRE_COMMIT_LEN + WIRE_EPOCH_LEN + c->encoder.index.len + wire.delta_len);
    uint32_t npages = nmeta + wire.ndata + (uint32_t)wire_epoch_disk_pages(&wire);
    size_t meta_len = (size_t)nmeta * STAGING_PAGE_LEN;
    status = credit_wait_ring(c, npages, epoch_stalls(epoch->kind));
    struct meta *meta = status == 0 ? take_meta(c, meta_len, &status) : NULL;
    if (!meta)
        return status;
    uint32_t first_page = c->grant.next_slot;
    struct rdma_wire_commit commit = {
        .sequence = c->grant.epoch_head,
        .header = {.type = MESSAGE_EPOCH,
                   .term = term,
                   .epoch = epoch->epoch,
                   .payload_len = wire_epoch_payload_len(&wire)},
        .commit = {.term = term, .epoch = epoch->epoch, .npages = wire.npages, .ndata = wire.ndata}};
    status = fill_meta(c, &wire, &commit, meta->at, meta_len);
    struct gather gather;
    gather_init(&gather, c);
    if (status == 0)
        status = gather_epoch(&gather, staging, epoch, &wire, &commit.header, meta, nmeta);
    if (status < 0)
        return status;
    /* Counts before it posts the commit: the peer may return the epoch before queue_post returns. */
    pthread_mutex_lock(&c->room_lock);
    c->grant.epoch_head++;
    c->grant.page_head += npages;
    c->grant.next_slot = gather.slot;
    pthread_mutex_unlock(&c->room_lock);
    status = gather_commit(&gather, first_page);
    if (status < 0)
        return status;
    pthread_mutex_lock(&c->post_lock);
    meta->until = c->posted;
    pthread_mutex_unlock(&c->post_lock);
    atomic_fetch_add_explicit(&c->epochs_sent, 1, memory_order_relaxed);
    return 0;
}

int outgoing_send_epoch(struct transport *t, uint64_t term, const struct staging *staging,
                        const struct staged_epoch *epoch)
{
    struct rdma *c = rdma_of(t);
    if (staging != c->memory->staging)
        return -EINVAL;
    pthread_mutex_lock(&c->order_lock);
    int status = send_epoch_locked(c, term, staging, epoch);
    pthread_mutex_unlock(&c->order_lock);
    return status;
}

/* Counts the epochs that the completions so far have finished. post_lock is held. */
static int64_t count_done(struct rdma *c)
{
    int status = queue_reap(c);
    while (c->epochs_completed < c->epochs_posted &&
           c->ends[c->epochs_completed % STAGING_EPOCHS] <= c->completed)
        c->epochs_completed++;
    return status < 0 ? status : (int64_t)c->epochs_completed;
}

int64_t outgoing_epochs_done(struct transport *t)
{
    struct rdma *c = rdma_of(t);
    pthread_mutex_lock(&c->post_lock);
    int64_t done = c->done_told = count_done(c);
    pthread_mutex_unlock(&c->post_lock);
    return done;
}

/*
 * Called by a thread that is about to wait. Only then is the device asked for a wake-up, which is a system
 * call.
 */
int outgoing_done_fd(struct transport *t)
{
    struct rdma *c = rdma_of(t);
    queue_take_events(c->send_channel);
    int armed = ibv_req_notify_cq(c->send_cq, 0);
    /* Checks again: a completion may have arrived before the wake-up was asked for. */
    pthread_mutex_lock(&c->post_lock);
    bool news = count_done(c) != c->done_told;
    pthread_mutex_unlock(&c->post_lock);
    return news || armed != 0 ? c->ready_fd : c->send_channel->fd;
}

void outgoing_flush(struct transport *t)
{
    struct rdma *c = rdma_of(t);
    pthread_mutex_lock(&c->order_lock);
    pthread_mutex_lock(&c->post_lock);
    uint64_t target = c->posted;
    pthread_mutex_unlock(&c->post_lock);
    queue_wait(c, target, FLUSH_MS);
    pthread_mutex_unlock(&c->order_lock);
}
