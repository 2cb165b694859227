/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The notes that the replicator's threads post to each other: one type for all mailboxes. The poster makes a
 * note, and the taker frees it with g_free.
 */
#ifndef UNDERSTUDY_REPLICATOR_NOTE_H
#define UNDERSTUDY_REPLICATOR_NOTE_H

#include <glib.h>
#include <stdint.h>
#include <string.h>

#include "common/mailbox.h"

struct staged_epoch;
struct connection;

enum note_kind {
    /* to control */
    NOTE_LINK_UP,          /* connection (owned reference), term, arg = peer's role */
    NOTE_LINK_REFUSED,     /* HELLO failed: status, text in payload */
    NOTE_LINK_DOWN,        /* link id, status */
    NOTE_MESSAGE,          /* link id, arg = transport message type, aux = its arg, term, epoch, payload */
    NOTE_EPOCH_RECEIVED,   /* link id, term, epoch, staged */
    NOTE_EPOCH_APPLIED,    /* epoch, status */
    NOTE_BATCH_APPLIED,    /* pre-copy batch */
    NOTE_EPOCH_JOURNALLED, /* link id, term, epoch: its disk writes are on stable storage */
    NOTE_STANDBY_ENDED,    /* status: the disks are ready for the guest to run here */
    NOTE_TERM_KEPT,        /* term: it is on disk */
    NOTE_TERM_FAILED,      /* term, status: it could not be written, and is tried again */
    NOTE_STAGING_ROOM,     /* an epoch that was not applied was freed */
    NOTE_SYNCHRONISED,     /* generation: what is left fits into one epoch */
    NOTE_EPOCH_CUT,        /* generation, epoch */
    NOTE_EPOCH_SENT,       /* link id, epoch, len = bytes */
    NOTE_CAPTURE_FAILED,   /* generation, status, text in payload */
    NOTE_CAPTURE_STOPPED,  /* generation of the stop: nothing from before it is under way any more */
    NOTE_TRIED,            /* arg = enum trial_verdict, epoch, status = its load in us, text in payload */
    /* to the sender */
    NOTE_SEND_EPOCH,
    NOTE_SEND_MESSAGE,
    NOTE_SEND_CLOSE,
    /* to the applier */
    NOTE_APPLY,
    NOTE_DISCARD,
    NOTE_DISCARD_IMAGE,
    NOTE_KEEP_IMAGE,
    NOTE_DISK_PAIR,    /* arg = disk, payload = pair id */
    NOTE_DISK_FLUSHED, /* arg = disk, epoch */
    NOTE_END_STANDBY,  /* arg: sync the disks */
    NOTE_PARK,         /* generation = which park */
    /* to any thread */
    NOTE_QUIT,
};

struct note {
    struct letter letter; /* kind is enum note_kind */
    uint64_t link;
    uint64_t generation;
    uint64_t term;
    uint64_t epoch;
    uint32_t arg;
    uint32_t aux;
    int status;
    struct staged_epoch *staged;
    struct connection *connection;
    size_t len;
    uint8_t payload[];
};

/* Makes a zeroed note with a copy of len payload bytes. */
static inline struct note *note_new(enum note_kind kind, const void *payload, size_t len)
{
    struct note *note = g_malloc0(sizeof *note + len + 1);
    note->letter.kind = kind;
    note->len = len;
    if (len)
        memcpy(note->payload, payload, len);
    return note;
}

/* Takes the oldest note out of the mailbox; NULL: it is empty. */
static inline struct note *note_take(struct mailbox *box)
{
    struct letter *letter = mailbox_take(box);
    return letter ? caa_container_of(letter, struct note, letter) : NULL;
}

#endif
