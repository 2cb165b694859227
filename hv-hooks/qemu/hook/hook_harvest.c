/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Harvests the dirty log: synchronises QEMU's own migration log from the accelerator and moves it, block by
 * block, into the bitmaps in shared memory. It uses snapshot_and_clear and not the sync of QEMU's pre-copy:
 * under TCG in QEMU 7.2 only snapshot_and_clear re-arms the TLB; with the sync, writes would be lost
 * (accel/tcg/cputlb.c, tlb_reset_dirty).
 *
 * With the userfaultfd tracker the engine itself finds the dirty pages of main RAM. The hook then only
 * compares the aux blocks, which are small, with their mirror.
 */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "hv-hooks/qemu/hook/hook_internal.h"

/* Linux 6.7; Debian 12's headers are older. */
#ifndef UFFD_FEATURE_WP_UNPOPULATED
#define UFFD_FEATURE_WP_UNPOPULATED (1 << 13)
#endif
#ifndef UFFD_FEATURE_WP_ASYNC
#define UFFD_FEATURE_WP_ASYNC (1 << 15)
#endif

static _Atomic uint64_t *bitmap_of(struct hook *hook, uint32_t i)
{
    return (_Atomic uint64_t *)((uint8_t *)hook->shm + hook->shm->blocks[i].bitmap_off);
}

/* Copies the pages of one bitmap word to the aux mirror. */
static void mirror_word(struct hook *hook, uint32_t i, uint64_t first_page, uint64_t word)
{
    struct hook_block *block = &hook->shm->blocks[i];
    uint64_t used = hook->qemu.qemu_ram_get_used_length(hook->local[i].rb);
    while (word) {
        uint64_t offset = (first_page + (uint64_t)__builtin_ctzll(word)) * HOOK_PAGE_LEN;
        word &= word - 1;
        if (offset >= used)
            continue;
        uint64_t len = used - offset < HOOK_PAGE_LEN ? used - offset : HOOK_PAGE_LEN;
        memcpy((uint8_t *)hook->shm + block->data_off + offset, hook->local[i].host + offset, len);
    }
}

static struct qemu_dirty_snapshot *snapshot_block(struct hook *hook, uint32_t i)
{
    uint64_t used = hook->qemu.qemu_ram_get_used_length(hook->local[i].rb);
    atomic_store_explicit(&hook->shm->blocks[i].used_len, used, memory_order_relaxed);
    return hook->qemu.cpu_physical_memory_snapshot_and_clear_dirty(hook->local[i].mr, 0, used,
                                                                   QEMU_CLIENT_MIGRATION);
}

static uint64_t publish_block(struct hook *hook, uint32_t i, struct qemu_dirty_snapshot *snapshot)
{
    struct hook_block *block = &hook->shm->blocks[i];
    uint64_t pages = 0;
    _Atomic uint64_t *bitmap = bitmap_of(hook, i);
    if (!snapshot)
        return 0;
    uint64_t words = (snapshot->end - snapshot->start) / HOOK_PAGE_LEN / 64;
    if (words > (block->max_len / HOOK_PAGE_LEN + 63) / 64)
        words = (block->max_len / HOOK_PAGE_LEN + 63) / 64;
    for (uint64_t w = 0; w < words; w++) {
        uint64_t bits = snapshot->dirty[w];
        if (!bits)
            continue;
        if (hook_chaos("drop-page"))
            bits &= bits - 1;
        pages += (uint64_t)__builtin_popcountll(bits);
        if ((block->flags & HOOK_BLOCK_AUX) && !hook_chaos("stale-mirror"))
            mirror_word(hook, i, w * 64, bits);
        /* After the mirror: a reader that sees the bit sees the bytes. */
        atomic_fetch_or_explicit(&bitmap[w], bits, memory_order_release);
    }
    g_free(snapshot);
    return pages;
}

static uint64_t compare_aux_block(struct hook *hook, uint32_t i)
{
    struct hook_block *block = &hook->shm->blocks[i];
    uint64_t used = hook->qemu.qemu_ram_get_used_length(hook->local[i].rb);
    uint64_t pages = 0;
    atomic_store_explicit(&block->used_len, used, memory_order_relaxed);
    for (uint64_t offset = 0; offset < used; offset += HOOK_PAGE_LEN) {
        uint64_t len = used - offset < HOOK_PAGE_LEN ? used - offset : HOOK_PAGE_LEN;
        uint8_t *mirror = (uint8_t *)hook->shm + block->data_off + offset;
        if (memcmp(mirror, hook->local[i].host + offset, len) == 0)
            continue;
        memcpy(mirror, hook->local[i].host + offset, len);
        uint64_t page = offset / HOOK_PAGE_LEN;
        atomic_fetch_or_explicit(&bitmap_of(hook, i)[page / 64], 1ull << (page % 64), memory_order_release);
        pages++;
    }
    return pages;
}

