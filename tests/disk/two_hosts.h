/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Two hosts with one disk each, in one process: real disks (image, map, journal, log), the plugin's own
 * producer in the place of nbdkit, a real sender and TCP transport over a socketpair between them, and the
 * guest a thread that writes. The standby's applier is played by its receiving thread.
 */
#ifndef UNDERSTUDY_TESTS_DISK_TWO_HOSTS_H
#define UNDERSTUDY_TESTS_DISK_TWO_HOSTS_H

#include <stdbool.h>
#include <stdint.h>

#include "replicator/disk/disk_sync.h"

#define TEST_DISK_LEN (12ull * DISK_CHUNK_LEN * 64 + 12345) /* windows, and a short last chunk */

struct host;
struct pair;

/* A folder, an image of TEST_DISK_LEN with random chunks and holes (seed 0: all zero), opened for this role.
 */
struct host *host_new(unsigned seed, bool standby);
/* A host with an image that others share, and one that shares it, to stand by. */
struct host *host_new_shared(unsigned seed);
struct host *host_new_sharing(const struct host *with);
/* Its processes are gone, whatever they were at; the image is unlocked. Before host_free. */
void host_kill(struct host *host);
/* As a process killed by SIGKILL leaves things: the map is not closed. Then opened again for another role. */
void host_crash(struct host *host, bool standby);
/* The map is gone, as good as after a power failure. */
void host_lose_map(struct host *host, bool standby);
void host_free(struct host *host);
/* From standby to where the guest runs. */
void host_take_over(struct host *host);
struct disks *host_disks(const struct host *host);

/* One request of the guest on this host. */
int host_write(struct host *host, uint64_t offset, uint32_t len, unsigned seed);
int host_read(struct host *host, void *buffer, uint32_t len, uint64_t offset);
int host_zero(struct host *host, uint64_t offset, uint64_t len);
/* A guest that writes at random until it is stopped. While it is paused, no request is under way. */
void guest_start(struct host *host, unsigned seed);
void guest_pause(struct host *host);
void guest_resume(struct host *host);
void guest_stop(struct host *host);

/* Connects them. */
struct pair *pair_new(struct host *primary, struct host *standby);
/* The link breaks, wherever it is. Chunks that went to the standby are counted on. */
void pair_free(struct pair *pair);
/* Steps until what is left is in the log. False: the link broke (after break_after batches, 0: never). */
bool pair_synchronise(struct pair *pair, unsigned break_after);
/* Cuts an epoch, sends it, and waits until the standby has applied it: then its image must be as ours was at
 * the cut. */
void pair_epoch(struct pair *pair);
/* Shared disks: writes are held back from here on. */
void pair_hold(struct pair *pair);
/* Cuts an epoch that the standby gets; the primary does not know that yet. */
void pair_cut_unacked(struct pair *pair);
/* Now it does: waits until the image has the epoch. */
void pair_ack(struct pair *pair);
uint64_t pair_chunks_sent(const struct pair *pair);

void assert_same_images(const struct host *a, const struct host *b);

#endif
