/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The user's QEMU command line: what it says, whether the VM it describes can be protected, and what must be
 * added to it. Pure: nothing is run, no file is opened. Used outside hv-hooks/qemu/ through
 * hv-hooks/line.h.
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
    char *accel;            /* "tcg", "kvm", ... the first asked for */
    bool accel_or_tcg;      /* and tcg where that does not work */
    char *machine;          /* type, "" for QEMU's default */
    bool cpu_host;          /* -cpu host or max under KVM: both hosts need the same processor */
    bool cpu_max;           /* -cpu max: what this QEMU can, and another one can something else */
    char *runs;             /* the first option that makes QEMU run a program or load code: "-plugin FILE" */
    int cpu_arg;            /* where in args the value of the last -cpu is, or -1 */
    GPtrArray *nics;        /* netdev ids (char *) */
    GPtrArray *taps;        /* struct cmdline_tap *: those of the netdevs that are tap devices */
    GPtrArray *files;       /* files that both hosts need (char *): kernel, initrd, ... */
    GPtrArray *disks;       /* struct cmdline_disk *: those the guest may write */
    GPtrArray *block_nodes; /* json_t *: what each -blockdev describes */
    GPtrArray *args;        /* the user's line, with ids given to NICs that had none */
};

/* NULL and error: one sentence that says what to change. */
struct cmdline *cmdline_parse(const char *const *argv, GError **error);
void cmdline_free(struct cmdline *cmdline);

/*
 * The line to run: the user's, with guest memory from fd ram_fd (as QEMU sees it), frame, monitor and disk
 * sockets in vm_dir (disk N's is us-disk-N), and for a standby what makes it wait. GLib strv.
 */
/* Sets a disk's format, found by probing the image, if the user gave none. */
void cmdline_set_format(struct cmdline *cmdline, guint disk, const char *format);
/*
 * Makes QEMU refuse to start if a feature of -cpu is missing. Does nothing without -cpu: QEMU's own default
 * needs few.
 */
void cmdline_enforce_cpu(struct cmdline *cmdline);
/* argv with files that it names from cwd on. GLib strv. */
char **cmdline_absolute(const char *const *argv, const char *cwd);
char **cmdline_build(const struct cmdline *cmdline, int ram_fd, const char *vm_dir, bool standby);
/*
 * The line of a throw-away QEMU that loads a standby's device state on trial (trial_load.h): the same
 * machine, with memory of its own over ram_fd's, disks that hold nothing (disk_len: their guests' bytes, one
 * for each), and nothing of this host's: no network, file to write, socket, display. Its monitor is us-trial
 * in vm_dir; the guest does not run. GLib strv. NULL and error: a part of the machine cannot be there twice.
 */
char **cmdline_build_trial(const struct cmdline *cmdline, int ram_fd, const char *vm_dir,
                           const uint64_t *disk_len, GError **error);

#endif
