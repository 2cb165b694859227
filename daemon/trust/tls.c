/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLS streams by GnuTLS 3.7 or later (tls.h).
 *
 * GnuTLS collects a message of the handshake, of up to 16 MiB, before it checks the length
 * (gnutls_handshake_set_max_packet_length, 3.7.9). So pull counts the bytes that come in, and a connection
 * that has not shown its key takes some 30 KiB. pull also notes the end of the connection, since GnuTLS
 * returns GNUTLS_E_AGAIN at an end in the middle of a record. A host that refuses the other one's key sends
 * the alert access_denied, which the other host turns into a sentence. A client gets a server's refusal after
 * its own handshake is done, with its first read.
 */
#include "daemon/trust/tls.h"

#include <errno.h>
#include <glib-unix.h>
#include <gnutls/gnutls.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

/* Bytes of a whole handshake: our own takes some 500 in each direction. */
#define HANDSHAKE_LEN 8192
/* Bytes that may come in later without a byte of data among them: more than a record. */
#define EMPTY_LEN 32768

static const char priorities[] = "NONE:+VERS-TLS1.3:+AES-128-GCM:+AES-256-GCM:+CHACHA20-POLY1305:+AEAD:"
                                 "+GROUP-X25519:+SIGN-EDDSA-ED25519:+CTYPE-CLI-RAWPK:+CTYPE-SRV-RAWPK";

struct tls {
    struct stream stream; /* first: the stream is the tls */
    gnutls_session_t session;
    struct tls_owner owner;
    enum tls_side side;
    bool greeted;
    int failed;     /* the first error: -errno, which all later calls return */
    bool at_end;    /* the other end has closed the connection, in order or not */
    bool too_long;  /* too many bytes came without any data */
    bool heard;     /* any byte */
    size_t npulled; /* since the last data */
    uint8_t key[KEY_LEN];
    char *why;
};

static struct tls *tls_of(struct stream *stream)
{
    return (struct tls *)(void *)stream;
}

/* Reads for GnuTLS. */
static ssize_t pull(gnutls_transport_ptr_t opaque, void *data, size_t len)
{
    struct tls *tls = opaque;
    size_t limit = tls->greeted ? EMPTY_LEN : HANDSHAKE_LEN;
    if (tls->npulled >= limit) {
        tls->too_long = true;
        gnutls_transport_set_errno(tls->session, EMSGSIZE);
        return -1;
    }
    ssize_t n = recv(tls->stream.fd, data, MIN(len, limit - tls->npulled), MSG_DONTWAIT);
    if (n < 0) {
        gnutls_transport_set_errno(tls->session, errno);
        return -1;
    }
    tls->npulled += (size_t)n;
    tls->heard |= n > 0;
    tls->at_end |= n == 0;
    return n;
}

/* Writes for GnuTLS. */
static ssize_t push(gnutls_transport_ptr_t opaque, const void *data, size_t len)
{
    struct tls *tls = opaque;
    ssize_t n = send(tls->stream.fd, data, len, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0)
        gnutls_transport_set_errno(tls->session, errno);
    return n;
}

static void set_why(struct tls *tls, char *why)
{
    g_free(tls->why);
    tls->why = why;
    tls->stream.why = why;
}

/* Checks the key that the other end has proved to have. For GnuTLS: 0, or an error that ends the handshake.
 */
static int verify(gnutls_session_t session)
{
    struct tls *tls = gnutls_session_get_ptr(session);
    unsigned n = 0;
    const gnutls_datum_t *spki = gnutls_certificate_get_peers(session, &n);
    bool raw = gnutls_certificate_type_get2(session, GNUTLS_CTYPE_PEERS) == GNUTLS_CRT_RAWPK;
    if (!raw || n != 1 || !key_from_spki(spki->data, spki->size, tls->key)) {
        set_why(tls, g_strdup("it shows no Ed25519 key"));
        return GNUTLS_E_CERTIFICATE_ERROR;
    }
    char *why = tls->owner.refuses(tls->key, tls->owner.opaque);
    if (why)
        set_why(tls, why);
    return why ? GNUTLS_E_CERTIFICATE_ERROR : 0;
}

/* Sets the sentence for an error of GnuTLS, unless there is one already. */
static void explain(struct tls *tls, int status)
{
    if (tls->why)
        return;
    bool alert = status == GNUTLS_E_FATAL_ALERT_RECEIVED || status == GNUTLS_E_WARNING_ALERT_RECEIVED;
    gnutls_alert_description_t which = gnutls_alert_get(tls->session);
    if (alert && which == GNUTLS_A_ACCESS_DENIED)
        set_why(tls, g_strdup("it does not trust this host: see 'understudy pair' and 'understudy trust'"));
    else if (alert)
        set_why(tls, g_strdup_printf("it ended the connection: %s", gnutls_alert_get_name(which)));
    else if (tls->too_long)
        set_why(tls, g_strdup("it sends too much that is no data"));
    else if (tls->at_end)
        set_why(tls, g_strdup("the connection was cut"));
    else if (status == GNUTLS_E_UNEXPECTED_PACKET_LENGTH || status == GNUTLS_E_UNSUPPORTED_VERSION_PACKET ||
             status == GNUTLS_E_UNEXPECTED_PACKET)
        set_why(tls, g_strdup("it speaks no TLS 1.3: is that another version of understudy?"));
    else
        set_why(tls, g_strdup(gnutls_strerror(status)));
}

