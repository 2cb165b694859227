/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Prepares the disks of a VM on both hosts before nbdkit and the replicators take over: describes the images
 * on the guest's host, and makes the standby's host ready for them.
 *
 *   describe.c           the disks according to the user's command line and options
 *   image_info.c         one image: its format, its size, and whether it can be replicated
 *   vhdx.c               whether all blocks of a VHDX image are allocated
 *   standby.c            the images on the standby's host
 *   seed.c               the metadata that QEMU must find in an image before the first synchronisation
 *
 * Any thread but the main one, since files are read and qemu-img is run. Errors are sentences for the user
 * that name the disk and what to do.
 */
#ifndef UNDERSTUDY_DAEMON_DISKS_H
#define UNDERSTUDY_DAEMON_DISKS_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "hv-hooks/line.h"
#include "proto/control.pb-c.h"

/* ---- describe.c ---- */
/* Fills protection's disks from the command line and the request's options; disks_clear frees them. False and
 * error. */
bool disks_describe(Understudy__Protection *protection, const struct line *line,
                    const Understudy__RunRequest *request, GError **error);
/* Frees the protection's disks. */
void disks_clear(Understudy__Protection *protection);
/* Updates the images' sizes, before a standby is asked for again. */
void disks_refresh(Understudy__Protection *protection);
/* Checks that nbdkit and our plugin are installed, if there are disks to be served. */
bool disks_can_be_served(const Understudy__Protection *protection, const char *plugin, GError **error);
/* Swaps the two hosts' paths in the message: it then describes this host instead of the peer. */
void disks_swap_paths(Understudy__Protection *protection);
/* Sets the formats that were found by probing in line, for QEMU. False: these are not the disks of that line.
 */
bool disks_set_formats(struct line *line, const Understudy__Protection *protection, GError **error);

/* ---- image_info.c ---- */
/* Fills in format, sizes and backing files of the image at disk->path. format: the user's, or "" to probe. */
bool disk_describe_image(Understudy__Disk *disk, const char *format, GError **error);
/* Checks that the image at path has this disk's format and size, as QEMU will see them. */
bool disk_image_matches(const Understudy__Disk *disk, const char *path, GError **error);

/* ---- vhdx.c ---- */
/* Checks that all of the image's blocks are allocated. 0; -ENOSPC: they are not; other -errno. */
int disk_vhdx_is_full(const char *path, uint64_t virtual_len, uint64_t block_len);

/* ---- standby.c ---- */
/* Makes this host ready to receive the disks: checks the images, creates missing ones. vm_dir: the VM's state
 * folder, where the dirty-block map of an image that is not what it was is removed. */
bool disks_prepare_standby(const Understudy__PrepareStandby *request, const char *vm_dir, GError **error);

/* ---- seed.c ---- */
/*
 * Reads what the standby's QEMU must find in the images of formats that have metadata. Array of DiskSeed *.
 */
GPtrArray *disk_seeds_read(const Understudy__Protection *protection);
/* Writes a seed into a new image of image_len bytes. 0 or -errno. */
int disk_seed_write(int fd, const Understudy__DiskSeed *seed, uint64_t image_len);

#endif
