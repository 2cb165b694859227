/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The keys and proofs of seal_keys.h. Opening and answer alike: version 0, role 4, ciphers (an opening:
 * bits, an answer: the number of one) 8, zero 12, nonce 16, proof 48.
 */
#include "proto/seal_keys.h"

#include <errno.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/random.h>

#include "proto/little_endian.h"

#define NONCE_AT 16u
#define PROOF_AT 48u
_Static_assert(NONCE_AT + SEAL_NONCE_LEN == PROOF_AT && PROOF_AT + SEAL_TAG_LEN == SEAL_HANDSHAKE_LEN,
               "layout");

/* HKDF-Extract: the VM's secret is random, but it is used as a key for nothing else. */
static int extract(const uint8_t secret[SEAL_SECRET_LEN], uint8_t root[SEAL_SECRET_LEN])
{
    static const char salt[] = "understudy data plane";
    const gnutls_datum_t key = {(unsigned char *)secret, SEAL_SECRET_LEN};
    const gnutls_datum_t data = {(unsigned char *)salt, sizeof salt - 1};
    return gnutls_hkdf_extract(GNUTLS_MAC_SHA256, &key, &data, root) < 0 ? -EIO : 0;
}

/* Derives a key from the VM's secret. */
static int derive_from_vm(const uint8_t secret[SEAL_SECRET_LEN], const char *purpose, const void *context,
                          size_t context_len, uint8_t out[SEAL_SECRET_LEN])
{
    uint8_t root[SEAL_SECRET_LEN];
    int status = extract(secret, root);
    if (status == 0)
        status = seal_derive(root, purpose, context, context_len, out, SEAL_SECRET_LEN);
    seal_wipe(root, sizeof root);
    return status;
}

/* The beginning of the HMAC of two pieces, the first of which may be empty. */
static int prove(const uint8_t secret[SEAL_SECRET_LEN], const char *purpose, const uint8_t *first,
                 size_t first_len, const uint8_t *second, size_t second_len, uint8_t proof[SEAL_TAG_LEN])
{
    uint8_t key[SEAL_SECRET_LEN], bytes[2 * SEAL_HANDSHAKE_LEN], whole[32];
    if (first_len)
        memcpy(bytes, first, first_len);
    memcpy(bytes + first_len, second, second_len);
    int status = derive_from_vm(secret, purpose, NULL, 0, key);
    if (status == 0 &&
        gnutls_hmac_fast(GNUTLS_MAC_SHA256, key, sizeof key, bytes, first_len + second_len, whole) < 0)
        status = -EIO;
    if (status == 0)
        memcpy(proof, whole, SEAL_TAG_LEN);
    seal_wipe(key, sizeof key);
    return status;
}

/* ---- ciphers ---- */

#if defined(__aarch64__)
#ifndef HWCAP_PMULL
#define HWCAP_PMULL (1 << 4)
#endif
#ifndef HWCAP_AES
#define HWCAP_AES (1 << 3)
#endif
static bool has_aes(void)
{
    unsigned long has = getauxval(AT_HWCAP);
    return (has & HWCAP_AES) && (has & HWCAP_PMULL);
}
#elif defined(__x86_64__)
static bool has_aes(void)
{
    return __builtin_cpu_supports("aes") && __builtin_cpu_supports("pclmul");
}
#else
static bool has_aes(void)
{
    return false;
}
#endif

uint32_t seal_ciphers_here(void)
{
    return 1u << SEAL_CHACHA20_POLY1305 | (has_aes() ? 1u << SEAL_AES_128_GCM : 0);
}

/* ---- opening and answer ---- */

static int encode(uint8_t out[SEAL_HANDSHAKE_LEN], uint32_t role, uint32_t ciphers)
{
    uint8_t *at = put32(out, SEAL_VERSION);
    at = put32(at, role);
    at = put32(at, ciphers);
    put32(at, 0);
    return getrandom(out + NONCE_AT, SEAL_NONCE_LEN, 0) == (ssize_t)SEAL_NONCE_LEN ? 0 : -EIO;
}

