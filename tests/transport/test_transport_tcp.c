/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The TCP transport over socket pairs. Most tests take the bytes of one small epoch as the transport wrote
 * them, do something to them that networks, crashes and malice do, and hand them to a receiver: what comes
 * out must be the whole epoch or nothing, and nothing must leave staging as empty as it was.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "checkpoint/staging.h"
#include "proto/crc32c.h"
#include "proto/epoch_wire.h"
#include "replicator/transport.h"

#define CAPACITY     64u
#define DEVSTATE_MAX 8192u
#define PATIENT_MS   20000u /* longer than any healthy step takes under a sanitizer */
#define STALL_MS     20u
#define TERM         3u

/* ---- helpers ---- */

static void pair(int fds[2])
{
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
}

static void transport_pair(struct transport *ends[2], unsigned stall_ms)
{
    int fds[2];
    pair(fds);
    for (int i = 0; i < 2; i++)
        ends[i] = transport_tcp_new(fds[i], stall_ms);
}

static void free_pair(struct transport *ends[2])
{
    for (int i = 0; i < 2; i++)
        ends[i]->ops->free(ends[i]);
}

static struct staging *new_staging(uint32_t capacity)
{
    struct staging *staging = NULL;
    assert_int_equal(staging_open(&staging, capacity, DEVSTATE_MAX), 0);
    return staging;
}

static void assert_empty(const struct staging *staging)
{
    assert_int_equal(staging_free_pages(staging), staging_capacity_pages(staging));
    assert_int_equal(staging_free_epochs(staging), STAGING_EPOCHS);
}

static void fill_random(uint8_t *at, size_t len, unsigned *seed)
{
    for (size_t i = 0; i < len; i++)
        at[i] = (uint8_t)rand_r(seed);
}

/* An epoch that depends on number alone: whoever knows the number knows what it must hold. */
static struct staged_epoch *stage(struct staging *staging, uint64_t number, uint32_t max_pages)
{
    unsigned seed = (unsigned)number * 2654435761u + 1;
    enum staged_kind kind = number % 5 == 4 ? STAGED_PRECOPY : STAGED_EPOCH;
    struct staged_epoch *epoch = staging_begin(staging, number, kind);
    assert_non_null(epoch);
    epoch->npages = (unsigned)rand_r(&seed) % (max_pages + 1);
    for (uint32_t i = 0; i < epoch->npages; i++) {
        bool zero = rand_r(&seed) % 3 == 0;
        int64_t slot = STAGING_NO_PAGE;
        if (!zero) {
            slot = staging_reserve(staging, epoch, 1);
            assert_true(slot >= 0);
            fill_random(staging_slot(staging, (uint32_t)slot), STAGING_PAGE_LEN, &seed);
        }
        epoch->pages[i].ref =
            page_ref_make((unsigned)rand_r(&seed) % 3, (unsigned)rand_r(&seed), zero ? PAGE_REF_ZERO : 0);
        epoch->pages[i].slot = (uint32_t)slot;
    }
    epoch->nblocks = 3;
    for (unsigned i = 0; i < epoch->nblocks; i++)
        epoch->block_used_len[i] = (uint64_t)rand_r(&seed) << 12;
    if (kind == STAGED_EPOCH) {
        epoch->devstate_len = (size_t)rand_r(&seed) % (DEVSTATE_MAX + 1);
        memset(epoch->devstate, 0x11, epoch->devstate_len);
        fill_random(epoch->devstate, epoch->devstate_len / 2, &seed);
    }
    staging_commit(staging, epoch);
    return epoch;
}

static void assert_same(const struct staging *a_staging, const struct staged_epoch *a,
                        const struct staging *b_staging, const struct staged_epoch *b)
{
    assert_int_equal(a->epoch, b->epoch);
    assert_int_equal(a->kind, b->kind);
    assert_int_equal(a->npages, b->npages);
    assert_int_equal(a->nslots, b->nslots);
    assert_int_equal(a->nblocks, b->nblocks);
    assert_memory_equal(a->block_used_len, b->block_used_len, sizeof a->block_used_len);
    assert_int_equal(a->devstate_len, b->devstate_len);
    if (a->devstate_len)
        assert_memory_equal(a->devstate, b->devstate, a->devstate_len);
    for (uint32_t i = 0; i < a->npages; i++) {
        assert_true(a->pages[i].ref == b->pages[i].ref);
        assert_true((a->pages[i].slot == STAGING_NO_PAGE) == (b->pages[i].slot == STAGING_NO_PAGE));
        if (a->pages[i].slot != STAGING_NO_PAGE)
            assert_memory_equal(staging_slot(a_staging, a->pages[i].slot),
                                staging_slot(b_staging, b->pages[i].slot), STAGING_PAGE_LEN);
    }
}

