/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The disks of the user's QEMU command line: which of them the guest may write, by which file, and what to
 * say to QEMU instead so that it reaches the disk through a server's Unix socket. Part of cmdline.h, which is
 * what others use; pure like it.
 */
#ifndef UNDERSTUDY_HV_HOOKS_QEMU_CMDLINE_DISKS_H
#define UNDERSTUDY_HV_HOOKS_QEMU_CMDLINE_DISKS_H

#include <glib.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

struct cmdline;

#define CMDLINE_DISKS_MAX 16

/* A writable disk given by file. */
struct cmdline_disk {
    char *id;     /* the drive's id, the block node's name, or diskN, N its place among the disks */
    char *path;   /* as the user gave it */
    char *format; /* raw, qcow2, ...; "" where QEMU is left to probe it */
    bool probed;  /* the user gave no format: one that is set later is told to QEMU */

    /* How it stands on the command line; for cmdline_disk_argument. */
    guint arg; /* index in cmdline.args of the option's value */
    bool bare; /* and that is an image's name without an option */
    const char *option;
    char *prefix, *rest;
    json_t *tree, *server;
};

void cmdline_disk_free(struct cmdline_disk *disk);

/* Each looks at an option whose value is the last of cmdline.args. False and error: it cannot be protected.
 */
bool cmdline_disks_drive(struct cmdline *line, const char *value, GError **error);
bool cmdline_disks_blockdev(struct cmdline *line, const char *value, GError **error);
/* -hda to -hdd (option, its name) and images without an option (NULL, which is -hda's place). */
bool cmdline_disks_image(struct cmdline *line, const char *option, const char *path, GError **error);
/* -fda, -pflash, -sd, -mtdblock: what is written there is not replicated. Always false. */
bool cmdline_disks_refuse(const char *option, const char *path, GError **error);
/* When all options have been seen: formats of block nodes that others build on, names. */
bool cmdline_disks_finish(struct cmdline *line, GError **error);

/* The value of disk->option with the server at socket in place of the file. GLib string. */
char *cmdline_disk_argument(const struct cmdline_disk *disk, const char *socket);
/* The same with a disk of len bytes that holds nothing, which takes writes and forgets them. */
char *cmdline_disk_null_argument(const struct cmdline_disk *disk, uint64_t len);
/* A -blockdev's value, as keys or JSON, likewise. GLib string. */
char *cmdline_disk_null_node(const json_t *tree, uint64_t len);

#endif
