/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Builds and takes apart what surrounds an epoch's pages. Encoding fills buffers that are kept from epoch
 * to epoch, so it allocates only while they grow. Decoding checks the index against the counts before it
 * fills an epoch's pages.
 */
#include "replicator/transport/epoch_parts.h"

#include <endian.h>
#include <errno.h>
#include <glib.h>
#include <string.h>

#include "checkpoint/devstate_delta.h"
#include "proto/crc32c.h"

void bytes_make_room(struct bytes *bytes, size_t len)
{
    if (bytes->capacity >= len)
        return;
    bytes->capacity = len + len / 2;
    bytes->at = g_realloc(bytes->at, bytes->capacity);
}

void bytes_free(struct bytes *bytes)
{
    g_free(bytes->at);
    *bytes = (struct bytes){0};
}

/* Builds the index in wire order. Returns how many pages carry bytes. */
static uint32_t build_index(struct bytes *index, const struct staged_epoch *epoch)
{
    uint32_t ndata = 0;
    bytes_make_room(index, (size_t)epoch->npages * 8 + 8);
    for (uint32_t i = 0; i < epoch->npages; i++) {
        uint64_t ref = htole64(epoch->pages[i].ref);
        memcpy(index->at + (size_t)i * 8, &ref, 8);
        ndata += epoch->pages[i].slot != STAGING_NO_PAGE;
    }
    index->len = (size_t)epoch->npages * 8;
    return ndata;
}

static int build_delta(struct epoch_encoder *encoder, const struct staged_epoch *epoch)
{
    struct bytes *delta = &encoder->delta, *last = &encoder->last_sent;
    delta->len = 0;
    if (epoch->kind != STAGED_EPOCH)
        return 0;
    bytes_make_room(delta, devstate_delta_bound(epoch->devstate_len));
    ssize_t len = devstate_delta_encode(delta->at, delta->capacity, epoch->devstate, epoch->devstate_len,
                                        last->at, last->len);
    if (len < 0)
        return (int)len;
    delta->len = (size_t)len;
    bytes_make_room(last, epoch->devstate_len + 1); /* some memory even for no bytes: memcpy wants it */
    memcpy(last->at, epoch->devstate, epoch->devstate_len);
    last->len = epoch->devstate_len;
    return 0;
}

int epoch_encode(struct epoch_encoder *encoder, const struct staged_epoch *epoch, struct wire_epoch *wire)
{
    int status = build_delta(encoder, epoch);
    if (status < 0)
        return status;
    *wire = (struct wire_epoch){
        .kind = epoch->kind,
        .npages = epoch->npages,
        .ndata = build_index(&encoder->index, epoch),
        .nblocks = epoch->nblocks,
        .delta_len = encoder->delta.len,
        .disk_len = epoch->disk_len,
    };
    memcpy(wire->used_len, epoch->block_used_len, sizeof wire->used_len);
    return 0;
}

void epoch_encoder_clear(struct epoch_encoder *encoder)
{
    bytes_free(&encoder->index);
    bytes_free(&encoder->delta);
    bytes_free(&encoder->last_sent);
}

int message_encode_header(const struct transport_message *message, bool sealed, uint8_t out[WIRE_HEADER_LEN])
{
    if (message->len > TRANSPORT_MAX_PAYLOAD)
        return -EMSGSIZE;
    const struct wire_header header = {
        .type = (uint16_t)message->type,
        .arg = message->arg,
        .term = message->term,
        .epoch = message->epoch,
        .payload_len = message->len,
        .payload_crc = sealed ? 0 : crc32c(0, message->payload, message->len),
    };
    wire_header_encode(&header, out);
    return 0;
}

bool epoch_next_page(struct epoch_pages *pages, const struct staging *staging, uint32_t *slot)
{
    const struct staged_epoch *epoch = pages->epoch;
    while (pages->next < epoch->npages) {
        *slot = epoch->pages[pages->next++].slot;
        if (*slot != STAGING_NO_PAGE)
            return true;
    }
    if (pages->next_disk == staging_disk_pages(epoch->disk_len))
        return false;
    *slot = (uint32_t)((epoch->disk_slot + pages->next_disk++) % staging_capacity_pages(staging));
    return true;
}

int epoch_take_index(const struct staging *staging, struct staged_epoch *epoch, const struct wire_epoch *wire,
                     const uint8_t *index, uint32_t first_slot)
{
    uint32_t taken = 0, capacity = staging_capacity_pages(staging);
    for (uint32_t i = 0; i < wire->npages; i++) {
        uint64_t ref;
        memcpy(&ref, index + (size_t)i * 8, 8);
        ref = le64toh(ref);
        uint32_t slot = STAGING_NO_PAGE;
        if (!(page_ref_flags(ref) & PAGE_REF_ZERO)) {
            if (taken == wire->ndata)
                return -EPROTO;
            slot = (uint32_t)(((uint64_t)first_slot + taken++) % capacity);
        }
        epoch->pages[i] = (struct staged_page){.ref = ref, .slot = slot};
    }
    epoch->npages = wire->npages;
    epoch->disk_slot = (uint32_t)(((uint64_t)first_slot + wire->ndata) % capacity);
    epoch->disk_len = wire->disk_len;
    return taken == wire->ndata ? 0 : -EPROTO;
}

int epoch_check_commit(const struct wire_header *header, const struct wire_epoch *wire,
                       const struct wire_commit *commit, uint32_t crc)
{
    return commit->crc == crc && commit->term == header->term && commit->epoch == header->epoch &&
                   commit->npages == wire->npages && commit->ndata == wire->ndata
               ? 0
               : -EPROTO;
}

int epoch_take_devstate(struct epoch_decoder *decoder, struct staged_epoch *epoch, const uint8_t *delta,
                        size_t len)
{
    struct bytes *last = &decoder->last_received;
    if (epoch->kind != STAGED_EPOCH)
        return 0;
    bytes_make_room(last, epoch->devstate_capacity);
    int status = devstate_delta_apply(last->at, &last->len, epoch->devstate_capacity, delta, len);
    if (status < 0)
        return status;
    memcpy(epoch->devstate, last->at, last->len);
    epoch->devstate_len = last->len;
    return 0;
}

void epoch_decoder_clear(struct epoch_decoder *decoder)
{
    bytes_free(&decoder->last_received);
}
