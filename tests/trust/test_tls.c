/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLS streams between two ends of one thread, with the test as the network in between: it can pass bytes on
 * one by one, change them, keep them, or cut the connection.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/stream.h"
#include "daemon/trust/tls.h"
#include "tests/daemon/entries.h"
#include "tests/trust/folder.h"

static char *dir;
static struct host_key *keys[2]; /* of the server and of the client */
static unsigned nopened, nclosed, nchecked;
static const char *refusal[2]; /* what each end says of the other one's key; NULL: it is accepted */

enum { SERVER, CLIENT };

static char *refuses(const uint8_t *key, void *opaque)
{
    int side = *(int *)opaque;
    nchecked++;
    assert_memory_equal(key, host_key_public(keys[!side]), KEY_LEN);
    return g_strdup(refusal[side]);
}

static void on_opened(struct stream *stream, void *opaque)
{
    int side = *(int *)opaque;
    assert_memory_equal(stream->key, host_key_public(keys[!side]), KEY_LEN);
    nopened++;
}

static void on_closing(struct stream *stream, void *opaque)
{
    (void)opaque;
    assert_non_null(stream->key);
    nclosed++;
}

static struct stream *ends[2];
static int wire[2]; /* the network's side of each end's socket */
static unsigned ndescriptors_before;

static struct stream *open_end(int side, int fd)
{
    static int sides[] = {SERVER, CLIENT};
    const struct tls_owner owner = {refuses, on_opened, on_closing, &sides[side]};
    return tls_stream_new(fd, side == SERVER ? TLS_ACCEPTS : TLS_CALLS, keys[side], &owner);
}

static int set_up(void **state)
{
    (void)state;
    ndescriptors_before = entries_of("/proc/self/fd");
    nopened = nclosed = nchecked = 0;
    refusal[SERVER] = refusal[CLIENT] = NULL;
    for (int side = 0; side < 2; side++) {
        int fds[2];
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
        ends[side] = open_end(side, fds[0]);
        wire[side] = fds[1];
        fcntl(wire[side], F_SETFL, O_NONBLOCK);
    }
    return 0;
}

static void cut(int side)
{
    if (wire[side] >= 0)
        close(wire[side]);
    wire[side] = -1;
}

static int tear_down(void **state)
{
    (void)state;
    stream_close(ends[SERVER]);
    stream_close(ends[CLIENT]);
    cut(SERVER);
    cut(CLIENT);
    assert_int_equal(nclosed, nopened);
    assert_int_equal(entries_of("/proc/self/fd"), ndescriptors_before);
    return 0;
}

/* Passes on what one end has sent, at most max bytes. The number of them. */
static size_t pass_on(int from, size_t max)
{
    uint8_t bytes[65536];
    ssize_t n = recv(wire[from], bytes, MIN(max, sizeof bytes), MSG_DONTWAIT);
    if (n > 0)
        assert_int_equal(send(wire[!from], bytes, (size_t)n, MSG_NOSIGNAL), n);
    return n > 0 ? (size_t)n : 0;
}

/* Both ends and the network do what they can, `max` bytes at a time, until nothing moves. */
static void shake_hands(size_t max, int status[2])
{
    for (unsigned idle = 0; idle < 3;) {
        status[CLIENT] = stream_handshake(ends[CLIENT]);
        status[SERVER] = stream_handshake(ends[SERVER]);
        idle = pass_on(CLIENT, max) + pass_on(SERVER, max) ? 0 : idle + 1;
    }
}

static void connect_both(void)
{
    int status[2];
    shake_hands(SIZE_MAX, status);
    if (status[SERVER] != 1 || status[CLIENT] != 1)
        fail_msg("server %d %s, client %d %s", status[SERVER], ends[SERVER]->why, status[CLIENT],
                 ends[CLIENT]->why);
}

static void say(int side, const char *text)
{
    assert_int_equal(stream_write(ends[side], text, strlen(text)), strlen(text));
}

static void hear(int side, const char *text)
{
    char got[256];
    ssize_t n = stream_read(ends[side], got, sizeof got);
    assert_int_equal(n, strlen(text));
    assert_memory_equal(got, text, (size_t)n);
}

