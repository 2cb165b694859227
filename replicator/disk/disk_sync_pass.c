/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One pass over the frozen bitmaps, on the capture thread. A window is WIRE_MAX_HASHES chunks. Two are
 * under way: while one is compared and sent, the standby hashes the next.
 */
#include <errno.h>
#include <string.h>

#include "checkpoint/disk/disk_hash.h"
#include "checkpoint/disk/disk_section.h"
#include "replicator/disk/disk_sync_internal.h"

#define COMPARE_CHUNKS 64u /* fewer than these are sent unseen */
/* Half of a ring: the first epoch carries it, and until that is acked output waits. */
#define LAST_PASS_LOG_LEN (DISKS_RING_LEN / 2)

static _Atomic uint64_t *frozen_words(const struct disk_sync *sync, unsigned disk, size_t *nwords)
{
    return disk_map_words(disks_map(sync->disks, disk), disks_frozen(sync->disks, disk), nwords);
}

void disk_sync_clear_chunk(const struct disk_sync *sync, unsigned disk, uint64_t chunk)
{
    size_t nwords;
    _Atomic uint64_t *words = frozen_words(sync, disk, &nwords);
    atomic_fetch_and(&words[chunk / 64], ~(1ull << (chunk % 64)));
}

/* The next chunk set in the frozen bitmap in [from, end), or end. */
uint64_t disk_sync_next_chunk(const struct disk_sync *sync, unsigned disk, uint64_t from, uint64_t end)
{
    size_t nwords;
    _Atomic uint64_t *words = frozen_words(sync, disk, &nwords);
    while (from < end) {
        uint64_t bits = atomic_load_explicit(&words[from / 64], memory_order_relaxed) >> (from % 64);
        if (bits)
            return MIN(from + (uint64_t)__builtin_ctzll(bits), end);
        from = (from / 64 + 1) * 64;
    }
    return end;
}

void disk_sync_send(const struct disk_sync *sync, enum message_type type, unsigned disk, uint64_t number,
                    const void *payload, size_t len)
{
    struct transport_message message = {
        .type = type, .term = sync->term, .epoch = number, .arg = disk, .len = len, .payload = payload};
    if (sync->connection)
        sender_post_message(sync->sender, sync->connection, &message);
}

/* ---- windows ---- */

static void ask_hashes(const struct disk_sync *sync, const struct window *window)
{
    uint8_t count[WIRE_HASH_REQUEST_LEN];
    put32(count, window->n);
    disk_sync_send(sync, MESSAGE_DISK_HASH_REQUEST, window->disk, window->first, count, sizeof count);
}

/* Opens the next window that has set chunks. False: there is none. */
static bool open_window(struct disk_sync *sync)
{
    for (; sync->ask_disk < disks_count(sync->disks); sync->ask_disk++, sync->ask_chunk = 0) {
        uint64_t nchunks = disk_map_nchunks(disks_map(sync->disks, sync->ask_disk));
        uint64_t chunk = disk_sync_next_chunk(sync, sync->ask_disk, sync->ask_chunk, nchunks);
        if (chunk == nchunks)
            continue;
        g_mutex_lock(&sync->mutex);
        struct window *window = &sync->windows[sync->nwindows++];
        window->disk = sync->ask_disk;
        window->first = window->cursor = chunk - chunk % WINDOW_CHUNKS;
        window->n = (uint32_t)MIN(nchunks - window->first, WINDOW_CHUNKS);
        window->compare = sync->compare[sync->ask_disk];
        window->arrived = !window->compare;
        g_mutex_unlock(&sync->mutex);
        sync->ask_chunk = window->first + WINDOW_CHUNKS;
        if (window->compare)
            ask_hashes(sync, window);
        return true;
    }
    return false;
}

static void close_window(struct disk_sync *sync)
{
    g_mutex_lock(&sync->mutex);
    struct window done = sync->windows[0];
    memmove(sync->windows, sync->windows + 1, (WINDOWS - 1) * sizeof *sync->windows);
    sync->windows[WINDOWS - 1] = done; /* its memory */
    sync->nwindows--;
    g_mutex_unlock(&sync->mutex);
}

/* Clears the chunks whose hashes match. A write since then has set the other bitmap's bit. */
static int compare_window(struct disk_sync *sync, struct window *window)
{
    struct disk_image *image = disks_image(sync->disks, window->disk);
    uint64_t end = window->first + window->n;
    uint8_t ours[WIRE_HASH_LEN];
    for (uint64_t chunk = window->first; (chunk = disk_sync_next_chunk(sync, window->disk, chunk, end)) < end;
         chunk++) {
        int status = disk_hash_chunks(disk_image_fd(image), disk_image_len(image), chunk, 1, ours);
        if (status < 0)
            return status;
        if (memcmp(ours, window->hashes + (chunk - window->first) * WIRE_HASH_LEN, WIRE_HASH_LEN) == 0)
            disk_sync_clear_chunk(sync, window->disk, chunk);
    }
    window->compare = false;
    return 0;
}

/* ---- batches ---- */

static bool is_zero(const uint8_t *bytes, size_t len)
{
    return bytes[0] == 0 && memcmp(bytes, bytes + 1, len - 1) == 0;
}

