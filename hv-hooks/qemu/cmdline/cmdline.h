/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Reads the user's QEMU command line, refuses a VM that cannot be protected, and makes the command lines of
 * the primary, the standby and the trial. Pure: runs nothing and opens no file. Code outside hv-hooks/qemu/
 * uses it through hv-hooks/line.h.
 */
#ifndef UNDERSTUDY_HV_HOOKS_QEMU_CMDLINE_H
#define UNDERSTUDY_HV_HOOKS_QEMU_CMDLINE_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "hv-hooks/qemu/cmdline/cmdline_disks.h"

#define CMDLINE_ERROR cmdline_error_quark()
GQuark cmdline_error_quark(void);
enum cmdline_error {
    CMDLINE_ERROR_UNSUPPORTED, /* the VM cannot be protected as it is; the message says what to change */
    CMDLINE_ERROR_SYNTAX,
};

/* A NIC's tap device, or the bridge into which a helper puts one. Strings are owned. */
struct cmdline_tap {
    char *id;      /* the netdev's */
    char *ifname;  /* "": QEMU takes the next free name */
    char *bridge;  /* "": the line does not say */
    bool scripted; /* QEMU runs a script or helper that makes the device ready */
};

struct cmdline {
    char *binary;
    uint64_t ram_bytes;
    char *accel;            /* the first accelerator of the line: "tcg", "kvm", ... */
    bool accel_or_tcg;      /* tcg is used where accel does not work */
    char *machine;          /* type, "" for QEMU's default */
    bool cpu_host;          /* -cpu host or max under KVM: both hosts need the same processor */
    bool cpu_max;           /* -cpu max: another version of QEMU makes another processor of it */
    char *runs;             /* the first option that makes QEMU run a program or load code: "-plugin FILE" */
    int cpu_arg;            /* index in args of the value of the last -cpu, or -1 */
    GPtrArray *nics;        /* netdev ids (char *) */
    GPtrArray *taps;        /* struct cmdline_tap *: the netdevs that are tap devices */
    GPtrArray *files;       /* files that both hosts need (char *): kernel, initrd, ... */
    GPtrArray *disks;       /* struct cmdline_disk *: the disks that the guest may write */
    GPtrArray *block_nodes; /* json_t *: the node of each -blockdev */
    GPtrArray *args;        /* the user's line, in which each NIC has an id */
};

/* Parses argv (NULL at the end). Free with cmdline_free. NULL and error: one sentence that says what to
 * change. */
struct cmdline *cmdline_parse(const char *const *argv, GError **error);
void cmdline_free(struct cmdline *cmdline);

/* Sets a disk's format, which was found by probing the image, if the user gave none. */
void cmdline_set_format(struct cmdline *cmdline, guint disk, const char *format);
/*
 * Makes QEMU refuse to start if this host lacks a feature of -cpu. Does nothing without -cpu, since QEMU's
 * own default needs few features.
 */
void cmdline_enforce_cpu(struct cmdline *cmdline);
/* Returns a copy of argv in which relative names of files begin with cwd. GLib strv. */
char **cmdline_absolute(const char *const *argv, const char *cwd);
/*
 * Returns the command line to run: the user's, with guest memory from descriptor ram_fd (its number in QEMU),
 * and with the sockets of frames, monitor and disks in vm_dir (disk N's is us-disk-N). standby: adds the
 * options that make QEMU wait for a device state. GLib strv.
 */
char **cmdline_build(const struct cmdline *cmdline, int ram_fd, const char *vm_dir, bool standby);
/*
 * Returns the command line of a temporary QEMU that loads a standby's device state on trial (trial_load.h).
 * It has the same machine, private copies of the pages of ram_fd that it writes, and empty disks (disk_len:
 * length of each in bytes). It has nothing of this host: no network, no file to write, no socket, no display.
 * Its monitor is us-trial in vm_dir; the guest does not run. GLib strv. NULL and error: a part of the machine
 * can exist only once.
 */
char **cmdline_build_trial(const struct cmdline *cmdline, int ram_fd, const char *vm_dir,
                           const uint64_t *disk_len, GError **error);

#endif
