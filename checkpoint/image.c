/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Writes epochs into the standby's memory. A page that was never written since the memory was empty is known
 * to be zero, so a zero page for it is skipped: reading or writing a hole of a memfd would allocate a page.
 */
#include "checkpoint/image.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct image {
    struct hypervisor *hv;
    uint64_t *populated[HV_MAX_BLOCKS];
    uint8_t *devstate;
    size_t devstate_len, devstate_capacity;
    uint64_t used_len[HV_MAX_BLOCKS];
    unsigned nblocks;
    uint64_t epoch, received_ns;
};

int image_new(struct image **out, struct hypervisor *hv, size_t devstate_capacity)
{
    struct image *image = calloc(1, sizeof *image);
    if (!image)
        return -ENOMEM;
    image->hv = hv;
    image->nblocks = hypervisor_nblocks(hv);
    image->devstate_capacity = devstate_capacity;
    image->devstate = malloc(devstate_capacity);
    if (!image->devstate) {
        image_free(image);
        return -ENOMEM;
    }
    for (unsigned i = 0; i < image->nblocks; i++) {
        image->populated[i] = calloc((hypervisor_block(hv, i)->max_len / HV_PAGE_LEN + 63) / 64, 8);
        if (!image->populated[i]) {
            image_free(image);
            return -ENOMEM;
        }
        /* Aux blocks begin with what the standby's firmware loaded, not with zeroes. */
        if (hypervisor_block(hv, i)->aux)
            memset(image->populated[i], 0xff, (hypervisor_block(hv, i)->max_len / HV_PAGE_LEN + 63) / 64 * 8);
    }
    *out = image;
    return 0;
}

void image_free(struct image *image)
{
    if (!image)
        return;
    for (unsigned i = 0; i < HV_MAX_BLOCKS; i++)
        free(image->populated[i]);
    free(image->devstate);
    free(image);
}

int image_check(const struct image *image, const struct staged_epoch *epoch)
{
    for (uint32_t i = 0; i < epoch->npages; i++) {
        const struct staged_page *page = &epoch->pages[i];
        unsigned block = page_ref_block(page->ref);
        /* A page is zero exactly if it has no bytes. */
        unsigned flags = page->slot == STAGING_NO_PAGE ? PAGE_REF_ZERO : 0;
        if (block >= image->nblocks || page_ref_flags(page->ref) != flags ||
            page_ref_page(page->ref) >= hypervisor_block(image->hv, block)->max_len / HV_PAGE_LEN)
            return -EPROTO;
    }
    if (epoch->kind != STAGED_EPOCH)
        return 0;
    if (epoch->devstate_len == 0 || epoch->devstate_len > image->devstate_capacity ||
        epoch->nblocks != image->nblocks)
        return -EPROTO;
    for (unsigned i = 0; i < image->nblocks; i++) {
        if (epoch->block_used_len[i] > hypervisor_block(image->hv, i)->max_len)
            return -EPROTO;
    }
    return 0;
}

static void write_page(struct image *image, const struct staging *staging, const struct staged_page *page)
{
    unsigned i = page_ref_block(page->ref);
    uint64_t number = page_ref_page(page->ref);
    uint8_t *bytes = hypervisor_block(image->hv, i)->bytes + number * HV_PAGE_LEN;
    uint64_t *word = &image->populated[i][number / 64], bit = 1ull << (number % 64);
    if (page->slot != STAGING_NO_PAGE)
        memcpy(bytes, staging_slot(staging, page->slot), HV_PAGE_LEN);
    else if (*word & bit)
        memset(bytes, 0, HV_PAGE_LEN);
    else
        return;
    *word |= bit;
}

void image_keep(struct image *image)
{
    image->epoch = 0;
    image->devstate_len = 0;
}

int image_apply(struct image *image, const struct staging *staging, const struct staged_epoch *epoch)
{
    int status = image_check(image, epoch);
    if (status < 0)
        return status;
    for (uint32_t i = 0; i < epoch->npages; i++)
        write_page(image, staging, &epoch->pages[i]);
    if (epoch->kind != STAGED_EPOCH) {
        /* A batch of a synchronisation: the image is at no whole epoch until one follows. */
        image_keep(image);
        return 0;
    }
    memcpy(image->devstate, epoch->devstate, epoch->devstate_len);
    image->devstate_len = epoch->devstate_len;
    memcpy(image->used_len, epoch->block_used_len, sizeof image->used_len);
    image->epoch = epoch->epoch;
    image->received_ns = epoch->received_ns;
    return 0;
}

static void zero_populated(struct image *image, unsigned i)
{
    const struct hv_block *block = hypervisor_block(image->hv, i);
    for (uint64_t page = 0; page < block->max_len / HV_PAGE_LEN; page++) {
        if (image->populated[i][page / 64] & (1ull << (page % 64)))
            memset(block->bytes + page * HV_PAGE_LEN, 0, HV_PAGE_LEN);
    }
}

int image_discard(struct image *image)
{
    image_keep(image);
    int status = hypervisor_discard_ram(image->hv);
    for (unsigned i = 0; i < image->nblocks; i++) {
        if (hypervisor_block(image->hv, i)->aux)
            continue;
        /*
         * A page that is a hole on the primary will not be sent, so its old content must be removed either
         * way.
         */
        if (status < 0)
            zero_populated(image, i);
        else
            memset(image->populated[i], 0,
                   (hypervisor_block(image->hv, i)->max_len / HV_PAGE_LEN + 63) / 64 * 8);
    }
    return status;
}

uint64_t image_epoch(const struct image *image)
{
    return image->epoch;
}

const uint8_t *image_devstate(const struct image *image, size_t *len)
{
    *len = image->devstate_len;
    return image->devstate;
}

const uint64_t *image_used_len(const struct image *image, unsigned *nblocks)
{
    *nblocks = image->nblocks;
    return image->used_len;
}

uint64_t image_received_ns(const struct image *image)
{
    return image->received_ns;
}

static bool is_same_block(const struct hv_block *a, const struct hv_block *b)
{
    return strcmp(a->idstr, b->idstr) == 0 && a->max_len == b->max_len && a->aux == b->aux;
}

static void copy_differing(uint8_t *to, const uint8_t *from, uint64_t len)
{
    for (uint64_t at = 0; at < len; at += HV_PAGE_LEN) {
        if (memcmp(to + at, from + at, HV_PAGE_LEN) != 0)
            memcpy(to + at, from + at, HV_PAGE_LEN);
    }
}

int image_copy_aux(const struct image *image, struct hypervisor *to, const char **which)
{
    unsigned n = hypervisor_nblocks(to);
    for (unsigned i = 0; i < n || i < image->nblocks; i++) {
        const struct hv_block *ours = i < image->nblocks ? hypervisor_block(image->hv, i) : NULL;
        const struct hv_block *theirs = i < n ? hypervisor_block(to, i) : NULL;
        if (ours && theirs && is_same_block(ours, theirs))
            continue;
        *which = theirs ? theirs->idstr : ours->idstr;
        return -EINVAL;
    }
    for (unsigned i = 0; i < n; i++) {
        const struct hv_block *ours = hypervisor_block(image->hv, i);
        if (ours->aux)
            copy_differing(hypervisor_block(to, i)->bytes, ours->bytes, ours->max_len);
    }
    return 0;
}
