/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The files that a session is made of, from the ground up: each calls only those named before it (and
 * session_step.h).
 */
#ifndef UNDERSTUDY_FAILOVER_SESSION_PARTS_H
#define UNDERSTUDY_FAILOVER_SESSION_PARTS_H

#include "failover/session_step.h"

/* ---- output_commit.c: primary ---- */
void commit_on_cut(struct step *step);
void commit_on_sent(struct step *step);
void commit_on_ack(struct step *step);
bool commit_ack_is_overdue(const struct step *step);
/* When the checkpoints' own network counts as cut if nothing comes by it, UINT64_MAX: never. */
uint64_t commit_path_is_cut_at_ms(const struct session *s);
bool commit_path_is_cut(const struct step *step);

/* ---- peer_loss.c: primary ---- */
/* The peer is gone while it may hold an epoch from which it could promote. Enters PEER_LOST. */
void peer_loss_begin(struct step *step);
/*
 * PEER_LOST and HANDOVER_UNSURE: the peer is asked to let go of its image, by every path. gone: it said
 * itself that it has ended, or it was asked and is silent: then the arbiter is asked at once.
 */
void peer_loss_inquire(struct step *step, bool gone);
/* One event while the peer's answer is awaited. */
void peer_loss_await_answer(struct step *step);
/* A sign of life: it may be the answer. */
void peer_loss_weigh_answer(struct step *step);
/* The grant has come: output flows, and a new peer is looked for. */
void peer_loss_run_alone(struct step *step);
/* Nobody came for the image that this side can bring up to date: what changes is not tracked any more. */
void peer_loss_give_image_up(struct step *step);
/* One event in PEER_LOST. */
void peer_loss_handle(struct step *step);

/* ---- handover.c: primary ---- */
/* A planned failover: the last epoch is ordered. Enters HANDING_OVER. */
void handover_begin(struct step *step);
/* The peer runs the guest: this side ends. */
void handover_finish(struct step *step);
/* One event in HANDING_OVER, in HANDOVER_UNSURE. */
void handover_handle(struct step *step);
void handover_unsure_handle(struct step *step);

/* ---- leave.c: primary ---- */
/* What the event means for a primary whose host goes down. True if nothing else looks at it. */
bool leave_handle(struct step *step);
/* After each event of a session that leaves: the next step towards the door. */
void leave_go_on(struct step *step);

/* ---- disk_turns.c: see disk_turns.h ---- */

/* ---- term_record.c ---- */
/* After the session has decided, and the disks' turns: orders a new term to be kept; what has to wait for it
 * does. */
void term_record_order(struct step *step, uint64_t term_before);
/* The term of the event is on disk: what waited for it. */
void term_record_kept(struct step *step);

/* ---- takeover.c: secondary ---- */
/* Asks for a term. From here on nothing is acked. Enters ASKING. */
void takeover_begin(struct step *step, bool keep_link);
/* One event in ASKING, in PROMOTING. */
void takeover_handle_asking(struct step *step);
void takeover_handle_promoting(struct step *step);

/* ---- primary.c, secondary.c: one event for a session of that role ---- */
void session_handle_primary(struct step *step);
void session_handle_secondary(struct step *step);

#endif
