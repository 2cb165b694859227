/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Reads the command line by which the user starts a VM's hypervisor, and makes the lines that understudy
 * runs. The base name of the program, its first word, chooses the hypervisor (line_table.c). This header is
 * for code that uses lines; line_ops.h is for a hypervisor that implements them.
 *
 * Any thread; a line is used by one thread at a time. No function runs a program or opens a file, except
 * those of the last section, which run the hypervisor's program and wait for it.
 */
#ifndef UNDERSTUDY_HV_HOOKS_LINE_H
#define UNDERSTUDY_HV_HOOKS_LINE_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A disk that the guest may write, which is a file or a block device. Strings are owned. */
struct line_disk {
    char *id;
    char *path;   /* as the user gave it */
    char *format; /* raw, qcow2, ...; "": the line does not say */
    bool probed;  /* the user gave no format: line_set_format may set it */
};

/* A NIC's tap device, or the bridge into which a helper puts one. Strings are owned. */
struct line_tap {
    char *id;      /* the NIC's */
    char *ifname;  /* "": the next free name */
    char *bridge;  /* "": the line does not say */
    bool scripted; /* the hypervisor runs a script or helper that makes the device ready */
};

struct line {
    const struct line_ops *ops; /* the hypervisor's */
    void *own;                  /* the hypervisor's own data of the line */
    char *program;              /* as the user gave it */
    uint64_t ram_bytes;
    char *accel;                 /* "kvm", or the hypervisor's own word for another accelerator */
    const char *accel_otherwise; /* used where accel does not work; NULL: then it does not start */
    const char *without_kvm;     /* what to write for a guest that needs no KVM */
    const char *cpu_of_host; /* option that gives the guest this host's own processor, so that both hosts need
                                the same one; NULL: there is none in the line */
    char *runs;       /* the first option that makes the hypervisor run another program, or load code, as the
                         user wrote it; NULL: none */
    GPtrArray *nics;  /* ids (char *) */
    GPtrArray *taps;  /* struct line_tap *: the NICs that have a tap device */
    GPtrArray *files; /* files that both hosts need (char *): kernel, firmware, ... */
    GPtrArray *disks; /* struct line_disk * */
};

/* Parses argv (NULL at the end). Free with line_free. NULL and error: one sentence that says what to change.
 */
struct line *line_parse(const char *const *argv, GError **error);
void line_free(struct line *line);
/* Returns a copy of argv in which relative names of files begin with cwd. GLib strv. */
char **line_absolute(const char *const *argv, const char *cwd);
/* Sets the format of a disk (index in line->disks) whose format was found by probing the image. */
void line_set_format(struct line *line, guint disk, const char *format);
/* Makes the hypervisor refuse to start if the host's processor lacks a feature that the line asks for. */
void line_enforce_cpu(struct line *line);
/*
 * Returns the line to run: the user's, with guest memory from the descriptor that the hypervisor inherits,
 * and with the sockets of NICs, monitor and disks in vm_dir. standby: adds what makes it wait. GLib strv.
 */
char **line_build(const struct line *line, const char *vm_dir, bool standby);
/*
 * Returns the line of a temporary hypervisor that loads a standby's device state on trial. It reads guest
 * memory from the same descriptor and does not write to it, and uses none of the standby's files and sockets.
 * Its disks are empty, with disk_len[i] bytes each, in the order of line->disks. GLib strv. NULL and error: a
 * sentence that says why this machine cannot be tried.
 */
char **line_build_trial(const struct line *line, const char *vm_dir, const uint64_t *disk_len,
                        GError **error);
/* Returns whether these bytes, from /proc/PID/cmdline, are a line that line_build has made. bytes[len] is 0.
 */
bool line_was_built(const char *bytes, size_t len);

/* ---- the end of a guest's run ---- */

/* What the user's line says about it. Nothing set: the hypervisor's default, which ends the VM. */
struct run_actions {
    bool shutdown_pauses; /* a guest that shuts down stands still instead of ending the VM */
    bool panic_pauses;
    bool panic_ignored;
    bool watchdog_ends; /* a watchdog that runs out ends the VM */
};

/* Fills actions from the user's line. */
void line_run_actions(const char *const *argv, struct run_actions *actions);

enum run_event {
    RUN_EVENT_SHUTDOWN,  /* the guest has shut down, or was reset and the line treats a reset as a shutdown */
    RUN_EVENT_PANIC_END, /* the hypervisor ends because of a panic, as the line says */
    RUN_EVENT_QUIT,      /* the hypervisor ends, and the guest did not ask for it */
    RUN_EVENT_PANICKED,  /* the guest's kernel has panicked */
    RUN_EVENT_WATCHDOG,  /* the guest's watchdog has run out, and the guest is paused for it */
    RUN_EVENT_WATCHDOG_DONE, /* the watchdog has run out, and the hypervisor does what the line says */
};

enum run_verdict {
    RUN_GOES_ON, /* the event is only reported */
    RUN_STANDS,  /* the guest stands still, as the line says */
    RUN_ENDED,   /* the VM ends, on both hosts */
    RUN_LOST,    /* this hypervisor ends although the guest was not to end: the standby goes on */
};

/* Returns what follows from an event. Pure. */
enum run_verdict run_verdict_of(const struct run_actions *actions, enum run_event event);

/* ---- the program on this host, and on the other ---- */

struct line_program {
    const char *name, *install; /* install: the command that installs it */
};
/* Returns the program that doctor checks if there is no line. */
const struct line_program *line_default_program(void);
/* Returns the default patterns of the programs that another host's lines may name. GLib strv. */
char **line_peer_programs(void);

/* Returns the program's version, with the distribution's part. GLib string, or NULL with a sentence. Runs the
 * program. */
char *line_version(const char *program, GError **error);
/* Returns a copy of argv, from which line was parsed, with the machine type as this host's program resolves
 * it, so that another version of the program makes the same machine. GLib strv, or NULL with a sentence. Runs
 * the program. */
char **line_pin(const struct line *line, const char *const *argv, GError **error);
/* Returns whether the guest can move from a program of version `theirs` to this host's, of version `ours`.
 * False with a sentence. May run the program. */
bool line_can_move(const struct line *line, const char *theirs, const char *ours, GError **error);
/* Returns a sentence for the administrator if the standby's version of the program is not the primary's, or
 * NULL. GLib string. */
char *line_version_warning(const char *program, const char *primary, const char *standby);

#endif
