/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the files of understudyd offer each other.
 *
 *   main.c      options, start and end, main loop
 *   intake.c    bounded waiting of connections for their request: CLI (Unix socket) and peer daemons (TCP)
 *   server.c    answers requests, each on a thread of its own
 *   vm.c        VMs and their replicators; main thread only
 *   endings.c   the VMs that ended here last, and their run folders
 *   waiters.c   requests that wait until a VM is gone
 *   drain.c     empties this host
 *   vm_table.c  what `status` shows; written by the main thread, read by any thread (RCU)
 *   host*.c     facts about this host
 *   events.c    reports each event once: to the log, the journal of events, the hooks (events.h)
 *   journal.c   keeps the events; hooks.c: runs the administrator's programs; vm_events.c: a VM's events
 *   disk/       the VMs' disks (disk_setup.h)
 *   network/    the guest's network on both hosts (network.h)
 *   files/      files that both hosts must have (files.h); pair_files.c: those of a VM
 *   peer_line.c checks what a peer's command line may name
 *   pair.c      checks what the pair lacks for a VM: before it starts, before it moves, for doctor
 *   vm_watch.c  the same checks from time to time while VMs run, for status
 *   peer.c      calls of the peer's daemon; peer_standby.c: asks it for a standby
 *   secret.c    a VM's secret, a new one for each standby
 *   trust/      who may talk to this daemon: keys, trusted hosts, pairing, roles, TLS (trust/trust.h)
 *   refused.c   logs a peer's request that was refused, seldom
 *   trust_requests.c  the commands about that, and a stranger's answer to an invitation
 */
#ifndef UNDERSTUDY_DAEMON_DAEMON_H
#define UNDERSTUDY_DAEMON_DAEMON_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/stream.h"
#include "daemon/files/files.h"
#include "proto/control.pb-c.h"

#define DEFAULT_PORT 7070
#define DEFAULT_NICE -10

struct line;
struct door;
struct trust;

struct daemon_config {
    char *run_dir;
    char *state_dir;      /* files of all VMs that must survive a restart of the host */
    char *listen_address; /* NULL: all addresses */
    uint16_t port;
    int drain;         /* hand VMs over before this daemon ends */
    int nice;          /* of VMs and their replicators; 0: that of the daemon */
    char *replicator;  /* program */
    char *hook;        /* library */
    char *disk_plugin; /* nbdkit's */
    char *hooks_dir;   /* the administrator's programs */
    char *etc_dir;     /* this host's key, and whom it trusts */
    struct trust *trust;
    const struct door *door; /* of the port for peers: that of trust, except in tests */
    char **qemu; /* patterns of the programs that a peer's command lines may name; NULL: the usual ones */
};

/* ---- host.c: any thread ---- */
/* Returns the processor's name with a short hash of its features. GLib string. */
char *host_cpu_model(void);
/* Returns MemAvailable of /proc/meminfo in MiB; 0: not known. */
uint64_t host_memory_available_mib(void);
/* Returns whether KVM can create a VM. */
bool host_has_kvm(void);
/* Returns the accelerator that this host uses of those that line asks for: "kvm", "tcg", ... GLib string. */
char *host_accel(const struct line *line);
/* Copies a message's array of strings into a GLib strv. */
char **host_argv(char **argv, size_t n_argv);
/* Replaces a string of an unpacked message; frees the old one unless it is protobuf-c's default. */
void protection_set_string(char **field, const char *value);
/* Copies a protection. Free with understudy__protection__free_unpacked. */
Understudy__Protection *protection_copy(const Understudy__Protection *protection);
/* Returns the program of the VM's command line, or NULL. The string is the protection's. */
const char *host_program(const Understudy__Protection *protection);
/* Parses the VM's command line. Free with line_free. NULL and error. */
struct line *host_line(const Understudy__Protection *protection, GError **error);
/* Returns host_accel of the VM, whose command line must have been parsed before without an error. */
char *host_accel_of(const Understudy__Protection *protection);

/* ---- secret.c: any thread ---- */
/* Gives the protection a new random secret. */
void protection_new_secret(Understudy__Protection *protection);
/* Gives it this one (SEAL_SECRET_LEN bytes, copied). */
void protection_set_secret(Understudy__Protection *protection, const uint8_t *secret);
/* Returns whether the secret is there, or none is needed. */
bool protection_has_secret(const Understudy__Protection *protection);