/* Checks all but the proof. */
static int decode(const uint8_t *bytes, size_t len, uint32_t *role, uint32_t *ciphers)
{
    if (len >= 4 && get32(bytes) != SEAL_VERSION)
        return -EPROTONOSUPPORT;
    if (len != SEAL_HANDSHAKE_LEN || get32(bytes + 12) != 0)
        return -EPROTO;
    *role = get32(bytes + 4);
    *ciphers = get32(bytes + 8);
    return 0;
}

static bool is_same(const uint8_t *a, const uint8_t *b)
{
    return gnutls_memcmp(a, b, SEAL_TAG_LEN) == 0;
}

int seal_opening_make(struct seal_meeting *meeting, const uint8_t secret[SEAL_SECRET_LEN], uint32_t role,
                      uint32_t ciphers)
{
    memset(meeting, 0, sizeof *meeting);
    meeting->opener_role = role;
    meeting->offered = ciphers;
    int status = encode(meeting->opening, role, ciphers);
    return status < 0
               ? status
               : prove(secret, "opening", NULL, 0, meeting->opening, PROOF_AT, meeting->opening + PROOF_AT);
}

int seal_opening_take(struct seal_meeting *meeting, const uint8_t secret[SEAL_SECRET_LEN],
                      const uint8_t *bytes, size_t len)
{
    uint8_t proof[SEAL_TAG_LEN];
    memset(meeting, 0, sizeof *meeting);
    int status = decode(bytes, len, &meeting->opener_role, &meeting->offered);
    if (status == 0)
        status = prove(secret, "opening", NULL, 0, bytes, PROOF_AT, proof);
    if (status < 0)
        return status;
    if (!is_same(proof, bytes + PROOF_AT))
        return -EACCES;
    memcpy(meeting->opening, bytes, SEAL_HANDSHAKE_LEN);
    return 0;
}

int seal_answer_make(struct seal_meeting *meeting, const uint8_t secret[SEAL_SECRET_LEN], uint32_t role,
                     uint32_t ciphers)
{
    uint32_t common = meeting->offered & ciphers;
    meeting->cipher = common & 1u << SEAL_AES_128_GCM         ? SEAL_AES_128_GCM
                      : common & 1u << SEAL_CHACHA20_POLY1305 ? SEAL_CHACHA20_POLY1305
                                                              : SEAL_NO_CIPHER;
    if (meeting->cipher == SEAL_NO_CIPHER)
        return -EPROTO;
    meeting->answerer_role = role;
    int status = encode(meeting->answer, role, meeting->cipher);
    return status < 0 ? status
                      : prove(secret, "answer", meeting->opening, SEAL_HANDSHAKE_LEN, meeting->answer,
                              PROOF_AT, meeting->answer + PROOF_AT);
}

int seal_answer_take(struct seal_meeting *meeting, const uint8_t secret[SEAL_SECRET_LEN],
                     const uint8_t *bytes, size_t len)
{
    uint8_t proof[SEAL_TAG_LEN];
    uint32_t role, cipher;
    int status = decode(bytes, len, &role, &cipher);
    if (status == 0)
        status = prove(secret, "answer", meeting->opening, SEAL_HANDSHAKE_LEN, bytes, PROOF_AT, proof);
    if (status < 0)
        return status;
    if (!is_same(proof, bytes + PROOF_AT))
        return -EACCES;
    if (cipher == SEAL_NO_CIPHER || cipher > SEAL_CHACHA20_POLY1305 || !(meeting->offered & 1u << cipher))
        return -EPROTO;
    meeting->answerer_role = role;
    meeting->cipher = (enum seal_cipher)cipher;
    memcpy(meeting->answer, bytes, SEAL_HANDSHAKE_LEN);
    return 0;
}

