/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The parts of a session, from the lowest layer up. Each file calls only files that are named before it here,
 * and session_step.h.
 */
#ifndef UNDERSTUDY_FAILOVER_SESSION_PARTS_H
#define UNDERSTUDY_FAILOVER_SESSION_PARTS_H

#include "failover/session_step.h"

/* ---- output_commit.c: primary ---- */
void commit_on_cut(struct step *step);
void commit_on_sent(struct step *step);
void commit_on_ack(struct step *step);
bool commit_ack_is_overdue(const struct step *step);
/* When the checkpoint network will count as cut if nothing comes by it. UINT64_MAX: never. */
uint64_t commit_path_is_cut_at_ms(const struct session *s);
bool commit_path_is_cut(const struct step *step);

/* ---- peer_loss.c: primary ---- */
/* Handles the loss of a peer that may hold an epoch that it could promote. Enters PEER_LOST. */
void peer_loss_begin(struct step *step);
/*
 * Asks the peer by every path to let go of its image, in PEER_LOST and HANDOVER_UNSURE. gone: the peer said
 * that it has ended, or did not answer a query; then the arbiter is asked at once.
 */
void peer_loss_inquire(struct step *step, bool gone);
/* Handles one event while the peer's answer is awaited. */
void peer_loss_await_answer(struct step *step);
/* Handles a heartbeat, which may be the peer's answer. */
void peer_loss_weigh_answer(struct step *step);
/* Acts on the grant: releases all output, and looks for a new peer. */
void peer_loss_run_alone(struct step *step);
/* Stops tracking changes for a standby's image, because no standby has returned for it. */
void peer_loss_give_image_up(struct step *step);
/* Handles one event in PEER_LOST. */
void peer_loss_handle(struct step *step);

/* ---- handover.c: primary ---- */
/* Begins a planned failover: orders the last epoch. Enters HANDING_OVER. */
void handover_begin(struct step *step);
/* Ends this side, because the peer runs the guest. */
void handover_finish(struct step *step);
/* Handle one event in HANDING_OVER, in HANDOVER_UNSURE. */
void handover_handle(struct step *step);
void handover_unsure_handle(struct step *step);

/* ---- leave.c: primary ---- */
/* Handles an event for a primary whose host goes down. True if no other handler may see the event. */
bool leave_handle(struct step *step);
/* Takes the next step of leaving. Called after each event. */
void leave_go_on(struct step *step);

/* ---- disk_turns.c: see disk_turns.h ---- */

/* ---- term_record.c ---- */
/* Orders a new term to be written to disk, and holds back the releases that have to wait for it. Called after
 * the session and disk_turns_order have decided. */
void term_record_order(struct step *step, uint64_t term_before);
/* Handles TERM_KEPT: adds the releases that waited for the term. */
void term_record_kept(struct step *step);

/* ---- takeover.c: secondary ---- */
/* Asks the arbiter for a term. This side acks nothing from here on. Enters ASKING. */
void takeover_begin(struct step *step, bool keep_link);
/* Handle one event in ASKING, in PROMOTING. */
void takeover_handle_asking(struct step *step);
void takeover_handle_promoting(struct step *step);

/* ---- primary.c, secondary.c: handle one event for a session of that role ---- */
void session_handle_primary(struct step *step);
void session_handle_secondary(struct step *step);

#endif
