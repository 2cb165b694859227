/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One VM's data plane on one host, as its own files see it. Everything here belongs to the control thread
 * (GLib's default main context) unless a field says otherwise.
 *
 *   sink.c            what the parts post: events, errors, messages
 *   control.c         events into the session, and its timer
 *   actions.c         the session's actions out to the parts
 *   notes.c           what other threads report
 *   parts.c           makes the parts, connects and closes them
 *   guest.c           its machine: start, promotion, end
 *   guest_disks.c     its disks: modes, release and promotion, which wait for them
 *   guest_events.c    what becomes of the guest, and the user's buttons
 *   guest_nics.c      its NICs' way to the gate and the input log
 *   standby_trial.c   when a standby's QEMU is tried
 *   heartbeats.c      what the session hears and says of signs of life
 *   channel.c         the daemon: daemon_orders.c its orders, start_order.c the first one, status_report.c
 * status
 *
 * A part posts to the sink and calls what is below it. It never calls control.c, which calls the parts.
 */
#ifndef UNDERSTUDY_REPLICATOR_REPLICATOR_H
#define UNDERSTUDY_REPLICATOR_REPLICATOR_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "checkpoint/image.h"
#include "checkpoint/staging.h"
#include "common/histogram.h"
#include "common/mailbox.h"
#include "failover/arbiter.h"
#include "failover/session.h"
#include "heartbeat/paths.h"
#include "hv-hooks/hypervisor.h"
#include "hv-hooks/line.h"
#include "hv-hooks/machine.h"
#include "proto/control.pb-c.h"
#include "proto/epoch_wire.h"
#include "replicator/control/capture_stop.h"
#include "replicator/control/guest_disks.h"
#include "replicator/control/sink.h"
#include "replicator/disk/disk_sync.h"
#include "replicator/disk/disks.h"
#include "replicator/network/input_log.h"
#include "replicator/network/output_gate.h"
#include "replicator/pipeline/applier.h"
#include "replicator/pipeline/capture_thread.h"
#include "replicator/pipeline/disk_answer.h"
#include "replicator/transport/connection.h"
#include "replicator/transport/endpoint.h"
#include "replicator/transport/link.h"
#include "replicator/transport/sender.h"

#define REPLICATOR_MAX_NICS 16u

enum replicator_transport { TRANSPORT_AUTO, TRANSPORT_TCP, TRANSPORT_RDMA };

/* What the daemon asked for. Strings are owned. */
struct replicator_config {
    enum session_role role;
    char *vm_name;
    char *vm_dir; /* sockets, console log */
    char **qemu_argv;
    char **trial_argv;              /* secondary: NULL: its QEMU need not be tried */
    char *qemu_version, *tried_for; /* this host's QEMU, and where there is a trial the primary's */
    char *hook_path;
    uint64_t ram_bytes;
    unsigned nnics;
    uint8_t token[WIRE_TOKEN_LEN];
    bool sealed;                     /* links, and heartbeats have tags */
    uint8_t secret[SEAL_SECRET_LEN]; /* the VM's; wiped once the parts have it */
    uint64_t term;
    unsigned epoch_ms, deadline_ms, silence_ms, heartbeat_ms;
    struct heartbeat_path heartbeat_paths[HEARTBEAT_PATHS_MAX];
    unsigned nheartbeat_paths;
    int nice; /* of QEMU and this process; 0: as they are */
    enum session_peer_loss on_peer_loss;
    char *listen_address;
    char *peer_host; /* NULL: not known yet */
    uint16_t peer_data_port, peer_udp_port;
    enum hv_tracker tracker;
    enum replicator_transport transport;
    struct disk_config disks[DISK_MAX];
    unsigned ndisks;
    bool durable_acks; /* an epoch is acked once its disk writes are on stable storage */
    char *state_dir, *disk_plugin;
};

struct channel;
struct note;
struct replicator;
struct term_file;
struct trial;

/* What guest.c passes on of what struct machine_observer hears (hv-hooks/machine.h). Control thread. */
struct guest_observer {
    void (*ready)(struct replicator *r); /* its NICs are connected, too */
    void (*run_event)(struct replicator *r, enum run_event event, const char *reason);
    void (*was_reset)(struct replicator *r);
    void (*disk_error)(struct replicator *r, const struct machine_disk_error *error);
    void (*resumed)(struct replicator *r);
    /* The guest came here. The session knows already. */
    void (*taken_over)(struct replicator *r, const struct machine_takeover *result);
};

/* For the rates that status shows: what the figures were. */
struct report_rates {
    gint64 last_us;
    uint64_t last_epochs, last_bytes;
    double epochs_per_s, bytes_per_s;
};

struct replicator {
    struct replicator_config config;
    GMainLoop *loop;
    struct mailbox box; /* notes to the control thread */

    struct session session;
    struct sink sink; /* the parts post to it */
    guint tick_source;
    struct {
        guint source;
        gint64 cut_us, deaf_us; /* when the link ends, and when heartbeats do */
    } drop;                     /* of a peer that is not trusted any more (drop_peer.c) */
    bool ended;
    int exit_status;

    struct machine *machine; /* the guest's */
    struct hypervisor *hv;   /* the machine's; the capture thread's while it captures, else control's */
    const struct guest_observer *guest_observer;
    uint64_t promote_term;
    bool hv_ready, qemu_gone, quitting, guest_runs_here;
    bool session_begun;                 /* before, session is all zero and says nothing */
    struct run_actions actions;         /* what the user's line says */
    Understudy__GuestState guest_state; /* why the guest stands still */
    char *guest_event;                  /* the last thing told of it, a sentence, or NULL */
    bool cont_after_reset;

    struct guest_disks disks;
    struct disk_sync *disk_sync;     /* primary */
    struct disk_answer *disk_answer; /* secondary */

    struct output_gate *gate;    /* gate_boundary is the capture thread's */
    struct input_log *input_log; /* likewise its boundary */

    struct staging *staging;
    struct image *image;     /* secondary */
    struct applier *applier; /* secondary */
    struct trial *trial;     /* secondary: under way, or NULL */
    char *trial_text;        /* what became of it, a sentence, or NULL */
    gint64 trial_due_us;     /* CLOCK_MONOTONIC: it could not be begun, and is not before that */
    bool peer_untried;       /* primary: the standby's last ack said that its QEMU has yet to be tried */
    struct sender *sender;
    struct capture_thread *capture;
    struct capture_stop capture_stop;
    struct endpoint *endpoints[LINK_MAX_ENDPOINTS];
    unsigned nendpoints;
    struct link *link;
    struct connection *connection; /* the present one, or NULL */

    struct arbiter *arbiter;
    struct term_file *term_file;
    struct paths *paths; /* of heartbeats */
    struct channel *channel;
    struct report_rates rates;

    /* Figures for status. Histograms have one writer each: the thread named. */
    struct histogram *epoch_bytes; /* sender */
    uint64_t sync_done_pages, sync_total_pages;
    bool sync_difference;         /* the last synchronisation was one of what the standby lacked */
    gint64 sync_began_us;         /* of the one under way, 0: none */
    double sync_ms;               /* from its link to protection, < 0: none yet */
    gint64 asked_us, granted_us;  /* CLOCK_MONOTONIC; asked_us 0: no grant is awaited */
    uint64_t silent_ms;           /* for how long the peer had been silent when the grant was asked for */
    double detect_ms, promote_ms; /* of the takeover, < 0: none */
    uint16_t data_port, udp_port; /* ours: where the link listens (0: it dials), heartbeats */
    gint64 since_us;
    /* Since output flows without a standby: when that began, and what the figures were. */
    gint64 alone_us;
    uint64_t alone_epoch, alone_frames;
    char *split; /* what an administrator has to know of two hosts that both ran the guest, or NULL */
    const char *transport; /* of the present connection, or the last one; NULL: none yet */
    char *transport_why;   /* why it is not RDMA, or NULL */
};

/* control.c: what the parts post to r->sink goes to the session from here on */
void control_open(struct replicator *r);
static inline uint64_t replicator_now_ms(void)
{
    return (uint64_t)(g_get_monotonic_time() / 1000);
}

/* actions.c */
/*
 * Carries out one action. said_something: an action of the same decision has sent a message. *offered is the
 * epoch that came with the event, or NULL; who takes it leaves NULL there.
 */
void action_carry_out(struct replicator *r, const struct session_action *action, bool said_something,
                      struct staged_epoch **offered);
bool action_sends_message(enum session_action_type type);
/* Once there is a capture thread. */
void actions_open_capture_stop(struct replicator *r);

/* notes.c: takes the note. */
void notes_take(struct replicator *r, struct note *note);

/* standby_trial.c */
/* With the first whole image; again if the last trial decided nothing. */
void standby_trial_consider(struct replicator *r);
/* NOTE_TRIED came. */
void standby_trial_ended(struct replicator *r, const struct note *note);
/* Who is about to take over, or has ended, waits for no trial. */
void standby_trial_stop_unless_standing_by(struct replicator *r);

/* parts.c */
/* The daemon's order is in config: makes what needs no hypervisor, and starts that. */
void parts_configured(struct replicator *r);
/* The peer's replicator is somewhere else now (a new one). */
void parts_peer_moved(struct replicator *r, const char *host, uint16_t data_port, uint16_t udp_port);
/* The daemons have agreed on another secret, for a new standby. Links to come use it; one that is up stays.
 */
void parts_new_secret(struct replicator *r, const uint8_t secret[SEAL_SECRET_LEN]);

/* ---- drop_peer.c ---- */
/* Leaves the standby: its host is not trusted any more. told: its daemon was asked to stop it. */
void drop_peer_begin(struct replicator *r, bool told);
/* Ends that, because there is another standby, or the replicator ends. */
void drop_peer_end(struct replicator *r);
void parts_close(struct replicator *r);

/* daemon_orders.c: makes the channel to the daemon at the other end of fd. */
void daemon_orders_open(struct replicator *r, int fd);
/* status_report.c: sends status by the channel. */
void status_report(struct replicator *r);

/* guest.c */
bool guest_start(struct replicator *r, GError **error);
/* peer_takes_back: if it fails, the other host still has the guest. */
void guest_promote(struct replicator *r, uint64_t term, bool peer_takes_back);
void guest_quit(struct replicator *r);
void guest_fence(struct replicator *r);
/* Asks the guest itself (ACPI). */
void guest_power_down(struct replicator *r);
void guest_resume(struct replicator *r);
void guest_close(struct replicator *r);

/* guest_events.c: what the machine tells of the guest's life, and the user's buttons */
void guest_events_run(struct replicator *r, enum run_event event, const char *reason);
void guest_events_reset(struct replicator *r);
/* After a takeover: the guest goes on, or stands still as it did on the other host. */
void guest_events_taken_over(struct replicator *r, enum machine_state state);
void guest_button(struct replicator *r, Understudy__PowerAction action);

/* split.c */
/* Output flows from here on without a standby. */
void split_alone(struct replicator *r);
/* The guest here is stopped, since the other host has a newer term. */
void split_fenced(struct replicator *r);
/* A sign of life, before the session hears of it. */
void split_heard(struct replicator *r, const struct session_event *event);

/* heartbeats.c */
/* A sign of life that is no beat: an event HEARTBEAT. */
void heartbeats_heard(struct replicator *r, const struct session_event *event);
bool heartbeats_start(struct replicator *r, GError **error);
/* A beat by every path now, because it asks, answers or tells a new term; by_link: as a message, too. */
void heartbeats_send_now(struct replicator *r, bool by_link);

#endif
