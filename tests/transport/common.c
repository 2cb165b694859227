/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See common.h. */
#include "tests/transport/common.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define MANY     200u
#define CHATTER  300u
#define STALL_MS 200u

void keys_of_ends(struct seal_keys keys[2])
{
    keys[0] = (struct seal_keys){.cipher = SEAL_AES_128_GCM,
                                 .limits = {.records = 50, .bytes = 1u << 20, .total = UINT64_MAX},
                                 .out = {1},
                                 .in = {2},
                                 .credit_out = {3},
                                 .credit_in = {4}};
    keys[1] = keys[0];
    memcpy(keys[1].out, keys[0].in, SEAL_SECRET_LEN);
    memcpy(keys[1].in, keys[0].out, SEAL_SECRET_LEN);
    memcpy(keys[1].credit_out, keys[0].credit_in, SEAL_SECRET_LEN);
    memcpy(keys[1].credit_in, keys[0].credit_out, SEAL_SECRET_LEN);
}

struct staging *new_staging(uint32_t capacity)
{
    struct staging *staging = NULL;
    assert_int_equal(staging_open(&staging, capacity, DEVSTATE_MAX), 0);
    return staging;
}

void assert_empty(const struct staging *staging)
{
    assert_int_equal(staging_free_pages(staging), staging_capacity_pages(staging));
    assert_int_equal(staging_free_epochs(staging), STAGING_EPOCHS);
}

void fill_random(uint8_t *at, size_t len, unsigned *seed)
{
    for (size_t i = 0; i < len; i++)
        at[i] = (uint8_t)rand_r(seed);
}

/* A few pages of what a transport takes for records; not in every epoch. */
static void stage_disk_section(struct staging *staging, struct staged_epoch *epoch, unsigned *seed)
{
    if (rand_r(seed) % 3 == 0)
        return;
    epoch->disk_len = 1 + (unsigned)rand_r(seed) % (3 * STAGING_PAGE_LEN);
    int64_t slot = staging_reserve(staging, epoch, (uint32_t)staging_disk_pages(epoch->disk_len));
    if (slot < 0) {
        epoch->disk_len = 0;
        return;
    }
    epoch->disk_slot = (uint32_t)slot;
    for (uint64_t i = 0; i < staging_disk_pages(epoch->disk_len); i++)
        fill_random(staging_slot(staging, (uint32_t)((slot + (int64_t)i) % staging_capacity_pages(staging))),
                    STAGING_PAGE_LEN, seed);
}

/* An epoch that depends on number alone: whoever knows the number knows what it must hold. */
struct staged_epoch *stage(struct staging *staging, uint64_t number, uint32_t max_pages)
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
    stage_disk_section(staging, epoch, &seed);
    staging_commit(staging, epoch);
    return epoch;
}

static void assert_same_disk_section(const struct staging *a_staging, const struct staged_epoch *a,
                                     const struct staging *b_staging, const struct staged_epoch *b)
{
    assert_int_equal(a->disk_len, b->disk_len);
    for (uint64_t i = 0; i < staging_disk_pages(a->disk_len); i++)
        assert_memory_equal(
            staging_slot(a_staging, (uint32_t)((a->disk_slot + i) % staging_capacity_pages(a_staging))),
            staging_slot(b_staging, (uint32_t)((b->disk_slot + i) % staging_capacity_pages(b_staging))),
            STAGING_PAGE_LEN);
}

void assert_same(const struct staging *a_staging, const struct staged_epoch *a,
                 const struct staging *b_staging, const struct staged_epoch *b)
{
    assert_int_equal(a->epoch, b->epoch);
    assert_int_equal(a->kind, b->kind);
    assert_int_equal(a->npages, b->npages);
    assert_true(b->nslots >= a->nslots); /* with RDMA the index takes ring pages too */
    assert_int_equal(a->nblocks, b->nblocks);
    assert_memory_equal(a->block_used_len, b->block_used_len, sizeof a->block_used_len);
    assert_int_equal(a->devstate_len, b->devstate_len);
    if (a->devstate_len)
        assert_memory_equal(a->devstate, b->devstate, a->devstate_len);
    assert_same_disk_section(a_staging, a, b_staging, b);
    for (uint32_t i = 0; i < a->npages; i++) {
        assert_true(a->pages[i].ref == b->pages[i].ref);
        assert_true((a->pages[i].slot == STAGING_NO_PAGE) == (b->pages[i].slot == STAGING_NO_PAGE));
        if (a->pages[i].slot != STAGING_NO_PAGE)
            assert_memory_equal(staging_slot(a_staging, a->pages[i].slot),
                                staging_slot(b_staging, b->pages[i].slot), STAGING_PAGE_LEN);
    }
}

