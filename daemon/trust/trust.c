/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Connects key, store, invitation and sessions (trust.h), and is the door of the peers' port (door.h). */
#include "daemon/trust/trust.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/refusal.h"
#include "common/words.h"
#include "daemon/trust/roles.h"
#include "daemon/trust/tls.h"
#include "proto/framing.h"

#define EXPORTER_LABEL "EXPORTER-understudy-pairing"
#define ANSWER_MS      5000

struct trust {
    struct door door;
    struct host_key *key;
    struct store *store;
    GMutex mutex;
    struct invitation invitation; /* under mutex */
    GPtrArray *sessions;          /* struct stream *, those whose handshake is done; under mutex */
};

/* ---- whose key is accepted ---- */

static bool is_own(const struct trust *trust, const uint8_t *key)
{
    return memcmp(key, host_key_public(trust->key), KEY_LEN) == 0;
}

static bool is_invited(struct trust *trust)
{
    g_mutex_lock(&trust->mutex);
    bool open = invitation_is_open(&trust->invitation, g_get_monotonic_time());
    g_mutex_unlock(&trust->mutex);
    return open;
}

static char *refuses_caller(const uint8_t *key, void *opaque)
{
    struct trust *trust = opaque;
    struct trusted found;
    if (is_own(trust, key))
        return g_strdup("it is this host itself, or has a copy of this host's key");
    if (store_find_key(trust->store, key, &found) || is_invited(trust))
        return NULL;
    g_autofree char *text = key_text(key);
    return g_strdup_printf("its key %s is not trusted here: 'understudy trust NAME %s' would", text, text);
}

static char *refuses_called(const uint8_t *key, void *opaque)
{
    struct trust *trust = opaque;
    struct trusted found;
    if (is_own(trust, key))
        return g_strdup("it is this host itself: name the other host");
    if (store_find_key(trust->store, key, &found))
        return NULL;
    g_autofree char *text = key_text(key);
    return g_strdup_printf(
        "its key %s is not trusted on this host: 'understudy pair' the two, or 'understudy "
        "trust NAME %s'",
        text, text);
}

/* Accepts any key but this host's own: a joiner checks the inviter by the code. */
static char *refuses_inviter(const uint8_t *key, void *opaque)
{
    return is_own(opaque, key) ? g_strdup("it is this host itself: name the other host") : NULL;
}

/* ---- sessions ---- */

static void on_opened(struct stream *stream, void *opaque)
{
    struct trust *trust = opaque;
    g_mutex_lock(&trust->mutex);
    g_ptr_array_add(trust->sessions, stream);
    g_mutex_unlock(&trust->mutex);
}

static void on_closing(struct stream *stream, void *opaque)
{
    struct trust *trust = opaque;
    g_mutex_lock(&trust->mutex);
    g_ptr_array_remove_fast(trust->sessions, stream);
    g_mutex_unlock(&trust->mutex);
}

/* Shuts the connections down. The thread of each stream then sees its end, and frees it. */
void trust_end_sessions(struct trust *trust, const uint8_t *key)
{
    g_mutex_lock(&trust->mutex);
    for (guint i = 0; i < trust->sessions->len; i++) {
        const struct stream *stream = g_ptr_array_index(trust->sessions, i);
        if (memcmp(stream->key, key, KEY_LEN) == 0)
            shutdown(stream->fd, SHUT_RDWR);
    }
    g_mutex_unlock(&trust->mutex);
}

static struct tls_owner owner_of(struct trust *trust, char *(*refuses)(const uint8_t *key, void *opaque))
{
    return (struct tls_owner){
        .refuses = refuses, .opened = on_opened, .closing = on_closing, .opaque = trust};
}

/* Makes a stream and does its handshake. NULL with a sentence, and fd closed. */
static struct stream *call(struct trust *trust, int fd, const struct tls_owner *owner, int64_t until_us,
                           GError **error)
{
    struct stream *stream = tls_stream_new(fd, TLS_CALLS, trust->key, owner);
    int status = stream_handshake_until(stream, until_us);
    if (status == 0)
        return stream;
    if (status == -ETIMEDOUT)
        refuse(error, "it makes no TLS handshake: is understudyd running there?");
    else
        refuse(error, "%s", stream->why ? stream->why : g_strerror(-status));
    stream_close(stream);
    return NULL;
}

