/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The machine that a guest lives in: the hypervisor's process on this host, from its start to its end, and
 * what it tells of the guest. hypervisor.h is the other half of the seam: the guest's memory and state, which
 * the engine captures. The base name of the program chooses the hypervisor (machine_table.c). This header is
 * for those who use machines; machine_ops.h is for a hypervisor that provides them.
 *
 * A machine belongs to the thread that starts it, which iterates GLib's default main context; the observer is
 * called from there. An observer may give orders, but does not free the machine. Exceptions say so.
 */
#ifndef UNDERSTUDY_HV_HOOKS_MACHINE_H
#define UNDERSTUDY_HV_HOOKS_MACHINE_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "hv-hooks/hypervisor.h"
#include "hv-hooks/line.h"

struct machine;

struct machine_config {
    const char *vm_name;
    const char *dir;         /* for its sockets; what it prints goes to console.log there */
    const char *const *argv; /* line_build's */
    const char *hook_path;   /* of the library that is loaded into the hypervisor */
    uint64_t ram_len;
    unsigned nnics;
    int nice; /* see struct child_start (common/child_process.h) */
};

/* A request to a disk has failed. Strings are readable and never NULL. */
struct machine_disk_error {
    const char *disk, *reason; /* "": not told */
    bool stops;                /* the guest stands still for it; else the guest was told */
};

/* How the guest was when its state was saved, and is after a takeover. */
enum machine_state {
    MACHINE_RUNS,
    MACHINE_PAUSED,
    MACHINE_DISK_ERROR, /* it stands still for a request that its disk refused */
    MACHINE_PANICKED,
    MACHINE_SHUT_OFF,
    MACHINE_WATCHDOG, /* it stands still since its watchdog ran out */
    MACHINE_STANDS,   /* it stands still for another reason */
};

struct machine_takeover {
    bool ok; /* the guest runs, or stands still as it did when it was saved */
    enum machine_state state;
    const char *words;   /* ok: the hypervisor's own word for state; else one sentence: why not */
    uint64_t elapsed_us; /* since machine_take_over */
};

/* What a machine tells. Strings are readable, and borrowed for the call. No function may be NULL. */
struct machine_observer {
    /* Once, or failed once: its memory is known (hypervisor.h), and it takes orders. */
    void (*ready)(void *opaque);
    /* It did not start. It is killed after this call; ended comes, or has come before. */
    void (*failed)(void *opaque, const char *why);
    /* Once: its process is gone. why is a sentence with what it printed last. */
    void (*ended)(void *opaque, const char *why);
    /* Something is wrong with it that does not end it: a sentence for the log. */
    void (*trouble)(void *opaque, const char *what);
    /* Something that may be the end of the guest's run. reason is the hypervisor's word, or NULL. */
    void (*run_event)(void *opaque, enum run_event event, const char *reason);
    void (*was_reset)(void *opaque);
    void (*disk_error)(void *opaque, const struct machine_disk_error *error);
    /* The guest, which stood still, goes on. */
    void (*resumed)(void *opaque);
    /* Once for each machine_take_over that returned true. */
    void (*taken_over)(void *opaque, const struct machine_takeover *result);
};

/* Starts it. What config points at, observer and opaque stay the caller's and outlive the machine. NULL and
 * error: a sentence for the user; nothing is left behind, and nothing is told. */
struct machine *machine_start(const struct machine_config *config, const struct machine_observer *observer,
                              void *opaque, GError **error);
/* Kills and reaps it if it is still there, without telling, then frees. May wait for the kill. */
void machine_free(struct machine *machine);
/* The other half, the machine's own. Never NULL; its memory is known once the machine is ready. */
struct hypervisor *machine_hypervisor(struct machine *machine);
/* 0: it has ended. */
pid_t machine_pid(const struct machine *machine);

enum machine_order {
    MACHINE_POWER_DOWN, /* asks the guest itself, as by its power button */
    MACHINE_RESET,
    MACHINE_PAUSE,
    MACHINE_CONTINUE,
    MACHINE_QUIT, /* it is to end by itself */
};
/* At most once: the order is not carried out; why is readable, and borrowed. */
typedef void (*machine_refused)(void *opaque, const char *why);
/* Gives an order. Does not wait. Before ready and after the end it does nothing. refused may be NULL, may be
 * called before this returns, and is not called after the machine's end. */
void machine_order(struct machine *machine, enum machine_order order, machine_refused refused, void *opaque);
/* Ends it at once, in any state; ended follows. After its end it does nothing. */
void machine_kill(struct machine *machine);

/* Sockets to one NIC of the guest: streams of frames (replicator/network/frame_stream.h). */
struct machine_nic {
    int out;    /* frames from the guest come here, */
    int in;     /* and go on to the network from here */
    int mirror; /* copies of the frames that the guest received, from machine_mirror_frames on */
    int inject; /* frames for the guest */
};
/* Once ready, once for each NIC. The sockets are non-blocking, close-on-exec and the caller's. False and
 * error: a sentence. */
bool machine_connect_nic(struct machine *machine, unsigned nic, struct machine_nic *out, GError **error);
/* All NICs are connected: copies of frames come from now on. */
void machine_mirror_frames(struct machine *machine);

/* A guest's state beside its main RAM, which is there already. */
struct machine_image {
    const void *devstate;
    size_t devstate_len;
    const uint64_t *used_len; /* of each RAM block */
    unsigned nblocks;
    unsigned limit_ms; /* for the filling of other memory, and then for the rest */
};

/* A standby's, once ready, once: loads the image (copied) and lets the guest go on. Waits for the filling of
 * the memory outside main RAM; taken_over comes later, within limit_ms. False and error: it is not tried. */
bool machine_take_over(struct machine *machine, const struct machine_image *image, GError **error);

#endif