struct staged_epoch *stage_large(struct staging *staging)
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

int send_and_wait(struct transport *transport, struct staging *staging, struct staged_epoch *epoch)
{
    struct transport_stats stats;
    int status = transport->ops->send_epoch(transport, TERM, staging, epoch);
    transport->ops->stats(transport, &stats);
    for (unsigned waited = 0; status == 0; waited++) {
        int64_t done = transport->ops->epochs_done(transport);
        if (done < 0 || (uint64_t)done >= stats.epochs_sent)
            return done < 0 ? (int)done : 0;
        /* Not for ever: here other threads send as well, and may take the wake-up. */
        struct pollfd pfd = {.fd = transport->ops->done_fd(transport), .events = POLLIN};
        poll(&pfd, 1, 10);
        if (waited == PATIENT_MS / 10)
            return -ETIMEDOUT;
    }
    return status;
}

void *block(void *opaque)
{
    struct blocked *blocked = opaque;
    struct transport *t = blocked->transport;
    struct transport_received out = {0};
    blocked->status = blocked->epoch ? t->ops->send_epoch(t, TERM, blocked->staging, blocked->epoch)
                                     : t->ops->receive(t, blocked->staging, &out);
    blocked->taken = blocked->status == 0 ? out.epoch : NULL;
    return NULL;
}

void *say(void *opaque)
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
        feeder->status = send_and_wait(feeder->transport, feeder->staging, epoch);
        staging_free(feeder->staging, epoch);
    }
    if (feeder->status < 0)
        print_message("an epoch could not be sent: %s\n", strerror(-feeder->status));
    if (feeder->status < 0) /* as the replicator's sender does: the other side need not wait */
        feeder->transport->ops->shutdown(feeder->transport);
    return NULL;
}

/* The receiver has given everything back: the peer may be waiting for it. */
static void give_back(struct transport_pair *made, struct staged_epoch *epoch)
{
    staging_free(made->staging[1], epoch);
    made->ends[1]->ops->room(made->ends[1]);
}

void test_random_epochs_arrive_identical(void **state)
{
    const struct transport_pairs *pairs = *state;
    struct transport_pair made = {0};
    struct staging *expected = new_staging(CAPACITY);
    pthread_t thread;
    /* Not the sender's size, so that epochs wrap at different pages. */
    pairs->open(&made, PATIENT_MS, CAPACITY, CAPACITY + 13);
    struct feeder feeder = {.transport = made.ends[0], .staging = made.staging[0], .epochs = MANY};
    struct blocked acks = {.transport = made.ends[0]};
    pthread_t listening;
    assert_int_equal(pthread_create(&listening, NULL, block, &acks), 0); /* credits, where there are some */
    assert_int_equal(pthread_create(&thread, NULL, feed, &feeder), 0);
    for (uint64_t number = 1; number <= MANY; number++) {
        struct transport_received received;
        assert_int_equal(made.ends[1]->ops->receive(made.ends[1], made.staging[1], &received), 0);
        assert_int_equal(received.message.type, MESSAGE_EPOCH);
        assert_int_equal(received.message.term, TERM);
        assert_non_null(received.epoch);
        struct staged_epoch *same = stage(expected, number, CAPACITY);
        assert_same(expected, same, made.staging[1], received.epoch);
        staging_free(expected, same);
        give_back(&made, received.epoch);
    }
    pthread_join(thread, NULL);
    assert_int_equal(feeder.status, 0);
    struct transport_stats sent, got;
    made.ends[0]->ops->stats(made.ends[0], &sent);
    made.ends[1]->ops->stats(made.ends[1], &got);
    assert_true(sent.bytes_sent > 0 && got.bytes_received > 0);
    assert_int_equal(sent.epochs_sent, MANY);
    assert_int_equal(got.epochs_received, MANY);
    assert_empty(made.staging[1]);
    made.ends[0]->ops->shutdown(made.ends[0]);
    pthread_join(listening, NULL);
    pairs->close(&made);
    staging_close(expected);
}

