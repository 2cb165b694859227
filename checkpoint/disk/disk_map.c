/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The map's file: a header and two bitmaps. The header is read and written by calls, the bitmaps are
 * mapped. The file's blocks are allocated when it is made, so that setting a bit can never find the file
 * system full (which would be a SIGBUS, in nbdkit, in the middle of a guest's write).
 *
 * A lock (flock, on the open file description, which nbdkit inherits) keeps a second replicator away, so
 * that a file that is mapped is neither shortened nor made anew. Root can still do so by hand; the kernel
 * then ends the process that touches the missing page.
 *
 * Order on disk, for a crash of the host: the header says "in use" before the first bit can change, and
 * "clean" only after the last bit is on the disk.
 */
#include "checkpoint/disk/disk_map.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "checkpoint/disk/disk_map_internal.h"
#include "proto/crc32c.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the file is little-endian");

struct disk_map {
    int fd;
    struct disk_map_header header; /* as it is in the file */
    struct disk_map_view view;
    uint8_t *mapping;
    bool trusted;
};

/* ---- the file ---- */

uint64_t disk_map_bitmap_len(uint64_t nchunks)
{
    return ((nchunks + 7) / 8 + 4095) / 4096 * 4096;
}

static uint64_t file_len(uint64_t nchunks)
{
    return DISK_MAP_HEADER_LEN + 2 * disk_map_bitmap_len(nchunks);
}

int disk_map_read_boot_id(uint8_t boot_id[DISK_MAP_BOOT_LEN])
{
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");
    if (!file)
        return -errno;
    unsigned ndigits = 0;
    memset(boot_id, 0, DISK_MAP_BOOT_LEN);
    for (int c = fgetc(file); c != EOF && ndigits < 2 * DISK_MAP_BOOT_LEN; c = fgetc(file)) {
        unsigned digit = c >= '0' && c <= '9' ? (unsigned)c - '0' : (unsigned)c - 'a' + 10;
        if (digit > 15)
            continue;
        boot_id[ndigits / 2] = (uint8_t)(boot_id[ndigits / 2] << 4 | digit);
        ndigits++;
    }
    fclose(file);
    return ndigits == 2 * DISK_MAP_BOOT_LEN ? 0 : -EIO;
}

static uint32_t fixed_crc(const struct disk_map_header *header)
{
    return crc32c(0, &header->nchunks,
                  offsetof(struct disk_map_header, state) - offsetof(struct disk_map_header, nchunks));
}

static uint32_t whole_crc(const struct disk_map_header *header)
{
    return crc32c(0, header, offsetof(struct disk_map_header, crc32c));
}

/* Checks the fixed part of the header, which says where the bitmaps are. */
static bool fixed_is_good(const struct disk_map_header *header, uint64_t len)
{
    return header->magic == DISK_MAP_MAGIC && header->version == DISK_MAP_VERSION &&
           header->fixed_crc32c == fixed_crc(header) && header->image_len <= DISK_MAP_MAX_LEN &&
           header->nchunks == (header->image_len + DISK_CHUNK_LEN - 1) / DISK_CHUNK_LEN &&
           len == file_len(header->nchunks);
}

static int read_header(int fd, struct disk_map_header *header, uint64_t *len)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return -errno;
    if (!S_ISREG(st.st_mode))
        return -EINVAL;
    *len = (uint64_t)st.st_size;
    ssize_t got = TEMP_FAILURE_RETRY(pread(fd, header, sizeof *header, 0));
    if (got < 0)
        return -errno;
    if (got < (ssize_t)sizeof *header)
        memset(header, 0, sizeof *header); /* not a valid one */
    return 0;
}

/* Writes the header. On return the header and all earlier writes to the file are on stable storage. */
static int write_header(int fd, struct disk_map_header *header)
{
    header->crc32c = whole_crc(header);
    ssize_t put = TEMP_FAILURE_RETRY(pwrite(fd, header, sizeof *header, 0));
    if (put != (ssize_t)sizeof *header)
        return put < 0 ? -errno : -EIO;
    return fdatasync(fd) < 0 ? -errno : 0;
}

static int map_bitmaps(struct disk_map_view *view, int fd, uint64_t nchunks, uint8_t **mapping)
{
    uint64_t len = disk_map_bitmap_len(nchunks);
    view->nchunks = nchunks;
    if (len == 0)
        return 0;
    void *at = mmap(NULL, 2 * len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, DISK_MAP_HEADER_LEN);
    if (at == MAP_FAILED)
        return -errno;
    *mapping = at;
    view->words[0] = at;
    view->words[1] = (_Atomic uint64_t *)((uint8_t *)at + len);
    return 0;
}

