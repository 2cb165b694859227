/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The command line by which the user starts a VM's hypervisor: what it says, and the lines that are made of
 * it. The base name of the program, its first word, chooses the hypervisor (line_table.c). This header is for
 * those who use lines; line_ops.h is for a hypervisor that reads them.
 *
 * Any thread; a line is used by one thread at a time. Nothing is run and no file is opened, except by the
 * functions of the last section, which run the program and wait for it.
 */
#ifndef UNDERSTUDY_HV_HOOKS_LINE_H
#define UNDERSTUDY_HV_HOOKS_LINE_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A disk that the guest may write, given by file. Strings are owned. */
struct line_disk {
    char *id;
    char *path;   /* as the user gave it */
    char *format; /* raw, qcow2, ...; "": the line does not say */
    bool probed;  /* the user gave no format: line_set_format may say it */
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
    void *own;                  /* what it keeps for itself of the line */
    char *program;              /* as the user gave it */
    uint64_t ram_bytes;
    char *accel;                 /* "kvm", or the hypervisor's own word for another accelerator */
    const char *accel_otherwise; /* what it takes where that one does not work; NULL: it does not start */
    const char *without_kvm;     /* what to write for a guest that needs no KVM */
    const char *cpu_of_host; /* what gives the guest this host's own processor, so that both need the same;
                                NULL: nothing does */
    char *runs;       /* the first option by which the hypervisor runs another program, or code that the
                         line names, as the user wrote it; NULL: none */
    GPtrArray *nics;  /* ids (char *) */
    GPtrArray *taps;  /* struct line_tap *: those of the NICs that have a tap device */
    GPtrArray *files; /* files that both hosts need (char *): kernel, firmware, ... */
    GPtrArray *disks; /* struct line_disk * */
};

/* NULL and error: one sentence that says what to change. line_free. */
struct line *line_parse(const char *const *argv, GError **error);
void line_free(struct line *line);
/* argv with files that it names from cwd on. GLib strv. */
char **line_absolute(const char *const *argv, const char *cwd);
/* The format of a disk whose format is probed (its place in line->disks), found by looking at the image. */
void line_set_format(struct line *line, guint disk, const char *format);
/* The hypervisor is not to start where the processor lacks something that the line asks for. */
void line_enforce_cpu(struct line *line);
/*
 * The line to run: the user's, with guest memory from the descriptor that the hypervisor is given for it, and
 * the sockets of NICs, monitor and disks in vm_dir; for a standby also what makes it wait. GLib strv.
 */
char **line_build(const struct line *line, const char *vm_dir, bool standby);
/*
 * The line of a throw-away hypervisor in which a standby's device state is loaded on trial: with guest memory
 * from that descriptor, which it does not write, and nothing of what the standby's own has; its disks hold
 * disk_len[i] bytes each, in the order of line->disks. GLib strv. NULL and error: this machine cannot be
 * tried, in one sentence.
 */
char **line_build_trial(const struct line *line, const char *vm_dir, const uint64_t *disk_len,
                        GError **error);
/* Whether these bytes, /proc/PID/cmdline, are a line that line_build has made. bytes[len] is 0. */
bool line_was_built(const char *bytes, size_t len);

/* ---- the end of a guest's run ---- */

/* What the user's line says of it; nothing set: the hypervisor's default, which ends the VM. */
struct run_actions {
    bool shutdown_pauses; /* a guest that shuts down stands still instead of ending the VM */
    bool panic_pauses;
    bool panic_ignored;
    bool watchdog_ends; /* a watchdog that runs out ends the VM */
};

void line_run_actions(const char *const *argv, struct run_actions *actions);

enum run_event {
    RUN_EVENT_SHUTDOWN,      /* the guest has shut down, or was reset where a reset counts as that */
    RUN_EVENT_PANIC_END,     /* the hypervisor ends because of a panic, as the line says */
    RUN_EVENT_QUIT,          /* the hypervisor ends, and the guest did not ask for it */
    RUN_EVENT_PANICKED,      /* the guest's kernel has panicked */
    RUN_EVENT_WATCHDOG,      /* the guest's watchdog has run out, and the guest is paused for it */
    RUN_EVENT_WATCHDOG_DONE, /* it has run out, and the hypervisor itself does what the line says */
};

enum run_verdict {
    RUN_GOES_ON, /* it is told and that is all */
    RUN_STANDS,  /* the guest stands still, as the line says */
    RUN_ENDED,   /* the VM ends, on both hosts */
    RUN_LOST,    /* this hypervisor ends, and nobody wanted the guest to: the standby goes on */
};

enum run_verdict run_verdict_of(const struct run_actions *actions, enum run_event event);

/* ---- the program on this host, and on the other ---- */

struct line_program {
    const char *name, *install; /* install: the command by which it comes to a host */
};
/* What a host is asked for where there is no line. */
const struct line_program *line_default_program(void);
/* Patterns of the programs that another host's lines may name by default: GLib strv. */
char **line_peer_programs(void);

/* The program's version, with the packaging's part. GLib string, or NULL with a sentence. Runs the program.
 */
char *line_version(const char *program, GError **error);
/* argv, which line was parsed from, with the machine named as this host's program understands it, so that
 * another version makes the same one of it. GLib strv, or NULL with a sentence. Runs the program. */
char **line_pin(const struct line *line, const char *const *argv, GError **error);
/* Whether the guest can go from a program of version `theirs` to this host's, which is `ours`. False with a
 * sentence. May run the program. */
bool line_can_move(const struct line *line, const char *theirs, const char *ours, GError **error);
/* A sentence for the administrator where the standby's version of the program is not the primary's, or NULL.
 * GLib string. */
char *line_version_warning(const char *program, const char *primary, const char *standby);

#endif
