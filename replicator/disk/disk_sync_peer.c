/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The standby's messages, on the control thread. Everything is checked before it changes anything; then the
 * capture thread is woken and continues.
 */
#include <string.h>

#include "replicator/disk/disk_sync_internal.h"

void disk_sync_connected(struct disk_sync *sync)
{
    g_mutex_lock(&sync->mutex);
    sync->heard_of = 0;
    for (unsigned d = 0; d < disks_count(sync->disks); d++)
        memset(sync->fresh_bits[d], 0, disk_sync_words(sync, d) * sizeof **sync->fresh_bits);
    g_mutex_unlock(&sync->mutex);
}

/* Takes the standby's map: its own writes, from a time when it ran the guest, are candidates like ours. */
static bool take_bits(struct disk_sync *sync, const struct transport_message *message)
{
    uint64_t nchunks = disk_map_nchunks(disks_map(sync->disks, message->arg));
    size_t n = message->len / 8, used = disk_sync_words(sync, message->arg);
    if (message->len % 8 || message->epoch > used || n > used - message->epoch)
        return false;
    g_mutex_lock(&sync->mutex);
    for (size_t i = 0; i < n; i++) {
        uint64_t word = message->epoch + i, bits = get64(message->payload + i * 8);
        if (word == used - 1 && nchunks % 64)
            bits &= (1ull << (nchunks % 64)) - 1;
        sync->fresh_bits[message->arg][word] |= bits;
    }
    g_mutex_unlock(&sync->mutex);
    return true;
}

static bool take_state(struct disk_sync *sync, const struct transport_message *message)
{
    struct wire_disk_state state;
    if (wire_disk_state_decode(&state, message->payload, message->len) < 0)
        return false;
    g_mutex_lock(&sync->mutex);
    /* Once a connection: the capture thread reads it without the mutex from then on. */
    bool first = !(sync->heard_of & (1u << message->arg));
    if (first)
        sync->theirs[message->arg] = state;
    sync->heard_of |= 1u << message->arg;
    g_mutex_unlock(&sync->mutex);
    return first;
}

/* Takes hashes. Those that no window waits for any more are dropped. */
static bool take_hashes(struct disk_sync *sync, const struct transport_message *message)
{
    g_mutex_lock(&sync->mutex);
    for (unsigned i = 0; i < sync->nwindows; i++) {
        struct window *window = &sync->windows[i];
        if (window->disk == message->arg && window->first == message->epoch && !window->arrived &&
            message->len == (size_t)window->n * WIRE_HASH_LEN) {
            memcpy(window->hashes, message->payload, message->len);
            window->arrived = true;
        }
    }
    g_mutex_unlock(&sync->mutex);
    return true;
}

static void confirm(_Atomic uint64_t *newest, uint64_t number)
{
    if (number > atomic_load_explicit(newest, memory_order_relaxed))
        atomic_store_explicit(newest, number, memory_order_release);
}

bool disk_sync_message(struct disk_sync *sync, const struct transport_message *message)
{
    bool sound = true;
    if (message->type != MESSAGE_APPLIED && message->arg >= disks_count(sync->disks))
        return false;
    switch (message->type) {
    case MESSAGE_APPLIED:
        confirm(message->arg ? &sync->confirmed_batch : &sync->confirmed_epoch, message->epoch);
        break;
    case MESSAGE_DISK_BITS:
        sound = take_bits(sync, message);
        break;
    case MESSAGE_DISK_STATE:
        sound = take_state(sync, message);
        break;
    case MESSAGE_DISK_HASHES:
        sound = take_hashes(sync, message);
        break;
    default:
        sound = false;
        break;
    }
    sync->wake(sync->wake_opaque);
    return sound;
}