/* ---- open and close ---- */

static bool is_good_for(const struct disk_map_header *header, uint64_t len,
                        const struct disk_map_image *image, const uint8_t *boot_id)
{
    if (!fixed_is_good(header, len) || header->crc32c != whole_crc(header) || header->paired != 1)
        return false;
    if (header->image_len != image->len || header->image_device != image->device ||
        header->image_inode != image->inode || header->image_birth != image->birth)
        return false;
    if (header->state == DISK_MAP_CLEAN)
        return header->image_mtime_ns == image->mtime_ns;
    return header->state == DISK_MAP_IN_USE && memcmp(header->boot_id, boot_id, DISK_MAP_BOOT_LEN) == 0;
}

/* Makes the file an empty map, which is not trusted. The header is written by the caller. */
static int make_anew(struct disk_map *map, const struct disk_map_image *image)
{
    uint64_t nchunks = (image->len + DISK_CHUNK_LEN - 1) / DISK_CHUNK_LEN;
    if (ftruncate(map->fd, 0) < 0)
        return -errno;
    int status = posix_fallocate(map->fd, 0, (off_t)file_len(nchunks));
    if (status > 0)
        return -status;
    map->header = (struct disk_map_header){
        .magic = DISK_MAP_MAGIC,
        .version = DISK_MAP_VERSION,
        .nchunks = nchunks,
        .image_len = image->len,
        .image_device = image->device,
        .image_inode = image->inode,
        .image_birth = image->birth,
    };
    map->header.fixed_crc32c = fixed_crc(&map->header);
    return 0;
}

static int begin_use(struct disk_map *map, const char *path, const struct disk_map_image *image,
                     const uint8_t *boot_id)
{
    uint64_t len = 0;
    map->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (map->fd < 0)
        return -errno;
    if (TEMP_FAILURE_RETRY(flock(map->fd, LOCK_EX | LOCK_NB)) < 0)
        return errno == EWOULDBLOCK ? -EBUSY : -errno;
    int status = read_header(map->fd, &map->header, &len);
    if (status < 0)
        return status;
    map->trusted = is_good_for(&map->header, len, image, boot_id);
    if (!map->trusted && (status = make_anew(map, image)) < 0)
        return status;
    map->header.state = DISK_MAP_IN_USE;
    memcpy(map->header.boot_id, boot_id, DISK_MAP_BOOT_LEN);
    status = write_header(map->fd, &map->header);
    if (status == 0)
        status = map_bitmaps(&map->view, map->fd, map->header.nchunks, &map->mapping);
    /* The thread that sends heartbeats reads the bits and must not wait for storage. If locking memory is not
     * allowed, it may have to. */
    if (status == 0 && map->mapping)
        (void)mlock(map->mapping, 2 * disk_map_bitmap_len(map->header.nchunks));
    return status;
}

int disk_map_open_on_boot(struct disk_map **out, const char *path, const struct disk_map_image *image,
                          const uint8_t boot_id[DISK_MAP_BOOT_LEN])
{
    if (image->len > DISK_MAP_MAX_LEN)
        return -EFBIG;
    struct disk_map *map = calloc(1, sizeof *map);
    if (!map)
        return -ENOMEM;
    int status = begin_use(map, path, image, boot_id);
    if (status < 0) {
        disk_map_close(map, NULL);
        return status;
    }
    *out = map;
    return 0;
}

int disk_map_open(struct disk_map **out, const char *path, const struct disk_map_image *image)
{
    uint8_t boot_id[DISK_MAP_BOOT_LEN];
    int status = disk_map_read_boot_id(boot_id);
    return status < 0 ? status : disk_map_open_on_boot(out, path, image, boot_id);
}

void disk_map_close(struct disk_map *map, const struct disk_map_image *clean)
{
    if (!map)
        return;
    /* The bits are synced first. If the header cannot be written, the map stays "in use". */
    if (clean && fdatasync(map->fd) == 0) {
        map->header.state = DISK_MAP_CLEAN;
        map->header.image_mtime_ns = clean->mtime_ns;
        write_header(map->fd, &map->header);
    }
    if (map->mapping)
        munmap(map->mapping, 2 * disk_map_bitmap_len(map->view.nchunks));
    if (map->fd >= 0)
        close(map->fd);
    free(map);
}

