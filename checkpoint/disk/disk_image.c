/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Opening, locking and writing an image. All I/O is by plain positioned calls on one descriptor: nothing is
 * buffered here, and the page cache is what nbdkit and the applier of one host share.
 *
 * QEMU's lock (block/file-posix.c, since 2.10): one byte of the file stands for one permission. A user
 * holds a shared lock on byte 100 + p for each permission p that it has, and on byte 200 + p for each that
 * it does not grant to others. Then it checks that no other user has a lock on the opposite byte. The locks
 * are taken before the check, so of two users that come at once at least one sees the other.
 */
#include "checkpoint/disk/disk_image.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LOCK_HELD_BASE     100
#define LOCK_UNSHARED_BASE 200
/* QEMU's permissions by bit. As its own qcow2 on a guest's disk: reads, writes and resizes, and lets others
 * only read. */
#define PERMISSION_READ   0
#define PERMISSION_WRITE  1
#define PERMISSION_RESIZE 3

struct disk_image {
    int fd;
    uint64_t len;
    char *path;
};

__attribute__((format(printf, 2, 3))) static void say(char **why, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    if (vasprintf(why, format, arguments) < 0)
        *why = NULL;
    va_end(arguments);
}

/* ---- open ---- */

static int lock_byte(int fd, int byte, int command)
{
    struct flock lock = {.l_type = command == F_OFD_GETLK ? F_WRLCK : F_RDLCK,
                         .l_whence = SEEK_SET,
                         .l_start = byte,
                         .l_len = 1};
    if (TEMP_FAILURE_RETRY(fcntl(fd, command, &lock)) < 0)
        return errno == EACCES ? -EAGAIN : -errno;
    return command == F_OFD_GETLK && lock.l_type != F_UNLCK ? -EAGAIN : 0;
}

/* Takes the locks on an image. 0; -EAGAIN: the locks of another process exclude it; or -errno. */
static int take_lock(int fd)
{
    static const int to_take[] = {
        LOCK_HELD_BASE + PERMISSION_READ,       LOCK_HELD_BASE + PERMISSION_WRITE,
        LOCK_HELD_BASE + PERMISSION_RESIZE,     LOCK_UNSHARED_BASE + PERMISSION_WRITE,
        LOCK_UNSHARED_BASE + PERMISSION_RESIZE,
    };
    static const int must_be_free[] = {
        LOCK_UNSHARED_BASE + PERMISSION_READ,   LOCK_UNSHARED_BASE + PERMISSION_WRITE,
        LOCK_UNSHARED_BASE + PERMISSION_RESIZE, LOCK_HELD_BASE + PERMISSION_WRITE,
        LOCK_HELD_BASE + PERMISSION_RESIZE,
    };
    int status = 0;
    for (size_t i = 0; i < sizeof to_take / sizeof to_take[0] && status == 0; i++)
        status = lock_byte(fd, to_take[i], F_OFD_SETLK);
    for (size_t i = 0; i < sizeof must_be_free / sizeof must_be_free[0] && status == 0; i++)
        status = lock_byte(fd, must_be_free[i], F_OFD_GETLK);
    return status;
}

