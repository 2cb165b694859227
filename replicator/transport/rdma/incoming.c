/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The receiving side of an RDMA connection (rdma_internal.h). Pages are in the ring before any message
 * announces them. An epoch exists only once its last write has arrived and all of it was checked. Before
 * that not even its descriptor is taken, so an epoch that arrived in part is never seen, and the next
 * connection writes over it. Runs on the receiving thread, which polls for a moment where that pays and
 * sleeps otherwise.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <string.h>

#include "proto/crc32c.h"
#include "replicator/transport/rdma/rdma_internal.h"

/* Adds a piece to the message under way. 1: the message is whole; 0: more pieces follow; or -errno. */
static int assemble(struct rdma *c, enum rdma_wire_kind kind, const uint8_t *body, size_t len)
{
    if ((kind == RDMA_WIRE_FIRST) == c->assembling)
        return -EPROTO;
    if (kind == RDMA_WIRE_FIRST) {
        int status = len < WIRE_HEADER_LEN ? -EPROTO : wire_header_decode(&c->header, body);
        if (status < 0)
            return status;
        if (c->header.payload_len > transport_payload_max(&c->base) || c->header.type == MESSAGE_EPOCH)
            return -EPROTO;
        bytes_make_room(&c->payload, c->header.payload_len + 1);
        c->payload.len = 0;
        body += WIRE_HEADER_LEN;
        len -= WIRE_HEADER_LEN;
    }
    if (len > c->header.payload_len - c->payload.len)
        return -EPROTO;
    memcpy(c->payload.at + c->payload.len, body, len);
    c->payload.len += len;
    c->assembling = c->payload.len < c->header.payload_len;
    if (c->assembling)
        return 0;
    uint32_t crc = c->in ? 0 : crc32c(0, c->payload.at, c->payload.len);
    return crc == c->header.payload_crc ? 1 : -EPROTO;
}

/*
 * Opens a sealed SEND in its buffer, which the device does not write until it is posted again. A bare credit
 * is recognised by its length, since no other SEND is as short. Returns the plain length, or -errno.
 */
static ssize_t open_send(struct rdma *c, uint8_t *bytes, size_t len)
{
    if (!c->in)
        return (ssize_t)len;
    if (len < RDMA_WIRE_PREFIX_LEN + SEAL_TAG_LEN || len > BUFFER_LEN)
        return -EPROTO;
    bool credit = len == RDMA_WIRE_PREFIX_LEN + SEAL_TAG_LEN;
    const struct iovec iov = {bytes, len - SEAL_TAG_LEN};
    int status = seal_open(credit ? c->credit_in : c->in, credit ? &LABEL_CREDIT : &LABEL_SEND, &iov, 1,
                           bytes + iov.iov_len);
    return status < 0 ? status : (ssize_t)iov.iov_len;
}

/* Takes the SEND in this receive buffer. 1: *out is a message; 0: nothing for the caller; -errno. */
static int take_buffer(struct rdma *c, unsigned index, size_t sealed_len, struct transport_received *out)
{
    uint8_t *bytes = c->arena->receives[index];
    struct rdma_wire_prefix prefix;
    ssize_t opened = open_send(c, bytes, sealed_len);
    if (opened < 0)
        return (int)opened;
    size_t len = (size_t)opened;
    int status = rdma_wire_prefix_decode(&prefix, bytes, len);
    if (status < 0)
        return status;
    const uint8_t *body = bytes + RDMA_WIRE_PREFIX_LEN;
    size_t body_len = len - RDMA_WIRE_PREFIX_LEN;
    status = credit_take(c, &prefix, body, body_len);
    if (status < 0)
        return status;
    if (prefix.kind == RDMA_WIRE_FIRST || prefix.kind == RDMA_WIRE_MORE)
        status = assemble(c, (enum rdma_wire_kind)prefix.kind, body, body_len);
    if (status == 1)
        out->message = (struct transport_message){.type = (enum message_type)c->header.type,
                                                  .arg = c->header.arg,
                                                  .term = c->header.term,
                                                  .epoch = c->header.epoch,
                                                  .len = c->payload.len,
                                                  .payload = c->payload.at};
    return status;
}

/* Copies len bytes from ring pages, which may wrap. The peer can write the ring while a copy is checked. */
static void copy_from_ring(const struct rdma *c, uint32_t slot, uint8_t *to, size_t len)
{
    size_t before_end = (size_t)(staging_capacity_pages(c->receiving) - slot) * STAGING_PAGE_LEN;
    size_t first = MIN(len, before_end);
    memcpy(to, staging_slot_at(c->memory->ring, slot), first);
    memcpy(to + first, c->memory->ring, len - first);
}

/* Copies the parts before the pages out of the ring, and opens them if they are sealed. Fills *parts, and for
 * a sealed epoch *tags. */
