/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Says whether a disk holds what the client was told that it does. tests/guest/disk_model.h explains why a
 * sequence number is enough to know every block.
 *
 *   understudy-disk-check LOG FOLDER [--bare FILE] [--stopped | --may-lag]
 *
 * LOG is the client's. FOLDER has the files of the disk's file system ("-": there is none), FILE is the image
 * of the disk without one. For each stream there must be an operation S such that the disk has all before S
 * in full, S in full or in part, and nothing after it.
 *
 *   by default   S is the last one that the client heard of, or a later one: the guest ended at an unknown
 * moment
 *   --stopped    the guest was stopped: S is the last one heard of, in full
 *   --may-lag    S is any: an image that is whole but may be older
 *
 * Prints one line a stream. Exit status 0: so it is; 1: it is not; 2: it could not be found out.
 */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "tests/guest/disk_model.h"

#define ANYTHING UINT64_MAX /* after a discard */
#define LOOK_AHEAD                                                                                           \
    2000u /* operations that may follow the newest one found without leaving a mark of their own */

/* What was found in one place of the disk. */
struct found {
    uint64_t seq, chain; /* seq 0: zeroes, or no small file; ANYTHING: no block of this place */
};

struct stream {
    uint64_t heard, capacity, *chains; /* chains[s]: after operation s, as heard */
    uint64_t newest;                   /* operation found on the disk */
    struct found *blocks, small[MODEL_SMALL_FILES];
};

struct state { /* operations by which a place was last changed */
    uint64_t *blocks, small[MODEL_SMALL_FILES];
};

static unsigned nstreams;
static uint64_t nonce, nblocks;
static bool bare;
static struct stream streams[MODEL_MAX_STREAMS];

static void die(const char *what)
{
    fprintf(stderr, "disk-check: %s: %s\n", what, strerror(errno));
    exit(2);
}

static void *allocate(size_t n, size_t len)
{
    void *memory = calloc(n, len);
    if (!memory)
        die("memory");
    return memory;
}

static void read_log(const char *path)
{
    unsigned t;
    int has_bare;
    unsigned long long a, b;
    char line[128];
    FILE *log = fopen(path, "re");
    if (!log || !fgets(line, sizeof line, log) ||
        sscanf(line, "nonce %llu streams %u blocks %llu bare %d", &a, &nstreams, &b, &has_bare) != 4 ||
        nstreams > MODEL_MAX_STREAMS || b < MODEL_MAX_BLOCKS || b > 1u << 24)
        die(path);
    nonce = a;
    nblocks = b;
    bare = has_bare;
    while (fgets(line, sizeof line, log)) {
        if (sscanf(line, "%u %llu %llu", &t, &a, &b) != 3 || t >= nstreams || a != streams[t].heard + 1)
            die("the log is not one operation after the other");
        struct stream *stream = &streams[t];
        if (a + 1 > stream->capacity) {
            stream->capacity = stream->capacity ? 2 * stream->capacity : 4096;
            stream->chains = realloc(stream->chains, stream->capacity * sizeof *stream->chains);
            if (!stream->chains)
                die("memory");
            stream->chains[0] = 0;
        }
        stream->chains[a] = model_chain(stream->chains[a - 1], b);
        stream->heard = a;
    }
    fclose(log);
}

static struct found look_at(struct stream *stream, unsigned t, uint32_t small, uint64_t number,
                            const struct model_block *block)
{
    struct found found = {.seq = ANYTHING};
    if (model_is_zero(block))
        found.seq = 0;
    else if (model_is_whole(block, nonce, t, small, number))
        found = (struct found){.seq = block->seq, .chain = block->chain};
    if (found.seq != ANYTHING && found.seq > stream->newest)
        stream->newest = found.seq;
    return found;
}

/* What is beyond the end reads as zeroes: a file cut and not yet grown again. */
static void read_blocks(struct stream *stream, unsigned t, const char *path)
{
    struct model_block block;
    FILE *file = fopen(path, "re");
    if (!file)
        die(path);
    stream->blocks = allocate(nblocks, sizeof *stream->blocks);
    for (uint64_t i = 0; i < nblocks && fread(&block, sizeof block, 1, file) == 1; i++)
        stream->blocks[i] = look_at(stream, t, 0, i, &block);
    fclose(file);
}

static void read_small(struct stream *stream, unsigned t, uint32_t small, const char *path)
{
    struct model_block block = {0};
    FILE *file = fopen(path, "re");
    if (!file && errno != ENOENT)
        die(path);
    if (!file)
        return;
    if (fread(&block, sizeof block, 1, file) == 1)
        stream->small[small] = look_at(stream, t, small + 1, 0, &block);
    else
        stream->small[small].seq = ANYTHING;
    fclose(file);
}

static void read_disk(const char *folder, const char *bare_file)
{
    char path[4096];
    for (unsigned t = 0; t < nstreams; t++) {
        bool is_bare = bare && t == nstreams - 1;
        if (is_bare && !bare_file) {
            errno = EINVAL;
            die("--bare is missing");
        }
        snprintf(path, sizeof path, "%s/%u", folder, t);
        read_blocks(&streams[t], t, is_bare ? bare_file : path);
        for (uint32_t small = 0; !is_bare && small < MODEL_SMALL_FILES; small++) {
            snprintf(path, sizeof path, "%s/%u.%u", folder, t, small);
            read_small(&streams[t], t, small, path);
        }
    }
}

