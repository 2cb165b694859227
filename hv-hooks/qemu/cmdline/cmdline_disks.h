/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Finds the disks of the user's QEMU command line that the guest may write, with their files, and makes the
 * options by which QEMU reaches such a disk through a server's Unix socket instead. Part of cmdline.h, which
 * other code uses; pure.
 */
#ifndef UNDERSTUDY_HV_HOOKS_QEMU_CMDLINE_DISKS_H
#define UNDERSTUDY_HV_HOOKS_QEMU_CMDLINE_DISKS_H

#include <glib.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

struct cmdline;

#define CMDLINE_DISKS_MAX 16
/* -blockdev options. The time to find what stands above a disk's node grows with the square of their number.
 */
#define CMDLINE_NODES_MAX 256

/* A writable disk that is a file or a block device. Strings are owned. */
struct cmdline_disk {
    char *id;     /* the drive's id, the block node's name, or diskN, where N is its index among the disks */
    char *path;   /* as the user gave it */
    char *format; /* raw, qcow2, ...; "": QEMU probes it */
    bool probed;  /* the user gave no format: a format that is set later is given to QEMU */

    /* Its place on the command line; for cmdline_disk_argument. */
    guint arg; /* index in cmdline.args of the option's value */
    bool bare; /* the argument is an image's name without an option */
    const char *option;
    char *prefix, *rest;
    json_t *tree, *server;
};

void cmdline_disk_free(struct cmdline_disk *disk);

/* These three add the disks of an option whose value is the last of cmdline.args. False and error: a disk
 * cannot be protected. */
bool cmdline_disks_drive(struct cmdline *line, const char *value, GError **error);
bool cmdline_disks_blockdev(struct cmdline *line, const char *value, GError **error);
/* option: "hda" to "hdd"; NULL: an image without an option, which is -hda. */
bool cmdline_disks_image(struct cmdline *line, const char *option, const char *path, GError **error);
/* Refuses -fda, -pflash, -sd and -mtdblock, whose writes are not replicated. Always returns false. */
bool cmdline_disks_refuse(const char *option, const char *path, GError **error);
/* Completes the disks after all options have been read: formats of block nodes below others, ids. False and
 * error. */
bool cmdline_disks_finish(struct cmdline *line, GError **error);

/* Returns the value of disk->option with the server at socket instead of the file. GLib string. */
char *cmdline_disk_argument(const struct cmdline_disk *disk, const char *socket);
/* Returns the same with an empty disk of len bytes, which discards writes. GLib string. */
char *cmdline_disk_null_argument(const struct cmdline_disk *disk, uint64_t len);
/* Returns the value of a -blockdev (tree) with such an empty disk. GLib string. */
char *cmdline_disk_null_node(const json_t *tree, uint64_t len);

#endif
