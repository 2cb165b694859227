/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The TCP transport over socket pairs, sealed. Tests take the bytes of an epoch as the transport sealed them,
 * and do to them what somebody on the network can do: what comes out must be the whole epoch or nothing.
 */
#include <errno.h>
#include <pthread.h>
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
#include "proto/epoch_wire.h"
#include "replicator/transport/transport.h"
#include "tests/transport/common.h"

#define PAGES       10u
#define MARKER      "a marker that no wire may carry"
#define SEALED(len) ((len) + SEAL_TAG_LEN)
#define HEADER_LEN  SEALED(WIRE_HEADER_LEN)

static void open_pair(struct transport *ends[2], int fds[2], unsigned stall_ms)
{
    struct seal_keys keys[2];
    keys_of_ends(keys);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    for (int i = 0; i < 2; i++) {
        ends[i] = transport_tcp_new(fds[i], stall_ms);
        assert_int_equal(ends[i]->ops->seal(ends[i], &keys[i]), 0);
    }
}

static void open_sealed_pair(struct transport_pair *made, unsigned stall_ms, uint32_t from_pages,
                             uint32_t to_pages)
{
    int fds[2];
    made->staging[0] = new_staging(from_pages);
    made->staging[1] = new_staging(to_pages);
    open_pair(made->ends, fds, stall_ms);
}

static void close_sealed_pair(struct transport_pair *made)
{
    for (int i = 0; i < 2; i++) {
        if (made->ends[i])
            made->ends[i]->ops->free(made->ends[i]);
        staging_close(made->staging[i]);
    }
}

static const struct transport_pairs sealed_pairs = {
    .open = open_sealed_pair, .close = close_sealed_pair, .shutdowns = 50};

/* ---- what was sent ---- */

struct recorded {
    uint8_t *bytes;
    size_t len;
};

/* One end of a connection whose other end is the test's. The end's number decides its keys. */
static struct transport *open_end(int end, int *fd)
{
    struct seal_keys keys[2];
    int fds[2];
    keys_of_ends(keys);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    struct transport *transport = transport_tcp_new(fds[0], PATIENT_MS);
    assert_int_equal(transport->ops->seal(transport, &keys[end]), 0);
    *fd = fds[1];
    return transport;
}

static struct staged_epoch *stage_marked(struct staging *staging, uint32_t npages)
{
    struct staged_epoch *epoch = staging_begin(staging, 1, STAGED_EPOCH);
    unsigned seed = 9;
    assert_non_null(epoch);
    int64_t first = staging_reserve(staging, epoch, npages);
    assert_true(first >= 0);
    fill_random(staging_slot(staging, (uint32_t)first), npages * STAGING_PAGE_LEN, &seed);
    for (uint32_t i = 0; i < npages; i++) {
        epoch->pages[i] =
            (struct staged_page){.ref = page_ref_make(0, 7 + i, 0), .slot = (uint32_t)first + i};
        memcpy(staging_slot(staging, (uint32_t)first + i) + 100, MARKER, sizeof MARKER);
    }
    epoch->npages = npages;
    epoch->nblocks = 2;
    epoch->devstate_len = 200;
    memset(epoch->devstate, 'd', epoch->devstate_len);
    memcpy(epoch->devstate, MARKER, sizeof MARKER);
    staging_commit(staging, epoch);
    return epoch;
}

static struct recorded take_bytes(struct transport *sender, int fd)
{
    struct transport_stats stats;
    sender->ops->stats(sender, &stats);
    struct recorded recorded = {.bytes = malloc(stats.bytes_sent), .len = stats.bytes_sent};
    assert_non_null(recorded.bytes);
    assert_int_equal(recv(fd, recorded.bytes, recorded.len, MSG_WAITALL), recorded.len);
    return recorded;
}

static struct recorded record_epoch(uint32_t npages)
{
    struct staging *staging = new_staging(CAPACITY);
    int fd;
    struct transport *sender = open_end(0, &fd);
    struct staged_epoch *epoch = stage_marked(staging, npages);
    assert_int_equal(sender->ops->send_epoch(sender, TERM, staging, epoch), 0);
    struct recorded recorded = take_bytes(sender, fd);
    sender->ops->free(sender);
    close(fd);
    staging_close(staging);
    return recorded;
}

