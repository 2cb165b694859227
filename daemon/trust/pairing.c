/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Makes and checks codes, proofs and invitations (pairing.h). */
#include "daemon/trust/pairing.h"

#include <ctype.h>
#include <gnutls/crypto.h>
#include <string.h>
#include <sys/random.h>

/* Crockford's base 32: without I, L, O and U. */
static const char alphabet[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
static const char label[] = "understudy pairing 1";

/* ---- codes ---- */

/* Writes the characters that check the random ones: 10 bits of their SHA-256. */
static bool add_check(char code[CODE_LEN + 1])
{
    uint8_t hash[32];
    if (gnutls_hash_fast(GNUTLS_DIG_SHA256, code, CODE_RANDOM, hash) < 0)
        return false;
    for (unsigned i = 0; i < CODE_CHECK; i++)
        code[CODE_RANDOM + i] = alphabet[hash[i] & 31];
    code[CODE_LEN] = 0;
    return true;
}

bool code_new(char code[CODE_LEN + 1])
{
    uint8_t random[CODE_RANDOM];
    if (getrandom(random, sizeof random, 0) != sizeof random)
        return false;
    for (unsigned i = 0; i < CODE_RANDOM; i++)
        code[i] = alphabet[random[i] & 31];
    gnutls_memset(random, 0, sizeof random);
    return add_check(code);
}

void code_show(const char *code, char text[CODE_TEXT_LEN + 1])
{
    size_t n = 0;
    for (unsigned i = 0; i < CODE_LEN; i++) {
        if (i > 0 && i % 4 == 0)
            text[n++] = '-';
        text[n++] = code[i];
    }
    text[n] = 0;
}

static char as_meant(char c)
{
    c = (char)toupper((unsigned char)c);
    return c == 'O' ? '0' : c == 'I' || c == 'L' ? '1' : c;
}

bool code_read(const char *text, char code[CODE_LEN + 1])
{
    char checked[CODE_LEN + 1];
    size_t n = 0;
    for (; *text; text++) {
        char c = as_meant(*text);
        if (c == '-' || c == ' ' || c == '\t' || c == '\r' || c == '\n')
            continue;
        if (n == CODE_LEN || !strchr(alphabet, c))
            return false;
        code[n++] = c;
    }
    code[n] = 0;
    memcpy(checked, code, sizeof checked);
    bool good = n == CODE_LEN && add_check(checked) && strcmp(checked, code) == 0;
    gnutls_memset(checked, 0, sizeof checked);
    return good;
}

/* ---- proofs ---- */

bool pairing_proof(const char *code, enum pairing_side side, const struct pairing_facts *facts,
                   const char *name, uint8_t proof[PAIRING_PROOF_LEN])
{
    gnutls_hmac_hd_t hmac;
    uint8_t side_byte = (uint8_t)side;
    if (gnutls_hmac_init(&hmac, GNUTLS_MAC_SHA256, code, CODE_LEN) < 0)
        return false;
    /* Every part but the last has a fixed length, so that no two different inputs are the same bytes. */
    bool done = gnutls_hmac(hmac, label, sizeof label) >= 0 && gnutls_hmac(hmac, &side_byte, 1) >= 0 &&
                gnutls_hmac(hmac, facts->exporter, PAIRING_EXPORTER_LEN) >= 0 &&
                gnutls_hmac(hmac, facts->inviter_key, KEY_LEN) >= 0 &&
                gnutls_hmac(hmac, facts->joiner_key, KEY_LEN) >= 0 &&
                gnutls_hmac(hmac, name, strlen(name)) >= 0;
    gnutls_hmac_deinit(hmac, proof);
    return done;
}

bool pairing_check(const char *code, enum pairing_side side, const struct pairing_facts *facts,
                   const char *name, const uint8_t *proof, size_t len)
{
    uint8_t wanted[PAIRING_PROOF_LEN];
    bool same = len == sizeof wanted && pairing_proof(code, side, facts, name, wanted) &&
                gnutls_memcmp(wanted, proof, sizeof wanted) == 0;
    gnutls_memset(wanted, 0, sizeof wanted);
    return same;
}

/* ---- invitations ---- */

bool invitation_open(struct invitation *invitation, unsigned may, int64_t now_us)
{
    invitation_close(invitation);
    if (!code_new(invitation->code))
        return false;
    invitation->open = true;
    invitation->until_us = now_us + PAIRING_LIFE_US;
    invitation->tries = PAIRING_TRIES;
    invitation->may = may;
    return true;
}

void invitation_close(struct invitation *invitation)
{
    gnutls_memset(invitation, 0, sizeof *invitation);
}

bool invitation_is_open(struct invitation *invitation, int64_t now_us)
{
    if (invitation->open && (now_us >= invitation->until_us || invitation->tries == 0))
        invitation_close(invitation);
    return invitation->open;
}

bool invitation_check(struct invitation *invitation, const struct pairing_facts *facts, const char *name,
                      const uint8_t *proof, size_t len, int64_t now_us)
{
    if (!invitation_is_open(invitation, now_us))
        return false;
    if (pairing_check(invitation->code, PAIRING_JOINER, facts, name, proof, len))
        return true;
    if (--invitation->tries == 0)
        invitation_close(invitation);
    return false;
}