/* Encodes one chunk at `at` of the buffer: bytes written, or -errno. */
static int64_t put_chunk(struct disk_sync *sync, unsigned disk, uint64_t chunk, uint8_t *at)
{
    struct disk_image *image = disks_image(sync->disks, disk);
    uint64_t offset = chunk * DISK_CHUNK_LEN, len = MIN(DISK_CHUNK_LEN, disk_image_len(image) - offset);
    struct disk_record record = {
        .type = DISK_RECORD_TRIM, .disk = (uint16_t)disk, .offset = offset, .len = len};
    if (!disk_image_is_hole(disk_image_fd(image), offset, len)) {
        int status = disk_image_read(disk_image_fd(image), at + DISK_RECORD_HEADER_LEN, len, offset);
        if (status < 0)
            return status;
        if (!is_zero(at + DISK_RECORD_HEADER_LEN, len)) {
            record.type = DISK_RECORD_WRITE;
            record.data_len = (uint32_t)len;
            disks_count_sent(sync->disks, disk, len);
        }
    }
    disk_record_encode(&record, at);
    size_t whole = disk_record_len(&record), used = DISK_RECORD_HEADER_LEN + record.data_len;
    memset(at + used, 0, whole - used);
    return (int64_t)whole;
}

/*
 * Makes a batch of the window's next chunks: 1 and *out; 0: the window has no more; -EAGAIN: no room;
 * -errno.
 */
static int make_batch(struct disk_sync *sync, struct window *window, uint64_t number,
                      struct staged_epoch **out)
{
    struct sent_batch *sent = &sync->outstanding[sync->next_batch % MAX_OUTSTANDING];
    uint64_t end = window->first + window->n, cursor = window->cursor;
    uint64_t worst = staging_disk_pages((uint64_t)BATCH_CHUNKS * RECORD_LEN);
    size_t len = 0;
    if (disk_sync_next_chunk(sync, window->disk, cursor, end) == end)
        return 0;
    if (sync->next_batch - sync->first_batch == MAX_OUTSTANDING || staging_free_epochs(sync->staging) < 2 ||
        staging_free_pages(sync->staging) < worst)
        return -EAGAIN;
    *sent = (struct sent_batch){.number = number, .disk = window->disk};
    while (sent->n < BATCH_CHUNKS && (cursor = disk_sync_next_chunk(sync, window->disk, cursor, end)) < end) {
        int64_t n = put_chunk(sync, window->disk, cursor, sync->buffer + len);
        if (n < 0)
            return (int)n;
        len += (size_t)n;
        sent->chunks[sent->n++] = cursor++;
    }
    struct staged_epoch *batch = staging_begin(sync->staging, number, STAGED_PRECOPY);
    if (!batch || disk_section_reserve(sync->staging, batch, len) < 0) {
        if (batch)
            staging_abort(sync->staging, batch);
        return -EAGAIN;
    }
    disk_section_write(sync->staging, batch, 0, sync->buffer, len);
    staging_commit(sync->staging, batch);
    window->cursor = cursor;
    sync->next_batch++;
    *out = batch;
    return 1;
}

/* Takes the standby's confirmations: chunks in its images need not be sent again. */
void disk_sync_take_confirmations(struct disk_sync *sync)
{
    uint64_t confirmed = atomic_load_explicit(&sync->confirmed_batch, memory_order_acquire);
    while (sync->first_batch < sync->next_batch) {
        const struct sent_batch *sent = &sync->outstanding[sync->first_batch % MAX_OUTSTANDING];
        if (sent->number > confirmed)
            return;
        for (uint32_t i = 0; i < sent->n; i++)
            disk_sync_clear_chunk(sync, sent->disk, sent->chunks[i]);
        sync->pass_done += sent->n;
        sync->first_batch++;
        if (sync->last_pass)
            disk_sync_limit_log(sync);
    }
}

void disk_sync_begin_pass(struct disk_sync *sync)
{
    sync->pass_chunks = sync->pass_done = 0;
    for (unsigned d = 0; d < disks_count(sync->disks); d++) {
        uint64_t candidates = disk_map_count(disks_map(sync->disks, d), disks_frozen(sync->disks, d));
        sync->pass_chunks += candidates;
        sync->compare[d] = sync->passes == 0 && candidates > COMPARE_CHUNKS && !(sync->unlike & (1u << d));
        if (sync->passes == 0)
            disks_count_candidates(sync->disks, d, candidates * DISK_CHUNK_LEN);
    }
    sync->ask_disk = 0;
    sync->ask_chunk = 0;
    sync->passes++;
}

void disk_sync_limit_log(const struct disk_sync *sync)
{
    uint64_t done = MIN(sync->pass_done, sync->pass_chunks), of = MAX(sync->pass_chunks, 1);
    disks_limit_logs(sync->disks, LAST_PASS_LOG_LEN / 8 + LAST_PASS_LOG_LEN / 8 * 7 * done / of);
}

bool disk_sync_do_pass(struct disk_sync *sync, uint64_t number, struct staged_epoch **batch, bool *over,
                       int *status)
{
    while (sync->nwindows < WINDOWS && open_window(sync))
        ;
    *over = sync->nwindows == 0;
    if (*over)
        return true;
    struct window *window = &sync->windows[0];
    g_mutex_lock(&sync->mutex);
    bool arrived = window->arrived;
    g_mutex_unlock(&sync->mutex);
    if (!arrived)
        return false;
    if (window->compare) {
        *status = compare_window(sync, window);
        return *status == 0;
    }
    int made = make_batch(sync, window, number, batch);
    if (made == 0)
        close_window(sync);
    else if (made < 0 && made != -EAGAIN)
        *status = made;
    return made >= 0;
}