/* The stream that one epoch makes: two pages with bytes, one of zeroes, some device state. Kept small, since
 * tests go through it byte by byte. */
struct recorded {
    uint8_t *bytes;
    size_t len, index_at, commit_at;
};

static struct recorded record_small_epoch(void)
{
    struct staging *staging = new_staging(CAPACITY);
    struct staged_epoch *epoch = staging_begin(staging, 1, STAGED_EPOCH);
    unsigned seed = 9;
    int fds[2];
    assert_non_null(epoch);
    int64_t first = staging_reserve(staging, epoch, 2);
    assert_true(first >= 0);
    fill_random(staging_slot(staging, (uint32_t)first), 2 * STAGING_PAGE_LEN, &seed);
    epoch->pages[0] = (struct staged_page){.ref = page_ref_make(0, 7, 0), .slot = (uint32_t)first};
    epoch->pages[1] =
        (struct staged_page){.ref = page_ref_make(1, 8, PAGE_REF_ZERO), .slot = STAGING_NO_PAGE};
    epoch->pages[2] = (struct staged_page){.ref = page_ref_make(1, 9, 0), .slot = (uint32_t)first + 1};
    epoch->npages = 3;
    epoch->nblocks = 2;
    epoch->devstate_len = 100;
    fill_random(epoch->devstate, 100, &seed);
    staging_commit(staging, epoch);

    pair(fds);
    struct transport *sender = transport_tcp_new(fds[0], PATIENT_MS);
    assert_int_equal(sender->ops->send_epoch(sender, TERM, staging, epoch), 0);
    struct transport_stats stats;
    sender->ops->stats(sender, &stats);
    struct recorded recorded = {.bytes = malloc(stats.bytes_sent), .len = stats.bytes_sent};
    assert_non_null(recorded.bytes);
    assert_int_equal(recv(fds[1], recorded.bytes, recorded.len, MSG_WAITALL), recorded.len);
    recorded.index_at = WIRE_HEADER_LEN + WIRE_EPOCH_LEN;
    recorded.commit_at = recorded.len - WIRE_COMMIT_LEN;
    sender->ops->free(sender);
    close(fds[1]);
    staging_close(staging);
    return recorded;
}

/* What a new connection's receiver says to these bytes. stalls: the peer stays connected, and silent. */
static int receive_bytes(struct staging *staging, const uint8_t *bytes, size_t len, bool stalls,
                         struct transport_received *out)
{
    int fds[2];
    pair(fds);
    if (len)
        assert_int_equal(write(fds[1], bytes, len), len);
    if (!stalls)
        shutdown(fds[1], SHUT_WR);
    struct transport *receiver = transport_tcp_new(fds[0], STALL_MS);
    int status = receiver->ops->receive(receiver, staging, out);
    receiver->ops->free(receiver);
    close(fds[1]);
    return status;
}

/* ---- epochs ---- */

#define MANY 200u

struct feeder {
    struct transport *transport;
    struct staging *staging;
    unsigned epochs;
    int status;
};

static void *feed(void *opaque)
{
    struct feeder *feeder = opaque;
    for (uint64_t number = 1; number <= feeder->epochs && feeder->status == 0; number++) {
        struct staged_epoch *epoch = stage(feeder->staging, number, CAPACITY);
        feeder->status = feeder->transport->ops->send_epoch(feeder->transport, TERM, feeder->staging, epoch);
        staging_free(feeder->staging, epoch);
    }
    return NULL;
}