/* Opening and answer have in them all that the keys are to depend on: nonces, roles, ciphers. */
int seal_keys_of_meeting(struct seal_keys *keys, const uint8_t secret[SEAL_SECRET_LEN],
                         const struct seal_meeting *meeting, bool dialled)
{
    uint8_t context[2 * SEAL_HANDSHAKE_LEN];
    memcpy(context, meeting->opening, SEAL_HANDSHAKE_LEN);
    memcpy(context + SEAL_HANDSHAKE_LEN, meeting->answer, SEAL_HANDSHAKE_LEN);
    const struct {
        const char *purpose;
        uint8_t *out;
    } wanted[] = {
        {"link from opener", dialled ? keys->out : keys->in},
        {"link from answerer", dialled ? keys->in : keys->out},
        {"credit from opener", dialled ? keys->credit_out : keys->credit_in},
        {"credit from answerer", dialled ? keys->credit_in : keys->credit_out},
    };
    int status = 0;
    keys->cipher = meeting->cipher;
    keys->limits = seal_limits_usual;
    for (unsigned i = 0; status == 0 && i < sizeof wanted / sizeof *wanted; i++)
        status = derive_from_vm(secret, wanted[i].purpose, context, sizeof context, wanted[i].out);
    return status;
}

/* ---- a request for a link ---- */

int seal_ticket_make(const uint8_t secret[SEAL_SECRET_LEN], uint8_t ticket[SEAL_TICKET_LEN])
{
    if (getrandom(ticket, SEAL_NONCE_LEN, 0) != (ssize_t)SEAL_NONCE_LEN)
        return -EIO;
    return prove(secret, "ticket", NULL, 0, ticket, SEAL_NONCE_LEN, ticket + SEAL_NONCE_LEN);
}

int seal_ticket_check(const uint8_t secret[SEAL_SECRET_LEN], const uint8_t ticket[SEAL_TICKET_LEN])
{
    uint8_t proof[SEAL_TAG_LEN];
    int status = prove(secret, "ticket", NULL, 0, ticket, SEAL_NONCE_LEN, proof);
    if (status == 0 && !is_same(proof, ticket + SEAL_NONCE_LEN))
        status = -EACCES;
    return status;
}

/* ---- single packets ---- */

struct seal_tagger {
    gnutls_hmac_hd_t handle;
};

struct seal_tagger *seal_tagger_new(const uint8_t secret[SEAL_SECRET_LEN], const char *purpose)
{
    uint8_t key[SEAL_SECRET_LEN];
    struct seal_tagger *tagger = calloc(1, sizeof *tagger);
    if (!tagger)
        return NULL;
    bool made = derive_from_vm(secret, purpose, NULL, 0, key) == 0 &&
                gnutls_hmac_init(&tagger->handle, GNUTLS_MAC_SHA256, key, sizeof key) == 0;
    seal_wipe(key, sizeof key);
    if (made)
        return tagger;
    free(tagger);
    errno = ENOTSUP;
    return NULL;
}

void seal_tagger_free(struct seal_tagger *tagger)
{
    if (!tagger)
        return;
    gnutls_hmac_deinit(tagger->handle, NULL);
    free(tagger);
}

int seal_tag(struct seal_tagger *tagger, const void *bytes, size_t len, uint8_t tag[SEAL_TAG_LEN])
{
    uint8_t whole[32];
    int status = gnutls_hmac(tagger->handle, bytes, len) < 0 ? -EIO : 0;
    gnutls_hmac_output(tagger->handle, whole); /* begins anew, also after a failure */
    memcpy(tag, whole, SEAL_TAG_LEN);
    return status;
}

bool seal_tag_is_right(struct seal_tagger *tagger, const void *bytes, size_t len,
                       const uint8_t tag[SEAL_TAG_LEN])
{
    uint8_t right[SEAL_TAG_LEN];
    return seal_tag(tagger, bytes, len, right) == 0 && is_same(right, tag);
}
