/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The TCP transport over socket pairs. Most tests take the bytes of one small epoch as the transport wrote
 * them, do something to them that networks, crashes and malice do, and hand them to a receiver: what comes
 * out must be the whole epoch or nothing, and nothing must leave staging as empty as it was.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <netinet/in.h>
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
#include "replicator/transport/transport.h"
#include "tests/transport/common.h"

#define STALL_MS 20u

/* ---- helpers ---- */

static void pair(int fds[2])
{
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
}

static void open_tcp_pair(struct transport_pair *made, unsigned stall_ms, uint32_t from_pages,
                          uint32_t to_pages)
{
    int fds[2];
    pair(fds);
    made->staging[0] = new_staging(from_pages);
    made->staging[1] = new_staging(to_pages);
    for (int i = 0; i < 2; i++)
        made->ends[i] = transport_tcp_new(fds[i], stall_ms);
}

static void close_tcp_pair(struct transport_pair *made)
{
    for (int i = 0; i < 2; i++) {
        if (made->ends[i])
            made->ends[i]->ops->free(made->ends[i]);
        staging_close(made->staging[i]);
    }
}

static const struct transport_pairs tcp_pairs = {
    .open = open_tcp_pair, .close = close_tcp_pair, .shutdowns = 200};

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

/* ---- a peer that takes nothing for a while ---- */

#define WHILE_MS 100u /* a limit */

static void connect_by_tcp(int fds[2])
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    fds[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &len), 0);
    assert_int_equal(connect(fds[0], (struct sockaddr *)&address, sizeof address), 0);
    fds[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    assert_true(fds[1] >= 0);
    close(listener);
}

/* Reads all that comes, after a time. A network that took nothing takes it again. */
static void *read_late(void *opaque)
{
    const int *fd = opaque;
    static char bytes[1 << 16];
    int none = 0;
    usleep(3 * WHILE_MS * 1000); /* the fault itself */
    setsockopt(*fd, SOL_SOCKET, SO_DETACH_FILTER, &none, sizeof none);
    while (read(*fd, bytes, sizeof bytes) > 0)
        continue;
    return NULL;
}

/* What a sender says of more than the sockets hold, to a peer that reads late. */
static int send_to_late_reader(int fds[2], enum staged_kind kind)
{
    struct staging *staging = new_staging(LARGE);
    struct staged_epoch *epoch = stage_large(staging);
    struct transport *sender = transport_tcp_new(fds[0], WHILE_MS);
    pthread_t thread;
    epoch->kind = kind;
    assert_int_equal(pthread_create(&thread, NULL, read_late, &fds[1]), 0);
    int status = sender->ops->send_epoch(sender, TERM, staging, epoch);
    sender->ops->shutdown(sender);
    pthread_join(thread, NULL);
    sender->ops->free(sender);
    close(fds[1]);
    staging_free(staging, epoch);
    staging_close(staging);
    return status;
}

static void test_a_peer_that_takes_nothing_has_time_in_a_synchronisation_alone(void **state)
{
    int fds[2];
    (void)state;
    connect_by_tcp(fds);
    assert_int_equal(send_to_late_reader(fds, STAGED_PRECOPY), 0);
    connect_by_tcp(fds);
    assert_int_equal(send_to_late_reader(fds, STAGED_EPOCH), -ETIMEDOUT);
}

/* The socket's filter throws away what arrives, so nothing is acknowledged. */
static void test_a_network_that_takes_nothing_has_no_more_time(void **state)
{
    struct sock_filter nothing[] = {BPF_STMT(BPF_RET | BPF_K, 0)};
    const struct sock_fprog filter = {.len = 1, .filter = nothing};
    int fds[2];
    (void)state;
    connect_by_tcp(fds);
    assert_int_equal(setsockopt(fds[1], SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof filter), 0);
    assert_int_equal(send_to_late_reader(fds, STAGED_PRECOPY), -ETIMEDOUT);
}

struct late_room {
    struct staging *staging;
    struct staged_epoch *epoch;
};

static void *free_late(void *opaque)
{
    struct late_room *late = opaque;
    usleep(3 * WHILE_MS * 1000); /* the fault itself */
    staging_free(late->staging, late->epoch);
    return NULL;
}

static int receive_where_room_comes_late(enum staged_kind kind)
{
    struct staging *from = new_staging(LARGE), *to = new_staging(LARGE);
    struct staged_epoch *epoch = stage(from, 1, CAPACITY), *full = staging_begin(to, 99, STAGED_EPOCH);
    struct late_room late = {.staging = to, .epoch = full};
    struct transport_received out;
    pthread_t thread;
    int fds[2];
    epoch->kind = kind;
    if (kind != STAGED_EPOCH)
        epoch->devstate_len = 0;
    assert_true(staging_reserve(to, full, LARGE) >= 0);
    staging_commit(to, full);
    connect_by_tcp(fds);
    struct transport *ends[2] = {transport_tcp_new(fds[0], PATIENT_MS), transport_tcp_new(fds[1], WHILE_MS)};
    assert_int_equal(ends[0]->ops->send_epoch(ends[0], TERM, from, epoch), 0);
    assert_int_equal(pthread_create(&thread, NULL, free_late, &late), 0);
    int status = ends[1]->ops->receive(ends[1], to, &out);
    pthread_join(thread, NULL);
    if (status == 0)
        staging_free(to, out.epoch);
    assert_empty(to);
    for (int i = 0; i < 2; i++)
        ends[i]->ops->free(ends[i]);
    staging_free(from, epoch);
    staging_close(from);
    staging_close(to);
    return status;
}

static void test_room_may_come_late_in_a_synchronisation_alone(void **state)
{
    (void)state;
    assert_int_equal(receive_where_room_comes_late(STAGED_PRECOPY), 0);
    assert_int_equal(receive_where_room_comes_late(STAGED_EPOCH), -ETIMEDOUT);
}

/* ---- messages ---- */

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
        TRANSPORT_COMMON_TESTS(&tcp_pairs),
        cmocka_unit_test(test_a_connection_cut_after_any_byte_delivers_nothing_and_leaves_staging_empty),
        cmocka_unit_test(test_a_peer_that_stalls_in_the_middle_times_out_and_leaves_staging_empty),
        cmocka_unit_test(test_a_flipped_bit_in_any_byte_is_caught),
        cmocka_unit_test(test_an_index_that_contradicts_the_page_count_is_refused),
        cmocka_unit_test(test_a_commit_of_another_epoch_or_term_is_refused),
        cmocka_unit_test(test_an_epoch_larger_than_staging_or_where_none_is_awaited_is_refused),
        cmocka_unit_test(test_a_full_staging_that_nobody_empties_times_out),
        cmocka_unit_test(test_a_receiver_without_room_goes_on_when_there_is_some),
        cmocka_unit_test(test_a_peer_that_takes_nothing_has_time_in_a_synchronisation_alone),
        cmocka_unit_test(test_a_network_that_takes_nothing_has_no_more_time),
        cmocka_unit_test(test_room_may_come_late_in_a_synchronisation_alone),
        cmocka_unit_test(test_damaged_and_oversized_messages_are_refused),
        cmocka_unit_test(test_shutdown_unblocks_a_receiver_that_waits_for_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
