/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The records of seal.h. Nonce: the number of the record, added (xor) to a start that is derived with the
 * key, as in TLS 1.3. Associated data: the label. One GnuTLS handle a direction, which takes each new key.
 */
#include "proto/seal.h"

#include <errno.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <stdlib.h>
#include <string.h>

#include "proto/little_endian.h"

/* Planted faults, for the tests' own test. */
#ifdef UNDERSTUDY_CHAOS
static bool fault(const char *name)
{
    const char *planted = getenv("UNDERSTUDY_SEAL_CHAOS");
    return planted && strcmp(planted, name) == 0;
}
#else
#define fault(name) false
#endif

#define NONCE_LEN   12u
#define LABEL_LEN   24u
#define MAX_KEY_LEN 32u

const struct seal_limits seal_limits_usual = {
    .records = UINT64_C(1) << 28, .bytes = UINT64_C(1) << 36, .total = UINT64_MAX};

static const struct {
    const char *name;
    gnutls_cipher_algorithm_t algorithm;
    size_t key_len;
} ciphers[] = {
    [SEAL_NO_CIPHER] = {"none", GNUTLS_CIPHER_UNKNOWN, 0},
    [SEAL_AES_128_GCM] = {"AES-128-GCM", GNUTLS_CIPHER_AES_128_GCM, 16},
    [SEAL_CHACHA20_POLY1305] = {"ChaCha20-Poly1305", GNUTLS_CIPHER_CHACHA20_POLY1305, 32},
};
#define NCIPHERS (sizeof ciphers / sizeof *ciphers)

struct seal {
    gnutls_aead_cipher_hd_t handle; /* of the present key */
    gnutls_cipher_algorithm_t algorithm;
    size_t key_len;
    struct seal_limits limits;
    uint64_t next;                   /* number of the next record, from the direction's beginning */
    uint64_t key_records, key_bytes; /* sealed with the present key */
    uint64_t key_changes;
    uint8_t secret[SEAL_SECRET_LEN]; /* that the next key is derived from */
    uint8_t nonce_start[NONCE_LEN];
    bool broken; /* a record was not right */
};

const char *seal_cipher_name(enum seal_cipher cipher)
{
    return (size_t)cipher < NCIPHERS ? ciphers[cipher].name : "unknown";
}

/* Derives the key and the start of the nonces from the secret, and then the secret of the key after it. */
static int derive(struct seal *seal, uint8_t key[MAX_KEY_LEN])
{
    uint8_t next[SEAL_SECRET_LEN];
    int status = seal_derive(seal->secret, "key", NULL, 0, key, seal->key_len);
    if (status == 0)
        status = seal_derive(seal->secret, "nonce", NULL, 0, seal->nonce_start, NONCE_LEN);
    if (status == 0)
        status = seal_derive(seal->secret, "next", NULL, 0, next, sizeof next);
    if (status == 0)
        memcpy(seal->secret, next, sizeof next);
    seal_wipe(next, sizeof next);
    return status;
}

/*
 * Makes a handle for the next key. Not gnutls_aead_cipher_set_key: with GnuTLS 3.7.9 on x86, a handle of
 * AES-GCM whose key is set again makes tags that no other handle takes for right.
 */
static int next_key(struct seal *seal, gnutls_aead_cipher_hd_t *handle)
{
    uint8_t key[MAX_KEY_LEN];
    const gnutls_datum_t datum = {key, (unsigned)seal->key_len};
    int status = derive(seal, key);
    if (status == 0 && gnutls_aead_cipher_init(handle, seal->algorithm, &datum) < 0)
        status = -ENOMEM;
    seal_wipe(key, sizeof key);
    return status;
}

static int change_key(struct seal *seal)
{
    gnutls_aead_cipher_hd_t handle;
    int status = next_key(seal, &handle);
    if (status < 0)
        return status;
    gnutls_aead_cipher_deinit(seal->handle);
    seal->handle = handle;
    seal->key_records = 0;
    seal->key_bytes = 0;
    seal->key_changes++;
    return 0;
}

