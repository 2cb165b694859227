/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The replicator's half of one disk, for tests: shared memory, image, dirty-block map and eventfd in a folder
 * of its own, orders, and a consumer that applies the ring's records to a model of the image in memory.
 */
#ifndef UNDERSTUDY_TESTS_DISK_FIXTURE_H
#define UNDERSTUDY_TESTS_DISK_FIXTURE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "checkpoint/disk/disk_map.h"
#include "checkpoint/disk/disk_record.h"
#include "replicator/disk/disk_log.h"
#include "replicator/disk/plugin/disk_log_write.h"

struct disk_fixture {
    char folder[64], image_path[96], map_path[96], socket_path[96];
    struct disk_shm *shm;
    size_t shm_len;
    uint64_t export_len, ring_len;
    struct disk_log_descriptors fds;
    struct disk_map *map;
    uint8_t *model;       /* the image as the ring's consumed records make it */
    struct disk_log *log; /* a producer in this process, or NULL */
    pid_t nbdkit;         /* or 0 */
    uint64_t nrecords;    /* consumed so far */
    /* Called for each record that is consumed, if not NULL. */
    void (*on_record)(void *opaque, const struct disk_record *record);
    void *opaque;
};

/* A sparse image of export_len zeroes. folder_in: where its folder is made; NULL for $TMPDIR or /tmp. */
void disk_fixture_open(struct disk_fixture *fixture, const char *folder_in, uint64_t export_len,
                       uint64_t ring_len);
/* Ends what was started, removes the folder. */
void disk_fixture_close(struct disk_fixture *fixture);

/* A producer in this process. */
void disk_fixture_start(struct disk_fixture *fixture);
void disk_fixture_stop(struct disk_fixture *fixture);
/* nbdkit with the plugin at path and filter arguments (NULL-terminated, may be NULL); serves when it returns.
 */
void disk_fixture_start_nbdkit(struct disk_fixture *fixture, const char *plugin, char *const *filters);
/* SIGKILL or SIGTERM, and its end. Returns the wait status. */
int disk_fixture_end_nbdkit(struct disk_fixture *fixture, int signal);

/* Fills in an order and raises wanted_seq; await waits until it is in force. */
void disk_fixture_order(struct disk_fixture *fixture, uint32_t flags, uint32_t map);
void disk_fixture_await(struct disk_fixture *fixture);
/* Waits until the plugin has signalled all of bits; takes them. */
void disk_fixture_await_attention(struct disk_fixture *fixture, uint32_t bits);
/* Applies [tail, upto) to the model and moves tail. False if that is no well-formed stream of records. */
bool disk_fixture_consume(struct disk_fixture *fixture, uint64_t upto);
/* The first byte where image and model differ, or -1. */
int64_t disk_fixture_difference(struct disk_fixture *fixture);
/* Whether the chunk is set in one of the map's two bitmaps. */
bool disk_fixture_is_marked(struct disk_fixture *fixture, unsigned which, uint64_t offset);

#endif
