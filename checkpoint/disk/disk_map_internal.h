/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The map file's format, for disk_map.c and its tests. Little-endian; the layout is in docs/disk-formats.md.
 */
#ifndef UNDERSTUDY_CHECKPOINT_DISK_MAP_INTERNAL_H
#define UNDERSTUDY_CHECKPOINT_DISK_MAP_INTERNAL_H

#include "checkpoint/disk/disk_map.h"

#define DISK_MAP_MAGIC      0x3150414d44535555ull /* "UUSDMAP1" */
#define DISK_MAP_VERSION    1u
#define DISK_MAP_HEADER_LEN 4096u
#define DISK_MAP_BOOT_LEN   16u
/* 128 TiB of image: a bitmap of 256 MiB. */
#define DISK_MAP_MAX_LEN (1ull << 47)

enum disk_map_state {
    DISK_MAP_IN_USE = 1, /* good as long as the kernel that boot_id names runs */
    DISK_MAP_CLEAN = 2,  /* good as long as the image is as mtime_ns says */
};

struct disk_map_header {
    /* Never changes; bitmaps are found by it. */
    uint64_t magic;
    uint32_t version;
    uint32_t fixed_crc32c; /* of fixed's fields below */
    uint64_t nchunks;
    uint64_t image_len, image_device, image_inode;
    /* Changes. */
    uint32_t state;  /* enum disk_map_state */
    uint32_t paired; /* 1: pair_id counts */
    int64_t image_mtime_ns;
    uint8_t boot_id[DISK_MAP_BOOT_LEN];
    uint8_t pair_id[DISK_PAIR_ID_LEN];
    uint32_t image_birth;
    uint32_t crc32c; /* of all before */
};
_Static_assert(sizeof(struct disk_map_header) == 104, "on-disk format");

/* Returns the bytes of one bitmap in the file. */
uint64_t disk_map_bitmap_len(uint64_t nchunks);
/* Reads the kernel's boot id. 0 or -errno. */
int disk_map_read_boot_id(uint8_t boot_id[DISK_MAP_BOOT_LEN]);
/* disk_map_open on the boot given. */
int disk_map_open_on_boot(struct disk_map **out, const char *path, const struct disk_map_image *image,
                          const uint8_t boot_id[DISK_MAP_BOOT_LEN]);

#endif