/* ---- the door ---- */

static struct stream *door_accept(void *opaque, int fd)
{
    struct trust *trust = opaque;
    const struct tls_owner owner = owner_of(trust, refuses_caller);
    return tls_stream_new(fd, TLS_ACCEPTS, trust->key, &owner);
}

/* Finds the stream's host in the store. False: it is not trusted, or has been removed meanwhile. */
static bool find(struct trust *trust, const struct stream *stream, struct trusted *found)
{
    return stream->key && store_find_key(trust->store, stream->key, found);
}

static bool door_knows(void *opaque, const struct stream *stream)
{
    struct trusted found;
    return find(opaque, stream, &found);
}

static struct stream *door_dial(void *opaque, int fd, const char *host, int64_t until_us, GError **error)
{
    struct trust *trust = opaque;
    const struct tls_owner owner = owner_of(trust, refuses_called);
    struct stream *stream = call(trust, fd, &owner, until_us, error);
    struct trusted named, found;
    /* If the user has named the host by its name in the store, no other host is accepted. */
    if (stream && store_find_name(trust->store, host, &named) && find(trust, stream, &found) &&
        memcmp(named.key, found.key, KEY_LEN) != 0) {
        refuse(error, "the host that answers there is %s, not %s", found.name, named.name);
        g_clear_pointer(&stream, stream_close);
    }
    return stream;
}

static bool door_may_ask(void *opaque, const struct stream *stream, Understudy__Envelope__BodyCase request,
                         GError **error)
{
    struct trusted found;
    if (!find(opaque, stream, &found))
        return refuse(error, "this host is not trusted there: see 'understudy pair' and 'understudy trust'");
    return request_is_allowed(request, found.may, found.name, error);
}

static bool door_may_be_asked(void *opaque, const struct stream *stream,
                              Understudy__Envelope__BodyCase request, GError **error)
{
    struct trusted found;
    if (!find(opaque, stream, &found))
        return refuse(error, "it is not trusted on this host any more");
    return request_may_be_sent(request, found.may, found.name, error);
}

struct trust *trust_open(const char *dir, GError **error)
{
    struct host_key *key = host_key_open(dir, error);
    struct store *store = key ? store_open(dir, error) : NULL;
    if (!store) {
        host_key_free(key);
        return NULL;
    }
    struct trust *trust = g_new0(struct trust, 1);
    trust->key = key;
    trust->store = store;
    trust->sessions = g_ptr_array_new();
    g_mutex_init(&trust->mutex);
    trust->door = (struct door){.opaque = trust,
                                .accept = door_accept,
                                .knows = door_knows,
                                .dial = door_dial,
                                .may_ask = door_may_ask,
                                .may_be_asked = door_may_be_asked};
    return trust;
}

void trust_free(struct trust *trust)
{
    if (!trust)
        return;
    invitation_close(&trust->invitation);
    g_ptr_array_unref(trust->sessions);
    g_mutex_clear(&trust->mutex);
    store_free(trust->store);
    host_key_free(trust->key);
    g_free(trust);
}

const struct door *trust_door(const struct trust *trust)
{
    return &trust->door;
}

const uint8_t *trust_own_key(const struct trust *trust)
{
    return host_key_public(trust->key);
}

struct store *trust_store(const struct trust *trust)
{
    return trust->store;
}

/* ---- pairing ---- */

bool trust_invite(struct trust *trust, unsigned may, char code[CODE_TEXT_LEN + 1], GError **error)
{
    g_mutex_lock(&trust->mutex);
    bool opened = invitation_open(&trust->invitation, may, g_get_monotonic_time());
    if (opened)
        code_show(trust->invitation.code, code);
    g_mutex_unlock(&trust->mutex);
    return opened || refuse(error, "there are no random numbers");
}

