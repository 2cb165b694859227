/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sealed epochs in the rings of an RDMA connection, without a device: the test itself is the device, and
 * copies pages from the primary's second ring into the secondary's. The peer may write there whatever and
 * whenever it likes.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "replicator/transport/epoch_parts.h"
#include "replicator/transport/rdma/sealed.h"
#include "tests/transport/common.h"

#define TO_CAPACITY (CAPACITY + 13) /* not the sender's, so that epochs wrap at different pages */

struct world {
    struct seal *out, *in;
    struct staging *from, *to;
    uint8_t *ring[2]; /* the second rings */
    struct epoch_encoder encoder;
    /* Of the epoch under way. */
    struct staged_epoch *epoch, *opened;
    struct wire_epoch wire;
    struct wire_header header;
    struct sealed_layout layout;
    uint8_t *meta;
    uint32_t first_data, ndata;
};

static void open_world(struct world *w)
{
    struct seal_keys keys[2];
    keys_of_ends(keys);
    *w = (struct world){.from = new_staging(CAPACITY), .to = new_staging(TO_CAPACITY)};
    w->out = seal_new(keys[0].cipher, keys[0].out, &keys[0].limits);
    w->in = seal_new(keys[1].cipher, keys[1].in, &keys[1].limits);
    w->ring[0] = calloc(CAPACITY, STAGING_PAGE_LEN);
    w->ring[1] = calloc(TO_CAPACITY, STAGING_PAGE_LEN);
    assert_true(w->out && w->in && w->ring[0] && w->ring[1]);
}

static void close_world(struct world *w)
{
    seal_free(w->out);
    seal_free(w->in);
    free(w->ring[0]);
    free(w->ring[1]);
    free(w->meta);
    epoch_encoder_clear(&w->encoder);
    staging_close(w->from);
    staging_close(w->to);
}

static uint32_t meta_pages(const struct world *w)
{
    return (uint32_t)((w->layout.len + STAGING_PAGE_LEN - 1) / STAGING_PAGE_LEN);
}

/* Seals an epoch, and writes its pages into the other host's ring. */
static void send(struct world *w, uint64_t number)
{
    struct sealed_pages sealed;
    struct staging_position position;
    uint32_t first;
    int n;
    w->epoch = stage(w->from, number, CAPACITY / 2);
    assert_int_equal(epoch_encode(&w->encoder, w->epoch, &w->wire), 0);
    w->header = (struct wire_header){.type = MESSAGE_EPOCH,
                                     .term = TERM,
                                     .epoch = number,
                                     .payload_len = wire_epoch_payload_len(&w->wire)};
    w->layout = sealed_layout_of(&w->wire);
    w->meta = realloc(w->meta, w->layout.len);
    assert_non_null(w->meta);
    const struct rdma_wire_commit commit = {
        .header = w->header, .commit = {.term = TERM, .epoch = number, .npages = w->wire.npages}};
    rdma_wire_commit_encode(&commit, w->meta);
    wire_epoch_encode(&w->wire, w->meta + RDMA_WIRE_COMMIT_LEN);
    if (w->encoder.index.len)
        memcpy(w->meta + w->layout.parts_at, w->encoder.index.at, w->encoder.index.len);
    if (w->encoder.delta.len)
        memcpy(w->meta + w->layout.parts_at + w->encoder.index.len, w->encoder.delta.at,
               w->encoder.delta.len);
    assert_int_equal(sealed_close_meta(w->out, &w->header, &w->layout, w->meta), 0);
    staging_position(w->to, &position);
    w->first_data = (position.next_slot + meta_pages(w)) % TO_CAPACITY;
    w->ndata = 0;
    sealed_pages_begin(&sealed, w->out, w->ring[0], w->from, w->epoch, &w->header,
                       w->meta + w->layout.tags_at);
    while ((n = sealed_pages_next(&sealed, &first)) > 0)
        for (int i = 0; i < n; i++)
            memcpy(staging_slot_at(w->ring[1], (w->first_data + w->ndata++) % TO_CAPACITY),
                   staging_slot_at(w->ring[0], (first + (uint32_t)i) % CAPACITY), STAGING_PAGE_LEN);
    assert_int_equal(n, 0);
    assert_int_equal(w->ndata, w->wire.ndata + wire_epoch_disk_pages(&w->wire));
    assert_int_equal(sealed.tag, w->meta + w->layout.len);
}

/* Opens what came. The epoch is in w->opened if that is 0. */
static int receive(struct world *w)
{
    uint8_t *meta = malloc(w->layout.len); /* the copy that the receiver makes */
    assert_non_null(meta);
    memcpy(meta, w->meta, w->layout.len);
    struct staged_epoch *epoch = staging_begin(w->to, w->header.epoch, (enum staged_kind)w->wire.kind);
    assert_non_null(epoch);
    assert_true(staging_reserve(w->to, epoch, meta_pages(w) + w->ndata) >= 0);
    int status = sealed_open_record(w->in, meta);
    if (status == 0)
        status = sealed_open_parts(w->in, &w->header, &w->layout, meta);
    if (status == 0)
        status = epoch_take_index(w->to, epoch, &w->wire, meta + w->layout.parts_at, w->first_data);
    if (status == 0)
        status = sealed_open_pages(w->in, &w->header, w->ring[1], w->to, w->first_data, w->ndata,
                                   meta + w->layout.tags_at);
    free(meta);
    if (status == 0)
        staging_commit(w->to, epoch);
    else
        staging_abort(w->to, epoch);
    w->opened = status == 0 ? epoch : NULL;
    return status;
}