static int open_file(const char *path, char **why)
{
    int fd = TEMP_FAILURE_RETRY(open(path, O_RDWR | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
    if (fd >= 0)
        return fd;
    int status = -errno;
    if (status == -ENOENT)
        say(why, "disk image %s does not exist: create it (qemu-img create) or correct the path", path);
    else if (status == -EISDIR)
        say(why, "disk image %s is a directory: name an image file", path);
    else if (status == -EACCES || status == -EPERM)
        say(why, "disk image %s may not be written by user %u: change its owner or mode", path,
            (unsigned)geteuid());
    else if (status == -EROFS)
        say(why, "disk image %s is on a file system that is mounted read-only: remount it or move the image",
            path);
    else
        say(why, "disk image %s cannot be opened: %s", path, strerror(-status));
    return status;
}

static int find_len(struct disk_image *image, uint64_t export_len, char **why)
{
    struct stat st;
    uint64_t file_len;
    if (fstat(image->fd, &st) < 0) {
        int status = -errno;
        say(why, "disk image %s cannot be examined: %s", image->path, strerror(-status));
        return status;
    }
    if (S_ISREG(st.st_mode)) {
        file_len = (uint64_t)st.st_size;
    } else if (S_ISBLK(st.st_mode) && ioctl(image->fd, BLKGETSIZE64, &file_len) == 0) {
        if (export_len > file_len) {
            say(why, "block device %s has %llu bytes, its disk needs %llu: enlarge it", image->path,
                (unsigned long long)file_len, (unsigned long long)export_len);
            return -ENOSPC;
        }
    } else {
        say(why, "disk image %s is neither a file nor a block device", image->path);
        return -EINVAL;
    }
    if (export_len && file_len > export_len) {
        say(why, "disk image %s has %llu bytes, more than its disk (%llu): it is not the image of this disk",
            image->path, (unsigned long long)file_len, (unsigned long long)export_len);
        return -EFBIG;
    }
    image->len = export_len ? export_len : file_len;
    return 0;
}

int disk_image_lock(struct disk_image *image)
{
    int status = take_lock(image->fd);
    if (status < 0)
        disk_image_unlock(image);
    return status;
}

void disk_image_unlock(struct disk_image *image)
{
    struct flock all = {.l_type = F_UNLCK, .l_whence = SEEK_SET};
    fcntl(image->fd, F_OFD_SETLK, &all);
}

static int open_all(struct disk_image *image, uint64_t export_len, bool lock, char **why)
{
    image->fd = open_file(image->path, why);
    if (image->fd < 0)
        return image->fd;
    int status = find_len(image, export_len, why);
    if (status < 0)
        return status;
    status = lock ? disk_image_lock(image) : 0;
    if (status == -EAGAIN)
        say(why, "disk image %s is in use by another process (a QEMU, qemu-img or qemu-nbd): end that first",
            image->path);
    else if (status < 0)
        say(why,
            "disk image %s cannot be locked: %s: its file system has to know open file description locks",
            image->path, strerror(-status));
    return status;
}

static int open_image(struct disk_image **out, const char *path, uint64_t export_len, bool lock, char **why)
{
    *why = NULL;
    struct disk_image *image = calloc(1, sizeof *image);
    if (!image)
        return -ENOMEM;
    image->fd = -1;
    image->path = strdup(path);
    int status = image->path ? open_all(image, export_len, lock, why) : -ENOMEM;
    if (status < 0) {
        disk_image_close(image);
        return status;
    }
    *out = image;
    return 0;
}

int disk_image_open(struct disk_image **out, const char *path, uint64_t export_len, char **why)
{
    return open_image(out, path, export_len, true, why);
}

int disk_image_open_unlocked(struct disk_image **out, const char *path, uint64_t export_len, char **why)
{
    return open_image(out, path, export_len, false, why);
}

void disk_image_close(struct disk_image *image)
{
    if (!image)
        return;
    if (image->fd >= 0)
        close(image->fd);
    free(image->path);
    free(image);
}

int disk_image_fd(const struct disk_image *image)
{
    return image->fd;
}

uint64_t disk_image_len(const struct disk_image *image)
{
    return image->len;
}

const char *disk_image_path(const struct disk_image *image)
{
    return image->path;
}

static uint32_t birth_of(int fd)
{
    struct statx st;
    if (statx(fd, "", AT_EMPTY_PATH, STATX_BTIME, &st) < 0 || !(st.stx_mask & STATX_BTIME))
        return 0;
    return (uint32_t)((uint64_t)st.stx_btime.tv_sec * 1000 + st.stx_btime.tv_nsec / 1000000);
}

int disk_image_identify(const struct disk_image *image, struct disk_map_image *out)
{
    struct stat st;
    struct timespec time = {0};
    if (fstat(image->fd, &st) < 0)
        return -errno;
    bool block = S_ISBLK(st.st_mode);
    /*
     * A block device has no modification time. Uses the present time, which no later comparison will find
     * equal.
     */
    if (block)
        clock_gettime(CLOCK_REALTIME, &time);
    else
        time = st.st_mtim;
    *out = (struct disk_map_image){
        .len = image->len,
        .device = block ? st.st_rdev : st.st_dev,
        .inode = block ? 0 : st.st_ino,
        .birth = block ? 0 : birth_of(image->fd),
        .mtime_ns = (int64_t)time.tv_sec * 1000000000 + time.tv_nsec,
    };
    return 0;
}

/* ---- write ---- */

static bool is_unsupported(int error)
{
    /* EINVAL: a block device wants whole sectors, some file systems whole blocks. */
    return error == EOPNOTSUPP || error == ENOSYS || error == ENOTTY || error == EINVAL || error == ENODEV;
}

static int write_some(int fd, const struct iovec *data, int ndata, uint64_t offset, bool *durable)
{
    ssize_t put;
    if (offset > INT64_MAX)
        return -EFBIG;
    if (*durable) {
        put = TEMP_FAILURE_RETRY(pwritev2(fd, data, ndata, (off_t)offset, RWF_DSYNC));
        if (put >= 0 || !is_unsupported(errno))
            return put < 0 ? -errno : (int)put;
        *durable = false; /* the caller then syncs */
    }
    put = TEMP_FAILURE_RETRY(pwritev(fd, data, ndata, (off_t)offset));
    return put < 0 ? -errno : (int)put;
}

int disk_image_write(int fd, const struct iovec *data, unsigned ndata, uint64_t offset, bool durable)
{
    bool synced = durable;
    unsigned at = 0; /* piece, and bytes of it that are done */
    size_t done = 0;
    while (at < ndata) {
        if (data[at].iov_len == done) {
            at++;
            done = 0;
            continue;
        }
        struct iovec rest[8] = {{(uint8_t *)data[at].iov_base + done, data[at].iov_len - done}};
        unsigned nrest = 1;
        while (nrest < 8 && at + nrest < ndata) {
            rest[nrest] = data[at + nrest];
            nrest++;
        }
        int put = write_some(fd, rest, (int)nrest, offset, &synced);
        if (put <= 0)
            return put < 0 ? put : -EIO;
        offset += (uint64_t)put;
        for (done += (size_t)put; at < ndata && done >= data[at].iov_len; at++)
            done -= data[at].iov_len;
    }
    return durable && !synced && fdatasync(fd) < 0 ? -errno : 0;
}

static int call_fallocate(int fd, int mode, uint64_t offset, uint64_t len)
{
    return TEMP_FAILURE_RETRY(fallocate(fd, mode, (off_t)offset, (off_t)len)) < 0 ? -errno : 0;
}

static int write_zeroes(int fd, uint64_t offset, uint64_t len)
{
    static const uint8_t zeroes[65536];
    for (int status = 0; len > 0;) {
        struct iovec data[8];
        unsigned ndata = 0;
        uint64_t now = 0;
        for (; ndata < 8 && now < len; ndata++) {
            data[ndata].iov_base = (void *)(uintptr_t)zeroes;
            data[ndata].iov_len = len - now < sizeof zeroes ? (size_t)(len - now) : sizeof zeroes;
            now += data[ndata].iov_len;
        }
        status = disk_image_write(fd, data, ndata, offset, false);
        if (status < 0)
            return status;
        offset += now;
        len -= now;
    }
    return 0;
}

/* Makes a range read as zeroes, and frees its blocks if that is possible. The file does not grow: beyond its
 * end it reads as zeroes already. */
static int trim(int fd, uint64_t offset, uint64_t len)
{
    int status = call_fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, len);
    if (status == 0 || !is_unsupported(-status))
        return status;
    status = call_fallocate(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, offset, len);
    if (status == 0 || !is_unsupported(-status))
        return status;
    struct stat st;
    if (fstat(fd, &st) < 0)
        return -errno;
    if (S_ISREG(st.st_mode)) {
        uint64_t end = (uint64_t)st.st_size;
        if (offset >= end)
            return 0;
        if (len > end - offset)
            len = end - offset;
    }
    return write_zeroes(fd, offset, len);
}

/* Makes a range read as zeroes, with its blocks allocated. Extends the file if it ends before. */
static int zero(int fd, uint64_t offset, uint64_t len)
{
    int status = call_fallocate(fd, FALLOC_FL_ZERO_RANGE, offset, len);
    if (status == 0 || !is_unsupported(-status))
        return status;
    status = call_fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, len);
    if (status == 0)
        status = call_fallocate(fd, 0, offset, len);
    if (status == 0 || !is_unsupported(-status))
        return status;
    return write_zeroes(fd, offset, len);
}