/* A message's bytes, one of some that the same connection carries. */
static struct recorded record_messages(unsigned n)
{
    int fd;
    struct transport *sender = open_end(0, &fd);
    const struct transport_message message = {
        .type = MESSAGE_FRAMES, .term = TERM, .payload = (const uint8_t *)MARKER, .len = sizeof MARKER};
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(sender->ops->send_message(sender, &message), 0);
    struct recorded recorded = take_bytes(sender, fd);
    sender->ops->free(sender);
    close(fd);
    return recorded;
}

/* What the receiver says to these bytes, and then nothing. end: whose keys it has. */
static int receive_with(int end, struct staging *staging, const uint8_t *bytes, size_t len,
                        struct transport_received *out)
{
    int fd;
    struct transport *receiver = open_end(end, &fd);
    if (len)
        assert_int_equal(write(fd, bytes, len), len);
    shutdown(fd, SHUT_WR);
    int status = receiver->ops->receive(receiver, staging, out);
    receiver->ops->free(receiver);
    close(fd);
    return status;
}

static int receive_bytes(struct staging *staging, const uint8_t *bytes, size_t len,
                         struct transport_received *out)
{
    return receive_with(1, staging, bytes, len, out);
}

/* ---- tests ---- */

static void test_an_epoch_and_its_messages_are_not_readable_on_the_wire(void **state)
{
    (void)state;
    struct recorded epoch = record_epoch(PAGES), message = record_messages(1);
    assert_null(memmem(epoch.bytes, epoch.len, MARKER, strlen(MARKER)));
    assert_null(memmem(message.bytes, message.len, MARKER, strlen(MARKER)));
    const uint32_t magic = WIRE_MAGIC;
    assert_null(memmem(epoch.bytes, epoch.len, &magic, sizeof magic));
    free(epoch.bytes);
    free(message.bytes);
}

/* Under a sanitizer each attempt takes milliseconds: then some bytes stand for all. 61 meets each place of a
 * record in the end. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define STEP 61u
#else
#define STEP 1u
#endif

static void test_a_flipped_bit_in_any_byte_of_a_ten_page_epoch_is_found(void **state)
{
    (void)state;
    struct recorded recorded = record_epoch(PAGES);
    struct staging *staging = new_staging(CAPACITY);
    struct transport_received out;
    assert_int_equal(receive_bytes(staging, recorded.bytes, recorded.len, &out), 0);
    assert_int_equal(out.epoch->npages, PAGES);
    staging_free(staging, out.epoch);
    for (size_t at = 0; at < recorded.len; at += STEP) {
        uint8_t bit = (uint8_t)(1u << (at * 5 % 8));
        recorded.bytes[at] ^= bit;
        assert_int_equal(receive_bytes(staging, recorded.bytes, recorded.len, &out), -EBADMSG);
        assert_null(out.epoch);
        assert_empty(staging);
        recorded.bytes[at] ^= bit;
    }
    staging_close(staging);
    free(recorded.bytes);
}

static void test_an_epoch_cut_after_any_byte_delivers_nothing(void **state)
{
    (void)state;
    struct recorded recorded = record_epoch(1);
    struct staging *staging = new_staging(CAPACITY);
    struct transport_received out;
    for (size_t len = 0; len < recorded.len; len += STEP) {
        assert_int_equal(receive_bytes(staging, recorded.bytes, len, &out), -ENOTCONN);
        assert_null(out.epoch);
        assert_empty(staging);
    }
    staging_close(staging);
    free(recorded.bytes);
}

/* The end of the stream where the middle should be. */
static void test_an_epoch_with_a_part_left_out_is_found(void **state)
{
    (void)state;
    struct recorded recorded = record_epoch(PAGES);
    struct staging *staging = new_staging(CAPACITY);
    struct transport_received out;
    size_t cut = HEADER_LEN + SEALED(WIRE_EPOCH_LEN), left_out = SEALED(PAGES * 8);
    memmove(recorded.bytes + cut, recorded.bytes + cut + left_out, recorded.len - cut - left_out);
    assert_int_equal(receive_bytes(staging, recorded.bytes, recorded.len - left_out, &out), -EBADMSG);
    assert_null(out.epoch);
    assert_empty(staging);
    staging_close(staging);
    free(recorded.bytes);
}

