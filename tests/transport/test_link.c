/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The link thread over real sockets: a stranger at the port, or a peer that says nothing, keeps the two
 * replicators of a VM apart for a short time at most, and a stranger is told nothing. Most tests run twice:
 * with links that are not sealed, and with sealed ones.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <glib-unix.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "replicator/note.h"
#include "replicator/transport/connection.h"
#include "replicator/transport/epoch_parts.h"
#include "replicator/transport/link.h"
#include "replicator/transport/tcp.h"

#define PATIENT_MS 30000
#define STALL_MS   10000
#define CAPACITY   64u

/* Of the sides that are opened from now on. */
static struct link_security security = {.secret = {9, 8, 7}};

struct side {
    struct staging *staging;
    struct mailbox control;
    struct endpoint *endpoint;
    struct link *link;
    struct wire_hello hello;
    uint16_t port; /* listens here */
};

static struct wire_hello hello_of(enum wire_role role)
{
    struct wire_hello hello = {.token = {1, 2, 3}, .term = 7, .role = role, .nblocks = 1};
    strcpy(hello.blocks[0].idstr, "pc.ram");
    hello.blocks[0].max_len = 1u << 20;
    return hello;
}

static void open_side(struct side *side, enum wire_role role)
{
    int fd = -1;
    *side = (struct side){.hello = hello_of(role)};
    assert_int_equal(staging_open(&side->staging, CAPACITY, 4096), 0);
    assert_int_equal(mailbox_open(&side->control), 0);
    if (role == WIRE_ROLE_SECONDARY) {
        fd = transport_tcp_listen("127.0.0.1", &side->port, NULL);
        assert_true(fd >= 0);
    }
    side->endpoint = endpoint_tcp_new(fd, STALL_MS);
    side->link = link_new(&side->control, side->staging, &side->endpoint, 1, NULL);
    assert_non_null(side->link);
    link_set_security(side->link, &security);
}

static void drop_note(struct note *note)
{
    connection_put(note->connection);
    g_free(note);
}

static void close_side(struct side *side)
{
    struct note *note;
    link_free(side->link);
    while ((note = note_take(&side->control)))
        drop_note(note);
    endpoint_free(side->endpoint);
    mailbox_close(&side->control);
    staging_close(side->staging);
}

static void dial_port(struct side *side, uint16_t port)
{
    char text[8];
    g_snprintf(text, sizeof text, "%u", port);
    link_set_peer(side->link, "127.0.0.1", text);
}

/* The next note within the time, or NULL. */
static struct note *next_note(struct side *side, unsigned timeout_ms)
{
    gint64 end = g_get_monotonic_time() + (gint64)timeout_ms * 1000;
    struct note *note = note_take(&side->control);
    while (!note && g_get_monotonic_time() < end) {
        mailbox_wait(&side->control, 100);
        note = note_take(&side->control);
    }
    return note;
}

/* Waits for one kind of note, past refusals. The others are a failure. */
static struct note *await_note(struct side *side, enum note_kind kind)
{
    for (;;) {
        struct note *note = next_note(side, PATIENT_MS);
        assert_non_null(note);
        if (note->letter.kind == (int)kind)
            return note;
        assert_int_equal(note->letter.kind, NOTE_LINK_REFUSED);
        drop_note(note);
    }
}

static void await_refusal(struct side *side, const char *words)
{
    struct note *note = await_note(side, NOTE_LINK_REFUSED);
    assert_non_null(strstr((const char *)note->payload, words));
    drop_note(note);
}

static void await_up(struct side *side, enum wire_role peer)
{
    struct note *note = await_note(side, NOTE_LINK_UP);
    assert_int_equal(note->arg, peer);
    assert_true((note->connection->cipher != SEAL_NO_CIPHER) == security.sealed);
    drop_note(note);
}

static int connect_to(uint16_t port)
{
    char text[8];
    int fd = -1;
    g_snprintf(text, sizeof text, "%u", port);
    assert_int_equal(transport_tcp_connect("127.0.0.1", text, PATIENT_MS, &fd, NULL), 0);
    return fd;
}

