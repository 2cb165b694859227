/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Remembers when each of the last epochs was cut. If the oldest one that is not acked was cut more than
 * LOG_LIMIT_HOLD_US ago, the limit goes down by an eighth; otherwise it goes up by a step. It stays between
 * LOG_LIMIT_MIN and LOG_LIMIT_MAX.
 */
#include "checkpoint/log_limit.h"

#include <stdbool.h>

void log_limit_init(struct log_limit *limit)
{
    *limit = (struct log_limit){.bytes = LOG_LIMIT_MAX};
}

void log_limit_cut(struct log_limit *limit, uint64_t epoch, int64_t now_us)
{
    limit->newest = epoch;
    limit->cut_us[epoch % LOG_LIMIT_EPOCHS] = now_us;
}

static bool is_late(const struct log_limit *limit, uint64_t acked, int64_t now_us)
{
    uint64_t oldest = acked + 1;
    return oldest <= limit->newest && limit->newest - oldest < LOG_LIMIT_EPOCHS &&
           now_us - limit->cut_us[oldest % LOG_LIMIT_EPOCHS] > LOG_LIMIT_HOLD_US;
}

uint64_t log_limit_next(struct log_limit *limit, uint64_t acked, int64_t now_us)
{
    if (is_late(limit, acked, now_us))
        limit->bytes -= limit->bytes / 8;
    else
        limit->bytes += LOG_LIMIT_STEP;
    if (limit->bytes < LOG_LIMIT_MIN)
        limit->bytes = LOG_LIMIT_MIN;
    if (limit->bytes > LOG_LIMIT_MAX)
        limit->bytes = LOG_LIMIT_MAX;
    return limit->bytes;
}
