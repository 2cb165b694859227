/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Lists QEMU's RAM blocks. Main RAM is the block whose pages are the ram memfd. It is found by comparing
 * files (device and inode), not by its name, which the user may choose. Every other migratable block is an
 * aux block and gets a place in the mirror.
 *
 * The list is in QEMU's own order. Only the main thread adds and removes blocks, so a list stays valid until
 * the next request; hook_blocks_changed is a cheap comparison.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "hv-hooks/qemu/hook/hook_internal.h"

struct listing {
    struct hook *hook;
    uint32_t n;
    bool overflow;
};

static int add_block(struct RAMBlock *rb, void *opaque)
{
    struct listing *listing = opaque;
    const struct qemu_symbols *qemu = &listing->hook->qemu;
    if (!qemu->qemu_ram_is_migratable(rb))
        return 0;
    if (listing->n == HOOK_MAX_BLOCKS) {
        listing->overflow = true;
        return 1;
    }
    struct hook_local_block *local = &listing->hook->local[listing->n++];
    uint64_t offset;
    local->rb = rb;
    local->host = qemu->qemu_ram_get_host_addr(rb);
    local->mr = qemu->memory_region_from_host(local->host, &offset);
    return 0;
}

static int count_changes(struct RAMBlock *rb, void *opaque)
{
    struct listing *listing = opaque;
    if (!listing->hook->qemu.qemu_ram_is_migratable(rb))
        return 0;
    if (listing->n >= listing->hook->nlocal || listing->hook->local[listing->n].rb != rb) {
        listing->overflow = true;
        return 1;
    }
    listing->n++;
    return 0;
}

bool hook_blocks_changed(struct hook *hook)
{
    struct listing listing = {.hook = hook};
    hook->qemu.qemu_ram_foreach_block(count_changes, &listing);
    return listing.overflow || listing.n != hook->nlocal;
}

static int note_block(struct RAMBlock *rb, void *opaque)
{
    struct listing *listing = opaque;
    if (listing->hook->qemu.qemu_ram_is_migratable(rb))
        listing->n++;
    return 0;
}

/* Whether the machine has been built: before that the main loop may already turn (-preconfig). */
bool hook_blocks_exist(struct hook *hook)
{
    struct listing listing = {.hook = hook};
    hook->qemu.qemu_ram_foreach_block(note_block, &listing);
    return listing.n > 0;
}

/* Whether the block's pages are the memfd that the engine gave as guest RAM. */
static bool is_ram_memfd(const struct hook *hook, struct RAMBlock *rb)
{
    struct stat st;
    int fd = hook->qemu.qemu_ram_get_fd(rb);
    return fd >= 0 && fstat(fd, &st) == 0 && (uint64_t)st.st_dev == hook->ram_dev &&
           (uint64_t)st.st_ino == hook->ram_ino;
}

static uint64_t round_up(uint64_t value, uint64_t step)
{
    return (value + step - 1) / step * step;
}

/* Assigns block i its place; advances *bitmap_off and *aux_off. */
static int place_block(struct hook *hook, uint32_t i, uint64_t *bitmap_off, uint64_t *aux_off, char *message,
                       size_t message_len)
{
    struct hook_block *block = &hook->shm->blocks[i];
    struct RAMBlock *rb = hook->local[i].rb;
    const struct qemu_symbols *qemu = &hook->qemu;
    memset(block, 0, sizeof *block);
    snprintf(block->idstr, sizeof block->idstr, "%s", qemu->qemu_ram_get_idstr(rb));
    block->max_len = round_up(qemu->qemu_ram_get_max_length(rb), HOOK_PAGE_LEN);
    atomic_store(&block->used_len, qemu->qemu_ram_get_used_length(rb));
    block->host_addr = (uint64_t)(uintptr_t)hook->local[i].host;
    block->bitmap_off = *bitmap_off;
    *bitmap_off += round_up(block->max_len / HOOK_PAGE_LEN, 512) / 8;
    if (*bitmap_off > hook->shm->bitmaps_off + hook->shm->bitmaps_len) {
        snprintf(message, message_len, "RAM block %s does not fit into the dirty bitmaps", block->idstr);
        return -ENOSPC;
    }
    if (qemu->qemu_ram_get_offset(rb) % (64 * HOOK_PAGE_LEN)) {
        /* The dirty log's snapshot would begin in the middle of a word. */
        snprintf(message, message_len, "RAM block %s is not aligned to 256 KiB", block->idstr);
        return -EINVAL;
    }
    if (is_ram_memfd(hook, rb)) {
        if (block->max_len != hook->shm->ram_len) {
            snprintf(message, message_len, "main RAM block %s has %llu bytes, not %llu", block->idstr,
                     (unsigned long long)block->max_len, (unsigned long long)hook->shm->ram_len);
            return -EINVAL;
        }
        block->flags = HOOK_BLOCK_IN_RAM_MEMFD;
        return 0;
    }
    block->flags = HOOK_BLOCK_AUX;
    block->data_off = *aux_off;
    *aux_off += block->max_len;
    if (*aux_off > hook->shm->aux_off + hook->shm->aux_len) {
        snprintf(
            message, message_len,
            "RAM outside the guest's main memory (%s and others) exceeds %llu MiB: use less video memory",
            block->idstr, (unsigned long long)(hook->shm->aux_len >> 20));
        return -ENOSPC;
    }
    return 0;
}