/* Bytes that come before the other side closes. */
static size_t read_to_end(int fd)
{
    size_t total = 0;
    for (;;) {
        uint8_t bytes[256];
        struct pollfd pfd = {.fd = fd, .events = POLLIN};
        assert_int_equal(poll(&pfd, 1, PATIENT_MS), 1);
        ssize_t n = read(fd, bytes, sizeof bytes);
        if (n <= 0)
            return total;
        total += (size_t)n;
    }
}

/* A listening socket that says nothing, and waits until somebody has come to it. */
static int silent_peer(uint16_t *port)
{
    *port = 0;
    int fd = transport_tcp_listen("127.0.0.1", port, NULL);
    assert_true(fd >= 0);
    return fd;
}

static int await_caller(int listen_fd)
{
    struct pollfd pfd = {.fd = listen_fd, .events = POLLIN};
    assert_int_equal(poll(&pfd, 1, PATIENT_MS), 1);
    int fd = accept(listen_fd, NULL, NULL);
    assert_true(fd >= 0);
    return fd;
}

static void test_the_two_sides_meet(void **state)
{
    (void)state;
    struct side primary, standby;
    open_side(&primary, WIRE_ROLE_PRIMARY);
    open_side(&standby, WIRE_ROLE_SECONDARY);
    link_open(standby.link, &standby.hello);
    dial_port(&primary, standby.port);
    link_open(primary.link, &primary.hello);
    await_up(&primary, WIRE_ROLE_SECONDARY);
    await_up(&standby, WIRE_ROLE_PRIMARY);
    link_close(primary.link, true);
    drop_note(await_note(&primary, NOTE_LINK_DOWN));
    drop_note(await_note(&standby, NOTE_LINK_DOWN));
    close_side(&primary);
    close_side(&standby);
}

static void test_silent_connections_do_not_keep_the_primary_out(void **state)
{
    (void)state;
    struct side primary, standby;
    int strangers[3 * LINK_MAX_PENDING];
    open_side(&primary, WIRE_ROLE_PRIMARY);
    open_side(&standby, WIRE_ROLE_SECONDARY);
    link_open(standby.link, &standby.hello);
    for (unsigned i = 0; i < G_N_ELEMENTS(strangers); i++)
        strangers[i] = connect_to(standby.port);
    dial_port(&primary, standby.port);
    link_open(primary.link, &primary.hello);
    await_up(&primary, WIRE_ROLE_SECONDARY);
    await_up(&standby, WIRE_ROLE_PRIMARY);
    for (unsigned i = 0; i < G_N_ELEMENTS(strangers); i++) { /* nobody keeps his place */
        assert_int_equal(read_to_end(strangers[i]), 0);
        close(strangers[i]);
    }
    close_side(&primary);
    close_side(&standby);
}

struct flood {
    uint16_t port;
    _Atomic bool stop;
    _Atomic unsigned connections;
};

