/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * understudyd, as its files see it.
 *
 *   main.c      options, sockets, main loop
 *   intake.c    connections until their request is here, bounded: CLI (Unix socket) and peer daemons (TCP)
 *   server.c    requests, each on a thread of its own
 *   vm.c        VMs and their replicators; main thread only
 *   endings.c   VMs that ended here: the last ones, and their run folders
 *   waiters.c   who waits for a VM to be gone
 *   drain.c     a host that is to be empty
 *   vm_table.c  what status shows; written by the main thread, read by any (RCU)
 *   host*.c     facts about this host
 *   events.c    what happens here, told once: to the log, the journal of events, the hooks (events.h)
 *   journal.c   the events, kept; hooks.c: the administrator's programs; vm_events.c: a VM's events
 *   disk/       the VMs' disks (disk_setup.h)
 *   network/    the guest's network on both hosts (network.h)
 *   files/      files that both hosts must have (files.h); pair_files.c: those of a VM
 *   peer_line.c what a command line may name that a peer sends
 *   pair.c      what the pair lacks for a VM: before it starts, before it moves, for doctor
 *   vm_watch.c  the same now and then while VMs run, for status
 *   peer.c      calls to the peer's daemon; peer_standby.c: asking it for a standby
 */
#ifndef UNDERSTUDY_DAEMON_DAEMON_H
#define UNDERSTUDY_DAEMON_DAEMON_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "daemon/files/files.h"
#include "proto/control.pb-c.h"

#define DEFAULT_PORT 7070
#define DEFAULT_NICE -10

struct line;

struct daemon_config {
    char *run_dir;
    char *state_dir;      /* of all VMs: what outlives a restart */
    char *listen_address; /* NULL: every address */
    uint16_t port;
    int drain;         /* hand VMs over before this daemon ends */
    int nice;          /* of VMs and their replicators; 0: as the daemon's own */
    char *replicator;  /* program */
    char *hook;        /* library */
    char *disk_plugin; /* nbdkit's */
    char *hooks_dir;   /* the administrator's programs */
    char **qemu; /* patterns of the programs that a peer's command lines may name; NULL: the usual ones */
};

/* ---- host.c: any thread ---- */
char *host_cpu_model(void);
uint64_t host_memory_available_mib(void);
bool host_has_kvm(void);
/* What will be taken of the accelerators that line asks for: "kvm", "tcg", ... GLib string. */
char *host_accel(const struct line *line);
/* A message's array as a GLib strv. */
char **host_argv(char **argv, size_t n_argv);
/* Sets a string of a message whose strings protobuf-c allocates, or that is the default one. */
void protection_set_string(char **field, const char *value);
/* The program of the VM's command line, or NULL. The protection's. */
const char *host_program(const Understudy__Protection *protection);
/* The VM's command line, parsed; line_free. NULL and error. */
struct line *host_line(const Understudy__Protection *protection, GError **error);
/* host_accel for the VM, whose line has been understood before. */
char *host_accel_of(const Understudy__Protection *protection);

/* ---- host_disks.c: any thread ---- */
/* What replicated disks need and this host has, a line each; *faults: what it lacks, and what to do. GLib
 * strvs. */
char **host_disks_report(const struct daemon_config *config, char ***faults);

/* ---- heartbeat_paths.c: any thread ---- */
/* The request's HERE=THERE into the protection (clear frees them), and the other host's view. */
bool heartbeat_paths_describe(Understudy__Protection *protection, const Understudy__RunRequest *request,
                              GError **error);
void heartbeat_paths_clear(Understudy__Protection *protection);
void heartbeat_paths_swap(Understudy__Protection *protection);

/* ---- peer.c: any thread but the main one (blocks) ---- */
/* "host", "host:port" or "[v6]:port" taken apart. */
bool peer_split(const char *text, char **host, uint16_t *port);
/* This daemon's own mark, by which it knows itself when a peer's address turns out to be its own. */
#define PEER_INSTANCE_LEN 16
const uint8_t *peer_own_instance(void);
/* A connection to the peer's daemon: fd, or -1 and a sentence. */
int peer_connect(const char *host, uint16_t port, GError **error);
/* One call. The answer (free_unpacked), or NULL with a sentence that names the peer. */
Understudy__Envelope *peer_call(const char *host, uint16_t port, const Understudy__Envelope *request,
                                unsigned timeout_ms, GError **error);
/* The same, and the address by which the peer was reached, in digits (a GLib string); address may be NULL. */
Understudy__Envelope *peer_call_at(const char *host, uint16_t port, const Understudy__Envelope *request,
                                   unsigned timeout_ms, char **address, GError **error);

/* ---- peer_standby.c: the same ---- */
/* Where a standby listens: the address by which its daemon was reached, in digits (a GLib string). */
struct peer_standby {
    char *address;
    uint16_t data_port, udp_port;
};
/*
 * Asks for a standby. False with the peer's own sentence. standby->address is the caller's, even then.
 * protection learns what the peer decided: cpu_enforce and, where the standby is a new one, standby_qemu
 * (protection_set_string).
 */
bool peer_prepare(const char *host, uint16_t port, Understudy__Protection *protection, uint16_t own_port,
                  struct peer_standby *standby, const struct files_progress *progress, GError **error);

/* The primary could not be started: the standby prepared for it may go. Best effort: it also ends by itself.
 */
void peer_cancel(const char *host, uint16_t port, const Understudy__Protection *protection);