void test_messages_arrive_whole_at_any_length_and_longer_ones_are_not_sent(void **state)
{
    const struct transport_pairs *pairs = *state;
    static const size_t lens[] = {0, 1, 4095, TRANSPORT_MAX_PAYLOAD, 4096, 70000};
    struct transport_pair made = {0};
    unsigned seed = 11;
    uint8_t *payload = malloc(TRANSPORT_MAX_PAYLOAD + 1);
    assert_non_null(payload);
    fill_random(payload, TRANSPORT_MAX_PAYLOAD + 1, &seed);
    pairs->open(&made, PATIENT_MS, CAPACITY, CAPACITY);
    for (size_t i = 0; i < sizeof lens / sizeof *lens; i++) {
        struct transport_received out;
        struct transport *from = made.ends[i % 2], *to = made.ends[(i + 1) % 2];
        struct said said = {.transport = from, .payload = payload, .len = lens[i]};
        struct transport_message answer = {.type = MESSAGE_KEEPALIVE};
        struct blocked answered = {.transport = from};
        pthread_t saying, listening;
        assert_int_equal(pthread_create(&listening, NULL, block, &answered), 0);
        assert_int_equal(pthread_create(&saying, NULL, say, &said), 0);
        assert_int_equal(to->ops->receive(to, NULL, &out), 0);
        pthread_join(saying, NULL);
        assert_int_equal(said.status, 0);
        assert_int_equal(out.message.type, MESSAGE_FRAMES);
        assert_int_equal(out.message.epoch, 5);
        assert_int_equal(out.message.arg, 6);
        assert_int_equal(out.message.len, lens[i]);
        assert_memory_equal(out.message.payload, payload, lens[i]);
        assert_null(out.epoch);
        assert_int_equal(to->ops->send_message(to, &answer), 0);
        pthread_join(listening, NULL);
        assert_int_equal(answered.status, 0);
    }
    struct said too_long = {.transport = made.ends[0], .payload = payload, .len = TRANSPORT_MAX_PAYLOAD + 1};
    say(&too_long);
    assert_int_equal(too_long.status, -EMSGSIZE);
    pairs->close(&made);
    free(payload);
}

static void *chatter(void *opaque)
{
    struct said *said = opaque;
    for (unsigned i = 0; i < CHATTER && said->status == 0; i++)
        say(said);
    if (said->status < 0) {
        print_message("a message could not be sent: %s\n", strerror(-said->status));
        said->transport->ops->shutdown(said->transport);
    }
    return NULL;
}

void test_messages_of_other_threads_never_fall_into_an_epoch(void **state)
{
    const struct transport_pairs *pairs = *state;
    struct transport_pair made = {0};
    static const uint8_t payload[3000] = {1, 2, 3};
    pthread_t feeding, saying[2], listening;
    unsigned epochs = 0, messages = 0;
    pairs->open(&made, PATIENT_MS, CAPACITY, CAPACITY + 1);
    struct feeder feeder = {.transport = made.ends[0], .staging = made.staging[0], .epochs = MANY / 2};
    struct blocked acks = {.transport = made.ends[0]};
    struct said said[2];
    assert_int_equal(pthread_create(&listening, NULL, block, &acks), 0);
    assert_int_equal(pthread_create(&feeding, NULL, feed, &feeder), 0);
    for (int i = 0; i < 2; i++) {
        said[i] = (struct said){.transport = made.ends[0], .payload = payload, .len = sizeof payload};
        assert_int_equal(pthread_create(&saying[i], NULL, chatter, &said[i]), 0);
    }
    while (epochs + messages < MANY / 2 + 2 * CHATTER) {
        struct transport_received out;
        assert_int_equal(made.ends[1]->ops->receive(made.ends[1], made.staging[1], &out), 0);
        if (out.epoch) {
            assert_int_equal(out.epoch->epoch, ++epochs);
            give_back(&made, out.epoch);
        } else {
            assert_int_equal(out.message.len, sizeof payload);
            messages++;
        }
    }
    pthread_join(feeding, NULL);
    for (int i = 0; i < 2; i++)
        pthread_join(saying[i], NULL);
    assert_int_equal(messages, 2 * CHATTER);
    made.ends[0]->ops->shutdown(made.ends[0]);
    pthread_join(listening, NULL);
    pairs->close(&made);
}

