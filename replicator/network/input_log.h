/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Keeps copies of frames that the guest received. The primary sends the first frames of each epoch to the
 * secondary. At a takeover the secondary gives the guest again the frames that came after the epoch that it
 * resumes. So a request that reached the dead host is answered at once, and the client need not wait for its
 * retransmission timer (200 ms and more). Frames may come twice or be missing, as on any network; only the
 * delay depends on them. So when a limit is reached, frames are dropped.
 *
 * Threads: input_log_boundary is the capture thread's, in the pause; all else is the control thread's.
 */
#ifndef UNDERSTUDY_REPLICATOR_INPUT_LOG_H
#define UNDERSTUDY_REPLICATOR_INPUT_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct input_log;

/* Sends a copy of a frame (its length included) that the guest received by NIC nic in epoch. */
typedef void (*input_log_send)(void *opaque, unsigned nic, uint64_t epoch, const uint8_t *frame, size_t len);

/* Makes an inactive log without NICs. */
struct input_log *input_log_new(input_log_send send, void *opaque);
/* Closes the sockets and frees the log. */
void input_log_free(struct input_log *log);
/* Adds a NIC with its sockets: mirror (from QEMU) and inject (to QEMU). Takes over both on success. Returns 0
 * or -E2BIG. */
int input_log_add_nic(struct input_log *log, int mirror_fd, int inject_fd);
/* On the primary: starts or stops copying. */
void input_log_set_active(struct input_log *log, bool active);
/* Marks the end of the epoch. Capture thread, with the guest paused. */
void input_log_boundary(struct input_log *log, uint64_t epoch);
/* On the secondary: keeps a copy that came from the peer, which is untrusted. */
void input_log_received(struct input_log *log, unsigned nic, uint64_t epoch, const uint8_t *frame,
                        size_t len);
/* On the secondary: drops copies of this epoch and of earlier ones, because the epoch is acked. */
void input_log_acked(struct input_log *log, uint64_t epoch);
/* Drops all copies. */
void input_log_reset(struct input_log *log);
/* After a takeover: gives the guest the copies that are left. */
void input_log_inject(struct input_log *log);

#endif