static void test_random_epochs_arrive_identical(void **state)
{
    (void)state;
    struct transport *ends[2];
    /* Not the sender's size, so that epochs wrap at different pages. */
    struct staging *from = new_staging(CAPACITY), *to = new_staging(CAPACITY + 7),
                   *expected = new_staging(CAPACITY);
    pthread_t thread;
    transport_pair(ends, PATIENT_MS);
    struct feeder feeder = {.transport = ends[0], .staging = from, .epochs = MANY};
    assert_int_equal(pthread_create(&thread, NULL, feed, &feeder), 0);
    for (uint64_t number = 1; number <= MANY; number++) {
        struct transport_received received;
        assert_int_equal(ends[1]->ops->receive(ends[1], to, &received), 0);
        assert_int_equal(received.message.type, MESSAGE_EPOCH);
        assert_int_equal(received.message.term, TERM);
        assert_non_null(received.epoch);
        struct staged_epoch *same = stage(expected, number, CAPACITY);
        assert_same(expected, same, to, received.epoch);
        staging_free(expected, same);
        staging_free(to, received.epoch);
    }
    pthread_join(thread, NULL);
    assert_int_equal(feeder.status, 0);
    struct transport_stats sent, got;
    ends[0]->ops->stats(ends[0], &sent);
    ends[1]->ops->stats(ends[1], &got);
    assert_int_equal(sent.bytes_sent, got.bytes_received);
    assert_int_equal(sent.epochs_sent, MANY);
    assert_int_equal(got.epochs_received, MANY);
    assert_empty(to);
    free_pair(ends);
    staging_close(from);
    staging_close(to);
    staging_close(expected);
}

static void test_a_connection_cut_after_any_byte_delivers_nothing_and_leaves_staging_empty(void **state)
{
    (void)state;
    struct recorded recorded = record_small_epoch();
    struct staging *staging = new_staging(CAPACITY);
    struct transport_received out;
    for (size_t len = 0; len < recorded.len; len++) {
        assert_int_equal(receive_bytes(staging, recorded.bytes, len, false, &out), -ENOTCONN);
        assert_null(out.epoch);
        assert_empty(staging);
    }
    assert_int_equal(receive_bytes(staging, recorded.bytes, recorded.len, false, &out), 0);
    assert_non_null(out.epoch);
    assert_int_equal(out.epoch->npages, 3);
    staging_close(staging);
    free(recorded.bytes);
}

static void test_a_peer_that_stalls_in_the_middle_times_out_and_leaves_staging_empty(void **state)
{
    (void)state;
    struct recorded recorded = record_small_epoch();
    struct staging *staging = new_staging(CAPACITY);
    struct transport_received out;
    /* In the header, the fixed part, the index, the pages, the commit record. */
    const size_t lens[] = {1,
                           WIRE_HEADER_LEN,
                           WIRE_HEADER_LEN + 1,
                           recorded.index_at,
                           recorded.index_at + 9,
                           recorded.commit_at - STAGING_PAGE_LEN - 1,
                           recorded.commit_at,
                           recorded.len - 1};
    for (size_t i = 0; i < sizeof lens / sizeof *lens; i++) {
        assert_int_equal(receive_bytes(staging, recorded.bytes, lens[i], true, &out), -ETIMEDOUT);
        assert_null(out.epoch);
        assert_empty(staging);
    }
    staging_close(staging);
    free(recorded.bytes);
}

static void test_a_flipped_bit_in_any_byte_is_caught(void **state)
{
    (void)state;
    struct recorded recorded = record_small_epoch();
    struct staging *staging = new_staging(CAPACITY);
    struct transport_received out;
    for (size_t at = 0; at < recorded.len; at++) {
        uint8_t bit = (uint8_t)(1u << (at * 5 % 8));
        recorded.bytes[at] ^= bit;
        assert_true(receive_bytes(staging, recorded.bytes, recorded.len, false, &out) < 0);
        assert_null(out.epoch);
        assert_empty(staging);
        recorded.bytes[at] ^= bit;
    }
    staging_close(staging);
    free(recorded.bytes);
}

static void mend_commit(struct recorded *recorded)
{
    struct wire_commit commit;
    uint8_t *at = recorded->bytes + recorded->commit_at;
    assert_int_equal(wire_commit_decode(&commit, at), 0);
    commit.crc = crc32c(0, recorded->bytes + WIRE_HEADER_LEN, recorded->commit_at - WIRE_HEADER_LEN);
    wire_commit_encode(&commit, at);
}

