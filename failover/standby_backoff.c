/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Computes how long a standby that failed is not started again: 1, 2, 4 ... 30 s, or 300 s if it is unfit. */
#include "failover/standby_backoff.h"

#define SECOND_US 1000000ll

static unsigned pause_s(unsigned failures)
{
    unsigned seconds = STANDBY_BACKOFF_FIRST_S;
    for (unsigned i = 1; i < failures && seconds < STANDBY_BACKOFF_LAST_S; i++)
        seconds *= 2;
    return seconds < STANDBY_BACKOFF_LAST_S ? seconds : STANDBY_BACKOFF_LAST_S;
}

void standby_backoff_failed(struct standby_backoff *backoff, int64_t now_us)
{
    if (now_us - backoff->failed_us > STANDBY_BACKOFF_FORGET_S * SECOND_US)
        backoff->failures = 0;
    backoff->failed_us = now_us;
    if (pause_s(backoff->failures) < STANDBY_BACKOFF_LAST_S)
        backoff->failures++;
    backoff->unfit = false;
}

void standby_backoff_unfit(struct standby_backoff *backoff, int64_t now_us)
{
    standby_backoff_failed(backoff, now_us);
    backoff->unfit = true;
}

unsigned standby_backoff_wait_s(const struct standby_backoff *backoff, int64_t now_us)
{
    if (backoff->failures == 0)
        return 0;
    unsigned seconds = backoff->unfit ? STANDBY_BACKOFF_UNFIT_S : pause_s(backoff->failures);
    int64_t left_us = backoff->failed_us + seconds * SECOND_US - now_us;
    return left_us > 0 ? (unsigned)((left_us + SECOND_US - 1) / SECOND_US) : 0;
}
