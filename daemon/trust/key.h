/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Keys of hosts. A host has one Ed25519 key pair. The private half is in the file `key` of the configuration
 * folder (PKCS #8, PEM, mode 0600), which is made when the daemon starts for the first time. The public half
 * is shown as one line of 44 characters (base64 of its 32 bytes).
 *
 * The private half stays in GnuTLS's memory from there on. It appears in no log, argument or environment.
 */
#ifndef UNDERSTUDY_DAEMON_TRUST_KEY_H
#define UNDERSTUDY_DAEMON_TRUST_KEY_H

#include <glib.h>
#include <gnutls/gnutls.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KEY_LEN      32u
#define KEY_TEXT_LEN 44u

/* Returns a public key as text. GLib string. Any thread. */
char *key_text(const uint8_t *key);
/* Parses such a text, which must be exactly what key_text returns. Pure. */
bool key_parse(const char *text, uint8_t *key);
/* Reads the key out of a SubjectPublicKeyInfo (RFC 8410), which must hold an Ed25519 key and nothing else.
 * Pure. */
bool key_from_spki(const uint8_t *der, size_t len, uint8_t *key);

struct host_key;

/*
 * Loads this host's key from DIR/key, or makes one, and DIR too. NULL with a sentence, for example if others
 * may read the file. Free with host_key_free.
 */
struct host_key *host_key_open(const char *dir, GError **error);
void host_key_free(struct host_key *key);
/* Returns the public half: KEY_LEN bytes. Any thread. */
const uint8_t *host_key_public(const struct host_key *key);
/* Returns the credentials for GnuTLS sessions: any number of them, on any thread. */
gnutls_certificate_credentials_t host_key_credentials(const struct host_key *key);

#endif