/* Turns an error of GnuTLS into -errno. */
static int fail(struct tls *tls, int status)
{
    bool again = status == GNUTLS_E_AGAIN || status == GNUTLS_E_INTERRUPTED;
    if (again && !tls->at_end) {
        tls->stream.wants = gnutls_record_get_direction(tls->session) ? POLLOUT : POLLIN;
        return -EAGAIN;
    }
    explain(tls, status);
    if (status == GNUTLS_E_FATAL_ALERT_RECEIVED)
        tls->failed = -EACCES;
    else if (tls->at_end)
        tls->failed = tls->heard ? -ECONNABORTED : -EPIPE;
    else
        tls->failed = -EPROTO;
    return tls->failed;
}

static int tls_handshake(struct stream *stream)
{
    struct tls *tls = tls_of(stream);
    if (tls->greeted || tls->failed)
        return tls->failed ? tls->failed : 1;
    int status = gnutls_handshake(tls->session);
    if (status == GNUTLS_E_CERTIFICATE_ERROR)
        gnutls_alert_send(tls->session, GNUTLS_AL_FATAL, GNUTLS_A_ACCESS_DENIED);
    else if (status < 0 && gnutls_error_is_fatal(status) && !tls->at_end)
        gnutls_alert_send_appropriate(tls->session, status);
    if (status < 0)
        return fail(tls, status);
    tls->greeted = true;
    tls->npulled = 0;
    tls->stream.key = tls->key;
    if (tls->owner.opened)
        tls->owner.opened(stream, tls->owner.opaque);
    return 1;
}

static ssize_t tls_read(struct stream *stream, void *data, size_t len)
{
    struct tls *tls = tls_of(stream);
    if (!tls->greeted || tls->failed)
        return tls->failed ? tls->failed : -EPROTO;
    ssize_t n = gnutls_record_recv(tls->session, data, len);
    if (n < 0)
        return fail(tls, (int)n);
    tls->npulled = 0;
    return n;
}

static ssize_t tls_write(struct stream *stream, const void *data, size_t len)
{
    struct tls *tls = tls_of(stream);
    char byte;
    if (!tls->greeted || tls->failed)
        return tls->failed ? tls->failed : -EPROTO;
    ssize_t n = gnutls_record_send(tls->session, data, len);
    if (n >= 0)
        return n;
    /* The other end has closed the connection. It may have sent an alert before. */
    if (n == GNUTLS_E_PUSH_ERROR) {
        ssize_t said = gnutls_record_recv(tls->session, &byte, 1);
        if (said == GNUTLS_E_FATAL_ALERT_RECEIVED)
            n = said;
        else
            tls->at_end = true;
    }
    return fail(tls, (int)n);
}

static size_t tls_buffered(struct stream *stream)
{
    return gnutls_record_check_pending(tls_of(stream)->session);
}

/* Ends sending, and drops what has arrived and was not read: otherwise close would reset the connection, and
 * what was sent last (the alert) could be lost. */
static void end_gently(int fd)
{
    char bytes[4096];
    shutdown(fd, SHUT_WR);
    for (int i = 0; i < 16 && recv(fd, bytes, sizeof bytes, MSG_DONTWAIT) > 0; i++)
        continue;
}

static void tls_release(struct stream *stream)
{
    struct tls *tls = tls_of(stream);
    if (tls->greeted && tls->owner.closing)
        tls->owner.closing(stream, tls->owner.opaque);
    if (tls->greeted && !tls->failed)
        gnutls_bye(tls->session, GNUTLS_SHUT_WR); /* goes into the socket's buffer, or not at all */
    end_gently(stream->fd);
    gnutls_deinit(tls->session);
    g_free(tls->why);
    g_free(tls);
}

static const struct stream_ops tls_ops = {
    .handshake = tls_handshake,
    .read = tls_read,
    .write = tls_write,
    .buffered = tls_buffered,
    .release = tls_release,
};

struct stream *tls_stream_new(int fd, enum tls_side side, const struct host_key *key,
                              const struct tls_owner *owner)
{
    struct tls *tls = g_new0(struct tls, 1);
    unsigned flags = GNUTLS_NONBLOCK | GNUTLS_ENABLE_RAWPK | GNUTLS_NO_TICKETS;
    tls->stream.ops = &tls_ops;
    tls->stream.fd = fd;
    tls->stream.wants = side == TLS_CALLS ? POLLOUT : POLLIN;
    tls->side = side;
    tls->owner = *owner;
    int yes = 1;
    g_unix_set_fd_nonblocking(fd, TRUE, NULL);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes); /* a handshake is short messages to and fro */
    if (gnutls_init(&tls->session, (side == TLS_ACCEPTS ? GNUTLS_SERVER : GNUTLS_CLIENT) | flags) < 0 ||
        gnutls_priority_set_direct(tls->session, priorities, NULL) < 0 ||
        gnutls_credentials_set(tls->session, GNUTLS_CRD_CERTIFICATE, host_key_credentials(key)) < 0)
        g_error("no memory for a TLS session");
    gnutls_session_set_ptr(tls->session, tls);
    gnutls_session_set_verify_function(tls->session, verify);
    gnutls_handshake_set_timeout(tls->session, 0); /* deadlines are the caller's */
    if (side == TLS_ACCEPTS)
        gnutls_certificate_server_set_request(tls->session, GNUTLS_CERT_REQUIRE);
    gnutls_transport_set_ptr(tls->session, tls);
    gnutls_transport_set_pull_function(tls->session, pull);
    gnutls_transport_set_push_function(tls->session, push);
    return &tls->stream;
}

bool tls_stream_exporter(struct stream *stream, const char *label, uint8_t *out, size_t len)
{
    struct tls *tls = tls_of(stream);
    return stream->ops == &tls_ops && tls->greeted &&
           gnutls_prf_rfc5705(tls->session, strlen(label), label, 0, NULL, len, (char *)out) >= 0;
}
