#!/usr/bin/env bash
# GnuTLS: a connection that ends in the middle of a record is reported as GNUTLS_E_AGAIN first, and then as a decoding error.
#
# Guess:     on a non-blocking socket GNUTLS_E_AGAIN means that recv said EAGAIN: wait until the socket is readable. A
#            connection that ends without close_notify is GNUTLS_E_PREMATURE_TERMINATION (-110), wherever it ends.
# Behaviour: where recv returns 0 inside a record, gnutls_handshake and gnutls_record_recv return GNUTLS_E_AGAIN (-28),
#            although recv never said EAGAIN. Only the next call returns an error, which is
#            GNUTLS_E_UNEXPECTED_PACKET_LENGTH (-9). -110 comes only for an end between two records, or inside the five
#            bytes of a record's head (there too after one GNUTLS_E_AGAIN).
# Version:   GnuTLS 3.7.9 (Debian 12, libgnutls30 and libgnutls28-dev 3.7.9-2+deb12u7).
# Matters:   an event loop that is told of changes only (EPOLLET, or a level that is waited for by hand) never calls again:
#            the connection stays until its own time limit. And who tells a cut from garbage by the error gets it wrong.
#            The transport function sees the end: note it there.
#
# Exit status: 0 as described; 1 it behaves otherwise now; 77 the packages cannot be had here.
set -euo pipefail
# shellcheck source=findings/lib.bash
. "$(dirname "$0")/lib.bash"

version=3.7.9-2+deb12u7
unpack libgnutls30=$version libgnutls28-dev=$version
cat >"$work/eof.c" <<'C'
#include <errno.h>
#include <gnutls/gnutls.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

static const char priorities[] = "NORMAL:+ANON-ECDH:-VERS-TLS1.3";
static int nagain, nends; /* what recv has said */

static ssize_t pull(gnutls_transport_ptr_t fd, void *data, size_t len)
{
    ssize_t n = recv((int)(long)fd, data, len, MSG_DONTWAIT);
    nagain += n < 0 && errno == EAGAIN;
    nends += n == 0;
    return n;
}

static gnutls_session_t open_session(unsigned side, int fd)
{
    gnutls_session_t session;
    gnutls_init(&session, side | GNUTLS_NONBLOCK);
    gnutls_priority_set_direct(session, priorities, NULL);
    gnutls_transport_set_int(session, fd);
    gnutls_transport_set_ptr2(session, (void *)(long)fd, (void *)(long)fd);
    gnutls_transport_set_pull_function(session, pull);
    return session;
}

int main(void)
{
    static const unsigned char hello[] = {22, 3, 1, 1, 0, 1, 0, 0, 0xfc, 3, 3};
    static const int lens[] = {0, 3, 8};
    gnutls_anon_server_credentials_t server;
    gnutls_anon_client_credentials_t client;
    int ends[2], status[2] = {GNUTLS_E_AGAIN, GNUTLS_E_AGAIN};
    char bytes[256];
    printf("GnuTLS %s\n", gnutls_check_version(NULL));
    gnutls_anon_allocate_server_credentials(&server);
    gnutls_anon_allocate_client_credentials(&client);
    for (int i = 0; i < 3; i++) {
        socketpair(AF_UNIX, SOCK_STREAM, 0, ends);
        gnutls_session_t session = open_session(GNUTLS_SERVER, ends[0]);
        gnutls_credentials_set(session, GNUTLS_CRD_ANON, server);
        if (lens[i] && send(ends[1], hello, lens[i], 0) != lens[i])
            return 1;
        close(ends[1]);
        nagain = nends = 0;
        int first = gnutls_handshake(session);
        printf("handshake cut after %d bytes: %d (recv: EAGAIN %d times, end %d times)", lens[i], first, nagain, nends);
        if (first == GNUTLS_E_AGAIN)
            printf(", then %d", gnutls_handshake(session));
        printf("\n");
    }
    socketpair(AF_UNIX, SOCK_STREAM, 0, ends);
    gnutls_session_t from = open_session(GNUTLS_CLIENT, ends[1]), to = open_session(GNUTLS_SERVER, ends[0]);
    gnutls_credentials_set(from, GNUTLS_CRD_ANON, client);
    gnutls_credentials_set(to, GNUTLS_CRD_ANON, server);
    for (int i = 0; i < 20 && (status[0] || status[1]); i++) {
        status[1] = status[1] ? gnutls_handshake(from) : 0;
        status[0] = status[0] ? gnutls_handshake(to) : 0;
    }
    if (status[0] || status[1])
        return 1;
    /* Takes a record off the wire, and passes all of it on but the last byte. */
    gnutls_record_send(from, "0123456789", 10);
    ssize_t len = recv(ends[0], bytes, sizeof bytes, MSG_DONTWAIT);
    if (len < 6 || send(ends[1], bytes, len - 1, 0) != len - 1)
        return 1;
    close(ends[1]);
    nagain = nends = 0;
    printf("record cut before its last byte: %d", (int)gnutls_record_recv(to, bytes, sizeof bytes));
    printf(" (recv: EAGAIN %d times, end %d times)", nagain, nends);
    printf(", then %d\n", (int)gnutls_record_recv(to, bytes, sizeof bytes));
    return 0;
}
C
cc -I"$work/root/usr/include" -I"$work/root/usr/include/$(basename "$LD_LIBRARY_PATH")" -o "$work/eof" "$work/eof.c" \
    -L"$LD_LIBRARY_PATH" -l:libgnutls.so.30 -Wl,--allow-shlib-undefined
output=$("$work/eof")
echo "$output"
grep -q '^handshake cut after 0 bytes: -110 (recv: EAGAIN 0 times, end 1 times)$' <<<"$output" || changed "an end between records"
grep -q '^handshake cut after 3 bytes: -28 (recv: EAGAIN 0 times, end 1 times), then -110$' <<<"$output" ||
    changed "an end in a record's head"
grep -q '^handshake cut after 8 bytes: -28 (recv: EAGAIN 0 times, end 1 times), then -9$' <<<"$output" ||
    changed "an end in a record of the handshake"
grep -q '^record cut before its last byte: -28 (recv: EAGAIN 0 times, end 1 times), then -9$' <<<"$output" ||
    changed "an end in a record"
echo "GnuTLS 3.7.9: an end in the middle of a record is GNUTLS_E_AGAIN, then GNUTLS_E_UNEXPECTED_PACKET_LENGTH"
