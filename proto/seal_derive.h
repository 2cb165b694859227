/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Derives keys from a secret (HKDF-Expand with SHA-256, by GnuTLS), and forgets secrets. Pure; any thread. */
#ifndef UNDERSTUDY_PROTO_SEAL_DERIVE_H
#define UNDERSTUDY_PROTO_SEAL_DERIVE_H

#include <stddef.h>
#include <stdint.h>

#define SEAL_SECRET_LEN 32u

/*
 * Derives len bytes for a purpose. Other purposes and other contexts give bytes that say nothing of these.
 * context may be NULL, and has at most 128 bytes. 0 or -errno.
 */
int seal_derive(const uint8_t secret[SEAL_SECRET_LEN], const char *purpose, const void *context,
                size_t context_len, uint8_t *out, size_t len);
/* Overwrites a secret; the compiler does not leave it out. */
void seal_wipe(void *at, size_t len);

#endif