static void *flood_run(void *opaque)
{
    struct flood *flood = opaque;
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(flood->port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fds[64];
    unsigned n = 0;
    memset(fds, -1, sizeof fds);
    while (!flood->stop) {
        int *fd = &fds[n++ % G_N_ELEMENTS(fds)];
        if (*fd >= 0)
            close(*fd);
        *fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        struct pollfd pfd = {.fd = *fd, .events = POLLOUT};
        if (*fd >= 0 &&
            (connect(*fd, (struct sockaddr *)&address, sizeof address) == 0 || errno == EINPROGRESS) &&
            poll(&pfd, 1, 100) > 0)
            flood->connections++;
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(fds); i++)
        if (fds[i] >= 0)
            close(fds[i]);
    return NULL;
}

static void test_a_stranger_that_connects_without_end_does_not_keep_the_primary_out(void **state)
{
    (void)state;
    struct side primary, standby;
    struct flood flood = {0};
    pthread_t thread;
    open_side(&primary, WIRE_ROLE_PRIMARY);
    open_side(&standby, WIRE_ROLE_SECONDARY);
    link_open(standby.link, &standby.hello);
    flood.port = standby.port;
    assert_int_equal(pthread_create(&thread, NULL, flood_run, &flood), 0);
    while (flood.connections < 4 * LINK_MAX_PENDING)
        g_usleep(1000);
    dial_port(&primary, standby.port);
    link_open(primary.link, &primary.hello);
    await_up(&primary, WIRE_ROLE_SECONDARY);
    await_up(&standby, WIRE_ROLE_PRIMARY);
    flood.stop = true;
    pthread_join(thread, NULL);
    close_side(&primary);
    close_side(&standby);
}

static void test_a_stranger_is_told_nothing_and_closed_in_time(void **state)
{
    (void)state;
    struct side standby;
    open_side(&standby, WIRE_ROLE_SECONDARY);
    link_open(standby.link, &standby.hello);
    int fd = connect_to(standby.port);
    gint64 began = g_get_monotonic_time();
    assert_int_equal(read_to_end(fd), 0);
    assert_true(g_get_monotonic_time() - began >= (gint64)LINK_HELLO_MS * 900);
    close(fd);
    close_side(&standby);
}

/* Says a HELLO over a connection to the port, and returns how many bytes come back before its end. */
static size_t bytes_for(uint16_t port, const struct wire_hello *hello)
{
    uint8_t bytes[WIRE_HELLO_MAX_LEN];
    int fd = connect_to(port), copy = dup(fd);
    struct transport *transport = transport_tcp_new(fd, STALL_MS);
    int len = wire_hello_encode(hello, bytes, sizeof bytes);
    struct transport_message message = {.type = MESSAGE_HELLO, .len = (size_t)len, .payload = bytes};
    assert_int_equal(transport->ops->send_message(transport, &message), 0);
    size_t got = read_to_end(copy);
    transport->ops->free(transport);
    close(copy);
    return got;
}

static void test_a_wrong_token_is_told_nothing_and_fills_no_log(void **state)
{
    (void)state;
    struct side standby;
    struct wire_hello wrong = hello_of(WIRE_ROLE_PRIMARY);
    wrong.token[0] ^= 1;
    open_side(&standby, WIRE_ROLE_SECONDARY);
    link_open(standby.link, &standby.hello);
    gint64 began = g_get_monotonic_time();
    for (unsigned i = 0; i < 100; i++)
        assert_int_equal(bytes_for(standby.port, &wrong), 0);
    gint64 allowed = (g_get_monotonic_time() - began) / 500000 + 1, refusals = 0;
    struct note *note;
    while ((note = next_note(&standby, 0))) {
        assert_int_equal(note->letter.kind, NOTE_LINK_REFUSED);
        assert_int_equal(note->status, -EACCES);
        drop_note(note);
        refusals++;
    }
    assert_true(refusals >= 1 && refusals <= allowed);
    close_side(&standby);
}

/* A standby that is not ready yet has a queue of those who gave up meanwhile. */
static void test_a_peer_that_gave_up_before_it_was_accepted_is_passed_over(void **state)
{
    (void)state;
    struct side primary, standby;
    struct wire_hello hello = hello_of(WIRE_ROLE_PRIMARY);
    uint8_t bytes[WIRE_HELLO_MAX_LEN];
    open_side(&primary, WIRE_ROLE_PRIMARY);
    open_side(&standby, WIRE_ROLE_SECONDARY);
    int len = wire_hello_encode(&hello, bytes, sizeof bytes);
    struct transport_message message = {.type = MESSAGE_HELLO, .len = (size_t)len, .payload = bytes};
    for (unsigned i = 0; i < 3; i++) {
        struct transport *gone = transport_tcp_new(connect_to(standby.port), STALL_MS);
        assert_int_equal(gone->ops->send_message(gone, &message), 0);
        gone->ops->free(gone);
    }
    dial_port(&primary, standby.port);
    link_open(primary.link, &primary.hello);
    link_open(standby.link, &standby.hello);
    await_up(&primary, WIRE_ROLE_SECONDARY);
    await_up(&standby, WIRE_ROLE_PRIMARY);
    assert_null(next_note(&standby, 0)); /* the first that was up stays up */
    close_side(&primary);
    close_side(&standby);
}

static void test_a_peer_that_moves_is_followed_while_the_old_address_is_silent(void **state)
{
    (void)state;
    struct side primary, standby;
    uint16_t port;
    int silent = silent_peer(&port);
    open_side(&primary, WIRE_ROLE_PRIMARY);
    open_side(&standby, WIRE_ROLE_SECONDARY);
    link_open(standby.link, &standby.hello);
    dial_port(&primary, port);
    link_open(primary.link, &primary.hello);
    int fd = await_caller(silent); /* it waits for HELLO from now on */
    dial_port(&primary, standby.port);
    struct note *note = next_note(&primary, PATIENT_MS); /* no refusal: it was not waited for */
    assert_non_null(note);
    assert_int_equal(note->letter.kind, NOTE_LINK_UP);
    drop_note(note);
    await_up(&standby, WIRE_ROLE_PRIMARY);
    close(fd);
    close(silent);
    close_side(&primary);
    close_side(&standby);
}

static void test_a_peer_that_moves_is_followed_while_the_old_address_takes_no_connections(void **state)
{
    (void)state;
    struct side primary, standby;
    uint16_t port;
    int full = silent_peer(&port), waiting[64];
    for (unsigned i = 0; i < G_N_ELEMENTS(waiting); i++) { /* from some on, the kernel drops what comes */
        struct sockaddr_in address = {
            .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        waiting[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        assert_true(connect(waiting[i], (struct sockaddr *)&address, sizeof address) == 0 ||
                    errno == EINPROGRESS);
    }
    open_side(&primary, WIRE_ROLE_PRIMARY);
    open_side(&standby, WIRE_ROLE_SECONDARY);
    link_open(standby.link, &standby.hello);
    dial_port(&primary, port);
    link_open(primary.link, &primary.hello);
    assert_null(next_note(&primary, 50));
    dial_port(&primary, standby.port);
    await_up(&primary, WIRE_ROLE_SECONDARY);
    await_up(&standby, WIRE_ROLE_PRIMARY);
    for (unsigned i = 0; i < G_N_ELEMENTS(waiting); i++)
        close(waiting[i]);
    close(full);
    close_side(&primary);
    close_side(&standby);
}

static void test_a_silent_peer_is_left_in_time_with_a_sentence_and_tried_again(void **state)
{
    (void)state;
    struct side primary;
    uint16_t port;
    int silent = silent_peer(&port);
    open_side(&primary, WIRE_ROLE_PRIMARY);
    dial_port(&primary, port);
    link_open(primary.link, &primary.hello);
    int fd = await_caller(silent);
    assert_true(read_to_end(fd) > 0); /* the side that dials introduces itself, and then leaves */
    close(fd);
    await_refusal(&primary, "sends nothing");
    close(await_caller(silent));
    close(silent);
    close_side(&primary);
}

static void test_a_link_ends_while_it_waits_for_hello(void **state)
{
    (void)state;
    struct side primary, standby;
    uint16_t port;
    int silent = silent_peer(&port);
    open_side(&primary, WIRE_ROLE_PRIMARY);
    open_side(&standby, WIRE_ROLE_SECONDARY);
    link_open(standby.link, &standby.hello);
    dial_port(&primary, port);
    link_open(primary.link, &primary.hello);
    int caller = await_caller(silent), stranger = connect_to(standby.port);
    close_side(&primary);
    close_side(&standby);
    assert_int_equal(read_to_end(stranger), 0);
    close(caller);
    close(stranger);
    close(silent);
}

static void test_other_ram_blocks_are_told_on_both_sides(void **state)
{
    (void)state;
    struct side primary, standby;
    open_side(&primary, WIRE_ROLE_PRIMARY);
    open_side(&standby, WIRE_ROLE_SECONDARY);
    primary.hello.blocks[0].max_len *= 2;
    link_open(standby.link, &standby.hello);
    dial_port(&primary, standby.port);
    link_open(primary.link, &primary.hello);
    await_refusal(&primary, "other RAM blocks");
    await_refusal(&standby, "other RAM blocks");
    close_side(&primary);
    close_side(&standby);
}

static void test_another_version_is_told_on_both_sides(void **state)
{
    (void)state;
    struct side standby;
    uint8_t head[WIRE_HEADER_LEN], answer[WIRE_HEADER_LEN];
    struct wire_header header = {.type = MESSAGE_HELLO}, read_back;
    open_side(&standby, WIRE_ROLE_SECONDARY);
    link_open(standby.link, &standby.hello);
    int fd = connect_to(standby.port);
    wire_header_encode(&header, head);
    head[4]++; /* its version */
    assert_int_equal(wire_header_decode(&read_back, head), -EPROTONOSUPPORT);
    assert_int_equal(write(fd, head, sizeof head), sizeof head);
    await_refusal(&standby, "another protocol version");
    /* A header, which shows our version, and no more. */
    assert_int_equal(recv(fd, answer, sizeof answer, MSG_WAITALL), sizeof answer);
    assert_int_equal(wire_header_decode(&read_back, answer), 0);
    assert_int_equal(read_back.payload_len, 0);
    assert_int_equal(read_to_end(fd), 0);
    close(fd);
    close_side(&standby);
}

/* ---- sealed links only ---- */

static void send_proof(int fd, enum message_type type, const uint8_t *bytes)
{
    uint8_t whole[WIRE_HEADER_LEN + SEAL_HANDSHAKE_LEN];
    const struct transport_message message = {.type = type, .len = SEAL_HANDSHAKE_LEN, .payload = bytes};
    assert_int_equal(message_encode_header(&message, false, whole), 0);
    memcpy(whole + WIRE_HEADER_LEN, bytes, SEAL_HANDSHAKE_LEN);
    assert_int_equal(write(fd, whole, sizeof whole), sizeof whole);
}

static void read_proof(int fd, enum message_type type, uint8_t bytes[SEAL_HANDSHAKE_LEN])
{
    uint8_t head[WIRE_HEADER_LEN];
    struct wire_header header;
    assert_true(g_unix_set_fd_nonblocking(fd, FALSE, NULL));
    assert_int_equal(recv(fd, head, sizeof head, MSG_WAITALL), sizeof head);
    assert_int_equal(wire_header_decode(&header, head), 0);
    assert_int_equal(header.type, type);
    assert_int_equal(header.payload_len, SEAL_HANDSHAKE_LEN);
    assert_int_equal(recv(fd, bytes, SEAL_HANDSHAKE_LEN, MSG_WAITALL), SEAL_HANDSHAKE_LEN);
}

static void test_who_does_not_know_the_secret_is_told_nothing(void **state)
{
    (void)state;
    struct side standby;
    struct seal_meeting meeting;
    uint8_t other[SEAL_SECRET_LEN] = {9, 8, 6};
    open_side(&standby, WIRE_ROLE_SECONDARY);
    link_open(standby.link, &standby.hello);
    int fd = connect_to(standby.port);
    assert_int_equal(seal_opening_make(&meeting, other, WIRE_ROLE_PRIMARY, seal_ciphers_here()), 0);
    send_proof(fd, MESSAGE_SEAL_OPENING, meeting.opening);
    assert_int_equal(read_to_end(fd), 0);
    await_refusal(&standby, "does not know this VM's secret");
    close(fd);
    close_side(&standby);
}

/* It gets an answer, and cannot go on. */
static void test_who_plays_an_opening_again_does_not_come_in(void **state)
{
    (void)state;
    struct side standby;
    struct seal_meeting meeting;
    uint8_t answer[SEAL_HANDSHAKE_LEN], garbage[WIRE_HEADER_LEN + SEAL_TAG_LEN] = {0};
    open_side(&standby, WIRE_ROLE_SECONDARY);
    link_open(standby.link, &standby.hello);
    assert_int_equal(seal_opening_make(&meeting, security.secret, WIRE_ROLE_PRIMARY, seal_ciphers_here()), 0);
    int fd = connect_to(standby.port);
    send_proof(fd, MESSAGE_SEAL_OPENING, meeting.opening);
    read_proof(fd, MESSAGE_SEAL_ANSWER, answer);
    assert_int_equal(seal_answer_take(&meeting, security.secret, answer, sizeof answer), 0);
    assert_int_equal(write(fd, garbage, sizeof garbage), sizeof garbage);
    assert_int_equal(read_to_end(fd), 0);
    await_refusal(&standby, "plays a recorded one again");
    close(fd);
    close_side(&standby);
}

/* A whole handshake, recorded: its sealed HELLO is not the one for the new nonce. */
static void test_a_recorded_handshake_does_not_come_in(void **state)
{
    (void)state;
    struct side primary, standby;
    uint16_t port;
    uint8_t opening[SEAL_HANDSHAKE_LEN], answer[SEAL_HANDSHAKE_LEN], hello[4096];
    int middle = silent_peer(&port);
    open_side(&primary, WIRE_ROLE_PRIMARY);
    open_side(&standby, WIRE_ROLE_SECONDARY);
    link_open(standby.link, &standby.hello);
    dial_port(&primary, port);
    link_open(primary.link, &primary.hello);
    /* Passes on what the primary says, and keeps it; the standby's HELLO does not get through. */
    int from = await_caller(middle), to = connect_to(standby.port);
    read_proof(from, MESSAGE_SEAL_OPENING, opening);
    send_proof(to, MESSAGE_SEAL_OPENING, opening);
    read_proof(to, MESSAGE_SEAL_ANSWER, answer);
    send_proof(from, MESSAGE_SEAL_ANSWER, answer);
    ssize_t len = read(from, hello, sizeof hello);
    assert_true(len > (ssize_t)WIRE_HEADER_LEN);
    close(from);
    close(to);
    link_close(primary.link, true);
    to = connect_to(standby.port);
    send_proof(to, MESSAGE_SEAL_OPENING, opening);
    read_proof(to, MESSAGE_SEAL_ANSWER, answer);
    assert_int_equal(write(to, hello, (size_t)len), len);
    await_refusal(&standby, "plays a recorded one again");
    assert_int_equal(read_to_end(to), 0);
    close(to);
    close(middle);
    close_side(&primary);
    close_side(&standby);
}

static void test_who_answers_in_the_peers_place_is_not_spoken_to(void **state)
{
    (void)state;
    struct side primary;
    struct seal_meeting meeting = {0};
    uint16_t port;
    uint8_t other[SEAL_SECRET_LEN] = {9, 8, 6};
    int impostor = silent_peer(&port);
    open_side(&primary, WIRE_ROLE_PRIMARY);
    dial_port(&primary, port);
    link_open(primary.link, &primary.hello);
    for (unsigned i = 0; i < 2; i++) { /* one with another secret; one that sends back what it heard */
        int fd = await_caller(impostor);
        read_proof(fd, MESSAGE_SEAL_OPENING, meeting.opening);
        meeting.offered = seal_ciphers_here();
        assert_int_equal(seal_answer_make(&meeting, other, WIRE_ROLE_SECONDARY, seal_ciphers_here()), 0);
        send_proof(fd, MESSAGE_SEAL_ANSWER, i == 0 ? meeting.answer : meeting.opening);
        assert_int_equal(read_to_end(fd), 0);
        close(fd);
        await_refusal(&primary, "does not know this VM's secret");
    }
    close(impostor);
    close_side(&primary);
}

static void test_a_side_that_seals_and_one_that_does_not_say_so(void **state)
{
    (void)state;
    struct side primary, standby;
    open_side(&standby, WIRE_ROLE_SECONDARY);
    security.sealed = false;
    open_side(&primary, WIRE_ROLE_PRIMARY);
    security.sealed = true;
    link_open(standby.link, &standby.hello);
    dial_port(&primary, standby.port);
    link_open(primary.link, &primary.hello);
    await_refusal(&standby, "not sealed");
    close_side(&primary);
    close_side(&standby);
    open_side(&primary, WIRE_ROLE_PRIMARY);
    security.sealed = false;
    open_side(&standby, WIRE_ROLE_SECONDARY);
    security.sealed = true;
    link_open(standby.link, &standby.hello);
    dial_port(&primary, standby.port);
    link_open(primary.link, &primary.hello);
    await_refusal(&standby, "seals its links and this host does not");
    close_side(&primary);
    close_side(&standby);
}

static void test_a_long_message_from_an_unknown_is_refused_before_it_comes(void **state)
{
    (void)state;
    struct side standby;
    uint8_t head[WIRE_HEADER_LEN];
    const struct wire_header header = {.type = MESSAGE_SEAL_OPENING, .payload_len = WIRE_HELLO_MAX_LEN + 1};
    open_side(&standby, WIRE_ROLE_SECONDARY);
    link_open(standby.link, &standby.hello);
    int fd = connect_to(standby.port);
    gint64 began = g_get_monotonic_time();
    wire_header_encode(&header, head);
    assert_int_equal(write(fd, head, sizeof head), sizeof head);
    assert_int_equal(read_to_end(fd), 0); /* though not all of it has come */
    assert_true(g_get_monotonic_time() - began < (gint64)LINK_HELLO_MS * 1000);
    close(fd);
    close_side(&standby);
}

static void test_a_new_secret_is_used_for_the_next_attempt(void **state)
{
    (void)state;
    struct side primary, standby;
    const struct link_security right = {.sealed = true, .secret = {1, 1, 1}};
    open_side(&primary, WIRE_ROLE_PRIMARY);
    open_side(&standby, WIRE_ROLE_SECONDARY);
    link_set_security(standby.link, &right);
    link_open(standby.link, &standby.hello);
    dial_port(&primary, standby.port);
    link_open(primary.link, &primary.hello);
    await_refusal(&standby, "does not know this VM's secret");
    link_set_security(primary.link, &right);
    await_up(&primary, WIRE_ROLE_SECONDARY);
    await_up(&standby, WIRE_ROLE_PRIMARY);
    close_side(&primary);
    close_side(&standby);
}

#define BOTH_KINDS                                                                                           \
    cmocka_unit_test(test_the_two_sides_meet),                                                               \
        cmocka_unit_test(test_silent_connections_do_not_keep_the_primary_out),                               \
        cmocka_unit_test(test_a_stranger_that_connects_without_end_does_not_keep_the_primary_out),           \
        cmocka_unit_test(test_a_stranger_is_told_nothing_and_closed_in_time),                                \
        cmocka_unit_test(test_a_peer_that_gave_up_before_it_was_accepted_is_passed_over),                    \
        cmocka_unit_test(test_a_peer_that_moves_is_followed_while_the_old_address_is_silent),                \
        cmocka_unit_test(test_a_peer_that_moves_is_followed_while_the_old_address_takes_no_connections),     \
        cmocka_unit_test(test_a_silent_peer_is_left_in_time_with_a_sentence_and_tried_again),                \
        cmocka_unit_test(test_a_link_ends_while_it_waits_for_hello),                                         \
        cmocka_unit_test(test_other_ram_blocks_are_told_on_both_sides),                                      \
        cmocka_unit_test(test_another_version_is_told_on_both_sides)

int main(void)
{
    const struct CMUnitTest plain[] = {
        BOTH_KINDS,
        cmocka_unit_test(test_a_wrong_token_is_told_nothing_and_fills_no_log),
    };
    const struct CMUnitTest sealed[] = {
        BOTH_KINDS,
        cmocka_unit_test(test_who_does_not_know_the_secret_is_told_nothing),
        cmocka_unit_test(test_who_plays_an_opening_again_does_not_come_in),
        cmocka_unit_test(test_a_recorded_handshake_does_not_come_in),
        cmocka_unit_test(test_who_answers_in_the_peers_place_is_not_spoken_to),
        cmocka_unit_test(test_a_side_that_seals_and_one_that_does_not_say_so),
        cmocka_unit_test(test_a_long_message_from_an_unknown_is_refused_before_it_comes),
        cmocka_unit_test(test_a_new_secret_is_used_for_the_next_attempt),
    };
    int failed = cmocka_run_group_tests(plain, NULL, NULL);
    security.sealed = true;
    return failed + cmocka_run_group_tests(sealed, NULL, NULL);
}
