/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Carries out the commands about trust (key, trust, pair), and answers a host that comes with an invitation's
 * code. What they change is in trust/.
 */
#include <gio/gio.h>
#include <gnutls/gnutls.h>
#include <string.h>

#include "common/refusal.h"
#include "common/stream.h"
#include "daemon/daemon.h"
#include "daemon/trust/roles.h"
#include "daemon/trust/trust.h"
#include "proto/answer.h"
#include "proto/framing.h"

#define ANSWER_MS 10000
#define STRANGER_MS                                                                                          \
    0 /* the answer fits into the socket's buffer, or is lost: the main thread does not wait */
#define JOIN_MS 10000

#define KEY_LETTERS 8 /* of a name that is made from a key */

/* Makes a name from the key, for a host that has none. GLib string. */
static char *name_of_key(const struct trust *trust)
{
    g_autofree char *text = key_text(trust_own_key(trust));
    GString *name = g_string_new("host-");
    for (const char *at = text; *at && name->len < strlen("host-") + KEY_LETTERS; at++)
        if (g_ascii_isalnum(*at))
            g_string_append_c(name, *at);
    return g_string_free(name, FALSE);
}

/* Returns the name that this host gives itself in a pairing. GLib string. */
static char *own_name(const struct trust *trust, const char *wished)
{
    const char *name = wished[0] ? wished : g_get_host_name();
    g_autofree char *first = g_strndup(name, strcspn(name, "."));
    return wished[0] || store_name_is_fit(first) ? g_steal_pointer(&first) : name_of_key(trust);
}

static bool add(struct trust *trust, const Understudy__TrustRequest *request, GError **error)
{
    struct trusted host = {.may = request->may[0] ? roles_parse(request->may, error) : MAY_USUAL};
    if (!host.may)
        return false;
    if (!store_name_is_fit(request->name))
        return refuse(error, "'%s' is no name for a host: use letters, digits, dots, hyphens and underscores",
                      request->name);
    if (!key_parse(request->key, host.key))
        return refuse(error, "'%s' is not a key: 'understudy key' on that host shows it", request->key);
    if (memcmp(host.key, trust_own_key(trust), KEY_LEN) == 0)
        return refuse(error, "this is the key of this host itself: give that of the other host");
    g_strlcpy(host.name, request->name, sizeof host.name);
    return store_add(trust_store(trust), &host, error);
}

static bool remove_host(struct trust *trust, const char *name, const struct trust_removal *removal,
                        GError **error)
{
    struct trusted gone;
    bool told = store_find_name(trust_store(trust), name, &gone) && removal->leave(gone.key);
    if (!store_remove(trust_store(trust), name, &gone, error))
        return false;
    g_message("host %s is not trusted any more", gone.name);
    trust_end_sessions(trust, gone.key);
    removal->end(gone.key, told);
    return true;
}

static void write_list(struct trust *trust, struct stream *stream)
{
    g_autoptr(GArray) hosts = store_list(trust_store(trust));
    g_autofree Understudy__TrustedHost *rows = g_new0(Understudy__TrustedHost, hosts->len + 1);
    g_autofree Understudy__TrustedHost **pointers = g_new0(Understudy__TrustedHost *, hosts->len + 1);
    Understudy__TrustList list = UNDERSTUDY__TRUST_LIST__INIT;
    for (guint i = 0; i < hosts->len; i++) {
        struct trusted *host = &g_array_index(hosts, struct trusted, i);
        understudy__trusted_host__init(&rows[i]);
        rows[i].name = host->name;
        rows[i].key = key_text(host->key);
        rows[i].may = roles_text(host->may);
        pointers[i] = &rows[i];
    }
    list.hosts = pointers;
    list.n_hosts = hosts->len;
    Understudy__Envelope envelope = UNDERSTUDY_ENVELOPE(TRUST_LIST, trust_list, &list);
    framing_write(stream, &envelope, ANSWER_MS, NULL);
    for (guint i = 0; i < hosts->len; i++) {
        g_free(rows[i].key);
        g_free(rows[i].may);
    }
}

static bool invite(struct trust *trust, const char *may_text, char code[CODE_TEXT_LEN + 1], GError **error)
{
    unsigned may = may_text[0] ? roles_parse(may_text, error) : MAY_USUAL;
    return may && trust_invite(trust, may, code, error);
}

