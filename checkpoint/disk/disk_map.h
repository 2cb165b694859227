/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The dirty-block map of one disk on one host: which 64 KiB chunks may differ from the other host's image. It
 * is what makes a resynchronisation short: of two hosts of one pair, a chunk that is set in neither map is
 * equal on both.
 *
 * A file, mapped shared by the replicator and nbdkit, with two bitmaps. A write sets its chunks' bits in the
 * active one before the image changes. Freezing swaps them: the frozen one then has the chunks of all writes
 * up to a moment, and is cleared once the peer has applied those. What counts is the union.
 *
 * A bit set by a process that is then killed is in the page cache, as the write it speaks of is: both
 * survive, so the map is good as long as the kernel lives. After a crash of the host neither is certain: the
 * map is trusted only if it was closed cleanly or the kernel is still the one that wrote it (boot id).
 * Otherwise the synchronisation compares the hashes of all chunks.
 *
 * pair_id names the relation: both hosts' maps of one disk carry the same random id once a synchronisation
 * between them has begun; other ids mean that nothing is known of how the images
 * differ.
 *
 * Threads: bits are atomic; everything else is one thread's at a time.
 */
#ifndef UNDERSTUDY_CHECKPOINT_DISK_MAP_H
#define UNDERSTUDY_CHECKPOINT_DISK_MAP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DISK_CHUNK_LEN   65536u
#define DISK_PAIR_ID_LEN 16u

struct disk_map;

/* What says that an image is the one that the map speaks of. */
struct disk_map_image {
    uint64_t len, device, inode;
    uint32_t birth; /* when the file was made, in milliseconds, wrapped: inodes are used again. 0: unknown */
    int64_t mtime_ns; /* compared only after a clean close */
};

/*
 * Opens the map at path, or makes a new one. A map that is missing, torn, of another size, of another image
 * or of an unclean end on another boot becomes an empty one that is not trusted. From here on it counts as
 * unclean. 0 or -errno.
 */
int disk_map_open(struct disk_map **out, const char *path, const struct disk_map_image *image);
/*
 * Closes the map. With clean, the image has been synced and is as image says; otherwise the map stays
 * marked as in use.
 */
void disk_map_close(struct disk_map *map, const struct disk_map_image *clean);
int disk_map_fd(const struct disk_map *map);
uint64_t disk_map_nchunks(const struct disk_map *map);
/* True if, with a peer of the same pair_id, unset bits mean equal chunks. */
bool disk_map_trusted(const struct disk_map *map);
const uint8_t *disk_map_pair_id(const struct disk_map *map);
/* From now on the map is one of this pair, and trusted; on disk when it returns. 0 or -errno. */
int disk_map_set_pair(struct disk_map *map, const uint8_t pair_id[DISK_PAIR_ID_LEN]);

/* The bitmap (which: 0 or 1) as atomic words; bit b of word w is chunk 64 * w + b. Bits beyond nchunks stay
 * 0. */
_Atomic uint64_t *disk_map_words(struct disk_map *map, unsigned which, size_t *nwords);
void disk_map_set_all(struct disk_map *map, unsigned which);
void disk_map_clear_all(struct disk_map *map, unsigned which);
/* Adds the other bitmap's bits to this one, and clears the other. */
void disk_map_merge(struct disk_map *map, unsigned which);
uint64_t disk_map_count(struct disk_map *map, unsigned which);

/* ---- for nbdkit, which is given the map's fd ---- */
/* The bitmaps of a map file that another process has open and keeps. 0 or -errno. Unmapped at exit. */
struct disk_map_view {
    _Atomic uint64_t *words[2];
    uint64_t nchunks;
};
int disk_map_attach(struct disk_map_view *view, int fd);
/* Sets the bits of [offset, offset + len). Any thread. */
void disk_map_mark(const struct disk_map_view *view, unsigned which, uint64_t offset, uint64_t len);

#endif
