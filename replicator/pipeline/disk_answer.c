/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Answers hash requests on a thread pool of one thread. Requests wait in the pool's queue. A primary has
 * two under way at most, so a peer with more is not one of ours, and the queue is bounded.
 */
#include "replicator/pipeline/disk_answer.h"

#include <string.h>

#include "checkpoint/disk/disk_hash.h"
#include "proto/disk_wire.h"

#define MAX_WAITING 8u
#define BITS_WORDS  (WIRE_DISK_BITS_MAX / 8)

struct disk_answer {
    struct disks *disks;
    struct sender *sender;
    struct applier *applier;
    GThreadPool *hasher; /* one thread */
};

struct hash_job {
    struct connection *connection;
    uint64_t term, first;
    unsigned disk;
    uint32_t n;
};

static void hash(gpointer data, gpointer opaque)
{
    struct hash_job *job = data;
    struct disk_answer *answer = opaque;
    struct disk_image *image = disks_image(answer->disks, job->disk);
    g_autofree uint8_t *hashes = g_malloc((size_t)job->n * WIRE_HASH_LEN);
    int status = disk_hash_chunks(disk_image_fd(image), disk_image_len(image), job->first, job->n, hashes);
    struct transport_message message = {.type = MESSAGE_DISK_HASHES,
                                        .term = job->term,
                                        .epoch = job->first,
                                        .arg = job->disk,
                                        .len = (size_t)job->n * WIRE_HASH_LEN,
                                        .payload = hashes};
    if (status == 0) {
        sender_post_message(answer->sender, job->connection, &message);
    } else {
        g_warning("disk %s: %s cannot be read: %s", disks_id(answer->disks, job->disk),
                  disk_image_path(image), g_strerror(-status));
        connection_shutdown(job->connection);
    }
    connection_put(job->connection);
    g_free(job);
}

struct disk_answer *disk_answer_new(struct disks *disks, struct sender *sender, struct applier *applier,
                                    GError **error)
{
    struct disk_answer *answer = g_new0(struct disk_answer, 1);
    answer->disks = disks;
    answer->sender = sender;
    answer->applier = applier;
    if (disks_count(disks) == 0)
        return answer;
    /* Exclusive: its thread is made now, so a request that comes later finds it. */
    g_autoptr(GError) why = NULL;
    answer->hasher = g_thread_pool_new(hash, answer, 1, TRUE, &why);
    if (!why)
        return answer;
    g_propagate_error(error, g_steal_pointer(&why));
    disk_answer_free(answer);
    return NULL;
}

void disk_answer_free(struct disk_answer *answer)
{
    if (!answer)
        return;
    if (answer->hasher)
        g_thread_pool_free(answer->hasher, FALSE, TRUE);
    g_free(answer);
}

static void tell(struct disk_answer *answer, struct connection *connection, uint64_t term,
                 enum message_type type, unsigned disk, uint64_t number, const void *payload, size_t len)
{
    struct transport_message message = {
        .type = type, .term = term, .epoch = number, .arg = disk, .len = len, .payload = payload};
    sender_post_message(answer->sender, connection, &message);
}

/* Sends the pieces of the map that have set bits. */
static void tell_bits(struct disk_answer *answer, struct connection *connection, uint64_t term, unsigned disk)
{
    g_autofree uint8_t *piece = g_malloc(WIRE_DISK_BITS_MAX);
    struct disk_map *map = disks_map(answer->disks, disk);
    size_t nwords;
    _Atomic uint64_t *a = disk_map_words(map, 0, &nwords), *b = disk_map_words(map, 1, &nwords);
    nwords = (disk_map_nchunks(map) + 63) / 64;
    for (size_t first = 0; first < nwords; first += BITS_WORDS) {
        size_t n = MIN(BITS_WORDS, nwords - first);
        uint64_t any = 0;
        for (size_t i = 0; i < n; i++) {
            uint64_t word = atomic_load(&a[first + i]) | atomic_load(&b[first + i]);
            put64(piece + i * 8, word);
            any |= word;
        }
        if (any)
            tell(answer, connection, term, MESSAGE_DISK_BITS, disk, first, piece, n * 8);
    }
}

void disk_answer_connected(struct disk_answer *answer, struct connection *connection, uint64_t term)
{
    for (unsigned d = 0; d < disks_count(answer->disks); d++) {
        struct disk_map *map = disks_map(answer->disks, d);
        struct wire_disk_state state = {.len = disk_image_len(disks_image(answer->disks, d)),
                                        .trusted = disk_map_trusted(map)};
        uint8_t bytes[WIRE_DISK_STATE_LEN];
        memcpy(state.pair_id, disk_map_pair_id(map), sizeof state.pair_id);
        wire_disk_state_encode(&state, bytes);
        tell_bits(answer, connection, term, d);
        tell(answer, connection, term, MESSAGE_DISK_STATE, d, 0, bytes, sizeof bytes);
    }
}

static bool take_hash_request(struct disk_answer *answer, struct connection *connection,
                              const struct transport_message *message)
{
    uint32_t n;
    uint64_t nchunks = disk_map_nchunks(disks_map(answer->disks, message->arg));
    if (wire_hash_request_decode(&n, message->payload, message->len) < 0 || message->epoch >= nchunks ||
        n > nchunks - message->epoch || g_thread_pool_unprocessed(answer->hasher) > MAX_WAITING)
        return false;
    struct hash_job *job = g_new0(struct hash_job, 1);
    job->connection = connection_get(connection);
    job->term = message->term;
    job->disk = message->arg;
    job->first = message->epoch;
    job->n = n;
    g_thread_pool_push(answer->hasher, job, NULL);
    return true;
}

bool disk_answer_message(struct disk_answer *answer, struct connection *connection,
                         const struct transport_message *message)
{
    if (message->arg >= disks_count(answer->disks))
        return false;
    if (message->type == MESSAGE_DISK_HASH_REQUEST)
        return take_hash_request(answer, connection, message);
    if (message->type == MESSAGE_DISK_FLUSHED)
        return disks_is_shared(answer->disks, message->arg) &&
               applier_post_flushed(answer->applier, message->arg, message->epoch);
    if (message->type != MESSAGE_DISK_PAIR || message->len != DISK_PAIR_ID_LEN)
        return false;
    return applier_post_pair(answer->applier, message->arg, message->payload, message->len);
}