/* All checksums are right: the peer means it. */
static void test_an_index_that_contradicts_the_page_count_is_refused(void **state)
{
    (void)state;
    struct staging *staging = new_staging(CAPACITY);
    struct transport_received out;
    for (unsigned page = 0; page < 3; page++) {
        struct recorded recorded = record_small_epoch();
        recorded.bytes[recorded.index_at + (size_t)page * 8] ^= PAGE_REF_ZERO;
        mend_commit(&recorded);
        assert_int_equal(receive_bytes(staging, recorded.bytes, recorded.len, false, &out), -EPROTO);
        assert_null(out.epoch);
        assert_empty(staging);
        free(recorded.bytes);
    }
    staging_close(staging);
}

static void test_a_commit_of_another_epoch_or_term_is_refused(void **state)
{
    (void)state;
    struct recorded recorded = record_small_epoch();
    struct staging *staging = new_staging(CAPACITY);
    struct transport_received out;
    struct wire_commit right;
    uint8_t *at = recorded.bytes + recorded.commit_at;
    assert_int_equal(wire_commit_decode(&right, at), 0);
    struct wire_commit wrong[] = {right, right, right, right};
    wrong[0].epoch++;
    wrong[1].term--;
    wrong[2].npages++;
    wrong[3].ndata--;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        wire_commit_encode(&wrong[i], at);
        assert_int_equal(receive_bytes(staging, recorded.bytes, recorded.len, false, &out), -EPROTO);
        assert_empty(staging);
    }
    staging_close(staging);
    free(recorded.bytes);
}

static void test_an_epoch_larger_than_staging_or_where_none_is_awaited_is_refused(void **state)
{
    (void)state;
    struct recorded recorded = record_small_epoch();
    struct staging *tiny = new_staging(2);
    struct transport_received out;
    assert_int_equal(receive_bytes(tiny, recorded.bytes, recorded.len, false, &out), -EPROTO);
    assert_empty(tiny);
    assert_int_equal(receive_bytes(NULL, recorded.bytes, recorded.len, false, &out), -EPROTO);
    staging_close(tiny);
    free(recorded.bytes);
}

/* ---- room in staging ---- */

static void test_a_full_staging_that_nobody_empties_times_out(void **state)
{
    (void)state;
    struct recorded recorded = record_small_epoch();
    struct staging *staging = new_staging(CAPACITY);
    struct transport_received out;
    struct staged_epoch *hog = staging_begin(staging, 99, STAGED_EPOCH);
    assert_true(staging_reserve(staging, hog, CAPACITY - 1) >= 0);
    staging_commit(staging, hog);
    assert_int_equal(receive_bytes(staging, recorded.bytes, recorded.len, false, &out), -ETIMEDOUT);
    assert_null(out.epoch);
    staging_free(staging, hog);
    assert_empty(staging);
    staging_close(staging);
    free(recorded.bytes);
}

struct hog {
    struct staging *staging;
    struct staged_epoch *epoch;
    struct transport *receiver;
};

/* Gives the room back once the receiver has read the part of the stream behind which it has to wait. */
static void *free_when_waited_for(void *opaque)
{
    struct hog *hog = opaque;
    struct transport_stats stats;
    do
        hog->receiver->ops->stats(hog->receiver, &stats);
    while (stats.bytes_received < WIRE_HEADER_LEN + WIRE_EPOCH_LEN);
    staging_free(hog->staging, hog->epoch);
    return NULL;
}

static void test_a_receiver_without_room_goes_on_when_there_is_some(void **state)
{
    (void)state;
    struct recorded recorded = record_small_epoch();
    struct staging *staging = new_staging(CAPACITY);
    struct transport_received out;
    struct transport *ends[2];
    pthread_t thread;
    int fds[2];
    struct staged_epoch *full = staging_begin(staging, 99, STAGED_EPOCH);
    assert_true(staging_reserve(staging, full, CAPACITY) >= 0);
    staging_commit(staging, full);
    pair(fds);
    ends[0] = transport_tcp_new(fds[0], PATIENT_MS);
    assert_int_equal(write(fds[1], recorded.bytes, recorded.len), recorded.len);
    struct hog hog = {.staging = staging, .epoch = full, .receiver = ends[0]};
    assert_int_equal(pthread_create(&thread, NULL, free_when_waited_for, &hog), 0);
    assert_int_equal(ends[0]->ops->receive(ends[0], staging, &out), 0);
    assert_non_null(out.epoch);
    pthread_join(thread, NULL);
    staging_free(staging, out.epoch);
    assert_empty(staging);
    ends[0]->ops->free(ends[0]);
    close(fds[1]);
    staging_close(staging);
    free(recorded.bytes);
}