/* Returns what was done, a sentence (GLib string); NULL and error. */
static char *join(struct trust *trust, const Understudy__JoinRequest *request, GError **error)
{
    char code[CODE_LEN + 1];
    g_autofree char *host = NULL, *name = own_name(trust, request->name);
    uint16_t port = 0;
    struct trusted kept;
    unsigned may = request->may[0] ? roles_parse(request->may, error) : MAY_USUAL;
    if (!may)
        return NULL;
    if (!store_name_is_fit(name)) {
        refuse(error, "'%s' is no name for this host: give another one with --name", name);
        return NULL;
    }
    if (!peer_split(request->peer, &host, &port)) {
        refuse(error, "%s is not HOST or HOST:PORT", request->peer);
        return NULL;
    }
    if (!code_read(request->code, code)) {
        refuse(error, "this is not the code, or it is misspelt: 'understudy pair --invite' on the other host "
                      "shows it");
        return NULL;
    }
    int fd = peer_connect_plain(host, port, error);
    bool paired = fd >= 0 && trust_join(trust, fd, code, name, may, g_get_monotonic_time() + JOIN_MS * 1000,
                                        &kept, error);
    gnutls_memset(code, 0, sizeof code);
    if (!paired) {
        if (fd >= 0)
            g_prefix_error(error, "not paired with %s: ", host);
        return NULL;
    }
    g_autofree char *text = key_text(kept.key), *roles = roles_text(kept.may);
    g_message("paired with host %s, key %s, which may be %s", kept.name, text, roles);
    return g_strdup_printf("paired with host %s, key %s, which may be %s", kept.name, text, roles);
}

void trust_request_serve(const struct daemon_config *config, struct stream *stream,
                         const Understudy__Envelope *request, const struct trust_removal *removal)
{
    struct trust *trust = config->trust;
    g_autoptr(GError) error = NULL;
    g_autofree char *said = NULL;
    char code[CODE_TEXT_LEN + 1] = "";
    bool done;
    switch (request->body_case) {
    case UNDERSTUDY__ENVELOPE__BODY_KEY_REQUEST:
        said = key_text(trust_own_key(trust));
        done = true;
        break;
    case UNDERSTUDY__ENVELOPE__BODY_INVITE_REQUEST:
        done = invite(trust, request->invite_request->may, code, &error);
        break;
    case UNDERSTUDY__ENVELOPE__BODY_JOIN_REQUEST:
        said = join(trust, request->join_request, &error);
        done = said != NULL;
        break;
    default:
        if (request->trust_request->action == UNDERSTUDY__TRUST_ACTION__TRUST_LIST) {
            write_list(trust, stream);
            return;
        }
        done = request->trust_request->action == UNDERSTUDY__TRUST_ACTION__TRUST_ADD
                   ? add(trust, request->trust_request, &error)
                   : remove_host(trust, request->trust_request->name, removal, &error);
        break;
    }
    answer_write(stream, done, error ? error->message : code[0] ? code : said, ANSWER_MS);
    gnutls_memset(code, 0, sizeof code);
}

void stranger_serve(const struct daemon_config *config, struct stream *stream, const char *address,
                    const Understudy__Envelope *request)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *name = own_name(config->trust, "");
    struct trusted kept;
    uint8_t proof[PAIRING_PROOF_LEN];
    Understudy__PairWelcome welcome = UNDERSTUDY__PAIR_WELCOME__INIT;
    if (request->body_case != UNDERSTUDY__ENVELOPE__BODY_PAIR_JOIN) {
        answer_write(stream, false, "this host is not trusted there", STRANGER_MS);
        return;
    }
    if (!trust_welcome(config->trust, stream, request->pair_join, name, &kept, proof, &error)) {
        refused_log(address, request->body_case, "its code is wrong, or no invitation is open");
        answer_write(stream, false, error->message, STRANGER_MS);
        return;
    }
    g_autofree char *text = key_text(kept.key), *roles = roles_text(kept.may);
    g_message("paired with host %s at %s, key %s, which may be %s", kept.name, address, text, roles);
    welcome.name = name;
    welcome.proof.data = proof;
    welcome.proof.len = sizeof proof;
    Understudy__Envelope envelope = UNDERSTUDY_ENVELOPE(PAIR_WELCOME, pair_welcome, &welcome);
    framing_write(stream, &envelope, STRANGER_MS, NULL);
}
