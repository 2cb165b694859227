/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A mailbox: many threads post, one thread takes. A wait-free queue (liburcu's wfcqueue) and an eventfd, so
 * that the taker can sleep in poll(2), in a GLib loop, or in mailbox_wait. Posting never blocks and takes no
 * lock: the capture thread may post right after a pause.
 *
 * A letter is a struct that embeds struct letter as its first member. The poster gives it away; the taker
 * owns it.
 */
#ifndef UNDERSTUDY_REPLICATOR_MAILBOX_H
#define UNDERSTUDY_REPLICATOR_MAILBOX_H

#include <stdbool.h>
#include <urcu/wfcqueue.h>

struct letter {
    struct cds_wfcq_node node;
    int kind; /* the mailbox owner's own enum */
};

struct mailbox {
    struct cds_wfcq_head head;
    struct cds_wfcq_tail tail;
    int event_fd;
};

/* 0 or -errno. */
int mailbox_open(struct mailbox *box);
/* Letters still inside are the owner's to take first. */
void mailbox_close(struct mailbox *box);
/* Any thread. */
void mailbox_post(struct mailbox *box, struct letter *letter);
/* Wakes the taker without a letter. Any thread. */
void mailbox_wake(struct mailbox *box);
/* The taking thread: the oldest letter, or NULL. */
struct letter *mailbox_take(struct mailbox *box);
/* The taking thread: sleeps until something was posted or woken, at most timeout_ms (-1: for ever). */
void mailbox_wait(struct mailbox *box, int timeout_ms);
/* The taking thread, when it polls event_fd itself: forget the wake-ups so far. */
void mailbox_clear_wake(struct mailbox *box);

#endif
