/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The session decides who is primary, which output may be released, and who may run the guest alone. It is a
 * pure state machine: an event and the time go in, actions come out. It makes no system call, reads no clock,
 * starts no thread and allocates nothing. The replicator feeds it real events, tests/simulation a seeded
 * world.
 *
 * Terms (term.h) are totally ordered. Every change of who runs the guest takes a newer term. The arbiter
 * grants one term to one host. A message of an older term is answered with FENCED. A primary that hears of a
 * newer term fences itself.
 *
 * Before a side runs alone, it asks the other side by every path: its heartbeats carry a query, and the other
 * side answers at once with its standing (enum session_standing). docs/session.md has the rules.
 *
 * Not thread-safe: one thread owns a session.
 */
#ifndef UNDERSTUDY_FAILOVER_SESSION_H
#define UNDERSTUDY_FAILOVER_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "failover/disk_turns.h"
#include "heartbeat/detector.h"
#include "proto/end_reason.h"

enum session_role { SESSION_PRIMARY, SESSION_SECONDARY };

enum session_state {
    /* primary */
    SESSION_CONNECTING,    /* guest runs unprotected, output flows, looking for the peer */
    SESSION_SYNCHRONISING, /* pre-copy; output still flows; until the first epoch is cut */
    SESSION_ARMING,    /* first epoch cut, output held from here on; awaited: an ack by a standby that could
                          take over. Acks of one whose QEMU has yet to be tried release, as when protected */
    SESSION_PROTECTED, /* epochs; output of epoch n is released by the ack of n */
    SESSION_PEER_LOST, /* link gone or peer silent; output held; grant to run alone asked for, or policy hold
                        */
    SESSION_HANDING_OVER,    /* planned failover: guest stays paused after the last epoch */
    SESSION_HANDOVER_UNSURE, /* told the peer to promote, then lost it: guest paused until the arbiter has
                                spoken */
    SESSION_LEAVING,         /* guest ended or stopped: waiting for the peer's goodbye, not for long */
    /* secondary */
    SESSION_LISTENING, /* no primary yet */
    SESSION_FOLLOWING, /* receiving pre-copy or the first epoch: no whole image yet, must not promote */
    SESSION_STANDBY,   /* image + acked epochs are whole: may promote */
    SESSION_ASKING,    /* primary silent or dead: grant asked for */
    SESSION_PROMOTING, /* granted; applying what was acked, then starting the guest */
    /* both */
    SESSION_FENCED, /* a newer term exists: guest must not run */
    SESSION_ENDED,
    SESSION_NSTATES
};

/* What a side says of itself in its heartbeats. The other side may conclude only what is said here. */
enum session_standing {
    SESSION_STANDING_UNKNOWN, /* of a sign of life that does not say */
    SESSION_RUNS_GUEST,       /* primary */
    SESSION_GOES_ALONE,       /* primary that has lost this peer and asks it never to promote its image */
    SESSION_MAY_TAKE_OVER,    /* secondary with a whole image */
    SESSION_HAS_LET_GO,       /* secondary without a whole image: it is alive, and cannot take over */
    SESSION_ASKS_ARBITER,     /* secondary that waits for the arbiter's grant */
    SESSION_TAKES_OVER,       /* secondary that has the grant, and promotes */
    SESSION_NSTANDINGS
};

/* The content of a heartbeat. Each side sends several in the time of a silence, by every path. */
struct session_beat {
    uint64_t term;
    uint64_t query;  /* a query to the peer, which answers with this number at once; 0: no query */
    uint64_t answer; /* the newest query that was heard from the peer */
    enum session_role role;
    enum session_standing standing;
    bool deaf; /* nothing of the peer arrives by the checkpoint network any more */
};

enum session_peer_loss { SESSION_ON_PEER_LOSS_CONTINUE, SESSION_ON_PEER_LOSS_HOLD };

