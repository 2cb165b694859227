/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Control messages: the parser at every length, and the blocking calls against peers that misbehave. */
#include <errno.h>
#include <gio/gio.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/stream.h"
#include "proto/framing.h"

#define HEAD_LEN 4u

/* A Failover request with its head; the caller frees it. */
static guint8 *failover_message(size_t *len)
{
    Understudy__Failover failover = UNDERSTUDY__FAILOVER__INIT;
    failover.force = 1;
    Understudy__Envelope envelope = UNDERSTUDY_ENVELOPE(FAILOVER, failover, &failover);
    size_t body = understudy__envelope__get_packed_size(&envelope);
    guint32 head = GUINT32_TO_LE((guint32)body);
    guint8 *bytes = g_malloc(HEAD_LEN + body);
    memcpy(bytes, &head, HEAD_LEN);
    understudy__envelope__pack(&envelope, bytes + HEAD_LEN);
    *len = HEAD_LEN + body;
    return bytes;
}

static void pair(int fds[2])
{
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
}

/* Each length in a buffer of just that size, so that the address sanitizer sees one byte too many. */
static void test_a_truncated_message_waits_for_more_at_every_length(void **state)
{
    (void)state;
    size_t whole;
    g_autofree guint8 *bytes = failover_message(&whole);
    for (size_t len = 0; len <= whole; len++) {
        Understudy__Envelope *out = NULL;
        guint8 *exact = malloc(len ? len : 1);
        assert_non_null(exact);
        memcpy(exact, bytes, len);
        assert_int_equal(framing_parse(exact, len, &out), len == whole ? (gssize)whole : 0);
        assert_true((out != NULL) == (len == whole));
        if (out) {
            assert_int_equal(out->body_case, UNDERSTUDY__ENVELOPE__BODY_FAILOVER);
            assert_true(out->failover->force);
            understudy__envelope__free_unpacked(out, NULL);
        }
        free(exact);
    }
}

static void test_only_the_first_of_two_messages_is_taken(void **state)
{
    (void)state;
    size_t len;
    g_autofree guint8 *bytes = failover_message(&len);
    g_autofree guint8 *two = g_malloc(2 * len);
    memcpy(two, bytes, len);
    memcpy(two + len, bytes, len);
    Understudy__Envelope *out = NULL;
    assert_int_equal(framing_parse(two, 2 * len, &out), len);
    understudy__envelope__free_unpacked(out, NULL);
}

static void test_oversized_messages_are_refused_by_their_head_alone(void **state)
{
    (void)state;
    static const guint32 lens[] = {FRAMING_MAX_LEN + 1, 1u << 31, UINT32_MAX};
    for (size_t i = 0; i < G_N_ELEMENTS(lens); i++) {
        guint32 head = GUINT32_TO_LE(lens[i]);
        Understudy__Envelope *out = NULL;
        assert_int_equal(framing_parse((const guint8 *)&head, sizeof head, &out), -EPROTO);
        assert_null(out);
    }
    guint32 largest = GUINT32_TO_LE(FRAMING_MAX_LEN);
    Understudy__Envelope *out = NULL;
    assert_int_equal(framing_parse((const guint8 *)&largest, sizeof largest, &out), 0);
}

/* protobuf calls zero bytes a message; here it would be one that asks for nothing. */
static void test_an_empty_envelope_is_refused(void **state)
{
    (void)state;
    const guint8 bytes[HEAD_LEN] = {0};
    Understudy__Envelope *out = NULL;
    assert_int_equal(framing_parse(bytes, sizeof bytes, &out), -EPROTO);
    if (out)
        understudy__envelope__free_unpacked(out, NULL);
}

static void test_random_bodies_never_do_harm(void **state)
{
    (void)state;
    srandom(4);
    for (unsigned round = 0; round < 20000; round++) {
        size_t body = (size_t)random() % 64;
        guint32 head = GUINT32_TO_LE((guint32)body);
        guint8 *bytes = malloc(HEAD_LEN + body);
        Understudy__Envelope *out = NULL;
        assert_non_null(bytes);
        memcpy(bytes, &head, HEAD_LEN);
        for (size_t i = 0; i < body; i++)
            bytes[HEAD_LEN + i] = (guint8)random();
        gssize used = framing_parse(bytes, HEAD_LEN + body, &out);
        assert_true(used == -EPROTO || used == (gssize)(HEAD_LEN + body));
        if (out)
            understudy__envelope__free_unpacked(out, NULL);
        free(bytes);
    }
}

