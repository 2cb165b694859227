/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The list of held changes, and reads over it. The list is an array that is used as a queue: added to at
 * the end, dropped at the front. A read takes the image's bytes and then copies the data of each held
 * change over them, in order, under the lock. Writing to the image takes the oldest change first, and drops
 * it from the list afterwards.
 */
#include "replicator/disk/plugin/disk_held.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoint/disk/disk_image.h"

void disk_held_init(struct disk_held *held, struct disk_shm *shm, uint64_t ring_len, uint64_t export_len,
                    int image)
{
    *held = (struct disk_held){.shm = shm,
                               .ring = (uint8_t *)shm + DISK_SHM_RING_OFFSET,
                               .ring_len = ring_len,
                               .export_len = export_len,
                               .image = image};
    pthread_mutex_init(&held->flush_lock, NULL);
    pthread_rwlock_init(&held->list_lock, NULL);
}

void disk_held_destroy(struct disk_held *held)
{
    pthread_mutex_destroy(&held->flush_lock);
    pthread_rwlock_destroy(&held->list_lock);
    free(held->list);
}

/* ---- the list ---- */

/* Room for one more at the end; what was dropped at the front is used again. */
static int make_room(struct disk_held *held)
{
    if (held->first + held->n < held->capacity)
        return 0;
    if (held->first > held->n) {
        memmove(held->list, held->list + held->first, held->n * sizeof *held->list);
        held->first = 0;
        return 0;
    }
    size_t capacity = held->capacity ? held->capacity * 2 : 1024;
    struct held_change *list = realloc(held->list, capacity * sizeof *list);
    if (!list)
        return -ENOMEM;
    held->list = list;
    held->capacity = capacity;
    return 0;
}

int disk_held_add(struct disk_held *held, const struct disk_record *record, uint64_t position)
{
    pthread_rwlock_wrlock(&held->list_lock);
    int status = make_room(held);
    if (status == 0) {
        held->list[held->first + held->n++] = (struct held_change){.position = position,
                                                                   .end = position + disk_record_len(record),
                                                                   .offset = record->offset,
                                                                   .len = record->len,
                                                                   .type = record->type};
    }
    pthread_rwlock_unlock(&held->list_lock);
    return status;
}

int disk_held_rebuild(struct disk_held *held, uint64_t head)
{
    uint64_t from = atomic_load(&held->shm->flushed);
    struct disk_stream stream;
    struct disk_record record;
    int status;
    if (head - from > held->ring_len || from % DISK_RECORD_ALIGN != 0)
        return -EPROTO;
    disk_stream_of_ring(&stream, held->ring, held->ring_len, from, head - from);
    while ((status = disk_stream_next(&stream, &record)) == 1) {
        if (!disk_record_fits(&record, held->export_len))
            return -EPROTO;
        status = disk_held_add(held, &record, from);
        if (status < 0)
            return status;
        from += disk_record_len(&record);
    }
    return status;
}

/* ---- reading ---- */

/* Where len bytes of a change's data lie, from `skip` on: in two pieces where the ring wraps. */
static void data_of(const struct disk_held *held, const struct held_change *change, uint64_t skip, size_t len,
                    struct disk_stream *out)
{
    disk_stream_of_ring(out, held->ring, held->ring_len, change->position + DISK_RECORD_HEADER_LEN + skip,
                        len);
}

static void copy_data(const struct disk_held *held, const struct held_change *change, uint64_t skip,
                      uint8_t *to, size_t len)
{
    struct disk_stream data;
    data_of(held, change, skip, len, &data);
    memcpy(to, data.span[0].iov_base, data.span[0].iov_len);
    memcpy(to + data.span[0].iov_len, data.span[1].iov_base, data.span[1].iov_len);
}

static void lay_over(const struct disk_held *held, const struct held_change *change, uint8_t *buffer,
                     size_t len, uint64_t offset)
{
    uint64_t from = change->offset > offset ? change->offset : offset;
    uint64_t change_end = change->offset + change->len,
             end = offset + len < change_end ? offset + len : change_end;
    if (from >= end)
        return;
    if (change->type == DISK_RECORD_WRITE)
        copy_data(held, change, from - change->offset, buffer + (from - offset), end - from);
    else
        memset(buffer + (from - offset), 0, end - from);
}

int disk_held_read(struct disk_held *held, void *buffer, size_t len, uint64_t offset)
{
    /* Under the lock: a change that leaves the list in between would be in neither. */
    pthread_rwlock_rdlock(&held->list_lock);
    int status = disk_image_read(held->image, buffer, len, offset);
    for (size_t i = 0; i < held->n && status == 0; i++)
        lay_over(held, &held->list[held->first + i], buffer, len, offset);
    pthread_rwlock_unlock(&held->list_lock);
    return status;
}

/* ---- writing to the image ---- */

static int write_change(const struct disk_held *held, const struct held_change *change)
{
    if (change->type != DISK_RECORD_WRITE)
        return disk_image_zero(held->image, change->offset, change->len, change->type == DISK_RECORD_TRIM,
                               false);
    struct disk_stream data;
    data_of(held, change, 0, change->len, &data);
    return disk_image_write(held->image, data.span, data.span[1].iov_len ? 2 : 1, change->offset, false);
}

/* The oldest, if it lies before upto. */
static bool peek(struct disk_held *held, uint64_t upto, struct held_change *out)
{
    pthread_rwlock_rdlock(&held->list_lock);
    bool there = held->n > 0 && upto - held->list[held->first].end <= held->ring_len;
    if (there)
        *out = held->list[held->first];
    pthread_rwlock_unlock(&held->list_lock);
    return there;
}

static void drop_oldest(struct disk_held *held, uint64_t end)
{
    pthread_rwlock_wrlock(&held->list_lock);
    held->first++;
    held->n--;
    pthread_rwlock_unlock(&held->list_lock);
    atomic_store_explicit(&held->shm->flushed, end, memory_order_release);
}

int disk_held_flush(struct disk_held *held, uint64_t upto)
{
    struct held_change change;
    int status = 0;
    pthread_mutex_lock(&held->flush_lock);
    while (status == 0 && (atomic_load(&held->shm->flags) & DISK_WRITABLE) && peek(held, upto, &change)) {
        status = write_change(held, &change);
        if (status == 0)
            drop_oldest(held, change.end);
    }
    pthread_mutex_unlock(&held->flush_lock);
    return status;
}