/* ---- peer_line.c: any thread ---- */
/*
 * Whether this host may run the command line, which a peer has sent: its program is among those of the
 * patterns `allowed` (NULL: line_peer_programs), and it has the hypervisor run nothing else. False with a
 * sentence that names the option.
 */
bool peer_line_is_allowed(const struct line *line, char *const *allowed, GError **error);

/* ---- pair.c: any thread but the main one (blocks) ---- */
/* The guest will be heard on both hosts, as far as one can see before it starts. False with a sentence. */
bool pair_network_is_fit(const Understudy__Protection *protection, const char *host, uint16_t port,
                         GError **error);
/* What is wrong with the VM's network now, a sentence each; moves_only: only what a move to the peer would
 * meet. host NULL: this host alone. Array of char *. */
GPtrArray *pair_network_faults(const Understudy__Protection *protection, const char *host, uint16_t port,
                               bool probe, bool moves_only);
/* For doctor. Findings (free_unpacked). vms: Protection * of those that run here with that peer. */
Understudy__Findings *pair_findings(const Understudy__PairRequest *request, const GPtrArray *vms,
                                    GError **error);

/* ---- pair_files.c: the same ---- */
/* The files that both hosts must have for this line; protection, or NULL, knows more of what its disks stand
 * on. Array of char *. */
GPtrArray *pair_files(const struct line *line, const Understudy__Protection *protection);
/* Both hosts have the same. Array of FileFact *, or NULL with a sentence. */
GPtrArray *pair_files_agree(const GPtrArray *paths, const char *host, uint16_t port,
                            const struct files_progress *progress, GError **error);
bool pair_files_are_fit(const Understudy__Protection *protection, const char *host, uint16_t port,
                        const struct files_progress *progress, GError **error);

/* ---- vm_watch.c: main thread ---- */
void vm_watch_start(void);

/* ---- vm_table.c ---- */
/* Main thread: the VM's status is now this (copied). */
void vm_table_put(const Understudy__Status *status);
void vm_table_remove(const char *name);
/* Any thread registered with vm_table_enter: copies of all, or of the one named. Free each with
 * free_unpacked. */
GPtrArray *vm_table_snapshot(const char *name);
void vm_table_enter(void);
void vm_table_leave(void);

/* ---- vm.c: main thread ---- */
void vms_init(const struct daemon_config *config);
/* Reserves the name: false with a sentence if it is taken. Undone by vm_forget or vm_start. */
bool vm_reserve(const char *name, GError **error);
void vm_forget(const char *name);
/* Starts the replicator. peer_*: the other daemon; standby: the other replicator, NULL: for it to come. For a
 * secondary, ports tells when it listens (or fails).
 */
typedef void (*vm_listening)(bool ok, const char *message, uint16_t data_port, uint16_t udp_port,
                             void *opaque);
bool vm_start(Understudy__Role role, Understudy__Protection *protection, const char *peer_host,
              uint16_t peer_daemon_port, const struct peer_standby *standby, vm_listening listening,
              void *opaque, GError **error);
/* A standby for a VM that is known here already: reuse it (ports set) or refuse, with a sentence. */
enum vm_existing { VM_NONE, VM_REUSE, VM_REFUSED, VM_ENDING /* refused, but perhaps not for long */ };
enum vm_existing vm_check_existing(const Understudy__Protection *wanted, uint16_t *data_port,
                                   uint16_t *udp_port, char **why);
/* Stops a standby that waits for the primary with this token (16 bytes), and nothing else. */
void vm_cancel_standby(const char *name, const uint8_t *token);
bool vm_failover(const char *name, bool force, GError **error);
bool vm_stop(const char *name, GError **error);
/* Where the guest runs: its power button, and the like. */
bool vm_power(const char *name, Understudy__PowerAction action, GError **error);
/* Whether anything of it runs here. */
bool vm_is_here(const char *name);
unsigned vms_count(void); /* of those */
/* The figures of one VM, or of all (name empty), begin anew. */
void vm_reset_figures(const char *name);
/* Each VM whose QEMU runs here. */
struct vm_view {
    const char *name;
    const Understudy__Protection *protection;
    const char *peer_host;
    uint16_t peer_port; /* of its daemon */
    bool runs_here;     /* the guest */
    bool has_standby;   /* and the peer stands by, or is about to */
};
void vms_each(void (*each)(const struct vm_view *vm, void *opaque), void *opaque);
/* Shown in status until the next call. */
void vm_set_warnings(const char *name, const GPtrArray *warnings);
void vms_shutdown(void);

/* ---- waiters.c: main thread ---- */
/* gone: the VM is gone from this host; reason: how it ended. Otherwise timeout_ms have passed. */
typedef void (*vm_gone)(bool gone, const char *reason, void *opaque);
void waiters_add(const char *vm, unsigned timeout_ms, vm_gone gone, void *opaque);
void waiters_tell(const char *vm, const char *reason);

/* ---- drain.c ---- */
/* Goes on with a drain that an earlier daemon began. Main thread. */
void drain_init(const struct daemon_config *config);
/* kept: until undrain or a reboot; otherwise as long as this daemon runs. Main thread. */
bool drain_set(bool on, bool kept, GError **error);
/* Any thread. */
bool drain_is_on(void);

/* ---- server.c ---- */
bool server_start(const struct daemon_config *config, GError **error);
void server_stop(void);

#endif
