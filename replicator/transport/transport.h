/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A transport carries staged epochs one way and small messages both ways between the two replicators of one
 * VM. Implementations: tcp (tcp.c) and rdma (rdma/rdma.c).
 *
 * Threads: send_epoch is called by one sender thread; send_message by any thread (calls are serialised
 * inside); receive by one receiver thread. shutdown may be called by any thread and makes the other calls
 * return -ENOTCONN promptly. Every blocking call has a time limit: if a peer stops reading, or sends half a
 * message and stalls, the call returns -ETIMEDOUT. Functions return 0 or -errno unless they say otherwise.
 */
#ifndef UNDERSTUDY_REPLICATOR_TRANSPORT_H
#define UNDERSTUDY_REPLICATOR_TRANSPORT_H

#include <stddef.h>
#include <stdint.h>

#include "checkpoint/staging.h"
#include "proto/seal_keys.h"

struct transport;

/* Small messages. Values are wire format; see proto/epoch_wire.h. */
enum message_type {
    MESSAGE_HELLO = 1, /* opens the link, both ways: token, term, role, RAM layout */
    MESSAGE_EPOCH =
        2,           /* header of a staged epoch: index, pages, device state follow, then the commit record */
    MESSAGE_ACK = 3, /* secondary holds all of epoch n; arg: ACK_UNTRIED or 0 */
    MESSAGE_APPLIED = 4,       /* epoch n (arg 0) or batch n (arg 1) is in the secondary's images */
    MESSAGE_FRAMES = 5,        /* copies of frames that the guest received after a boundary */
    MESSAGE_HANDOVER = 6,      /* planned failover: epoch n is the last; promote when it is applied */
    MESSAGE_HANDOVER_DONE = 7, /* secondary runs the guest; the old primary may quit */
    MESSAGE_GOODBYE = 8,       /* protection ends: reason (guest shut down, stopped, hypervisor died) */
    MESSAGE_FENCED = 9,        /* the receiver's term is old: it must stop */
    MESSAGE_KEEPALIVE = 10,
    /* Disks; arg is the disk's number. See proto/disk_wire.h for the payloads. */
    MESSAGE_DISK_BITS = 11,  /* secondary: words of its dirty-block map, from word n on */
    MESSAGE_DISK_STATE = 12, /* secondary: length, pair, whether the map can be trusted; after the bits */
    MESSAGE_DISK_PAIR = 13,  /* primary: a new pair begins */
    MESSAGE_DISK_HASH_REQUEST = 14, /* primary: asks for hashes of chunks from n on */
    MESSAGE_DISK_HASHES = 15,       /* secondary: these hashes */
    MESSAGE_BEAT = 17,              /* a heartbeat with a query or an answer: its packet is the payload */
    MESSAGE_DISK_FLUSHED = 16,      /* primary: a shared disk's image has all writes up to epoch n */
    /* Before HELLO on a link that is sealed, and in the clear; see proto/seal_keys.h. */
    MESSAGE_SEAL_OPENING = 18, /* from the side that dialled */
    MESSAGE_SEAL_ANSWER = 19,  /* from the side that accepted; everything after it is sealed */
};

/* It is not known yet whether the secondary could take over: its QEMU has not loaded this VM's device state
 * yet. */
#define ACK_UNTRIED 1u

struct transport_message {
    enum message_type type;
    uint64_t term;
    uint64_t epoch;
    uint32_t arg;           /* per type: reason, NIC index, flags */
    size_t len;             /* payload bytes, <= TRANSPORT_MAX_PAYLOAD */
    const uint8_t *payload; /* receive: valid until the next receive */
};
#define TRANSPORT_MAX_PAYLOAD (1u << 20)

struct transport_stats {
    uint64_t bytes_sent, bytes_received, epochs_sent, epochs_received;
};

/* What receive() returns in *out. */
struct transport_received {
    struct transport_message message; /* any type; for MESSAGE_EPOCH epoch below is set */
    struct staged_epoch *epoch;       /* whole, checked and committed to the receiver's staging, or NULL */
};

struct transport_ops {
    const char *name;
    /*
     * Seals everything that is sent from now on, and takes nothing that is not sealed. Between two messages,
     * while no other thread uses the transport. The keys are the caller's, who wipes them.
     */
    int (*seal)(struct transport *t, const struct seal_keys *keys);
    /* Sends an epoch. Its staging memory must stay until epochs_done counts the epoch. */
    int (*send_epoch)(struct transport *t, uint64_t term, const struct staging *staging,
                      const struct staged_epoch *epoch);
    /* Returns how many of the epochs sent, in order, no longer need their staging memory, or -errno. Sender
     * thread. */
    int64_t (*epochs_done)(struct transport *t);
    /*
     * Returns a descriptor that is or becomes readable when epochs_done may have grown since its last call;
     * -1 if send_epoch returns only when all is done. To be called each time before waiting. Sender thread.
     * If another thread sends at the same time, it may take the wake-up.
     */
    int (*done_fd)(struct transport *t);
    /* Waits a short time until what was sent has left this host. To be called before a shutdown that should
     * lose nothing. */
    void (*flush)(struct transport *t);
    int (*send_message)(struct transport *t, const struct transport_message *message);
    /* Blocks until a message or a whole epoch has come. Pages are received directly into staging. */
    int (*receive)(struct transport *t, struct staging *staging, struct transport_received *out);
    /* Tells the peer that the receiver's staging has room again. Any thread; never blocks. */
    void (*room)(struct transport *t);
    void (*shutdown)(struct transport *t);
    void (*free)(struct transport *t);
    void (*stats)(const struct transport *t, struct transport_stats *out);
};

struct transport {
    const struct transport_ops *ops;
    /* The longest payload of a message that is received; 0: TRANSPORT_MAX_PAYLOAD. Less before it is known
     * who speaks. The receiving thread's. */
    uint32_t payload_max;
};

static inline uint32_t transport_payload_max(const struct transport *t)
{
    return t->payload_max ? t->payload_max : TRANSPORT_MAX_PAYLOAD;
}

/*
 * Makes a TCP transport on a connected socket, which it takes over. stall_ms limits each step that blocks; a
 * peer that synchronises may take nothing for longer (epoch_stalls).
 */
struct transport *transport_tcp_new(int fd, unsigned stall_ms);

#endif