static void test_both_ends_learn_the_other_s_key_and_talk(void **state)
{
    (void)state;
    assert_null(ends[SERVER]->key);
    connect_both();
    assert_int_equal(nopened, 2);
    assert_int_equal(nchecked, 2);
    say(CLIENT, "hello");
    pass_on(CLIENT, SIZE_MAX);
    hear(SERVER, "hello");
    say(SERVER, "yes");
    pass_on(SERVER, SIZE_MAX);
    hear(CLIENT, "yes");
    assert_int_equal(stream_read(ends[CLIENT], (char[1]){0}, 1), -EAGAIN);
    assert_int_equal(ends[CLIENT]->wants, POLLIN);
}

static void test_nothing_is_on_the_wire_in_the_clear(void **state)
{
    uint8_t bytes[4096];
    static const char words[] = "the guest's memory";
    (void)state;
    connect_both();
    say(CLIENT, words);
    ssize_t n = recv(wire[CLIENT], bytes, sizeof bytes, MSG_DONTWAIT);
    assert_true(n > (ssize_t)strlen(words));
    assert_null(memmem(bytes, (size_t)n, words, strlen(words)));
}

static void test_one_byte_at_a_time_is_enough(void **state)
{
    int status[2];
    (void)state;
    shake_hands(1, status);
    assert_int_equal(status[SERVER], 1);
    assert_int_equal(status[CLIENT], 1);
    say(CLIENT, "slow");
    while (pass_on(CLIENT, 1))
        if (recv(ends[SERVER]->fd, (char[1]){0}, 1, MSG_PEEK | MSG_DONTWAIT) == 1) {
            char got[8];
            ssize_t n = stream_read(ends[SERVER], got, sizeof got);
            assert_true(n == -EAGAIN || n == 4);
        }
}

/* The server's refusal comes after the client's handshake is done: with its first read. */
static void test_a_client_s_key_that_is_refused_is_told_to_it(void **state)
{
    int status[2];
    char byte;
    (void)state;
    refusal[SERVER] = "its key is not trusted here";
    shake_hands(SIZE_MAX, status);
    assert_int_equal(status[SERVER], -EPROTO);
    assert_string_equal(ends[SERVER]->why, "its key is not trusted here");
    assert_null(ends[SERVER]->key);
    assert_int_equal(status[CLIENT], 1);
    assert_int_equal(stream_read(ends[CLIENT], &byte, 1), -EACCES);
    assert_non_null(strstr(ends[CLIENT]->why, "does not trust this host"));
    assert_int_equal(stream_read(ends[CLIENT], &byte, 1), -EACCES);
    assert_int_equal(stream_write(ends[CLIENT], "x", 1), -EACCES);
    assert_int_equal(stream_read(ends[SERVER], &byte, 1), -EPROTO);
}

/* The client has written its request, and the server is gone, by the time it looks. */
static void test_a_refusal_is_told_also_to_a_client_that_writes_first(void **state)
{
    int status[2];
    (void)state;
    refusal[SERVER] = "no";
    shake_hands(SIZE_MAX, status);
    cut(CLIENT); /* the alert is in the client's socket */
    assert_true(stream_write(ends[CLIENT], "request", 7) < 0);
    assert_non_null(strstr(ends[CLIENT]->why, "does not trust this host"));
}

static void test_a_server_s_key_that_is_refused_ends_the_handshake(void **state)
{
    int status[2];
    (void)state;
    refusal[CLIENT] = "it is another host";
    shake_hands(SIZE_MAX, status);
    assert_int_equal(status[CLIENT], -EPROTO);
    assert_string_equal(ends[CLIENT]->why, "it is another host");
    assert_int_equal(status[SERVER], -EACCES);
    assert_non_null(strstr(ends[SERVER]->why, "does not trust this host"));
    assert_int_equal(nchecked, 1); /* the client's key was not shown */
    assert_int_equal(nopened, 0);
}

static void test_an_end_and_a_cut_are_not_the_same(void **state)
{
    char byte;
    (void)state;
    connect_both();
    say(CLIENT, "all");
    pass_on(CLIENT, SIZE_MAX);
    cut(SERVER);
    hear(SERVER, "all");
    assert_int_equal(stream_read(ends[SERVER], &byte, 1), -ECONNABORTED);
    assert_non_null(strstr(ends[SERVER]->why, "cut"));
}

