/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Copies of what the guest received. The primary tells the secondary of the first frames of each epoch; at
 * takeover the secondary gives the guest again those that came after the epoch it resumes. A request that
 * reached the dead host is so answered at once, without waiting for the client's retransmission timer (200 ms
 * and more). Frames may be given twice or be missing: networks do that, and nothing but the delay depends on
 * it. Hence all bounds here drop.
 *
 * Threads: input_log_boundary is the capture thread's, in the pause; the rest the control thread's.
 */
#ifndef UNDERSTUDY_REPLICATOR_INPUT_LOG_H
#define UNDERSTUDY_REPLICATOR_INPUT_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct input_log;

/* A frame (head included) that NIC nic's guest received in epoch. */
typedef void (*input_log_send)(void *opaque, unsigned nic, uint64_t epoch, const uint8_t *frame, size_t len);

struct input_log *input_log_new(input_log_send send, void *opaque);
void input_log_free(struct input_log *log);
/* Takes over both fds, when it succeeds: mirror (QEMU to us) and inject (us to QEMU). 0 or -E2BIG. */
int input_log_add_nic(struct input_log *log, int mirror_fd, int inject_fd);
/* Primary: whether copies are wanted now. */
void input_log_set_active(struct input_log *log, bool active);
void input_log_boundary(struct input_log *log, uint64_t epoch);
/* Secondary: a copy came. Untrusted. */
void input_log_received(struct input_log *log, unsigned nic, uint64_t epoch, const uint8_t *frame,
                        size_t len);
/* Secondary: the epoch is held; copies of it and before are of no more use. */
void input_log_acked(struct input_log *log, uint64_t epoch);
void input_log_reset(struct input_log *log);
/* After takeover: gives the guest what is left. */
void input_log_inject(struct input_log *log);

#endif
