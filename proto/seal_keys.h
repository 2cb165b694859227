/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Derives all keys of a VM's data plane from the secret that the two daemons agreed on, and proves to the
 * other side of a new link that this side knows the secret. HKDF and HMAC with SHA-256, by GnuTLS.
 *
 * A link begins with two messages in the clear. The side that dials sends an opening: a fresh random number
 * (nonce), its role, the ciphers that it has, and a proof over them. The side that accepts says nothing to
 * one that cannot prove that it knows the secret. Otherwise it sends an answer: its own nonce, its role, the
 * cipher that it has chosen, and a proof over the opening and the answer. Everything after that is sealed
 * (proto/seal.h) with keys that depend on the secret, on both nonces, on both roles and on the cipher. An
 * opening can be recorded and played again: who does that gets an answer, and cannot seal what must follow.
 * An opening or an answer that is sent back to its sender proves nothing: the two have different keys.
 *
 * Pure, apart from seal_opening_make and seal_answer_make, which take random bytes from the kernel. Any
 * thread. Functions return 0 or -errno unless they say otherwise. Bytes of the other side are untrusted.
 */
#ifndef UNDERSTUDY_PROTO_SEAL_KEYS_H
#define UNDERSTUDY_PROTO_SEAL_KEYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/seal.h"

#define SEAL_NONCE_LEN     32u
#define SEAL_VERSION       1u
#define SEAL_HANDSHAKE_LEN 64u /* of an opening, and of an answer */

/* ---- a new link ---- */

/* What a link's keys depend on besides the secret. The roles are enum wire_role. */
struct seal_meeting {
    uint8_t opening[SEAL_HANDSHAKE_LEN], answer[SEAL_HANDSHAKE_LEN];
    uint32_t opener_role, answerer_role;
    enum seal_cipher cipher; /* once it is answered */
    uint32_t offered;        /* bits 1 << enum seal_cipher */
};

/* Returns the ciphers (bits 1 << enum seal_cipher) that this host's processor is good at; ChaCha20 always. */
uint32_t seal_ciphers_here(void);

/* The side that dials: fills meeting->opening. */
int seal_opening_make(struct seal_meeting *meeting, const uint8_t secret[SEAL_SECRET_LEN], uint32_t role,
                      uint32_t ciphers);
/*
 * The side that accepts: checks an opening, and keeps it. -EPROTO: it is none. -EPROTONOSUPPORT: it is of
 * another version. -EACCES: its sender does not know the secret.
 */
int seal_opening_take(struct seal_meeting *meeting, const uint8_t secret[SEAL_SECRET_LEN],
                      const uint8_t *bytes, size_t len);
/* The side that accepts: chooses the cipher, AES where both processors have it, and fills meeting->answer. */
int seal_answer_make(struct seal_meeting *meeting, const uint8_t secret[SEAL_SECRET_LEN], uint32_t role,
                     uint32_t ciphers);
/* The side that dials: checks the answer to its opening, and keeps it. Errors as for an opening. */
int seal_answer_take(struct seal_meeting *meeting, const uint8_t secret[SEAL_SECRET_LEN],
                     const uint8_t *bytes, size_t len);

/* The secrets of a link's directions, for seal_new. Wipe them after use. */
struct seal_keys {
    enum seal_cipher cipher;
    struct seal_limits limits; /* the usual ones; tests have smaller ones */
    uint8_t out[SEAL_SECRET_LEN], in[SEAL_SECRET_LEN];
    /* What does not come in the order of the rest: RDMA's bare credits. */
    uint8_t credit_out[SEAL_SECRET_LEN], credit_in[SEAL_SECRET_LEN];
};
/* Derives the keys of a meeting that was answered. dialled: for the side that dialled. */
int seal_keys_of_meeting(struct seal_keys *keys, const uint8_t secret[SEAL_SECRET_LEN],
                         const struct seal_meeting *meeting, bool dialled);

/* ---- a request for a link ---- */

/*
 * A random number and a proof. It shows that its maker knew the secret, and may be played again: who has a
 * ticket may begin with an opening.
 */
#define SEAL_TICKET_LEN (SEAL_NONCE_LEN + SEAL_TAG_LEN)
int seal_ticket_make(const uint8_t secret[SEAL_SECRET_LEN], uint8_t ticket[SEAL_TICKET_LEN]);
/* 0 or -EACCES. */
int seal_ticket_check(const uint8_t secret[SEAL_SECRET_LEN], const uint8_t ticket[SEAL_TICKET_LEN]);

/* ---- single packets ---- */

/* Makes tags for datagrams, which come in any order or not at all. One thread's at a time. */
struct seal_tagger;
/* purpose: who sends what; both sides use the same. NULL and errno. */
struct seal_tagger *seal_tagger_new(const uint8_t secret[SEAL_SECRET_LEN], const char *purpose);
void seal_tagger_free(struct seal_tagger *tagger);
/* Allocates nothing. */
int seal_tag(struct seal_tagger *tagger, const void *bytes, size_t len, uint8_t tag[SEAL_TAG_LEN]);
/* Compares in constant time. */
bool seal_tag_is_right(struct seal_tagger *tagger, const void *bytes, size_t len,
                       const uint8_t tag[SEAL_TAG_LEN]);

#endif