/* ---- host_disks.c: any thread ---- */
/* Returns what this host has for replicated disks, one line each. *faults: what it lacks, and what to do.
 * Both are GLib strvs. */
char **host_disks_report(const struct daemon_config *config, char ***faults);

/* ---- heartbeat_paths.c: any thread ---- */
/* Puts the request's HERE=THERE, as numeric addresses, into the protection (heartbeat_paths_clear frees
 * them). False and error. */
bool heartbeat_paths_describe(Understudy__Protection *protection, const Understudy__RunRequest *request,
                              GError **error);
/* Frees the protection's heartbeat paths. */
void heartbeat_paths_clear(Understudy__Protection *protection);
/* Swaps the two hosts' addresses in the message: it then describes the other host's view. */
void heartbeat_paths_swap(Understudy__Protection *protection);

/* ---- peer.c: any thread but the main one (blocks) ---- */
/* Splits "host", "host:port" or "[v6]:port". *host: GLib string; *port: DEFAULT_PORT if there is none. False:
 * the text has another form. */
bool peer_split(const char *text, char **host, uint16_t *port);
#define PEER_INSTANCE_LEN 16
/* Returns this daemon's random id (PEER_INSTANCE_LEN bytes), by which it notices that a peer's address is its
 * own. */
const uint8_t *peer_own_instance(void);
/* Sets the door that connections to peers go through. Once, before any other thread. */
void peer_use_door(const struct door *door);
/* Connects to the peer's daemon, and says nothing yet. Returns the fd, which is the caller's, or -1 and
 * error. */
int peer_connect_plain(const char *host, uint16_t port, GError **error);
/* Connects to the peer's daemon, whose key must be trusted. Returns the stream (stream_close), or NULL and
 * error. */
struct stream *peer_connect(const char *host, uint16_t port, GError **error);
/* Sends one request by a stream of peer_connect, if the peer may be asked that, and returns the answer (free
 * with understudy__envelope__free_unpacked), or NULL with a sentence that names the peer. */
Understudy__Envelope *peer_ask(struct stream *stream, const char *host, const Understudy__Envelope *request,
                               unsigned timeout_ms, GError **error);
/* Does both, and closes the connection. */
Understudy__Envelope *peer_call(const char *host, uint16_t port, const Understudy__Envelope *request,
                                unsigned timeout_ms, GError **error);
/* Where a peer was reached: the numeric address (GLib string), and its key. */
struct peer_reached {
    char *address;
    bool has_key;
    uint8_t key[STREAM_KEY_LEN];
};
/* Does the same, and sets *reached, which may be NULL. */
Understudy__Envelope *peer_call_at(const char *host, uint16_t port, const Understudy__Envelope *request,
                                   unsigned timeout_ms, struct peer_reached *reached, GError **error);

/* ---- peer_standby.c: any thread but the main one (blocks) ---- */
/* Where a standby listens, and at which address and by which key its daemon was reached. */
struct peer_standby {
    struct peer_reached at;
    uint16_t data_port, udp_port;
};
/*
 * Asks the peer for a standby. False with the peer's own sentence. The caller frees standby->at.address, also
 * after an error. Sets in protection what the peer decided: cpu_enforce, the secret that the standby has (if
 * it is not a new process, that of an earlier request) and, if it is, standby_qemu (protection_set_string).
 */
bool peer_prepare(const char *host, uint16_t port, Understudy__Protection *protection, uint16_t own_port,
                  struct peer_standby *standby, const struct files_progress *progress, GError **error);

/* Tells the peer that its standby is not needed, because the primary could not be started (without this, the
 * standby ends by itself); in_use: because the primary gives it up. False and error: the peer was not
 * reached.
 */
bool peer_cancel(const char *host, uint16_t port, const Understudy__Protection *protection, bool in_use,
                 GError **error);

/* ---- peer_line.c: any thread ---- */
/*
 * Checks whether this host may run a command line that a peer has sent: its program matches one of the
 * patterns `allowed` (NULL: line_peer_programs), and it makes the hypervisor run no other program. False with
 * a sentence that names the option.
 */
