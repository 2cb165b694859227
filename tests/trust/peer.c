/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A host of the test's own, for scripts. Its key is in DIR; it accepts every key.
 *
 *   understudy-test-peer DIR key                         prints its public key
 *   understudy-test-peer DIR serve ADDRESS PORT FILE     answers each caller's request with the file's bytes
 *   understudy-test-peer DIR ask ADDRESS PORT REQUEST    sends a request, and prints what becomes of it
 *   understudy-test-peer DIR crowd ADDRESS PORT N KIND   holds N connections of that kind until it is killed:
 *                                                        idle, slow, garbage, envelope, handshake
 *
 * REQUEST is the name of a message in control.proto. A closed connection of a crowd is replaced.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/stream.h"
#include "daemon/trust/tls.h"
#include "proto/framing.h"

#define WAIT_US   (10 * G_USEC_PER_SEC)
#define WAIT_MS   10000
#define TICK_MS   1000
#define CROWD_MAX 4096

static char *accept_all(const uint8_t *key, void *opaque)
{
    (void)key;
    (void)opaque;
    return NULL;
}

static const struct tls_owner owner = {.refuses = accept_all};
static struct sockaddr_in address;

static int die(const char *what)
{
    fprintf(stderr, "understudy-test-peer: %s: %s\n", what, strerror(errno));
    return 2;
}

static int connect_there(int flags)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0 && errno != EINPROGRESS) {
        close(fd);
        return -1;
    }
    return fd;
}

/* ---- serve ---- */

static int serve(const struct host_key *key, const char *file)
{
    g_autofree char *bytes = NULL;
    gsize len = 0;
    int yes = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (!g_file_get_contents(file, &bytes, &len, NULL) ||
        bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 16) < 0)
        return die(file);
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0)
            return die("accept");
        struct stream *stream = tls_stream_new(fd, TLS_ACCEPTS, key, &owner);
        Understudy__Envelope *request = stream_handshake_until(stream, g_get_monotonic_time() + WAIT_US) == 0
                                            ? framing_read(stream, WAIT_MS, NULL)
                                            : NULL;
        if (request) {
            stream_write(stream, bytes, len);
            understudy__envelope__free_unpacked(request, NULL);
        }
        stream_close(stream);
    }
}

/* ---- ask ---- */

/* Makes an envelope with an empty message of that name, or with what makes a request whole. */
static bool make_request(const char *name, GByteArray *packed)
{
    const ProtobufCMessageDescriptor *envelope = &understudy__envelope__descriptor;
    static char *argv[] = {(char *)"/bin/sh", (char *)"-m", (char *)"64"};
    static uint8_t token[16] = {1};
    Understudy__Protection protection = UNDERSTUDY__PROTECTION__INIT;
    Understudy__PrepareStandby prepare = UNDERSTUDY__PREPARE_STANDBY__INIT;
    protection.vm = (char *)"evil";
    protection.qemu_argv = argv;
    protection.n_qemu_argv = G_N_ELEMENTS(argv);
    protection.token.data = token;
    protection.token.len = sizeof token;
    protection.term = 2;
    prepare.protection = &protection;
    Understudy__Envelope whole = UNDERSTUDY_ENVELOPE(PREPARE_STANDBY, prepare_standby, &prepare);
    const ProtobufCFieldDescriptor *field = protobuf_c_message_descriptor_get_field_by_name(envelope, name);
    if (!field)
        return false;
    if (strcmp(name, "prepare_standby") == 0) {
        g_byte_array_set_size(packed, (guint)understudy__envelope__get_packed_size(&whole));
        understudy__envelope__pack(&whole, packed->data);
    } else { /* the field's tag, with a message of no bytes */
        uint32_t tag = field->id << 3 | PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED;
        uint8_t bytes[4];
        unsigned n = 0;
        for (; tag >= 0x80; tag >>= 7)
            bytes[n++] = (uint8_t)(tag | 0x80);
        bytes[n++] = (uint8_t)tag;
        bytes[n++] = 0;
        g_byte_array_append(packed, bytes, n);
    }
    return true;
}

