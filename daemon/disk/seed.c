/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The standby's QEMU opens each disk when it starts, before a byte of it has been synchronised. A raw disk
 * opens whatever it holds; an image of another format must have its metadata. So the request to prepare a
 * standby carries, for an image that is missing there, the blocks that opening it reads. They need not be
 * from one moment: the synchronisation sends everything that differs, and QEMU reads its metadata again at
 * takeover.
 *
 *   - qcow2: the header's cluster; the tables that it points at: L1, refcounts, snapshots, bitmaps
 *   - luks: the header and the key slots in use
 *   - vhdx: what is not zero in the first 8 MiB
 *   - vpc: the same, and the last block, where its footer is
 *
 * The seeds of all disks together are bounded by what one message may carry. The offsets come from the image,
 * which the guest writes, and on the other side from the peer: both are checked against the image's length.
 */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "checkpoint/disk/disk_image.h"
#include "daemon/disk/disk_setup.h"

#define BLOCK_LEN        4096u
#define HEAD_LEN         (8u << 20)
#define MAX_BYTES        (640u << 10) /* a message has 1 MiB at most */
#define QCOW2_CLUSTER    (64u << 10)
#define QCOW2_MAGIC      0x514649fbu
#define QCOW2_BITMAPS    0x23852875u /* header extension */
#define LUKS_MAGIC       "LUKS\xba\xbe"
#define LUKS_SLOTS       8u
#define LUKS_SLOT_IN_USE 0x00ac71f3u

struct collector {
    int fd;
    uint64_t image_len;
    size_t *budget;
    Understudy__DiskSeed *seed;
};

static void free_seed(gpointer seed)
{
    understudy__disk_seed__free_unpacked(seed, NULL);
}

static bool has_block(const Understudy__DiskSeed *seed, uint64_t offset)
{
    for (size_t i = 0; i < seed->n_blocks; i++) {
        if (seed->blocks[i]->offset == offset)
            return true;
    }
    return false;
}

static void add_block(struct collector *collector, uint64_t offset)
{
    static const uint8_t zeroes[BLOCK_LEN];
    Understudy__DiskSeed *seed = collector->seed;
    g_autofree uint8_t *data = g_malloc(BLOCK_LEN);
    if (*collector->budget < BLOCK_LEN || has_block(seed, offset) ||
        disk_image_read(collector->fd, data, BLOCK_LEN, offset) < 0 || memcmp(data, zeroes, BLOCK_LEN) == 0)
        return;
    Understudy__DiskSeed__Block *block = g_new(Understudy__DiskSeed__Block, 1);
    understudy__disk_seed__block__init(block);
    block->offset = offset;
    block->data.len = BLOCK_LEN;
    block->data.data = g_steal_pointer(&data);
    seed->blocks = g_renew(Understudy__DiskSeed__Block *, seed->blocks, seed->n_blocks + 1);
    seed->blocks[seed->n_blocks++] = block;
    *collector->budget -= BLOCK_LEN;
}

static void add_range(struct collector *collector, uint64_t offset, uint64_t len)
{
    if (offset >= collector->image_len)
        return;
    len = MIN(len, collector->image_len - offset);
    for (uint64_t at = offset / BLOCK_LEN * BLOCK_LEN;
         at < offset + len && *collector->budget >= BLOCK_LEN;) {
        if (disk_image_is_hole(collector->fd, at, BLOCK_LEN)) {
            /* Goes on where data begins again: a table may be a hole of gigabytes. */
            off_t data = lseek(collector->fd, (off_t)at, SEEK_DATA);
            if (data < 0)
                return;
            at = MAX((uint64_t)data / BLOCK_LEN * BLOCK_LEN, at + BLOCK_LEN);
            continue;
        }
        add_block(collector, at);
        at += BLOCK_LEN;
    }
}

static uint32_t be32(const uint8_t *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return be32toh(value);
}

static uint64_t be64(const uint8_t *at)
{
    uint64_t value;
    memcpy(&value, at, sizeof value);
    return be64toh(value);
}

