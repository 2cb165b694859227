/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How long a standby that failed on this host (a full disk, one with I/O errors) is not started again. The
 * other host's daemon asks once a second; each attempt costs it a synchronisation, and guests on both hosts
 * feel it. So the pause doubles from failure to failure, up to half a minute: what has been mended is noticed
 * by then. Failures that lie apart are failures of their own. A standby that proved to be unfit is so until
 * somebody changes something here: its pause is long, since each attempt may take as long as a
 * synchronisation.
 *
 * Times are of one monotonic clock, in microseconds. No threads.
 */
#ifndef UNDERSTUDY_DAEMON_STANDBY_BACKOFF_H
#define UNDERSTUDY_DAEMON_STANDBY_BACKOFF_H

#include <stdbool.h>
#include <stdint.h>

#define STANDBY_BACKOFF_FIRST_S  1u
#define STANDBY_BACKOFF_LAST_S   30u
#define STANDBY_BACKOFF_FORGET_S 120u /* without a failure: begins anew */
#define STANDBY_BACKOFF_UNFIT_S  300u

struct standby_backoff {
    unsigned failures; /* in a row; 0: none */
    int64_t failed_us; /* the last of them */
    bool unfit;        /* and that one had nothing to do with time */
};

/* A standby has just failed. */
void standby_backoff_failed(struct standby_backoff *backoff, int64_t now_us);
/* A standby has shown that this host cannot take the VM over as it is. */
void standby_backoff_unfit(struct standby_backoff *backoff, int64_t now_us);
/* Whole seconds until the next attempt, rounded up; 0: it may be made. */
unsigned standby_backoff_wait_s(const struct standby_backoff *backoff, int64_t now_us);

#endif
