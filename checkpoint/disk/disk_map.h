/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The dirty-block map of one disk on one host says which 64 KiB chunks may differ from the other host's
 * image. A chunk that is set in neither map of a pair is equal on both hosts, so a resynchronisation skips
 * it.
 *
 * The map is a file with two bitmaps, which the replicator and nbdkit map shared. A write sets its chunks'
 * bits in the active bitmap before the image changes. Freezing swaps the bitmaps: the frozen one then has the
 * chunks of all writes up to that moment, and is cleared once the peer has applied those writes. A chunk is
 * dirty if either bitmap has it.
 *
 * A bit that a process sets before it is killed stays in the page cache, and so does the write. So the map is
 * valid as long as the kernel runs. After a crash of the host, neither the bit nor the write is certain. The
 * map is trusted only if it was closed cleanly, or if the kernel that wrote it still runs (boot id).
 * Otherwise the synchronisation compares the hashes of all chunks.
 *
 * pair_id names the pair of images: both hosts' maps of one disk have the same random id once a
 * synchronisation between them has begun. If the ids differ, nothing is known about how the images differ.
 *
 * Threads: bits are atomic; one thread at a time may use everything else.
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

/* Identifies the image that a map describes. */
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
/* Returns whether unset bits mean equal chunks, with a peer of the same pair_id. */
bool disk_map_trusted(const struct disk_map *map);
const uint8_t *disk_map_pair_id(const struct disk_map *map);
/* Makes the map one of this pair, and trusted; on disk when it returns. 0 or -errno. */
int disk_map_set_pair(struct disk_map *map, const uint8_t pair_id[DISK_PAIR_ID_LEN]);

/* Returns a bitmap (which: 0 or 1) as atomic words; bit b of word w is chunk 64 * w + b. Bits beyond nchunks
 * stay 0. */
_Atomic uint64_t *disk_map_words(struct disk_map *map, unsigned which, size_t *nwords);
void disk_map_set_all(struct disk_map *map, unsigned which);
void disk_map_clear_all(struct disk_map *map, unsigned which);
/* Adds the other bitmap's bits to this one, and clears the other. */
void disk_map_merge(struct disk_map *map, unsigned which);
uint64_t disk_map_count(struct disk_map *map, unsigned which);

/* ---- for nbdkit, which is given the map's fd ---- */
/* Maps the bitmaps of a map file that another process keeps open. 0 or -errno. Unmapped at exit. */
struct disk_map_view {
    _Atomic uint64_t *words[2];
    uint64_t nchunks;
};
int disk_map_attach(struct disk_map_view *view, int fd);
/* Sets the bits of [offset, offset + len). Any thread. */
void disk_map_mark(const struct disk_map_view *view, unsigned which, uint64_t offset, uint64_t len);

#endif
