/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Opens, locks, reads and writes an image file. nbdkit serves the file on the host where the guest runs, and
 * the applier writes it on the other host. The export may be longer than the file (a format that grows).
 * Bytes beyond the end of the file read as zeroes, and a write there extends the file.
 *
 * The lock is that of QEMU's file driver: open file description locks on the bytes that the driver uses. So a
 * second QEMU, or a qemu-img that would write, is refused, and an image that one of them has open is refused
 * here. The lock belongs to the open file description, so nbdkit, which inherits the descriptor, shares it.
 *
 * Reading, writing and locking are as thread-safe as their system calls; one thread opens and closes.
 */
#ifndef UNDERSTUDY_CHECKPOINT_DISK_IMAGE_H
#define UNDERSTUDY_CHECKPOINT_DISK_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "checkpoint/disk/disk_map.h"
#include "checkpoint/disk/disk_record.h"

struct disk_image;

/*
 * Opens an image and locks it. export_len: bytes that are exported; 0: the file's own length. -errno with
 * *why, a sentence (free with free) that names the path and says what is wrong and what to do: missing, a
 * directory, no right to write, locked by another process, longer than export_len.
 */
int disk_image_open(struct disk_image **out, const char *path, uint64_t export_len, char **why);
/* The same without the lock: an image that another host uses at present. */
int disk_image_open_unlocked(struct disk_image **out, const char *path, uint64_t export_len, char **why);
/* Takes the lock (again): 0, -EAGAIN while another process has the image in use, or -errno. */
int disk_image_lock(struct disk_image *image);
void disk_image_unlock(struct disk_image *image);
void disk_image_close(struct disk_image *image);
int disk_image_fd(const struct disk_image *image);
uint64_t disk_image_len(const struct disk_image *image); /* exported bytes */
const char *disk_image_path(const struct disk_image *image);
/* Fills *out with what identifies the image now, for the dirty-block map. 0 or -errno. */
int disk_image_identify(const struct disk_image *image, struct disk_map_image *out);

/* Applies a record: writes, zeroes or trims, in the page cache when it returns. 0 or -errno (ENOSPC, EIO,
 * ...). */
int disk_image_apply(struct disk_image *image, const struct disk_record *record);
/* The same as single calls, on a bare descriptor, for nbdkit. durable: on the disk when it returns. */
int disk_image_write(int fd, const struct iovec *data, unsigned ndata, uint64_t offset, bool durable);
int disk_image_zero(int fd, uint64_t offset, uint64_t len, bool may_trim, bool durable);
/* Reads len bytes; what lies beyond the file's end is zero. 0 or -errno. */
int disk_image_read(int fd, void *buffer, size_t len, uint64_t offset);
int disk_image_sync(const struct disk_image *image); /* fdatasync */
/* Returns whether [offset, offset + len) is a hole. False where that is not known. */
bool disk_image_is_hole(int fd, uint64_t offset, uint64_t len);

#endif