static void test_a_peer_that_breaks_off_in_the_middle_is_an_error_at_every_length(void **state)
{
    (void)state;
    size_t whole;
    g_autofree guint8 *bytes = failover_message(&whole);
    for (size_t len = 0; len <= whole; len++) {
        int fds[2];
        pair(fds);
        if (len)
            assert_int_equal(write(fds[1], bytes, len), len);
        close(fds[1]);
        g_autoptr(GError) error = NULL;
        Understudy__Envelope *out = framing_read(STREAM_FD(fds[0]), 5000, &error);
        assert_true((out != NULL) == (len == whole));
        /* Closed between two messages is good order, and no error. */
        assert_true((error != NULL) == (len != 0 && len != whole));
        if (out)
            understudy__envelope__free_unpacked(out, NULL);
        close(fds[0]);
    }
}

static void test_a_silent_peer_costs_no_more_than_the_time_given(void **state)
{
    (void)state;
    int fds[2];
    pair(fds);
    g_autoptr(GError) error = NULL;
    gint64 since = g_get_monotonic_time();
    assert_null(framing_read(STREAM_FD(fds[0]), 30, &error));
    assert_non_null(error);
    assert_true(g_get_monotonic_time() - since < 5000000);
    close(fds[0]);
    close(fds[1]);
}

static void test_a_peer_that_never_reads_ends_a_write(void **state)
{
    (void)state;
    int fds[2], smallest = 1;
    pair(fds);
    setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &smallest, sizeof smallest);
    g_autofree char *name = g_strnfill(FRAMING_MAX_LEN / 2, 'x');
    Understudy__PeerMoved moved = UNDERSTUDY__PEER_MOVED__INIT;
    moved.host = name;
    Understudy__Envelope envelope = UNDERSTUDY_ENVELOPE(PEER_MOVED, peer_moved, &moved);
    g_autoptr(GError) error = NULL;
    assert_false(framing_write(STREAM_FD(fds[0]), &envelope, 30, &error));
    assert_non_null(error);
    close(fds[0]);
    close(fds[1]);
}

/* What a user writes can make a request too long, so the error says what to shorten. */
static void test_a_request_that_is_too_long_says_the_limit_and_what_to_shorten(void **state)
{
    (void)state;
    int fds[2];
    pair(fds);
    g_autofree char *word = g_strnfill(FRAMING_MAX_LEN, 'x');
    char *argv[] = {word};
    Understudy__RunRequest run = UNDERSTUDY__RUN_REQUEST__INIT;
    run.argv = argv;
    run.n_argv = 1;
    Understudy__Envelope request = UNDERSTUDY_ENVELOPE(RUN_REQUEST, run_request, &run);
    g_autoptr(GError) error = NULL;
    assert_false(framing_write(STREAM_FD(fds[0]), &request, 1000, &error));
    assert_true(g_error_matches(error, G_IO_ERROR, G_IO_ERROR_MESSAGE_TOO_LARGE));
    assert_non_null(strstr(error->message, "1048576 are the limit: shorten the command line"));
    g_clear_error(&error);
    Understudy__PeerMoved moved = UNDERSTUDY__PEER_MOVED__INIT;
    moved.host = word;
    Understudy__Envelope other = UNDERSTUDY_ENVELOPE(PEER_MOVED, peer_moved, &moved);
    assert_false(framing_fits(&other, &error));
    assert_true(g_str_has_suffix(error->message, "1048576 are the limit"));
    word[100] = 0;
    assert_true(framing_fits(&request, NULL));
    assert_true(framing_fits(&other, NULL));
    close(fds[0]);
    close(fds[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_truncated_message_waits_for_more_at_every_length),
        cmocka_unit_test(test_only_the_first_of_two_messages_is_taken),
        cmocka_unit_test(test_oversized_messages_are_refused_by_their_head_alone),
        cmocka_unit_test(test_an_empty_envelope_is_refused),
        cmocka_unit_test(test_random_bodies_never_do_harm),
        cmocka_unit_test(test_a_peer_that_breaks_off_in_the_middle_is_an_error_at_every_length),
        cmocka_unit_test(test_a_silent_peer_costs_no_more_than_the_time_given),
        cmocka_unit_test(test_a_peer_that_never_reads_ends_a_write),
        cmocka_unit_test(test_a_request_that_is_too_long_says_the_limit_and_what_to_shorten),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
