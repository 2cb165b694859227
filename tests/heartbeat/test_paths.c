/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Signs of life over real UDP sockets on the loopback device, told to an observer that writes everything
 * down. Most tests run twice: with the token in the packets, and with tags.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "heartbeat/paths.h"
#include "heartbeat/window.h"
#include "proto/epoch_wire.h"

#define HERE      "127.0.0.1"
#define HERE_TOO  "127.0.0.2" /* stands for another network */
#define PEER      "127.0.0.3"
#define NEVER_MS  3600000u /* nothing is sent but what a test sends */
#define SHORT_MS  20u
#define AWAIT_US  (10 * G_USEC_PER_SEC)
#define HEARD_MAX 16u
#define STALL_MS  300u

static const uint8_t TOKEN[HEARTBEAT_TOKEN_LEN] = {1, 2, 3, 4};
static const struct heartbeat_path OTHERS[] = {{(char *)HERE_TOO, (char *)PEER}};

static const uint8_t SECRET[SEAL_SECRET_LEN] = {5, 6, 7};
static bool tagged;
static unsigned host_of_next; /* side that is opened, of the two */

/* One side, and what its observer was told. */
struct side {
    struct paths *paths;
    struct heartbeat says; /* of itself */
    struct heartbeat heard[HEARD_MAX];
    bool by_link[HEARD_MAX];
    unsigned nheard, nstalls, heard_before_stall;
    uint64_t stalled_ms;
};

static void on_heard(void *opaque, const struct heartbeat *beat, bool by_link)
{
    struct side *side = opaque;
    assert_true(side->nheard < HEARD_MAX);
    side->by_link[side->nheard] = by_link;
    side->heard[side->nheard++] = *beat;
}

static void on_stalled(void *opaque, uint64_t stalled_ms)
{
    struct side *side = opaque;
    side->nstalls++;
    side->stalled_ms = stalled_ms;
    side->heard_before_stall = side->nheard;
}

static void say(void *opaque, struct heartbeat *beat)
{
    const struct side *side = opaque;
    beat->term = side->says.term;
    beat->role = side->says.role;
    beat->standing = side->says.standing;
    beat->query = side->says.query;
    beat->answer = side->says.answer;
    beat->deaf = side->says.deaf;
}

static void open_side(struct side *side, unsigned interval_ms)
{
    struct paths_config config = {
        .listen_address = HERE, .others = OTHERS, .nothers = 1, .interval_ms = interval_ms};
    const struct paths_observer observer = {on_heard, on_stalled, say, side};
    g_autoptr(GError) error = NULL;
    memcpy(config.token, TOKEN, sizeof TOKEN);
    config.tagged = tagged;
    config.host = host_of_next;
    memcpy(config.secret, SECRET, sizeof SECRET);
    *side = (struct side){.says = {.term = 1, .role = WIRE_ROLE_PRIMARY}};
    side->paths = paths_new(&config, &observer, &error);
    assert_non_null(side->paths);
    assert_int_equal(paths_count(side->paths), 2);
}

/* The main loop runs until so many beats were heard. */
static void await_heard(const struct side *side, unsigned n)
{
    gint64 until = g_get_monotonic_time() + AWAIT_US;
    while (side->nheard < n && g_get_monotonic_time() < until)
        g_main_context_iteration(NULL, FALSE);
    assert_int_equal(side->nheard, n);
}

static struct sockaddr_in at(const char *address, uint16_t port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    assert_int_equal(inet_pton(AF_INET, address, &to.sin_addr), 1);
    return to;
}

/* A socket that plays the peer. */
static int open_peer(uint16_t *port)
{
    struct sockaddr_in own = at(PEER, 0);
    socklen_t len = sizeof own;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct timeval patience = {.tv_sec = 10};
    assert_true(fd >= 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience), 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&own, sizeof own), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&own, &len), 0);
    *port = ntohs(own.sin_port);
    return fd;
}