struct seal *seal_new(enum seal_cipher cipher, const uint8_t secret[SEAL_SECRET_LEN],
                      const struct seal_limits *limits)
{
    if (cipher == SEAL_NO_CIPHER || (size_t)cipher >= NCIPHERS || limits->records == 0) {
        errno = EINVAL;
        return NULL;
    }
    struct seal *seal = calloc(1, sizeof *seal);
    if (!seal)
        return NULL;
    seal->algorithm = ciphers[cipher].algorithm;
    seal->key_len = ciphers[cipher].key_len;
    seal->limits = *limits;
    memcpy(seal->secret, secret, sizeof seal->secret);
    int status = next_key(seal, &seal->handle);
    if (status == 0)
        return seal;
    seal->handle = NULL;
    seal_free(seal);
    errno = -status;
    return NULL;
}

void seal_free(struct seal *seal)
{
    if (!seal)
        return;
    if (seal->handle)
        gnutls_aead_cipher_deinit(seal->handle);
    seal_wipe(seal, sizeof *seal);
    free(seal);
}

uint64_t seal_key_changes(const struct seal *seal)
{
    return seal->key_changes;
}

/* What goes into the cipher besides the record itself. */
struct around {
    uint8_t nonce[NONCE_LEN];
    uint8_t label[LABEL_LEN];
    giovec_t label_iov;
};

/* Counts the record, and changes the key where it is time. */
static int begin_record(struct seal *seal, const struct seal_label *label, const struct iovec *iov, int count,
                        struct around *around)
{
    uint64_t len = 0;
    int status = 0;
    for (int i = 0; i < count; i++)
        len += iov[i].iov_len;
    if (seal->broken)
        return -EBADMSG;
    if (seal->next >= seal->limits.total)
        return -EOVERFLOW;
    bool is_full = seal->key_records >= seal->limits.records ||
                   (seal->key_records > 0 && len > seal->limits.bytes - seal->key_bytes);
    if (is_full && !fault("keep-key"))
        status = change_key(seal);
    seal->broken = status < 0;
    seal->key_records++;
    seal->key_bytes +=
        len < seal->limits.bytes - seal->key_bytes ? len : seal->limits.bytes - seal->key_bytes;
    memcpy(around->nonce, seal->nonce_start, NONCE_LEN);
    for (unsigned i = 0; i < 8 && !fault("ignore-counter"); i++)
        around->nonce[NONCE_LEN - 1 - i] ^= (uint8_t)(seal->next >> (8 * i));
    seal->next++;
    uint8_t *at = put32(around->label, label->kind);
    at = put32(at, label->segment);
    at = put64(at, label->term);
    put64(at, label->epoch);
    around->label_iov = (giovec_t){around->label, fault("ignore-label") ? 0 : LABEL_LEN};
    return status;
}

int seal_close(struct seal *seal, const struct seal_label *label, const struct iovec *iov, int count,
               uint8_t tag[SEAL_TAG_LEN])
{
    struct around around;
    size_t tag_len = SEAL_TAG_LEN;
    int status = begin_record(seal, label, iov, count, &around);
    if (status == 0 && gnutls_aead_cipher_encryptv2(seal->handle, around.nonce, NONCE_LEN, &around.label_iov,
                                                    1, iov, count, tag, &tag_len) < 0) {
        seal->broken = true;
        status = -EIO;
    }
    return status;
}

int seal_close_to(struct seal *seal, const struct seal_label *label, const struct iovec *iov, int count,
                  uint8_t *out)
{
    struct around around;
    size_t len = SEAL_TAG_LEN;
    for (int i = 0; i < count; i++)
        len += iov[i].iov_len;
    int status = begin_record(seal, label, iov, count, &around);
    if (status == 0 && gnutls_aead_cipher_encryptv(seal->handle, around.nonce, NONCE_LEN, &around.label_iov,
                                                   1, SEAL_TAG_LEN, iov, count, out, &len) < 0) {
        seal->broken = true;
        status = -EIO;
    }
    return status;
}

int seal_open(struct seal *seal, const struct seal_label *label, const struct iovec *iov, int count,
              const uint8_t tag[SEAL_TAG_LEN])
{
    struct around around;
    int status = begin_record(seal, label, iov, count, &around);
    if (status < 0)
        return status;
    int opened = gnutls_aead_cipher_decryptv2(seal->handle, around.nonce, NONCE_LEN, &around.label_iov, 1,
                                              iov, count, (void *)tag, SEAL_TAG_LEN);
    if (fault("ignore-tag"))
        opened = 0;
    seal->broken = opened < 0;
    return opened < 0 ? -EBADMSG : 0;
}