static void test_an_end_in_order_is_an_end(void **state)
{
    char byte;
    (void)state;
    connect_both();
    say(CLIENT, "all");
    stream_close(ends[CLIENT]);
    ends[CLIENT] = open_end(CLIENT, dup(wire[CLIENT])); /* for tear_down */
    pass_on(CLIENT, SIZE_MAX);
    cut(SERVER);
    hear(SERVER, "all");
    assert_int_equal(stream_read(ends[SERVER], &byte, 1), 0);
    assert_int_equal(stream_read(ends[SERVER], &byte, 1), 0);
}

static void test_a_connection_that_says_nothing_and_ends_is_no_fault(void **state)
{
    (void)state;
    cut(SERVER);
    assert_int_equal(stream_handshake(ends[SERVER]), -EPIPE);
}

/* Cuts the client's part of the handshake at each byte. */
static void test_a_handshake_that_is_cut_anywhere_fails(void **state)
{
    size_t len = 0;
    (void)state;
    for (size_t at = 0;; at++) {
        int status[2] = {0, 0};
        size_t left = at;
        tear_down(NULL);
        set_up(NULL);
        for (unsigned idle = 0; idle < 3;) {
            status[CLIENT] = stream_handshake(ends[CLIENT]);
            status[SERVER] = stream_handshake(ends[SERVER]);
            size_t passed = pass_on(CLIENT, left);
            left -= passed;
            idle = passed + pass_on(SERVER, SIZE_MAX) ? 0 : idle + 1;
        }
        if (status[SERVER] == 1) {
            len = at;
            break;
        }
        assert_int_equal(status[SERVER], -EAGAIN);
        cut(SERVER);
        assert_int_equal(stream_handshake(ends[SERVER]), at ? -ECONNABORTED : -EPIPE);
        assert_null(ends[SERVER]->key);
    }
    assert_true(len > 300 && len < 2000);
}

/* A part of a record and the end come together: GnuTLS says GNUTLS_E_AGAIN to that, and nothing will wake its
 * user again. */
static void test_a_part_of_a_record_with_the_end_behind_it_is_a_cut(void **state)
{
    uint8_t bytes[256] = {22, 3, 1, 1, 0, 1, 0, 0, 0xfc, 3, 3};
    (void)state;
    for (size_t len = 1; len < 200; len += 3) {
        tear_down(NULL);
        set_up(NULL);
        assert_int_equal(send(wire[SERVER], bytes, len, MSG_NOSIGNAL), len);
        cut(SERVER);
        assert_int_equal(stream_handshake(ends[SERVER]), -ECONNABORTED);
    }
    tear_down(NULL);
    set_up(NULL);
    connect_both();
    say(CLIENT, "0123456789");
    ssize_t n = recv(wire[CLIENT], bytes, sizeof bytes, MSG_DONTWAIT);
    assert_true(n > 1);
    assert_int_equal(send(wire[SERVER], bytes, (size_t)n - 1, MSG_NOSIGNAL), n - 1);
    cut(SERVER);
    assert_int_equal(stream_read(ends[SERVER], bytes, sizeof bytes), -ECONNABORTED);
}

/* Flips one bit of each byte that the client sends. The server may not come to the end, nor hear anything. */
static void test_a_flipped_bit_anywhere_in_the_handshake_is_found(void **state)
{
    bool more = true;
    (void)state;
    for (size_t at = 0; more; at++) {
        int status[2] = {0, 0};
        size_t passed = 0;
        tear_down(NULL);
        set_up(NULL);
        for (unsigned idle = 0; idle < 3;) {
            uint8_t bytes[4096];
            status[CLIENT] = stream_handshake(ends[CLIENT]);
            status[SERVER] = stream_handshake(ends[SERVER]);
            ssize_t n = recv(wire[CLIENT], bytes, sizeof bytes, MSG_DONTWAIT);
            if (n > 0) {
                if (at >= passed && at < passed + (size_t)n)
                    bytes[at - passed] ^= 0x10;
                passed += (size_t)n;
                assert_int_equal(send(wire[SERVER], bytes, (size_t)n, MSG_NOSIGNAL), n);
            }
            idle = (n > 0) + pass_on(SERVER, SIZE_MAX) ? 0 : idle + 1;
        }
        more = at < passed;
        /* The version of a record, and the old ChangeCipherSpec, mean nothing to TLS 1.3. */
        if (more && status[SERVER] == 1 && status[CLIENT] == 1) {
            say(CLIENT, "x");
            pass_on(CLIENT, SIZE_MAX);
            hear(SERVER, "x");
            assert_true(at < 3 || passed > at);
        } else if (more) {
            assert_true(status[SERVER] != 1 || status[CLIENT] != 1);
        }
    }
}