/* ---- messages ---- */

struct said {
    struct transport *transport;
    const uint8_t *payload;
    size_t len;
    int status;
};

static void *say(void *opaque)
{
    struct said *said = opaque;
    struct transport_message message = {.type = MESSAGE_FRAMES,
                                        .term = TERM,
                                        .epoch = 5,
                                        .arg = 6,
                                        .len = said->len,
                                        .payload = said->payload};
    said->status = said->transport->ops->send_message(said->transport, &message);
    return NULL;
}

static void test_messages_arrive_whole_at_any_length_and_longer_ones_are_not_sent(void **state)
{
    (void)state;
    static const size_t lens[] = {0, 1, 4095, TRANSPORT_MAX_PAYLOAD};
    struct transport *ends[2];
    struct transport_received out;
    unsigned seed = 11;
    uint8_t *payload = malloc(TRANSPORT_MAX_PAYLOAD + 1);
    assert_non_null(payload);
    fill_random(payload, TRANSPORT_MAX_PAYLOAD + 1, &seed);
    transport_pair(ends, PATIENT_MS);
    for (size_t i = 0; i < sizeof lens / sizeof *lens; i++) {
        struct said said = {.transport = ends[i % 2], .payload = payload, .len = lens[i]};
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, say, &said), 0);
        struct transport *other = ends[(i + 1) % 2];
        assert_int_equal(other->ops->receive(other, NULL, &out), 0);
        pthread_join(thread, NULL);
        assert_int_equal(said.status, 0);
        assert_int_equal(out.message.type, MESSAGE_FRAMES);
        assert_int_equal(out.message.epoch, 5);
        assert_int_equal(out.message.arg, 6);
        assert_int_equal(out.message.len, lens[i]);
        assert_memory_equal(out.message.payload, payload, lens[i]);
        assert_null(out.epoch);
    }
    struct said too_long = {.transport = ends[0], .payload = payload, .len = TRANSPORT_MAX_PAYLOAD + 1};
    say(&too_long);
    assert_int_equal(too_long.status, -EMSGSIZE);
    free_pair(ends);
    free(payload);
}

static void test_damaged_and_oversized_messages_are_refused(void **state)
{
    (void)state;
    static const uint8_t payload[] = "a frame";
    uint8_t bytes[WIRE_HEADER_LEN + sizeof payload];
    struct transport_received out;
    struct wire_header header = {.type = MESSAGE_FRAMES,
                                 .payload_len = sizeof payload,
                                 .payload_crc = crc32c(0, payload, sizeof payload)};
    wire_header_encode(&header, bytes);
    memcpy(bytes + WIRE_HEADER_LEN, payload, sizeof payload);
    assert_int_equal(receive_bytes(NULL, bytes, sizeof bytes, false, &out), 0);
    for (size_t at = 0; at < sizeof bytes; at++) {
        bytes[at] ^= 0x10;
        assert_true(receive_bytes(NULL, bytes, sizeof bytes, false, &out) < 0);
        bytes[at] ^= 0x10;
    }
    for (size_t len = 0; len < sizeof bytes; len++)
        assert_int_equal(receive_bytes(NULL, bytes, len, false, &out), -ENOTCONN);
    header.payload_len = TRANSPORT_MAX_PAYLOAD + 1;
    wire_header_encode(&header, bytes);
    assert_int_equal(receive_bytes(NULL, bytes, sizeof bytes, true, &out), -EPROTO);
    header.payload_len = UINT64_MAX;
    wire_header_encode(&header, bytes);
    assert_int_equal(receive_bytes(NULL, bytes, sizeof bytes, true, &out), -EPROTO);
}

#define CHATTER 300u

static void *chatter(void *opaque)
{
    struct said *said = opaque;
    for (unsigned i = 0; i < CHATTER && said->status == 0; i++)
        say(said);
    return NULL;
}