enum session_event_type {
    SESSION_EVENT_START,
    SESSION_EVENT_TICK,         /* time passed */
    SESSION_EVENT_LINK_UP,      /* transport connected and HELLO exchanged: peer_term, peer_role */
    SESSION_EVENT_LINK_DOWN,    /* transport closed or failed */
    SESSION_EVENT_HEARTBEAT,    /* any authenticated sign of life: the fields of struct session_beat */
    SESSION_EVENT_STALLED,      /* this side did not run for stalled_ms until now; fed after all that arrived
                                   meanwhile,      and before TICK */
    SESSION_EVENT_SYNCHRONISED, /* primary: what is left of pre-copy fits into one epoch */
    SESSION_EVENT_EPOCH_CUT,    /* primary: epoch's boundary is fixed: guest resumed, epoch staged */
    SESSION_EVENT_EPOCH_SENT,   /* primary: handed to the link in full */
    SESSION_EVENT_EPOCH_RECEIVED, /* secondary: epoch is whole and checked */
    SESSION_EVENT_EPOCH_DURABLE,  /* secondary: epoch's disk writes are on stable storage */
    SESSION_EVENT_EPOCH_APPLIED,  /* secondary: epoch is in the image */
    SESSION_EVENT_ACK,            /* primary: peer holds epoch; untried */
    SESSION_EVENT_TRIED,          /* secondary: its QEMU loaded the device state on trial (ok), or cannot */
    SESSION_EVENT_HANDOVER,       /* secondary: epoch was the last, promote */
    SESSION_EVENT_HANDOVER_DONE,  /* old primary: peer runs the guest */
    SESSION_EVENT_GOODBYE,        /* peer ended: reason */
    SESSION_EVENT_FENCED,         /* peer says our term is old: peer_term */
    SESSION_EVENT_GRANT,          /* arbiter: granted (bool), for term */
    SESSION_EVENT_TERM_KEPT,      /* term is on this host's disk */
    SESSION_EVENT_DISKS_DURABLE,  /* what was written is on stable storage: order */
    SESSION_EVENT_DISKS_READY,    /* the disks have carried out order, or could not (!ok) */
    SESSION_EVENT_PROMOTED,       /* secondary: guest runs here (ok) or could not be started (!ok) */
    SESSION_EVENT_GUEST_SHUTDOWN, /* primary: guest powered itself off */
    SESSION_EVENT_HYPERVISOR_DIED,
    SESSION_EVENT_IMAGE_FAILED, /* secondary: an epoch could not be written: what is here is no whole epoch */
    SESSION_EVENT_TRACKING_LOST,    /* primary: what changes is not known any more without a gap */
    SESSION_EVENT_FAILOVER_PLANNED, /* user */
    SESSION_EVENT_FAILOVER_FORCE,   /* user, on the secondary: promote now */
    SESSION_EVENT_STOP,             /* user */
    SESSION_EVENT_LEAVE,            /* this host goes down: the guest is to live on elsewhere if it can */
    SESSION_NEVENTS
};

/* Which full synchronisation an image stems from: see image_origin.c. number 0: none. */
struct session_origin {
    uint64_t run, number;
};

/* What a side's HELLO says about images. */
struct session_hello {
    struct session_origin
        origin; /* secondary: of its image; primary: of the image that it can bring up to date */
    struct session_origin next; /* primary: of the image, if a full synchronisation follows */
};

struct session_event {
    enum session_event_type type;
    uint64_t term; /* of the message, the peer, or the grant */
    uint64_t epoch;
    uint64_t order; /* DISKS_DURABLE, DISKS_READY: of the action that this answers */
    enum session_role peer_role;
    bool ok; /* GRANT: granted; PROMOTED: started; EPOCH_CUT: the guest stays paused (last epoch); TRIED */
    bool untried; /* ACK: the standby does not know yet whether it could take over */
    enum session_end_reason reason;
    /* HEARTBEAT */
    enum session_standing standing;
    uint64_t query, answer;
    bool deaf;
    bool by_link;                     /* it came by the checkpoints' own network */
    uint64_t stalled_ms;              /* STALLED */
    struct session_hello said, heard; /* LINK_UP: ours and the peer's, as they were on this link */
};

