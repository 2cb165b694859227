/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The HELLO thread. It makes blocking calls on the transport; shutting the transport down ends them early.
 *
 * On a link that is sealed, HELLO is the first message of both sides that is. So the accepting side knows
 * from the dialling side's HELLO that the opening was not a recorded one, and the dialling side from the
 * answer that it speaks with the right host. On a link that is not sealed the token, compared in constant
 * time, tells a replicator of this VM from other processes that can reach the port.
 */
#include "replicator/transport/introduction.h"

#include <errno.h>
#include <stdatomic.h>
#include <unistd.h>

struct introduction {
    struct connection *connection;
    struct wire_hello ours, theirs;
    struct link_security security;
    bool dialled;
    int wake_fd;
    gint64 began_us;
    GThread *thread;
    int status; /* this and why: the thread's until over is set (release), then the maker's (acquire) */
    const char *why;
    _Atomic bool over;
};

static int say_hello(struct introduction *introduction)
{
    g_autofree uint8_t *bytes = g_malloc(WIRE_HELLO_MAX_LEN);
    struct transport *transport = introduction->connection->transport;
    int len = wire_hello_encode(&introduction->ours, bytes, WIRE_HELLO_MAX_LEN);
    if (len < 0)
        return len;
    struct transport_message message = {
        .type = MESSAGE_HELLO, .term = introduction->ours.term, .len = (size_t)len, .payload = bytes};
    return transport->ops->send_message(transport, &message);
}

/*
 * Sends any message, whose header shows a peer of another version that ours differs. It contains nothing
 * else.
 */
static void show_version(struct introduction *introduction)
{
    struct transport *transport = introduction->connection->transport;
    struct transport_message message = {.type = MESSAGE_KEEPALIVE};
    transport->ops->send_message(transport, &message);
}

/* Receives a message. A peer of another version is told of that. */
static int hear(struct introduction *introduction, struct transport_received *received)
{
    struct transport *transport = introduction->connection->transport;
    int status = transport->ops->receive(transport, NULL, received);
    if (status == -EPROTONOSUPPORT) {
        introduction->why = "the peer's understudy speaks another protocol version: install the same version "
                            "on both hosts";
        if (!introduction->dialled)
            show_version(introduction);
    }
    return status;
}

/* ---- sealing ---- */

static int say_proof(struct introduction *introduction, enum message_type type, const uint8_t *bytes)
{
    struct transport *transport = introduction->connection->transport;
    const struct transport_message message = {.type = type, .len = SEAL_HANDSHAKE_LEN, .payload = bytes};
    return transport->ops->send_message(transport, &message);
}

static int hear_proof(struct introduction *introduction, enum message_type type, struct seal_meeting *meeting)
{
    struct transport_received received = {0};
    const uint8_t *secret = introduction->security.secret;
    int status = hear(introduction, &received);
    const struct transport_message *message = &received.message;
    if (status < 0)
        return status;
    if (message->type != type) {
        introduction->why = "a connection that is not sealed was refused: give both hosts the same "
                            "--link-security";
        return -EPROTO;
    }
    status = type == MESSAGE_SEAL_OPENING ? seal_opening_take(meeting, secret, message->payload, message->len)
                                          : seal_answer_take(meeting, secret, message->payload, message->len);
    if (status < 0)
        introduction->why =
            status == -EPROTONOSUPPORT
                ? "the peer's understudy seals links in another way: install the same version on both "
                  "hosts"
                : "a connection from one who does not know this VM's secret was refused";
    return status;
}

static int meet_as_dialler(struct introduction *introduction, struct seal_meeting *meeting)
{
    int status = seal_opening_make(meeting, introduction->security.secret, introduction->ours.role,
                                   seal_ciphers_here());
    if (status == 0)
        status = say_proof(introduction, MESSAGE_SEAL_OPENING, meeting->opening);
    return status == 0 ? hear_proof(introduction, MESSAGE_SEAL_ANSWER, meeting) : status;
}

static int meet_as_listener(struct introduction *introduction, struct seal_meeting *meeting)
{
    int status = hear_proof(introduction, MESSAGE_SEAL_OPENING, meeting);
    if (status == 0)
        status = seal_answer_make(meeting, introduction->security.secret, introduction->ours.role,
                                  seal_ciphers_here());
    return status == 0 ? say_proof(introduction, MESSAGE_SEAL_ANSWER, meeting->answer) : status;
}