static void test_messages_of_other_threads_never_fall_into_an_epoch(void **state)
{
    (void)state;
    struct transport *ends[2];
    struct staging *from = new_staging(CAPACITY), *to = new_staging(CAPACITY);
    static const uint8_t payload[3000] = {1, 2, 3};
    pthread_t feeding, saying[2];
    unsigned epochs = 0, messages = 0;
    transport_pair(ends, PATIENT_MS);
    struct feeder feeder = {.transport = ends[0], .staging = from, .epochs = MANY / 2};
    struct said said[2];
    assert_int_equal(pthread_create(&feeding, NULL, feed, &feeder), 0);
    for (int i = 0; i < 2; i++) {
        said[i] = (struct said){.transport = ends[0], .payload = payload, .len = sizeof payload};
        assert_int_equal(pthread_create(&saying[i], NULL, chatter, &said[i]), 0);
    }
    while (epochs + messages < MANY / 2 + 2 * CHATTER) {
        struct transport_received out;
        assert_int_equal(ends[1]->ops->receive(ends[1], to, &out), 0);
        if (out.epoch) {
            assert_int_equal(out.epoch->epoch, ++epochs);
            staging_free(to, out.epoch);
        } else {
            assert_int_equal(out.message.len, sizeof payload);
            messages++;
        }
    }
    pthread_join(feeding, NULL);
    for (int i = 0; i < 2; i++)
        pthread_join(saying[i], NULL);
    assert_int_equal(messages, 2 * CHATTER);
    free_pair(ends);
    staging_close(from);
    staging_close(to);
}

/* ---- peers that do not read, and shutdown ---- */

#define LARGE 2048u /* pages: more than any socket buffer takes */

static struct staged_epoch *stage_large(struct staging *staging)
{
    struct staged_epoch *epoch = staging_begin(staging, 1, STAGED_EPOCH);
    assert_non_null(epoch);
    assert_int_equal(staging_reserve(staging, epoch, LARGE), 0);
    for (uint32_t i = 0; i < LARGE; i++)
        epoch->pages[i] = (struct staged_page){.ref = page_ref_make(0, i, 0), .slot = i};
    epoch->npages = LARGE;
    staging_commit(staging, epoch);
    return epoch;
}

static void test_a_peer_that_stops_reading_times_out(void **state)
{
    (void)state;
    struct transport *ends[2];
    struct staging *staging = new_staging(LARGE);
    struct staged_epoch *epoch = stage_large(staging);
    transport_pair(ends, STALL_MS);
    assert_int_equal(ends[0]->ops->send_epoch(ends[0], TERM, staging, epoch), -ETIMEDOUT);
    uint8_t *payload = calloc(1, TRANSPORT_MAX_PAYLOAD);
    struct said said = {.transport = ends[0], .payload = payload, .len = TRANSPORT_MAX_PAYLOAD};
    say(&said);
    assert_int_equal(said.status, -ETIMEDOUT);
    free(payload);
    free_pair(ends);
    staging_close(staging);
}

static void test_a_peer_that_is_gone_is_told_to_the_sender(void **state)
{
    (void)state;
    struct transport *ends[2];
    struct staging *staging = new_staging(LARGE);
    struct staged_epoch *epoch = stage_large(staging);
    transport_pair(ends, PATIENT_MS);
    ends[1]->ops->free(ends[1]);
    assert_int_equal(ends[0]->ops->send_epoch(ends[0], TERM, staging, epoch), -ENOTCONN);
    ends[0]->ops->free(ends[0]);
    staging_close(staging);
}

struct blocked {
    struct transport *transport;
    struct staging *staging;
    struct staged_epoch *epoch; /* to send, or NULL: receive */
    int status;
};

static void *block(void *opaque)
{
    struct blocked *blocked = opaque;
    struct transport *t = blocked->transport;
    struct transport_received out;
    blocked->status = blocked->epoch ? t->ops->send_epoch(t, TERM, blocked->staging, blocked->epoch)
                                     : t->ops->receive(t, blocked->staging, &out);
    return NULL;
}