/* Every page of the opened epoch is as it was in the other host's staging. */
static void assert_arrived(const struct world *w)
{
    struct epoch_pages from = {.epoch = w->epoch}, to = {.epoch = w->opened};
    uint32_t a, b;
    bool more;
    while ((more = epoch_next_page(&from, w->from, &a))) {
        assert_true(epoch_next_page(&to, w->to, &b));
        assert_memory_equal(staging_slot(w->from, a), staging_slot(w->to, b), STAGING_PAGE_LEN);
    }
    assert_false(epoch_next_page(&to, w->to, &b));
}

static void free_epochs(struct world *w)
{
    staging_free(w->from, w->epoch);
    if (w->opened)
        staging_free(w->to, w->opened);
}

static void test_epochs_arrive_wherever_the_rings_wrap_and_keys_change(void **state)
{
    (void)state;
    struct world w;
    struct staged_epoch *held[2] = {NULL, NULL};
    open_world(&w);
    for (uint64_t number = 1; number <= 200; number++) {
        send(&w, number);
        assert_int_equal(receive(&w), 0);
        assert_arrived(&w);
        /* One stays, so that the next does not begin at the ring's first page. */
        if (held[0]) {
            staging_free(w.from, held[0]);
            staging_free(w.to, held[1]);
        }
        held[0] = w.epoch;
        held[1] = w.opened;
        if (staging_free_pages(w.from) < CAPACITY / 2 + 3 || staging_free_pages(w.to) < CAPACITY / 2 + 8) {
            staging_free(w.from, held[0]);
            staging_free(w.to, held[1]);
            held[0] = held[1] = NULL;
        }
    }
    assert_true(seal_key_changes(w.in) > 3);
    close_world(&w);
}

static void test_staging_itself_keeps_the_plain_pages(void **state)
{
    (void)state;
    struct world w;
    open_world(&w);
    struct staging *again = new_staging(CAPACITY);
    send(&w, 3);
    struct staged_epoch *same = stage(again, 3, CAPACITY / 2);
    assert_same(again, same, w.from, w.epoch);
    staging_close(again);
    close_world(&w);
}

/* A receiver that nothing has come to yet. */
static void begin_anew(struct world *w)
{
    struct seal_keys keys[2];
    keys_of_ends(keys);
    seal_free(w->in);
    w->in = seal_new(keys[1].cipher, keys[1].in, &keys[1].limits);
    assert_non_null(w->in);
}

/* A bit of a page, or of what is before them. */
static void test_a_changed_bit_anywhere_is_found(void **state)
{
    (void)state;
    struct world w;
    open_world(&w);
    send(&w, 3);
    size_t pages_len = (size_t)w.ndata * STAGING_PAGE_LEN, meta_len = w.layout.len;
    assert_true(pages_len > 0);
    /* Every byte of the meta, and of the pages every 61st. */
    for (size_t at = 0; at < meta_len + pages_len; at += at < meta_len ? 1 : 61) {
        size_t in_page = at - meta_len;
        uint32_t slot = (uint32_t)((w.first_data + in_page / STAGING_PAGE_LEN) % TO_CAPACITY);
        uint8_t *byte =
            at < meta_len ? w.meta + at : staging_slot_at(w.ring[1], slot) + in_page % STAGING_PAGE_LEN;
        begin_anew(&w);
        *byte ^= (uint8_t)(1u << (at % 8));
        assert_int_equal(receive(&w), -EBADMSG);
        assert_empty(w.to);
        *byte ^= (uint8_t)(1u << (at % 8));
    }
    begin_anew(&w);
    assert_int_equal(receive(&w), 0); /* unchanged */
    close_world(&w);
}

static void test_pages_of_an_earlier_epoch_are_found(void **state)
{
    (void)state;
    struct world w;
    uint8_t old[STAGING_PAGE_LEN];
    open_world(&w);
    send(&w, 3);
    memcpy(old, staging_slot_at(w.ring[1], w.first_data), sizeof old);
    assert_int_equal(receive(&w), 0);
    free_epochs(&w);
    send(&w, 3); /* the same pages once more */
    memcpy(staging_slot_at(w.ring[1], w.first_data), old, sizeof old);
    assert_int_equal(receive(&w), -EBADMSG);
    free_epochs(&w);
    close_world(&w);
}

static void test_an_epoch_that_is_announced_twice_is_found(void **state)
{
    (void)state;
    struct world w;
    open_world(&w);
    send(&w, 3);
    assert_int_equal(receive(&w), 0);
    staging_free(w.to, w.opened);
    assert_int_equal(receive(&w), -EBADMSG);
    close_world(&w);
}

static void test_what_the_peer_writes_after_the_check_changes_nothing(void **state)
{
    (void)state;
    struct world w;
    open_world(&w);
    send(&w, 3);
    assert_int_equal(receive(&w), 0);
    memset(w.ring[1], 0xee, (size_t)TO_CAPACITY * STAGING_PAGE_LEN);
    assert_arrived(&w);
    free_epochs(&w);
    close_world(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_epochs_arrive_wherever_the_rings_wrap_and_keys_change),
        cmocka_unit_test(test_staging_itself_keeps_the_plain_pages),
        cmocka_unit_test(test_a_changed_bit_anywhere_is_found),
        cmocka_unit_test(test_pages_of_an_earlier_epoch_are_found),
        cmocka_unit_test(test_an_epoch_that_is_announced_twice_is_found),
        cmocka_unit_test(test_what_the_peer_writes_after_the_check_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