/* The bytes of a packet that a host sends by a path. */
static void encode(struct heartbeat beat, const uint8_t *secret, unsigned host, uint32_t path,
                   uint8_t bytes[HEARTBEAT_LEN])
{
    struct seal_tagger *tagger = heartbeat_tagger_new(secret, host);
    assert_non_null(tagger);
    memcpy(beat.token, TOKEN, HEARTBEAT_TOKEN_LEN);
    if (tagged)
        heartbeat_encode_tagged(&beat, tagger, path, bytes);
    else
        heartbeat_encode(&beat, bytes);
    seal_tagger_free(tagger);
}

static int decode(struct heartbeat *beat, unsigned host, uint32_t path, const uint8_t bytes[HEARTBEAT_LEN])
{
    struct seal_tagger *tagger = heartbeat_tagger_new(SECRET, host);
    int status = tagged ? heartbeat_decode_tagged(beat, bytes, HEARTBEAT_LEN, tagger, path)
                        : heartbeat_decode(beat, bytes, HEARTBEAT_LEN, TOKEN);
    seal_tagger_free(tagger);
    return status;
}

static void send_bytes(int peer, const struct side *side, const char *address,
                       const uint8_t bytes[HEARTBEAT_LEN])
{
    struct sockaddr_in to = at(address, paths_port(side->paths));
    assert_int_equal(sendto(peer, bytes, HEARTBEAT_LEN, 0, (struct sockaddr *)&to, sizeof to), HEARTBEAT_LEN);
}

/* The peer is host 1. */
static void send_beat(int peer, const struct side *side, const char *address, struct heartbeat beat,
                      const uint8_t *token)
{
    uint8_t bytes[HEARTBEAT_LEN];
    memcpy(beat.token, token, HEARTBEAT_TOKEN_LEN);
    heartbeat_encode(&beat, bytes);
    if (tagged)
        encode(beat, SECRET, 1, strcmp(address, HERE) == 0 ? 0 : 1, bytes);
    send_bytes(peer, side, address, bytes);
}

static struct heartbeat numbered(uint64_t sequence)
{
    return (struct heartbeat){
        .term = 5, .sequence = sequence, .role = WIRE_ROLE_SECONDARY, .standing = 3, .query = 7, .answer = 6};
}

static struct heartbeat receive(int peer)
{
    uint8_t bytes[HEARTBEAT_LEN];
    struct heartbeat beat;
    assert_int_equal(recv(peer, bytes, sizeof bytes, 0), sizeof bytes);
    if (decode(&beat, 0, 0, bytes) < 0)
        assert_int_equal(decode(&beat, 0, 1, bytes), 0);
    return beat;
}

static void test_a_peer_that_was_dropped_is_neither_heard_nor_told(void **state)
{
    uint16_t port;
    int peer = open_peer(&port);
    uint8_t bytes[HEARTBEAT_LEN];
    struct side side;
    (void)state;
    open_side(&side, NEVER_MS);
    paths_set_peer(side.paths, PEER, port);
    send_beat(peer, &side, HERE, numbered(10), TOKEN);
    await_heard(&side, 1);
    paths_drop_peer(side.paths);
    paths_send_now(side.paths, NULL);
    send_beat(peer, &side, HERE, numbered(11), TOKEN);
    send_beat(peer, &side, HERE_TOO, numbered(12), TOKEN);
    encode(numbered(13), SECRET, 1, HEARTBEAT_LINK, bytes);
    paths_take(side.paths, bytes, sizeof bytes);
    paths_look(side.paths); /* what was sent has come: the loopback device has no queue */
    assert_int_equal(side.nheard, 1);
    assert_int_equal(recv(peer, bytes, sizeof bytes, MSG_DONTWAIT), -1);
    paths_set_peer(side.paths, PEER, port);
    paths_send_now(side.paths, NULL);
    assert_int_equal(receive(peer).term, 1);
    send_beat(peer, &side, HERE, numbered(14), TOKEN);
    await_heard(&side, 2);
    paths_free(side.paths);
    close(peer);
}