/* Many times, since what is tested is a race: before, while and after the other thread goes to sleep. */
static void test_shutdown_unblocks_an_idle_receiver(void **state)
{
    (void)state;
    struct staging *staging = new_staging(CAPACITY);
    for (unsigned round = 0; round < 200; round++) {
        struct transport *ends[2];
        pthread_t thread;
        transport_pair(ends, PATIENT_MS);
        struct blocked blocked = {.transport = ends[0], .staging = staging};
        assert_int_equal(pthread_create(&thread, NULL, block, &blocked), 0);
        for (unsigned i = 0; i < round; i++)
            sched_yield();
        ends[0]->ops->shutdown(ends[0]);
        pthread_join(thread, NULL);
        assert_int_equal(blocked.status, -ENOTCONN);
        free_pair(ends);
    }
    staging_close(staging);
}

static void test_shutdown_unblocks_a_sender_whose_peer_does_not_read(void **state)
{
    (void)state;
    struct transport *ends[2];
    struct staging *staging = new_staging(LARGE);
    struct transport_stats stats;
    pthread_t thread;
    transport_pair(ends, PATIENT_MS);
    struct blocked blocked = {.transport = ends[0], .staging = staging, .epoch = stage_large(staging)};
    assert_int_equal(pthread_create(&thread, NULL, block, &blocked), 0);
    do
        ends[0]->ops->stats(ends[0], &stats);
    while (stats.bytes_sent == 0);
    ends[0]->ops->shutdown(ends[0]);
    pthread_join(thread, NULL);
    assert_int_equal(blocked.status, -ENOTCONN);
    free_pair(ends);
    staging_close(staging);
}

static void test_shutdown_unblocks_a_receiver_that_waits_for_room(void **state)
{
    (void)state;
    struct recorded recorded = record_small_epoch();
    struct staging *staging = new_staging(CAPACITY);
    struct transport_stats stats;
    pthread_t thread;
    int fds[2];
    struct staged_epoch *full = staging_begin(staging, 99, STAGED_EPOCH);
    assert_true(staging_reserve(staging, full, CAPACITY) >= 0);
    staging_commit(staging, full);
    pair(fds);
    struct transport *receiver = transport_tcp_new(fds[0], PATIENT_MS);
    assert_int_equal(write(fds[1], recorded.bytes, recorded.len), recorded.len);
    struct blocked blocked = {.transport = receiver, .staging = staging};
    assert_int_equal(pthread_create(&thread, NULL, block, &blocked), 0);
    do
        receiver->ops->stats(receiver, &stats);
    while (stats.bytes_received < WIRE_HEADER_LEN + WIRE_EPOCH_LEN);
    receiver->ops->shutdown(receiver);
    pthread_join(thread, NULL);
    assert_int_equal(blocked.status, -ENOTCONN);
    receiver->ops->free(receiver);
    close(fds[1]);
    staging_close(staging);
    free(recorded.bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_epochs_arrive_identical),
        cmocka_unit_test(test_a_connection_cut_after_any_byte_delivers_nothing_and_leaves_staging_empty),
        cmocka_unit_test(test_a_peer_that_stalls_in_the_middle_times_out_and_leaves_staging_empty),
        cmocka_unit_test(test_a_flipped_bit_in_any_byte_is_caught),
        cmocka_unit_test(test_an_index_that_contradicts_the_page_count_is_refused),
        cmocka_unit_test(test_a_commit_of_another_epoch_or_term_is_refused),
        cmocka_unit_test(test_an_epoch_larger_than_staging_or_where_none_is_awaited_is_refused),
        cmocka_unit_test(test_a_full_staging_that_nobody_empties_times_out),
        cmocka_unit_test(test_a_receiver_without_room_goes_on_when_there_is_some),
        cmocka_unit_test(test_messages_arrive_whole_at_any_length_and_longer_ones_are_not_sent),
        cmocka_unit_test(test_damaged_and_oversized_messages_are_refused),
        cmocka_unit_test(test_messages_of_other_threads_never_fall_into_an_epoch),
        cmocka_unit_test(test_a_peer_that_stops_reading_times_out),
        cmocka_unit_test(test_a_peer_that_is_gone_is_told_to_the_sender),
        cmocka_unit_test(test_shutdown_unblocks_an_idle_receiver),
        cmocka_unit_test(test_shutdown_unblocks_a_sender_whose_peer_does_not_read),
        cmocka_unit_test(test_shutdown_unblocks_a_receiver_that_waits_for_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
