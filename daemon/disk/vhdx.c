/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Checks whether all blocks of a VHDX image are allocated. Such an image is written in place; any other one
 * grows, which its disk server cannot offer to QEMU. The states of the blocks are in the block allocation
 * table, which the region table names ([MS-VHDX] 2.2.3 and 2.5). The image is untrusted: every number is
 * bounded.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "daemon/disk/disk_setup.h"
#include "proto/little_endian.h"

#define REGION_TABLE_OFFSET 196608
#define REGION_HEADER_LEN   16
#define REGION_ENTRY_LEN    32
#define MAX_REGIONS         2047
#define BAT_ENTRY_LEN       8
#define STATE_MASK          7u
#define STATE_PRESENT       6u
#define SECTOR_LEN          512 /* the only length that QEMU takes */
#define MAX_BAT_ENTRIES     (64u << 20)

/* 2DC27766-F623-4200-9D64-115E9BFD4A08, in the byte order of the file. */
static const uint8_t bat_guid[16] = {0x66, 0x77, 0xc2, 0x2d, 0x23, 0xf6, 0x00, 0x42,
                                     0x9d, 0x64, 0x11, 0x5e, 0x9b, 0xfd, 0x4a, 0x08};

static int read_all(int fd, void *buffer, size_t len, uint64_t offset)
{
    ssize_t n = pread(fd, buffer, len, (off_t)offset);
    return n == (ssize_t)len ? 0 : n < 0 ? -errno : -EINVAL;
}

/* Finds the block allocation table: its offset and length in bytes. 0 or -errno. */
static int find_bat(int fd, uint64_t *offset, uint32_t *len)
{
    uint8_t header[REGION_HEADER_LEN], entry[REGION_ENTRY_LEN];
    int status = read_all(fd, header, sizeof header, REGION_TABLE_OFFSET);
    if (status < 0 || memcmp(header, "regi", 4) != 0)
        return status < 0 ? status : -EINVAL;
    uint32_t nentries = get32(header + 8);
    for (uint32_t i = 0; i < nentries && i < MAX_REGIONS; i++) {
        status = read_all(fd, entry, sizeof entry,
                          REGION_TABLE_OFFSET + REGION_HEADER_LEN + (uint64_t)i * REGION_ENTRY_LEN);
        if (status < 0)
            return status;
        if (memcmp(entry, bat_guid, sizeof bat_guid) == 0) {
            *offset = get64(entry + 16);
            *len = get32(entry + 24);
            return 0;
        }
    }
    return -EINVAL;
}

int disk_vhdx_is_full(const char *path, uint64_t virtual_len, uint64_t block_len)
{
    uint64_t offset = 0;
    uint32_t len = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    int status = fd < 0 ? -errno : find_bat(fd, &offset, &len);
    uint64_t nblocks = block_len ? (virtual_len + block_len - 1) / block_len : 0;
    /* The entries of this many blocks are followed by one entry for their sector bitmap. */
    uint64_t ratio = block_len ? ((uint64_t)SECTOR_LEN << 23) / block_len : 0;
    if (status == 0 && (ratio == 0 || nblocks > MAX_BAT_ENTRIES))
        status = -EINVAL;
    for (uint64_t i = 0; status == 0 && i < nblocks; i++) {
        uint64_t at = (i + i / ratio) * BAT_ENTRY_LEN;
        uint8_t entry[BAT_ENTRY_LEN];
        status = at + BAT_ENTRY_LEN <= len ? read_all(fd, entry, sizeof entry, offset + at) : -EINVAL;
        if (status == 0 && (get64(entry) & STATE_MASK) != STATE_PRESENT)
            status = -ENOSPC;
    }
    if (fd >= 0)
        close(fd);
    return status;
}