/* Proves both sides to each other, and seals the connection. */
static int seal(struct introduction *introduction)
{
    struct connection *connection = introduction->connection;
    struct seal_meeting meeting;
    struct seal_keys keys;
    int status = introduction->dialled ? meet_as_dialler(introduction, &meeting)
                                       : meet_as_listener(introduction, &meeting);
    if (status < 0)
        return status;
    status = seal_keys_of_meeting(&keys, introduction->security.secret, &meeting, introduction->dialled);
    if (status == 0)
        status = connection->transport->ops->seal(connection->transport, &keys);
    seal_wipe(&keys, sizeof keys);
    connection->cipher = meeting.cipher;
    return status;
}

/* ---- HELLO ---- */

static int hear_hello(struct introduction *introduction)
{
    struct transport_received received = {0};
    int status = hear(introduction, &received);
    if (status == -EBADMSG)
        introduction->why = introduction->dialled
                                ? "what the peer sent was changed on the way, or is not the peer's"
                                : "a connection that plays a recorded one again was refused";
    if (status < 0)
        return status;
    if (received.message.type == MESSAGE_SEAL_OPENING || received.message.type == MESSAGE_SEAL_ANSWER) {
        introduction->why = "the peer seals its links and this host does not: give both hosts the same "
                            "--link-security";
        return -EPROTO;
    }
    if (received.message.type != MESSAGE_HELLO ||
        wire_hello_decode(&introduction->theirs, received.message.payload, received.message.len) < 0) {
        introduction->why = "the peer did not introduce itself properly: is another program using its port?";
        return -EPROTO;
    }
    if (!wire_token_equal(introduction->theirs.token, introduction->ours.token)) {
        introduction->why = "a connection with the wrong session token was refused";
        return -EACCES;
    }
    return 0;
}

static int exchange(struct introduction *introduction)
{
    struct transport *transport = introduction->connection->transport;
    transport->payload_max = WIRE_HELLO_MAX_LEN;
    int status = introduction->security.sealed ? seal(introduction) : 0;
    if (status == 0)
        status = introduction->dialled ? say_hello(introduction) : hear_hello(introduction);
    if (status == 0)
        status = introduction->dialled ? hear_hello(introduction) : say_hello(introduction);
    /* Last: both sides have received the other's HELLO by now, and both report what is wrong. */
    if (status == 0 && !wire_hello_same_layout(&introduction->theirs, &introduction->ours)) {
        introduction->why =
            "the peer's QEMU has other RAM blocks: use the same QEMU, firmware and command line "
            "on both hosts";
        return -EINVAL;
    }
    transport->payload_max = 0;
    introduction->connection->said = introduction->ours.images;
    introduction->connection->heard = introduction->theirs.images;
    return status;
}

static gpointer introduction_run(gpointer opaque)
{
    struct introduction *introduction = opaque;
    uint64_t one = 1;
    introduction->status = exchange(introduction);
    seal_wipe(&introduction->security, sizeof introduction->security);
    atomic_store_explicit(&introduction->over, true, memory_order_release);
    ssize_t ignored = write(introduction->wake_fd, &one, sizeof one);
    (void)ignored;
    return NULL;
}

struct introduction *introduction_new(struct connection *connection, const struct wire_hello *ours,
                                      const struct link_security *security, bool dialled, int wake_fd)
{
    struct introduction *introduction = g_new0(struct introduction, 1);
    introduction->connection = connection;
    introduction->ours = *ours;
    introduction->security = *security;
    introduction->dialled = dialled;
    introduction->wake_fd = wake_fd;
    introduction->began_us = g_get_monotonic_time();
    introduction->thread = g_thread_try_new("hello", introduction_run, introduction, NULL);
    if (introduction->thread)
        return introduction;
    connection_put(connection);
    seal_wipe(&introduction->security, sizeof introduction->security);
    g_free(introduction);
    return NULL;
}

bool introduction_is_over(const struct introduction *introduction)
{
    return atomic_load_explicit(&introduction->over, memory_order_acquire);
}

gint64 introduction_age_us(const struct introduction *introduction)
{
    return g_get_monotonic_time() - introduction->began_us;
}

int introduction_status(const struct introduction *introduction, const char **why)
{
    *why = introduction->why;
    return introduction->status;
}

const struct wire_hello *introduction_hello(const struct introduction *introduction)
{
    return &introduction->theirs;
}

struct connection *introduction_end(struct introduction *introduction, bool keep)
{
    struct connection *connection = introduction->connection;
    if (!keep)
        connection_shutdown(connection);
    g_thread_join(introduction->thread);
    g_free(introduction);
    if (keep)
        return connection;
    connection_put(connection);
    return NULL;
}