static void test_an_epoch_that_is_played_again_is_found(void **state)
{
    (void)state;
    struct recorded recorded = record_epoch(1);
    struct staging *staging = new_staging(CAPACITY);
    struct transport_received out;
    int fd;
    struct transport *receiver = open_end(1, &fd);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(write(fd, recorded.bytes, recorded.len), recorded.len);
    assert_int_equal(receiver->ops->receive(receiver, staging, &out), 0);
    assert_non_null(out.epoch);
    staging_free(staging, out.epoch);
    assert_int_equal(receiver->ops->receive(receiver, staging, &out), -EBADMSG);
    assert_null(out.epoch);
    assert_empty(staging);
    receiver->ops->free(receiver);
    close(fd);
    staging_close(staging);
    free(recorded.bytes);
}

static void test_messages_that_change_places_are_found(void **state)
{
    (void)state;
    struct recorded two = record_messages(2);
    struct transport_received out;
    size_t half = two.len / 2;
    assert_int_equal(receive_bytes(NULL, two.bytes, two.len, &out), 0);
    assert_int_equal(receive_bytes(NULL, two.bytes + half, half, &out), -EBADMSG);
    free(two.bytes);
}

static void test_bytes_that_are_sent_back_are_found(void **state)
{
    (void)state;
    struct recorded one = record_messages(1);
    struct transport_received out;
    assert_int_equal(receive_with(0, NULL, one.bytes, one.len, &out), -EBADMSG);
    free(one.bytes);
}

static void test_a_plain_message_on_a_sealed_link_is_refused(void **state)
{
    (void)state;
    uint8_t bytes[HEADER_LEN] = {0};
    struct transport_received out;
    const struct wire_header header = {.type = MESSAGE_KEEPALIVE};
    wire_header_encode(&header, bytes);
    assert_int_equal(receive_bytes(NULL, bytes, sizeof bytes, &out), -EBADMSG);
}

static void test_a_link_is_sealed_once(void **state)
{
    (void)state;
    struct seal_keys keys[2];
    int fd;
    struct transport *transport = open_end(0, &fd);
    keys_of_ends(keys);
    assert_int_equal(transport->ops->seal(transport, &keys[0]), -EALREADY);
    transport->ops->free(transport);
    close(fd);
}

/* A part that is longer than a record, at lengths around its end. */
static void test_messages_longer_than_a_record_arrive_whole(void **state)
{
    (void)state;
    struct transport *ends[2];
    int fds[2];
    unsigned seed = 5;
    uint8_t *payload = malloc(3 * SEAL_SEGMENT_LEN);
    assert_non_null(payload);
    fill_random(payload, 3 * SEAL_SEGMENT_LEN, &seed);
    open_pair(ends, fds, PATIENT_MS);
    for (unsigned i = 0; i < 5; i++) {
        const struct transport_message message = {
            .type = MESSAGE_FRAMES, .payload = payload, .len = (i / 2 + 1) * SEAL_SEGMENT_LEN - i % 2};
        struct said said = {.transport = ends[0], .payload = payload, .len = message.len};
        struct transport_received out;
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, say, &said), 0);
        assert_int_equal(ends[1]->ops->receive(ends[1], NULL, &out), 0);
        pthread_join(thread, NULL);
        assert_int_equal(said.status, 0);
        assert_int_equal(out.message.len, message.len);
        assert_memory_equal(out.message.payload, payload, message.len);
    }
    for (int i = 0; i < 2; i++)
        ends[i]->ops->free(ends[i]);
    free(payload);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TRANSPORT_COMMON_TESTS(&sealed_pairs),
        cmocka_unit_test(test_an_epoch_and_its_messages_are_not_readable_on_the_wire),
        cmocka_unit_test(test_a_flipped_bit_in_any_byte_of_a_ten_page_epoch_is_found),
        cmocka_unit_test(test_an_epoch_cut_after_any_byte_delivers_nothing),
        cmocka_unit_test(test_an_epoch_with_a_part_left_out_is_found),
        cmocka_unit_test(test_an_epoch_that_is_played_again_is_found),
        cmocka_unit_test(test_messages_that_change_places_are_found),
        cmocka_unit_test(test_bytes_that_are_sent_back_are_found),
        cmocka_unit_test(test_a_plain_message_on_a_sealed_link_is_refused),
        cmocka_unit_test(test_a_link_is_sealed_once),
        cmocka_unit_test(test_messages_longer_than_a_record_arrive_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
