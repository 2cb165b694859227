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
    _Atomic uint32_t crowded;  /* the limit that waiting posters wait for; 0: none waits; the taker clears */
    _Atomic uint32_t room;     /* futex of the waiting posters: counts their wake-ups */
};

/* Makes an empty mailbox. 0 or -errno. */
int mailbox_open(struct mailbox *box);
/* Closes the mailbox. The owner has to take all letters before. */
void mailbox_close(struct mailbox *box);
/* Posts a letter. False, and the letter stays the caller's, if limit letters wait already. Any thread. */
bool mailbox_try_post(struct mailbox *box, struct letter *letter, uint32_t limit);
/* Waits, at most timeout_ms, until fewer than limit letters wait. False: time is over. Not the taker. */
bool mailbox_await_room(struct mailbox *box, uint32_t limit, unsigned timeout_ms);
/* Posts a letter. Any thread. */
void mailbox_post(struct mailbox *box, struct letter *letter);
/* Wakes the taker without a letter. Any thread. */
void mailbox_wake(struct mailbox *box);
/* Takes the oldest letter, or returns NULL. The taking thread. */
struct letter *mailbox_take(struct mailbox *box);
/* Sleeps until a letter or a wake-up comes, at most timeout_ms (-1: without limit). The taking thread. */
void mailbox_wait(struct mailbox *box, int timeout_ms);
/* Clears the wake-ups so far. The taking thread, if it polls event_fd itself. */
void mailbox_clear_wake(struct mailbox *box);

#endif