bool trust_welcome(struct trust *trust, struct stream *stream, const Understudy__PairJoin *join,
                   const char *name, struct trusted *kept, uint8_t proof[PAIRING_PROOF_LEN], GError **error)
{
    uint8_t exporter[PAIRING_EXPORTER_LEN];
    struct trusted joiner = {.may = 0};
    if (!stream->key || !tls_stream_exporter(stream, EXPORTER_LABEL, exporter, sizeof exporter))
        return refuse(error, "the request was not understood");
    const struct pairing_facts facts = {
        .exporter = exporter, .inviter_key = host_key_public(trust->key), .joiner_key = stream->key};
    g_strlcpy(joiner.name, join->name, sizeof joiner.name);
    memcpy(joiner.key, stream->key, KEY_LEN);
    g_mutex_lock(&trust->mutex);
    joiner.may = trust->invitation.may;
    /* A name that is not fit counts as a wrong proof. */
    size_t proof_len = store_name_is_fit(join->name) ? join->proof.len : 0;
    bool good = invitation_check(&trust->invitation, &facts, join->name, join->proof.data, proof_len,
                                 g_get_monotonic_time());
    good = good && pairing_proof(trust->invitation.code, PAIRING_INVITER, &facts, name, proof);
    if (good)
        invitation_close(&trust->invitation);
    g_mutex_unlock(&trust->mutex);
    if (!good)
        return refuse(error,
                      "the code is wrong, or it was used, or is older than %d minutes: make a new one "
                      "with 'understudy pair --invite'",
                      (int)(PAIRING_LIFE_US / 60000000));
    return store_add_key(trust->store, &joiner, kept, error);
}

/* Checks the inviter's answer, and trusts it. */
static bool accept_inviter(struct trust *trust, const Understudy__Envelope *answer, const char *code,
                           const struct pairing_facts *facts, unsigned may, struct trusted *kept,
                           GError **error)
{
    struct trusted inviter = {.may = may};
    if (answer->body_case == UNDERSTUDY__ENVELOPE__BODY_ANSWER) {
        g_autofree char *words = words_make_readable(answer->answer->message, WORDS_MAX);
        return refuse(error, "it refused: %s", words);
    }
    const Understudy__PairWelcome *welcome =
        answer->body_case == UNDERSTUDY__ENVELOPE__BODY_PAIR_WELCOME ? answer->pair_welcome : NULL;
    if (!welcome || !store_name_is_fit(welcome->name))
        return refuse(error, "its answer was not understood: install one version of understudy on both");
    if (!pairing_check(code, PAIRING_INVITER, facts, welcome->name, welcome->proof.data, welcome->proof.len))
        return refuse(error, "it does not know the code: something between the hosts answers in its place");
    g_strlcpy(inviter.name, welcome->name, sizeof inviter.name);
    memcpy(inviter.key, facts->inviter_key, KEY_LEN);
    return store_add_key(trust->store, &inviter, kept, error);
}

bool trust_join(struct trust *trust, int fd, const char *code, const char *name, unsigned may,
                int64_t until_us, struct trusted *kept, GError **error)
{
    uint8_t exporter[PAIRING_EXPORTER_LEN], proof[PAIRING_PROOF_LEN];
    const struct tls_owner owner = owner_of(trust, refuses_inviter);
    struct stream *stream = call(trust, fd, &owner, until_us, error);
    if (!stream)
        return false;
    const struct pairing_facts facts = {
        .exporter = exporter, .inviter_key = stream->key, .joiner_key = host_key_public(trust->key)};
    Understudy__PairJoin join = UNDERSTUDY__PAIR_JOIN__INIT;
    Understudy__Envelope request = UNDERSTUDY_ENVELOPE(PAIR_JOIN, pair_join, &join);
    Understudy__Envelope *answer = NULL;
    bool paired = false;
    if (!tls_stream_exporter(stream, EXPORTER_LABEL, exporter, sizeof exporter) ||
        !pairing_proof(code, PAIRING_JOINER, &facts, name, proof)) {
        refuse(error, "GnuTLS makes no proof");
    } else {
        join.name = (char *)name;
        join.proof.data = proof;
        join.proof.len = sizeof proof;
        answer = framing_call(stream, &request, ANSWER_MS, error);
        if (!answer && stream->why) {
            g_clear_error(error);
            refuse(error, "%s", stream->why);
        }
    }
    if (answer) {
        paired = accept_inviter(trust, answer, code, &facts, may, kept, error);
        understudy__envelope__free_unpacked(answer, NULL);
    }
    stream_close(stream);
    return paired;
}