static int ask(const struct host_key *key, const char *name)
{
    g_autoptr(GByteArray) packed = g_byte_array_new();
    g_autoptr(GError) error = NULL;
    if (!make_request(name, packed)) {
        fprintf(stderr, "understudy-test-peer: there is no message %s\n", name);
        return 2;
    }
    int fd = connect_there(0);
    if (fd < 0) {
        printf("not connected\n");
        return 1;
    }
    struct stream *stream = tls_stream_new(fd, TLS_CALLS, key, &owner);
    guint32 head = GUINT32_TO_LE(packed->len);
    g_byte_array_prepend(packed, (const guint8 *)&head, sizeof head);
    int status = stream_handshake_until(stream, g_get_monotonic_time() + WAIT_US);
    Understudy__Envelope *answer = NULL;
    if (status == 0) {
        stream_write(stream, packed->data, packed->len);
        answer = framing_read(stream, WAIT_MS, &error);
    }
    bool yes = answer && !(answer->body_case == UNDERSTUDY__ENVELOPE__BODY_ANSWER && !answer->answer->ok);
    if (answer && !yes)
        printf("refused: %s\n", answer->answer->message);
    else if (answer)
        printf("answered: message %d\n", (int)answer->body_case);
    else
        printf("dropped: %s\n", stream->why ? stream->why : error ? error->message : "closed");
    if (answer)
        understudy__envelope__free_unpacked(answer, NULL);
    stream_close(stream);
    return yes ? 0 : 1;
}

/* ---- crowd ---- */

enum kind { IDLE, SLOW, GARBAGE, ENVELOPE, HANDSHAKE, NKINDS };
static const char *const kinds[NKINDS] = {"idle", "slow", "garbage", "envelope", "handshake"};

struct member {
    int fd;
    size_t sent;
};

/* Sends the next bytes of this kind. */
static void bother(struct member *member, enum kind kind)
{
    /* The head of a ClientHello of 16 KiB, which never comes to its end; and a message of 1 MiB. */
    static const uint8_t hello[] = {22, 3, 1, 0x3f, 0xff, 1, 0, 0x3f, 0xfb, 3, 3};
    uint8_t bytes[4096];
    size_t len = sizeof bytes;
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = kind == GARBAGE ? (uint8_t)g_random_int() : 0;
    if (kind == ENVELOPE && member->sent == 0)
        bytes[2] = 0x10;
    if (kind == SLOW || kind == HANDSHAKE) {
        if (member->sent < sizeof hello)
            memcpy(bytes, hello + member->sent, sizeof hello - member->sent);
        len = kind == SLOW ? 1 : sizeof bytes;
    }
    ssize_t n = send(member->fd, bytes, len, MSG_DONTWAIT | MSG_NOSIGNAL);
    member->sent += n > 0 ? (size_t)n : 0;
}

G_NORETURN static void crowd(unsigned n, enum kind kind)
{
    g_autofree struct member *members = g_new0(struct member, n);
    g_autofree struct pollfd *fds = g_new0(struct pollfd, n);
    for (unsigned i = 0; i < n; i++)
        members[i].fd = -1;
    for (bool told = false;; told = true) {
        for (unsigned i = 0; i < n; i++) {
            if (members[i].fd < 0) {
                members[i] = (struct member){.fd = connect_there(SOCK_NONBLOCK)};
            } else if (kind != IDLE) {
                bother(&members[i], kind);
            }
            fds[i] = (struct pollfd){.fd = members[i].fd, .events = POLLRDHUP};
        }
        if (!told)
            puts("here");
        fflush(stdout);
        gint64 until_us = g_get_monotonic_time() + TICK_MS * 1000;
        do {
            gint64 left_us = until_us - g_get_monotonic_time();
            if (left_us <= 0 || poll(fds, n, (int)(left_us / 1000) + 1) <= 0)
                break;
            for (unsigned i = 0; i < n; i++) {
                if (!fds[i].revents)
                    continue;
                close(members[i].fd);
                members[i].fd = fds[i].fd = -1;
            }
        } while (true);
    }
}

int main(int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    struct host_key *key = argc > 2 ? host_key_open(argv[1], &error) : NULL;
    signal(SIGPIPE, SIG_IGN);
    if (!key) {
        fprintf(stderr, "understudy-test-peer: %s\n",
                error ? error->message : "DIR and what to do are wanted");
        return 2;
    }
    const char *what = argv[2];
    if (strcmp(what, "key") == 0) {
        g_autofree char *text = key_text(host_key_public(key));
        puts(text);
        return 0;
    }
    if (argc < 6)
        return die("words are missing");
    address = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[4]))};
    if (inet_pton(AF_INET, argv[3], &address.sin_addr) != 1)
        return die(argv[3]);
    if (strcmp(what, "serve") == 0)
        return serve(key, argv[5]);
    if (strcmp(what, "ask") == 0)
        return ask(key, argv[5]);
    enum kind kind = 0;
    while (argc == 7 && kind < NKINDS && strcmp(kinds[kind], argv[6]) != 0)
        kind++;
    unsigned n = (unsigned)atoi(argv[5]);
    if (strcmp(what, "crowd") != 0 || argc != 7 || kind == NKINDS || n == 0 || n > CROWD_MAX)
        return die("what to do was not understood");
    crowd(n, kind);
}