int disk_image_zero(int fd, uint64_t offset, uint64_t len, bool may_trim, bool durable)
{
    if (len == 0)
        return 0;
    if (offset > INT64_MAX || len > INT64_MAX - offset)
        return -EFBIG;
    int status = may_trim ? trim(fd, offset, len) : zero(fd, offset, len);
    if (status < 0)
        return status;
    return durable && fdatasync(fd) < 0 ? -errno : 0;
}

int disk_image_apply(struct disk_image *image, const struct disk_record *record)
{
    if (!disk_record_fits(record, image->len))
        return -EINVAL;
    switch (record->type) {
    case DISK_RECORD_WRITE:
        return disk_image_write(image->fd, record->data, record->ndata, record->offset, false);
    case DISK_RECORD_ZERO:
        return disk_image_zero(image->fd, record->offset, record->len, false, false);
    case DISK_RECORD_TRIM:
        return disk_image_zero(image->fd, record->offset, record->len, true, false);
    }
    return -EINVAL;
}

/* ---- read ---- */

int disk_image_read(int fd, void *buffer, size_t len, uint64_t offset)
{
    if (offset > INT64_MAX || len > INT64_MAX - offset)
        return -EFBIG;
    for (uint8_t *at = buffer; len > 0;) {
        ssize_t got = TEMP_FAILURE_RETRY(pread(fd, at, len, (off_t)offset));
        if (got < 0)
            return -errno;
        if (got == 0) {
            memset(at, 0, len);
            return 0;
        }
        at += got;
        len -= (size_t)got;
        offset += (uint64_t)got;
    }
    return 0;
}

int disk_image_sync(const struct disk_image *image)
{
    return fdatasync(image->fd) < 0 ? -errno : 0;
}

bool disk_image_is_hole(int fd, uint64_t offset, uint64_t len)
{
    if (offset > INT64_MAX)
        return false;
    off_t data = lseek(fd, (off_t)offset, SEEK_DATA);
    /* ENXIO: no data from there on, or the file ends before it. */
    return data < 0 ? errno == ENXIO : (uint64_t)data >= offset && (uint64_t)data - offset >= len;
}
