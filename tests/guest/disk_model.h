/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the disk workload writes, known to the guest that writes it, to the client that hears of it and to the
 * checker that reads the image afterwards.
 *
 * Several streams run side by side, each on data of its own. Stream t carries out its operations 1, 2, 3, ...
 * one after the other, each durable before the next begins, and says so to the client. Which operation is
 * number s, and where, is a pure function of (nonce, t, s). So from a number alone the checker knows what has
 * to be on the disk, block by block: an image is right only if there is an s, at least the last one that the
 * client heard of, such that all operations before s are there in full and s itself in full or in part.
 *
 * Each operation also has an accident: a number that the guest takes from its clock, so a guest set back to
 * an earlier moment takes another one. The chain is a hash of all accidents up to an operation. It stands in
 * the blocks and the client computes it from what it hears: a guest that went back behind something it had
 * said, and repeats it, is found out by its chain, even where its TCP stack repeats the very same sequence
 * numbers.
 *
 * Files of stream t on a file system: "t", nblocks long, and small ones "t.0" to "t.7" of one block that are
 * replaced by renaming. On a bare disk: the disk's first nblocks.
 */
#ifndef UNDERSTUDY_TESTS_DISK_MODEL_H
#define UNDERSTUDY_TESTS_DISK_MODEL_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define MODEL_PORT        7001
#define MODEL_BLOCK_LEN   4096u
#define MODEL_MAX_STREAMS 16u
#define MODEL_SMALL_FILES 8u
#define MODEL_MAX_BLOCKS  256u                  /* of one operation's write: 1 MiB */
#define MODEL_MAGIC       0x314b4c4253494455ull /* "UDISBLK1" */

enum model_kind {
    MODEL_WRITE,    /* blocks [first, first + nblocks) of the main file */
    MODEL_REPLACE,  /* small file `first`, by renaming a new one over it */
    MODEL_PUNCH,    /* the blocks become a hole */
    MODEL_TRUNCATE, /* the main file is cut at first and grown again: zeroes from there on */
    MODEL_ZERO,     /* the blocks are zeroed (write zeroes on a bare disk) */
    MODEL_DISCARD,  /* bare disk: afterwards they may hold anything that they ever held, or zeroes */
};

struct model_operation {
    enum model_kind kind;
    uint64_t first, nblocks;
};

struct model_block {
    uint64_t magic, nonce, seq, chain;
    uint32_t stream, small; /* small: 0 main file, else 1 + number of the small file */
    uint64_t block;
    uint64_t check; /* of all the other words */
    uint64_t body[505];
};
_Static_assert(sizeof(struct model_block) == MODEL_BLOCK_LEN, "a block");

static inline uint64_t model_mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15ull;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

static inline uint64_t model_chain(uint64_t chain, uint64_t accident)
{
    return model_mix(chain ^ model_mix(accident));
}

/* Half of the writes are one block, some are up to 1 MiB; every offset is as likely as any. */
static inline struct model_operation model_operation_of(uint64_t nonce, uint32_t stream, uint64_t seq,
                                                        uint64_t nblocks, bool bare)
{
    uint64_t dice = model_mix(nonce ^ model_mix(stream + 1) ^ model_mix(seq << 8));
    uint64_t more = model_mix(dice);
    unsigned percent = (unsigned)(dice % 100), size = (unsigned)(dice / 100 % 100);
    struct model_operation operation = {.kind = MODEL_WRITE};
    operation.nblocks = size < 50 ? 1 : size < 85 ? 1 + more % 16 : 1 + more % MODEL_MAX_BLOCKS;
    more = model_mix(more);
    if (!bare && percent < 12) {
        operation.kind = MODEL_REPLACE;
        operation.first = more % MODEL_SMALL_FILES;
        operation.nblocks = 1;
        return operation;
    }
    if (!bare && percent < 16) {
        operation.kind = MODEL_TRUNCATE;
        operation.nblocks = 1 + more % (nblocks / 8);
        operation.first = nblocks - operation.nblocks;
        return operation;
    }
    if (percent < 24)
        operation.kind = bare ? MODEL_DISCARD : MODEL_PUNCH;
    else if (percent < 28)
        operation.kind = MODEL_ZERO;
    if (operation.nblocks > nblocks)
        operation.nblocks = nblocks;
    operation.first = more % (nblocks - operation.nblocks + 1);
    return operation;
}

static inline uint64_t model_check(const struct model_block *block)
{
    uint64_t words[MODEL_BLOCK_LEN / 8], sum = 0x243f6a8885a308d3ull;
    memcpy(words, block, sizeof words);
    for (unsigned i = 0; i < MODEL_BLOCK_LEN / 8; i++) {
        if (i == offsetof(struct model_block, check) / 8)
            continue;
        sum = (sum ^ words[i]) * 0x9e3779b97f4a7c15ull;
        sum ^= sum >> 29;
    }
    return sum;
}

static inline void model_fill(struct model_block *block, uint64_t nonce, uint32_t stream, uint32_t small,
                              uint64_t number, uint64_t seq, uint64_t chain)
{
    uint64_t x = model_mix(nonce ^ chain ^ model_mix(number)) | 1;
    *block = (struct model_block){.magic = MODEL_MAGIC,
                                  .nonce = nonce,
                                  .seq = seq,
                                  .chain = chain,
                                  .stream = stream,
                                  .small = small,
                                  .block = number};
    for (unsigned i = 0; i < sizeof block->body / 8; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        block->body[i] = x;
    }
    block->check = model_check(block);
}

static inline bool model_is_zero(const struct model_block *block)
{
    const uint8_t *bytes = (const uint8_t *)block;
    return bytes[0] == 0 && memcmp(bytes, bytes + 1, MODEL_BLOCK_LEN - 1) == 0;
}

/* Whether it is a block of this place, whole. */
static inline bool model_is_whole(const struct model_block *block, uint64_t nonce, uint32_t stream,
                                  uint32_t small, uint64_t number)
{
    return block->magic == MODEL_MAGIC && block->nonce == nonce && block->stream == stream &&
           block->small == small && block->block == number && block->check == model_check(block);
}

#endif
