/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A mailbox: many threads post, one thread takes. A wait-free queue (liburcu's wfcqueue) and an eventfd, so
 * that the taker can sleep in poll(2), in a GLib loop, or in mailbox_wait. Posting never blocks and takes no
 * lock: the capture thread may post right after a pause.
 *
 * A letter is a struct that embeds struct letter as its first member. The poster gives it away; the taker
 * owns it.
 *
 * Memory is bounded (I6): a mailbox has a limit. What a peer can cause is posted by mailbox_try_post, or
 * after mailbox_await_room, with a limit of its own below that: the poster decides what a full mailbox means
 * (read no more, drop, end the connection). What this process's own threads post is bounded by what they work
 * on (staging slots, epochs in flight) and never comes near the limit; mailbox_post asserts that.
 */
#ifndef UNDERSTUDY_REPLICATOR_MAILBOX_H
#define UNDERSTUDY_REPLICATOR_MAILBOX_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <urcu/wfcqueue.h>

#define MAILBOX_LIMIT 65536u /* letters, of any mailbox */

struct letter {
    struct cds_wfcq_node node;
    int kind; /* the mailbox owner's own enum */
};

struct mailbox {
    struct cds_wfcq_head head;
    struct cds_wfcq_tail tail;
    int event_fd;
    _Atomic uint32_t nletters; /* posters add before they enqueue, the taker subtracts */
    _Atomic uint32_t crowded;  /* somebody waits for room: the limit they wait for; the taker clears */
    _Atomic uint32_t room;     /* futex: counts the wake-ups of those */
};

/* 0 or -errno. */
int mailbox_open(struct mailbox *box);
/* The owner takes the letters that are still inside first. */
void mailbox_close(struct mailbox *box);
/* Any thread: false, and the letter stays the caller's, if limit letters are waiting already. */
bool mailbox_try_post(struct mailbox *box, struct letter *letter, uint32_t limit);
/* Any thread but the taker: waits, at most timeout_ms, until fewer than limit letters wait. False: they do
 * not. */
bool mailbox_await_room(struct mailbox *box, uint32_t limit, unsigned timeout_ms);
/* Any thread. */
void mailbox_post(struct mailbox *box, struct letter *letter);
/* Wakes the taker without a letter. Any thread. */
void mailbox_wake(struct mailbox *box);
/* The taking thread: the oldest letter, or NULL. */
struct letter *mailbox_take(struct mailbox *box);
/* The taking thread: sleeps until something was posted or woken, at most timeout_ms (-1: without limit). */
void mailbox_wait(struct mailbox *box, int timeout_ms);
/* The taking thread, when it polls event_fd itself: clears the wake-ups so far. */
void mailbox_clear_wake(struct mailbox *box);

#endif