static void test_a_flipped_bit_in_a_message_is_found(void **state)
{
    static const char words[] = "0123456789";
    (void)state;
    for (size_t at = 0; at < 5 + strlen(words) + 1 + 16; at++) {
        uint8_t bytes[256];
        char got[64];
        tear_down(NULL);
        set_up(NULL);
        connect_both();
        say(CLIENT, words);
        ssize_t n = recv(wire[CLIENT], bytes, sizeof bytes, MSG_DONTWAIT);
        assert_int_equal(n, 5 + strlen(words) + 1 + 16);
        bytes[at] ^= 1;
        assert_int_equal(send(wire[SERVER], bytes, (size_t)n, MSG_NOSIGNAL), n);
        ssize_t heard = stream_read(ends[SERVER], got, sizeof got);
        /* What stands for the record's type and version in TLS 1.3 is fixed, and GnuTLS does not look at it.
         */
        if (heard > 0)
            assert_true(at < 3 && heard == (ssize_t)strlen(words) && memcmp(got, words, (size_t)heard) == 0);
        else if (heard != -EPROTO && heard != -EAGAIN) /* EAGAIN: it waits for a longer record */
            fail_msg("byte %zu: %zd %s", at, heard, ends[SERVER]->why);
    }
}

static void test_a_record_that_is_sent_twice_is_found(void **state)
{
    uint8_t bytes[256];
    (void)state;
    connect_both();
    say(CLIENT, "stop");
    ssize_t n = recv(wire[CLIENT], bytes, sizeof bytes, MSG_DONTWAIT);
    for (int i = 0; i < 2; i++)
        assert_int_equal(send(wire[SERVER], bytes, (size_t)n, MSG_NOSIGNAL), n);
    hear(SERVER, "stop");
    assert_int_equal(stream_read(ends[SERVER], (char[8]){0}, 8), -EPROTO);
}

static void test_garbage_is_refused(void **state)
{
    uint8_t bytes[3000];
    (void)state;
    for (unsigned i = 0; i < 200; i++) {
        tear_down(NULL);
        set_up(NULL);
        GRand *random = g_rand_new_with_seed(i);
        for (size_t k = 0; k < sizeof bytes; k++)
            bytes[k] = (uint8_t)g_rand_int(random);
        g_rand_free(random);
        if (i % 2) { /* the head of a record */
            bytes[0] = 22;
            bytes[1] = 3;
            bytes[2] = 1;
            bytes[3] = 1;
        }
        assert_int_equal(send(wire[SERVER], bytes, sizeof bytes, MSG_NOSIGNAL), sizeof bytes);
        cut(SERVER);
        int status = stream_handshake(ends[SERVER]);
        for (int k = 0; k < 5 && status == -EAGAIN; k++) /* it takes what is there first */
            status = stream_handshake(ends[SERVER]);
        if (status != -EPROTO && status != -ECONNABORTED && status != -EACCES) /* it may look like an alert */
            fail_msg("%d %s", status, ends[SERVER]->why);
        assert_non_null(ends[SERVER]->why);
        assert_int_equal(stream_handshake(ends[SERVER]), status);
    }
}

/* A handshake message of 16 MiB is announced, and is sent as long as it is taken. */
static void test_an_oversized_handshake_is_refused_early(void **state)
{
    uint8_t record[5 + 1024] = {22, 3, 1, 4, 0, 1, 0xff, 0xff, 0xff};
    int status = -EAGAIN;
    size_t len = 0;
    (void)state;
    for (; status == -EAGAIN; len += sizeof record) {
        assert_true(len < 16384);
        assert_int_equal(send(wire[SERVER], record, sizeof record, MSG_NOSIGNAL), sizeof record);
        memset(record + 5, 0, 4);
        status = stream_handshake(ends[SERVER]);
    }
    assert_int_equal(status, -EPROTO);
    assert_non_null(strstr(ends[SERVER]->why, "too much"));
}

/* ---- other clients ---- */

static int shake_foreign(gnutls_session_t session)
{
    int status = GNUTLS_E_AGAIN, server = -EAGAIN;
    for (unsigned idle = 0; idle < 3;) {
        if (status == GNUTLS_E_AGAIN)
            status = gnutls_handshake(session);
        server = stream_handshake(ends[SERVER]);
        idle = pass_on(CLIENT, SIZE_MAX) + pass_on(SERVER, SIZE_MAX) ? 0 : idle + 1;
    }
    return server;
}