enum session_action_type {
    SESSION_DO_CONNECT,       /* open (or keep trying to open) the link */
    SESSION_DO_DISCONNECT,    /* close the link; what was half received is thrown away */
    SESSION_DO_START_PRECOPY, /* primary: all pages dirty, begin first synchronisation */
    SESSION_DO_START_RESYNC,  /* primary: dirty is what a peer lacks that holds epoch at least; synchronise it
                               */
    SESSION_DO_FORGET_IMAGE,  /* primary: the peer's image will not be brought up to date: no more tracking */
    SESSION_DO_STOP_CAPTURE,  /* primary: no more epochs (peer gone); what changes is still tracked */
    SESSION_DO_HOLD_OUTPUT,   /* primary: from here on output waits; done before the first cut */
    SESSION_DO_START_EPOCHS,  /* primary: cut epochs from now on */
    SESSION_DO_RELEASE,       /* primary: release output of epochs <= epoch */
    SESSION_DO_RELEASE_ALL,   /* output flows freely from here on */
    SESSION_DO_RELEASE_LAST,  /* the same, once all that was written is durable; nothing follows */
    SESSION_DO_DROP_OUTPUT,   /* throw held output away (fenced) */
    SESSION_DO_SEND_ACK,      /* secondary: epoch, untried */
    SESSION_DO_APPLY,         /* secondary: epoch may go to the image */
    SESSION_DO_DISCARD_IMAGE, /* secondary: image is worthless, start over (new pre-copy begins) */
    SESSION_DO_KEEP_IMAGE,    /* secondary: no whole epoch any more, but what it lacks will come */
    SESSION_DO_ASK_PEER,      /* send a beat by every path now: it has a query */
    SESSION_DO_SEND_ANSWER,   /* send a beat by every path now, the link too: it answers the peer's query */
    SESSION_DO_ASK_GRANT,     /* ask the arbiter for term */
    SESSION_DO_PROMOTE,       /* secondary: start the guest from epoch (all applied), as primary of term */
    SESSION_DO_KEEP_TERM, /* hold output, if it is not held; write term to this host's disk, then say so */
    SESSION_DO_DISKS_DURABLE, /* all that was written to stable storage, what is held back of shared disks too
                               */
    SESSION_DO_DISKS_GIVE_UP, /* nothing may be written here any more, where the other host has the same
                                 images */
    SESSION_DO_DISKS_WRITABLE,  /* the guest may write here again */
    SESSION_DO_DISKS_TAKE_OVER, /* secondary: empty the journal, then the guest may write here */
    SESSION_DO_LAST_EPOCH,      /* primary: cut one epoch and leave the guest paused */
    SESSION_DO_SEND_HANDOVER,   /* primary: epoch */
    SESSION_DO_SEND_HANDOVER_DONE,
    SESSION_DO_SEND_GOODBYE, /* reason */
    SESSION_DO_SEND_FENCED,  /* term */
    SESSION_DO_RESUME_GUEST, /* primary: handover failed before the peer could have started: guest goes on */
    SESSION_DO_FENCE_GUEST,  /* stop the guest at once and for good: quit the hypervisor, release nothing */
    SESSION_DO_QUIT_HYPERVISOR,
    SESSION_DO_POWER_DOWN_GUEST, /* primary: ask the guest itself to shut down */
    SESSION_DO_END,              /* reason; nothing follows */
    SESSION_NACTIONS
};

struct session_action {
    enum session_action_type type;
    uint64_t term;
    uint64_t epoch;
    uint64_t order; /* DISKS_*: the answer has to name it */
    enum session_end_reason reason;
    bool untried;
};

#define SESSION_MAX_ACTIONS 16
struct session_actions {
    size_t n;
    struct session_action list[SESSION_MAX_ACTIONS];
};

struct session_config {
    enum session_role role;
    uint64_t term; /* first term of a new pair: TERM_FIRST */
    uint64_t run;  /* a random number: this process, and its QEMU's run of the guest */
    enum session_peer_loss on_peer_loss;
    uint64_t silence_ms;   /* no sign of life for this long: the peer is lost (default 100) */
    uint64_t heartbeat_ms; /* the peer's beats come as often as this (default silence_ms / 10) */
    uint64_t query_base;   /* queries' numbers begin above it: more than any earlier process used */
    bool other_paths;      /* beats come by other networks too, so the checkpoints' own can fail alone */
    bool keeps_terms;      /* a new term is on disk before anything of it is let out */
    uint64_t used_term; /* newest term that an earlier process of this host used in this pair: no older one is
                           asked for. 0: none, or an arbiter knows it */
    bool disks;         /* the VM has replicated disks: some decisions wait for them (disk_turns.h) */
    bool durable_acks;  /* secondary: an epoch is acked once it is durable */
    bool untried;       /* secondary: TRIED will tell whether its QEMU can take over */
    uint64_t handover_timeout_ms; /* planned failover gives up after this (default 5000) */
    uint64_t grant_retry_ms;
    uint64_t ack_timeout_ms;        /* from sending an epoch in full to its ack (default 3000) */
    uint64_t listen_timeout_ms;     /* a secondary without a primary ends after this (default 60000), and a
                                       primary without one gives its image up */
    uint64_t leave_timeout_ms;      /* LEAVE: a handover is waited for this long (default 2000) */
    uint64_t power_down_timeout_ms; /* LEAVE: a guest that nobody takes has this long (default 60000) */
    bool chaos_release_before_ack;  /* planted bugs, for tests that must find them */
    bool chaos_promote_without_grant;
    bool chaos_apply_unacked;
    bool chaos_ask_nobody;       /* run alone without asking the peer */
    bool chaos_keep_image;       /* secondary: say that the image was let go, and keep it */
    bool chaos_wait_for_acks;    /* a cut path is noticed by late acks alone */
    bool chaos_ack_while_asking; /* secondary */
    bool chaos_equal_terms;      /* both hosts ask for the same terms */
    bool chaos_keep_any_image;
    bool chaos_stop_unconfirmed; /* primary: say that the guest has ended, though the peer may take it over */
    bool chaos_release_before_term;
    bool chaos_any_disk_answer;     /* an answer of the disks counts for whatever is under way */
    bool chaos_late_disk_answer;    /* and when the session has moved on */
    bool chaos_ask_while_following; /* secondary: silence makes one ask that has no whole image */
};