static int take_meta(struct rdma *c, uint32_t first_page, const struct wire_header *header,
                     const struct wire_epoch *wire, uint32_t *nmeta, const uint8_t **parts,
                     const uint8_t **tags)
{
    const struct sealed_layout layout = sealed_layout_of(wire);
    size_t len = c->in ? layout.len : SEALED_RECORD_LEN + layout.parts_len;
    *nmeta = pages_of(len);
    bytes_make_room(&c->payload, len);
    copy_from_ring(c, first_page, c->payload.at, len);
    *parts = c->payload.at + (c->in ? layout.parts_at : SEALED_RECORD_LEN);
    *tags = c->payload.at + layout.tags_at;
    return c->in ? sealed_open_parts(c->in, header, &layout, c->payload.at) : 0;
}

/* Checks all parts of the epoch that begins at first_page, and takes them into the open epoch of staging. */
static int take_parts(struct rdma *c, struct staging *staging, struct staged_epoch *epoch,
                      uint32_t first_page, const struct rdma_wire_commit *record,
                      const struct wire_epoch *wire)
{
    const struct wire_header *header = &record->header;
    uint32_t nmeta = pages_of(c->in ? sealed_layout_of(wire).len
                                    : SEALED_RECORD_LEN + (size_t)wire->npages * 8 + wire->delta_len);
    uint32_t ndata = wire->ndata + (uint32_t)wire_epoch_disk_pages(wire), nslots = nmeta + ndata;
    const uint8_t *index, *tags;
    int status = staging_place(staging, epoch, first_page);
    if (status == 0 && staging_reserve(staging, epoch, nslots) < 0)
        status = -EPROTO; /* the peer was told how much room there is */
    if (status < 0)
        return -EPROTO;
    status = take_meta(c, first_page, header, wire, &nmeta, &index, &tags);
    if (status < 0)
        return status;
    uint32_t first_data = (uint32_t)(((uint64_t)first_page + nmeta) % staging_capacity_pages(staging));
    status = epoch_take_index(staging, epoch, wire, index, first_data);
    if (status < 0)
        return status;
    epoch->nblocks = wire->nblocks;
    memcpy(epoch->block_used_len, wire->used_len, sizeof epoch->block_used_len);
    size_t index_len = (size_t)wire->npages * 8;
    uint32_t crc =
        c->in ? 0 : crc32c(0, index - WIRE_EPOCH_LEN, WIRE_EPOCH_LEN + index_len + wire->delta_len);
    status = epoch_check_commit(header, wire, &record->commit, crc);
    if (status == 0 && c->in)
        status = sealed_open_pages(c->in, header, c->memory->ring, staging, first_data, ndata, tags);
    if (status < 0)
        return status;
    atomic_fetch_add_explicit(&c->bytes_received, (uint64_t)nslots * STAGING_PAGE_LEN, memory_order_relaxed);
    return epoch_take_devstate(&c->decoder, epoch, index + index_len, wire->delta_len);
}

/* Takes the epoch that begins at this ring page, after its last write has arrived. 1: *out is it; -errno. */
static int take_epoch(struct rdma *c, uint32_t first_page, struct transport_received *out)
{
    struct staging *staging = c->receiving;
    struct staging_position position;
    struct rdma_wire_commit record;
    struct wire_epoch wire;
    uint8_t head[SEALED_RECORD_LEN + SEAL_TAG_LEN];
    if (!staging || c->assembling || first_page >= staging_capacity_pages(staging))
        return -EPROTO;
    staging_position(staging, &position);
    copy_from_ring(c, first_page, head, sizeof head);
    int status = c->in ? sealed_open_record(c->in, head) : 0;
    if (status < 0)
        return status;
    status = rdma_wire_commit_decode(&record, head);
    if (status < 0 || record.sequence != position.epoch_head || record.header.type != MESSAGE_EPOCH)
        return -EPROTO;
    status = wire_epoch_decode(&wire, head + RDMA_WIRE_COMMIT_LEN, record.header.payload_len,
                               staging_capacity_pages(staging), EPOCH_MAX_DELTA);
    if (status < 0)
        return status;
    struct staged_epoch *epoch = staging_begin(staging, record.header.epoch, (enum staged_kind)wire.kind);
    if (!epoch)
        return -EPROTO;
    status = take_parts(c, staging, epoch, first_page, &record, &wire);
    if (status < 0) {
        staging_abort(staging, epoch);
        return status;
    }
    epoch->received_ns = now_ns();
    staging_commit(staging, epoch);
    atomic_fetch_add_explicit(&c->epochs_received, 1, memory_order_relaxed);
    out->epoch = epoch;
    out->message = (struct transport_message){
        .type = MESSAGE_EPOCH, .term = record.header.term, .epoch = record.header.epoch};
    return 1;
}

static int take_completion(struct rdma *c, const struct ibv_wc *wc, struct transport_received *out)
{
    int status;
    if (wc->status != IBV_WC_SUCCESS || wc->wr_id >= RECEIVES)
        return -ENOTCONN;
    unsigned index = (unsigned)wc->wr_id;
    if (wc->opcode == IBV_WC_RECV_RDMA_WITH_IMM) {
        status = take_epoch(c, ntohl(wc->imm_data), out);
    } else {
        atomic_fetch_add_explicit(&c->bytes_received, wc->byte_len, memory_order_relaxed);
        status = take_buffer(c, index, wc->byte_len, out);
    }
    int given = credit_give_receive_back(c, index);
    return status < 0 ? status : given < 0 ? given : status;
}