int hook_blocks_list(struct hook *hook, char *message, size_t message_len)
{
    struct listing listing = {.hook = hook};
    uint64_t bitmap_off = hook->shm->bitmaps_off, aux_off = hook->shm->aux_off;
    unsigned main_blocks = 0;

    hook->qemu.qemu_ram_foreach_block(add_block, &listing);
    if (listing.overflow) {
        snprintf(message, message_len, "the guest has more than %u RAM blocks", HOOK_MAX_BLOCKS);
        return -E2BIG;
    }
    hook->nlocal = listing.n;
    for (uint32_t i = 0; i < listing.n; i++) {
        int status = place_block(hook, i, &bitmap_off, &aux_off, message, message_len);
        if (status < 0)
            return status;
        struct hook_block *block = &hook->shm->blocks[i];
        if (block->flags & HOOK_BLOCK_IN_RAM_MEMFD)
            main_blocks++;
        else
            memcpy((uint8_t *)hook->shm + block->data_off, hook->local[i].host,
                   atomic_load(&block->used_len));
    }
    hook->shm->nblocks = listing.n;
    hook->shm->blocks_generation++;
    if (main_blocks != 1) {
        snprintf(message, message_len, "the guest's main memory is not the memory understudy gave to QEMU");
        return -ENXIO;
    }
    return 0;
}

/*
 * Copies only what differs. Most of a standby's aux memory is right already (ROMs) or was never touched
 * (video memory). Writing to all of it would fault in every page, in the middle of a takeover.
 */
static void copy_changed(uint8_t *to, const uint8_t *from, uint64_t len)
{
    for (uint64_t offset = 0; offset < len; offset += HOOK_PAGE_LEN) {
        uint64_t n = len - offset < HOOK_PAGE_LEN ? len - offset : HOOK_PAGE_LEN;
        if (memcmp(to + offset, from + offset, n) != 0)
            memcpy(to + offset, from + offset, n);
    }
}

int hook_blocks_load_aux(struct hook *hook, char *message, size_t message_len)
{
    for (uint32_t i = 0; i < hook->nlocal; i++) {
        struct hook_block *block = &hook->shm->blocks[i];
        struct RAMBlock *rb = hook->local[i].rb;
        uint64_t wanted = atomic_load(&block->used_len);
        if (wanted > block->max_len)
            return -EPROTO;
        if (wanted != hook->qemu.qemu_ram_get_used_length(rb)) {
            struct Error *error = NULL;
            if (!hook->qemu.qemu_ram_resize || hook->qemu.qemu_ram_resize(rb, wanted, &error) < 0) {
                snprintf(message, message_len, "RAM block %s could not be resized to %llu bytes",
                         block->idstr, (unsigned long long)wanted);
                if (error)
                    hook->qemu.error_free(error);
                return -EINVAL;
            }
        }
        if (block->flags & HOOK_BLOCK_AUX)
            copy_changed(hook->local[i].host, (uint8_t *)hook->shm + block->data_off, wanted);
    }
    return 0;
}