struct session {
    struct session_config config;
    enum session_role role;
    enum session_state state;
    uint64_t term;
    unsigned host;           /* this host's bit in the terms that it asks for */
    uint64_t cut_epoch;      /* primary: newest epoch cut */
    uint64_t acked_epoch;    /* primary: newest acked; secondary: newest it acked */
    uint64_t released_epoch; /* primary */
    uint64_t applied_epoch;  /* secondary */
    struct term_record {
        uint64_t kept;        /* newest term of ours that is on disk */
        bool all_waits;       /* release-all waits for the present one */
        uint64_t epoch_waits; /* newest epoch whose release does, 0: none */
    } term_record;
    struct disk_turns disk_turns; /* what waits for the disks */
    struct detector detector;     /* when the peer was heard */
    uint64_t query;               /* newest query of ours */
    uint64_t loss_query;          /* peer lost: the first query since then, which the peer has to answer */
    uint64_t peer_query;          /* newest query of the peer's */
    uint64_t let_go_term;         /* secondary: its primary of this term was told that it may run alone */
    uint64_t primary_term;        /* secondary: newest term in which a primary was heard */
    uint64_t seen_term;           /* primary: newest term that the peer was granted and did not use */
    uint64_t deadline_ms;         /* of the state's own timer, 0 = none */
    bool link_up;
    enum session_end_reason end_reason;
    uint64_t first_epoch; /* primary: first epoch of the present synchronisation; older acks do not count */
    uint64_t handover_epoch;      /* primary: the epoch that left the guest paused, 0: not cut yet */
    uint64_t sent_epoch;          /* primary: newest handed to the link in full */
    uint64_t ack_due_ms;          /* primary: when the next ack must have come, 0: none is awaited */
    uint64_t asked_term;          /* the grant asked for, 0: none */
    bool held;                    /* primary: output is being held */
    struct session_origin origin; /* of the secondary's image, on both sides */
    bool origin_kept;             /* it may be brought up to date when a link returns */
    uint64_t syncs;               /* primary: full synchronisations begun */
    bool handover_sent, handed_over, promoting;
    bool last_epoch_due;                 /* primary: ordered and not heard of: it may yet pause the guest */
    uint64_t transitions;                /* made so far, by their place in transitions.c */
    enum session_state bug_from, bug_to; /* SESSION_END_BUG: what this session was about to do */
    bool untried;                /* secondary: whether this QEMU loads the device state is not known yet */
    bool leaving, powering_down; /* LEAVE was heard; the guest was asked to shut down */
    uint64_t leave_due_ms;       /* primary: when a leaving host does not wait any longer, 0: not leaving */
};

void session_init(struct session *s, const struct session_config *config, uint64_t now_ms);
/* Handles one event, and writes the actions that answer it to out. now_ms: any monotonic clock of this host.
 */
void session_handle(struct session *s, const struct session_event *event, uint64_t now_ms,
                    struct session_actions *out);
/* Fills in this side's next heartbeat. */
void session_beat(const struct session *s, uint64_t now_ms, struct session_beat *beat);
/* Whether this side has the guest and lets it run: the guest is not being handed over or ended. */
bool session_has_guest(const struct session *s);
/* Whether a takeover under way is a planned one whose old primary waits for its result: it has the guest, and
 * takes it back if the takeover fails. */
bool session_peer_takes_back(const struct session *s);
/* Fills in what a HELLO says now about images. */
void session_hello(const struct session *s, struct session_hello *hello);
/* Returns when the next TICK is due (same clock). UINT64_MAX: never. */
uint64_t session_next_tick_ms(const struct session *s);
const char *session_role_name(enum session_role role);
const char *session_state_name(enum session_state state);
const char *session_event_name(enum session_event_type type);
const char *session_action_name(enum session_action_type type);
const char *session_standing_name(enum session_standing standing);

#endif
