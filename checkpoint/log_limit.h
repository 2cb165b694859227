/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Limits how much a guest may write to its disks ahead of what has been taken out of their logs. The limit
 * is lower where the link or the standby is slow, so that the guest's output is not held long behind its
 * writes. An epoch that is not acked LOG_LIMIT_HOLD_US after it was cut means that too much is under way:
 * then the limit goes down by an eighth an epoch, otherwise up by a step. The idea of AIMD (Chiu and Jain,
 * 1989), with the delay as signal.
 *
 * Pure: no clock, no memory but the struct. One thread.
 */
#ifndef UNDERSTUDY_REPLICATOR_LOG_LIMIT_H
#define UNDERSTUDY_REPLICATOR_LOG_LIMIT_H

#include <stdint.h>

#define LOG_LIMIT_HOLD_US 100000
/* Two epochs of a guest that writes as fast as it can: one is taken out while the next is written. */
#define LOG_LIMIT_MAX  (16u << 20)
#define LOG_LIMIT_MIN  (1u << 20) /* the longest record: less would be one write at a time */
#define LOG_LIMIT_STEP (256u << 10)

#define LOG_LIMIT_EPOCHS 64u /* more than are ever cut and not acked */

struct log_limit {
    uint64_t bytes;
    uint64_t newest; /* epoch that was cut last; 0: none */
    int64_t cut_us[LOG_LIMIT_EPOCHS];
};

void log_limit_init(struct log_limit *limit);
/* An epoch ends now: epochs go up one by one. now_us: any clock that does not go back. */
void log_limit_cut(struct log_limit *limit, uint64_t epoch, int64_t now_us);
/* The bytes of a disk's log from which on its writers wait, until the next epoch is cut. acked: the newest
 * such epoch. Once an epoch. */
uint64_t log_limit_next(struct log_limit *limit, uint64_t acked, int64_t now_us);

#endif
