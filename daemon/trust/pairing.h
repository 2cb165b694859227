/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Pairing: two hosts that know nothing of each other exchange their public keys under a one-time code, which
 * an administrator carries from one to the other.
 *
 *   inviter                                        joiner
 *   makes a code, shows it       --- by hand --->  gets the code
 *        <=== TLS 1.3, both ends show their keys, neither knows the other's ===>
 *        <--------------------------- PairJoin { name, proof of the joiner }
 *   checks it, trusts the joiner
 *        PairWelcome { name, proof of the inviter } --------------------------->
 *                                                  checks it, trusts the inviter
 *
 * A proof is HMAC-SHA-256 with the code as its key over: which side it is of, the TLS exporter (RFC 8446,
 * 7.5) of this connection, the public keys of both ends as this end sees them, and the sender's name.
 *
 * Why a man in the middle gains nothing: he ends two TLS connections, one with each host. Their exporters
 * differ, since each depends on ephemeral keys of both of its ends, and in each one host sees his key instead
 * of the other host's. So a proof that he receives is not the one that he would have to send, and he cannot
 * make that one without the code. The two sides' proofs differ, so he cannot send one back to its maker. He
 * may try all codes against a proof that he has seen, but a code has 130 random bits: no password protocol
 * (PAKE) is needed for a secret of that length. A host stores a key only after it has checked a proof.
 *
 * An invitation ends after PAIRING_LIFE_US, when it has been used, when the next one is made, and after
 * PAIRING_TRIES wrong proofs. There is one at a time. Wrong proofs do not end it at once, since everybody who
 * reaches the port can send them; PAIRING_TRIES guesses of 2^130 are no risk.
 *
 * Everything here is pure: the time comes in as an argument. One thread.
 */
#ifndef UNDERSTUDY_DAEMON_TRUST_PAIRING_H
#define UNDERSTUDY_DAEMON_TRUST_PAIRING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/trust/key.h"

#define PAIRING_LIFE_US      (600ll * 1000000)
#define PAIRING_TRIES        5u
#define PAIRING_PROOF_LEN    32u
#define PAIRING_EXPORTER_LEN 32u

/* A code: CODE_RANDOM random characters of 5 bits, and CODE_CHECK that show a misspelt one. */
#define CODE_RANDOM   26u
#define CODE_CHECK    2u
#define CODE_LEN      (CODE_RANDOM + CODE_CHECK)
#define CODE_TEXT_LEN (CODE_LEN + CODE_LEN / 4 - 1) /* as shown: XXXX-XXXX-... */

/* Makes a code, with its NUL. False: there are no random numbers. Wipe it (gnutls_memset). */
bool code_new(char code[CODE_LEN + 1]);
/* Writes the code as it is shown, with its NUL. */
void code_show(const char *code, char text[CODE_TEXT_LEN + 1]);
/* Reads what a person has typed: capitals or not, with or without hyphens and spaces; O is 0, I and L are 1.
 * False: it is no code, or a misspelt one. */
bool code_read(const char *text, char code[CODE_LEN + 1]);

enum pairing_side { PAIRING_JOINER = 'j', PAIRING_INVITER = 'i' };
/* What both ends of the connection know of it. */
struct pairing_facts {
    const uint8_t *exporter;    /* PAIRING_EXPORTER_LEN bytes */
    const uint8_t *inviter_key; /* KEY_LEN bytes each */
    const uint8_t *joiner_key;
};
/* Computes the proof that this side sends. False: out of memory. */
bool pairing_proof(const char *code, enum pairing_side side, const struct pairing_facts *facts,
                   const char *name, uint8_t proof[PAIRING_PROOF_LEN]);
/* Checks a proof of the other side, of len bytes, in constant time. */
bool pairing_check(const char *code, enum pairing_side side, const struct pairing_facts *facts,
                   const char *name, const uint8_t *proof, size_t len);

/* An invitation. All zero: there is none. */
struct invitation {
    bool open;
    char code[CODE_LEN + 1];
    int64_t until_us;
    unsigned tries; /* that are left */
    unsigned may;   /* roles that the joiner gets */
};
/* Opens one with a new code, in the place of an older one. False: there are no random numbers. */
bool invitation_open(struct invitation *invitation, unsigned may, int64_t now_us);
/* Returns whether the invitation is open now. Wipes it if it has expired. */
bool invitation_is_open(struct invitation *invitation, int64_t now_us);
void invitation_close(struct invitation *invitation);
/* Checks a joiner's proof. True: the invitation stays open, so that its code makes the inviter's proof; the
 * caller closes it. False: it was wrong, which is counted. */
bool invitation_check(struct invitation *invitation, const struct pairing_facts *facts, const char *name,
                      const uint8_t *proof, size_t len, int64_t now_us);

#endif