int disk_map_fd(const struct disk_map *map)
{
    return map->fd;
}

uint64_t disk_map_nchunks(const struct disk_map *map)
{
    return map->view.nchunks;
}

bool disk_map_trusted(const struct disk_map *map)
{
    return map->trusted;
}

const uint8_t *disk_map_pair_id(const struct disk_map *map)
{
    return map->header.pair_id;
}

int disk_map_set_pair(struct disk_map *map, const uint8_t pair_id[DISK_PAIR_ID_LEN])
{
    struct disk_map_header before = map->header;
    memcpy(map->header.pair_id, pair_id, DISK_PAIR_ID_LEN);
    map->header.paired = 1;
    int status = write_header(map->fd, &map->header);
    if (status < 0)
        map->header = before;
    else
        map->trusted = true;
    return status;
}

/* ---- bits ---- */

_Atomic uint64_t *disk_map_words(struct disk_map *map, unsigned which, size_t *nwords)
{
    *nwords = (size_t)((map->view.nchunks + 63) / 64);
    return map->view.words[which];
}

void disk_map_set_all(struct disk_map *map, unsigned which)
{
    disk_map_mark(&map->view, which, 0, map->header.image_len);
}

void disk_map_clear_all(struct disk_map *map, unsigned which)
{
    size_t nwords;
    _Atomic uint64_t *words = disk_map_words(map, which, &nwords);
    for (size_t w = 0; w < nwords; w++) {
        /* A word that is zero already is not written, so that its page stays clean. */
        if (atomic_load_explicit(&words[w], memory_order_relaxed))
            atomic_store_explicit(&words[w], 0, memory_order_release);
    }
}

void disk_map_merge(struct disk_map *map, unsigned which)
{
    size_t nwords;
    _Atomic uint64_t *to = disk_map_words(map, which, &nwords);
    _Atomic uint64_t *from = disk_map_words(map, !which, &nwords);
    for (size_t w = 0; w < nwords; w++) {
        uint64_t bits = atomic_load_explicit(&from[w], memory_order_acquire);
        if (!bits)
            continue;
        /* In this order, so that a process that is killed in between leaves the bits in both, not in none. */
        atomic_fetch_or(&to[w], bits);
        atomic_fetch_and(&from[w], ~bits);
    }
}

uint64_t disk_map_count(struct disk_map *map, unsigned which)
{
    size_t nwords;
    const _Atomic uint64_t *words = disk_map_words(map, which, &nwords);
    uint64_t count = 0;
    for (size_t w = 0; w < nwords; w++)
        count += (uint64_t)__builtin_popcountll(atomic_load_explicit(&words[w], memory_order_relaxed));
    return count;
}

int disk_map_attach(struct disk_map_view *view, int fd)
{
    struct disk_map_header header;
    uint8_t *mapping = NULL;
    uint64_t len = 0;
    int status = read_header(fd, &header, &len);
    if (status < 0)
        return status;
    /* Checks only the fixed part: the other process may be writing the rest now. */
    if (!fixed_is_good(&header, len))
        return -EPROTO;
    *view = (struct disk_map_view){.nchunks = 0};
    return map_bitmaps(view, fd, header.nchunks, &mapping);
}

void disk_map_mark(const struct disk_map_view *view, unsigned which, uint64_t offset, uint64_t len)
{
    uint64_t chunk = offset / DISK_CHUNK_LEN;
    if (len == 0 || chunk >= view->nchunks)
        return;
    uint64_t last = len - 1 > UINT64_MAX - offset ? view->nchunks - 1 : (offset + len - 1) / DISK_CHUNK_LEN;
    if (last >= view->nchunks)
        last = view->nchunks - 1;
    while (chunk <= last) {
        uint64_t in_word = last / 64 == chunk / 64 ? last - chunk + 1 : 64 - chunk % 64;
        uint64_t bits = (in_word == 64 ? UINT64_MAX : (1ull << in_word) - 1) << (chunk % 64);
        _Atomic uint64_t *word = &view->words[which][chunk / 64];
        /* A hot chunk's bit is set already: no locked instruction, no dirtied page. */
        if ((atomic_load_explicit(word, memory_order_relaxed) & bits) != bits)
            atomic_fetch_or(word, bits);
        chunk += in_word;
    }
}
