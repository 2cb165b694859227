/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The streams of the disk workload: each carries out its operations (disk_model.h) one after the other, makes
 * each durable, and remembers what every block must hold. disk.c begins, pauses and ends them.
 *
 * Threads: one for each stream. A stream's state is its own thread's, and that of whoever has paused all
 * streams.
 */
#ifndef UNDERSTUDY_TESTS_DISK_STREAMS_H
#define UNDERSTUDY_TESTS_DISK_STREAMS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "disk_model.h"

struct expected {
    uint64_t seq, chain; /* seq 0: zeroes, or no small file */
};

struct stream {
    uint32_t number;
    bool bare, failed;
    int fd;
    uint64_t seq, chain;
    struct expected *blocks, small[MODEL_SMALL_FILES];
    struct model_block *buffer; /* MODEL_MAX_BLOCKS of them, aligned */
};

/* All set before the first stream begins. folder "-": no file system; device NULL: no bare disk. */
struct workload {
    struct stream streams[MODEL_MAX_STREAMS];
    uint32_t nstreams, think_ms; /* think_ms: how long a stream waits after each operation */
    uint64_t nonce, nblocks;
    const char *folder, *device;
    void (*tell)(const char *line); /* any thread; may block */
};
extern struct workload workload;

/* Empty files, or an empty device; ends the program where that cannot be had. */
void stream_open(struct stream *stream, uint32_t number, bool bare);
/* Begins them all, paused. False: no threads. */
bool streams_begin(void);
/* Returns when no operation is under way; none begins until streams_resume. Nests. */
void streams_pause(void);
void streams_resume(void);
/* Everything of all streams, which are paused, from the disk itself: "verified N", or "bad" and what is. */
void streams_verify(char *answer, size_t size);

#endif
