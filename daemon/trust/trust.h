/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Whom this host trusts: its own key (key.h), the hosts that it knows (store.h), an open invitation
 * (pairing.h) and the TLS sessions with other hosts, so that those of a host that is removed end at once.
 */
#ifndef UNDERSTUDY_DAEMON_TRUST_TRUST_H
#define UNDERSTUDY_DAEMON_TRUST_TRUST_H

#include "daemon/trust/door.h"
#include "daemon/trust/pairing.h"
#include "daemon/trust/store.h"

struct trust;

/* Opens the configuration folder; makes it, and the key, if they are not there. NULL with a sentence. */
struct trust *trust_open(const char *dir, GError **error);
void trust_free(struct trust *trust);

/* Returns the functions of the peers' port, which belong to trust. */
const struct door *trust_door(const struct trust *trust);
const uint8_t *trust_own_key(const struct trust *trust);
struct store *trust_store(const struct trust *trust);

/* Ends the sessions with the host of this key. Any thread. */
void trust_end_sessions(struct trust *trust, const uint8_t *key);

/* Opens an invitation: the joiner gets the roles `may`. False with a sentence. Any thread. */
bool trust_invite(struct trust *trust, unsigned may, char code[CODE_TEXT_LEN + 1], GError **error);
/*
 * Answers a joiner's PairJoin. If its proof is right, trusts it, ends the invitation, and sets *kept and
 * *proof, this host's own. name: this host's. False with a sentence. Any thread; does not wait for the
 * joiner.
 */
bool trust_welcome(struct trust *trust, struct stream *stream, const Understudy__PairJoin *join,
                   const char *name, struct trusted *kept, uint8_t proof[PAIRING_PROOF_LEN], GError **error);
/*
 * Pairs with the host at the other end of fd, which it takes over, by its code (code_read). name: this
 * host's; may: the roles that the other one gets. *kept: whom this host trusts now. False with a sentence.
 * Blocks until until_us at most; any thread but the main one.
 */
bool trust_join(struct trust *trust, int fd, const char *code, const char *name, unsigned may,
                int64_t until_us, struct trusted *kept, GError **error);

#endif