static void test_a_beat_is_heard_as_it_was_said(void **state)
{
    struct side a, b;
    (void)state;
    open_side(&a, NEVER_MS);
    host_of_next = 1;
    open_side(&b, NEVER_MS);
    host_of_next = 0;
    a.says = (struct heartbeat){
        .term = 9, .role = WIRE_ROLE_SECONDARY, .standing = 4, .query = 11, .answer = 12, .deaf = true};
    paths_set_peer(a.paths, HERE, paths_port(b.paths));
    paths_send_now(a.paths, NULL);
    await_heard(&b, 1);
    assert_int_equal(b.heard[0].term, 9);
    assert_int_equal(b.heard[0].role, WIRE_ROLE_SECONDARY);
    assert_int_equal(b.heard[0].standing, 4);
    assert_int_equal(b.heard[0].query, 11);
    assert_int_equal(b.heard[0].answer, 12);
    assert_true(b.heard[0].deaf);
    assert_true(b.by_link[0]);
    /* b was told of no peer: it has learnt from the beat where a is. */
    paths_send_now(b.paths, NULL);
    await_heard(&a, 1);
    assert_int_equal(a.heard[0].term, 1);
    paths_free(a.paths);
    paths_free(b.paths);
}

static void test_beats_go_out_by_each_path_and_on_time(void **state)
{
    struct side side;
    struct heartbeat first, next;
    uint16_t port;
    int peer = open_peer(&port);
    gint64 until = g_get_monotonic_time() + AWAIT_US;
    (void)state;
    open_side(&side, SHORT_MS);
    paths_set_peer(side.paths, PEER, port);
    for (unsigned i = 0; i < 2; i++) { /* two rounds: each sends by both paths, here to one socket */
        char byte;
        while (recv(peer, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && g_get_monotonic_time() < until)
            g_main_context_iteration(NULL, FALSE);
        first = receive(peer);
        next = receive(peer);
        assert_int_equal(first.sequence, next.sequence);
    }
    paths_free(side.paths);
    close(peer);
}

static void test_a_beat_with_another_token_is_not_heard(void **state)
{
    static const uint8_t OTHER[HEARTBEAT_TOKEN_LEN] = {1, 2, 3, 5};
    struct side side;
    uint16_t port;
    int peer = open_peer(&port);
    (void)state;
    open_side(&side, NEVER_MS);
    send_beat(peer, &side, HERE, numbered(20), OTHER);
    send_beat(peer, &side, HERE, numbered(10), TOKEN);
    await_heard(&side, 1);
    assert_int_equal(side.heard[0].sequence, 10);
    paths_free(side.paths);
    close(peer);
}

static void test_a_replay_is_not_heard_and_keeps_the_path_silent(void **state)
{
    struct side side;
    uint64_t heard_ms, unheard_ms;
    uint16_t port;
    int peer = open_peer(&port);
    (void)state;
    open_side(&side, NEVER_MS);
    g_usleep(SHORT_MS * 1000); /* the silence itself */
    send_beat(peer, &side, HERE, numbered(10), TOKEN);
    send_beat(peer, &side, HERE, numbered(10), TOKEN);
    send_beat(peer, &side, HERE, numbered(9), TOKEN);
    send_beat(peer, &side, HERE, numbered(11), TOKEN);
    await_heard(&side, 2);
    assert_int_equal(side.heard[0].sequence, 10);
    assert_int_equal(side.heard[1].sequence, 11);
    heard_ms = paths_silent_ms(side.paths, 0);
    unheard_ms = paths_silent_ms(side.paths, 1);
    assert_true(unheard_ms >= heard_ms + SHORT_MS - 1);
    g_usleep(SHORT_MS * 1000);
    send_beat(peer, &side, HERE, numbered(11), TOKEN);
    paths_look(side.paths);
    assert_true(paths_silent_ms(side.paths, 0) >= SHORT_MS);
    assert_int_equal(side.nheard, 2);
    paths_free(side.paths);
    close(peer);
}

/* A peer that took over, or was started again by a host whose clock is behind. */
static void test_a_newer_term_is_heard_whatever_its_sequence(void **state)
{
    struct side side;
    struct heartbeat newer = numbered(3);
    uint16_t port;
    int peer = open_peer(&port);
    (void)state;
    open_side(&side, NEVER_MS);
    send_beat(peer, &side, HERE, numbered(10), TOKEN);
    newer.term++;
    send_beat(peer, &side, HERE, newer, TOKEN);
    await_heard(&side, 2);
    assert_int_equal(side.heard[1].term, newer.term);
    paths_free(side.paths);
    close(peer);
}

static void test_a_beat_that_was_overtaken_on_another_path_says_nothing(void **state)
{
    struct side side;
    uint16_t port;
    int peer = open_peer(&port);
    (void)state;
    open_side(&side, NEVER_MS);
    send_beat(peer, &side, HERE, numbered(10), TOKEN);
    await_heard(&side, 1);
    send_beat(peer, &side, HERE_TOO, numbered(9), TOKEN);
    await_heard(&side, 2);
    assert_false(side.by_link[1]);
    assert_int_equal(side.heard[1].term, 5);
    assert_int_equal(side.heard[1].standing, 0);
    assert_int_equal(side.heard[1].query, 0);
    assert_int_equal(side.heard[1].answer, 0);
    send_beat(peer, &side, HERE_TOO, numbered(11), TOKEN);
    await_heard(&side, 3);
    assert_int_equal(side.heard[2].query, 7);
    paths_free(side.paths);
    close(peer);
}

static void test_a_new_peer_begins_its_numbers_anew(void **state)
{
    struct side side;
    uint16_t port;
    int peer = open_peer(&port);
    (void)state;
    open_side(&side, NEVER_MS);
    send_beat(peer, &side, HERE, numbered(10), TOKEN);
    await_heard(&side, 1);
    paths_set_peer(side.paths, PEER, port);
    send_beat(peer, &side, HERE, numbered(4), TOKEN);
    await_heard(&side, 2);
    assert_int_equal(side.heard[1].query, 7); /* nothing has overtaken it */
    paths_free(side.paths);
    close(peer);
}

static void test_a_beat_that_came_by_the_link_is_checked_and_heard(void **state)
{
    struct side side;
    uint8_t bytes[HEARTBEAT_LEN];
    struct heartbeat beat = numbered(10);
    (void)state;
    open_side(&side, NEVER_MS);
    heartbeat_encode(&beat, bytes); /* without the token */
    paths_take(side.paths, bytes, sizeof bytes);
    assert_int_equal(side.nheard, 0);
    encode(beat, SECRET, 1, HEARTBEAT_LINK, bytes);
    paths_take(side.paths, bytes, sizeof bytes - 1);
    assert_int_equal(side.nheard, 0);
    paths_take(side.paths, bytes, sizeof bytes);
    assert_int_equal(side.nheard, 1);
    assert_true(side.by_link[0]);
    paths_free(side.paths);
}

static void test_the_packet_sent_now_is_handed_back_for_the_link(void **state)
{
    struct side side;
    struct heartbeat beat;
    uint8_t first[HEARTBEAT_LEN], second[HEARTBEAT_LEN];
    uint64_t sequence;
    (void)state;
    open_side(&side, NEVER_MS);
    paths_send_now(side.paths, first);
    assert_int_equal(decode(&beat, 0, HEARTBEAT_LINK, first), 0);
    assert_int_equal(beat.term, 1);
    sequence = beat.sequence;
    paths_send_now(side.paths, second);
    assert_int_equal(decode(&beat, 0, HEARTBEAT_LINK, second), 0);
    assert_int_equal(beat.sequence, sequence + 1);
    paths_free(side.paths);
}

/* What came while this process did not run is heard before the stall is told: it is no silence of the peer's.
 */
static void test_a_stall_is_noticed_after_what_came_meanwhile(void **state)
{
    struct side side;
    uint16_t port;
    int peer = open_peer(&port);
    (void)state;
    open_side(&side, SHORT_MS);
    paths_look(side.paths); /* this process runs */
    side.nstalls = 0;
    send_beat(peer, &side, HERE, numbered(10), TOKEN);
    send_beat(peer, &side, HERE_TOO, numbered(11), TOKEN);
    g_usleep(STALL_MS * 1000); /* the stall itself */
    paths_look(side.paths);
    assert_int_equal(side.nstalls, 1);
    assert_true(side.stalled_ms >= STALL_MS - 2 * SHORT_MS);
    assert_int_equal(side.heard_before_stall, 2);
    paths_free(side.paths);
    close(peer);
}

static void test_the_main_loop_too_hears_before_it_tells_a_stall(void **state)
{
    struct side side;
    uint16_t port;
    int peer = open_peer(&port);
    gint64 until = g_get_monotonic_time() + AWAIT_US;
    (void)state;
    open_side(&side, SHORT_MS);
    paths_look(side.paths);
    side.nstalls = 0;
    send_beat(peer, &side, HERE, numbered(10), TOKEN);
    g_usleep(STALL_MS * 1000);
    while (side.nstalls == 0 && g_get_monotonic_time() < until)
        g_main_context_iteration(NULL, FALSE);
    assert_int_equal(side.nstalls, 1);
    assert_int_equal(side.heard_before_stall, 1);
    paths_free(side.paths);
    close(peer);
}

static void test_packets_that_the_kernel_refuses_are_counted_until_one_goes_out(void **state)
{
    struct side side;
    uint64_t total = 0;
    uint16_t port;
    int peer = open_peer(&port);
    (void)state;
    open_side(&side, NEVER_MS);
    paths_send_now(side.paths, NULL); /* no peer is known: nothing to send, no fault */
    assert_int_equal(paths_send_error(side.paths, 0, &total), 0);
    assert_int_equal(total, 0);
    paths_set_peer(side.paths, "127.255.255.255", port); /* a broadcast, which the socket may not send */
    paths_send_now(side.paths, NULL);
    paths_send_now(side.paths, NULL);
    assert_int_equal(paths_send_error(side.paths, 0, &total), EACCES);
    assert_int_equal(total, 2);
    assert_int_equal(paths_send_error(side.paths, 1, &total), 0);
    assert_int_equal(total, 0);
    paths_set_peer(side.paths, PEER, port);
    paths_send_now(side.paths, NULL);
    assert_int_equal(paths_send_error(side.paths, 0, &total), 0);
    assert_int_equal(total, 2);
    paths_free(side.paths);
    close(peer);
}

static void test_an_address_that_the_socket_cannot_send_to_counts_as_a_refused_packet(void **state)
{
    struct side side;
    uint64_t total = 0;
    (void)state;
    open_side(&side, NEVER_MS);
    paths_set_peer(side.paths, "::1", 7070);
    assert_int_not_equal(paths_send_error(side.paths, 0, &total), 0);
    assert_int_equal(total, 1);
    paths_free(side.paths);
}

static int next_descriptor(void)
{
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    close(fd);
    return fd;
}

static void test_an_address_that_is_not_this_hosts_leaves_nothing_open(void **state)
{
    static const struct heartbeat_path foreign = {(char *)"192.0.2.1", (char *)PEER};
    const struct paths_config config = {
        .listen_address = HERE, .others = &foreign, .nothers = 1, .interval_ms = SHORT_MS};
    const struct paths_observer observer = {on_heard, on_stalled, say, NULL};
    g_autoptr(GError) error = NULL;
    (void)state;
    g_main_context_iteration(NULL, FALSE); /* the context has its own descriptors by now */
    int before = next_descriptor();
    assert_null(paths_new(&config, &observer, &error));
    assert_non_null(error);
    assert_non_null(strstr(error->message, "192.0.2.1"));
    assert_int_equal(next_descriptor(), before);
    assert_int_equal(paths_count(NULL), 0);
    paths_free(NULL);
}

/* ---- windows ---- */

static void test_a_packet_cannot_use_up_the_numbers(void **state)
{
    static const uint64_t wishes[] = {0, WINDOW_MAX + 1, UINT64_MAX, 10 + WINDOW_AHEAD + 1};
    struct side side;
    uint16_t port;
    int peer = open_peer(&port);
    (void)state;
    open_side(&side, NEVER_MS);
    send_beat(peer, &side, HERE, numbered(10), TOKEN);
    await_heard(&side, 1);
    for (unsigned i = 0; i < G_N_ELEMENTS(wishes); i++)
        send_beat(peer, &side, HERE, numbered(wishes[i]), TOKEN);
    send_beat(peer, &side, HERE, numbered(11), TOKEN);
    await_heard(&side, 2);
    assert_int_equal(side.heard[1].sequence, 11);
    paths_free(side.paths);
    close(peer);
}

/* Somebody held it back on that network. */
static void test_a_packet_much_older_than_the_newest_by_any_path_is_no_sign_of_life(void **state)
{
    struct side side;
    uint16_t port;
    int peer = open_peer(&port);
    (void)state;
    open_side(&side, NEVER_MS);
    send_beat(peer, &side, HERE, numbered(1000), TOKEN);
    await_heard(&side, 1);
    send_beat(peer, &side, HERE_TOO, numbered(1000 - WINDOW_BEHIND - 1), TOKEN);
    send_beat(peer, &side, HERE_TOO, numbered(1000 - WINDOW_BEHIND), TOKEN);
    await_heard(&side, 2);
    assert_int_equal(side.heard[1].sequence, 1000 - WINDOW_BEHIND);
    paths_free(side.paths);
    close(peer);
}

/* ---- tags only ---- */

static void test_forged_and_reflected_packets_and_those_of_another_path_are_not_heard(void **state)
{
    static const uint8_t other[SEAL_SECRET_LEN] = {5, 6, 8};
    struct side side;
    uint8_t bytes[HEARTBEAT_LEN], own[HEARTBEAT_LEN];
    uint16_t port;
    int peer = open_peer(&port);
    (void)state;
    open_side(&side, NEVER_MS);
    paths_set_peer(side.paths, PEER, port);
    encode(numbered(20), other, 1, 0, bytes); /* another VM's */
    send_bytes(peer, &side, HERE, bytes);
    encode(numbered(20), SECRET, 0, 0, bytes); /* this side's own */
    send_bytes(peer, &side, HERE, bytes);
    paths_send_now(side.paths, NULL);
    assert_int_equal(recv(peer, own, sizeof own, 0), sizeof own);
    send_bytes(peer, &side, HERE, own);
    encode(numbered(20), SECRET, 1, 0, bytes);
    send_bytes(peer, &side, HERE_TOO, bytes); /* recorded on the other network */
    encode(numbered(20), SECRET, 1, HEARTBEAT_LINK, bytes);
    send_bytes(peer, &side, HERE, bytes);
    struct heartbeat plain = numbered(20); /* who reads the network of an unsealed VM knows its token */
    memcpy(plain.token, TOKEN, sizeof TOKEN);
    heartbeat_encode(&plain, bytes);
    send_bytes(peer, &side, HERE, bytes);
    send_beat(peer, &side, HERE, numbered(10), TOKEN);
    await_heard(&side, 1);
    assert_int_equal(side.heard[0].sequence, 10);
    paths_free(side.paths);
    close(peer);
}

static void test_any_changed_bit_of_a_packet_is_found(void **state)
{
    struct heartbeat out;
    uint8_t bytes[HEARTBEAT_LEN];
    (void)state;
    for (unsigned bit = 0; bit < 8 * HEARTBEAT_LEN; bit++) {
        encode(numbered(10), SECRET, 1, 0, bytes);
        assert_int_equal(decode(&out, 1, 0, bytes), 0);
        bytes[bit / 8] ^= (uint8_t)(1u << (bit % 8));
        assert_int_equal(decode(&out, 1, 0, bytes), -EPROTO);
    }
}

static void test_a_packet_does_not_show_the_token(void **state)
{
    uint8_t bytes[HEARTBEAT_LEN];
    (void)state;
    encode(numbered(10), SECRET, 1, 0, bytes);
    assert_null(memmem(bytes, sizeof bytes, TOKEN, sizeof TOKEN));
}

static void test_a_replay_with_an_old_term_or_a_new_one_is_not_heard(void **state)
{
    struct side side;
    struct heartbeat newer = numbered(3);
    uint16_t port;
    int peer = open_peer(&port);
    (void)state;
    open_side(&side, NEVER_MS);
    send_beat(peer, &side, HERE, numbered(10), TOKEN);
    newer.term++;
    send_beat(peer, &side, HERE, newer, TOKEN);
    send_beat(peer, &side, HERE, numbered(11), TOKEN);
    await_heard(&side, 2);
    assert_int_equal(side.heard[1].sequence, 11);
    paths_free(side.paths);
    close(peer);
}

static void test_a_beat_that_comes_by_the_link_again_is_not_heard(void **state)
{
    struct side side;
    uint8_t bytes[HEARTBEAT_LEN];
    (void)state;
    open_side(&side, NEVER_MS);
    encode(numbered(10), SECRET, 1, HEARTBEAT_LINK, bytes);
    paths_take(side.paths, bytes, sizeof bytes);
    paths_take(side.paths, bytes, sizeof bytes);
    assert_int_equal(side.nheard, 1);
    paths_free(side.paths);
}

static void test_a_new_secret_begins_anew_and_ends_the_old_one(void **state)
{
    static const uint8_t other[SEAL_SECRET_LEN] = {5, 6, 8};
    struct side side;
    uint8_t bytes[HEARTBEAT_LEN];
    uint16_t port;
    int peer = open_peer(&port);
    (void)state;
    open_side(&side, NEVER_MS);
    send_beat(peer, &side, HERE, numbered(10), TOKEN);
    await_heard(&side, 1);
    paths_set_secret(side.paths, other);
    send_beat(peer, &side, HERE, numbered(11), TOKEN);
    encode(numbered(4), other, 1, 0, bytes);
    send_bytes(peer, &side, HERE, bytes);
    await_heard(&side, 2);
    assert_int_equal(side.heard[1].sequence, 4);
    paths_free(side.paths);
    close(peer);
}

#define BOTH_KINDS                                                                                           \
    cmocka_unit_test(test_a_peer_that_was_dropped_is_neither_heard_nor_told),                                \
        cmocka_unit_test(test_a_beat_is_heard_as_it_was_said),                                               \
        cmocka_unit_test(test_beats_go_out_by_each_path_and_on_time),                                        \
        cmocka_unit_test(test_a_replay_is_not_heard_and_keeps_the_path_silent),                              \
        cmocka_unit_test(test_a_beat_that_was_overtaken_on_another_path_says_nothing),                       \
        cmocka_unit_test(test_a_new_peer_begins_its_numbers_anew),                                           \
        cmocka_unit_test(test_a_beat_that_came_by_the_link_is_checked_and_heard),                            \
        cmocka_unit_test(test_the_packet_sent_now_is_handed_back_for_the_link),                              \
        cmocka_unit_test(test_a_stall_is_noticed_after_what_came_meanwhile),                                 \
        cmocka_unit_test(test_the_main_loop_too_hears_before_it_tells_a_stall),                              \
        cmocka_unit_test(test_packets_that_the_kernel_refuses_are_counted_until_one_goes_out),               \
        cmocka_unit_test(test_an_address_that_the_socket_cannot_send_to_counts_as_a_refused_packet),         \
        cmocka_unit_test(test_an_address_that_is_not_this_hosts_leaves_nothing_open),                        \
        cmocka_unit_test(test_a_packet_cannot_use_up_the_numbers),                                           \
        cmocka_unit_test(test_a_packet_much_older_than_the_newest_by_any_path_is_no_sign_of_life)

int main(void)
{
    const struct CMUnitTest with_token[] = {
        BOTH_KINDS,
        cmocka_unit_test(test_a_beat_with_another_token_is_not_heard),
        cmocka_unit_test(test_a_newer_term_is_heard_whatever_its_sequence),
    };
    const struct CMUnitTest with_tag[] = {
        BOTH_KINDS,
        cmocka_unit_test(test_forged_and_reflected_packets_and_those_of_another_path_are_not_heard),
        cmocka_unit_test(test_any_changed_bit_of_a_packet_is_found),
        cmocka_unit_test(test_a_packet_does_not_show_the_token),
        cmocka_unit_test(test_a_replay_with_an_old_term_or_a_new_one_is_not_heard),
        cmocka_unit_test(test_a_beat_that_comes_by_the_link_again_is_not_heard),
        cmocka_unit_test(test_a_new_secret_begins_anew_and_ends_the_old_one),
    };
    int failed = cmocka_run_group_tests(with_token, NULL, NULL);
    tagged = true;
    return failed + cmocka_run_group_tests(with_tag, NULL, NULL);
}
