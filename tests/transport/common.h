/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What every transport must do: made-up epochs that whoever knows their number can check, and the tests that
 * run over pairs of connected transports of any kind.
 */
#ifndef UNDERSTUDY_TESTS_TRANSPORT_COMMON_H
#define UNDERSTUDY_TESTS_TRANSPORT_COMMON_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "checkpoint/staging.h"
#include "replicator/transport/transport.h"

#define CAPACITY     64u
#define DEVSTATE_MAX 8192u
#define PATIENT_MS   20000u /* longer than any healthy step takes under a sanitizer */
#define TERM         3u
#define LARGE        2048u /* pages: more than any socket buffer takes */

/* ends[0] sends from staging[0], ends[1] receives into staging[1]. */
struct transport_pair {
    struct transport *ends[2];
    struct staging *staging[2];
    void *user;
};

struct transport_pairs {
    void (*open)(struct transport_pair *made, unsigned stall_ms, uint32_t from_pages, uint32_t to_pages);
    /* Frees the ends that are not NULL, and staging. */
    void (*close)(struct transport_pair *made);
    unsigned shutdowns; /* how often the race of a shutdown is tried */
};

/* The keys of the two ends of a sealed link. Both change soon, so that a test of some length sees it. */
void keys_of_ends(struct seal_keys keys[2]);
struct staging *new_staging(uint32_t capacity);
void assert_empty(const struct staging *staging);
void fill_random(uint8_t *at, size_t len, unsigned *seed);
/* An epoch that depends on number alone. */
struct staged_epoch *stage(struct staging *staging, uint64_t number, uint32_t max_pages);
/* An epoch of LARGE pages, in a ring of as many. */
struct staged_epoch *stage_large(struct staging *staging);
void assert_same(const struct staging *a_staging, const struct staged_epoch *a,
                 const struct staging *b_staging, const struct staged_epoch *b);
/* Sends one and waits until its memory is free. 0 or -errno. */
int send_and_wait(struct transport *transport, struct staging *staging, struct staged_epoch *epoch);

/* A call that blocks, on a thread of its own. */
struct blocked {
    struct transport *transport;
    struct staging *staging;
    struct staged_epoch *epoch; /* to send, or NULL: receive */
    struct staged_epoch *taken; /* what was received, if it is an epoch */
    int status;
};
void *block(void *opaque);

struct said {
    struct transport *transport;
    const uint8_t *payload;
    size_t len;
    int status;
};
void *say(void *opaque);

void test_random_epochs_arrive_identical(void **state);
void test_messages_arrive_whole_at_any_length_and_longer_ones_are_not_sent(void **state);
void test_messages_of_other_threads_never_fall_into_an_epoch(void **state);
void test_a_peer_that_stops_reading_times_out(void **state);
void test_a_peer_that_is_gone_is_told_to_the_sender(void **state);
void test_shutdown_unblocks_an_idle_receiver(void **state);
void test_shutdown_unblocks_a_sender_whose_peer_does_not_read(void **state);

#define TRANSPORT_COMMON_TESTS(pairs)                                                                        \
    cmocka_unit_test_prestate(test_random_epochs_arrive_identical, (void *)(pairs)),                         \
        cmocka_unit_test_prestate(test_messages_arrive_whole_at_any_length_and_longer_ones_are_not_sent,     \
                                  (void *)(pairs)),                                                          \
        cmocka_unit_test_prestate(test_messages_of_other_threads_never_fall_into_an_epoch, (void *)(pairs)), \
        cmocka_unit_test_prestate(test_a_peer_that_stops_reading_times_out, (void *)(pairs)),                \
        cmocka_unit_test_prestate(test_a_peer_that_is_gone_is_told_to_the_sender, (void *)(pairs)),          \
        cmocka_unit_test_prestate(test_shutdown_unblocks_an_idle_receiver, (void *)(pairs)),                 \
        cmocka_unit_test_prestate(test_shutdown_unblocks_a_sender_whose_peer_does_not_read, (void *)(pairs))

#endif