bool peer_line_is_allowed(const struct line *line, char *const *allowed, GError **error);

/* ---- pair.c: any thread but the main one (blocks) ---- */
/* Checks before the guest starts whether clients will reach it on both hosts. False with a sentence. */
bool pair_network_is_fit(const Understudy__Protection *protection, const char *host, uint16_t port,
                         GError **error);
/* Returns what is wrong with the VM's network now, one sentence each, as an array of char *. moves_only: only
 * faults that matter for a move to the peer. host NULL: looks at this host only. */
GPtrArray *pair_network_faults(const Understudy__Protection *protection, const char *host, uint16_t port,
                               bool probe, bool moves_only);
/* Makes doctor's findings (free with understudy__findings__free_unpacked), or NULL and error. vms: pointers
 * to the protections of the VMs that run here with that peer. */
Understudy__Findings *pair_findings(const Understudy__PairRequest *request, const GPtrArray *vms,
                                    GError **error);

/* ---- pair_files.c: any thread but the main one (blocks) ---- */
/* Returns the files that both hosts must have for this line, as an array of char *. protection (may be NULL)
 * adds the backing files of its disks. */
GPtrArray *pair_files(const struct line *line, const Understudy__Protection *protection);
/* Compares the files on both hosts. Returns an array of FileFact * if they are the same, or NULL with a
 * sentence. */
GPtrArray *pair_files_agree(const GPtrArray *paths, const char *host, uint16_t port,
                            const struct files_progress *progress, GError **error);
/* Compares the files of the VM on both hosts. False with a sentence. */
bool pair_files_are_fit(const Understudy__Protection *protection, const char *host, uint16_t port,
                        const struct files_progress *progress, GError **error);

/* ---- vm_watch.c: main thread ---- */
/* Starts the timer of the checks. */
void vm_watch_start(void);

/* ---- vm_table.c ---- */
/* Sets the VM's status to a copy of this one. Main thread. */
void vm_table_put(const Understudy__Status *status);
/* Removes the VM. Main thread. */
void vm_table_remove(const char *name);
/* Returns copies of all, or of the VM of that name. Any thread between vm_table_enter and vm_table_leave.
 * Free each with understudy__status__free_unpacked. */
GPtrArray *vm_table_snapshot(const char *name);
/* Register and unregister the calling thread as a reader (RCU). */
void vm_table_enter(void);
void vm_table_leave(void);

/* ---- vm.c: main thread ---- */
/* Initialises the module and adopts the VMs of the daemon before. config must outlive the VMs. */
void vms_init(const struct daemon_config *config);
/* Reserves the name, until vm_forget or vm_start. False with a sentence if it is taken. What is known of a VM
 * of that name that failed here stays until vm_start. */
bool vm_reserve(const char *name, GError **error);
/* Ends a reservation, or removes what vm_start has left of it. */
void vm_forget(const char *name);
/* Called once when a secondary listens on these ports, or has failed (ok false, with a sentence), which
 * includes that it took too long: then the VM is stopped. */
typedef void (*vm_listening)(bool ok, const char *message, uint16_t data_port, uint16_t udp_port,
                             void *opaque);
/* Ends what runs here with the host of this key, which is not trusted any more: standbys here are stopped,
 * and those there lose their link and heartbeats. told: they were asked to stop. */
void vms_end_of_peer(const uint8_t *peer_key, bool told);
/*
 * Starts the replicator. peer_*: the other daemon; peer_key: its key (STREAM_KEY_LEN bytes), or NULL.
 * standby: where the other replicator listens; NULL: this one waits for it. listening: called for a
 * secondary; may be NULL. False with a sentence.
 */
bool vm_start(Understudy__Role role, Understudy__Protection *protection, const char *peer_host,
              uint16_t peer_daemon_port, const uint8_t *peer_key, const struct peer_standby *standby,
              vm_listening listening, void *opaque, GError **error);
enum vm_existing { VM_NONE, VM_REUSE, VM_REFUSED, VM_ENDING /* refused, but perhaps not for long */ };
/* Decides what to do with a request for a standby if the VM is known here already: reuse it (sets the ports,
 * and gives wanted the secret that the standby has), or refuse it (sets *why, a GLib string). */