/* Adds the metadata of a qcow2 image. The offsets within the header are from docs/interop/qcow2 of QEMU. */
static void add_qcow2(struct collector *collector)
{
    uint8_t header[BLOCK_LEN];
    if (disk_image_read(collector->fd, header, sizeof header, 0) < 0 || be32(header) != QCOW2_MAGIC)
        return;
    add_range(collector, 0, QCOW2_CLUSTER);
    add_range(collector, be64(header + 64), QCOW2_CLUSTER); /* snapshots */
    uint32_t version = be32(header + 4), header_len = version >= 3 ? be32(header + 100) : 72;
    uint64_t at = header_len;
    while (at + 8 <= sizeof header - 24) {
        uint32_t type = be32(header + at), len = be32(header + at + 4);
        if (type == QCOW2_BITMAPS && len >= 24)
            add_range(collector, be64(header + at + 24), MIN(be64(header + at + 16), QCOW2_CLUSTER));
        if (type == 0)
            break;
        at += 8 + ((uint64_t)len + 7) / 8 * 8;
    }
    add_range(collector, be64(header + 40), (uint64_t)be32(header + 36) * 8); /* L1 table */
    add_range(collector, be64(header + 48), QCOW2_CLUSTER);                   /* refcount table */
}

/* Adds the header and the used key slots of a LUKS image (on-disk format 1.2.3, the one that QEMU knows). */
static void add_luks(struct collector *collector)
{
    uint8_t header[BLOCK_LEN];
    if (disk_image_read(collector->fd, header, sizeof header, 0) < 0 ||
        memcmp(header, LUKS_MAGIC, sizeof LUKS_MAGIC - 1) != 0)
        return;
    add_range(collector, 0, sizeof header);
    for (unsigned i = 0; i < LUKS_SLOTS; i++) {
        const uint8_t *slot = header + 208 + i * 48ul;
        uint64_t offset = be32(slot + 40) * 512ull, len = (uint64_t)be32(header + 108) * be32(slot + 44);
        if (be32(slot) == LUKS_SLOT_IN_USE)
            add_range(collector, offset, MIN(len, HEAD_LEN));
    }
}

static Understudy__DiskSeed *read_seed(const Understudy__Disk *disk, size_t *budget)
{
    int fd = open(disk->path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0)
        return NULL; /* the standby's host refuses if it needs the seed */
    Understudy__DiskSeed *seed = g_new(Understudy__DiskSeed, 1);
    understudy__disk_seed__init(seed);
    seed->id = g_strdup(disk->id);
    struct collector collector = {.fd = fd, .image_len = disk->image_len, .budget = budget, .seed = seed};
    if (strcmp(disk->format, "qcow2") == 0) {
        add_qcow2(&collector);
    } else if (strcmp(disk->format, "luks") == 0) {
        add_luks(&collector);
    } else {
        if (strcmp(disk->format, "vpc") == 0)
            add_range(&collector, disk->image_len - MIN(disk->image_len, 512), 512);
        add_range(&collector, 0, HEAD_LEN);
    }
    close(fd);
    return seed;
}

GPtrArray *disk_seeds_read(const Understudy__Protection *protection)
{
    GPtrArray *seeds = g_ptr_array_new_with_free_func(free_seed);
    size_t budget = MAX_BYTES;
    for (size_t i = 0; i < protection->n_disks; i++) {
        const Understudy__Disk *disk = protection->disks[i];
        bool is_raw = !disk->format[0] || strcmp(disk->format, "raw") == 0;
        Understudy__DiskSeed *seed = is_raw || disk->shared ? NULL : read_seed(disk, &budget);
        if (seed)
            g_ptr_array_add(seeds, seed);
    }
    return seeds;
}

int disk_seed_write(int fd, const Understudy__DiskSeed *seed, uint64_t image_len)
{
    int status = 0;
    for (size_t i = 0; status == 0 && i < seed->n_blocks; i++) {
        const Understudy__DiskSeed__Block *block = seed->blocks[i];
        size_t len = block->data.len;
        if (block->offset > image_len)
            return -EINVAL;
        if (len > image_len - block->offset) /* the last block of a file that ends within it */
            len = (size_t)(image_len - block->offset);
        struct iovec data = {.iov_base = block->data.data, .iov_len = len};
        status = disk_image_write(fd, &data, 1, block->offset, false);
    }
    return status;
}