static gnutls_session_t open_foreign(const char *priorities, gnutls_certificate_credentials_t credentials)
{
    gnutls_session_t session;
    assert_int_equal(gnutls_init(&session, GNUTLS_CLIENT | GNUTLS_NONBLOCK | GNUTLS_ENABLE_RAWPK), 0);
    assert_int_equal(gnutls_priority_set_direct(session, priorities, NULL), 0);
    assert_int_equal(gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, credentials), 0);
    gnutls_transport_set_int(session, ends[CLIENT]->fd);
    return session;
}

static void test_a_client_without_a_key_and_one_of_tls_1_2_are_refused(void **state)
{
    static const char *const priorities[] = {
        "NORMAL", "NORMAL:-VERS-ALL:+VERS-TLS1.2",
        "NORMAL:-VERS-ALL:+VERS-TLS1.3:+CTYPE-CLI-RAWPK:+CTYPE-SRV-RAWPK",
        "NORMAL:-VERS-ALL:+VERS-TLS1.3:-CTYPE-ALL:+CTYPE-CLI-X509:+CTYPE-SRV-RAWPK"};
    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(priorities); i++) {
        gnutls_certificate_credentials_t none;
        tear_down(NULL);
        set_up(NULL);
        gnutls_certificate_allocate_credentials(&none);
        gnutls_session_t session = open_foreign(priorities[i], none);
        int status = shake_foreign(session);
        if (status >= 0 || status == -EAGAIN)
            fail_msg("%s: %d", priorities[i], status);
        assert_int_equal(nopened, 0);
        gnutls_deinit(session);
        gnutls_certificate_free_credentials(none);
    }
}

/* Key updates are cheap to ask for; GnuTLS limits them. */
static void test_a_flood_of_key_updates_ends_the_connection(void **state)
{
    (void)state;
    gnutls_session_t session =
        open_foreign("NORMAL:-VERS-ALL:+VERS-TLS1.3:-CTYPE-ALL:+CTYPE-CLI-RAWPK:+CTYPE-SRV-RAWPK",
                     host_key_credentials(keys[CLIENT]));
    assert_int_equal(shake_foreign(session), 1);
    ssize_t n = -EAGAIN;
    for (int i = 0; i < 100 && n == -EAGAIN; i++) {
        if (gnutls_session_key_update(session, 0) < 0)
            break;
        pass_on(CLIENT, SIZE_MAX);
        n = stream_read(ends[SERVER], (char[1]){0}, 1);
    }
    assert_int_equal(n, -EPROTO);
    gnutls_deinit(session);
}

/* ---- much data, deadlines, exporters ---- */

static void test_much_data_passes_a_small_socket(void **state)
{
    size_t len = 1 << 20, sent = 0, got = 0;
    g_autofree uint8_t *data = g_malloc(len), *back = g_malloc(len);
    (void)state;
    for (size_t i = 0; i < len; i++)
        data[i] = (uint8_t)(i * 7 + i / 251);
    connect_both();
    while (got < len) {
        ssize_t n = sent < len ? stream_write(ends[CLIENT], data + sent, len - sent) : 0;
        assert_true(n >= 0 || n == -EAGAIN);
        if (n == -EAGAIN)
            assert_int_equal(ends[CLIENT]->wants, POLLOUT);
        sent += n > 0 ? (size_t)n : 0;
        uint8_t bytes[20000];
        ssize_t passed = recv(wire[CLIENT], bytes, sizeof bytes, MSG_DONTWAIT | MSG_PEEK);
        ssize_t took =
            passed > 0 ? send(wire[SERVER], bytes, (size_t)passed, MSG_DONTWAIT | MSG_NOSIGNAL) : 0;
        if (took > 0)
            assert_int_equal(recv(wire[CLIENT], bytes, (size_t)took, MSG_DONTWAIT), took);
        while ((n = stream_read(ends[SERVER], back + got, MIN(len - got, 1000))) > 0)
            got += (size_t)n;
        assert_true(n == -EAGAIN || got == len);
    }
    assert_memory_equal(data, back, len);
}