enum vm_existing vm_check_existing(Understudy__Protection *wanted, uint16_t *data_port, uint16_t *udp_port,
                                   char **why);
/* Stops a standby that waits for the primary with this token (16 bytes), and nothing else; in_use: also one
 * that follows that primary. */
void vm_cancel_standby(const char *name, const uint8_t *token, bool in_use);
/* Orders a planned or a forced failover; does not wait for it. False with a sentence. */
bool vm_failover(const char *name, bool force, GError **error);
/* Stops the VM, or its standby here; does not wait for it. False with a sentence. */
bool vm_stop(const char *name, GError **error);
/* Gives an order to the guest, which must run here: shutdown, reset, pause or resume. False with a sentence.
 */
bool vm_power(const char *name, Understudy__PowerAction action, GError **error);
/* Returns whether any process of the VM runs here. */
bool vm_is_here(const char *name);
/* Returns the number of VMs of which a process runs here. */
unsigned vms_count(void);
/* Resets the percentiles of one VM, or of all (name empty). */
void vm_reset_figures(const char *name);
/* A VM whose QEMU runs here. */
struct vm_view {
    const char *name;
    const Understudy__Protection *protection;
    const char *peer_host;
    uint16_t peer_port;      /* of its daemon */
    bool runs_here;          /* the guest runs on this host */
    bool has_standby;        /* the peer stands by for it, or is about to */
    const uint8_t *peer_key; /* of its daemon; NULL: not known */
};
/* Calls each for every VM whose QEMU runs here. The view is valid during the call only. */
void vms_each(void (*each)(const struct vm_view *vm, void *opaque), void *opaque);
/* Sets the warnings (char *) that status shows, until the next call. Copies them. */
void vm_set_warnings(const char *name, const GPtrArray *warnings);
/* Closes the connections to the replicators, which go on. */
void vms_shutdown(void);

/* ---- waiters.c: main thread ---- */
/*
 * Called once. gone: the VM is gone from this host, and reason says how it ended. Not gone: timeout_ms have
 * passed, or the other end of client is closed.
 */
typedef void (*vm_gone)(bool gone, const char *reason, void *opaque);
/*
 * Waits until the VM is gone, for at most timeout_ms, without blocking. client, the socket of who asked,
 * stays the caller's, and open until vm_gone is called.
 */
void waiters_add(const char *vm, unsigned timeout_ms, int client, vm_gone gone, void *opaque);
/* Tells all that wait for the VM that it is gone. */
void waiters_tell(const char *vm, const char *reason);

/* ---- drain.c ---- */
/* Continues a drain that an earlier daemon began. Main thread. */
void drain_init(const struct daemon_config *config);
/* Begins or ends a drain. kept: it lasts until undrain or a reboot; otherwise as long as this daemon runs.
 * False and error. Main thread. */
bool drain_set(bool on, bool kept, GError **error);
/* Returns whether this host is drained. Any thread. */
bool drain_is_on(void);

/* ---- refused.c ---- */
/* Logs a peer's request that was refused, at most once a minute, with the number of those that were not
 * logged. Any thread. */
void refused_log(const char *address, Understudy__Envelope__BodyCase request, const char *why);

/* ---- trust_requests.c ---- */
/*
 * Serves key, trust, invite and join requests. Where a host is removed, leave is called with its key before
 * that (false: it could not be told), and end afterwards. Any thread but the main one; blocks.
 */
struct trust_removal {
    bool (*leave)(const uint8_t *key);
    void (*end)(const uint8_t *key, bool told);
};
void trust_request_serve(const struct daemon_config *config, struct stream *stream,
                         const Understudy__Envelope *request, const struct trust_removal *removal);
/* Answers a host that is not trusted here, or wants to be paired. Any thread; does not block. */
void stranger_serve(const struct daemon_config *config, struct stream *stream, const char *address,
                    const Understudy__Envelope *request);

/* ---- server.c ---- */
/* Opens both sockets and starts to accept. config must outlive the server. False and error. Main thread. */
bool server_start(const struct daemon_config *config, GError **error);
/* Closes the sockets; requests that are being served go on. Main thread. */
void server_stop(void);

#endif