void test_a_peer_that_stops_reading_times_out(void **state)
{
    const struct transport_pairs *pairs = *state;
    struct transport_pair made = {0};
    pairs->open(&made, STALL_MS, LARGE, LARGE);
    struct staged_epoch *epoch = stage_large(made.staging[0]);
    assert_int_equal(made.ends[0]->ops->send_epoch(made.ends[0], TERM, made.staging[0], epoch), -ETIMEDOUT);
    uint8_t *payload = calloc(1, TRANSPORT_MAX_PAYLOAD);
    struct said said = {.transport = made.ends[0], .payload = payload, .len = TRANSPORT_MAX_PAYLOAD};
    say(&said);
    assert_int_equal(said.status, -ETIMEDOUT);
    free(payload);
    pairs->close(&made);
}

void test_a_peer_that_is_gone_is_told_to_the_sender(void **state)
{
    const struct transport_pairs *pairs = *state;
    struct transport_pair made = {0};
    struct transport_received out;
    pairs->open(&made, PATIENT_MS, LARGE, LARGE);
    struct staged_epoch *epoch = stage_large(made.staging[0]);
    made.ends[1]->ops->free(made.ends[1]);
    made.ends[1] = NULL;
    assert_int_equal(made.ends[0]->ops->receive(made.ends[0], NULL, &out), -ENOTCONN);
    assert_int_equal(made.ends[0]->ops->send_epoch(made.ends[0], TERM, made.staging[0], epoch), -ENOTCONN);
    pairs->close(&made);
}

/* Many times, since what is tested is a race: before, while and after the other thread goes to sleep. */
void test_shutdown_unblocks_an_idle_receiver(void **state)
{
    const struct transport_pairs *pairs = *state;
    for (unsigned round = 0; round < pairs->shutdowns; round++) {
        struct transport_pair made = {0};
        pthread_t thread;
        pairs->open(&made, PATIENT_MS, CAPACITY, CAPACITY);
        struct blocked blocked = {.transport = made.ends[0], .staging = made.staging[0]};
        assert_int_equal(pthread_create(&thread, NULL, block, &blocked), 0);
        for (unsigned i = 0; i < round; i++)
            sched_yield();
        made.ends[0]->ops->shutdown(made.ends[0]);
        pthread_join(thread, NULL);
        assert_int_equal(blocked.status, -ENOTCONN);
        pairs->close(&made);
    }
}

static bool is_under_way(const struct transport *transport)
{
    struct transport_stats stats;
    transport->ops->stats(transport, &stats);
    return stats.bytes_sent > 0;
}

void test_shutdown_unblocks_a_sender_whose_peer_does_not_read(void **state)
{
    const struct transport_pairs *pairs = *state;
    struct transport_pair made = {0};
    struct transport_message hello = {.type = MESSAGE_KEEPALIVE};
    pthread_t thread;
    pairs->open(&made, PATIENT_MS, LARGE, LARGE);
    struct blocked blocked = {
        .transport = made.ends[0], .staging = made.staging[0], .epoch = stage_large(made.staging[0])};
    assert_int_equal(made.ends[0]->ops->send_message(made.ends[0], &hello), 0);
    assert_int_equal(pthread_create(&thread, NULL, block, &blocked), 0);
    while (!is_under_way(made.ends[0]))
        sched_yield();
    made.ends[0]->ops->shutdown(made.ends[0]);
    pthread_join(thread, NULL);
    assert_int_equal(blocked.status, -ENOTCONN);
    pairs->close(&made);
}
