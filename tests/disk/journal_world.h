/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the journal's tests play with: epochs of random writes, zeroes and trims that follow from a seed and
 * their number alone, the images they change, and a model of those in memory.
 */
#ifndef UNDERSTUDY_TESTS_DISK_JOURNAL_WORLD_H
#define UNDERSTUDY_TESTS_DISK_JOURNAL_WORLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "checkpoint/disk/disk_image.h"
#include "checkpoint/disk/disk_journal_internal.h"

#define WORLD_DISKS     2u
#define WORLD_DISK_LEN  (128u << 10)
#define WORLD_MAX_EPOCH (64u << 10) /* bytes of an epoch's stream */

struct world {
    uint64_t seed;
    bool uniform; /* every epoch is one write of 1 KiB: 64 entries fill 72 KiB, so those of different rounds
                     line up */
    char journal_path[96], image_path[WORLD_DISKS][96];
    struct disk_image *image[WORLD_DISKS];
    uint8_t model[WORLD_DISKS][WORLD_DISK_LEN];
    uint64_t epoch; /* of the model */
};

uint64_t world_random(uint64_t *state);
/* New images of zeroes in folder, the model at epoch 0. */
void world_open(struct world *world, const char *folder, uint64_t seed);
void world_close(struct world *world);
void world_open_images(struct world *world);
void world_close_images(struct world *world);
void world_sync_images(const struct world *world);

/* The stream of an epoch, in buffer (WORLD_MAX_EPOCH); cut in two at a random place. */
void world_epoch(const struct world *world, uint64_t epoch, uint8_t *buffer, struct disk_stream *out);
/* A disk_journal_apply; opaque is the world. The first nrecords records only. */
int world_apply(void *opaque, uint64_t term, uint64_t epoch, const struct disk_stream *writes);
int world_apply_some(struct world *world, const struct disk_stream *writes, unsigned nrecords);
unsigned world_nrecords(const struct disk_stream *writes);
/* Takes the model to a later epoch. */
void world_advance(struct world *world, uint64_t epoch);
/* Whether the images are the model. */
bool world_is_model(const struct world *world);

#endif
