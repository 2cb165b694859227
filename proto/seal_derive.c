/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See seal_derive.h. What is derived is named by a prefix, the purpose with its NUL, and the context. */
#include "proto/seal_derive.h"

#include <errno.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <string.h>

#define PREFIX       "understudy 1 "
#define INFO_MAX_LEN (64u + 128u)

int seal_derive(const uint8_t secret[SEAL_SECRET_LEN], const char *purpose, const void *context,
                size_t context_len, uint8_t *out, size_t len)
{
    uint8_t info[INFO_MAX_LEN];
    size_t prefix_len = strlen(PREFIX), purpose_len = strlen(purpose) + 1; /* its NUL ends it */
    if (prefix_len + purpose_len + context_len > sizeof info)
        return -EINVAL;
    memcpy(info, PREFIX, prefix_len);
    memcpy(info + prefix_len, purpose, purpose_len);
    if (context_len)
        memcpy(info + prefix_len + purpose_len, context, context_len);
    const gnutls_datum_t key = {(unsigned char *)secret, SEAL_SECRET_LEN};
    const gnutls_datum_t data = {info, (unsigned)(prefix_len + purpose_len + context_len)};
    return gnutls_hkdf_expand(GNUTLS_MAC_SHA256, &key, &data, out, len) < 0 ? -EIO : 0;
}

void seal_wipe(void *at, size_t len)
{
    gnutls_memset(at, 0, len);
}
