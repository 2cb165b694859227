/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Seals records: encrypts them and gives each a tag (AEAD, by GnuTLS). A struct seal is one direction of one
 * link; the side that sends closes records with it, the other side opens them with its own. The record's
 * number in its direction is the nonce, and a label says what the record is. So a record that was changed,
 * cut short, left out, sent twice, moved, sent back, or passed off as a part of another message, epoch or
 * term is found when it is opened.
 *
 * Keys change after a number of records or of bytes (struct seal_limits), which both sides count alike: they
 * change to the next key at the same record, without a message and without a pause. The next key is derived
 * from the one before, which is forgotten.
 *
 * Pure: no system call, no clock. After seal_new only a change of keys allocates, a few hundred bytes. A
 * struct seal is one thread's at a time. Functions return 0 or -errno unless they say otherwise.
 */
#ifndef UNDERSTUDY_PROTO_SEAL_H
#define UNDERSTUDY_PROTO_SEAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "proto/seal_derive.h"

#define SEAL_TAG_LEN 16u
/* Longer parts of a message are cut into records of this length, so that each is still in the cache. */
#define SEAL_SEGMENT_LEN (64u << 10)

/* Numbers on the wire. */
enum seal_cipher {
    SEAL_NO_CIPHER = 0,
    SEAL_AES_128_GCM = 1,
    SEAL_CHACHA20_POLY1305 =
        2, /* where a host's processor has no instructions for AES; about a tenth as fast */
};

/* A name for people. */
const char *seal_cipher_name(enum seal_cipher cipher);

/* What one key seals at most, and one direction. */
struct seal_limits {
    uint64_t records, bytes; /* of a key */
    uint64_t total;          /* records of a direction: then its numbers are used up */
};
/*
 * The limits of all links. One key seals at most 2^28 records and 64 GiB, well below what AES-GCM bears
 * (about 2^32 records, or 350 GB for a chance of 2^-57 to tell what it makes from random bytes).
 */
extern const struct seal_limits seal_limits_usual;

/* What a record is. The label is not sent; both sides know it. */
struct seal_label {
    uint32_t kind;    /* enum message_type, 0: the record says what follows */
    uint32_t segment; /* which part of the message */
    uint64_t term, epoch;
};

struct seal;

/* Makes a direction. secret is copied, the caller wipes its own. limits is copied. NULL and errno. */
struct seal *seal_new(enum seal_cipher cipher, const uint8_t secret[SEAL_SECRET_LEN],
                      const struct seal_limits *limits);
/* Wipes the keys. NULL is allowed. */
void seal_free(struct seal *seal);

/*
 * Seals a record where it stands. -EOVERFLOW: the direction's numbers are used up, the link has to be made
 * again.
 */
int seal_close(struct seal *seal, const struct seal_label *label, const struct iovec *iov, int count,
               uint8_t tag[SEAL_TAG_LEN]);
/* Seals a record into another buffer, which gets its bytes and then the tag. The plain bytes stay. */
int seal_close_to(struct seal *seal, const struct seal_label *label, const struct iovec *iov, int count,
                  uint8_t *out);
/*
 * Opens a record where it stands. -EBADMSG: it is not the next one of this direction, with this label. Then
 * the bytes mean nothing, and nothing more is opened: what follows cannot be told from a forgery. The memory
 * must not be one that others can write.
 */
int seal_open(struct seal *seal, const struct seal_label *label, const struct iovec *iov, int count,
              const uint8_t tag[SEAL_TAG_LEN]);
/* Returns how often the key has changed. */
uint64_t seal_key_changes(const struct seal *seal);

#endif
