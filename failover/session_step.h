/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The ground floor of the session: one step, which is one event at one time and the actions that answer it,
 * and what both roles do in one. Only failover/ includes this. Nothing here calls out, reads a clock or
 * allocates.
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
    bool bug; /* a transition was wanted that there is none: nothing of this step is done */
};

/* Adds an action, with the session's term; the caller fills in the rest. */
struct session_action *step_act(struct step *step, enum session_action_type type);
/*
 * Enters a state; its timer is not set. The role is already that which the side has there. A transition that
 * transitions.c does not know is a bug, here or in memory: the step is marked, and session_handle() ends the
 * session.
 */
void step_enter(struct step *step, enum session_state state);
/* Ends the session for good. */
void step_end(struct step *step, enum session_end_reason reason);
void step_disconnect(struct step *step);
void step_say_goodbye(struct step *step, enum session_end_reason reason);
/* A newer term exists: this side's guest and what it holds back end here. */
void step_fence(struct step *step);
/* Looks for a peer, with a HELLO of now. */
void step_look_for_peer(struct step *step);
/* A primary without a peer looks for one. */
void step_connect_again(struct step *step);
/* A secondary without a primary waits for one. */
void step_listen_again(struct step *step);
/* Asks the arbiter for the next term, and again when the state's timer runs out. */
void step_ask_grant(struct step *step);
/* The event is the arbiter's answer (ok: granted) to what was asked last. */
bool step_is_our_grant(const struct step *step);
/* The peer is asked what it is, unless it was asked already and has not been heard since. */
void step_ask_peer(struct step *step);
/* Whoever missed a beat asks: silence is the lack of an answer. */
void step_ask_if_beat_is_missed(struct step *step);
/* The peer gave a sign of life. */
void step_heard(struct step *step);
/* Answers the peer's query, before the link goes. */
void step_answer(struct step *step);
/* This state judges the peer by its silence: it asks first. */
bool session_watches_peer(const struct session *s);
/* When the peer counts as silent if nothing is heard meanwhile. UINT64_MAX: it has to be asked first. */
uint64_t session_silent_at_ms(const struct session *s);
/* Nothing was heard for longer than this state allows, and where that means that the guest runs on alone, the
 * peer was asked and did not answer either. */
bool step_is_silent(const struct step *step);
/* The state's own timer ran out. */
bool step_timer_ran_out(const struct step *step);

/* image_origin.c. LINK_UP: what becomes of the secondary's image. UNSURE: the link has to be made again. */
enum image_fate { IMAGE_NEW, IMAGE_KEPT, IMAGE_UNSURE };
enum image_fate step_image_fate(const struct step *step);
/* A full synchronisation begins, of the origin that the primary's HELLO named. */
void step_new_image(struct step *step);
/* Its first epoch is whole on the secondary, and acked. */
void step_image_is_whole(struct step *step);
/* What the image lacks is not known any more; or the image is none any more. */
void step_forget_image(struct step *step);

#endif