uint64_t hook_harvest(struct hook *hook)
{
    uint64_t pages = 0;
    if (!hook->tracking)
        return 0;
    if (hook->tracker == HOOK_TRACKER_UFFD) {
        for (uint32_t i = 0; i < hook->nlocal; i++) {
            if (hook->shm->blocks[i].flags & HOOK_BLOCK_AUX)
                pages += compare_aux_block(hook, i);
        }
        return pages;
    }
    /* The argument (last stage: flush the dirty rings' remains) exists from 8.1 on and is ignored before. */
    hook->qemu.memory_global_dirty_log_sync(true);
    struct qemu_dirty_snapshot *snapshots[HOOK_MAX_BLOCKS];
    for (uint32_t i = 0; i < hook->nlocal; i++)
        snapshots[i] = snapshot_block(hook, i);
    /*
     * Guest running under TCG: a vCPU may have found its page dirty, and be about to store, when the bit was
     * cleared. This waits until every vCPU has left its translated code, so that such a store is over before
     * anyone copies.
     */
    if (hook->qemu.runstate_is_running())
        hook->qemu.memory_global_after_dirty_log_sync();
    for (uint32_t i = 0; i < hook->nlocal; i++)
        pages += publish_block(hook, i, snapshots[i]);
    return pages;
}

static int start_uffd(struct hook *hook, char *message, size_t message_len)
{
    hook->uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    if (hook->uffd < 0) {
        int error = errno;
        snprintf(message, message_len, "userfaultfd is not allowed here: %s", strerror(error));
        return -error;
    }
    struct uffdio_api api = {.api = UFFD_API,
                             .features = UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED |
                                         UFFD_FEATURE_WP_HUGETLBFS_SHMEM};
    if (ioctl(hook->uffd, UFFDIO_API, &api) < 0) {
        snprintf(message, message_len, "the kernel lacks asynchronous write protection (Linux 6.7): %s",
                 strerror(errno));
        return -ENOTSUP;
    }
    for (uint32_t i = 0; i < hook->nlocal; i++) {
        if (!(hook->shm->blocks[i].flags & HOOK_BLOCK_IN_RAM_MEMFD))
            continue;
        struct uffdio_register range = {
            .range = {.start = (uintptr_t)hook->local[i].host, .len = hook->shm->blocks[i].max_len},
            .mode = UFFDIO_REGISTER_MODE_WP,
        };
        if (ioctl(hook->uffd, UFFDIO_REGISTER, &range) < 0) {
            int error = errno;
            snprintf(message, message_len, "guest memory cannot be write-protected: %s", strerror(error));
            return -error;
        }
        struct uffdio_writeprotect protect = {.range = range.range, .mode = UFFDIO_WRITEPROTECT_MODE_WP};
        if (ioctl(hook->uffd, UFFDIO_WRITEPROTECT, &protect) < 0) {
            int error = errno;
            snprintf(message, message_len, "guest memory cannot be write-protected: %s", strerror(error));
            return -error;
        }
    }
    return 0;
}

int hook_track_start(struct hook *hook, enum hook_tracker tracker, char *message, size_t message_len)
{
    if (hook->tracking)
        hook_track_stop(hook);
    if (tracker == HOOK_TRACKER_UFFD) {
        int status = start_uffd(hook, message, message_len);
        if (status < 0) {
            if (hook->uffd >= 0)
                close(hook->uffd);
            hook->uffd = -1;
            return status;
        }
    } else {
        struct Error *error = NULL;
        hook->qemu.memory_global_dirty_log_start(QEMU_DIRTY_MIGRATION, &error);
        if (error) {
            snprintf(message, message_len, "QEMU cannot log dirty pages: %s",
                     hook->qemu.error_get_pretty(error));
            hook->qemu.error_free(error);
            return -ENOTSUP;
        }
    }
    hook->tracker = tracker;
    hook->tracking = true;
    /* What the log says so far is the caller's to send anyway: it sends every page after this. */
    hook_harvest(hook);
    for (uint32_t i = 0; i < hook->nlocal; i++) {
        struct hook_block *block = &hook->shm->blocks[i];
        memset((void *)bitmap_of(hook, i), 0, (block->max_len / HOOK_PAGE_LEN + 63) / 64 * 8);
        if (block->flags & HOOK_BLOCK_AUX)
            memcpy((uint8_t *)hook->shm + block->data_off, hook->local[i].host,
                   atomic_load(&block->used_len));
    }
    return 0;
}

int hook_track_stop(struct hook *hook)
{
    if (!hook->tracking)
        return 0;
    hook->tracking = false;
    if (hook->tracker == HOOK_TRACKER_UFFD) {
        close(hook->uffd); /* unregisters and lifts the protection */
        hook->uffd = -1;
    } else {
        hook->qemu.memory_global_dirty_log_stop(QEMU_DIRTY_MIGRATION);
    }
    return 0;
}