static void carry_out(struct state *state, unsigned t, uint64_t seq, bool is_bare)
{
    struct model_operation operation = model_operation_of(nonce, t, seq, nblocks, is_bare);
    uint64_t now = operation.kind == MODEL_WRITE ? seq : operation.kind == MODEL_DISCARD ? ANYTHING : 0;
    if (operation.kind == MODEL_REPLACE)
        state->small[operation.first] = seq;
    for (uint64_t i = 0; operation.kind != MODEL_REPLACE && i < operation.nblocks; i++)
        state->blocks[operation.first + i] = now;
}

static bool is(const struct stream *stream, const struct found *found, uint64_t wanted)
{
    if (wanted == ANYTHING)
        return true;
    return found->seq == wanted &&
           (wanted == 0 || wanted > stream->heard || found->chain == stream->chains[wanted]);
}

/* The number of places that are as neither before nor after; the first of them in *where, small files behind
 * the blocks. */
static uint64_t compare(const struct stream *stream, const struct state *before, const struct state *after,
                        uint64_t *where)
{
    uint64_t wrong = 0;
    for (uint64_t i = 0; i < nblocks + MODEL_SMALL_FILES; i++) {
        bool block = i < nblocks;
        const struct found *found = block ? &stream->blocks[i] : &stream->small[i - nblocks];
        bool good = is(stream, found, block ? before->blocks[i] : before->small[i - nblocks]) ||
                    is(stream, found, block ? after->blocks[i] : after->small[i - nblocks]);
        if (!good && wrong++ == 0)
            *where = i;
    }
    return wrong;
}

/* Writes into complaint (512 bytes) what is wrong in the first of the wrong places. */
static void complain(char *complaint, const struct stream *stream, unsigned t, const struct state *after,
                     uint64_t seq, uint64_t where, uint64_t wrong)
{
    bool block = where < nblocks;
    const struct found *found = block ? &stream->blocks[where] : &stream->small[where - nblocks];
    uint64_t wanted = block ? after->blocks[where] : after->small[where - nblocks];
    char text[64];
    snprintf(text, sizeof text, "operation %llu%s", (unsigned long long)found->seq,
             found->seq == wanted ? " of a guest that was set back" : "");
    snprintf(
        complaint, 512,
        "stream %u: WRONG: heard of %llu, found up to %llu; after operation %llu %llu places differ, first "
        "%s %llu: has %s, should have operation %llu\n",
        t, (unsigned long long)stream->heard, (unsigned long long)stream->newest, (unsigned long long)seq,
        (unsigned long long)wrong, block ? "block" : "small file",
        (unsigned long long)(block ? where : where - nblocks),
        found->seq == ANYTHING ? "garbage"
        : found->seq == 0      ? "nothing"
                               : text,
        (unsigned long long)wanted);
}

static bool check(const struct stream *stream, unsigned t, bool stopped, bool may_lag)
{
    bool is_bare = bare && t == nstreams - 1;
    char complaint[512];
    uint64_t last = stream->newest > stream->heard ? stream->newest : stream->heard, where = 0, wrong = 0;
    uint64_t first = may_lag ? stream->newest : last;
    struct state before = {.blocks = allocate(nblocks, 8)}, after = {.blocks = allocate(nblocks, 8)};
    if (stopped)
        first = last = stream->heard;
    for (uint64_t seq = 1; seq <= first; seq++) {
        if (seq < first)
            carry_out(&before, t, seq, is_bare);
        carry_out(&after, t, seq, is_bare);
    }
    if (stopped && first > 0)
        carry_out(&before, t, first, is_bare);
    uint64_t seq = first;
    wrong = compare(stream, &before, &after, &where);
    if (wrong)
        complain(complaint, stream, t, &after, seq, where, wrong);
    while (wrong && !stopped && seq < last + LOOK_AHEAD) {
        if (seq > 0)
            carry_out(&before, t, seq, is_bare);
        carry_out(&after, t, ++seq, is_bare);
        wrong = compare(stream, &before, &after, &where);
    }
    if (wrong)
        fputs(complaint, stdout);
    else
        printf("stream %u: good up to operation %llu; %llu were heard of\n", t, (unsigned long long)seq,
               (unsigned long long)stream->heard);
    free(before.blocks);
    free(after.blocks);
    return wrong == 0;
}

int main(int argc, char **argv)
{
    const char *bare_file = NULL;
    bool stopped = false, may_lag = false, good = true;
    for (int i = 3; i < argc; i++) {
        if (strcmp(argv[i], "--stopped") == 0)
            stopped = true;
        else if (strcmp(argv[i], "--may-lag") == 0)
            may_lag = true;
        else if (strcmp(argv[i], "--bare") == 0 && i + 1 < argc)
            bare_file = argv[++i];
        else
            argc = 0;
    }
    if (argc < 3) {
        fprintf(stderr, "usage: understudy-disk-check LOG FOLDER [--bare FILE] [--stopped | --may-lag]\n");
        return 2;
    }
    read_log(argv[1]);
    read_disk(argv[2], bare_file);
    for (unsigned t = 0; t < nstreams; t++)
        good = check(&streams[t], t, stopped, may_lag) && good;
    return good ? 0 : 1;
}