/* Takes the connection manager's events. 0: still connected; -errno: what ended the connection. */
static int take_cm_events(struct rdma *c)
{
    struct rdma_cm_event *event;
    int status = 0;
    while (rdma_get_cm_event(c->id->channel, &event) == 0) {
        switch (event->event) {
        case RDMA_CM_EVENT_DISCONNECTED:
        case RDMA_CM_EVENT_TIMEWAIT_EXIT:
            status = -ENOTCONN;
            break;
        case RDMA_CM_EVENT_DEVICE_REMOVAL:
            status = -ENODEV;
            break;
        default:
            break;
        }
        rdma_ack_cm_event(event);
    }
    return status;
}

/* Sleeps until something may have arrived: 0, -ETIMEDOUT, or what ended the connection. */
static int wait_receive(struct rdma *c, int timeout_ms)
{
    struct pollfd fds[] = {{.fd = c->receive_channel->fd, .events = POLLIN},
                           {.fd = c->id->channel->fd, .events = POLLIN},
                           {.fd = c->wake_fd, .events = POLLIN}};
    int n = poll(fds, G_N_ELEMENTS(fds), timeout_ms);
    if (fds[0].revents)
        queue_take_events(c->receive_channel);
    if (atomic_load(&c->dead))
        return -ENOTCONN;
    if (n == 0)
        return -ETIMEDOUT;
    return fds[1].revents ? take_cm_events(c) : 0;
}

/* Grants this side's ring to the peer. */
static int send_grant(struct rdma *c, struct staging *staging)
{
    struct staging_position position;
    uint8_t bytes[RDMA_WIRE_GRANT_LEN];
    if (staging != c->memory->staging || c->memory->sealed != (c->in != NULL))
        return -EINVAL;
    staging_position(staging, &position);
    struct rdma_wire_grant grant = {
        .ring_address = (uintptr_t)c->memory->ring,
        .ring_rkey = c->memory->ring_mr->rkey,
        .capacity_pages = staging_capacity_pages(staging),
        .next_slot = position.next_slot,
        .page_head = position.page_head,
        .page_tail = position.page_tail,
        .epoch_head = position.epoch_head,
        .epoch_tail = position.epoch_tail,
    };
    rdma_wire_grant_encode(&grant, bytes);
    c->receiving = staging;
    atomic_store(&c->gives_back, staging);
    pthread_mutex_lock(&c->order_lock);
    int status = outgoing_send_buffer(c, RDMA_WIRE_GRANT, bytes, sizeof bytes, NULL, 0);
    pthread_mutex_unlock(&c->order_lock);
    return status;
}

/* Takes one completion. 1: *out is filled; 0: it was not for the caller; -EAGAIN: there is none; -errno. */
static int poll_once(struct rdma *c, struct transport_received *out)
{
    struct ibv_wc wc;
    if (atomic_load(&c->dead))
        return -ENOTCONN;
    int n = ibv_poll_cq(c->receive_cq, 1, &wc);
    if (n == 0)
        return -EAGAIN;
    return n < 0 ? -ENOTCONN : take_completion(c, &wc, out);
}

/*
 * Like poll_once. If the last wait was short, it polls for a little while first. Then it asks for a wake-up
 * and polls once more: a message may have arrived in between. An idle connection does not poll.
 */
static int poll_and_arm(struct rdma *c, struct transport_received *out)
{
    uint64_t until = now_ns() + (c->polling_pays ? SPIN_NS : 0);
    int status;
    do
        status = poll_once(c, out);
    while (status == -EAGAIN && now_ns() < until);
    if (status != -EAGAIN)
        return status;
    return ibv_req_notify_cq(c->receive_cq, 0) == 0 ? poll_once(c, out) : -ENOTCONN;
}

int incoming_receive(struct transport *t, struct staging *staging, struct transport_received *out)
{
    struct rdma *c = rdma_of(t);
    int gone = 0, status = 0;
    memset(out, 0, sizeof *out);
    if (staging && !c->receiving)
        status = send_grant(c, staging);
    while (status == 0) {
        status = poll_and_arm(c, out);
        if (status != -EAGAIN)
            continue;
        if (gone < 0) { /* everything that arrived before the end has been taken */
            status = gone;
            continue;
        }
        uint64_t began = now_ns();
        status = wait_receive(c, c->assembling ? (int)c->stall_ms : IDLE_POLL_MS);
        c->polling_pays = now_ns() - began < 2 * SPIN_NS;
        if (status == -ETIMEDOUT && !c->assembling)
            status = 0;
        if (status == -ENOTCONN && !atomic_load(&c->dead)) {
            gone = status;
            status = 0;
        }
    }
    if (status < 0)
        queue_kill(c);
    return status < 0 ? status : 0;
}
