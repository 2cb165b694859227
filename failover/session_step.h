/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A step is one event at one time, with the actions that answer it. This is the lowest layer of the session:
 * the step, and the helpers that both roles use in one. Only failover/ includes this header. No function here
 * makes a system call, reads a clock or allocates.
 */
#ifndef UNDERSTUDY_FAILOVER_SESSION_STEP_H
#define UNDERSTUDY_FAILOVER_SESSION_STEP_H

#include "failover/session.h"
#include "proto/term.h"

struct step {
    struct session *s;
    const struct session_event *event;
    uint64_t now_ms;
    struct session_actions *out;
    bool answered;
    bool bug; /* an illegal transition was tried: no action of this step is carried out */
};

/* Adds an action with the session's term; the caller fills in the other fields. */
struct session_action *step_act(struct step *step, enum session_action_type type);
/*
 * Enters a state and clears the state's timer. The caller has set the role of the new state before. If
 * transitions.c does not list the transition, the code or the memory is faulty: the step is marked as a bug,
 * and session_handle() ends the session.
 */
void step_enter(struct step *step, enum session_state state);
/* Ends the session for good. */
void step_end(struct step *step, enum session_end_reason reason);
void step_disconnect(struct step *step);
void step_say_goodbye(struct step *step, enum session_end_reason reason);
/* Fences this side because a newer term exists: drops held output, kills the guest, ends the session. */
void step_fence(struct step *step);
/* Opens a link to a peer, with a HELLO that states the present image. */
void step_look_for_peer(struct step *step);
/* Enters CONNECTING and looks for a peer. For a primary. */
void step_connect_again(struct step *step);
/* Enters LISTENING and waits for a primary. For a secondary. */
void step_listen_again(struct step *step);
/* Asks the arbiter for the next term, and sets the state's timer for the next attempt. */
void step_ask_grant(struct step *step);
/* Whether the peer can have the term that the event names. An event with any other term does not count. */
bool step_believes_term(const struct step *step);
/* Whether the event is the arbiter's answer (ok: granted) to the newest request. */
bool step_is_our_grant(const struct step *step);
/* Sends the peer a query, unless an earlier query is still unanswered. */
void step_ask_peer(struct step *step);
/* Sends the peer a query if a heartbeat is overdue: a peer is silent only if it does not answer. */
void step_ask_if_beat_is_missed(struct step *step);
/* Records a sign of life of the peer. */
void step_heard(struct step *step);
/* Answers the peer's query once in a step, before the link is closed. */
void step_answer(struct step *step);
/* Whether this state judges the peer by silence. Such a state asks the peer first. */
bool session_watches_peer(const struct session *s);
/* When the peer will count as silent if nothing is heard. UINT64_MAX: the peer has to be asked first. */
uint64_t session_silent_at_ms(const struct session *s);
/* Whether nothing was heard for longer than this state allows. Where silence would let the guest run alone,
 * the peer must also have left a query unanswered. */
bool step_is_silent(const struct step *step);
/* Whether the state's own timer has run out. */
bool step_timer_ran_out(const struct step *step);

/* image_origin.c. On LINK_UP: what happens to the secondary's image. UNSURE: the link has to be made again.
 */
enum image_fate { IMAGE_NEW, IMAGE_KEPT, IMAGE_UNSURE };
enum image_fate step_image_fate(const struct step *step);
/* Begins a full synchronisation with the origin that the primary's HELLO named. */
void step_new_image(struct step *step);
/* Keeps the origin: the first epoch of the synchronisation is whole on the secondary and acked. */
void step_image_is_whole(struct step *step);
/* Forgets the origin: the changes since then are not known, or the image is no image of a guest any more. */
void step_forget_image(struct step *step);

#endif