/* What is decrypted already does not make the socket readable. */
static void test_waiting_sees_what_is_in_the_buffer(void **state)
{
    char byte;
    (void)state;
    connect_both();
    assert_int_equal(stream_wait(ends[SERVER], POLLIN, 0), 0);
    say(CLIENT, "ab");
    pass_on(CLIENT, SIZE_MAX);
    assert_int_equal(stream_wait(ends[SERVER], POLLIN, 0), 1);
    assert_int_equal(stream_read(ends[SERVER], &byte, 1), 1);
    assert_int_equal(stream_wait(ends[SERVER], POLLIN, 0), 1);
    assert_int_equal(stream_read(ends[SERVER], &byte, 1), 1);
    assert_int_equal(stream_wait(ends[SERVER], POLLIN, 0), 0);
}

static void test_a_silent_server_is_given_up(void **state)
{
    gint64 before_us = g_get_monotonic_time();
    (void)state;
    assert_int_equal(stream_handshake_until(ends[CLIENT], before_us + 50000), -ETIMEDOUT);
    assert_true(g_get_monotonic_time() - before_us >= 50000);
}

static void test_both_ends_and_nobody_else_export_the_same_secret(void **state)
{
    uint8_t server[32], client[32], before[32] = {0};
    (void)state;
    assert_false(tls_stream_exporter(ends[CLIENT], "EXPORTER-test", client, sizeof client));
    for (int i = 0; i < 2; i++) {
        tear_down(NULL);
        set_up(NULL);
        connect_both();
        assert_true(tls_stream_exporter(ends[CLIENT], "EXPORTER-test", client, sizeof client));
        assert_true(tls_stream_exporter(ends[SERVER], "EXPORTER-test", server, sizeof server));
        assert_memory_equal(client, server, sizeof client);
        assert_memory_not_equal(client, before, sizeof client);
        memcpy(before, client, sizeof before);
        assert_true(tls_stream_exporter(ends[SERVER], "EXPORTER-other", server, sizeof server));
        assert_memory_not_equal(client, server, sizeof client);
    }
}

static void test_a_plain_stream_has_no_secret(void **state)
{
    uint8_t out[32];
    (void)state;
    assert_int_equal(stream_handshake(STREAM_FD(wire[CLIENT])), 1);
    assert_int_equal(stream_read(STREAM_FD(wire[CLIENT]), out, 1), -EAGAIN);
}

static int group_set_up(void **state)
{
    (void)state;
    dir = folder_new();
    for (int side = 0; side < 2; side++) {
        g_autofree char *own = g_strdup_printf("%s/%d", dir, side);
        keys[side] = host_key_open(own, NULL);
        if (!keys[side])
            return -1;
    }
    return 0;
}

static int group_tear_down(void **state)
{
    (void)state;
    host_key_free(keys[SERVER]);
    host_key_free(keys[CLIENT]);
    folder_free(dir);
    return 0;
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_both_ends_learn_the_other_s_key_and_talk),
        TEST(test_nothing_is_on_the_wire_in_the_clear),
        TEST(test_one_byte_at_a_time_is_enough),
        TEST(test_a_client_s_key_that_is_refused_is_told_to_it),
        TEST(test_a_refusal_is_told_also_to_a_client_that_writes_first),
        TEST(test_a_server_s_key_that_is_refused_ends_the_handshake),
        TEST(test_an_end_and_a_cut_are_not_the_same),
        TEST(test_an_end_in_order_is_an_end),
        TEST(test_a_connection_that_says_nothing_and_ends_is_no_fault),
        TEST(test_a_handshake_that_is_cut_anywhere_fails),
        TEST(test_a_part_of_a_record_with_the_end_behind_it_is_a_cut),
        TEST(test_a_flipped_bit_anywhere_in_the_handshake_is_found),
        TEST(test_a_flipped_bit_in_a_message_is_found),
        TEST(test_a_record_that_is_sent_twice_is_found),
        TEST(test_garbage_is_refused),
        TEST(test_an_oversized_handshake_is_refused_early),
        TEST(test_a_client_without_a_key_and_one_of_tls_1_2_are_refused),
        TEST(test_a_flood_of_key_updates_ends_the_connection),
        TEST(test_much_data_passes_a_small_socket),
        TEST(test_waiting_sees_what_is_in_the_buffer),
        TEST(test_a_silent_server_is_given_up),
        TEST(test_both_ends_and_nobody_else_export_the_same_secret),
        TEST(test_a_plain_stream_has_no_secret),
    };
    return cmocka_run_group_tests(tests, group_set_up, group_tear_down);
}
